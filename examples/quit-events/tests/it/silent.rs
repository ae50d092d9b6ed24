//! Clients that say nothing, or half of something, hold up no stop.

use crate::harness::{Curl, connect};
use crate::programs::{FRAMEWORK, OURS, SERVER, assert_phases, start};
use crate::unread::stop_unread;
use std::io::{Read, Write};
use std::process::Command;

/// HTTP/2's preface, and an empty SETTINGS frame (RFC 9113, 3.4).
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";

/// A stop without a deadline, with one client for each beginning: what ends it
/// is that each of them is given up. Unless they are, no test ends here either,
/// but at the watchdog.
fn silent_clients_hold_up_no_stop(path: &str) {
    let running = start(path, &["--timeout", "none"]);
    let mut clients = Vec::new();
    let http: [&[u8]; 4] = [
        b"",
        b"GET /greet/a HT",
        b"GET /greet/a HTTP/1.1\r\nHost: a\r\n",
        b"POST /greet/a HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\n",
    ];
    // The last one never answers our PING.
    let grpc: [&[u8]; 4] = [b"", b"PRI * HTTP/2.0\r\n", &PREFACE[..24], PREFACE];
    for (address, beginnings) in [(running.http, http), (running.grpc, grpc)] {
        for beginning in beginnings {
            let mut client = connect(address).unwrap();
            client.write_all(beginning).unwrap();
            clients.push(client);
        }
    }
    // All are accepted once a later one was answered.
    assert_eq!(
        Curl::start(&[&running.url("curl", 0)]).finish().code,
        Some(0)
    );
    running.program.term();
    let (ended, journal) = running.wait();
    assert_eq!(ended.code, Some(0), "{ended:?}");
    assert_phases(&ended, &[]);
    assert_eq!(journal, ["\"curl\""]);
}

#[test]
fn silent_clients_hold_up_no_stop_when_we_own_the_signals() {
    silent_clients_hold_up_no_stop(OURS);
}

#[test]
fn silent_clients_hold_up_no_stop_when_the_framework_owns_the_signals() {
    silent_clients_hold_up_no_stop(FRAMEWORK);
}

#[test]
fn silent_clients_hold_up_no_stop_when_a_server_fires_the_event() {
    silent_clients_hold_up_no_stop(SERVER);
}

/// Also without a stop they are not kept for ever.
#[test]
fn silent_clients_are_given_up() {
    let running = start(OURS, &[]);
    for (address, beginning) in [(running.http, &b"GET / HT"[..]), (running.grpc, b"PRI")] {
        let mut client = connect(address).unwrap();
        client.write_all(beginning).unwrap();
        // The end, or a reset, before the watchdog.
        let mut answer = Vec::new();
        let end = client.read_to_end(&mut answer);
        let timed_out = end.is_err_and(|error| error.kind() == std::io::ErrorKind::WouldBlock);
        assert!(!timed_out, "{address}: {answer:?}");
    }
}

#[test]
fn outputs_that_nothing_reads_hold_up_no_stop() {
    let directory = tempfile::tempdir().unwrap();
    let mut command = Command::new(OURS);
    command.args([
        "--http",
        "127.0.0.1:0",
        "--grpc",
        "127.0.0.1:0",
        "--journal",
    ]);
    command.arg(directory.path().join("journal"));
    command.args(["--timeout", "2s"]);
    assert_eq!(stop_unread(command, "grpc listening on "), Some(0));
}

/// A page of another site, open in a browser on this machine, stops nothing.
#[test]
fn only_programs_and_our_own_pages_may_ask_for_the_stop() {
    let running = start(SERVER, &[]);
    let url = format!("http://{}/quit", running.http);
    let ask = |origin: &str| {
        let origin = format!("Origin: {origin}");
        let answer = Curl::start(&["--request", "POST", "--header", &origin, &url]);
        answer.finish().text
    };
    assert_eq!(ask("http://evil.test"), "not from here\n");
    assert_eq!(ask(&format!("http://{}", running.http)), "stopping\n");
    assert_eq!(running.wait().0.code, Some(0));
}
