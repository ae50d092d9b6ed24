//! The concurrent bookkeeping under [shuttle](https://docs.rs/shuttle): the
//! real code, run under thousands of schedules; the small cases under all.
//!
//! A wait that is not short never times out here (`src/sync.rs`), so a wake-up
//! that got lost is a deadlock. Next to each model stands the naive version of
//! the same thing, in which shuttle must find the fault: it shows that the
//! model could.

#![allow(clippy::unwrap_used)]

mod queue;
mod server;
mod stop;
mod table;
mod writing;

use shuttle::scheduler::{DfsScheduler, PctScheduler, RandomScheduler, Scheduler};
use shuttle::{Config, Runner};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

/// No wait of this length times out.
const LONG: Duration = Duration::from_secs(3600);

fn run(scheduler: impl Scheduler + 'static, model: impl Fn() + Send + Sync + 'static) -> usize {
    let mut config = Config::new();
    config.stack_size = 512 * 1024;
    Runner::new(scheduler, config).run(model)
}

/// How many schedules: more with `LASTECHO_LONG`.
fn schedules(few: usize) -> usize {
    match std::env::var_os("LASTECHO_LONG") {
        Some(_) => 20 * few,
        None => few,
    }
}

/// Runs a model under random schedules, and under those that look for bugs of
/// few ordering constraints (probabilistic concurrency testing).
fn explore(few: usize, model: fn()) {
    run(RandomScheduler::new(schedules(few)), model);
    run(PctScheduler::new(3, schedules(few)), model);
}

/// Runs a model under every schedule there is; fails where that is too many.
fn exhaust(model: fn()) {
    const MOST: usize = 2_000_000;
    let count = run(DfsScheduler::new(Some(MOST), false), model);
    println!("{count} schedules are all there are");
    assert!(count < MOST, "too many schedules");
}

/// The naive version: some schedule must break it.
fn must_break(few: usize, naive: fn()) {
    let broken = catch_unwind(AssertUnwindSafe(|| explore(few, naive)));
    assert!(broken.is_err(), "this model finds nothing");
}
