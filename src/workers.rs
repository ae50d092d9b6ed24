//! Named threads that do jobs from one source, and lose none.

use crate::causes::Causes;
use crate::early::{Early, LEAST_POLL};
use crate::limits;
use crate::panics;
use crate::queue::Take;
use crate::stop::Stop;
use crate::sync::atomic::{AtomicU64, Ordering::Relaxed};
use crate::sync::thread;
use crate::sys;
use std::error::Error;
use std::fmt;
use std::io;
use std::marker::PhantomData;
use std::time::Duration;

/// The standard library's for a thread, unless `RUST_MIN_STACK` says otherwise.
const STACK: usize = 2 * 1024 * 1024;

/// So many named threads that do jobs from one source.
///
/// Each asks its source for a job, which may block for at most the poll
/// interval it is told, does the job, and looks at the stop: a job in hand is
/// always finished. A job that fails or panics is handed back by value, and
/// the worker goes on with the next.
///
/// ```
/// use lastecho::{Queue, Stop, Workers};
/// use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
///
/// let stop = Stop::new();
/// let queue = Queue::bounded(20, &Stop::new());
/// let sum = AtomicU64::new(0);
/// for number in 1..=10 {
///     queue.submit(number).unwrap();
/// }
/// queue.close(); // the workers end when it is empty
/// let tally = Workers::new("adder", 4).run(
///     &stop,
///     |_| |longest| queue.take(longest),
///     |number| {
///         sum.fetch_add(*number, Relaxed);
///         Ok(())
///     },
///     |number, failure| eprintln!("{number} was not added: {failure}"),
/// )?;
/// assert_eq!((tally.done, sum.into_inner()), (10, 55));
/// # Ok::<(), std::io::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct Workers {
    name: String,
    count: usize,
    poll: Duration,
}

/// What a job may fail with.
pub type WorkError = Box<dyn Error + Send + Sync>;

/// One worker, with what it needs: a connection of its own, say.
pub trait Worker {
    /// What it does.
    type Job;

    /// Waits for a job, for at most so long.
    fn take(&mut self, longest: Duration) -> Take<Self::Job>;

    /// Does a job. It is borrowed, so that it can be handed back.
    ///
    /// # Errors
    /// Where the job could not be done.
    fn work(&mut self, job: &mut Self::Job) -> Result<(), WorkError>;

    /// Gets a job back that failed or panicked. After a panic, the worker and
    /// the job may be in the middle of what `work` was changing.
    fn hand_back(&mut self, job: Self::Job, failure: Failure);
}

/// Why a job was handed back.
#[derive(Debug)]
pub enum Failure {
    /// The work said so.
    Failed(WorkError),
    /// The work panicked with this message.
    Panicked(String),
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Failed(error) => Causes(&**error).fmt(f),
            Self::Panicked(message) => write!(f, "panicked: {message:.1000}"),
        }
    }
}

/// What came of the workers' life. Jobs taken from the source = `done` +
/// `failed` + `panicked`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Tally {
    /// Jobs that were done.
    pub done: u64,
    /// Jobs whose work failed; handed back.
    pub failed: u64,
    /// Jobs whose work panicked; handed back.
    pub panicked: u64,
}

#[derive(Default)]
struct Counts {
    done: AtomicU64,
    failed: AtomicU64,
    panicked: AtomicU64,
}

impl Workers {
    /// So many workers (at least one), named `name-1`, `name-2` and so on. More
    /// than this process can have are an error of [`run`](Self::run).
    #[must_use]
    pub fn new(name: impl Into<String>, count: usize) -> Self {
        Self {
            name: name.into(),
            count: count.max(1),
            poll: Duration::from_secs(1),
        }
    }

    /// The longest that a source may block before the worker looks at the
    /// stop; 1 s by default, 4 ms at least.
    #[must_use]
    pub fn poll(mut self, interval: Duration) -> Self {
        self.poll = interval.max(LEAST_POLL);
        self
    }

    /// Runs closures until the stop is set or their sources are closed: see
    /// [`run_each`](Self::run_each), for workers without things of their own.
    ///
    /// `source` makes each worker's source from its number; the source blocks
    /// for at most the time that it is given.
    ///
    /// # Errors
    /// As [`run_each`](Self::run_each).
    pub fn run<J, S>(
        &self,
        stop: &Stop,
        source: impl Fn(usize) -> S + Sync,
        work: impl Fn(&mut J) -> Result<(), WorkError> + Sync,
        hand_back: impl Fn(J, Failure) + Sync,
    ) -> io::Result<Tally>
    where
        S: FnMut(Duration) -> Take<J>,
    {
        self.run_each(stop, |number| Closures {
            take: source(number),
            work: &work,
            hand_back: &hand_back,
            job: PhantomData,
        })
    }

