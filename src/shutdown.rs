//! Stopping the parts of a program in order, under one deadline.

use crate::causes::Causes;
use crate::deadline::Deadline;
use crate::lock::lock;
use crate::stop::Stop;
use crate::sync::mpsc::{RecvTimeoutError, sync_channel};
use crate::sync::thread;
use crate::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::error::Error;
use std::fmt;
use std::time::{Duration, Instant};

/// What a phase may fail with.
pub type PhaseError = Box<dyn Error + Send + Sync>;
type Phase = Box<dyn FnOnce(Deadline) -> Result<(), PhaseError> + Send>;

/// Time that each later phase keeps, whatever the earlier ones take: a stuck
/// phase must not leave a closer without any.
const RESERVE: Duration = Duration::from_secs(1);
/// A phase that does as it is told returns *at* its deadline, so it is told one
/// a little before it is called stuck: this part of its time later, and this.
const MARGIN: u32 = 10;
const GRACE: Duration = Duration::from_millis(50);
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
    outcome: Option<ShutdownOutcome>,
}

/// How a phase ended.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum PhaseEnd {
    /// It is done.
    Done,
    /// It said that it failed; it is over all the same.
    Failed(Arc<PhaseError>),
    /// It panicked.
    Panicked,
    /// It was still at it when its time was over, and was left behind.
    Stuck,
}

impl fmt::Display for PhaseEnd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Done => f.write_str("done"),
            Self::Failed(error) => write!(f, "failed: {}", Causes(&***error)),
            Self::Panicked => f.write_str("panicked"),
            Self::Stuck => f.write_str("stuck"),
        }
    }
}

/// How a shutdown ended, phase by phase.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct ShutdownOutcome {
    /// Name, end and duration of every phase, in the order in which they ran.
    pub phases: Vec<(String, PhaseEnd, Duration)>,
}

impl ShutdownOutcome {
    /// Whether every phase is done.
    #[must_use]
    pub fn is_clean(&self) -> bool {
        self.phases
            .iter()
            .all(|(_, end, _)| matches!(end, PhaseEnd::Done))
    }

    /// The first error of a phase.
    #[must_use]
    pub fn first_error(&self) -> Option<(&str, &PhaseError)> {
        self.phases.iter().find_map(|(name, end, _)| match end {
            PhaseEnd::Failed(error) => Some((name.as_str(), &**error)),
            _ => None,
        })
    }
}

impl fmt::Display for ShutdownOutcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (number, (name, end, _)) in self.phases.iter().enumerate() {
            let comma = if number == 0 { "" } else { ", " };
            write!(f, "{comma}{name}: {end}")?;
        }
        Ok(())
    }
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
    /// its own, so that one that is stuck can be left behind.
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
        let all = self.clone();
        self.phase(name, move |deadline| {
            if all.await_running(deadline) {
                return Ok(());
            }
            let left = lock(&all.shared.state).running;
            Err(format!("{left} still running").into())
        })
    }

    /// Waits until nothing that was counted in is running; false where the
    /// deadline passed first. A phase for "everybody has left".
    #[must_use]
    pub fn await_running(&self, deadline: Deadline) -> bool {
        let mut state = lock(&self.shared.state);
        while state.running > 0 && !deadline.has_passed() {
            let longest = deadline.cap(Duration::from_secs(3600));
            let waited = self.shared.changed.wait_timeout(state, longest);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
        state.running == 0
    }
}

impl Shutdown {
    /// Waits until it has begun, then stops every phase in order, all within
    /// `timeout` (`None` waits for as long as they take).
    ///
    /// A phase has the time of the whole, less 1 s (or its share of a short
    /// timeout) for each later phase. The deadline that it is told leaves a
    /// tenth of that for its return; one that has not returned when its time is
    /// over is named, logged and left behind on its thread. A cut
    /// ([`Stop::cut`]) leaves the present phase behind at once and gives the
    /// later ones no time.
    ///
    /// Blocks until it has begun and every phase has ended or was left behind.
    /// A second call, from any clone, waits for the first and returns the same
    /// outcome.
    pub fn run(&self, timeout: impl Into<Option<Duration>>) -> ShutdownOutcome {
        while !self.stop.wait(Deadline::after(POLL)) {}
        let phases = {
            let mut state = lock(&self.shared.state);
            if state.begun {
                return self.await_outcome(state);
            }
            state.begun = true;
            std::mem::take(&mut state.phases)
        };
        let outcome = self.run_phases(phases, timeout.into());
        lock(&self.shared.state).outcome = Some(outcome.clone());
        self.shared.changed.notify_all();
        outcome
    }

    fn await_outcome(&self, mut state: MutexGuard<'_, State>) -> ShutdownOutcome {
        loop {
            if let Some(outcome) = &state.outcome {
                return outcome.clone();
            }
            let waited = self.shared.changed.wait(state);
            state = waited.unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn run_phases(
        &self,
        phases: Vec<(String, Phase)>,
        timeout: Option<Duration>,
    ) -> ShutdownOutcome {
        let begun = Instant::now();
        let count = u32::try_from(phases.len()).unwrap_or(u32::MAX);
        let reserve = timeout.map_or(RESERVE, |all| RESERVE.min(all / (2 * count.max(1))));
        let mut later = count;
        let mut outcome = ShutdownOutcome::default();
        for (name, phase) in phases {
            later -= 1;
            let share = timeout.map(|all| all.saturating_sub(reserve * later));
            let deadline = share.and_then(|share| begun.checked_add(share));
            let started = Instant::now();
            let end = self.run_phase(&name, phase, deadline.map_or(Deadline::NEVER, Deadline::at));
            log::info!("shutdown: {name}: {end} after {:.1?}", started.elapsed());
            outcome.phases.push((name, end, started.elapsed()));
        }
        outcome
    }

    fn run_phase(&self, name: &str, phase: Phase, deadline: Deadline) -> PhaseEnd {
        let left = deadline.remaining();
        let told = Deadline::from(left.map(|left| left - left / MARGIN));
        let (sender, done) = sync_channel(1);
        let thread = thread::Builder::new().name(format!("stop {name}"));
        let run = move || {
            // Nobody listens any more where the phase was left behind.
            let _ = sender.send(phase(told));
        };
        if let Err(error) = thread.spawn(run) {
            return PhaseEnd::Failed(Arc::new(error.into()));
        }
        let given_up = Deadline::from(left.map(|left| left + GRACE));
        loop {
            match done.recv_timeout(given_up.cap(POLL)) {
                Ok(Ok(())) => return PhaseEnd::Done,
                Ok(Err(error)) => return PhaseEnd::Failed(Arc::new(error)),
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
}
