//! Stopping the parts of a program in order, under one deadline.

mod outcome;

pub use outcome::{PhaseEnd, PhaseError, ShutdownOutcome};

use crate::deadline::Deadline;
use crate::lock::lock;
use crate::panics::{self, say};
use crate::stop::Stop;
use crate::sync::mpsc::{Receiver, RecvTimeoutError, sync_channel};
use crate::sync::thread::{self, ThreadId};
use crate::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use crate::sys;
use std::fmt;
use std::time::{Duration, Instant};

type Phase = Box<dyn FnOnce(Deadline) -> Result<(), PhaseError> + Send>;

/// Time that each later phase keeps, whatever the earlier ones take: a stuck
/// phase must not leave a closer without any.
const RESERVE: Duration = Duration::from_secs(1);
/// A phase that does as it is told returns *at* its deadline, so it is told one
/// a little before it is called stuck: this part of its time later, and its
/// share of what all phases together may take beyond the timeout.
const MARGIN: u32 = 10;
const GRACE: Duration = Duration::from_millis(100);
/// How often a wait looks at the stop and the cut.
const POLL: Duration = Duration::from_millis(20);

/// Stops the parts of a program in the order in which they were registered,
/// upstream before downstream, under one absolute deadline.
///
/// It begins when it is [fired](Self::fire), or its [`Stop`] is set in any other way
/// (a signal, a server's own end). Clones share it.
///
/// ```
/// use lastecho::Shutdown;
/// use std::time::Duration;
///
/// let shutdown = Shutdown::new();
/// shutdown.phase("upstream", |deadline| {
///     println!("to be cut {deadline}");
///     Ok(())
/// });
/// shutdown.phase("database", |_| Err("was gone already".into()));
/// shutdown.fire(); // or a signal: signals::install(shutdown.stop())
/// let outcome = shutdown.run(Duration::from_secs(8));
/// assert_eq!(outcome.to_string(), "upstream: done, database: failed: was gone already");
/// ```
#[derive(Clone, Default)]
pub struct Shutdown {
    stop: Stop,
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    phases: Vec<(String, Phase)>,
    /// Guards that are out.
    running: usize,
    begun: bool,
    /// The thread on which the present phase runs.
    present: Option<ThreadId>,
    /// The phases that have ended or were left behind so far.
    outcome: ShutdownOutcome,
    /// These are all.
    over: bool,
}

impl Shutdown {
    /// A shutdown with a stop of its own.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// A shutdown that begins when this stop is set.
    #[must_use]
    pub fn on(stop: &Stop) -> Self {
        Self {
            stop: stop.clone(),
            shared: Arc::default(),
        }
    }

    /// The stop that begins it: for signals, and for whatever polls.
    #[must_use]
    pub fn stop(&self) -> &Stop {
        &self.stop
    }

    /// Begins it. A second call does nothing.
    pub fn fire(&self) {
        self.stop.set();
    }

    /// Whether it has begun: what a polling worker looks at in each round.
    #[must_use]
    pub fn has_fired(&self) -> bool {
        self.stop.is_set()
    }

    /// Registers the next phase: a stop function, a closer, a server's own
    /// shutdown. It is told by when it should be done, and runs on a thread of
    /// its own, so that one that is stuck can be left behind; on the one that is
    /// in [`run`](Self::run) where no thread can be started, and cannot be left
    /// behind then.
    ///
    /// What it holds is dropped when it has run, or with the last clone of this
    /// shutdown; so it should not hold one itself.
    ///
    /// A phase that is registered after the shutdown began is not run; the
    /// caller still has what it wanted stopped, and is told so by `false`.
    pub fn phase(
        &self,
        name: impl Into<String>,
        stop: impl FnOnce(Deadline) -> Result<(), PhaseError> + Send + 'static,
    ) -> bool {
        let mut state = lock(&self.shared.state);
        if !state.begun {
            state.phases.push((name.into(), Box::new(stop)));
        }
        !state.begun
    }

    /// Counts something running in, until the guard is dropped. Take the guard
    /// *before* starting the thread and move it in.
    #[must_use = "dropping the guard counts it out"]
    pub fn running(&self) -> Running {
        lock(&self.shared.state).running += 1;
        Running {
            shared: Arc::clone(&self.shared),
        }
    }

