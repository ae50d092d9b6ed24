//! # 1. A thread for each client
//!
//! - Idea: accept a client, give it a thread, send back what it sends.
//! - Run: `cargo run --example 01_naive`, and in another terminal `nc 127.0.0.1 48879`.
//!   Type `hello` there; when this one says `working`, press Ctrl-C here.
//! - You see: it is gone at once, and `hello` never came back.
//! - Still wrong: Ctrl-C kills a client in mid-echo.

#![allow(clippy::print_stdout, clippy::print_stderr)] // it talks to you

use std::io::{self, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::thread;
use std::time::Duration;

const WORK: Duration = Duration::from_secs(2); // for a client's first request

fn main() -> anyhow::Result<()> {
    let address = std::env::args().nth(1);
    let listener = TcpListener::bind(address.as_deref().unwrap_or("127.0.0.1:48879"))?;
    println!("listening on {}", listener.local_addr()?);
    loop {
        match listener.accept() {
            Ok((client, _)) => drop(thread::spawn(|| echo(client))),
            Err(_) => thread::sleep(Duration::from_millis(10)), // no spinning while it fails
        }
    }
}

/// Serves one client to its end; an error ends this client only.
fn echo(mut client: TcpStream) -> io::Result<()> {
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
