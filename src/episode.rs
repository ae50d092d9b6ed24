//! A time of trouble: waits that grow, and two log lines however long it lasts.

use crate::lock::lock;
use crate::panics::say;
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

/// What fails again and again, how long to wait before the next try, and
/// whether that was said already.
///
/// The waits double from 5 ms to 1 s, as in Go's net/http. One line is logged
/// when an episode begins and one, with the count, when it is over: 2 s after
/// the last failure. Threads that depend on the same thing share one, so that
/// it is not hammered when it is in trouble: see [`hold_off`](Self::hold_off).
///
/// ```
/// use lastecho::Episode;
/// use std::time::Duration;
///
/// let database = Episode::new("the database");
/// assert_eq!(database.hold_off(), None);
/// assert_eq!(database.failed(&"connection refused"), Duration::from_millis(5));
/// assert!(database.hold_off().is_some_and(|wait| wait <= Duration::from_millis(5)));
/// database.worked();
/// assert_eq!(database.hold_off(), None);
/// ```
pub struct Episode {
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
    /// When the next of those who share it may try; `None` where it worked
    /// since.
    next: Option<Instant>,
}

impl Episode {
    /// Good times, for now; `what` names it in the log.
    #[must_use]
    pub fn new(what: impl Into<String>) -> Self {
        Self {
            what: what.into(),
            open: AtomicBool::new(false),
            state: Mutex::new(None),
        }
    }

    /// Notes a failure and says how long to wait before the next try.
    pub fn failed(&self, error: &dyn fmt::Display) -> Duration {
        let (begins, wait) = self.note_failure(Instant::now());
        if begins {
            say!(log::Level::Warn, "{}: {error}; trying again", self.what);
        }
        wait
    }

    /// Says whether an episode begins, and how long to wait. Logging is left
    /// to the caller, without the lock: a logger may have an episode, too.
    fn note_failure(&self, now: Instant) -> (bool, Duration) {
        let mut state = lock(&self.state);
        let begins = state.is_none();
        // Relaxed: a thread that sees it late only ends the episode later.
        self.open.store(true, Ordering::Relaxed);
        let state = state.get_or_insert(State {
            since: now,
            last: now,
            failures: 0,
            wait: FIRST_WAIT / 2,
            next: None,
        });
        state.last = now;
        state.failures += 1;
        state.wait = (state.wait * 2).min(LONGEST_WAIT);
        state.next = Some(now + state.wait);
        (begins, state.wait)
    }

    /// How long a thread that shares it should leave the thing alone; `None`
    /// where it is this thread's turn to try.
    ///
    /// After a failure one thread may try for each wait, whatever their
    /// number; after a success, all. Never blocks. Who gets its turn need not
    /// use it: the next one comes a wait later.
    #[must_use = "what is in trouble should be left alone"]
    pub fn hold_off(&self) -> Option<Duration> {
        if !self.open.load(Ordering::Relaxed) {
            return None;
        }
        let mut state = lock(&self.state);
        let state = state.as_mut()?;
        let (now, next) = (Instant::now(), state.next?);
        if now < next {
            return Some(next - now);
        }
        state.next = Some(now + state.wait);
        None
    }

    /// Notes that it works; ends an episode whose last failure is long enough ago.
    pub fn worked(&self) {
        if !self.open.load(Ordering::Relaxed) {
            return;
        }
        if let Some(ended) = self.note_success() {
            say!(
                log::Level::Info,
                "{}: works again after {} failures in {:.1?}",
                self.what,
                ended.failures,
                ended.last - ended.since
            );
        }
    }

    /// Returns the episode that is over; logging is left to the caller again.
    fn note_success(&self) -> Option<State> {
        let mut state = lock(&self.state);
        let present = state.as_mut()?;
        if present.last.elapsed() < OVER_AFTER {
            present.wait = FIRST_WAIT / 2;
            present.next = None;
            return None;
        }
        self.open.store(false, Ordering::Relaxed);
        state.take()
    }
}

impl fmt::Debug for Episode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Episode")
            .field("what", &self.what)
            .field("open", &self.open.load(Ordering::Relaxed))
            .finish_non_exhaustive()
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
    fn after_a_failure_one_of_many_may_try_and_after_a_success_all() {
        let episode = Episode::new("database");
        assert_eq!(episode.hold_off(), None);
        for _ in 0..10 {
            episode.failed(&"gone");
        }
        assert!((0..100).all(|_| episode.hold_off().is_some()));
        if let Some(state) = lock(&episode.state).as_mut() {
            state.next = Some(Instant::now()); // the wait is over
        }
        let turns = (0..100).filter(|_| episode.hold_off().is_none());
        assert_eq!(turns.count(), 1);
        episode.worked();
        assert!((0..100).all(|_| episode.hold_off().is_none()));
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