    /// Registers the phase "everybody who was counted in has left".
    pub fn running_phase(&self, name: impl Into<String>) -> bool {
        let shared = Arc::downgrade(&self.shared);
        self.phase(name, move |deadline| {
            let left = shared
                .upgrade()
                .map_or(0, |all| all.await_running(deadline));
            match left {
                0 => Ok(()),
                _ => Err(format!("{left} still running").into()),
            }
        })
    }

    /// Waits until nothing that was counted in is running; false where the
    /// deadline passed first. A phase for "everybody has left".
    #[must_use]
    pub fn await_running(&self, deadline: Deadline) -> bool {
        self.shared.await_running(deadline) == 0
    }
}

impl Shared {
    /// How many are still running at the deadline.
    fn await_running(&self, deadline: Deadline) -> usize {
        let mut state = lock(&self.state);
        while state.running > 0 && !deadline.has_passed() {
            let longest = deadline.cap(Duration::from_secs(3600));
            let waited = self.changed.wait_timeout(state, longest);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
        state.running
    }

    /// Waits until every phase has ended; on the present phase's own thread
    /// there is nothing to wait for.
    fn await_outcome(&self, mut state: MutexGuard<'_, State>) -> ShutdownOutcome {
        while !state.over && state.present != Some(thread::current().id()) {
            let waited = self.changed.wait(state);
            state = waited.unwrap_or_else(PoisonError::into_inner);
        }
        state.outcome.clone()
    }

    fn note_present(&self, thread: ThreadId) {
        lock(&self.state).present = Some(thread);
        self.changed.notify_all(); // it may be in `run` already
    }
}

/// Tells those who wait for the outcome that there is no more to come, also
/// where a logger panics.
struct Over<'a>(&'a Shared);

impl Drop for Over<'_> {
    fn drop(&mut self) {
        lock(&self.0.state).over = true;
        self.0.changed.notify_all();
    }
}

impl Shutdown {
    /// Waits until it has begun, then stops every phase in order, all within
    /// `timeout` (`None` waits for as long as they take).
    ///
    /// A phase has the time of the whole, less 1 s (or its share of a short
    /// timeout) for each later phase. The deadline that it is told leaves a
    /// tenth of that for its return; one that has not returned when its time is
    /// over is named, logged and left behind on its thread. Timeouts of zero
    /// and of a moment leave each phase its share of 100 ms. A cut
    /// ([`Stop::cut`]) leaves the present phase behind at once and gives the
    /// later ones no time.
    ///
    /// Blocks until it has begun and every phase has ended or was left behind:
    /// for the timeout and 100 ms, however many phases there are. A second
    /// call, from any clone, waits for the first and returns the same outcome;
    /// from within a phase it returns at once with what has ended so far.
    pub fn run(&self, timeout: impl Into<Option<Duration>>) -> ShutdownOutcome {
        while !self.stop.wait(Deadline::after(POLL)) {}
        let phases = {
            let mut state = lock(&self.shared.state);
            if state.begun {
                return self.shared.await_outcome(state);
            }
            state.begun = true;
            std::mem::take(&mut state.phases)
        };
        let over = Over(&self.shared);
        self.run_phases(phases, timeout.into());
        drop(over);
        lock(&self.shared.state).outcome.clone()
    }

    fn run_phases(&self, phases: Vec<(String, Phase)>, timeout: Option<Duration>) {
        let begun = Instant::now();
        let count = u32::try_from(phases.len()).unwrap_or(u32::MAX);
        let reserve = timeout.map_or(RESERVE, |all| RESERVE.min(all / (2 * count.max(1))));
        let since_begun = |time: Option<Duration>| {
            let end = time.and_then(|time| begun.checked_add(time));
            end.map_or(Deadline::NEVER, Deadline::at)
        };
        for (later, (name, phase)) in (0..count).rev().zip(phases) {
            let share = timeout.map(|all| all.saturating_sub(reserve * later));
            let grace = GRACE * (count - later) / count;
            let given_up = share.map(|share| share.saturating_add(grace));
            let started = Instant::now();
            let end = self.run_phase(&name, phase, since_begun(share), since_begun(given_up));
            let took = started.elapsed();
            say!(log::Level::Info, "shutdown: {name}: {end} after {took:.1?}");
            let mut state = lock(&self.shared.state);
            state.outcome.phases.push((name, end, took));
            state.present = None;
        }
    }

