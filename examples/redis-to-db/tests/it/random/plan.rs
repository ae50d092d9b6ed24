//! What happens in a run: all of it is drawn from the seed.

use super::fault::{Fault, Injected, Launch, Side, Step, Store};
use super::relay::{Held, Way};
use fastrand::Rng;
use rustix::process::Signal;
use std::fmt;

/// The commands of Redis that the programs need, by the README.
const COMMANDS: [&str; 16] = [
    "multi", "evalsha", "script", "blmove", "lmove", "lrem", "lindex", "llen", "hincrby", "hdel",
    "time", "zadd", "zcount", "zrange", "zrem", "type",
];
/// System calls at which a program may be killed.
const CALLS: [&str; 12] = [
    "sendto",
    "recvfrom",
    "connect",
    "futex",
    "mmap",
    "clone3",
    "openat",
    "pwrite64",
    "fsync",
    "fcntl",
    "epoll_wait",
    "write",
];
const STOPS: [Signal; 4] = [Signal::TERM, Signal::INT, Signal::QUIT, Signal::HUP];

/// A run as it is drawn: what happens, and when.
pub(super) struct Plan {
    pub(super) seed: u64,
    pub(super) store: Store,
    /// PostgreSQL commits before the disk has it, unless it is asked not to.
    pub(super) is_lax: bool,
    /// Of so many messages one is no good.
    pub(super) poison: usize,
    /// Longest time between two pushes, in milliseconds.
    pub(super) pause: u64,
    /// By milliseconds from the start.
    pub(super) steps: Vec<(u64, Step)>,
    /// When all programs are asked to stop.
    last: u64,
}

impl Plan {
    pub(super) fn new(seed: u64) -> Self {
        let mut rng = Rng::with_seed(seed);
        let mut plan = Self {
            seed,
            store: of(&mut rng, &[Store::Sqlite, Store::Postgres]),
            is_lax: rng.bool(),
            poison: rng.usize(8..40),
            pause: of(&mut rng, &[10, 30, 100]),
            steps: Vec::new(),
            last: rng.u64(300..800),
        };
        plan.draw_programs(&mut rng);
        plan.draw_faults(&mut rng, 60, Self::redis);
        plan.draw_faults(&mut rng, 60, Self::packets);
        plan.draw_faults(&mut rng, 60, Self::database);
        plan.steps.sort_by_key(|(at, _)| *at);
        plan
    }

    /// Whether Redis refuses this command for a while.
    pub(super) fn refuses(&self, command: &str) -> bool {
        let refused =
            |step: &Step| matches!(step, Step::Begin(Fault::Refused(it)) if *it == command);
        self.steps.iter().any(|(_, step)| refused(step))
    }

    /// Programs, how each ends, and a stop for those that are left.
    fn draw_programs(&mut self, rng: &mut Rng) {
        let (first, more) = (rng.usize(1..=3), rng.usize(0..=3));
        for number in 0..first + more {
            let latest = if number < first { 50 } else { self.last };
            let at = rng.u64(0..latest);
            let launch = self.launch(rng, number);
            self.steps.push((at, Step::Start(launch)));
            let then = at + rng.u64(0..400);
            match rng.u8(0..10) {
                0..3 => self.draw_stop(rng, then, number),
                3..5 => self.push(then, Step::Signalled(number, Signal::KILL)),
                5 => _ = self.push_fault(rng, then, Fault::ProgramAsleep(number)),
                _ => {}
            }
            self.draw_stop(rng, self.last.max(at + 1), number);
        }
    }

    /// One signal or two.
    fn draw_stop(&mut self, rng: &mut Rng, at: u64, number: usize) {
        let signal = of(rng, &STOPS);
        self.push(at, Step::Signalled(number, signal));
        if rng.u8(0..3) == 0 {
            let again = at + rng.u64(0..300);
            self.push(again, Step::Signalled(number, signal));
        }
    }

