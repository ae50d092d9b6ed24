//! A way out for lines that never blocks who writes them.

use std::fs::File;
use std::io::{self, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread;
use std::time::Duration;

/// Lines that may wait for a slow reader; further ones are dropped and counted.
const MOST_LINES: usize = 4096;

/// Lines on their way to a file, a pipe or a terminal.
///
/// A thread of its own writes them, so a reader that stalls, a pipe that broke
/// and a disk that is full cost lines, never a wait. Clones share that thread.
pub(crate) struct Outlet {
    sender: SyncSender<Message>,
    dropped: Arc<AtomicU64>,
    line: Vec<u8>,
}

enum Message {
    Line(Vec<u8>),
    /// Everything before this was written.
    Flushed(SyncSender<()>),
}

impl Outlet {
    pub(crate) fn new(target: File) -> io::Result<Self> {
        let (sender, receiver) = sync_channel(MOST_LINES);
        let dropped = Arc::new(AtomicU64::new(0));
        let counted = Arc::clone(&dropped);
        thread::Builder::new()
            .name("outlet".into())
            .stack_size(128 * 1024)
            .spawn(move || pour(&receiver, target, &counted))?;
        Ok(Self {
            sender,
            dropped,
            line: Vec::new(),
        })
    }

    /// Queues a line; drops and counts it where the queue is full.
    pub(crate) fn line(&self, mut line: Vec<u8>) {
        line.push(b'\n');
        if self.sender.try_send(Message::Line(line)).is_err() {
            self.dropped.fetch_add(1, Relaxed);
        }
    }

    /// Waits until everything queued so far was written, at most so long.
    pub(crate) fn flush_within(&self, longest: Duration) {
        let (sender, done) = sync_channel(1);
        if self.sender.try_send(Message::Flushed(sender)).is_ok() {
            let _ = done.recv_timeout(longest);
        }
    }
}

impl Clone for Outlet {
    fn clone(&self) -> Self {
        Self {
            sender: self.sender.clone(),
            dropped: Arc::clone(&self.dropped),
            line: Vec::new(),
        }
    }
}

impl Write for Outlet {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        for part in buf.split_inclusive(|&byte| byte == b'\n') {
            match part.split_last() {
                Some((b'\n', rest)) => {
                    self.line.extend_from_slice(rest);
                    let line = std::mem::take(&mut self.line);
                    self.line(line);
                }
                _ => self.line.extend_from_slice(part),
            }
        }
        Ok(buf.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Writes what arrives until every sender is gone. What cannot be written is lost.
fn pour(receiver: &Receiver<Message>, mut target: File, dropped: &AtomicU64) {
    for message in receiver {
        match message {
            Message::Line(line) => {
                let _ = target.write_all(&line);
            }
            Message::Flushed(done) => {
                let _ = done.send(());
            }
        }
        match dropped.swap(0, Relaxed) {
            0 => {}
            count => {
                let _ = writeln!(target, "({count} lines dropped: their reader was too slow)");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read;
    use std::os::fd::OwnedFd;

    fn pipe() -> (io::PipeReader, File) {
        let (reader, writer) = io::pipe().unwrap();
        (reader, File::from(OwnedFd::from(writer)))
    }

    #[test]
    fn lines_arrive_whole_and_in_order() {
        let (mut reader, writer) = pipe();
        let mut outlet = Outlet::new(writer).unwrap();
        outlet.write_all(b"one\ntw").unwrap();
        outlet.write_all(b"o\n").unwrap();
        outlet.flush_within(Duration::from_secs(10));
        drop(outlet);
        let mut text = String::new();
        reader.read_to_string(&mut text).unwrap();
        assert_eq!(text, "one\ntwo\n");
    }

    #[test]
    fn a_reader_that_stalls_costs_lines_and_is_told_how_many() {
        let (mut reader, writer) = pipe();
        let outlet = Outlet::new(writer).unwrap();
        for _ in 0..2 * MOST_LINES {
            outlet.line(vec![b'x'; 64]); // far more than pipe and queue hold
        }
        outlet.flush_within(Duration::from_millis(10));
        drop(outlet);
        let mut text = String::new();
        reader.read_to_string(&mut text).unwrap();
        let lines = text.lines().filter(|line| line.starts_with('x')).count();
        let dropped: usize = text
            .lines()
            .filter_map(|line| {
                line.strip_prefix('(')?
                    .split(' ')
                    .next()?
                    .parse::<usize>()
                    .ok()
            })
            .sum();
        assert!(dropped > 0);
        assert_eq!(lines + dropped, 2 * MOST_LINES);
    }

    #[test]
    fn a_reader_that_is_gone_costs_nothing_but_lines() {
        let (reader, writer) = pipe();
        drop(reader);
        let outlet = Outlet::new(writer).unwrap();
        outlet.line(b"lost".to_vec());
        outlet.flush_within(Duration::from_secs(10));
    }
}
