//! What bounds lastecho: a thread per connection that reads and writes with the
//! same calls, looks before it sleeps and takes turns as lastecho's threads do,
//! and keeps no promise. The difference is what the promises cost.

#[allow(dead_code, unexpected_cfgs)]
#[path = "../../../../src/eager.rs"]
mod eager;
#[allow(dead_code, unexpected_cfgs, unused_imports)]
#[path = "../../../../src/sync.rs"]
mod sync;
#[allow(dead_code, unexpected_cfgs)]
#[path = "../../../../src/sys.rs"]
mod sys;

use clap::Parser;
use std::io;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::thread;

/// As long as lastecho's, so that no peer loses clients in its accept queue.
const BACKLOG: i32 = 4096;
/// As large as lastecho's.
const BUFFER: usize = 61_440;

/// Echoes with a thread per connection.
#[derive(Parser)]
struct Options {
    /// Where to listen
    #[arg(value_name = "IP:PORT")]
    address: SocketAddr,
}

fn main() -> io::Result<()> {
    let options = Options::parse();
    let listener = TcpListener::bind(options.address)?;
    rustix::net::listen(&listener, BACKLOG)?;
    sys::take_turns();
    loop {
        let (client, _) = listener.accept()?;
        thread::Builder::new().spawn(move || {
            let mut buffer = vec![0; BUFFER];
            // The client is gone, or its connection.
            let _ = echo(&client, &mut buffer);
        })?;
    }
}

fn echo(client: &TcpStream, buffer: &mut [u8]) -> io::Result<()> {
    client.set_nodelay(true)?;
    let mut eager = eager::Eager::default();
    loop {
        let mut rest = match eager.recv(client, buffer)? {
            0 => return Ok(()),
            count => &buffer[..count],
        };
        while !rest.is_empty() {
            rest = &rest[sys::send(client, rest)?..];
        }
    }
}
