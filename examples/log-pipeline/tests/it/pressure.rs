//! A full queue, a deadline that is reached, and bad input.

use crate::app::{App, Ended, WATCHDOG, eventually, good};
use rustix::process::Signal;
use std::io::{ErrorKind, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::Command;
use std::time::Duration;

/// Queue and consumers together.
const ON_THE_WAY: i64 = 20 + 4;

/// Sends until the program has taken nothing for a while; how much it took
/// (with all the buffers in between).
fn send_until_held_back(sender: &mut TcpStream) -> usize {
    sender
        .set_write_timeout(Some(Duration::from_millis(300)))
        .unwrap();
    let lines = good(1000);
    let mut sent = 0;
    while sent < 256 << 20 {
        match sender.write(lines.as_bytes()) {
            Ok(count) => sent += count,
            Err(error) if error.kind() == ErrorKind::WouldBlock => return sent,
            Err(error) => panic!("{error}"),
        }
    }
    panic!("{sent} bytes were sent and nobody held us back");
}

/// At no time were more lines on the way than queue and consumers hold.
fn never_more_than_fit(ended: &Ended) {
    let (mut on_the_way, mut most) = (0, 0);
    for line in ended.stdout.lines() {
        match line.split(' ').next() {
            Some("process") => on_the_way += 1,
            // A line that was cut may never have entered the queue.
            Some("consumer") if !line.ends_with("cut at the deadline") => on_the_way -= 1,
            _ => {}
        }
        most = most.max(on_the_way);
    }
    assert!(most <= ON_THE_WAY, "{most} lines on the way");
    assert!(most >= 20, "the queue was never full: {most}");
}

#[test]
fn a_full_queue_holds_the_sender_back_and_a_deadline_cuts_what_is_left() {
    let app = App::start(&["--work", "50ms", "--drain-timeout", "1s"]);
    let mut sender = TcpStream::connect(app.address).unwrap();
    let sent = send_until_held_back(&mut sender);
    let ended = app.stop(Signal::TERM);
    assert_eq!(
        (ended.code, ended.told("clean")),
        (Some(3), "false"),
        "{}",
        ended.stderr
    );
    ended.conserved().unwrap();
    never_more_than_fit(&ended);
    assert!(ended.count("cut") > 0 && ended.count("processed") > 0);
    assert!(!ended.stderr.contains("upstream: done"), "{}", ended.stderr);
    let line = ended.summary();
    println!("back-pressure: held back after {sent} bytes; {line}");
}

#[test]
fn consumers_that_hang_are_named_and_their_lines_counted_as_cut() {
    let app = App::start(&["--work", "10m", "--drain-timeout", "1s"]);
    app.logger(&good(10));
    eventually("all in the queue", || {
        app.stdout().matches("process ").count() == 10
    });
    let ended = app.stop(Signal::TERM);
    assert_eq!(
        (ended.code, ended.told("clean")),
        (Some(3), "false"),
        "{ended:?}"
    );
    ended.conserved().unwrap();
    assert_eq!((ended.count("received"), ended.count("cut")), (10, 10));
    // A phase that ends just when its time does may be called stuck.
    assert!(
        ended.stderr.contains("upstream: done, queue: "),
        "{}",
        ended.stderr
    );
    assert!(
        ended.stderr.contains(", consumers: stuck"),
        "{}",
        ended.stderr
    );
}

#[test]
fn a_second_signal_cuts_at_once() {
    let mut app = App::start(&["--work", "10m", "--drain-timeout", "10m"]);
    app.logger(&good(10));
    eventually("all in the queue", || {
        app.stdout().matches("process ").count() == 10
    });
    app.signal(Signal::TERM);
    eventually("the first is seen", || app.stderr().contains("stopping: "));
    // Signals in quick succession are one request.
    std::thread::sleep(Duration::from_millis(300));
    app.signal(Signal::TERM);
    let ended = app.ended();
    assert_eq!((ended.code, ended.count("cut")), (Some(3), 10), "{ended:?}");
    ended.conserved().unwrap();
}

#[test]
fn a_sender_that_is_idle_or_in_the_middle_of_a_line_does_not_hold_up_the_end() {
    let app = App::start(&["--drain-timeout", "1s"]);
    let connect = || {
        let sender = TcpStream::connect(app.address).unwrap();
        sender.set_read_timeout(Some(WATCHDOG)).unwrap();
        sender
    };
    let (mut idle, mut slow) = (connect(), connect());
    idle.write_all(good(1).as_bytes()).unwrap();
    slow.write_all(b"half a li").unwrap();
    eventually("the idle one is heard", || {
        app.stdout().contains("consumer 1 ")
    });
    let ended = app.stop(Signal::TERM);
    // Half a line is not a line: nothing was taken, but a connection was cut.
    ended.conserved().unwrap();
    assert_eq!(
        (ended.code, ended.count("received"), ended.count("cut")),
        (Some(3), 1, 0)
    );
    assert_eq!(idle.read(&mut [0]).unwrap(), 0, "the idle one got no FIN");
}

#[test]
fn bad_input_is_one_line_and_a_status() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = taken.local_addr().unwrap().to_string();
    for (options, status, word) in [
        (&["--queue", "0"][..], 2, "--queue"),
        (&["--consumers", "none"], 2, "none"),
        (&["--poll", "0s"], 2, "more than zero"),
        (&["--drain-timeout", "soon"], 2, "soon"),
        (&["--work", "-1s"], 2, "-1"),
        (&["localhost"], 2, "localhost"),
        (&["--nonsense"], 2, "--nonsense"),
        (&[&taken], 1, &taken),
    ] {
        let mut command = Command::new(env!("CARGO_BIN_EXE_log-pipeline"));
        let output = command.args(options).output().unwrap();
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(status), "{options:?}: {said}");
        assert_eq!(said.matches('\n').count(), 1, "{options:?}: {said}");
        assert!(
            said.contains(word) && output.stdout.is_empty(),
            "{options:?}: {said}"
        );
    }
}
