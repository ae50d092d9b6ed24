//! received = processed + failed, whatever the lines and the stop.

use crate::app::{App, Ended, eventually, good};
use rustix::process::Signal;
use std::io::Write;
use std::net::TcpStream;
use std::thread;

/// What a stop must leave behind when 80 good and 5 bad lines were sent.
fn clean(ended: &Ended) -> Result<(), String> {
    ended.conserved()?;
    let counts = ["received", "processed", "failed", "cut"].map(|key| ended.count(key));
    if counts != [85, 80, 5, 0] || ended.code != Some(0) {
        return Err(format!("{:?} {counts:?}", ended.code));
    }
    // Every line entered the queue as well.
    if ended.numbers("process") != ended.numbers("consumer") {
        return Err("process and consumer lines differ".into());
    }
    Ok(())
}

/// `logger` and `nc` have sent, the consumers are slow, and the stop comes.
fn stop_while_lines_wait(signal: Signal, options: &[&str]) -> Result<(), String> {
    let app = App::start(&[&["--work", "10ms"], options].concat());
    let mut nc = app.nc(&(good(40) + "no access log\n"));
    app.logger(&(good(40) + "one\ntwo\nthree\nfour\n"));
    // logger is done; nc sends its file in one piece, and then waits for us.
    eventually("nc is heard", || {
        let stdout = app.stdout();
        let mut lines = stdout.lines().map(|line| line.splitn(3, ' ').nth(2));
        lines.any(|line| line.is_some_and(|line| line.starts_with("192.0.2")))
    });
    let ended = app.stop(signal);
    if options.is_empty() {
        assert!(nc.ended().success(), "nc saw no orderly end");
    }
    clean(&ended)
}

#[test]
fn each_signal_stops_upstream_then_the_queue_then_the_consumers() {
    for signal in [Signal::INT, Signal::TERM, Signal::HUP, Signal::QUIT] {
        stop_while_lines_wait(signal, &[]).unwrap();
    }
    let broken = stop_while_lines_wait(Signal::TERM, &["--control", "abandon"]);
    println!("stop: control abandon breaks it: {}", broken.unwrap_err());
}

#[test]
fn a_parser_that_panics_takes_only_its_line_with_it() {
    let app = App::start(&["--panic-on", "GET /page/3"]);
    app.logger(&good(40));
    // Lines 3 and 30 to 39, and all four consumers go on.
    let ended = app.stop(Signal::TERM);
    ended.conserved().unwrap();
    let counts = ["received", "processed", "failed", "cut"].map(|key| ended.count(key));
    assert_eq!(
        (counts, ended.code),
        ([40, 29, 11, 0], Some(0)),
        "{ended:?}"
    );
    assert_eq!(
        ended.stdout.matches("failed: panicked: on purpose").count(),
        11
    );
}

#[test]
fn a_stop_in_the_middle_of_streams_finishes_every_line_that_was_taken() {
    for millis in [0, 5, 20, 60] {
        let app = App::start(&["--work", "1ms"]);
        let senders: Vec<_> = (0..6)
            .map(|_| {
                let mut sender = TcpStream::connect(app.address).unwrap();
                let lines = good(2000);
                // Ends with the lines, or when the program closes.
                thread::spawn(move || sender.write_all(lines.as_bytes()))
            })
            .collect();
        eventually("some lines", || app.stdout().contains("consumer "));
        thread::sleep(std::time::Duration::from_millis(millis));
        let ended = app.stop(Signal::TERM);
        ended.conserved().unwrap();
        println!("stop in streams: {}", ended.summary());
        for sender in senders {
            let _ = sender.join().unwrap();
        }
    }
}

#[test]
fn the_last_line_needs_no_line_feed_and_a_long_one_is_split() {
    let app = App::start(&[]);
    let mut sender = TcpStream::connect(app.address).unwrap();
    let long = "x".repeat(40_000);
    sender
        .write_all(format!("{long}\n{}", good(1).trim_end()).as_bytes())
        .unwrap();
    drop(sender);
    eventually("the last line", || app.stdout().contains("status=200"));
    let ended = app.stop(Signal::TERM);
    ended.conserved().unwrap();
    // 16,384 bytes twice, the rest, and the last line.
    assert_eq!((ended.count("received"), ended.count("failed")), (4, 3));
    assert!(
        ended.stderr.contains("received 4 = processed 1 + failed 3"),
        "{ended:?}"
    );
}
