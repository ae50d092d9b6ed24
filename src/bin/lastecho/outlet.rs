//! A way out for lines that never blocks who writes them.

use std::fs::File;
use std::io::{self, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;
use std::time::Duration;

/// Bytes that may wait for a slow reader; further lines are dropped and counted.
const MOST_BYTES: usize = 4 << 20;

/// Lines on their way to a file, a pipe or a terminal.
///
/// A thread of its own writes them, so a reader that stalls, a pipe that broke
/// and a disk that is full cost lines, never a wait. Clones share that thread.
pub(crate) struct Outlet {
    sender: Sender<Message>,
    queued: Arc<Queued>,
    begun: Vec<u8>,
}

#[derive(Default)]
struct Queued {
    bytes: AtomicUsize,
    dropped: AtomicUsize,
}

enum Message {
    /// One line, or several that belong together.
    Lines(Vec<u8>),
    /// Everything before this was written.
    Flushed(Sender<()>),
}

impl Outlet {
    pub(crate) fn new(target: File) -> io::Result<Self> {
        let (sender, receiver) = channel();
        let queued = Arc::new(Queued::default());
        let shared = Arc::clone(&queued);
        thread::Builder::new()
            .name("outlet".into())
            .stack_size(128 * 1024)
            .spawn(move || pour(&receiver, target, &shared))?;
        Ok(Self {
            sender,
            queued,
            begun: Vec::new(),
        })
    }

    /// Queues a line; drops and counts it where too much waits already.
    pub(crate) fn line(&self, line: &str) {
        self.queue(format!("{line}\n").into_bytes());
    }

    fn queue(&self, lines: Vec<u8>) {
        // Relaxed: two numbers of their own; a few lines too many do no harm.
        let waiting = self.queued.bytes.fetch_add(lines.len(), Relaxed);
        if waiting > MOST_BYTES {
            self.queued.bytes.fetch_sub(lines.len(), Relaxed);
            self.queued.dropped.fetch_add(1, Relaxed);
        } else {
            let _ = self.sender.send(Message::Lines(lines));
        }
    }

    /// Waits until everything queued so far was written, at most so long.
    pub(crate) fn flush_within(&self, longest: Duration) {
        let (sender, done) = channel();
        if self.sender.send(Message::Flushed(sender)).is_ok() {
            let _ = done.recv_timeout(longest);
        }
    }
}

impl Clone for Outlet {
    fn clone(&self) -> Self {
        Self {
            sender: self.sender.clone(),
            queued: Arc::clone(&self.queued),
            begun: Vec::new(),
        }
    }
}

impl Write for Outlet {
    /// A record may come in several writes; the one that ends it ends a line.
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        self.begun.extend_from_slice(buf);
        if buf.ends_with(b"\n") {
            let record = std::mem::take(&mut self.begun);
            self.queue(record);
        }
        Ok(buf.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Writes what arrives until every sender is gone. What cannot be written is lost.
fn pour(receiver: &Receiver<Message>, mut target: File, queued: &Queued) {
    for message in receiver {
        match message {
            Message::Lines(lines) => {
                let _ = target.write_all(&lines);
                queued.bytes.fetch_sub(lines.len(), Relaxed);
            }
            Message::Flushed(done) => {
                let _ = done.send(());
            }
        }
        match queued.dropped.swap(0, Relaxed) {
            0 => {}
            count => {
                let _ = writeln!(target, "(dropped while nobody read: {count})");
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
        let (line, count) = ("x".repeat(1023), 3 * MOST_BYTES / 1024);
        for _ in 0..count {
            outlet.line(&line); // far more than pipe and queue hold
        }
        outlet.flush_within(Duration::from_millis(10));
        drop(outlet);
        let mut text = String::new();
        reader.read_to_string(&mut text).unwrap();
        let told = |line: &str| {
            line.strip_prefix("(dropped while nobody read: ")?
                .strip_suffix(')')?
                .parse::<usize>()
                .ok()
        };
        let dropped: usize = text.lines().filter_map(told).sum();
        let written = text.lines().filter(|&written| written == line).count();
        assert!(dropped > 0);
        assert_eq!(written + dropped, count);
    }

    #[test]
    fn a_reader_that_is_gone_costs_nothing_but_lines() {
        let (reader, writer) = pipe();
        drop(reader);
        let outlet = Outlet::new(writer).unwrap();
        outlet.line("lost");
        outlet.flush_within(Duration::from_secs(10));
    }
}
