//! The library's calls at the wrong time.

use crate::harness::read_to_end;
use crate::library::{local, serve_until};
use lastecho::handover::{self, Handover};
use lastecho::{Connection, Server, Stop};
use std::env;
use std::io::ErrorKind;
use std::net::TcpListener;
use std::os::fd::OwnedFd;
use std::process::Command;
use std::time::Duration;

/// Tries to hand over to a program that must not even be started.
fn refused(handover: &Handover, stop: &Stop) -> (ErrorKind, String) {
    let directory = tempfile::tempdir().unwrap();
    let trace = directory.path().join("started");
    let mut command = Command::new("touch");
    command.arg(&trace);
    let outcome = handover.spawn(command, Duration::from_secs(10), stop);
    let error = outcome.err().expect("it was refused");
    assert!(!trace.exists(), "a successor was started: {error}");
    (error.kind(), error.to_string())
}

#[test]
fn only_a_server_that_serves_is_handed_over() {
    let not_serving = (
        ErrorKind::NotConnected,
        "this server is not serving".to_owned(),
    );
    let stop = Stop::new();
    let server = Server::bind("127.0.0.1:0").unwrap();
    let handover = server.handover().unwrap();
    assert_eq!(refused(&handover, &stop), not_serving);
    serve_until(
        &stop,
        server,
        |_| Ok(()),
        |running| {
            // Once somebody was served, it serves.
            let mut client = running.connect();
            assert_eq!(read_to_end(&mut client).unwrap(), b"");
            // One that may be started, and fails: it was tried.
            let successor = Command::new("true");
            let outcome = handover.spawn(successor, Duration::from_secs(10), &stop);
            assert_eq!(outcome.err().unwrap().kind(), ErrorKind::UnexpectedEof);
            stop.set();
            let (kind, _) = refused(&handover, &stop);
            assert!([ErrorKind::Interrupted, ErrorKind::NotConnected].contains(&kind));
        },
    );
    assert_eq!(refused(&handover, &stop), not_serving);
    assert_eq!(refused(&handover, &Stop::new()), not_serving);
}

/// Runs itself as a program that was passed a socket and has threads, where
/// the variables must stay.
#[test]
fn a_second_call_finds_nothing_though_the_variables_stay() {
    if env::var_os("LISTEN_FDS").is_some() {
        let first = handover::inherited().unwrap();
        assert!(!first.is_empty(), "nothing was passed");
        let there = env::var_os("LISTEN_FDS").is_some();
        assert!(there, "there was no other thread, so this shows nothing");
        assert!(handover::inherited().unwrap().is_empty());
        return;
    }
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let script = "exec 3<&0 0</dev/null; LISTEN_PID=$$ exec \"$0\" --exact \"$1\"";
    let name = "handover::misuse::a_second_call_finds_nothing_though_the_variables_stay";
    let mut command = Command::new("sh");
    command
        .args(["-c", script])
        .arg(env::current_exe().unwrap())
        .arg(name)
        .env("LISTEN_FDS", "1")
        .stdin(OwnedFd::from(listener));
    let output = command.output().unwrap();
    let told = String::from_utf8_lossy(&output.stdout);
    assert!(
        output.status.success() && told.contains("1 passed"),
        "{told}"
    );
}

/// It knows of some of the listeners, and would stop all of them.
#[test]
fn a_handover_that_was_taken_before_servers_were_joined_is_refused() {
    let (first, second) = (local(), local());
    let before = [&first, &second].map(|server| server.handover().unwrap());
    let stop = Stop::new();
    let handler = |_: &mut Connection| Ok(());
    serve_until(&stop, first.and(second), handler, |running| {
        // Once somebody was served, it serves.
        assert_eq!(read_to_end(&mut running.connect()).unwrap(), b"");
        for handover in &before {
            let (kind, why) = refused(handover, &stop);
            assert_eq!(kind, ErrorKind::InvalidInput, "{why}");
            assert!(why.ends_with("take it from the joined server"), "{why}");
            assert!(!stop.is_set() && !handover.is_done());
        }
    });
}
