//! A connection's writing side, for other threads.

use crate::link::Link;
use crate::sync::{Arc, Weak};
use std::fmt;
use std::io::{self, Write};

/// Writes to a [`Connection`](crate::Connection) from another thread.
///
/// Each `write` is whole, and so is what one `write!` or `writeln!` formats:
/// two threads' bytes do not mix. Those who write at the same time take turns,
/// the handler with them, in the order in which they began.
///
/// A write whose turn it is when the handler returns is finished before the
/// connection ends, as what the handler wrote is: only the peer's reset, the
/// idle timeout and the cut end it. A later one, and one that still waits for
/// its turn then, fails with [`BrokenPipe`](io::ErrorKind::BrokenPipe): a
/// writer does not keep the connection alive. It blocks as the connection's own `write` does.
#[derive(Clone, Debug)]
pub struct Writer {
    link: Weak<Link>,
}

impl Writer {
    pub(crate) fn new(link: &Arc<Link>) -> Self {
        Self {
            link: Arc::downgrade(link),
        }
    }
}

impl Write for Writer {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        let link = self.link.upgrade().ok_or(io::ErrorKind::BrokenPipe)?;
        link.send_all(buf).map(|()| buf.len())
    }

    fn write_fmt(&mut self, message: fmt::Arguments<'_>) -> io::Result<()> {
        write_formatted(message, |bytes| self.write_all(bytes))
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Formats all of a message before it writes any: one write and one packet,
/// where `write_fmt` of its own has one for each piece of the format string.
pub(crate) fn write_formatted(
    message: fmt::Arguments<'_>,
    write: impl FnOnce(&[u8]) -> io::Result<()>,
) -> io::Result<()> {
    if let Some(text) = message.as_str() {
        return write(text.as_bytes());
    }
    let mut text = String::new();
    fmt::write(&mut text, message).map_err(|_| io::Error::other("cannot format the message"))?;
    write(text.as_bytes())
}
