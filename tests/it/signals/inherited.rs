//! Signals under whoever starts the server: shells, nohup, timeout.

use super::signal_name;
use crate::harness::{Ended, Program, Server, eventually, read_to_end};
use rustix::process::Signal;
use std::io::{Read, Write};
use std::net::Shutdown;
use std::process::Command;

/// Ignored signals stay ignored, as whoever started the server wants it.
fn with_ignored(ignored: &str, signal: Signal) -> Ended {
    let mut command = Command::new("sh");
    command.args(["-c", &format!("{ignored}; exec \"$@\""), "sh"]);
    command.arg(Program::Lastecho.path()).arg("127.0.0.1:0");
    let mut server = Server::spawn(command, 1);
    server.signal(signal);
    server.signal(Signal::USR1);
    server.await_log("live: "); // it is past that signal
    let mut client = server.connect();
    client.write_all(b"still served").unwrap();
    client.shutdown(Shutdown::Write).unwrap();
    assert_eq!(read_to_end(&mut client).unwrap(), b"still served");
    server.stop()
}

#[test]
fn an_ignored_signal_stays_ignored() {
    for (ignored, signal) in [
        ("trap '' INT", Signal::INT),
        ("trap '' HUP", Signal::HUP),
        ("trap '' QUIT INT HUP", Signal::QUIT),
    ] {
        let ended = with_ignored(ignored, signal);
        assert_eq!(
            (ended.code(), ended.count("accepted")),
            (Some(0), 1),
            "{ended:?}"
        );
        assert!(
            !ended.stderr.contains(&format!("{}: ", signal_name(signal))),
            "{}",
            ended.stderr
        );
    }
}

/// A shell starts background jobs of scripts so, and whoever types a session
/// into a script wonders why `kill -INT` does nothing.
#[test]
fn what_is_ignored_at_the_start_is_told_in_one_line() {
    for (ignored, told) in [
        ("trap '' INT QUIT", &["SIGINT and SIGQUIT ignored, "][..]),
        ("trap '' QUIT", &["SIGQUIT ignored, "]),
        // Who uses nohup means it.
        ("trap '' HUP", &[]),
        ("true", &[]),
    ] {
        let ended = with_ignored(ignored, Signal::URG);
        let lines = ended.stderr.lines().filter(|line| line.contains("ignored"));
        let lines: Vec<_> = lines.collect();
        assert_eq!(lines.len(), told.len(), "{ignored}: {lines:?}");
        assert!(
            lines.iter().zip(told).all(|(l, t)| l.contains(t)),
            "{lines:?}"
        );
    }
}

/// Some supervisors and libraries block signals in the threads that start
/// programs, and the mask is inherited (signal(7)).
#[test]
fn signals_that_were_blocked_at_the_start_are_heard() {
    for signal in [Signal::INT, Signal::TERM, Signal::QUIT, Signal::HUP] {
        let mut command = Command::new("env");
        command.arg("--block-signal").arg(Program::Lastecho.path());
        command.args(["--poll", "50ms", "127.0.0.1:0"]);
        let mut server = Server::spawn(command, 1);
        server.signal(Signal::USR1);
        server.await_log("live: ");
        server.signal(signal);
        assert_eq!(server.wait().code(), Some(0));
    }
}

#[test]
fn under_nohup_a_hangup_is_ignored() {
    let mut command = Command::new("nohup");
    command.arg(Program::Lastecho.path()).arg("127.0.0.1:0");
    let mut server = Server::spawn(command, 1);
    server.signal(Signal::HUP);
    server.signal(Signal::USR1);
    server.await_log("live: ");
    assert!(server.is_running());
    assert_eq!(server.stop().code(), Some(0));
}

/// `timeout` sends its signal to itself, to its child and to their group: the
/// server must not take the second for another request.
#[test]
fn a_server_under_timeout_stops_gracefully() {
    let mut command = Command::new("timeout");
    command
        .args(["--preserve-status", "1"])
        .arg(Program::Lastecho.path());
    command.args(["--poll", "50ms", "127.0.0.1:0"]);
    let server = Server::spawn(command, 1);
    let mut client = server.connect();
    client.write_all(b"served").unwrap();
    client.read_exact(&mut [0; 6]).unwrap();
    assert!(read_to_end(&mut client).unwrap().is_empty());
    drop(client);
    let ended = server.wait();
    assert_eq!(
        (ended.code(), ended.count("drained")),
        (Some(0), 1),
        "{ended:?}"
    );
    assert!(!ended.stderr.contains("again"), "{}", ended.stderr);
}

#[test]
fn a_server_under_timeout_passes_on_a_signal_sent_to_timeout() {
    let mut command = Command::new("timeout");
    command
        .args(["--preserve-status", "60"])
        .arg(Program::Lastecho.path());
    command.arg("127.0.0.1:0");
    let server = Server::spawn(command, 1);
    // Until it waits for its child, timeout does not know whom to pass it on to.
    let stat = format!("/proc/{}/stat", server.pid().as_raw_nonzero());
    eventually("timeout waits", || {
        std::fs::read_to_string(&stat).unwrap().contains(") S ")
    });
    let ended = server.stop();
    assert_eq!(ended.code(), Some(0), "{ended:?}");
    assert_eq!(ended.told["clean"], "true");
}
