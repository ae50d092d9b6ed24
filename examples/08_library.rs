//! # 8. The same on the library
//!
//! - Idea: the echo of step 1, and a server that knows all of this.
//! - Run: `cargo run --example 08_library`, and in another terminal `nc 127.0.0.1 48879`.
//!   Type `hello` and `again` there, and within 2 s press Ctrl-C here.
//! - You see: both come back, where step 7 throws `again` away. Then it ends, and tells a report.
//! - Still wrong: what README.md lists under Limitations.

#![allow(clippy::print_stdout, clippy::print_stderr)] // it talks to you

use lastecho::{Connection, Server, Stop, signals};
use std::io::{self, Write};
use std::thread;
use std::time::Duration;

const WORK: Duration = Duration::from_secs(2); // for a client's first request
const POLL: Duration = Duration::from_millis(200); // the longest wait without a look at the flag
const DRAIN: Duration = Duration::from_secs(4); // the longest that a stop may take

fn main() -> anyhow::Result<()> {
    let address = std::env::args().nth(1);
    let server = Server::bind(address.as_deref().unwrap_or("127.0.0.1:48879"))?;
    let stop = Stop::new();
    let _signals = signals::install(&stop)?;
    println!("listening on {}", server.live().addresses()[0]);
    let server = server.poll(POLL).drain_timeout(DRAIN);
    let report = server.run(&stop, echo)?;
    println!("stopped {report}");
    std::process::exit(if report.is_clean() { 0 } else { 3 })
}

/// Serves one client to its end; an error ends this client only.
fn echo(client: &mut Connection) -> io::Result<()> {
    let (mut buffer, mut echoed) = ([0; 4096], 0);
    loop {
        match client.receive(&mut buffer)? {
            0 => break,
            count => {
                if echoed == 0 {
                    eprintln!("working");
                    thread::sleep(WORK);
                }
                client.write_all(&buffer[..count])?;
                echoed += count;
            }
        }
    }
    eprintln!("echoed {echoed} bytes");
    Ok(())
}
