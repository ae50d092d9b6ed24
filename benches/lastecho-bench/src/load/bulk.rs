//! As many bytes as will go through: a thread that writes and one that reads
//! per connection.

use super::{PATIENCE, Seen, gather};
use crate::pattern::{self, LONGEST};
use crate::window::Window;
use anyhow::Result;
use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

/// How long the reader waits before it looks whether all is back.
const GLANCE: Duration = Duration::from_millis(100);
/// The writer has not ended yet.
const MORE: u64 = u64::MAX;

pub(super) fn drive(streams: &[TcpStream], window: &Window) -> Result<Seen> {
    for stream in streams {
        stream.set_read_timeout(Some(GLANCE))?;
    }
    let totals: Vec<AtomicU64> = streams.iter().map(|_| AtomicU64::new(MORE)).collect();
    let all = streams.iter().zip(&totals).enumerate();
    Ok(std::thread::scope(|scope| {
        let mut clients = Vec::new();
        for (index, (stream, total)) in all {
            let start = pattern::start(index);
            clients.push(scope.spawn(move || write(stream, start, total, window)));
            clients.push(scope.spawn(move || read(stream, start, total, window)));
        }
        window.begin();
        gather(clients)
    }))
}

/// Writes until the window is over and leaves word of how much it was.
fn write(mut stream: &TcpStream, start: u64, total: &AtomicU64, window: &Window) -> Seen {
    let mut seen = Seen::default();
    let mut sent = 0;
    while !window.is_over() {
        match stream.write(pattern::at(start + sent, LONGEST)) {
            Ok(count) => sent += count as u64,
            Err(_) => {
                seen.failed += 1;
                break;
            }
        }
    }
    total.store(sent, Relaxed);
    seen
}

/// Reads until all is back that was sent, or for too long nothing came.
fn read(mut stream: &TcpStream, start: u64, total: &AtomicU64, window: &Window) -> Seen {
    let mut seen = Seen::default();
    let mut buffer = vec![0; LONGEST];
    let mut received = 0;
    let mut last = Instant::now();
    while received < total.load(Relaxed) && !is_hopeless(total, last) {
        match stream.read(&mut buffer) {
            Ok(count @ 1..) => {
                seen.wrong += pattern::wrong(start + received, &buffer[..count]);
                received += count as u64;
                seen.count += if window.is_open() { count as u64 } else { 0 };
                last = Instant::now();
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            Ok(_) | Err(_) => break,
        }
    }
    // After an early end the writer will notice and say how much there was.
    while total.load(Relaxed) == MORE {
        std::thread::sleep(GLANCE);
    }
    seen.lost = total.load(Relaxed).saturating_sub(received);
    seen
}

/// The writer has ended and nothing comes any more.
fn is_hopeless(total: &AtomicU64, last: Instant) -> bool {
    total.load(Relaxed) != MORE && last.elapsed() > PATIENCE
}
