//! A writer that never blocks who writes to it, for logs and progress lines.
//!
//! A log on standard error waits for its reader: where nothing reads a full
//! pipe, every thread that logs stands still, and no stop ends. A
//! [`NonBlockingWriter`] hands its lines to a thread of its own. A reader that
//! is slow or gone and a disk that is full cost lines, which are counted, and
//! never a wait.
//!
//! It is for lines that may be lost. A result that must not be lost is written
//! where its failure is seen, with [`WholeLines`] for example.

use crate::deadline::Deadline;
use crate::escape::{escaped, escaped_lines};
use crate::sys;
use crate::whole_lines::WholeLines;
use std::fmt;
use std::fs::File;
use std::io::{self, ErrorKind, Write};
use std::os::fd::AsFd;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread;
use std::time::Duration;

/// Bytes that may wait for a slow reader; further lines are dropped and counted.
const MOST_BYTES: usize = 4 << 20;
/// What a line costs beside its bytes, while it waits.
const OVERHEAD: usize = 64;
/// What writing lines needs, with room to spare.
const STACK: usize = 128 * 1024;

/// Writes lines to a file, a pipe or a terminal, and never blocks who calls it.
///
/// A thread of its own writes them, each line in one write where the target
/// takes it whole. Clones share that thread; it ends with the last of them.
///
/// - *Memory*: 4 MiB of lines may wait, and one line more for each thread that
///   writes. Further lines are dropped.
/// - *Lost lines*: dropped lines, and lines that the target did not take, are
///   counted. A line in the output gives the count as soon as one can be
///   written again. Half a line, which a full disk left, is ended first.
/// - *Control characters* are escaped, see [`escape`](crate::escape).
///
/// As [`Write`], it takes what loggers write: bytes are kept until a write ends
/// with a newline, then they are a line, or several. Its `flush` does nothing,
/// because it must not wait: see [`flush_within`](Self::flush_within).
///
/// ```
/// use lastecho::NonBlockingWriter;
/// use std::fs::{File, read_to_string};
/// use std::time::Duration;
///
/// let path = std::env::temp_dir().join(format!("lines-{}", std::process::id()));
/// let writer = NonBlockingWriter::new(File::create(&path)?)?;
/// writer.line("a name with an escape sequence: \u{1b}[31m");
/// assert!(writer.flush_within(Duration::from_secs(10))); // before the process ends
/// assert_eq!(
///     read_to_string(&path)?,
///     "a name with an escape sequence: \\u{1b}[31m\n"
/// );
/// # std::fs::remove_file(&path)?;
/// # std::io::Result::Ok(())
/// ```
pub struct NonBlockingWriter {
    sender: Sender<Message>,
    shared: Arc<Shared>,
    begun: Vec<u8>,
}

/// What callers and the thread have in common.
#[derive(Default)]
struct Shared {
    bytes: AtomicUsize,
    dropped: AtomicUsize,
    last_error: Mutex<Option<ErrorKind>>,
}

enum Message {
    /// One line, or several that belong together.
    Lines(Vec<u8>),
    /// Everything before this was written, or is lost.
    Flush(Sender<()>),
}

impl NonBlockingWriter {
    /// Starts the thread that writes to `target`.
    ///
    /// # Errors
    /// What starting a thread returns.
    pub fn new(target: impl Write + Send + 'static) -> io::Result<Self> {
        let (sender, receiver) = channel();
        let shared = Arc::new(Shared::default());
        let pump = Pump {
            lines: WholeLines::new(target),
            shared: Arc::clone(&shared),
            lost: 0,
            why: String::new(),
        };
        sys::can_start_thread()?;
        thread::Builder::new()
            .name("writer".into())
            .stack_size(STACK)
            .spawn(move || pump.run(&receiver))?;
        Ok(Self {
            sender,
            shared,
            begun: Vec::new(),
        })
    }

    /// Queues a line, its line ends escaped; drops and counts it where too much
    /// waits already.
    pub fn line(&self, line: &str) {
        self.queue(format!("{}\n", escaped(line)).into_bytes());
    }

