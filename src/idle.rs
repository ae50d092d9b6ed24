//! The idle clock of a connection.

use crate::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

/// Longer than any send queue.
const UNKNOWN: u64 = u64::MAX;

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
    /// Length of the send queue at the last look; [`UNKNOWN`] after a write.
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
            let now = microseconds(self.opened.elapsed());
            self.moved.store(now, Relaxed);
        }
    }

    /// Bytes were written, and the peer may take them at any time.
    pub(crate) fn wrote(&self) {
        if self.limit.is_some() {
            self.restart();
            self.queued.store(UNKNOWN, Relaxed);
        }
    }

    /// Bytes also move when the peer takes what we wrote long ago: then the
    /// send queue is shorter than at the last look. The first look after a
    /// write has nothing to compare with, and the peer may have taken
    /// something since. The latest that it can have is when it last
    /// `acknowledged` anything at all, so long ago.
    pub(crate) fn look_at_queue(
        &self,
        length: impl FnOnce() -> u64,
        acknowledged: impl FnOnce() -> Duration,
    ) {
        if self.limit.is_some() {
            let length = length();
            if length < self.queued.swap(length, Relaxed) {
                let taken = self.opened.elapsed().saturating_sub(acknowledged());
                self.moved.fetch_max(microseconds(taken), Relaxed);
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

fn microseconds(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: Duration = Duration::from_secs(3600);
    const OVER: Option<Duration> = Some(Duration::ZERO);

    /// The last byte moved a limit and more ago.
    fn long_idle() -> Idle {
        let long_ago = Instant::now().checked_sub(2 * LIMIT).unwrap();
        Idle {
            opened: long_ago,
            ..Idle::new(Some(LIMIT))
        }
    }

    /// A look that finds so many bytes, and an acknowledgement just now.
    fn look(idle: &Idle, length: u64) -> bool {
        idle.look_at_queue(|| length, || Duration::ZERO);
        idle.left() == OVER
    }

    #[test]
    fn the_first_look_after_a_write_is_not_the_end() {
        let idle = long_idle();
        idle.queued.store(UNKNOWN, Relaxed);
        assert!(!look(&idle, 5));
    }

    #[test]
    fn what_moved_when_is_seen_by_comparing_two_looks() {
        for (second, over) in [(5, true), (6, true), (4, false)] {
            let idle = long_idle();
            idle.queued.store(5, Relaxed);
            assert_eq!(look(&idle, second), over, "5, then {second}");
        }
    }

    #[test]
    fn a_peer_that_last_acknowledged_long_ago_has_taken_nothing_since() {
        let idle = long_idle();
        idle.queued.store(UNKNOWN, Relaxed);
        idle.look_at_queue(|| 0, || LIMIT);
        assert_eq!(idle.left(), OVER);
    }
}
