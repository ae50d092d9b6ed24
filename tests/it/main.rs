//! All integration tests, in one binary.
//!
//! Tests that need a program from outside are `#[ignore]`d, so that plain
//! `cargo test` needs nothing; `make test` installs the programs and runs them
//! too. Every test of a promise also runs against the control.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stdout,
    clippy::print_stderr
)]

mod accepting;
mod accounts;
mod clients;
mod demo;
mod ending;
mod exactness;
mod handover;
mod harness;
mod jobs;
mod ladder;
mod library;
mod options;
mod outputs;
mod parsers;
mod ping;
mod promises;
mod property;
mod rejects;
mod signals;
mod storm;
mod tidy;
mod timeline;
