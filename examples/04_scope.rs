//! # 4. A scope that waits for its threads
//!
//! - Idea: a thread scope ends when all of its threads have ended.
//! - Run: `cargo run --example 04_scope`, and in another terminal `nc 127.0.0.1 48879`.
//!   Type `hello` there; when this one says `working`, press Ctrl-C here.
//! - You see: `hello` comes back. But it ends only when you press Ctrl-C in nc, too.
//! - Still wrong: one idle client, blocked in read, holds the exit for ever.

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
    thread::scope(|scope| {
        while !stop.load(SeqCst) {
            match listener.accept() {
                Ok((client, _)) => drop(scope.spawn(|| echo(client))),
                Err(_) => thread::sleep(Duration::from_millis(10)), // no spinning while it fails
            }
        }
        drop(listener); // refuses new clients
    });
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
