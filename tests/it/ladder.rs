//! The ladder (examples/01_naive.rs and up): every step has the flaw that its
//! heading names, and the next step cures it.
//!
//! One trial serves both: it must show the flaw on a step in 9 of 10 runs, and
//! on the next step in none of 50.

mod headings;
mod lengths;
mod trials;
mod walk;

use crate::harness::{WATCHDOG, example};
use std::collections::VecDeque;
use std::path::Path;
use std::process::Command;
use std::sync::Mutex;
use std::thread;
use std::time::Duration;

const STEPS: [&str; 8] = [
    "01_naive",
    "02_flag",
    "03_accept",
    "04_scope",
    "05_timeouts",
    "06_linger",
    "07_deadline",
    "08_library",
];
/// How many runs wait beside each other; they hardly compute.
const AT_ONCE: usize = 25;
/// How many attempts a run has that comes too late.
const ATTEMPTS: usize = 8;
/// How long a server that does not stop is watched: longer than step 7's deadline.
const WATCHED: Duration = Duration::from_secs(7);

/// What a trial saw.
#[derive(Debug, PartialEq)]
enum Seen {
    /// What a graceful stop is.
    Grace,
    /// Exactly the flaw that the heading names.
    Flaw,
    /// Another failure.
    Other(String),
    /// Nothing: the machine was so busy that a step of the trial came too late.
    Late(String),
}

/// Runs a step's program and its clients; whoever does not stop is watched so
/// long.
type Trial = fn(step: usize, patience: Duration) -> Seen;

/// The source of a step, from 1.
fn source(step: usize) -> String {
    let name = format!("examples/{}.rs", STEPS[step - 1]);
    std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(name)).unwrap()
}

fn program(step: usize) -> Command {
    let mut command = Command::new(example(STEPS[step - 1]));
    command.arg("127.0.0.1:0");
    command
}

/// What so many runs saw.
fn seen<T: Send + Copy>(
    jobs: impl IntoIterator<Item = T>,
    run: impl Fn(T) -> Seen + Sync,
) -> Vec<Seen> {
    let jobs = Mutex::new(jobs.into_iter().collect::<VecDeque<_>>());
    let all = Mutex::new(Vec::new());
    thread::scope(|scope| {
        for _ in 0..AT_ONCE {
            scope.spawn(|| {
                loop {
                    let Some(job) = jobs.lock().unwrap().pop_front() else {
                        return;
                    };
                    let seen = in_time(|| run(job));
                    all.lock().unwrap().push(seen);
                }
            });
        }
    });
    all.into_inner().unwrap()
}

/// The first run that was in time, or the last.
fn in_time(mut run: impl FnMut() -> Seen) -> Seen {
    for _ in 1..ATTEMPTS {
        match run() {
            Seen::Late(why) => println!("once more: {why}"),
            seen => return seen,
        }
    }
    run()
}

fn assert_flaw(step: usize, trial: Trial) {
    let all = seen(0..10, |_| trial(step, WATCHED));
    let flawed = all.iter().filter(|seen| **seen == Seen::Flaw).count();
    println!("step {step}: the flaw in {flawed} of {} runs", all.len());
    for other in all.iter().filter(|seen| **seen != Seen::Flaw) {
        println!("step {step}: {other:?}");
    }
    assert!(flawed >= 9, "step {step}: {all:?}");
}

fn assert_cure(step: usize, trial: Trial) {
    let all = seen(0..50, |_| trial(step, WATCHDOG));
    let cured = all.iter().filter(|seen| **seen == Seen::Grace).count();
    println!("step {step}: cured in {cured} of {} runs", all.len());
    assert!(cured == all.len(), "step {step}: {all:?}");
}

#[test]
fn step_1_kills_a_client_in_mid_echo() {
    assert_flaw(1, trials::mid_echo);
}

#[test]
fn step_2_does_not() {
    assert_cure(2, trials::mid_echo);
}

#[test]
fn step_2_never_looks_at_its_flag_in_accept() {
    assert_flaw(2, trials::nobody_comes);
}

#[test]
fn step_2_ends_by_another_signal() {
    assert_eq!(trials::quit(2), Seen::Grace);
}

#[test]
fn step_3_does() {
    assert_cure(3, trials::nobody_comes);
}

#[test]
fn step_3_abandons_threads_in_mid_echo() {
    assert_flaw(3, trials::mid_echo);
}

#[test]
fn step_4_waits_for_them() {
    assert_cure(4, trials::mid_echo);
}

#[test]
fn step_4_is_held_by_an_idle_client() {
    assert_flaw(4, trials::idle);
}

#[test]
fn step_5_is_not() {
    assert_cure(5, trials::idle);
}

#[test]
fn step_5_resets_a_client_with_input_in_flight() {
    assert_flaw(5, trials::in_flight);
}

#[test]
fn step_6_gives_it_all_that_was_echoed() {
    assert_cure(6, trials::in_flight);
}

#[test]
fn step_6_is_held_by_a_client_that_never_reads() {
    assert_flaw(6, trials::never_reads);
}

#[test]
fn step_7_cuts_it_and_tells() {
    assert_cure(7, trials::never_reads);
}

#[test]
fn step_7_throws_away_what_was_not_read() {
    assert_flaw(7, trials::unread);
}

#[test]
fn step_8_answers_it() {
    assert_cure(8, trials::unread);
}

#[test]
fn step_7_resets_clients_in_the_accept_queue() {
    assert_flaw(7, trials::queued);
}

#[test]
fn step_8_serves_them() {
    assert_cure(8, trials::queued);
}

/// No step pays for its cure with an old flaw.
#[test]
fn what_is_cured_stays_cured() {
    let cures: [(usize, Trial); 5] = [
        (3, trials::nobody_comes),
        (4, trials::mid_echo),
        (5, trials::idle),
        (6, trials::in_flight),
        (7, trials::never_reads),
    ];
    let later = |&(first, trial)| (first + 1..=STEPS.len()).map(move |step| (step, trial));
    let all = seen(cures.iter().flat_map(later), |(step, trial)| {
        match trial(step, WATCHDOG) {
            seen @ (Seen::Grace | Seen::Late(_)) => seen,
            bad => Seen::Other(format!("step {step}: {bad:?}")),
        }
    });
    assert!(all.iter().all(|seen| *seen == Seen::Grace), "{all:?}");
}

/// As long as nobody stops it, no step has a flaw that a client could see.
#[test]
fn every_step_echoes() {
    let all = seen(1..=STEPS.len(), trials::nobody_stops);
    assert!(all.iter().all(|seen| *seen == Seen::Grace), "{all:?}");
}
