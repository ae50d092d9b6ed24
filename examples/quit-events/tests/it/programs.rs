//! Starts the programs, and reads what they say at their end.

use crate::harness::{Ended, Program};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::Command;
use tempfile::TempDir;

pub(crate) const OURS: &str = env!("CARGO_BIN_EXE_quit-events");
pub(crate) const FRAMEWORK: &str = env!("CARGO_BIN_EXE_framework-signals");
pub(crate) const SERVER: &str = env!("CARGO_BIN_EXE_server-fires");

/// The phases in the order in which they must run.
pub(crate) const ORDER: [&str; 6] = ["doors", "http", "grpc", "polling", "channel", "journal"];

pub(crate) struct Running {
    pub(crate) program: Program,
    pub(crate) http: SocketAddr,
    pub(crate) grpc: SocketAddr,
    directory: TempDir,
}

/// Starts a program on free ports with a journal of its own.
pub(crate) fn start(path: &str, options: &[&str]) -> Running {
    let directory = tempfile::tempdir().unwrap();
    let mut command = Command::new(path);
    command.args(["--http", "127.0.0.1:0", "--grpc", "127.0.0.1:0"]);
    if !options.contains(&"--journal") {
        command
            .arg("--journal")
            .arg(directory.path().join("journal"));
    }
    command.args(options);
    let program = Program::start(command);
    Running {
        http: program.await_address("http listening on "),
        grpc: program.await_address("grpc listening on "),
        program,
        directory,
    }
}

impl Running {
    pub(crate) fn url(&self, name: &str, delay_ms: u64) -> String {
        format!("http://{}/greet/{name}?delay_ms={delay_ms}", self.http)
    }

    /// Waits for the end; also returns the lines of the journal, sorted.
    pub(crate) fn wait(self) -> (Ended, Vec<String>) {
        let path: PathBuf = self.directory.path().join("journal");
        let ended = self.program.wait();
        let text = std::fs::read_to_string(path).unwrap_or_default();
        let mut lines: Vec<_> = text.lines().map(str::to_owned).collect();
        lines.sort();
        (ended, lines)
    }
}

/// Name and end of each phase, in order.
pub(crate) fn phases(ended: &Ended) -> Vec<(String, String)> {
    let lines = ended.stdout.iter();
    let lines = lines.filter_map(|line| line.strip_prefix("phase name="));
    let phase = |line: &str| {
        let (name, rest) = line.split_once(' ').unwrap();
        let (_, end) = rest.split_once("end=").unwrap();
        (name.to_owned(), end.to_owned())
    };
    lines.map(phase).collect()
}

/// All phases ran in order, and every one is done but those that are named
/// here, each with the ends that it may have.
pub(crate) fn assert_phases(ended: &Ended, others: &[(&str, &[&str])]) {
    let phases = phases(ended);
    let names: Vec<_> = phases.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names, ORDER, "{ended:?}");
    for (name, end) in &phases {
        let other = others.iter().find(|(other, _)| other == name);
        let ends = other.map_or(&["done"][..], |(_, ends)| ends);
        assert!(ends.contains(&end.as_str()), "{name}: {end}: {ended:?}");
    }
}
