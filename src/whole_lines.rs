//! Lines to a target that may fail in the middle of one.

use std::io::{self, ErrorKind, Write};
use std::thread;
use std::time::Duration;

/// From one try to the next where a target that does not wait (O_NONBLOCK) is full.
const AGAIN: Duration = Duration::from_millis(10);

/// Writes whole lines, and ends the half of one that a failed write left.
///
/// A full disk may take half a line. The next line would continue it, and both
/// would be lost. Here a newline comes first, so that only the failed line is.
///
/// ```
/// use lastecho::WholeLines;
///
/// let mut lines = WholeLines::new(Vec::new());
/// lines.write(b"one\n")?;
/// assert_eq!(lines.get_ref(), b"one\n");
/// # std::io::Result::Ok(())
/// ```
#[derive(Debug)]
pub struct WholeLines<W> {
    target: W,
    /// The last write ended in the middle of a line.
    torn: bool,
}

impl<W: Write> WholeLines<W> {
    /// Takes a target that stands at the beginning of a line.
    pub fn new(target: W) -> Self {
        Self {
            target,
            torn: false,
        }
    }

    /// Returns the target.
    pub fn get_ref(&self) -> &W {
        &self.target
    }

    /// Writes a line with its newline, or several that belong together, in one
    /// write where the target takes them whole.
    ///
    /// Blocks for as long as the target does.
    ///
    /// # Errors
    /// What the target's `write` returns. What it took before stays written:
    /// a part of the line, perhaps, which the next call ends with a newline.
    pub fn write(&mut self, lines: &[u8]) -> io::Result<()> {
        if self.torn {
            return self.put(&[b"\n", lines].concat());
        }
        self.put(lines)
    }

    fn put(&mut self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            match self.target.write(bytes) {
                Ok(0) => return Err(ErrorKind::WriteZero.into()),
                Ok(count) => {
                    let (written, left) = bytes.split_at(count);
                    self.torn = !written.ends_with(b"\n");
                    bytes = left;
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => thread::sleep(AGAIN),
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A disk with room for some bytes, as write(2) has it: a part of a write
    /// is written, and only the next one fails.
    struct Disk {
        written: Vec<u8>,
        room: usize,
        writes: usize,
    }

    impl Write for Disk {
        fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
            let count = buf.len().min(self.room);
            if count == 0 {
                return Err(ErrorKind::StorageFull.into());
            }
            self.writes += 1;
            self.room -= count;
            self.written.extend_from_slice(&buf[..count]);
            Ok(count)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn disk(room: usize) -> WholeLines<Disk> {
        WholeLines::new(Disk {
            written: Vec::new(),
            room,
            writes: 0,
        })
    }

    #[test]
    fn half_a_line_is_ended_before_the_next_one() {
        let mut lines = disk(6);
        lines.write(b"one\n").unwrap();
        let full = lines.write(b"two\n").unwrap_err();
        assert_eq!(full.kind(), ErrorKind::StorageFull);
        lines.write(b"three\n").unwrap_err(); // still full
        lines.target.room = 100;
        lines.write(b"four\n").unwrap();
        lines.write(b"five\n").unwrap();
        assert_eq!(lines.get_ref().written, b"one\ntw\nfour\nfive\n");
        assert_eq!(
            lines.get_ref().writes,
            4,
            "one for each line or part of one"
        );
    }

    #[test]
    fn a_write_that_failed_at_the_end_of_a_line_needs_no_newline() {
        let mut lines = disk(4);
        lines.write(b"one\ntwo\n").unwrap_err();
        lines.target.room = 100;
        lines.write(b"three\n").unwrap();
        assert_eq!(lines.get_ref().written, b"one\nthree\n");
    }
}
