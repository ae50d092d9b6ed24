//! The promises of `redis-to-db`, with a real Redis and real databases.
//!
//! Each is also tried on a control from which something was taken away (see
//! `tests/control`), and there it must break.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stdout)]

mod account;
mod certificates;
mod commits;
mod connections;
mod crowded;
mod database_start;
mod deleted;
#[allow(dead_code)] // what only http-drain needs
#[path = "../../../http-drain/tests/it/harness.rs"]
mod harness;
mod kills;
mod leases;
mod outages;
mod programs;
mod random;
mod redis_errors;
mod refusals;
mod relay;
mod scripts;
mod servers;
mod start;
mod stopping;
mod telling;
#[path = "../../../http-drain/tests/it/unread.rs"]
mod unread;
