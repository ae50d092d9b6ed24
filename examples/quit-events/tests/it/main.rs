//! The three programs as processes of their own, with curl and a tonic client.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stdout)]

mod calls;
#[path = "../../../http-drain/tests/it/harness.rs"]
mod harness;
mod journal;
mod load;
mod programs;
mod silent;
mod stopping;
#[path = "../../../http-drain/tests/it/unread.rs"]
mod unread;
