//! The control: the 2013 program's way to stop, behind lastecho's command line
//! and output lines.
//!
//! A stop flag and deadlines on accept, read and write, but: plain close, no
//! look at the accept queue, `write_all` over a socket with a timeout, one
//! `unwrap` where an error should stay with its connection, no drain deadline,
//! no second signal, and sums that trust `write`. Every test of a promise must
//! see this program fail; a test that it passes shows nothing.
//!
//! (The original also echoes its whole buffer instead of what it read. That
//! fault is mended here, or every test would fail for that reason alone.)

#![allow(clippy::unwrap_used, clippy::print_stdout, clippy::print_stderr)]

#[allow(dead_code)] // it reads fewer options than there are
#[path = "../../src/bin/lastecho/cli.rs"]
mod cli;

use cli::{Address, Options};
use socket2::{Domain, Socket, Type};
use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::thread;
use std::time::Instant;

fn complain(message: &str) {
    eprintln!("control: {message}");
}

#[derive(Default)]
struct Counts {
    accepted: AtomicU64,
    live: AtomicU64,
    ended: AtomicU64,
    bytes_in: AtomicU64,
    bytes_out: AtomicU64,
}

fn main() {
    let options = Options::parse_or_exit(complain);
    let stop = Arc::new(AtomicBool::new(false));
    for signal in lastecho::signals::STOP_SIGNALS {
        signal_hook::flag::register(signal, Arc::clone(&stop)).unwrap();
    }
    let Some(Address::One(address)) = options.addresses().first().cloned() else {
        panic!("the control listens on one plain address");
    };
    let listener = Socket::new(Domain::for_address(address), Type::STREAM, None).unwrap();
    listener.set_reuse_address(true).unwrap();
    listener.bind(&address.into()).unwrap();
    listener.listen(4096).unwrap();
    listener.set_read_timeout(Some(options.poll)).unwrap();
    let address = listener.local_addr().unwrap().as_socket().unwrap();
    println!("listening on {address}");

    let counts = Counts::default();
    let mut seen = Instant::now();
    let mut drained = 0;
    thread::scope(|scope| {
        while !stop.load(SeqCst) {
            match listener.accept() {
                Ok((socket, _)) => {
                    counts.accepted.fetch_add(1, SeqCst);
                    scope.spawn(|| {
                        counts.live.fetch_add(1, SeqCst); // inside the thread: the original's race
                        echo(socket.into(), &stop, &options, &counts);
                        counts.live.fetch_sub(1, SeqCst);
                        let ended = counts.ended.fetch_add(1, SeqCst) + 1;
                        if options.exit_after.is_some_and(|most| ended >= most.get()) {
                            stop.store(true, SeqCst);
                        }
                    });
                }
                Err(e)
                    if e.kind() == ErrorKind::WouldBlock || e.kind() == ErrorKind::Interrupted => {}
                Err(error) => panic!("accept: {error}"),
            }
        }
        drop(listener);
        seen = Instant::now();
        drained = counts.live.load(SeqCst);
    });
    let (bytes_in, bytes_out) = (counts.bytes_in.load(SeqCst), counts.bytes_out.load(SeqCst));
    println!(
        "stopped clean=true accepted={} drained={drained} cut=0 refused=0 panicked=0 bytes_in={bytes_in} \
         bytes_out={bytes_out} bytes_lost={} elapsed_ms={}",
        counts.accepted.load(SeqCst),
        bytes_in - bytes_out,
        seen.elapsed().as_millis()
    );
}

fn echo(mut socket: TcpStream, stop: &AtomicBool, options: &Options, counts: &Counts) {
    socket.set_read_timeout(Some(options.poll)).unwrap();
    socket.set_write_timeout(Some(options.poll)).unwrap();
    let mut buffer = vec![0; options.buffer];
    while !stop.load(SeqCst) {
        match socket.read(&mut buffer) {
            Ok(0) => return,
            Ok(count) => {
                counts.bytes_in.fetch_add(count as u64, SeqCst);
                thread::sleep(options.delay);
                socket.write_all(&buffer[..count]).unwrap();
                counts.bytes_out.fetch_add(count as u64, SeqCst);
            }
            Err(e) if e.kind() == ErrorKind::WouldBlock || e.kind() == ErrorKind::Interrupted => {}
            Err(error) => panic!("read: {error}"),
        }
    }
}