    /// Waits until everything queued so far was written or is lost, at most for
    /// `longest`. Returns whether it was.
    ///
    /// Call it before the process ends, which does not wait for the thread.
    pub fn flush_within(&self, longest: Duration) -> bool {
        self.flushed().recv_timeout(longest).is_ok()
    }

    /// Receives once everything queued so far was written or is lost.
    fn flushed(&self) -> Receiver<()> {
        let (sender, flushed) = channel();
        // Where the thread is gone, the receiver has an error for its caller.
        let _ = self.sender.send(Message::Flush(sender));
        flushed
    }

    /// Returns why the last line written was not taken, and nothing if it was:
    /// [`ErrorKind::BrokenPipe`] where the reader has left.
    #[must_use]
    pub fn last_error(&self) -> Option<ErrorKind> {
        *self.shared.last_error()
    }

    fn queue(&self, lines: Vec<u8>) {
        let cost = cost(&lines);
        // Relaxed: two numbers of their own; a few lines too many do no harm.
        let waiting = self.shared.bytes.fetch_add(cost, Relaxed);
        if waiting > MOST_BYTES || self.sender.send(Message::Lines(lines)).is_err() {
            self.shared.bytes.fetch_sub(cost, Relaxed);
            self.shared.dropped.fetch_add(1, Relaxed);
        }
    }
}

fn cost(lines: &[u8]) -> usize {
    lines.len() + OVERHEAD
}

static STDOUT: OnceLock<NonBlockingWriter> = OnceLock::new();
static STDERR: OnceLock<NonBlockingWriter> = OnceLock::new();

/// Returns the process's writer to standard output, the same for all callers,
/// so that their lines keep their order. The first call starts its thread.
///
/// # Errors
/// What dup(2) and starting a thread return.
pub fn stdout() -> io::Result<NonBlockingWriter> {
    once(&STDOUT, io::stdout())
}

/// The same for standard error, see [`stdout`].
///
/// # Errors
/// What dup(2) and starting a thread return.
pub fn stderr() -> io::Result<NonBlockingWriter> {
    once(&STDERR, io::stderr())
}

/// Waits until [`stdout`] and [`stderr`] have written or lost everything queued
/// so far, at most for `longest` together. Returns whether they have.
///
/// Call it before the process ends, which does not wait for their threads.
pub fn flush_standard_streams(longest: Duration) -> bool {
    let deadline = Deadline::after(longest);
    let writers = [STDOUT.get(), STDERR.get()].into_iter().flatten();
    // Both at once: one that stalls must not take the other's time.
    let flushed: Vec<_> = writers.map(NonBlockingWriter::flushed).collect();
    let in_time = |flushed: &Receiver<()>| flushed.recv_timeout(deadline.cap(longest)).is_ok();
    flushed.iter().all(in_time)
}

fn once(writer: &OnceLock<NonBlockingWriter>, target: impl AsFd) -> io::Result<NonBlockingWriter> {
    if writer.get().is_none() {
        // A descriptor of its own: the standard library's locks are not ours.
        let target = File::from(target.as_fd().try_clone_to_owned()?);
        // Where two threads come first, one writer is left, and no line lost.
        let _ = writer.set(NonBlockingWriter::new(target)?);
    }
    writer.get().cloned().ok_or_else(|| ErrorKind::Other.into())
}

impl Shared {
    fn last_error(&self) -> MutexGuard<'_, Option<ErrorKind>> {
        self.last_error
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

impl Clone for NonBlockingWriter {
    fn clone(&self) -> Self {
        Self {
            sender: self.sender.clone(),
            shared: Arc::clone(&self.shared),
            begun: Vec::new(),
        }
    }
}

impl fmt::Debug for NonBlockingWriter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NonBlockingWriter").finish_non_exhaustive()
    }
}