    fn launch(&self, rng: &mut Rng, number: usize) -> Launch {
        let mut options = Vec::new();
        let mut option = |name: &str, value: String| options.extend([name.to_owned(), value]);
        option("--workers", rng.u8(1..=6).to_string());
        let poll = of(rng, &[50, 150, 1000]);
        option("--poll", format!("{poll}ms"));
        // The shortest that is allowed.
        option("--lease", "1s".to_owned());
        option("--work", format!("{}ms", rng.u8(0..10)));
        option("--attempts", rng.u8(1..=3).to_string());
        option("--drain-timeout", format!("{}ms", rng.u16(50..600)));
        if rng.u8(0..5) == 0 {
            option("--on-redis-error", "stop".to_owned());
        }
        if rng.u8(0..4) == 0 {
            option("--before-exit", "sleep 0.2".to_owned());
        }
        let when = rng.u8(1..60);
        let injected = match rng.u8(0..10) {
            0..3 => Some(Injected::KilledAtCall(of(rng, &CALLS), when)),
            3..6 if self.store == Store::Sqlite => {
                Some(Injected::FailingCommit(when, when + rng.u8(0..30)))
            }
            _ => None,
        };
        Launch {
            number,
            options,
            injected,
        }
    }

    /// One fault of a kind or two, one after the other, in so many of 100 runs.
    fn draw_faults(&mut self, rng: &mut Rng, of_100: u8, draw: fn(&Self, &mut Rng) -> Step) {
        if rng.u8(0..100) >= of_100 {
            return;
        }
        let mut at = 0;
        for _ in 0..rng.u8(1..=2) {
            at += rng.u64(0..self.last);
            match draw(self, rng) {
                Step::Begin(fault) => at = self.push_fault(rng, at, fault),
                step => self.push(at, step),
            }
        }
    }

    fn redis(&self, rng: &mut Rng) -> Step {
        Step::Begin(match rng.u8(0..8) {
            0 => Fault::RedisAsleep,
            1 => Fault::RedisAway(Signal::KILL),
            2 => Fault::RedisAway(Signal::TERM),
            3 | 4 => Fault::Refused(of(rng, &COMMANDS)),
            5 => Fault::WrongType(of(rng, &["failures", "dead", "leases"])),
            6 => Fault::NoConnections,
            _ => Fault::NoMemory,
        })
    }

    fn database(&self, rng: &mut Rng) -> Step {
        Step::Begin(match self.store {
            Store::Sqlite => Fault::DiskFull(rng.u64(0..64) << 10),
            Store::Postgres => of(rng, &[Fault::PostgresAway, Fault::ReadOnly, Fault::Locked]),
        })
    }

    fn packets(&self, rng: &mut Rng) -> Step {
        let side = match self.store {
            Store::Postgres if rng.bool() => Side::Postgres,
            _ => Side::Redis,
        };
        if rng.u8(0..4) == 0 {
            return Step::Cut(side);
        }
        let way = of(rng, &[Way::ToServer, Way::ToProgram]);
        let third = rng.bool().then(|| rng.u64(0..3));
        Step::Begin(Fault::HeldBack(side, Held { way, third }))
    }

    fn push(&mut self, at: u64, step: Step) {
        self.steps.push((at, step));
    }

    /// Adds a fault and its end; returns when that is.
    fn push_fault(&mut self, rng: &mut Rng, at: u64, fault: Fault) -> u64 {
        let longest = match fault {
            // Longer than its lease.
            Fault::ProgramAsleep(_) => 1500,
            _ => 500,
        };
        let end = at + rng.u64(20..longest);
        self.push(at, Step::Begin(fault));
        self.push(end, Step::End(fault));
        end
    }
}

fn of<T: Copy>(rng: &mut Rng, choices: &[T]) -> T {
    choices[rng.usize(0..choices.len())]
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            seed,
            store,
            is_lax,
            poison,
            pause,
            ..
        } = self;
        writeln!(
            f,
            "seed {seed}: {store:?}, lax: {is_lax}, one of {poison} messages is poison, pushed every {pause} ms"
        )?;
        for (at, step) in &self.steps {
            writeln!(f, "{at:5} ms: {step:?}")?;
        }
        Ok(())
    }
}

#[test]
fn a_seed_makes_one_plan() {
    let [one, same, other] = [7, 7, 8].map(|seed| Plan::new(seed).to_string());
    assert_eq!(one, same);
    assert_ne!(one, other);
}
