//! The promises of `log-pipeline`, with real senders.
//!
//! The conservation of lines is also tried on a control from which the
//! library's phases were taken away, and there it must break.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stdout)]

mod app;
mod conservation;
mod framings;
mod naive_wait;
mod outputs;
mod pressure;
#[path = "../../../http-drain/tests/it/unread.rs"]
mod unread;
