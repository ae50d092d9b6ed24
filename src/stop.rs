//! The stop flag, and the cut behind it.

use crate::deadline::Deadline;
use crate::lock::lock;
use crate::sync::atomic::{AtomicBool, Ordering};
use crate::sync::{Arc, Condvar, Mutex, PoisonError};
use std::fmt;
use std::time::Duration;

/// Asks everything that holds a clone of it to stop; asked again, to cut.
///
/// It is an [`AtomicBool`] that every waiting thread looks at once per poll
/// interval, and a condition variable for those who do nothing but wait for
/// it. Setting it is idempotent, takes effect from any thread, before or after
/// whatever it stops was started, and cannot be taken back. Many servers may
/// share one.
///
/// ```
/// use lastecho::{Deadline, Stop};
///
/// let stop = Stop::new();
/// let ours = stop.clone();
/// std::thread::spawn(move || ours.set());
/// assert!(stop.wait(Deadline::NEVER));
/// assert!(stop.is_set() && !stop.is_cut());
/// ```
///
/// # `Stop` or a channel?
/// A channel wakes one receiver; a flag is seen by any number of threads that
/// are blocked in something else, as soon as their poll interval lets them
/// look. A thread that has nothing to do but wait can [`wait`](Self::wait).
#[derive(Clone, Default)]
pub struct Stop {
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    flag: Arc<AtomicBool>,
    cut: AtomicBool,
    cut_at: Mutex<Deadline>,
    lock: Mutex<()>,
    changed: Condvar,
}

impl Stop {
    /// A stop that nobody has asked for yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Asks for a graceful stop. Asking twice is asking once.
    pub fn set(&self) {
        // Release: whoever sees the flag also sees what was written before it.
        self.shared.flag.store(true, Ordering::Release);
        // Taken and given back so that no waiter can be between its look at
        // the flag and its sleep.
        drop(lock(&self.shared.lock));
        self.shared.changed.notify_all();
    }

    /// Ends the grace: what is still draining is cut. Implies [`set`](Self::set).
    pub fn cut(&self) {
        self.shared.cut.store(true, Ordering::Release);
        self.set();
    }

    /// Asks for a graceful stop that is to be over by then: what is still
    /// draining at the deadline is cut. The earliest such deadline holds.
    ///
    /// It is for everybody who shares this stop: a phase of a
    /// [`Shutdown`](crate::Shutdown) gives its part a stop of that part's own,
    /// or the later phases are cut at the same time.
    pub fn set_by(&self, deadline: Deadline) {
        {
            let mut cut_at = lock(&self.shared.cut_at);
            *cut_at = cut_at.earlier(deadline);
        }
        self.set();
    }

    /// When what is still draining will be cut; never, unless
    /// [`set_by`](Self::set_by) said so.
    #[must_use]
    pub fn cut_at(&self) -> Deadline {
        *lock(&self.shared.cut_at)
    }

    /// A guard that asks for the stop when it is dropped, also by a panic:
    /// for a thread without which the rest of the program has no purpose.
    #[must_use = "dropping the guard sets the stop"]
    pub fn set_on_drop(&self) -> SetOnDrop {
        SetOnDrop(self.clone())
    }

    /// Whether a stop was asked for.
    #[must_use]
    pub fn is_set(&self) -> bool {
        self.shared.flag.load(Ordering::Acquire)
    }

    /// Whether a cut was asked for, or is due by [`set_by`](Self::set_by).
    #[must_use]
    pub fn is_cut(&self) -> bool {
        self.shared.cut.load(Ordering::Acquire) || (self.is_set() && self.cut_at().has_passed())
    }

    /// Blocks until the stop is set (true) or the deadline has passed (false).
    ///
    /// [`set`](Self::set) wakes it at once. A flag that was set behind our
    /// back, through a shared [`AtomicBool`], wakes nobody: see [`From`].
    #[must_use]
    pub fn wait(&self, deadline: Deadline) -> bool {
        let mut guard = lock(&self.shared.lock);
        while !self.is_set() && !deadline.has_passed() {
            let longest = deadline.cap(Duration::from_secs(3600));
            guard = self
                .shared
                .changed
                .wait_timeout(guard, longest)
                .unwrap_or_else(PoisonError::into_inner)
                .0;
        }
        self.is_set()
    }
}

impl From<Arc<AtomicBool>> for Stop {
    /// A stop over a flag of your own, for example one that
    /// `signal_hook::flag::register` sets. A server sees it within one poll
    /// interval.
    fn from(flag: Arc<AtomicBool>) -> Self {
        Self {
            shared: Arc::new(Shared {
                flag,
                ..Shared::default()
            }),
        }
    }
}

impl fmt::Debug for Stop {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Stop")
            .field("set", &self.is_set())
            .field("cut", &self.is_cut())
            .finish()
    }
}

/// Sets its [`Stop`] when dropped; see [`Stop::set_on_drop`].
#[derive(Debug)]
pub struct SetOnDrop(Stop);

impl Drop for SetOnDrop {
    fn drop(&mut self) {
        self.0.set();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cut_is_also_a_stop_and_both_are_idempotent() {
        let stop = Stop::new();
        stop.set();
        stop.set();
        assert!(stop.is_set() && !stop.is_cut());
        stop.cut();
        stop.cut();
        assert!(stop.is_set() && stop.is_cut());
    }

    #[test]
    fn a_wait_ends_at_its_deadline() {
        assert!(!Stop::new().wait(Deadline::after(Duration::from_millis(5))));
    }

    #[test]
    fn the_earliest_deadline_cuts() {
        let stop = Stop::new();
        stop.set_by(Deadline::NEVER);
        assert!(stop.is_set() && !stop.is_cut());
        stop.set_by(Deadline::after(Duration::ZERO));
        stop.set_by(Deadline::after(Duration::from_secs(60)));
        assert!(stop.is_cut());
    }

    #[test]
    fn a_guard_sets_the_stop_when_it_is_dropped() {
        let stop = Stop::new();
        let guard = stop.set_on_drop();
        assert!(!stop.is_set());
        drop(guard);
        assert!(stop.is_set());
    }

    #[test]
    fn a_flag_of_ones_own_is_seen() {
        let flag = Arc::new(AtomicBool::new(false));
        let stop = Stop::from(Arc::clone(&flag));
        assert!(!stop.is_set());
        flag.store(true, Ordering::Release);
        assert!(stop.is_set());
    }
}
