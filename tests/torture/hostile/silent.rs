//! Thousands of connects that never send.

use super::{COST, DRAIN, SLACK, assert_sums};
use crate::crowd::Crowd;
use crate::gauge::{Gauge, kib};
use crate::harness::{Program, Server, eventually};
use crate::witness::witnessed;
use crate::{alone, is_long, told};
use std::thread;
use std::time::{Duration, Instant};

/// Threads of a server beside those that serve: main, signals, two that write,
/// those that wait for clients (16), and some that are about to end.
const OTHER_THREADS: u64 = 4 + 16 + 8;

fn crowd() -> usize {
    if is_long() { 9000 } else { 2000 }
}

#[test]
fn thousands_that_never_send_are_ended_by_the_idle_timeout() {
    let _machine = alone();
    let size = crowd();
    let server = Server::start(Program::Lastecho, &["--idle-timeout", "2s"]);
    let gauge = Gauge::of(&server);
    let since = Instant::now();
    let (seen, ()) = witnessed(&server, || {
        let crowd = Crowd::connect(&server, size);
        crowd.end_in_silence().unwrap();
    });
    let took = since.elapsed();
    assert!(took < Duration::from_secs(2) + SLACK, "{took:?}");
    eventually("their threads' end", || {
        gauge.threads() <= 1 + OTHER_THREADS
    });
    let ended = server.stop();
    assert_sums(&ended);
    assert_eq!(ended.count("idle"), size as u64, "{ended:?}");
    told(
        &format!("{size} connects that never send, `--idle-timeout 2s`"),
        "each ended with FIN by the timeout, their threads with them",
        &format!(
            "connected and all ended in {took:.1?}; the witness's slowest echo {:.0?}",
            seen.slowest
        ),
    );
}

/// The control: without the timeout they stay, until the stop.
#[test]
fn thousands_that_never_send_stay_without_it_and_do_not_prolong_a_stop() {
    let _machine = alone();
    let size = crowd();
    let server = Server::start(Program::Lastecho, &DRAIN);
    let gauge = Gauge::of(&server);
    let before = gauge.memory();
    let (seen, crowd) = witnessed(&server, || {
        let crowd = Crowd::connect(&server, size);
        thread::sleep(Duration::from_secs(3)); // the timeout of the other test, and more
        crowd
    });
    eventually("a thread for each", || gauge.threads() > size as u64);
    let threads = gauge.threads();
    assert!(threads <= size as u64 + OTHER_THREADS, "{threads} threads");
    let memory = gauge.memory().saturating_sub(before) / size as u64;
    assert!(memory < COST, "{}", kib(memory));
    let ended = server.stop();
    crowd.end_in_silence().unwrap();
    assert_sums(&ended);
    assert_eq!(ended.count("drained"), size as u64, "{ended:?}");
    told(
        &format!("{size} connects that never send, no `--idle-timeout`, then a stop"),
        "they stay; the stop ends all with FIN before its deadline",
        &format!(
            "{} of memory each, {threads} threads; the stop took {:.1?}; the witness saw {} \
             echoes right",
            kib(memory),
            ended.took,
            seen.echoes
        ),
    );
}

#[test]
fn connects_beyond_the_limit_wait_in_the_queue_and_cost_no_thread() {
    let _machine = alone();
    let server = Server::start(
        Program::Lastecho,
        &[&DRAIN[..], &["--max-connections", "50"]].concat(),
    );
    let gauge = Gauge::of(&server);
    let size = 1000;
    let crowd = Crowd::connect(&server, size);
    eventually("a full house", || gauge.threads() > 50);
    let samples = (0..50).map(|_| {
        thread::sleep(Duration::from_millis(10));
        gauge.threads()
    });
    let threads = samples.max().unwrap();
    assert!(threads <= 50 + OTHER_THREADS, "{threads} threads");
    let ended = server.stop();
    crowd.end_in_silence().unwrap();
    assert_sums(&ended);
    assert_eq!(ended.count("drained"), size as u64, "{ended:?}");
    told(
        &format!("{size} connects that never send, `--max-connections 50`, then a stop"),
        "50 have a thread, the others wait in the queue; the stop ends all with FIN",
        &format!(
            "{threads} threads at most; the stop took {:.1?}",
            ended.took
        ),
    );
}
