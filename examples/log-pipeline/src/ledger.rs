//! What became of each line: nothing is forgotten, nothing counted twice.

use crate::access::Access;
use crate::output::Output;
use std::collections::BTreeSet;
use std::fmt;
use std::io;
use std::mem::take;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// How long the last lines may take to their reader, once the stop is over.
pub(crate) const LAST_LINES: Duration = Duration::from_secs(1);

/// A line of a log on its way, with its number.
#[derive(Debug)]
pub(crate) struct Line {
    pub(crate) number: u64,
    pub(crate) text: Vec<u8>,
}

/// Counts lines and tells about them on standard output.
///
/// No lock is held while a line is written, because its reader may stall: what
/// is being written is in the ledger, and counted when it is written. So the
/// output and the counts agree, save for lines that a stop found stalled.
pub(crate) struct Ledger {
    output: Output,
    state: Mutex<State>,
    /// A line was written.
    written: Condvar,
}

#[derive(Default)]
struct State {
    counts: Counts,
    /// Lines that were received and are neither processed nor failed yet.
    open: BTreeSet<u64>,
    /// Those of them whose result is being written.
    writing: BTreeSet<u64>,
    /// Lines being written that are no results.
    announcing: usize,
    sealed: bool,
}

/// `received` = `processed` + `failed`, once the ledger is sealed.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Counts {
    pub(crate) received: u64,
    pub(crate) processed: u64,
    /// Lines that were not understood, whose parser panicked, that were cut, or
    /// whose result is lost.
    pub(crate) failed: u64,
    /// Of those: not done in time.
    pub(crate) cut: u64,
    /// Of those: done, but the result could not be written.
    pub(crate) lost: u64,
}

/// What a line came to.
#[derive(Clone, Copy, PartialEq, Eq)]
enum End {
    Processed,
    Failed,
    Cut,
}

impl Ledger {
    pub(crate) fn new(output: Output) -> Self {
        Self {
            output,
            state: Mutex::default(),
            written: Condvar::new(),
        }
    }

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
        {
            let mut state = self.lock();
            if state.sealed {
                return;
            }
            state.announcing += 1;
        }
        // Its result is what must not be lost, this line may be.
        let _ = self.output.write(format_args!("process {number} {text}"));
        self.lock().announcing -= 1;
        self.written.notify_all();
    }

    /// A consumer is done with the line.
    pub(crate) fn processed(&self, number: u64, access: &Access) {
        self.settle(number, End::Processed, access);
    }

    /// There is no use in the line.
    pub(crate) fn failed(&self, number: u64, why: &dyn fmt::Display) {
        self.settle(number, End::Failed, &format_args!("failed: {why}"));
    }

    /// There was no time for the line.
    pub(crate) fn cut(&self, number: u64) {
        self.settle(number, End::Cut, &CUT);
    }

    /// Writes a line's result and counts it, unless it was settled before.
    fn settle(&self, number: u64, end: End, result: &dyn fmt::Display) {
        {
            let mut state = self.lock();
            if !state.open.remove(&number) {
                return;
            }
            state.writing.insert(number);
        }
        let written = self
            .output
            .write(format_args!("consumer {number} {result}"));
        let mut state = self.lock();
        if state.writing.remove(&number) {
            state.counts.count(end, written);
        }
        self.written.notify_all();
    }

    /// Ends it: what is still open is cut, and stays so whatever its consumer
    /// says later. Waits a second at most for what is being written, and as
    /// long for the lines that tell what was cut.
    pub(crate) fn seal(&self) {
        let mut state = self.lock();
        state.sealed = true;
        let is_writing = |state: &mut State| !state.writing.is_empty() || state.announcing > 0;
        let waited = self
            .written
            .wait_timeout_while(state, LAST_LINES, is_writing);
        state = waited.unwrap_or_else(PoisonError::into_inner).0;
        let open = take(&mut state.open);
        let stalled = take(&mut state.writing);
        for _ in open.iter().chain(&stalled) {
            state.counts.count(End::Cut, Ok(()));
        }
        drop(state);
        let told = open.iter().map(|number| format!("consumer {number} {CUT}"));
        self.output.write_within(LAST_LINES, told.collect());
    }

    /// Lines that are neither processed nor failed yet.
    pub(crate) fn on_the_way(&self) -> usize {
        let state = self.lock();
        state.open.len() + state.writing.len()
    }

    pub(crate) fn counts(&self) -> Counts {
        self.lock().counts
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

const CUT: &str = "failed: cut at the deadline";

impl Counts {
    fn count(&mut self, end: End, written: io::Result<()>) {
        if let Err(error) = written {
            if self.lost == 0 {
                log::error!("standard output: {error}: results are lost, and counted as failed");
            }
            self.lost += 1;
            self.failed += 1;
            return;
        }
        self.processed += u64::from(end == End::Processed);
        self.failed += u64::from(end != End::Processed);
        self.cut += u64::from(end == End::Cut);
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
            "received {} {relation} processed {} + failed {} (of which cut {}, lost {})",
            self.received, self.processed, self.failed, self.cut, self.lost
        )
    }
}
