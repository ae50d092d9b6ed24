//! Many calls of both kinds while TERM falls: what was greeted is in the
//! journal, exactly once.

use crate::calls::{CANNOT_CONNECT, Call};
use crate::harness::connect;
use crate::programs::{OURS, start};
use std::io::{Read, Write};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::thread;
use std::time::Duration;

const CLIENTS: usize = 8;
const TRIALS: usize = 5;

/// An HTTP request on a connection of its own; whether it was greeted.
fn request(address: SocketAddr, name: &str, delay_ms: usize) -> Option<bool> {
    let mut client = connect(address).ok()?;
    let head = format!(
        "GET /greet/{name}?delay_ms={delay_ms} HTTP/1.1\r\nHost: localhost\r\n\
         Connection: close\r\n\r\n"
    );
    let mut text = String::new();
    let _ = client.write_all(head.as_bytes());
    let _ = client.read_to_string(&mut text);
    Some(text.ends_with(&format!("hello {name}\n")))
}

/// Calls until nobody is there any more; the names that were greeted.
fn run_client([http, grpc]: [SocketAddr; 2], number: usize, greeted: &AtomicUsize) -> Vec<String> {
    let mut names = Vec::new();
    for call in 0.. {
        let (name, delay_ms) = (format!("{number}-{call}"), call % 4 * 10);
        let answer = if number.is_multiple_of(4) {
            match Call::start(grpc, &name, delay_ms as u64).finish() {
                Ok(_) => Some(true),
                Err(error) if error == CANNOT_CONNECT => None,
                Err(_) => Some(false),
            }
        } else {
            request(http, &name, delay_ms)
        };
        match answer {
            None => break,
            Some(true) => {
                greeted.fetch_add(1, Relaxed);
                names.push(format!("{name:?}"));
            }
            Some(false) => {}
        }
    }
    names
}

/// One stop under load. An error says how the promise was broken.
fn trial(options: &[&str], after: usize) -> Result<String, String> {
    let running = start(OURS, options);
    let addresses = [running.http, running.grpc];
    let greeted = AtomicUsize::new(0);
    let mut names: Vec<_> = thread::scope(|scope| {
        let clients: Vec<_> = (0..CLIENTS)
            .map(|number| {
                scope.spawn({
                    let greeted = &greeted;
                    move || run_client(addresses, number, greeted)
                })
            })
            .collect();
        while greeted.load(Relaxed) < after {
            thread::sleep(Duration::from_micros(100));
        }
        running.program.term();
        let names = clients.into_iter().map(|client| client.join().unwrap());
        names.collect::<Vec<_>>().concat()
    });
    names.sort();
    let (ended, journal) = running.wait();
    let missing = names.iter().filter(|name| !journal.contains(name)).count();
    if missing > 0 || ended.code != Some(0) {
        let (greeted, lines) = (names.len(), journal.len());
        return Err(format!(
            "{missing} of {greeted} greeted are not among {lines} in the journal: {:?}, {:?}",
            ended.code, ended.stdout
        ));
    }
    // Without its sums nobody knows what became of the calls in hand.
    if !ended.stdout.iter().any(|line| line.starts_with("stopped ")) {
        return Err(format!("it left without a word: {:?}", ended.stdout));
    }
    // A call whose client was cut off by the server's own close (see the
    // README's limits) may be in the journal, but nothing is there twice.
    assert!(
        journal.windows(2).all(|two| two[0] != two[1]),
        "{journal:?}"
    );
    assert_eq!(ended.count("submitted"), journal.len(), "{ended:?}");
    assert_eq!(ended.count("journaled"), journal.len(), "{ended:?}");
    Ok(format!(
        "{} greeted, {} in the journal",
        names.len(),
        journal.len()
    ))
}

#[test]
fn what_was_greeted_is_in_the_journal_exactly_once() {
    for number in 0..TRIALS {
        match trial(&[], 30 + 37 * number) {
            Ok(counts) => println!("trial {number}: {counts}"),
            Err(broken) => panic!("trial {number}: {broken}"),
        }
    }
}

/// Takes the library's part out, and expects the same trial to fail.
fn control(name: &str) {
    for number in 0..TRIALS {
        match trial(&["--control", name], 30 + 37 * number) {
            Ok(_) => {}
            Err(broken) => return println!("control {name} breaks it: {broken}"),
        }
    }
    panic!("control {name} kept it in {TRIALS} trials: the test shows nothing");
}

#[test]
fn a_program_that_leaves_at_the_event_leaves_without_its_sums() {
    control("exit");
}

#[test]
fn a_closer_that_is_stopped_first_loses_jobs() {
    control("closer-first");
}