impl Write for NonBlockingWriter {
    /// A line may come in several writes; the one that ends with a newline ends it.
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        self.begun.extend_from_slice(buf);
        if buf.ends_with(b"\n") || self.begun.len() > MOST_BYTES {
            let mut lines = escaped_lines(&self.begun).into_owned();
            if !lines.ends_with('\n') {
                lines.push('\n');
            }
            self.begun.clear();
            self.queue(lines.into_bytes());
        }
        Ok(buf.len())
    }

    /// One write, so that only the end of the whole can end a line.
    fn write_fmt(&mut self, args: fmt::Arguments<'_>) -> io::Result<()> {
        let mut text = String::new();
        fmt::write(&mut text, args).map_err(|_| ErrorKind::InvalidData)?;
        self.write_all(text.as_bytes())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The thread's side.
struct Pump<W> {
    lines: WholeLines<W>,
    shared: Arc<Shared>,
    /// Lines that the target did not take, and that no line has told of yet.
    lost: usize,
    /// Why, the last time.
    why: String,
}

impl<W: Write> Pump<W> {
    /// Writes what arrives until every sender is gone.
    fn run(mut self, receiver: &Receiver<Message>) {
        for message in receiver {
            match message {
                Message::Lines(lines) => {
                    let written = self.lines.write(&lines);
                    self.shared.bytes.fetch_sub(cost(&lines), Relaxed);
                    self.note(written);
                }
                Message::Flush(done) => {
                    self.report();
                    let _ = done.send(());
                }
            }
        }
        self.report();
    }

    fn note(&mut self, written: io::Result<()>) {
        *self.shared.last_error() = written.as_ref().err().map(io::Error::kind);
        match written {
            Ok(()) => self.report(),
            Err(error) => {
                self.lost += 1;
                self.why = error.to_string();
            }
        }
    }

    /// Writes how many lines are missing; what it cannot write stays counted.
    fn report(&mut self) {
        let dropped = self.shared.dropped.load(Relaxed);
        if dropped > 0 && self.say(&format!("(dropped while nobody read: {dropped})\n")) {
            self.shared.dropped.fetch_sub(dropped, Relaxed);
        }
        if self.lost > 0 && self.say(&format!("(lost: {}, {})\n", self.lost, self.why)) {
            self.lost = 0;
        }
    }

    fn say(&mut self, line: &str) -> bool {
        self.lines.write(line.as_bytes()).is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read;
    use std::os::fd::OwnedFd;

    /// For what takes no time, on a busy machine.
    const IN_TIME: Duration = Duration::from_secs(10);

    fn pipe() -> (io::PipeReader, File) {
        let (reader, writer) = io::pipe().unwrap();
        (reader, File::from(OwnedFd::from(writer)))
    }

    fn all(mut reader: io::PipeReader) -> String {
        let mut text = String::new();
        reader.read_to_string(&mut text).unwrap();
        text
    }

    #[test]
    fn lines_arrive_whole_and_in_order() {
        let (reader, target) = pipe();
        let mut writer = NonBlockingWriter::new(target).unwrap();
        writer.write_all(b"one\ntw").unwrap();
        writer.write_all(b"o\n").unwrap();
        writer.line("three");
        assert!(writer.flush_within(IN_TIME));
        drop(writer);
        assert_eq!(all(reader), "one\ntwo\nthree\n");
    }

    #[test]
    fn control_characters_are_escaped_whichever_way_they_come() {
        let (reader, target) = pipe();
        let mut writer = NonBlockingWriter::new(target).unwrap();
        writer.line("a\n[ERROR] forged\u{1b}");
        writer.write_all(b"b\x1b\xc2").unwrap();
        writer.write_all(b"\x9b\xff\n").unwrap(); // U+009B in two writes
        let lines = "\u{202e}\n  d";
        writeln!(writer, "c{lines}").unwrap();
        drop(writer);
        assert_eq!(
            all(reader),
            "a\\n[ERROR] forged\\u{1b}\nb\\u{1b}\\u{9b}\\xff\nc\\u{202e}\n  d\n"
        );
    }

    #[test]
    fn a_reader_that_stalls_costs_lines_and_is_told_how_many() {
        let (reader, target) = pipe();
        let writer = NonBlockingWriter::new(target).unwrap();
        let (line, count) = ("x".repeat(1023), 3 * MOST_BYTES / 1024);
        for _ in 0..count {
            writer.line(&line); // far more than pipe and queue hold
        }
        assert!(!writer.flush_within(Duration::from_millis(10)));
        drop(writer);
        let text = all(reader);
        let dropped = missing(&text, "(dropped while nobody read: ", ")");
        let written = text.lines().filter(|&written| written == line).count();
        assert!(dropped > 0);
        assert_eq!(written + dropped, count);
    }

    /// The sum of the counts in lines such as `(dropped while nobody read: 7)`.
    fn missing(text: &str, before: &str, after: &str) -> usize {
        let count = |line: &str| {
            let count = line.strip_prefix(before)?.strip_suffix(after)?;
            count.parse::<usize>().ok()
        };
        text.lines().filter_map(count).sum()
    }

    #[test]
    fn empty_lines_are_bounded_too() {
        let (reader, target) = pipe();
        let writer = NonBlockingWriter::new(target).unwrap();
        for _ in 0..MOST_BYTES / 8 {
            writer.line("");
        }
        let waiting = writer.shared.bytes.load(Relaxed);
        assert!(waiting <= MOST_BYTES + cost(b"\n"), "{waiting}");
        assert!(writer.shared.dropped.load(Relaxed) > 0);
        drop(writer);
        assert!(missing(&all(reader), "(dropped while nobody read: ", ")") > 0);
    }

    #[test]
    fn a_reader_that_is_gone_costs_nothing_but_lines() {
        let (reader, target) = pipe();
        drop(reader);
        let writer = NonBlockingWriter::new(target).unwrap();
        assert_eq!(writer.last_error(), None);
        writer.line("lost");
        assert!(writer.flush_within(IN_TIME));
        assert_eq!(writer.last_error(), Some(ErrorKind::BrokenPipe));
    }

    /// A disk that is full at times.
    #[derive(Clone, Default)]
    struct Disk(Arc<Mutex<(Vec<u8>, usize)>>);

    impl Disk {
        fn make_room(&self, room: usize) {
            self.0.lock().unwrap().1 = room;
        }
    }

    impl Write for Disk {
        fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
            let mut disk = self.0.lock().unwrap();
            let count = buf.len().min(disk.1);
            if count == 0 {
                return Err(ErrorKind::StorageFull.into());
            }
            disk.1 -= count;
            disk.0.extend_from_slice(&buf[..count]);
            Ok(count)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn lines_that_a_full_disk_costs_are_counted_and_told_when_there_is_room() {
        let disk = Disk::default();
        disk.make_room(6);
        let writer = NonBlockingWriter::new(disk.clone()).unwrap();
        for line in ["one", "two", "three", "four"] {
            writer.line(line);
        }
        assert!(writer.flush_within(IN_TIME));
        assert_eq!(writer.last_error(), Some(ErrorKind::StorageFull));
        disk.make_room(1000);
        writer.line("five");
        assert!(writer.flush_within(IN_TIME));
        let text = String::from_utf8(disk.0.lock().unwrap().0.clone()).unwrap();
        assert_eq!(text, "one\ntw\nfive\n(lost: 3, no storage space)\n");
        assert_eq!(writer.last_error(), None);
    }

    #[test]
    fn what_was_lost_is_told_at_the_end_where_no_line_follows() {
        let disk = Disk::default();
        let writer = NonBlockingWriter::new(disk.clone()).unwrap();
        writer.line("one");
        assert!(writer.flush_within(IN_TIME));
        disk.make_room(1000);
        assert!(writer.flush_within(IN_TIME));
        let text = String::from_utf8(disk.0.lock().unwrap().0.clone()).unwrap();
        assert_eq!(text, "(lost: 1, no storage space)\n");
    }
}
