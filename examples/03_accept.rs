//! # 3. A timeout for accept
//!
//! - Idea: accept waits 200 ms at most, then the flag is looked at.
//! - Run: `cargo run --example 03_accept`, and in another terminal `nc 127.0.0.1 48879`.
//!   Type `hello` there; when this one says `working`, press Ctrl-C here.
//! - You see: it says `stopped` at once. But no `hello` came back.
//! - Still wrong: nobody waits for the threads; they die with the process, in mid-echo.

#![allow(clippy::print_stdout, clippy::print_stderr)] // it talks to you

use signal_hook::{consts, flag};
use socket2::SockRef;
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
    while !stop.load(SeqCst) {
        match listener.accept() {
            Ok((client, _)) => drop(thread::spawn(|| echo(client))),
            Err(_) => thread::sleep(Duration::from_millis(10)), // no spinning while it fails
        }
    }
    println!("stopped");
    Ok(())
}

/// Serves one client to its end; an error ends this client only.
fn echo(mut client: TcpStream) -> io::Result<()> {
    client.set_read_timeout(None)?; // Linux hands down the listener's
    let (mut buffer, mut echoed) = ([0; 4096], 0);
    loop {
        match client.read(&mut buffer)? {
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
