//! What the event does to calls in hand, to stuck parts, and to the order.

use crate::calls::{CANNOT_CONNECT, Call};
use crate::harness::{Curl, Program};
use crate::programs::{FRAMEWORK, OURS, Running, SERVER, assert_phases, start};
use std::process::Command;

/// curl's exit status.
const REFUSED: Option<i32> = Some(7);
/// Longer than anybody waits.
const AN_HOUR: u64 = 3_600_000;

/// A slow HTTP request and a slow gRPC call are in hand when the stop comes.
fn slow_calls_are_completed(path: &str, stop: impl Fn(&Running)) {
    let running = start(path, &[]);
    let curl = Curl::start(&[&running.url("curl", 1500)]);
    let call = Call::start(running.grpc, "tonic", 1500);
    running.program.await_log("greeting", 2);
    stop(&running);
    let greeted = curl.finish();
    assert_eq!((greeted.code, &*greeted.text), (Some(0), "hello curl\n"));
    assert_eq!(call.finish().as_deref(), Ok("hello tonic\n"));
    let (ended, journal) = running.wait();
    assert_eq!(ended.code, Some(0), "{ended:?}");
    assert_phases(&ended, &[]);
    assert_eq!(ended.told("clean"), "true");
    assert_eq!((ended.count("submitted"), ended.count("journaled")), (2, 2));
    assert_eq!(journal, ["\"curl\"", "\"tonic\""]);
}

#[test]
fn slow_calls_are_completed_when_we_own_the_signals() {
    slow_calls_are_completed(OURS, |running| running.program.term());
}

#[test]
fn slow_calls_are_completed_when_the_framework_owns_the_signals() {
    slow_calls_are_completed(FRAMEWORK, |running| running.program.term());
}

#[test]
fn slow_calls_are_completed_when_a_server_fires_the_event() {
    slow_calls_are_completed(SERVER, |running| {
        let url = format!("http://{}/quit", running.http);
        let answer = Curl::start(&["--request", "POST", &url]).finish();
        assert_eq!(answer.text, "stopping\n", "{answer:?}");
    });
}

#[test]
fn signals_work_beside_a_servers_own_shutdown() {
    slow_calls_are_completed(SERVER, |running| running.program.term());
}

#[test]
fn both_doors_are_closed_while_calls_are_completed() {
    let running = start(OURS, &[]);
    let curl = Curl::start(&[&running.url("curl", 4000)]);
    running.program.await_log("greeting", 1);
    running.program.term();
    running.program.await_log("shutdown: doors: done", 1);
    // The servers are told; they drop their listeners in their own time.
    while Curl::start(&[&running.url("late", 0)]).finish().code != REFUSED {}
    while Call::start(running.grpc, "late", 0).finish() != Err(CANNOT_CONNECT.into()) {}
    let log = running.program.stderr();
    assert!(!log.contains("shutdown: http"), "that was later: {log}");
    assert_eq!(curl.finish().text, "hello curl\n");
    assert_eq!(running.wait().0.code, Some(0));
}

#[test]
fn a_stuck_server_is_named_and_the_rest_stops_in_order() {
    for (stuck, other) in [("http", "grpc"), ("grpc", "http")] {
        let running = start(OURS, &["--timeout", "6s"]);
        let delay = |part: &str| if part == stuck { AN_HOUR } else { 500 };
        let curl = Curl::start(&[&running.url("curl", delay("http"))]);
        let call = Call::start(running.grpc, "tonic", delay("grpc"));
        running.program.await_log("greeting", 2);
        running.program.term();
        let (greeted, called) = (curl.finish(), call.finish());
        assert_eq!(
            greeted.text == "hello curl\n",
            other == "http",
            "{greeted:?}"
        );
        assert_eq!(called.is_ok(), other == "grpc", "{called:?}");
        let (ended, journal) = running.wait();
        assert_eq!(ended.code, Some(3), "{ended:?}");
        assert_phases(&ended, &[(stuck, &["stuck"])]);
        assert_eq!(journal.len(), 1, "{ended:?}");
    }
}

#[test]
fn a_worker_that_does_not_look_is_named_and_the_rest_stops_in_order() {
    let running = start(OURS, &["--timeout", "6s", "--control", "deaf-worker"]);
    assert_eq!(
        Curl::start(&[&running.url("curl", 0)]).finish().code,
        Some(0)
    );
    running.program.term();
    let (ended, journal) = running.wait();
    assert_eq!(ended.code, Some(3), "{ended:?}");
    // Where its own word comes too late, the phase is called stuck.
    assert_phases(
        &ended,
        &[("polling", &["failed: 1 still running", "stuck"])],
    );
    assert_eq!(journal, ["\"curl\""]);
}

#[test]
fn a_line_that_cannot_be_written_is_told_and_not_counted() {
    let running = start(OURS, &["--journal", "/dev/full"]);
    assert_eq!(
        Curl::start(&[&running.url("curl", 0)]).finish().code,
        Some(0)
    );
    running.program.term();
    let (ended, _) = running.wait();
    assert_eq!(ended.code, Some(3), "{ended:?}");
    assert_phases(&ended, &[]);
    assert!(
        ended
            .stderr
            .contains("\"curl\" is not in the journal: No space left on device"),
        "{ended:?}"
    );
    assert_eq!((ended.count("submitted"), ended.count("journaled")), (1, 0));
}

#[test]
fn a_second_signal_leaves_stuck_parts_behind() {
    for path in [OURS, FRAMEWORK] {
        let running = start(path, &["--timeout", "none"]);
        let curl = Curl::start(&[&running.url("curl", AN_HOUR)]);
        running.program.await_log("greeting", 1);
        running.program.term();
        running.program.await_log("shutdown: doors: done", 1);
        // Signals within 200 ms of each other are one request.
        std::thread::sleep(std::time::Duration::from_millis(400));
        running.program.term();
        assert_ne!(curl.finish().code, Some(0));
        let (ended, _) = running.wait();
        assert_eq!(ended.code, Some(3), "{ended:?}");
        assert!(ended.stdout.iter().any(|line| line.ends_with("end=stuck")));
        assert_eq!(ended.told("clean"), "false");
    }
}

#[test]
fn bad_input_is_named_in_one_line() {
    let running = start(OURS, &[]);
    let taken = running.http.to_string();
    let cases: [(&[&str], i32, &str); 4] = [
        (&["--poll", "often"], 2, "'often' for '--poll <DURATION>'"),
        (&["--timeout", "soon"], 2, "--timeout"),
        (&["--journal", "/nowhere/file"], 1, "/nowhere/file: No such"),
        (&["--journal", "/dev/null", "--http", &taken], 1, &taken),
    ];
    for (options, code, part) in cases {
        let mut command = Command::new(OURS);
        command.args(options);
        let ended = Program::start(command).wait();
        assert_eq!(ended.code, Some(code), "{options:?}: {ended:?}");
        assert!(ended.stderr.contains(part), "{options:?}: {ended:?}");
        assert_eq!(ended.stderr.lines().count(), 1, "{ended:?}");
        assert!(ended.stdout.is_empty(), "{ended:?}");
    }
}
