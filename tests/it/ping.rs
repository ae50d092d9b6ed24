//! `lastecho-ping`: what it counts is what happened.

mod faults;
mod health;
mod service;
mod signals;
mod stops;

use crate::harness::{self, Program, Server, eventually, run_to_end, text};
use rustix::process::{Pid, Signal, kill_process};
use std::collections::HashMap;
use std::fs::File;
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};

/// What a message has unless `-s` says otherwise.
const SIZE: u64 = 56;

fn command(target: &str, options: &str) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_lastecho-ping"));
    command.args(options.split_whitespace()).arg(target);
    command
}

/// How a run ended, and what it said.
#[derive(Debug)]
struct Pinged {
    status: Option<i32>,
    stdout: String,
    stderr: String,
    counts: HashMap<String, u64>,
}

impl Pinged {
    fn new(status: Option<i32>, stdout: String, stderr: String) -> Self {
        let counts = counts(&stdout);
        Self {
            status,
            stdout,
            stderr,
            counts,
        }
    }

    /// These counts are so, and all others are zero.
    #[track_caller]
    fn assert_counts(&self, expected: &[(&str, u64)]) {
        assert_eq!(self.counts.len(), 7, "{self:?}");
        for (name, &count) in &self.counts {
            let wanted = expected.iter().find(|(wanted, _)| wanted == name);
            let wanted = wanted.map_or(0, |(_, count)| *count);
            assert_eq!(count, wanted, "{name}: {self:?}");
        }
    }

    fn count(&self, name: &str) -> u64 {
        self.counts[name]
    }

    /// The numbers of the messages whose echo has a line, in order.
    fn told(&self, connection: u32) -> Vec<u64> {
        let of = format!(": connection={connection} seq=");
        let after = self.stdout.lines().filter_map(|line| line.split_once(&of));
        let number = |(_, after): (&str, &str)| after.split(' ').next().unwrap().parse().unwrap();
        after.map(number).collect()
    }

    /// Least, median, 99th percentile and greatest, in milliseconds.
    fn times(&self) -> [f64; 4] {
        let line = self.stdout.lines().find_map(|line| {
            line.strip_prefix("rtt min/median/p99/max = ")?
                .strip_suffix(" ms")
        });
        let line = line.unwrap_or_else(|| panic!("no times: {self:?}"));
        let times: Vec<f64> = line.split('/').map(|time| time.parse().unwrap()).collect();
        times.try_into().unwrap()
    }

    /// The sum of the histogram's rows.
    fn histogram(&self) -> u64 {
        let rows = self.stdout.lines().filter(|line| line.contains(" ms "));
        let rows = rows.filter_map(|line| line.split_once(" to ")?.1.split_once(" ms "));
        let count = |(_, row): (&str, &str)| -> u64 {
            row.split_whitespace().next().unwrap().parse().unwrap()
        };
        rows.map(count).sum()
    }
}

/// `sent 5, echoed 4, …, lost 1 (1 crossed), …` as a table.
fn counts(stdout: &str) -> HashMap<String, u64> {
    let line = stdout.lines().find(|line| line.starts_with("sent "));
    let line = line.unwrap_or("").replace(" (", ", ").replace(')', "");
    let pair = |part: &str| -> Option<(String, u64)> {
        match *part.split(' ').collect::<Vec<_>>() {
            [name, count] if name != "time" => match (name.parse(), count.parse()) {
                (_, Ok(count)) => Some((name.to_owned(), count)),
                (Ok(number), _) => Some((count.to_owned(), number)), // "1 crossed"
                _ => None,
            },
            _ => None,
        }
    };
    line.split(", ").filter_map(pair).collect()
}

/// Runs to the end by itself.
fn ping(target: SocketAddr, options: &str) -> Pinged {
    let output = run_to_end(&mut command(&target.to_string(), options), b"");
    let text = |bytes| String::from_utf8(bytes).unwrap();
    Pinged::new(
        output.status.code(),
        text(output.stdout),
        text(output.stderr),
    )
}

/// One that runs until somebody ends it. Dropping it kills it.
struct Running {
    child: Child,
    stdout: File,
    stderr: File,
}

impl Running {
    fn start(target: SocketAddr, options: &str) -> Self {
        let (stdout, stderr) = (tempfile::tempfile().unwrap(), tempfile::tempfile().unwrap());
        let child = command(&target.to_string(), options)
            .stdin(Stdio::null())
            .stdout(stdout.try_clone().unwrap())
            .stderr(stderr.try_clone().unwrap())
            .spawn()
            .unwrap();
        Self {
            child,
            stdout,
            stderr,
        }
    }