    fn run_phase(
        &self,
        name: &str,
        phase: Phase,
        deadline: Deadline,
        given_up: Deadline,
    ) -> PhaseEnd {
        let left = deadline.remaining();
        let told = Deadline::from(left.map(|left| left - left / MARGIN));
        // Shared, so that it is not lost where no thread can be started.
        let phase = Arc::new(Mutex::new(Some(phase)));
        let take = move || lock(&phase).take();
        let (sender, done) = sync_channel(1);
        let theirs = take.clone();
        let run = move || {
            let outcome = theirs().map(|phase| phase(told));
            // Nobody listens any more where the phase was left behind.
            let _ = sender.send(outcome.unwrap_or(Ok(())));
        };
        let thread = thread::Builder::new().name(sys::thread_name(&format!("stop {name}")));
        match sys::can_start_thread().and_then(|()| thread.spawn(run)) {
            Ok(thread) => {
                self.shared.note_present(thread.thread().id());
                self.await_phase(&done, given_up)
            }
            Err(error) => {
                say!(
                    log::Level::Warn,
                    "shutdown: {name}: no thread of its own: {error}"
                );
                self.shared.note_present(thread::current().id());
                match panics::caught(|| take().map_or(Ok(()), |phase| phase(told))) {
                    Ok(outcome) => outcome.into(),
                    Err(_) => PhaseEnd::Panicked,
                }
            }
        }
    }

    fn await_phase(&self, done: &Receiver<Result<(), PhaseError>>, given_up: Deadline) -> PhaseEnd {
        loop {
            match done.recv_timeout(given_up.cap(POLL)) {
                Ok(outcome) => return outcome.into(),
                Err(RecvTimeoutError::Disconnected) => return PhaseEnd::Panicked,
                Err(RecvTimeoutError::Timeout) if given_up.has_passed() || self.stop.is_cut() => {
                    return PhaseEnd::Stuck;
                }
                Err(RecvTimeoutError::Timeout) => {}
            }
        }
    }
}

/// Counts something that is running, until it is dropped.
pub struct Running {
    shared: Arc<Shared>,
}

impl Drop for Running {
    fn drop(&mut self) {
        lock(&self.shared.state).running -= 1;
        self.shared.changed.notify_all();
    }
}

impl fmt::Debug for Running {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Running")
    }
}

