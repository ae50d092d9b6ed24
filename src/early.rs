//! Waits that end early, and with nothing, again and again.

use crate::sync::thread;
use std::time::{Duration, Instant};

/// The shortest poll interval that is used: Linux rounds socket timeouts up to
/// its clock tick, 4 ms where measured, and a shorter one only burns the
/// processor elsewhere, too.
pub(crate) const LEAST_POLL: Duration = Duration::from_millis(4);
/// How often in a row is still normal: signals, a debugger.
const NORMAL: u32 = 16;
const SHORTEST_NAP: Duration = Duration::from_millis(1);
/// Short enough to see a stop or a cut in time.
const LONGEST_NAP: Duration = Duration::from_millis(32);

/// Keeps a loop around a blocking call from spinning when the call comes back
/// at once, with nothing, whatever it was asked to wait for (a storm of
/// signals, a kernel out of memory).
///
/// It costs nothing where something came, because only what brought nothing is
/// noted.
#[derive(Default)]
pub(crate) struct Early {
    last: Option<Instant>,
    times: u32,
}

impl Early {
    /// Notes that a wait brought nothing. Blocks for 32 ms at most, and only
    /// after it has come back in under half of the time expected 16 times in a row.
    pub(crate) fn note(&mut self, expected: Duration) {
        let now = Instant::now();
        let early = self.last.is_some_and(|last| now - last < expected / 2);
        self.times = if early { self.times + 1 } else { 0 };
        if let Some(doublings) = self.times.checked_sub(NORMAL) {
            thread::sleep((SHORTEST_NAP * 2_u32.pow(doublings.min(5))).min(LONGEST_NAP));
        }
        self.last = Some(Instant::now());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_call_that_comes_back_at_once_is_slowed_down() {
        let mut early = Early::default();
        let begun = Instant::now();
        for _ in 0..NORMAL + 8 {
            early.note(Duration::from_secs(1));
        }
        assert!(begun.elapsed() >= Duration::from_millis(1 + 2 + 4 + 8 + 16 + 32));
    }

    #[test]
    fn a_call_that_waits_as_asked_is_left_alone() {
        let mut early = Early::default();
        for _ in 0..2 * NORMAL {
            early.note(Duration::ZERO);
        }
        assert_eq!(early.times, 0);
    }
}
