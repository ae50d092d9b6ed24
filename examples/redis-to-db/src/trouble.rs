//! The database in trouble: how long to leave it alone, and whose fault a
//! failure is.

use crate::database::{Database, WriteError, Writer};
use crate::outcome::Counts;
use crate::settling::How;
use crate::suspects::Suspects;
use anyhow::{Context, Result};
use lastecho::{Deadline, Episode, Stop};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// What all workers know of the database's trouble.
pub struct Trouble {
    /// One for all: a database that is down is tried by one at a time, and the
    /// queue stays in Redis.
    outage: Episode,
    /// One for those that have no connection to the database: it does not hold
    /// up those that have one.
    connecting: Episode,
    /// How many of those there are.
    unconnected: AtomicUsize,
    suspects: Suspects,
    round: Round,
}

/// The messages of which the database does not say whose fault it is, while it
/// answers and nothing is written. All that wait are tried at full speed, for
/// a good one may be behind them; then all workers pause, and longer each time.
struct Round {
    /// How many have failed so since the last pause, or since one was written.
    failed: AtomicU64,
    pauses: Episode,
    until: Mutex<Deadline>,
}

/// A worker's writer, and whether it is one of the unconnected.
pub struct Connected<'a> {
    /// Its way into the database.
    pub writer: Writer<'a>,
    /// Whether its last try to connect failed.
    failed: bool,
}

impl<'a> From<Writer<'a>> for Connected<'a> {
    fn from(writer: Writer<'a>) -> Self {
        Self {
            writer,
            failed: false,
        }
    }
}

impl Default for Trouble {
    fn default() -> Self {
        Self {
            outage: Episode::new("database"),
            connecting: Episode::new("connecting to the database"),
            unconnected: AtomicUsize::new(0),
            suspects: Suspects::default(),
            round: Round {
                failed: AtomicU64::new(0),
                pauses: Episode::new("whose fault is not clear"),
                until: Mutex::new(Deadline::after(Duration::ZERO)), // none
            },
        }
    }
}

impl Trouble {
    /// Waits for the database, or for the stop.
    ///
    /// # Errors
    /// What no waiting mends: a wrong password, a file that is no database.
    pub fn reach(&self, database: &Database, stop: &Stop) -> Result<()> {
        let mut writer = database.writer();
        while !stop.is_set() {
            match writer.connect() {
                Ok(()) => {
                    self.connecting.worked();
                    break;
                }
                Err(error) if error.is_lasting => return Err(error).context("database"),
                Err(error) => {
                    let wait = self.connecting.failed(&error);
                    let _ = stop.wait(Deadline::after(wait));
                }
            }
        }
        Ok(())
    }

    /// How long a worker should wait before it takes a message. Connects where
    /// it has no connection.
    pub fn hold_off(&self, worker: &mut Connected<'_>) -> Option<Duration> {
        let wait = self.round.hold_off().or_else(|| self.outage.hold_off());
        if wait.is_some() || worker.writer.is_connected() {
            return wait;
        }
        let wait = self.connecting.hold_off();
        wait.or_else(|| self.connect(worker))
    }

    fn connect(&self, worker: &mut Connected<'_>) -> Option<Duration> {
        let error = worker.writer.connect().err();
        match (worker.failed, error.is_some()) {
            (false, true) => _ = self.unconnected.fetch_add(1, Relaxed),
            (true, false) => _ = self.unconnected.fetch_sub(1, Relaxed),
            _ => {}
        }
        worker.failed = error.is_some();
        if error.is_none() {
            self.connecting.worked(); // the others need not wait either
        }
        error.map(|error| self.connecting.failed(&error))
    }

    /// Notes that a message was written.
    pub fn worked(&self) {
        self.outage.worked();
        self.round.worked();
        // Not while some still try: it would end their back-off.
        if self.unconnected.load(Relaxed) == 0 {
            self.connecting.worked();
        }
    }

    /// Where a message goes that was not written because of the database;
    /// `None` where it is the message's own fault. `counts` are of all
    /// messages so far.
    ///
    /// May connect to the database.
    pub fn blame(
        &self,
        worker: &mut Connected<'_>,
        error: &WriteError,
        message: &[u8],
        counts: &Counts,
    ) -> Option<How> {
        let written = counts.moved.load(Relaxed);
        let (episode, how) = match error {
            WriteError::Refused(_) => return None,
            WriteError::Unclear(_) if self.suspects.is_guilty(message, written) => return None,
            // It answers what it is asked next: it is no outage.
            WriteError::Unclear(_) if worker.writer.connect().is_ok() => {
                self.outage.worked();
                let left = counts.waiting.load(Relaxed) + counts.in_hand();
                self.round.failed(error, left);
                return Some(How::Last);
            }
            WriteError::Unclear(_) => (&self.outage, How::Last),
            WriteError::Down(_) => (&self.outage, How::Back),
            WriteError::Unreached(_) => (&self.connecting, How::Back),
        };
        episode.failed(error);
        Some(how)
    }
}

impl Round {
    fn failed(&self, error: &WriteError, left: u64) {
        if self.failed.fetch_add(1, Relaxed) + 1 >= left {
            self.failed.store(0, Relaxed);
            self.pause(self.pauses.failed(error));
        }
    }

    fn worked(&self) {
        self.failed.store(0, Relaxed);
        self.pauses.worked();
        self.pause(Duration::ZERO);
    }

    fn pause(&self, time: Duration) {
        *self.until.lock().unwrap_or_else(PoisonError::into_inner) = Deadline::after(time);
    }

    fn hold_off(&self) -> Option<Duration> {
        let until = *self.until.lock().unwrap_or_else(PoisonError::into_inner);
        until.remaining().filter(|left| !left.is_zero())
    }
}
