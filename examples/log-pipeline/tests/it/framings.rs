//! Both framings of syslog over TCP, from a real sender.

use crate::app::{App, eventually, good};
use rustix::process::Signal;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::thread::sleep;
use std::time::Duration;

/// util-linux's `logger` can count its messages.
#[test]
fn counted_and_plain_messages_are_understood_side_by_side() {
    let app = App::start(&[]);
    app.logger_with(&["--octet-count"], &good(40));
    app.logger(&good(30));
    let ended = app.stop(Signal::TERM);
    ended.conserved().unwrap();
    let counts = ["received", "processed", "failed"].map(|key| ended.count(key));
    assert_eq!((counts, ended.code), ([70, 70, 0], Some(0)), "{ended:?}");
}

/// A long message is taken as several, and a stop after the first of them waits
/// for the others, in both framings.
#[test]
fn a_long_message_that_has_begun_is_heard_out() {
    for count in ["", "40001 "] {
        let mut app = App::start(&[]);
        let message = format!("{count}<{}", "x".repeat(40_000));
        let mut sender = TcpStream::connect(app.address).unwrap();
        let (begun, rest) = message.split_at(count.len() + 16 * 1024);
        sender.write_all(begun.as_bytes()).unwrap();
        eventually("the first piece", || app.stdout().contains("consumer 1 "));
        // It ends when connections see the stop.
        let mut idle = TcpStream::connect(app.address).unwrap();
        app.signal(Signal::TERM);
        assert_eq!(idle.read(&mut [0]).unwrap(), 0);
        for piece in rest.as_bytes().chunks(2000) {
            // Time for who waits no longer to end.
            sleep(Duration::from_millis(20));
            sender.write_all(piece).unwrap();
        }
        drop(sender);
        let ended = app.ended();
        ended.conserved().unwrap();
        assert_eq!(
            (ended.count("received"), ended.code),
            (3, Some(0)),
            "{ended:?}"
        );
    }
}

/// A stop in the middle of a counted message waits for its end, as for a line's.
#[test]
fn a_counted_message_that_has_begun_is_heard_out() {
    let mut app = App::start(&[]);
    let message = format!("<13>httpd: {}", good(1).trim_end());
    let mut sender = TcpStream::connect(app.address).unwrap();
    let (begun, rest) = message.split_at(20);
    sender
        .write_all(format!("{} <13>half\n", 9).as_bytes())
        .unwrap();
    eventually("the first one", || app.stdout().contains("consumer 1 "));
    sender
        .write_all(format!("{} {begun}", message.len()).as_bytes())
        .unwrap();
    app.signal(Signal::TERM);
    eventually("the stop", || app.stderr().contains("stopping: "));
    sender.write_all(rest.as_bytes()).unwrap();
    let ended = app.ended();
    ended.conserved().unwrap();
    assert_eq!((ended.count("received"), ended.count("processed")), (2, 1));
    assert_eq!(ended.code, Some(0), "{ended:?}");
}
