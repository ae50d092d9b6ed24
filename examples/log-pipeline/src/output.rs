//! Standard output, which is the product: a result that does not get there is
//! not done.

use lastecho::{WholeLines, escape::escaped};
use std::fmt;
use std::fs::File;
use std::io::{self, ErrorKind};
use std::os::fd::AsFd;
use std::sync::mpsc::channel;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

/// Writes lines to standard output. Clones share it.
#[derive(Clone)]
pub(crate) struct Output(Arc<Mutex<WholeLines<File>>>);

impl Output {
    pub(crate) fn new() -> io::Result<Self> {
        let stdout = File::from(io::stdout().as_fd().try_clone_to_owned()?);
        Ok(Self(Arc::new(Mutex::new(WholeLines::new(stdout)))))
    }

    /// Writes a line, its control characters escaped.
    ///
    /// Blocks for as long as its reader does: that is what holds the senders
    /// back. A stop does not wait for it beyond its deadline.
    ///
    /// # Errors
    /// What write(2) returns, a full disk for example. A reader that has left
    /// wants no more results, which is no error.
    pub(crate) fn write(&self, line: fmt::Arguments<'_>) -> io::Result<()> {
        let line = format!("{}\n", escaped(&line.to_string()));
        let mut stdout = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match stdout.write(line.as_bytes()) {
            Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(()),
            written => written,
        }
    }

    /// The same for the last lines, with a bound on the wait: a reader that
    /// stalls holds a thread that the process leaves behind.
    pub(crate) fn write_within(&self, longest: Duration, lines: Vec<String>) {
        let (output, (done, written)) = (self.clone(), channel());
        let write = move || {
            for line in lines {
                let _ = output.write(format_args!("{line}")); // the log has the sums, too
            }
            let _ = done.send(());
        };
        if thread::Builder::new().spawn(write).is_ok() {
            let _ = written.recv_timeout(longest);
        }
    }
}
