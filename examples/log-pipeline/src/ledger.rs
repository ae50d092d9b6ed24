//! What became of each line: nothing is forgotten, nothing counted twice.

use crate::access::Access;
use std::collections::BTreeSet;
use std::fmt;
use std::io::{self, Write};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// A line of a log on its way, with its number.
#[derive(Debug)]
pub(crate) struct Line {
    pub(crate) number: u64,
    pub(crate) text: Vec<u8>,
}

/// Counts lines and tells about them on standard output. One lock for both,
/// so that the output and the counts always agree.
#[derive(Default)]
pub(crate) struct Ledger {
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    counts: Counts,
    /// Lines that were received and are neither processed nor failed yet.
    open: BTreeSet<u64>,
    sealed: bool,
}

/// `received` = `processed` + `failed`, once the ledger is sealed.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Counts {
    pub(crate) received: u64,
    pub(crate) processed: u64,
    /// Lines that were not understood, whose parser panicked, or that were cut.
    pub(crate) failed: u64,
    /// Of those: not done in time.
    pub(crate) cut: u64,
}

impl Ledger {
    /// Enters a line that was read; none is taken any more once it is sealed.
    pub(crate) fn received(&self, text: Vec<u8>) -> Option<Line> {
        let mut state = self.lock();
        if state.sealed {
            return None;
        }
        state.counts.received += 1;
        let number = state.counts.received;
        state.open.insert(number);
        Some(Line { number, text })
    }

    /// The line entered the queue.
    pub(crate) fn queued(&self, number: u64, text: &str) {
        let state = self.lock();
        if !state.sealed {
            say(format_args!("process {number} {text}"));
        }
    }

    /// A consumer is done with the line.
    pub(crate) fn processed(&self, number: u64, access: &Access) {
        let mut state = self.lock();
        if state.open.remove(&number) {
            state.counts.processed += 1;
            say(format_args!("consumer {number} {access}"));
        }
    }

    /// There is no use in the line.
    pub(crate) fn failed(&self, number: u64, why: &dyn fmt::Display) {
        self.lock().fail(number, why);
    }

    /// There was no time for the line.
    pub(crate) fn cut(&self, number: u64) {
        self.lock().cut(number);
    }

    /// Ends it: what is still open is cut, and stays so whatever its consumer
    /// says later.
    pub(crate) fn seal(&self) {
        let mut state = self.lock();
        state.sealed = true;
        while let Some(&number) = state.open.first() {
            state.cut(number);
        }
    }

    /// Lines that are neither processed nor failed yet.
    pub(crate) fn on_the_way(&self) -> usize {
        self.lock().open.len()
    }

    pub(crate) fn counts(&self) -> Counts {
        self.lock().counts
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn fail(&mut self, number: u64, why: &dyn fmt::Display) -> bool {
        let open = self.open.remove(&number);
        if open {
            self.counts.failed += 1;
            say(format_args!("consumer {number} failed: {why}"));
        }
        open
    }

    fn cut(&mut self, number: u64) {
        if self.fail(number, &"cut at the deadline") {
            self.counts.cut += 1;
        }
    }
}

impl fmt::Display for Counts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let relation = match self.received == self.processed + self.failed {
            true => '=',
            false => '≠',
        };
        write!(
            f,
            "received {} {relation} processed {} + failed {} (of which cut {})",
            self.received, self.processed, self.failed, self.cut
        )
    }
}

/// A line for machines. Nobody may be listening any more.
pub(crate) fn say(line: fmt::Arguments<'_>) {
    let mut stdout = io::stdout();
    let _ = writeln!(stdout, "{line}").and_then(|()| stdout.flush());
}
