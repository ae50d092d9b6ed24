//! The runner, end to end, on short measurements.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

/// Longer than anything here may take on the slowest machine.
const WATCHDOG: Duration = Duration::from_secs(240);

const RUNNER: &str = env!("CARGO_BIN_EXE_lastecho-bench");

/// What the whole workspace's build puts beside the runner.
fn built(name: &str) -> PathBuf {
    let path = Path::new(RUNNER).with_file_name(name);
    assert!(
        path.exists(),
        "{} is missing: run `cargo build --workspace --examples` and `cargo build` first",
        path.display()
    );
    path
}

/// Arguments for one round of short measurements.
fn briefly<'a>(lastecho: &'a Path, seconds: &'a str, only: &'a str) -> Vec<&'a str> {
    let lastecho = lastecho.to_str().unwrap();
    let mut arguments = vec!["--rounds", "1", "--seconds", seconds];
    arguments.extend(["--lastecho", lastecho, "--only", only, "--scenario"]);
    arguments
}

/// Runs the runner to its end; its results go to `results`.
fn bench(results: &Path, arguments: &[&str], environment: &[(&str, &str)]) -> Output {
    let mut child = Command::new(RUNNER)
        .args(arguments)
        .envs(environment.iter().copied())
        .arg("--results")
        .arg(results)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let patience = Instant::now() + WATCHDOG;
    while child.try_wait().unwrap().is_none() {
        if Instant::now() > patience {
            child.kill().unwrap();
            panic!("hangs: {:?}", child.wait_with_output());
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    child.wait_with_output().unwrap()
}

#[test]
fn every_kind_of_load_measures_something_and_loses_nothing() {
    let results = tempfile::tempdir().unwrap();
    let scenarios = "echo-1,echo-20,threads-4,bulk-2,cycles-4,idle-20";
    let lastecho = built("lastecho");
    let mut arguments = briefly(&lastecho, "0.5", "lastecho,epoll");
    arguments.push(scenarios);
    let output = bench(results.path(), &arguments, &[]);
    assert!(output.status.success(), "{output:?}");
    let csv = std::fs::read_to_string(results.path().join("bench.csv")).unwrap();
    let rows: Vec<Vec<&str>> = csv.lines().map(|line| line.split(',').collect()).collect();
    assert_eq!(rows.len(), 1 + 6 * 2, "{csv}");
    for row in &rows[1..] {
        let (scenario, rate, faults) = (row[1], row[3], &row[8..]);
        let is_idle = scenario.starts_with("idle");
        assert!(is_idle || rate.parse::<f64>().unwrap() > 0.0, "{row:?}");
        assert_eq!(faults, ["0", "0", "0"], "{row:?}");
    }
    let svg = std::fs::read_to_string(results.path().join("bench.svg")).unwrap();
    assert!(svg.contains("lastecho") && svg.contains("epoll"));
    let table = String::from_utf8(output.stdout).unwrap();
    assert!(table.starts_with("congestion control: reno\n"), "{table}");
    assert!(table.contains("\nbulk-2: MB/s"), "{table}");
    assert!(!table.contains("trouble"), "{table}");
}

/// The control: a server that goes wrong after so many bytes to each client
/// must be noticed by every kind of load.
fn assert_caught(sound_bytes: &str, scenarios: &str) {
    let results = tempfile::tempdir().unwrap();
    let flawed = built("examples/flawed");
    let mut arguments = briefly(&flawed, "0.2", "lastecho");
    arguments.push(scenarios);
    let output = bench(results.path(), &arguments, &[("SOUND_BYTES", sound_bytes)]);
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    let table = String::from_utf8(output.stdout).unwrap();
    let (_, trouble) = table.split_once("\ntrouble:\n").unwrap();
    for scenario in scenarios.split(',') {
        let line = format!("lastecho in {scenario}, round 1: ");
        let (_, what) = trouble.split_once(&line).expect(scenario);
        // With one client only, nobody is hung up on.
        let is_alone = scenario.ends_with("-1");
        assert!(is_alone || !what.starts_with("0 bytes lost"), "{table}");
        let what = what.lines().next().unwrap();
        assert!(!what.contains(", 0 wrong,"), "{table}");
    }
}

#[test]
fn a_server_that_echoes_wrongly_fails_the_run() {
    assert_caught("0", "echo-1,echo-3,threads-2,bulk-1,bulk-2,cycles-2,idle-2");
}

#[test]
fn a_server_that_goes_wrong_later_fails_the_run() {
    assert_caught("64", "echo-1,echo-3,threads-2,bulk-1,bulk-2,idle-2");
}

#[test]
fn what_is_not_installed_is_told_with_the_command_that_installs_it() {
    let directory = tempfile::tempdir().unwrap();
    let run = |allow: &[&str]| {
        let mut arguments = vec!["--here", "--only", "go", "--scenario", "echo-1"];
        arguments.extend(allow);
        // Nothing is installed here.
        let path = directory.path().to_str().unwrap();
        bench(directory.path(), &arguments, &[("PATH", path)])
    };
    let output = run(&[]);
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("missing: go") && said.contains("make bench-deps"));
    let output = run(&["--allow-missing"]);
    let table = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{table}");
    assert!(table.contains("go: not installed"), "{table}");
}
