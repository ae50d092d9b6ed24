//! Clients that mean harm, or do it anyway: what each costs in time and in
//! memory, while a client of another address checks its echoes.
//!
//! The bounds are those of the README's table of limits.

mod floods;
mod halves;
mod marks;
mod peers;
mod readers;
mod resets;
mod silent;
mod slow;

use crate::assert_none;
use crate::harness::{Ended, Server, eventually};
use std::io::{ErrorKind, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

/// Resident memory that a connection may cost whose client does as it likes:
/// its thread, and one buffer of 60 KiB. Twice what was measured.
const COST: u64 = 192 * 1024;
/// A client that is taken nothing from for so long is stuck.
const STUCK: Duration = Duration::from_secs(1);
/// Beyond what is promised: a slow machine's own. Where the promise is broken it
/// takes minutes, or for ever.
const SLACK: Duration = Duration::from_secs(30);
/// Long enough for any machine to end thousands in order.
const DRAIN: [&str; 2] = ["--drain-timeout", "1m"];

/// Sends on all and never reads, until each has sent `most`, nothing is taken any
/// more, or one is gone. The fewest and the most bytes that were taken.
fn stuff(clients: &[TcpStream], most: usize) -> (usize, usize) {
    let block = [b'x'; 64 * 1024];
    let mut sent = vec![0; clients.len()];
    let mut last = Instant::now();
    let mut gone = 0;
    while last.elapsed() < STUCK && gone == 0 && sent.iter().any(|&sent| sent < most) {
        for (mut client, sent) in clients.iter().zip(&mut sent) {
            client.set_nonblocking(true).unwrap();
            let length = block.len().min(most - *sent);
            match client.write(&block[..length]) {
                Ok(taken) if taken > 0 => {
                    *sent += taken;
                    last = Instant::now();
                }
                Err(error) if error.kind() != ErrorKind::WouldBlock => gone += 1,
                _ => {}
            }
            client.set_nonblocking(false).unwrap();
        }
    }
    (*sent.iter().min().unwrap(), *sent.iter().max().unwrap())
}

/// Waits until the log of a server under `-v` says so often that a connection
/// ended like this.
fn await_ends(server: &Server, outcome: &str, times: usize) {
    let line = format!("bytes out: {outcome}");
    eventually(&format!("{times} times {outcome:?}"), || {
        server.stderr().matches(&line).count() >= times
    });
}

/// Every connection is counted once, and what was lost is what is missing.
#[track_caller]
fn assert_sums(ended: &Ended) {
    let (read, sent) = (ended.count("bytes_in"), ended.count("bytes_out"));
    assert_eq!(ended.count("bytes_lost"), read - sent, "{ended:?}");
    let ends = ["drained", "cut", "reset", "idle", "expired"];
    let counted: u64 = ends.iter().map(|key| ended.count(key)).sum();
    assert!(counted <= ended.count("accepted"), "{ended:?}");
    assert_none(ended, &["panicked", "failed", "refused"]);
}
