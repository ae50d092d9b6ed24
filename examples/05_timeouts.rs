//! # 5. Timeouts for read and write
//!
//! - Idea: a read or write waits 200 ms at most, too; what was read is still echoed.
//! - Run: `cargo run --example 05_timeouts`, and in another terminal
//!   `bash -c 'exec 3<>/dev/tcp/127.0.0.1/48879; seq 2000000 >&3 & sleep 8; (head -c 2000000; sleep 1; cat) <&3 | wc -c'`,
//!   a client that sends more than it reads, and reads slowly. 4 s later press Ctrl-C here.
//! - You see: an idle nc holds it no more. But this client is reset, and `wc` counts less
//!   than was echoed.
//! - Still wrong: close with unread input is a reset, which destroys echoes on their way.

#![allow(clippy::print_stdout, clippy::print_stderr)] // it talks to you

use signal_hook::{consts, flag};
use socket2::SockRef;
use std::io::ErrorKind::{Interrupted, WouldBlock};
use std::io::{self, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::thread;
use std::time::Duration;

const WORK: Duration = Duration::from_secs(2); // for a client's first request
const POLL: Duration = Duration::from_millis(200); // the longest wait without a look at the flag

fn main() -> anyhow::Result<()> {
    let address = std::env::args().nth(1);
    let listener = TcpListener::bind(address.as_deref().unwrap_or("127.0.0.1:48879"))?;
    SockRef::from(&listener).set_read_timeout(Some(POLL))?; // Linux: accept heeds it
    let stop = Arc::new(AtomicBool::new(false));
    flag::register(consts::SIGINT, Arc::clone(&stop))?;
    flag::register(consts::SIGTERM, Arc::clone(&stop))?;
    println!("listening on {}", listener.local_addr()?);
    thread::scope(|scope| {
        while !stop.load(SeqCst) {
            match listener.accept() {
                Ok((client, _)) => drop(scope.spawn(|| echo(client, &stop))),
                Err(_) => thread::sleep(Duration::from_millis(10)), // no spinning while it fails
            }
        }
        drop(listener); // refuses new clients
    });
    println!("stopped");
    Ok(())
}

/// Serves one client to its end; an error ends this client only.
fn echo(mut client: TcpStream, stop: &AtomicBool) -> io::Result<()> {
    client.set_read_timeout(Some(POLL))?;
    client.set_write_timeout(Some(POLL))?;
    let (mut buffer, mut echoed) = ([0; 4096], 0);
    while !stop.load(SeqCst) {
        match moved(client.read(&mut buffer))? {
            None => {}
            Some(0) => break,
            Some(count) => {
                if echoed == 0 {
                    eprintln!("working");
                    thread::sleep(WORK);
                }
                let mut rest = &buffer[..count];
                while !rest.is_empty() {
                    rest = &rest[moved(client.write(rest))?.unwrap_or(0)..];
                }
                echoed += count;
            }
        }
    }
    eprintln!("echoed {echoed} bytes");
    Ok(())
}

/// How many bytes a read or write moved; `None` if its timeout passed first.
fn moved(result: io::Result<usize>) -> io::Result<Option<usize>> {
    match result {
        Err(error) if matches!(error.kind(), WouldBlock | Interrupted) => Ok(None),
        result => result.map(Some),
    }
}
