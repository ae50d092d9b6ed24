//! What is told, and to whom.

use crate::cli::words;
use lastecho::Stop;
use std::fmt;
use std::io::{self, Write};

/// Standard output, which may go away.
pub(crate) struct Voice<'a> {
    /// Nobody wants to hear of each echo.
    pub(crate) quiet: bool,
    /// Set when nobody reads any more: `lastecho-ping | head` ends then.
    pub(crate) stop: &'a Stop,
}

impl Voice<'_> {
    /// A line for whoever wants to hear of each echo. Blocks as long as its
    /// reader does.
    pub(crate) fn tell(&self, line: fmt::Arguments<'_>) {
        if !self.quiet {
            self.say(line);
        }
    }

    /// A line in any case.
    pub(crate) fn say(&self, line: fmt::Arguments<'_>) {
        let mut stdout = io::stdout().lock();
        let told = writeln!(stdout, "{line}").and_then(|()| stdout.flush());
        if told.is_err() {
            self.stop.set();
        }
    }

    /// A line about something that went wrong, in any case.
    pub(crate) fn complain(&self, line: fmt::Arguments<'_>) {
        complain(&line.to_string());
    }
}

pub(crate) fn complain(message: &str) {
    words::complain("lastecho-ping", message);
}
