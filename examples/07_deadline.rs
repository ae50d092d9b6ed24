//! # 7. A deadline for the stop
//!
//! - Idea: a stop may take 4 s; then what is left is cut, counted and told.
//! - Run: `cargo run --example 07_deadline`, and in another terminal
//!   `bash -c 'seq 2000000 >/dev/tcp/127.0.0.1/48879'`. 4 s later press Ctrl-C here.
//! - You see: 4 s after that it ends, tells `cut=1`, and its exit status is 3.
//! - Still wrong: what has arrived, but was not read before the stop, is thrown away;
//!   clients that nobody has accepted yet are reset.

#![allow(clippy::print_stdout, clippy::print_stderr)] // it talks to you

use signal_hook::{consts, flag};
use socket2::SockRef;
use std::io::ErrorKind::{Interrupted, TimedOut, WouldBlock};
use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::thread;
use std::time::{Duration, Instant};

const WORK: Duration = Duration::from_secs(2); // for a client's first request
const POLL: Duration = Duration::from_millis(200); // the longest wait without a look at the flag
const QUIET: Duration = Duration::from_millis(250); // then a client has nothing more in flight
const DRAIN: Duration = Duration::from_secs(4); // the longest that a stop may take

fn main() -> anyhow::Result<()> {
    let address = std::env::args().nth(1);
    let listener = TcpListener::bind(address.as_deref().unwrap_or("127.0.0.1:48879"))?;
    SockRef::from(&listener).set_read_timeout(Some(POLL))?; // Linux: accept heeds it
    let stop = Arc::new(AtomicBool::new(false));
    flag::register(consts::SIGINT, Arc::clone(&stop))?;
    flag::register(consts::SIGTERM, Arc::clone(&stop))?;
    println!("listening on {}", listener.local_addr()?);
    let (deadline, cut) = (OnceLock::new(), AtomicU64::new(0));
    thread::scope(|scope| {
        while !stop.load(SeqCst) {
            match listener.accept() {
                Ok((client, _)) => drop(scope.spawn(|| match echo(client, &stop, &deadline) {
                    Err(error) if error.kind() == TimedOut => cut.fetch_add(1, SeqCst),
                    _ => 0, // any other error is its client's
                })),
                Err(_) => thread::sleep(Duration::from_millis(10)), // no spinning while it fails
            }
        }
        drop(listener); // refuses new clients
        deadline.get_or_init(|| Instant::now() + DRAIN);
    });
    println!("stopped cut={cut:?}");
    std::process::exit(if cut.into_inner() == 0 { 0 } else { 3 })
}

/// Serves one client to its end; an error ends this client only.
fn echo(mut client: TcpStream, stop: &AtomicBool, deadline: &OnceLock<Instant>) -> io::Result<()> {
    client.set_read_timeout(Some(POLL))?;
    client.set_write_timeout(Some(POLL))?;
    let (mut buffer, mut echoed) = ([0; 4096], 0);
    while !stop.load(SeqCst) {
        match moved(client.read(&mut buffer), deadline)? {
            None => {}
            Some(0) => break,
            Some(count) => {
                if echoed == 0 {
                    eprintln!("working");
                    thread::sleep(WORK);
                }
                let mut rest = &buffer[..count];
                while !rest.is_empty() {
                    rest = &rest[moved(client.write(rest), deadline)?.unwrap_or(0)..];
                }
                echoed += count;
            }
        }
    }
    eprintln!("echoed {echoed} bytes");
    client.shutdown(Shutdown::Write)?; // FIN, after the last echo
    client.set_read_timeout(Some(QUIET))?;
    while moved(client.read(&mut buffer), deadline)?.is_some_and(|count| count > 0) {}
    Ok(())
}

/// How many bytes a read or write moved; `None` if its timeout passed first.
fn moved(result: io::Result<usize>, deadline: &OnceLock<Instant>) -> io::Result<Option<usize>> {
    match result {
        _ if deadline.get().is_some_and(|at| Instant::now() > *at) => Err(TimedOut.into()),
        Err(error) if matches!(error.kind(), WouldBlock | Interrupted) => Ok(None),
        result => result.map(Some),
    }
}
