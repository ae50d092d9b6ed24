//! The workers between the lists and the database, and the order of their
//! stop.

use crate::check::Fault;
use crate::database::Database;
use crate::lists::{Link, Lists};
use crate::message::parse;
use crate::options::Options;
use crate::outcome::{Counts, count};
use crate::output::say;
use crate::settling::{How, Settled};
use crate::trouble::{Connected, Trouble};
use anyhow::{Context, Result, bail};
use lastecho::{
    Deadline, Failure, Shutdown, ShutdownOutcome, Stop, Take, WorkError, Worker, Workers,
};
use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::mpsc::{RecvTimeoutError, sync_channel};
use std::thread;
use std::time::{Duration, Instant};

/// The longest between two renewals of the leases (`tend.lua` knows it), and
/// between two tries where Redis fails.
const LONGEST_LOOK: Duration = Duration::from_secs(3);
const RETRY: Duration = Duration::from_millis(250);
/// How often it is looked whether the start is done, or a stop comes before.
const LOOK: Duration = Duration::from_millis(50);

/// Everything that the workers share.
pub struct Mover {
    options: Options,
    /// Stops the program.
    stop: Stop,
    /// Stops the workers, by when their phase should be over.
    drain: Stop,
    /// All workers have started: none takes a message before.
    started: Stop,
    lists: Arc<Lists>,
    database: Database,
    trouble: Trouble,
    /// What became of the messages.
    pub counts: Counts,
}

/// A worker: a connection to Redis, a way into the database.
struct Hand<'a> {
    mover: &'a Mover,
    link: Link,
    database: Connected<'a>,
}

impl Worker for Hand<'_> {
    type Job = Vec<u8>;

    fn take(&mut self, longest: Duration) -> Take<Vec<u8>> {
        let Mover { drain, trouble, .. } = self.mover;
        if !self.mover.started.wait(Deadline::after(longest.min(LOOK))) {
            return Take::Nothing;
        }
        let waits = [trouble.hold_off(&mut self.database), self.link.hold_off()];
        if let Some(wait) = waits.into_iter().flatten().max() {
            let _ = drain.wait(Deadline::after(wait.min(longest)));
            return Take::Nothing;
        }
        match self.link.take() {
            Ok(Some(message)) => {
                count(&self.mover.counts.taken);
                Take::Job(message)
            }
            // The error is told and waited for by `lists.trouble`.
            Ok(None) | Err(_) => Take::Nothing,
        }
    }

    /// Into the database first, out of Redis then: in between, a kill makes a
    /// duplicate, which its key makes harmless. The other way round it would
    /// make a loss.
    fn work(&mut self, message: &mut Vec<u8>) -> Result<(), WorkError> {
        let Mover {
            options,
            trouble,
            counts,
            ..
        } = self.mover;
        thread::sleep(options.work);
        let (key, body) = parse(message)?;
        if let Some(word) = &options.panic_on {
            assert!(!key.contains(word), "on purpose");
        }
        let is_new = self.database.writer.write(key, body)?;
        trouble.worked();
        count(&counts.moved);
        if !is_new {
            count(&counts.duplicates);
        }
        self.settle(message, How::Done);
        Ok(())
    }

    fn hand_back(&mut self, message: Vec<u8>, failure: Failure) {
        let Mover {
            trouble, counts, ..
        } = self.mover;
        match &failure {
            Failure::Panicked(_) => count(&counts.panicked),
            Failure::Failed(_) => count(&counts.failed),
        }
        if let Failure::Failed(error) = &failure
            && let Some(error) = error.downcast_ref()
            && let Some(how) = trouble.blame(&mut self.database, error, &message, counts)
        {
            return self.settle(&message, how);
        }
        let shown = String::from_utf8_lossy(&message);
        let shown: String = shown.chars().take(80).collect();
        log::warn!("{shown:?}: {failure}");
        self.settle(&message, How::Failed);
    }
}

impl Hand<'_> {
    fn settle(&mut self, message: &[u8], how: How) {
        let counts = &self.mover.counts;
        let Some(settled) = self.link.settle(message, how) else {
            return; // stays in hand, for whoever recovers our lists
        };
        count(&counts.settled);
        match settled {
            Settled::AsAsked if how == How::Done => {}
            Settled::AsAsked => count(&counts.put_back),
            Settled::Dead => count(&counts.dead),
            Settled::NotOurs => count(&counts.not_ours),
        }
    }
}

impl Mover {
    /// Connects nowhere yet.
    ///
    /// # Errors
    /// The certificates to trust cannot be read.
    pub fn new(options: Options, stop: &Stop) -> Result<Self> {
        let drain = Stop::new();
        Ok(Self {
            lists: Arc::new(Lists::new(&options, stop, &drain)?),
            database: Database::new(&options, stop).context("--database-ca")?,
            stop: stop.clone(),
            drain,
            started: Stop::new(),
            trouble: Trouble::default(),
            counts: Counts::default(),
            options,
        })
    }

    /// Does as [`begin`](Self::begin), on a thread that a stop leaves behind:
    /// an address that does not answer, or a name's look-up, may hold it up for
    /// longer than a stop may take, and nothing is in hand yet.
    ///
    /// # Errors
    /// As `begin`, or the thread cannot be started.
    pub fn begin_until_stop(self: &Arc<Self>) -> Result<Option<Link>> {
        let (mover, (sender, begun)) = (Arc::clone(self), sync_channel(1));
        let begin = thread::Builder::new().name("begin".into());
        begin.spawn(move || sender.send(mover.begin()).ok())?;
        loop {
            match begun.recv_timeout(LOOK) {
                Ok(begun) => return begun,
                Err(RecvTimeoutError::Disconnected) => bail!("the start panicked"),
                Err(RecvTimeoutError::Timeout) if self.stop.is_set() => return self.not_begun(),
                Err(RecvTimeoutError::Timeout) => {}
            }
        }
    }

