//! Faults at random, several at a time, and afterwards every message is
//! accounted for: this finds what was not thought of.
//!
//! A run is drawn from its seed. `LASTECHO_SEED` runs that one and shows what
//! it does; `LASTECHO_RUNS` says how many there are, and `LASTECHO_LONG` makes
//! it 100 whose seeds no run had before. What happens when differs from time to
//! time all the same: the machine decides, too.

mod disk;
mod fault;
mod plan;
mod relay;
mod run;
mod sums;
mod world;

use crate::programs::Which;
use plan::Plan;
use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Mutex, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};
use std::{env, thread};
use sums::Sums;
use world::World;

/// Runs at the same time. They mostly wait.
const AT_ONCE: u64 = 8;

/// Carries out so many runs from this seed on, some at the same time.
fn drive(which: Which, first: u64, runs: u64) -> Sums {
    let (next, sums) = (AtomicU64::new(first), Mutex::new(Sums::new(first, runs)));
    thread::scope(|scope| {
        for _ in 0..AT_ONCE.min(runs.div_ceil(3)) {
            scope.spawn(|| {
                let mut world = World::new();
                loop {
                    let seed = next.fetch_add(1, Relaxed);
                    if seed >= first + runs {
                        return;
                    }
                    let plan = Plan::new(seed);
                    let outcome = attempt(&mut world, which, &plan);
                    let mut sums = sums.lock().unwrap_or_else(PoisonError::into_inner);
                    sums.add(&plan, outcome);
                }
            });
        }
    });
    sums.into_inner().unwrap()
}

/// One run; a panic is a failure of this run, and the world is made anew.
fn attempt(world: &mut World, which: Which, plan: &Plan) -> Result<run::Outcome, String> {
    let outcome = catch_unwind(AssertUnwindSafe(|| run::run(world, which, plan)));
    outcome.unwrap_or_else(|panic| {
        *world = World::new();
        Err(message(panic.as_ref()))
    })
}

fn message(panic: &dyn Any) -> String {
    let text = panic.downcast_ref::<String>().cloned();
    let text = text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()));
    text.unwrap_or_else(|| "a panic".into())
}

/// A number from the environment.
fn number(variable: &str) -> Option<u64> {
    let value = env::var(variable).ok()?;
    Some(
        value
            .parse()
            .unwrap_or_else(|_| panic!("{variable}: no number: {value}")),
    )
}

#[test]
#[ignore = "needs redis-server, postgres, strace and the right to mount: make deps"]
fn faults_at_random_lose_nothing() {
    let is_long = env::var_os("LASTECHO_LONG").is_some();
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    let (first, runs) = match number("LASTECHO_SEED") {
        Some(seed) => {
            println!("{}", Plan::new(seed));
            (seed, 1)
        }
        None if is_long => (now.as_secs() * 1000, 100),
        None => (1, 8),
    };
    let sums = drive(Which::Ours, first, number("LASTECHO_RUNS").unwrap_or(runs));
    println!("{sums}");
    assert!(
        sums.failures.is_empty(),
        "{} runs failed",
        sums.failures.len()
    );
}

/// What the driver must be able to see.
#[test]
#[ignore = "needs redis-server, postgres, strace and the right to mount: make deps"]
fn faults_at_random_find_the_losses_of_a_buffer() {
    let sums = drive(Which::Buffered, 1, 4);
    println!("{sums}");
    let lost = sums.failures.iter().any(|why| why.contains("lost"));
    assert!(lost, "it lost nothing: the driver shows nothing");
}