    /// Runs the workers that `make` makes, each on its own thread and from its
    /// number (1 …), until the stop is set or their sources are closed.
    ///
    /// A source that has an error to deal with (a lost connection) deals with
    /// it: it waits, or is closed. One that comes back at once with nothing,
    /// again and again, is asked less often. A panic in `make`,
    /// [`Worker::take`] or [`Worker::hand_back`] ends the run with a panic: the
    /// other workers finish what they have in hand and end.
    ///
    /// Blocks until every worker has ended: for at most a poll interval after
    /// the stop, plus the jobs in hand.
    ///
    /// # Errors
    /// Only before working: they are more than [`limits::threads`], or not every
    /// thread can be started. Those that were end first, finishing what they took.
    pub fn run_each<W: Worker>(
        &self,
        stop: &Stop,
        make: impl Fn(usize) -> W + Sync,
    ) -> io::Result<Tally> {
        self.check_limits()?;
        let counts = Counts::default();
        let aborted = Stop::new();
        let work = |number| {
            let _guard = SetOnPanic(&aborted);
            let mut worker = make(number);
            let mut early = Early::default();
            while !stop.is_set() && !aborted.is_set() {
                match worker.take(self.poll) {
                    Take::Job(job) => attempt(&mut worker, job, &counts),
                    Take::Nothing => early.note(self.poll),
                    Take::Closed => return,
                }
            }
        };
        let work = &work;
        thread::scope(|scope| {
            (1..=self.count).try_for_each(|number| {
                let name = sys::thread_name(&format!("{}-{number}", self.name));
                let started = sys::can_start_thread().and_then(|()| {
                    let thread = thread::Builder::new().name(name);
                    thread.spawn_scoped(scope, move || work(number))
                });
                started.map(drop).inspect_err(|_| aborted.set())
            })
        })?;
        Ok(counts.tally())
    }

    /// Near the limit of memory maps a thread's beginning may abort the process.
    fn check_limits(&self) -> io::Result<()> {
        let most = limits::threads(STACK);
        if self.count > most {
            let (name, count) = (&self.name, self.count);
            let message = format!("{count} workers {name:?}: this process can have {most} threads");
            return Err(io::Error::other(message));
        }
        Ok(())
    }
}

/// Ends the run where a worker panics: it may be the one without which the
/// others have no purpose.
struct SetOnPanic<'a>(&'a Stop);

impl Drop for SetOnPanic<'_> {
    fn drop(&mut self) {
        if thread::panicking() {
            self.0.set();
        }
    }
}

/// Does one job; hands it back if that fails or panics.
fn attempt<W: Worker>(worker: &mut W, mut job: W::Job, counts: &Counts) {
    let failure = match panics::caught(|| worker.work(&mut job)) {
        Ok(Ok(())) => {
            counts.done.fetch_add(1, Relaxed);
            return;
        }
        Ok(Err(error)) => {
            counts.failed.fetch_add(1, Relaxed);
            Failure::Failed(error)
        }
        Err(message) => {
            counts.panicked.fetch_add(1, Relaxed);
            Failure::Panicked(message)
        }
    };
    worker.hand_back(job, failure);
}

/// A worker made of closures.
struct Closures<'a, J, S, F, H> {
    take: S,
    work: &'a F,
    hand_back: &'a H,
    job: PhantomData<fn(J)>,
}

impl<J, S, F, H> Worker for Closures<'_, J, S, F, H>
where
    S: FnMut(Duration) -> Take<J>,
    F: Fn(&mut J) -> Result<(), WorkError>,
    H: Fn(J, Failure),
{
    type Job = J;

    fn take(&mut self, longest: Duration) -> Take<J> {
        (self.take)(longest)
    }

    fn work(&mut self, job: &mut J) -> Result<(), WorkError> {
        (self.work)(job)
    }

    fn hand_back(&mut self, job: J, failure: Failure) {
        (self.hand_back)(job, failure);
    }
}

impl Counts {
    fn tally(&self) -> Tally {
        Tally {
            done: self.done.load(Relaxed),
            failed: self.failed.load(Relaxed),
            panicked: self.panicked.load(Relaxed),
        }
    }
}
