//! A long mixed load with stops and restarts: two servers, one of which lasts
//! all the time and the other is stopped and started again on the same port.
//! Every stop's report is compared with what its clients saw.
//!
//! `LASTECHO_SOAK=10m` (humantime's way to write it) sets the length.

mod clients;

use crate::gauge::{Gauge, mib};
use crate::harness::{Broken, Ended, Kept, Program, Server, free_port};
use crate::{is_long, shared, told};
use clients::{KINDS, Kind, Ledger, Visit};
use rustix::process::Signal;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::thread;
use std::time::{Duration, Instant};

/// Resident memory by which the server that lasts may grow after its first
/// fifth: several times what one client's largest buffers take.
const GROWTH: u64 = 16 << 20;

fn length() -> Duration {
    let default = if is_long() { "1m" } else { "4s" };
    let length = std::env::var("LASTECHO_SOAK").unwrap_or_else(|_| default.into());
    humantime::parse_duration(&length).unwrap_or_else(|error| panic!("LASTECHO_SOAK: {error}"))
}

/// What came of a server's rounds, each from its start to its stop.
#[derive(Debug, Default)]
struct Summary {
    rounds: u32,
    ledger: Ledger,
    /// Resident, after a fifth of the first round and at the end of the last.
    memory: (u64, u64),
    slowest_stop: Duration,
}

impl Summary {
    fn row(&self, server: &str) -> String {
        let Ledger {
            connections,
            bytes,
            resets,
            broken,
            ..
        } = &self.ledger;
        format!(
            "| {server} | {} | {connections} | {bytes} | {} | {} | {resets} | {} | {} | {:.0?} |",
            self.rounds,
            count(broken, |broken| !matches!(broken, Broken::Reset(_))),
            count(broken, |broken| matches!(broken, Broken::Reset(_))),
            mib(self.memory.0),
            mib(self.memory.1),
            self.slowest_stop,
        )
    }

    fn add(&mut self, round: Self) {
        if self.rounds == 0 {
            self.memory.0 = round.memory.0;
        }
        self.memory.1 = round.memory.1;
        self.rounds += round.rounds;
        self.ledger.add(round.ledger);
        self.slowest_stop = self.slowest_stop.max(round.slowest_stop);
    }
}

fn count(broken: &[Broken], which: fn(&Broken) -> bool) -> usize {
    broken.iter().filter(|broken| which(broken)).count()
}

/// One life of a server under load: clients of all these kinds come and go
/// until it is stopped and they are refused.
fn round(program: Program, port: u16, kinds: &[Kind], lasts: Duration) -> (Summary, Ended) {
    let address = format!("127.0.0.1:{port}");
    let mut server = Server::listening_on(program, &[&address], &[]);
    let gauge = Gauge::of(&server);
    let (address, stopping) = (server.address(), AtomicBool::new(false));
    let mut ledger = Ledger::default();
    let memory = thread::scope(|scope| {
        let stopping = &stopping;
        let clients: Vec<_> = kinds
            .iter()
            .map(|&kind| scope.spawn(move || Visit::new(address, stopping).come_and_go(kind)))
            .collect();
        thread::sleep(lasts / 5);
        let at_start = gauge.memory();
        thread::sleep(lasts * 4 / 5);
        let at_end = gauge.memory();
        stopping.store(true, SeqCst);
        server.signal(Signal::TERM);
        for client in clients {
            ledger.add(client.join().unwrap());
        }
        (at_start, at_end)
    });
    let ended = server.wait();
    let slowest_stop = ended.took;
    let summary = Summary {
        rounds: 1,
        ledger,
        memory,
        slowest_stop,
    };
    (summary, ended)
}

/// Whether a stop's report says what the clients saw, byte for byte. Of a
/// client that reset, its last byte's acknowledgement may have been lost.
fn check(ledger: &Ledger, ended: &Ended) -> Kept {
    if let Some(broken) = ledger.broken.first() {
        return Err(broken.clone());
    }
    if ended.code() != Some(0) {
        return Err(Broken::Died(format!("{} {}", ended.status, ended.stderr)));
    }
    let (read, sent) = (ended.count("bytes_in"), ended.count("bytes_out"));
    let fits = read == ledger.bytes
        && (read - ledger.resets..=read).contains(&sent)
        && ended.count("accepted") == ledger.connections
        && (ledger.resets == 0 || ended.count("reset") <= ledger.resets);
    if fits {
        return Ok(());
    }
    Err(Broken::NotTold(format!("{} for {ledger:?}", ended.stdout)))
}

/// Rounds on one port, until the time is over.
fn rounds(lasts: Duration, each: Duration) -> Summary {
    let (port, since) = (free_port(), Instant::now());
    let mut all = Summary::default();
    while all.rounds == 0 || since.elapsed() < lasts {
        let (summary, ended) = round(Program::Lastecho, port, &KINDS, each);
        let kept = check(&summary.ledger, &ended);
        kept.unwrap_or_else(|broken| panic!("round {}: {broken}", all.rounds));
        all.add(summary);
    }
    all
}

#[test]
fn soak_with_stops_and_restarts() {
    let _machine = shared();
    let length = length();
    let each = (length / 10).clamp(Duration::from_secs(1), Duration::from_secs(20));
    let (lasting, restarted) = thread::scope(|scope| {
        let lasting = scope.spawn(|| rounds(length, length));
        let restarted = rounds(length, each);
        (lasting.join().unwrap(), restarted)
    });
    println!(
        "| server | stops | connections | bytes | mismatches | resets | by clients | memory at start | at end | slowest stop |"
    );
    println!("|---|---|---|---|---|---|---|---|---|---|");
    println!("{}", lasting.row("lasting"));
    println!("{}", restarted.row("restarted"));
    let (start, end) = lasting.memory;
    assert!(
        end < start + GROWTH,
        "memory: {} to {}",
        mib(start),
        mib(end)
    );
    let mut all = Summary::default();
    all.ledger.add(lasting.ledger);
    all.ledger.add(restarted.ledger);
    told(
        &format!(
            "{length:?} of mixed load with {} stops",
            lasting.rounds + restarted.rounds
        ),
        "0 mismatches, 0 resets, every report byte-exact, memory flat",
        &format!(
            "{} connections, {} bytes, 0 mismatches, 0 resets; memory {} at the start, {} at the end",
            all.ledger.connections,
            all.ledger.bytes,
            mib(start),
            mib(end)
        ),
    );
}

/// The soak must be able to fail: the control breaks it at a stop that falls
/// into what many send and read at once.
#[test]
fn soak_of_the_control_fails() {
    let _machine = shared();
    for _ in 0..10 {
        let lasts = Duration::from_millis(300);
        let (summary, ended) = round(Program::Control, free_port(), &[Kind::Bulk; 6], lasts);
        if let Err(broken) = check(&summary.ledger, &ended) {
            println!("control: {broken}");
            return;
        }
    }
    panic!("the control kept it, so the soak shows nothing");
}
