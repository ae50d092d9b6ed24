//! A time of trouble: waits that grow, and two log lines however long it lasts.

use crate::lock::lock;
use crate::sync::Mutex;
use crate::sync::atomic::{AtomicBool, Ordering};
use std::fmt;
use std::time::{Duration, Instant};

/// The first wait of an episode, and the longest.
const FIRST_WAIT: Duration = Duration::from_millis(5);
const LONGEST_WAIT: Duration = Duration::from_secs(1);
/// An episode is over when it works again and has not failed for so long;
/// otherwise trouble that comes and goes would fill the log.
const OVER_AFTER: Duration = Duration::from_secs(2);
/// Between two lines of one [`Seldom`].
const SELDOM: Duration = Duration::from_secs(1);

/// At most one log line a second, for what may happen to every connection.
#[derive(Default)]
pub(crate) struct Seldom(Mutex<Option<Instant>>);

impl Seldom {
    /// The level to log at: `level`, or debug where it was used within a second.
    pub(crate) fn level(&self, level: log::Level) -> log::Level {
        let now = Instant::now();
        let mut last = lock(&self.0);
        if last.is_some_and(|last| now - last < SELDOM) {
            return log::Level::Debug;
        }
        *last = Some(now);
        level
    }
}

/// What failed again and again, how long to wait before the next try, and
/// whether that was said already.
///
/// The waits double from 5 ms to 1 s, as in Go's net/http. One line is logged
/// when an episode begins and one, with the count, when it is over.
pub(crate) struct Episode {
    what: String,
    /// Kept beside the lock so that success costs one load in good times.
    open: AtomicBool,
    state: Mutex<Option<State>>,
}

struct State {
    since: Instant,
    last: Instant,
    failures: u64,
    wait: Duration,
}

impl Episode {
    pub(crate) fn new(what: impl Into<String>) -> Self {
        Self {
            what: what.into(),
            open: AtomicBool::new(false),
            state: Mutex::new(None),
        }
    }

    /// Notes a failure and says how long to wait before the next try.
    pub(crate) fn failed(&self, error: &dyn fmt::Display) -> Duration {
        let now = Instant::now();
        let mut state = lock(&self.state);
        if state.is_none() {
            log::warn!("{}: {error}; clients wait, trying again", self.what);
            // Relaxed: a thread that sees it late only ends the episode later.
            self.open.store(true, Ordering::Relaxed);
        }
        let state = state.get_or_insert(State {
            since: now,
            last: now,
            failures: 0,
            wait: FIRST_WAIT / 2,
        });
        state.last = now;
        state.failures += 1;
        state.wait = (state.wait * 2).min(LONGEST_WAIT);
        state.wait
    }

    /// Notes that it works; ends an episode whose last failure is long enough ago.
    pub(crate) fn worked(&self) {
        if !self.open.load(Ordering::Relaxed) {
            return;
        }
        let mut state = lock(&self.state);
        if state
            .as_ref()
            .is_some_and(|s| s.last.elapsed() >= OVER_AFTER)
        {
            self.open.store(false, Ordering::Relaxed);
            if let Some(ended) = state.take() {
                log::info!(
                    "{}: works again after {} failures in {:.1?}",
                    self.what,
                    ended.failures,
                    ended.last - ended.since
                );
            }
        } else if let Some(state) = state.as_mut() {
            state.wait = FIRST_WAIT / 2;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_from_5_ms_to_1_s() {
        let episode = Episode::new("accept");
        let waits: Vec<_> = (0..10)
            .map(|_| episode.failed(&"none left").as_millis())
            .collect();
        assert_eq!(waits, [5, 10, 20, 40, 80, 160, 320, 640, 1000, 1000]);
    }

    #[test]
    fn what_happens_to_everybody_is_said_once_a_second() {
        let seldom = Seldom::default();
        assert_eq!(seldom.level(log::Level::Warn), log::Level::Warn);
        assert_eq!(seldom.level(log::Level::Error), log::Level::Debug);
    }

    #[test]
    fn success_starts_the_waits_afresh_without_ending_a_young_episode() {
        let episode = Episode::new("accept");
        episode.failed(&"none left");
        episode.failed(&"none left");
        episode.worked();
        assert_eq!(episode.failed(&"none left").as_millis(), 5);
        assert_eq!(lock(&episode.state).as_ref().map(|s| s.failures), Some(3));
    }
}