    /// Waits for the database and for Redis, takes the leases, and puts back what was in hand in
    /// processes that are gone. Returns the keeper's connection; `None` where
    /// the stop came first.
    ///
    /// # Errors
    /// Messages cannot be moved with this Redis or this database, however long
    /// we wait; or Redis fails and the policy is to stop.
    pub fn begin(&self) -> Result<Option<Link>> {
        self.trouble.reach(&self.database, &self.stop)?;
        let mut link = self.lists.link(0);
        while !self.stop.is_set() {
            match link.check() {
                Err(Fault::Permanent(why)) => bail!(why),
                Err(Fault::Passing(_)) => {}
                Ok(()) if self.tend(&mut link).is_some() => return Ok(Some(link)),
                Ok(()) => {}
            }
            let wait = link.hold_off().unwrap_or_default();
            let _ = self.stop.wait(Deadline::after(wait));
        }
        self.not_begun()
    }

    /// The stop came first, or the policy stopped it.
    fn not_begun(&self) -> Result<Option<Link>> {
        match self.lists.fatal.get() {
            Some(error) => bail!(error.clone()),
            None => Ok(None),
        }
    }

    /// Moves messages until the workers' phase. What a worker has in hand, it finishes.
    ///
    /// # Errors
    /// Not every thread can be started.
    pub fn work(&self) -> io::Result<()> {
        // Without the workers the rest of the program has no purpose.
        let _ended = self.stop.set_on_drop();
        let workers = Workers::new("mover", self.options.workers).poll(self.options.poll);
        let tally = workers.run_each(&self.drain, |number| {
            if number == self.options.workers {
                self.started.set(); // the others have
            }
            Hand {
                mover: self,
                link: self.lists.link(number),
                database: self.database.writer().into(),
            }
        })?;
        log::info!("workers: {tally:?}");
        Ok(())
    }

    /// Keeps the leases and shows the progress, until `end`; then gives the
    /// leases up, and says whether Redis heard it.
    pub fn keep(&self, mut link: Link, end: &Stop) -> bool {
        let _ended = self.stop.set_on_drop();
        let every = self.options.progress.min(self.options.lease / 3);
        let every = every.min(LONGEST_LOOK);
        let (mut told, mut moved, mut wait) = (Instant::now(), 0, every);
        while !end.wait(Deadline::after(wait)) {
            let backlog = self.tend(&mut link);
            wait = backlog.map_or(every.min(RETRY), |_| every);
            if told.elapsed() >= self.options.progress {
                let sum = self.counts.moved.load(Relaxed);
                let rate = (sum - moved) as f64 / told.elapsed().as_secs_f64();
                let backlog = backlog.map_or("unknown".into(), |backlog| backlog.to_string());
                let in_hand = self.counts.in_hand();
                say(format_args!(
                    "progress moved={sum} rate={rate:.0}/s backlog={backlog} in_hand={in_hand}"
                ));
                (told, moved) = (Instant::now(), sum);
            }
        }
        link.release()
    }

    /// One look at all lists: how many messages wait, if Redis says so.
    fn tend(&self, link: &mut Link) -> Option<u64> {
        let found = link.tend().ok()?;
        if found.recovered > 0 {
            log::info!("{} messages of processes that are gone", found.recovered);
            self.counts.recovered.fetch_add(found.recovered, Relaxed);
        }
        self.counts.waiting.store(found.backlog, Relaxed);
        Some(found.backlog)
    }

    /// Says how it ended, in the last line; whether nothing was left, and no
    /// error stopped it.
    pub fn tell(&self, outcome: &ShutdownOutcome, elapsed: Duration) -> bool {
        let in_hand = self.counts.in_hand() + self.lists.demands.open();
        let is_clean = outcome.is_clean() && in_hand == 0 && self.lists.fatal.get().is_none();
        log::info!("stopped: {outcome}");
        let (counts, elapsed) = (&self.counts, elapsed.as_millis());
        let not_ours = counts.not_ours.load(Relaxed);
        say(format_args!(
            "stopped clean={is_clean} {counts} in_hand={in_hand} elapsed_ms={elapsed} not_ours={not_ours}"
        ));
        is_clean
    }

    /// Starts workers and keeper, and registers their stop: the workers first,
    /// then the leases, which they need as long as they have anything in hand.
    ///
    /// # Errors
    /// A thread cannot be started. Then nothing is in hand, and the leases are
    /// given up.
    pub fn start(self: &Arc<Self>, link: Link, shutdown: &Shutdown) -> io::Result<()> {
        let (mover, end) = (Arc::clone(self), Stop::new());
        let ended = end.clone();
        let keeper = thread::Builder::new().name("keeper".into());
        let keeper = keeper.spawn(move || mover.keep(link, &ended))?;
        let mover = Arc::clone(self);
        let workers = thread::Builder::new().name("workers".into());
        let workers = workers.spawn(move || mover.work())?;
        while !self.started.wait(Deadline::after(LOOK)) {
            if workers.is_finished() {
                end.set();
                self.drain
                    .set_by(Deadline::after(self.options.drain_timeout));
                let _ = keeper.join();
                return workers.join().map_err(|_| io::Error::other("panicked"))?;
            }
        }

        let drain = self.drain.clone();
        shutdown.phase("workers", move |deadline| {
            drain.set_by(deadline);
            workers.join().map_err(|_| "panicked")??;
            Ok(())
        });
        shutdown.phase("leases", move |_| {
            end.set();
            let heard = keeper.join().map_err(|_| "panicked")?;
            heard.then_some(()).ok_or("redis could not be told".into())
        });
        Ok(())
    }
}
