//! The contract while everything around it fails: system calls, networks,
//! clients, numbers.
//!
//! `make test` runs a bounded version, `make torture` (`LASTECHO_LONG=1`) the
//! long one, whose measurements become docs/reliability.md. The tests that need
//! a program from outside, or the rights to make network namespaces, are
//! `#[ignore]`d, as in `tests/it`.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stdout,
    clippy::print_stderr
)]

mod client;
mod crowd;
mod faults;
mod gauge;
#[allow(dead_code)] // what only tests/it needs
#[path = "../it/harness.rs"]
mod harness;
mod hostile;
mod networks;
mod scale;
mod soak;
mod witness;

use std::fs::OpenOptions;
use std::io::Write;
use std::sync::{PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::{env, thread};

/// Tests that measure time or memory have the machine for themselves.
static MACHINE: RwLock<()> = RwLock::new(());

/// For a test that counts bytes and outcomes: others may run beside it.
fn shared() -> RwLockReadGuard<'static, ()> {
    MACHINE.read().unwrap_or_else(PoisonError::into_inner)
}

/// For a test that measures: no other runs beside it.
fn alone() -> RwLockWriteGuard<'static, ()> {
    MACHINE.write().unwrap_or_else(PoisonError::into_inner)
}

/// Whether this is the long version.
fn is_long() -> bool {
    env::var_os("LASTECHO_LONG").is_some()
}

/// One row of docs/reliability.md: printed, and kept in the file that
/// `LASTECHO_TABLE` names, from which `make torture` makes the page.
fn told(fault: &str, expected: &str, measured: &str) {
    let thread = thread::current();
    let test = thread.name().unwrap_or("?");
    let row = format!("| {fault} | {expected} | `{test}` | {measured} |");
    println!("{row}");
    if let Some(table) = env::var_os("LASTECHO_TABLE") {
        let file = OpenOptions::new().create(true).append(true).open(table);
        writeln!(file.unwrap(), "{row}").unwrap();
    }
}

/// None of these counts of the last line is above zero.
#[track_caller]
fn assert_none(ended: &harness::Ended, keys: &[&str]) {
    for key in keys {
        assert_eq!(ended.count(key), 0, "{key}: {ended:?}");
    }
}
