//! The HTTP server as a process of its own, with curl and with clients that
//! check every byte.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stdout)]

mod client;
mod harness;
mod load;
mod stopping;
mod unread;
mod usage;

use harness::Program;
use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;

/// Starts the server on a free port.
fn start(options: &[&str]) -> (Program, SocketAddr) {
    start_program(Path::new(env!("CARGO_BIN_EXE_http-drain")), options)
}

fn start_program(path: &Path, options: &[&str]) -> (Program, SocketAddr) {
    let mut command = Command::new(path);
    command.arg("127.0.0.1:0").args(options);
    let program = Program::start(command);
    let address = program.await_address("listening on ");
    (program, address)
}
