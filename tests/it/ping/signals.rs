//! A signal ends it with its summary, and does not lose what is in hand.

use super::{Running, SIZE, assert_same, command, lastecho};
use crate::harness::eventually;
use crate::outputs::{fill, named_pipe};
use rustix::fs::OFlags;
use rustix::process::{Pid, Signal, kill_process};
use std::net::TcpListener;
use std::process::Command;
use std::thread::sleep;
use std::time::Duration;

#[test]
fn a_signal_ends_it_with_the_summary() {
    for signal in [Signal::INT, Signal::TERM] {
        let server = lastecho(&[]);
        let running = Running::start(server.address(), "-i 20ms -n 2");
        running.await_lines(8, " seq=");
        running.signal(signal);
        let pinged = running.wait();
        assert_eq!(pinged.status, Some(0), "{pinged:?}");
        let sent = pinged.count("sent");
        pinged.assert_counts(&[("sent", sent), ("echoed", sent)]);
        assert_eq!(
            pinged.told(1).len() + pinged.told(2).len(),
            usize::try_from(sent).unwrap()
        );
        assert!(sent >= 8, "{pinged:?}");
        assert_same(&pinged, &server.stop(), SIZE);
    }
}

#[test]
fn a_signal_waits_for_the_echo_in_flight() {
    let server = lastecho(&["--delay", "1s", "-vv"]);
    let running = Running::start(server.address(), "");
    server.await_log("connection 1: 56 bytes");
    running.signal(Signal::INT);
    let pinged = running.wait();
    assert_eq!(pinged.status, Some(0), "{pinged:?}");
    pinged.assert_counts(&[("sent", 1), ("echoed", 1)]);
}

#[test]
fn a_second_signal_does_not() {
    let hangs = TcpListener::bind("127.0.0.1:0").unwrap();
    let running = Running::start(hangs.local_addr().unwrap(), "-W 10m");
    // Accepted, so it is past its beginnings: signals are caught.
    let (mut client, _) = hangs.accept().unwrap();
    super::service::take(&mut client);
    running.signal(Signal::INT);
    sleep(Duration::from_millis(300)); // sooner, they would be the same request
    running.signal(Signal::INT);
    let pinged = running.wait();
    assert_eq!(pinged.status, Some(1), "{pinged:?}");
    pinged.assert_counts(&[("sent", 1), ("lost", 1)]);
    assert!(
        pinged.stderr.contains("seq=1 lost: interrupted"),
        "{pinged:?}"
    );
}

/// Standard output and standard error are full from the start: no echo waits
/// for them, and neither does the stop.
#[test]
fn outputs_that_nothing_reads_hold_up_neither_echoes_nor_the_stop() {
    let server = lastecho(&["-vv"]);
    let (_directory, path, _pipe) = named_pipe(OFlags::empty());
    fill(&path);
    let mut shell = Command::new("sh");
    shell.args(["-c", &format!("exec \"$@\" >{path} 2>&1"), "sh"]);
    let ping = command(&server.address().to_string(), "-i 10ms");
    shell.arg(ping.get_program()).args(ping.get_args());
    let mut ping = shell.spawn().unwrap();
    server.await_log("connection 1: 56 bytes");
    kill_process(Pid::from_child(&ping), Signal::INT).unwrap();
    let mut status = None;
    eventually("the end", || {
        status = ping.try_wait().unwrap();
        status.is_some()
    });
    let ended = server.stop();
    assert!(ended.count("bytes_in") > 0, "{ended:?}");
    assert_eq!(status.unwrap().code(), Some(0));
}
