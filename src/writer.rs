//! A connection's writing side, for other threads.

use crate::link::Link;
use crate::sync::{Arc, Weak};
use std::io::{self, Write};

/// Writes to a [`Connection`](crate::Connection) from another thread.
///
/// Each `write` is whole: two threads' bytes do not mix. It does not keep the
/// connection alive: once that has ended, writing fails with
/// [`BrokenPipe`](io::ErrorKind::BrokenPipe). It blocks as the connection's
/// own `write` does.
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

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
