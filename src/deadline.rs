//! An absolute point in time by which something must be done, or never.

use std::fmt;
use std::time::{Duration, Instant};

/// An absolute point in time by which something must be done, or never.
///
/// A deadline is passed inwards and becomes a timeout only at the system call,
/// so phases that share one never add up: each gets what the ones before it
/// left. It is measured with [`Instant`] (the monotonic clock), which a change
/// of the wall clock does not move.
///
/// ```
/// use lastecho::Deadline;
/// use std::time::Duration;
///
/// let deadline = Deadline::after(Duration::from_secs(8));
/// assert!(!deadline.has_passed());
/// assert!(deadline.cap(Duration::from_secs(1)) == Duration::from_secs(1));
/// assert_eq!(Deadline::NEVER.remaining(), None);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Deadline(Option<Instant>);

impl Deadline {
    /// The deadline that never passes.
    pub const NEVER: Self = Self(None);

    /// The deadline at this instant.
    #[must_use]
    pub const fn at(instant: Instant) -> Self {
        Self(Some(instant))
    }

    /// The deadline so long from now; never, where that is beyond the clock.
    #[must_use]
    pub fn after(duration: Duration) -> Self {
        Self(Instant::now().checked_add(duration))
    }

    /// Whether it is over.
    #[must_use]
    pub fn has_passed(self) -> bool {
        self.remaining() == Some(Duration::ZERO)
    }

    /// The time that is left: zero once it has passed, `None` for never.
    #[must_use]
    pub fn remaining(self) -> Option<Duration> {
        self.0
            .map(|instant| instant.saturating_duration_since(Instant::now()))
    }

    /// The earlier of the two.
    #[must_use]
    pub fn earlier(self, other: Self) -> Self {
        match (self.0, other.0) {
            (Some(one), Some(two)) => Self(Some(one.min(two))),
            (one, two) => Self(one.or(two)),
        }
    }

    /// The time that is left, but at most `longest`.
    #[must_use]
    pub fn cap(self, longest: Duration) -> Duration {
        self.remaining().map_or(longest, |left| left.min(longest))
    }
}

impl Default for Deadline {
    /// Never.
    fn default() -> Self {
        Self::NEVER
    }
}

impl From<Option<Duration>> for Deadline {
    /// So long from now; `None` is never.
    fn from(duration: Option<Duration>) -> Self {
        duration.map_or(Self::NEVER, Self::after)
    }
}

impl fmt::Display for Deadline {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.remaining() {
            None => f.write_str("never"),
            Some(left) => write!(f, "in {:.1}s", left.as_secs_f64()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_passed_deadline_leaves_nothing() {
        let deadline = Deadline::at(Instant::now());
        assert!(deadline.has_passed());
        assert_eq!(deadline.cap(Duration::from_secs(1)), Duration::ZERO);
    }

    #[test]
    fn a_duration_beyond_the_clock_is_never() {
        assert_eq!(Deadline::after(Duration::MAX), Deadline::NEVER);
        assert!(!Deadline::NEVER.has_passed());
        assert_eq!(Deadline::from(None), Deadline::NEVER);
    }

    #[test]
    fn the_earlier_of_two_may_be_either() {
        let soon = Deadline::after(Duration::from_secs(1));
        let later = Deadline::after(Duration::from_secs(2));
        assert_eq!(soon.earlier(later), soon);
        assert_eq!(later.earlier(soon), soon);
        assert_eq!(Deadline::NEVER.earlier(soon), soon);
        assert_eq!(soon.earlier(Deadline::NEVER), soon);
    }

    #[test]
    fn it_reads_as_people_say_it() {
        assert_eq!(Deadline::NEVER.to_string(), "never");
        assert!(
            Deadline::after(Duration::from_secs(90))
                .to_string()
                .starts_with("in ")
        );
    }
}
