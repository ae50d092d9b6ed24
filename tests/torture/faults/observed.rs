//! A server under observation: its processor time, its log, its calls that
//! failed, and the client that is checked throughout.

use super::strace::{Fault, Lifted, threads};
use crate::assert_none;
use crate::client::{Checked, Rounds};
use crate::gauge::burnt;
use crate::harness::{Broken, Ended, Program, Server, eventually};
use rustix::process::Pid;
use std::fs;
use std::time::{Duration, Instant};

/// Calls that may fail in a second. Where waiting is given up and tried again
/// without a nap, strace lets some 20,000 through.
const MOST_A_SECOND: f64 = 1000.0;

pub(super) struct Observed {
    pub(super) server: Server,
    checked: Checked,
    began: Instant,
    seen: Seen,
}

/// What was seen while faults lasted.
#[derive(Debug, Default)]
pub(super) struct Seen {
    pub(super) episodes: usize,
    pub(super) injected: usize,
    pub(super) lasted: Duration,
    /// Processor time of the server while faults lasted.
    pub(super) burnt: Duration,
    /// Lines logged from the first fault to the stop, and the time between.
    pub(super) lines: usize,
    pub(super) from_first_to_stop: Duration,
    pub(super) rounds: Rounds,
}

impl Observed {
    pub(super) fn start(program: Program, options: &[&str]) -> Self {
        Self::over(Server::start(program, options))
    }

    pub(super) fn over(server: Server) -> Self {
        Self {
            checked: Checked::start(server.address()),
            began: Instant::now(),
            seen: Seen::default(),
            server,
        }
    }

    /// Waits until no thread is starting and one waits for clients, so that a
    /// further client needs a further one. (While it starts, std aborts the
    /// process where it finds no memory for a signal stack.)
    pub(super) fn await_calm(&self) {
        let process = self.server.pid();
        eventually("one thread in accept, and nobody on the way to it", || {
            let all = threads(process);
            let mut waiting = all.iter().filter(|(_, name)| name == "accept");
            let only = waiting.next().filter(|_| waiting.next().is_none());
            let served = all.iter().any(|(_, name)| name.starts_with("conn "));
            // The kernel's function in which it waits (proc(5)).
            let place = |tid| fs::read_to_string(format!("/proc/{process}/task/{tid}/wchan"));
            served && only.is_some_and(|(tid, _)| place(tid).is_ok_and(|at| at.contains("accept")))
        });
    }

    /// One fault: injected, played with, lifted.
    pub(super) fn fault<T>(
        &mut self,
        start: impl FnOnce(Pid) -> Fault,
        play: impl FnOnce(&Server, &Fault) -> T,
    ) -> T {
        let before = burnt(self.server.pid());
        let fault = start(self.server.pid());
        let played = play(&self.server, &fault);
        let lifted = fault.lift();
        if let Some(after) = burnt(self.server.pid()).zip(before) {
            self.note(&lifted, after.0 - after.1);
        }
        played
    }

    pub(super) fn assert_alive(&mut self) {
        let log = self.server.stderr();
        assert!(self.server.is_running(), "it died: {log}");
    }

    pub(super) fn note(&mut self, lifted: &Lifted, burnt: Duration) {
        self.seen.episodes += 1;
        self.seen.injected += lifted.injected;
        self.seen.lasted += lifted.lasted;
        self.seen.burnt += burnt;
    }

    /// Ends the checked client, stops the server, and checks what it tells.
    pub(super) fn stop(mut self) -> Result<(Seen, Ended), Broken> {
        if !self.server.is_running() {
            return Err(Broken::Died(self.server.stderr()));
        }
        self.seen.rounds = self.checked.finish()?;
        self.seen.lines = lines(&self.server.stderr());
        self.seen.from_first_to_stop = self.began.elapsed();
        let ended = self.server.stop();
        if ended.told.is_empty() {
            return Err(Broken::Died(ended.stderr));
        }
        Ok((self.seen, ended))
    }
}

/// Nothing was lost, nobody was refused, and the exit status says so.
#[track_caller]
pub(super) fn assert_unharmed(ended: &Ended) {
    assert_eq!(ended.code(), Some(0), "{ended:?}");
    let harms = [
        "bytes_lost",
        "failed",
        "reset",
        "refused",
        "cut",
        "panicked",
    ];
    assert_none(ended, &harms);
}

impl Seen {
    /// Failed calls in a second.
    pub(super) fn rate(&self) -> f64 {
        self.injected as f64 / self.lasted.as_secs_f64()
    }

    /// The share of a core, in percent.
    pub(super) fn load(&self) -> f64 {
        100.0 * self.burnt.as_secs_f64() / self.lasted.as_secs_f64()
    }

    /// Whether it took the faults calmly: processor and calls.
    pub(super) fn assert_calm(&self) {
        assert!(
            self.load() < 5.0,
            "{:.1} % of a core: {self:?}",
            self.load()
        );
        assert!(!self.spins(), "{:.0} calls a second: {self:?}", self.rate());
        assert!(self.rounds.bytes > 0, "nothing was checked: {self:?}");
    }

    /// Whether the log was kept short: two lines an episode, one a second.
    pub(super) fn assert_quiet(&self) {
        assert!(self.lines <= 2 * self.episodes, "too many lines: {self:?}");
        let seconds = usize::try_from(self.from_first_to_stop.as_secs()).unwrap();
        assert!(self.lines <= 1 + seconds, "too many lines: {self:?}");
    }

    pub(super) fn spins(&self) -> bool {
        self.rate() > MOST_A_SECOND
    }

    /// For the table.
    pub(super) fn in_words(&self) -> String {
        format!(
            "{} episodes of {:.1?}, {} calls failed ({:.0} a second), {:.1} % of a core, \
             {} log lines, {} bytes checked, slowest echo {:.1?}",
            self.episodes,
            self.lasted / u32::try_from(self.episodes).unwrap().max(1),
            self.injected,
            self.rate(),
            self.load(),
            self.lines,
            self.rounds.bytes,
            self.rounds.slowest,
        )
    }
}

/// Lines of log, without the one that says what was started.
fn lines(log: &str) -> usize {
    let said = log.lines().filter(|line| !line.contains(", process "));
    said.count()
}