    fn stdout(&self) -> String {
        text(&self.stdout)
    }

    /// Waits until so many of its lines contain this.
    fn await_lines(&self, count: usize, needle: &str) {
        eventually(&format!("{count} lines with {needle:?}"), || {
            let stdout = self.stdout();
            stdout.lines().filter(|line| line.contains(needle)).count() >= count
        });
    }

    fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    fn wait(mut self) -> Pinged {
        let mut status = None;
        eventually("the end of lastecho-ping", || {
            status = self.child.try_wait().unwrap();
            status.is_some()
        });
        Pinged::new(status.unwrap().code(), self.stdout(), text(&self.stderr))
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A server whose accounts are compared with the ping's.
fn lastecho(options: &[&str]) -> Server {
    Server::start(Program::Lastecho, options)
}

/// Both sides tell of the same bytes.
#[track_caller]
fn assert_same(pinged: &Pinged, ended: &harness::Ended, size: u64) {
    assert_eq!(
        ended.count("bytes_in"),
        pinged.count("sent") * size,
        "{ended:?} {pinged:?}"
    );
    assert_eq!(
        ended.count("bytes_out"),
        pinged.count("echoed") * size,
        "{ended:?} {pinged:?}"
    );
}

#[test]
fn every_echo_has_its_line_and_the_summary_adds_up() {
    let server = lastecho(&[]);
    let pinged = ping(server.address(), "-c 5 -i 10ms -s 1000");
    assert_eq!(pinged.status, Some(0), "{pinged:?}");
    pinged.assert_counts(&[("sent", 5), ("echoed", 5)]);
    assert_eq!(pinged.told(1), [1, 2, 3, 4, 5]);
    let from = format!("1000 bytes from {}: ", server.address());
    assert_eq!(pinged.stdout.matches(&from).count(), 5, "{pinged:?}");
    let [least, median, p99, greatest] = pinged.times();
    assert!(0.0 < least && least <= median && median <= p99 && p99 <= greatest);
    assert_eq!(pinged.histogram(), 5, "{pinged:?}");
    let ended = server.stop();
    assert_same(&pinged, &ended, 1000);
    assert_eq!(ended.count("accepted"), 1);
}

#[test]
fn messages_come_no_sooner_than_the_interval() {
    let server = lastecho(&[]);
    let began = std::time::Instant::now();
    let pinged = ping(server.address(), "-c 6 -i 0.1 -q");
    assert!(began.elapsed().as_millis() >= 500, "{pinged:?}");
    pinged.assert_counts(&[("sent", 6), ("echoed", 6)]);
}

#[test]
fn several_connections_each_send_all_their_messages() {
    let server = lastecho(&[]);
    let pinged = ping(server.address(), "-n 4 -c 25 -i 0");
    assert_eq!(pinged.status, Some(0), "{pinged:?}");
    pinged.assert_counts(&[("sent", 100), ("echoed", 100)]);
    for connection in 1..=4 {
        assert_eq!(pinged.told(connection), (1..=25).collect::<Vec<_>>());
    }
    let ended = server.stop();
    assert_same(&pinged, &ended, SIZE);
    assert_eq!(ended.count("accepted"), 4);
}

#[test]
fn a_flood_says_nothing_but_the_summary() {
    let server = lastecho(&[]);
    let pinged = ping(server.address(), "-f -c 1000 -n 2");
    pinged.assert_counts(&[("sent", 2000), ("echoed", 2000)]);
    assert_eq!(pinged.histogram(), 2000, "{pinged:?}");
    assert!(
        pinged.told(1).is_empty() && pinged.stderr.is_empty(),
        "{pinged:?}"
    );
    assert_same(&pinged, &server.stop(), SIZE);
}

/// Larger than what the kernel holds: written and read at the same time.
#[test]
fn large_messages_come_back_whole() {
    let server = lastecho(&[]);
    let pinged = ping(server.address(), "-f -c 2 -n 2 -s 12MiB");
    assert_eq!(pinged.status, Some(0), "{pinged:?}");
    pinged.assert_counts(&[("sent", 4), ("echoed", 4)]);
    assert_same(&pinged, &server.stop(), 12 << 20);
}

#[test]
fn no_reader_no_pings() {
    let server = lastecho(&[]);
    let mut child = command(&server.address().to_string(), "-i 10ms")
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    let (stdout, stderr) = (tempfile::tempfile().unwrap(), tempfile::tempfile().unwrap());
    let running = Running {
        child,
        stdout,
        stderr,
    };
    running.wait();
}
