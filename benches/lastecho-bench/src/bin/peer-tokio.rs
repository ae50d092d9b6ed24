//! An echo server on tokio, to measure against: one task per connection that
//! reads into a buffer and writes all of it back.

use clap::{Parser, ValueEnum};
use std::io;
use std::net::SocketAddr;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::runtime::Builder;

/// As long as lastecho's, so that no peer loses clients in its accept queue.
const BACKLOG: u32 = 4096;

/// Echoes with one tokio task per connection.
#[derive(Parser)]
struct Options {
    /// Where to listen
    #[arg(value_name = "IP:PORT")]
    address: SocketAddr,

    /// Which of tokio's runtimes to use
    #[arg(long, value_enum, default_value = "multi")]
    flavor: Flavor,

    /// Bytes of buffer per connection
    #[arg(long, value_name = "BYTES", default_value_t = 4096)]
    buffer: usize,
}

#[derive(Clone, Copy, ValueEnum)]
enum Flavor {
    Current,
    Multi,
}

fn main() -> io::Result<()> {
    let options = Options::parse();
    let mut builder = match options.flavor {
        Flavor::Current => Builder::new_current_thread(),
        Flavor::Multi => Builder::new_multi_thread(),
    };
    builder.enable_io().build()?.block_on(serve(&options))
}

async fn serve(options: &Options) -> io::Result<()> {
    let socket = if options.address.is_ipv4() {
        TcpSocket::new_v4()
    } else {
        TcpSocket::new_v6()
    }?;
    socket.set_reuseaddr(true)?;
    socket.bind(options.address)?;
    let listener = socket.listen(BACKLOG)?;
    let buffer = options.buffer;
    loop {
        let (client, _) = listener.accept().await?;
        // A client's reset ends its own connection only.
        tokio::spawn(async move { echo(client, buffer).await.ok() });
    }
}

async fn echo(mut client: TcpStream, buffer: usize) -> io::Result<()> {
    client.set_nodelay(true)?;
    let mut buffer = vec![0; buffer];
    loop {
        let count = client.read(&mut buffer).await?;
        if count == 0 {
            return Ok(());
        }
        client.write_all(&buffer[..count]).await?;
    }
}
