//! What is told, and to whom.

use crate::cli::words;
use lastecho::{NonBlockingWriter, Stop};
use std::fmt;

/// Standard output and standard error. Neither holds up an echo or a stop:
/// lines that nobody reads are dropped, and counted in the output.
pub(crate) struct Voice<'a> {
    /// Nobody wants to hear of each echo.
    pub(crate) quiet: bool,
    /// Set when nobody reads any more: `lastecho-ping | head` ends then.
    pub(crate) stop: &'a Stop,
    pub(crate) stdout: NonBlockingWriter,
    pub(crate) stderr: NonBlockingWriter,
}

impl Voice<'_> {
    /// A line for whoever wants to hear of each echo.
    pub(crate) fn tell(&self, line: fmt::Arguments<'_>) {
        if !self.quiet {
            self.say(line);
        }
    }

    /// A line, or several, in any case.
    pub(crate) fn say(&self, lines: fmt::Arguments<'_>) {
        for line in lines.to_string().lines() {
            self.stdout.line(line);
        }
        // Of a line before, if that was the first that could not be written.
        if self.stdout.last_error().is_some() {
            self.stop.set();
        }
    }

    /// A line about something that went wrong, in any case.
    pub(crate) fn complain(&self, line: fmt::Arguments<'_>) {
        self.stderr.line(&format!("{NAME}: {line}"));
    }
}

const NAME: &str = "lastecho-ping";

/// One line on standard error where the process ends.
pub(crate) fn complain(message: &str) {
    words::complain(NAME, message);
}
