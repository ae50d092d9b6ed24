//! A signal ends it with its summary, and does not lose what is in hand.

use super::{Running, SIZE, assert_same, lastecho};
use rustix::process::Signal;
use std::net::TcpListener;
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