impl fmt::Debug for Shutdown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = lock(&self.shared.state);
        let names: Vec<_> = state.phases.iter().map(|(name, _)| name).collect();
        f.debug_struct("Shutdown")
            .field("fired", &self.has_fired())
            .field("phases", &names)
            .field("running", &state.running)
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ends(outcome: &ShutdownOutcome) -> Vec<String> {
        outcome
            .phases
            .iter()
            .map(|(name, end, _)| format!("{name}: {end}"))
            .collect()
    }

    #[test]
    fn phases_run_in_order_and_a_second_run_returns_the_same() {
        let shutdown = Shutdown::new();
        let order = Arc::new(Mutex::new(Vec::new()));
        for name in ["upstream", "queue", "consumers"] {
            let order = Arc::clone(&order);
            let phase = move |_| {
                lock(&order).push(name);
                Ok(())
            };
            assert!(shutdown.phase(name, phase));
        }
        shutdown.fire();
        shutdown.fire();
        let outcome = shutdown.run(Duration::from_secs(60));
        assert_eq!(*lock(&order), ["upstream", "queue", "consumers"]);
        assert!(outcome.is_clean() && outcome.first_error().is_none());
        assert_eq!(ends(&shutdown.run(None)), ends(&outcome));
        assert!(!shutdown.phase("late", |_| Ok(())));
    }

    #[test]
    fn a_stuck_phase_is_named_and_the_later_ones_run() {
        let shutdown = Shutdown::new();
        let release = Stop::new();
        let held = release.clone();
        shutdown.phase("stuck", move |_| {
            let _ = held.wait(Deadline::NEVER);
            Ok(())
        });
        shutdown.phase("panics", |_| -> Result<(), PhaseError> {
            panic!("on purpose")
        });
        shutdown.phase("fails", |_| Err("no".into()));
        shutdown.phase("closer", |deadline| {
            if deadline.has_passed() {
                Err("no time was left".into())
            } else {
                Ok(())
            }
        });
        shutdown.fire();
        let outcome = shutdown.run(Duration::from_secs(4));
        release.set();
        assert_eq!(
            ends(&outcome),
            [
                "stuck: stuck",
                "panics: panicked",
                "fails: failed: no",
                "closer: done"
            ]
        );
        assert_eq!(outcome.first_error().map(|(name, _)| name), Some("fails"));
    }

    #[test]
    fn guards_are_given_back_by_a_panic_too() {
        let shutdown = Shutdown::new();
        let (quick, broken) = (shutdown.running(), shutdown.running());
        assert!(!shutdown.await_running(Deadline::after(Duration::from_millis(5))));
        let _ = thread::spawn(move || {
            let _running = broken;
            panic!("on purpose")
        })
        .join();
        thread::spawn(move || drop(quick));
        assert!(shutdown.await_running(Deadline::after(Duration::from_secs(60))));
    }

    #[test]
    fn a_cut_leaves_a_stuck_phase_behind() {
        let shutdown = Shutdown::new();
        let release = Stop::new();
        let held = release.clone();
        shutdown.phase("stuck", move |_| {
            let _ = held.wait(Deadline::NEVER);
            Ok(())
        });
        shutdown.stop().cut();
        assert_eq!(ends(&shutdown.run(None)), ["stuck: stuck"]);
        release.set();
    }

    /// Registers so many phases that are stuck until the stop is set.
    fn with_stuck_phases(count: usize) -> (Shutdown, Stop) {
        let (shutdown, release) = (Shutdown::new(), Stop::new());
        for number in 0..count {
            let held = release.clone();
            shutdown.phase(format!("stuck {number}"), move |_| {
                let _ = held.wait(Deadline::NEVER);
                Ok(())
            });
        }
        (shutdown, release)
    }

    /// With a margin of 50 ms for each it takes 15 s.
    #[test]
    #[cfg_attr(miri, ignore)] // too many threads
    fn many_stuck_phases_share_one_margin() {
        let (shutdown, release) = with_stuck_phases(300);
        shutdown.fire();
        let begun = Instant::now();
        let outcome = shutdown.run(Duration::ZERO);
        let took = begun.elapsed();
        release.set();
        let is_stuck = |(_, end, _): &(_, PhaseEnd, _)| matches!(end, PhaseEnd::Stuck);
        assert_eq!(
            outcome.phases.iter().filter(|one| is_stuck(one)).count(),
            300
        );
        assert!(took < Duration::from_secs(12), "{took:?}");
    }

    #[test]
    fn a_run_within_a_phase_returns_what_has_ended_so_far() {
        let shutdown = Shutdown::new();
        shutdown.phase("first", |_| Ok(()));
        let inner = shutdown.clone();
        shutdown.phase("second", move |_| {
            let so_far = inner.run(None);
            assert_eq!(ends(&so_far), ["first: done"]);
            Ok(())
        });
        shutdown.fire();
        assert_eq!(ends(&shutdown.run(None)), ["first: done", "second: done"]);
    }

    #[test]
    fn what_phases_hold_is_dropped_where_it_never_begins() {
        let held = Arc::new(());
        let shutdown = Shutdown::new();
        shutdown.running_phase("everybody");
        let holds = Arc::clone(&held);
        shutdown.phase("pool", move |_| {
            drop(holds);
            Ok(())
        });
        drop(shutdown);
        assert_eq!(Arc::strong_count(&held), 1);
    }

    #[test]
    fn a_name_may_hold_any_character() {
        let shutdown = Shutdown::new();
        shutdown.phase("a\0b", |_| Ok(()));
        shutdown.fire();
        assert_eq!(ends(&shutdown.run(None)), ["a\0b: done"]);
    }
}
