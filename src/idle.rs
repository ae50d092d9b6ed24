//! The idle clock of a connection.

use crate::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

/// Since when no byte has moved on a connection. Without a limit nobody looks
/// at the clock.
///
/// Relaxed throughout: a reader and a writer may both restart it, and either's
/// time will do.
pub(crate) struct Idle {
    limit: Option<Duration>,
    opened: Instant,
    /// When a byte last moved, in microseconds since `opened`.
    moved: AtomicU64,
    /// Length of the send queue at the last look.
    queued: AtomicU64,
}

impl Idle {
    pub(crate) fn new(limit: Option<Duration>) -> Self {
        Self {
            limit,
            opened: Instant::now(),
            moved: AtomicU64::new(0),
            queued: AtomicU64::new(0),
        }
    }

    /// A byte has moved: it starts again.
    pub(crate) fn restart(&self) {
        if self.limit.is_some() {
            let now = u64::try_from(self.opened.elapsed().as_micros()).unwrap_or(u64::MAX);
            self.moved.store(now, Relaxed);
        }
    }

    /// Bytes also move when the peer takes what we wrote long ago: then the
    /// send queue is shorter than at the last look.
    pub(crate) fn look_at_queue(&self, length: impl FnOnce() -> u64) {
        if self.limit.is_some() {
            let length = length();
            if length < self.queued.swap(length, Relaxed) {
                self.restart();
            }
        }
    }

    /// What is left of the limit; `None` where there is none.
    pub(crate) fn left(&self) -> Option<Duration> {
        self.limit.map(|limit| {
            let moved = Duration::from_micros(self.moved.load(Relaxed));
            let quiet = self.opened.elapsed().saturating_sub(moved);
            limit.saturating_sub(quiet)
        })
    }
}
