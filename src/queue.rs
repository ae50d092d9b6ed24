//! A bounded queue of jobs that loses none.

use crate::deadline::Deadline;
use crate::early::LEAST_POLL;
use crate::lock::lock;
use crate::stop::Stop;
use crate::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::collections::VecDeque;
use std::fmt;
use std::time::Duration;

/// A bounded queue between those who submit jobs and those who do them.
///
/// A job is always in one place: with who submitted it (an error gives it
/// back), in the queue, with a worker, or among those that
/// [`drain`](Self::drain) returns. Full, it holds submitters back, so pressure
/// reaches the source. It closes when its [`Stop`] is set or [`close`](Self::close) is called;
/// from then on it takes no job and gives out what it has.
///
/// ```
/// use lastecho::{Deadline, Queue, Stop, Take};
/// use std::time::Duration;
///
/// let queue = Queue::bounded(20, &Stop::new());
/// queue.submit("a line").unwrap();
/// assert_eq!(queue.take(Duration::ZERO), Take::Job("a line"));
/// queue.close();
/// assert_eq!(queue.take(Duration::ZERO), Take::Closed);
/// assert_eq!(queue.submit("too late").unwrap_err().job, "too late");
/// # let none: Vec<&str> = queue.drain(Deadline::NEVER);
/// # assert!(none.is_empty());
/// ```
pub struct Queue<J> {
    capacity: usize,
    poll: Duration,
    stop: Stop,
    state: Mutex<State<J>>,
    /// A job came, or the queue closed.
    filled: Condvar,
    /// There is room, or nothing is left, or the queue closed.
    emptied: Condvar,
}

struct State<J> {
    jobs: VecDeque<J>,
    closed: bool,
}

/// Why a job was not taken into the queue; it comes back by value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rejected<J> {
    /// The job.
    pub job: J,
    /// Why.
    pub reason: Reason,
}

/// Why a queue does not take a job.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// It is full at the moment.
    Full,
    /// It is closed for good.
    Closed,
}

/// What came of one wait for a job.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Take<J> {
    /// A job.
    Job(J),
    /// None within the time.
    Nothing,
    /// None now and none ever again.
    Closed,
}

impl<J> Queue<J> {
    /// A queue for so many jobs (at least one) that closes when `stop` is set.
    #[must_use]
    pub fn bounded(capacity: usize, stop: &Stop) -> Self {
        Self {
            capacity: capacity.max(1),
            poll: Duration::from_millis(100),
            stop: stop.clone(),
            state: Mutex::new(State {
                jobs: VecDeque::new(),
                closed: false,
            }),
            filled: Condvar::new(),
            emptied: Condvar::new(),
        }
    }

    /// How often a wait looks at the stop; 100 ms by default, 4 ms at least.
    #[must_use]
    pub fn poll(mut self, interval: Duration) -> Self {
        self.poll = interval.max(LEAST_POLL);
        self
    }

    /// Puts a job in, and waits for room where there is none.
    ///
    /// Blocks until there is room or the queue closes; room and
    /// [`close`](Self::close) wake it, the stop within a poll interval. In a
    /// connection's handler the server's cut does not: a program that cuts its
    /// server closes the queue, too.
    ///
    /// # Errors
    /// The job comes back where the queue is closed.
    pub fn submit(&self, job: J) -> Result<(), Rejected<J>> {
        let mut state = self.look();
        while !state.closed && state.jobs.len() >= self.capacity {
            state = self.wait(&self.emptied, state, self.poll);
        }
        self.put(state, job)
    }

    /// Puts a job in if there is room; never blocks for it.
    ///
    /// # Errors
    /// The job comes back where the queue is full or closed.
    pub fn try_submit(&self, job: J) -> Result<(), Rejected<J>> {
        self.put(self.look(), job)
    }

    fn put(&self, mut state: MutexGuard<'_, State<J>>, job: J) -> Result<(), Rejected<J>> {
        if state.closed {
            return Err(Rejected {
                job,
                reason: Reason::Closed,
            });
        }
        if state.jobs.len() >= self.capacity {
            return Err(Rejected {
                job,
                reason: Reason::Full,
            });
        }
        state.jobs.push_back(job);
        self.filled.notify_one();
        Ok(())
    }

    /// Takes the oldest job, and waits for one at most so long.
    pub fn take(&self, longest: Duration) -> Take<J> {
        let deadline = Deadline::after(longest);
        let mut state = self.look();
        loop {
            if let Some(job) = state.jobs.pop_front() {
                self.emptied.notify_all();
                return Take::Job(job);
            }
            if state.closed {
                return Take::Closed;
            }
            if deadline.has_passed() {
                return Take::Nothing;
            }
            state = self.wait(&self.filled, state, deadline.cap(self.poll));
        }
    }

    /// Takes no further job from now on.
    pub fn close(&self) {
        lock(&self.state).closed = true;
        self.filled.notify_all();
        self.emptied.notify_all();
    }

    /// Closes the queue, waits until workers have taken everything or the
    /// deadline has passed, and returns what nobody started.
    ///
    /// It does not know who will take. Where all workers have ended and jobs are
    /// left, it waits for the deadline, with [`Deadline::NEVER`] for ever: give it
    /// `Deadline::after(Duration::ZERO)` then. The cut of the queue's [`Stop`] ends
    /// the wait, too, within a poll interval.
    #[must_use = "these jobs were not done"]
    pub fn drain(&self, deadline: Deadline) -> Vec<J> {
        self.close();
        let mut state = lock(&self.state);
        while !state.jobs.is_empty() && !deadline.has_passed() && !self.stop.is_cut() {
            let longest = deadline.cap(self.poll);
            state = self.wait(&self.emptied, state, longest);
        }
        state.jobs.drain(..).collect()
    }

    /// Jobs that wait.
    #[must_use]
    pub fn len(&self) -> usize {
        lock(&self.state).jobs.len()
    }

    /// Whether no job waits.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Locks, and notices the stop.
    fn look(&self) -> MutexGuard<'_, State<J>> {
        let mut state = lock(&self.state);
        state.closed |= self.stop.is_set();
        state
    }

    fn wait<'a>(
        &self,
        changed: &Condvar,
        state: MutexGuard<'a, State<J>>,
        longest: Duration,
    ) -> MutexGuard<'a, State<J>> {
        let waited = changed.wait_timeout(state, longest);
        let mut state = waited.unwrap_or_else(PoisonError::into_inner).0;
        state.closed |= self.stop.is_set();
        state
    }
}

impl<J> fmt::Debug for Queue<J> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Queue")
            .field("len", &self.len())
            .field("capacity", &self.capacity)
            .finish_non_exhaustive()
    }
}

impl<J> fmt::Display for Rejected<J> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.reason {
            Reason::Full => "the queue is full",
            Reason::Closed => "the queue is closed",
        })
    }
}

impl<J: fmt::Debug> std::error::Error for Rejected<J> {}
