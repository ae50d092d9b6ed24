//! Many clients while TERM falls: each request ends well or was never heard.

use crate::client::{Client, Got};
use crate::start_program;
use std::collections::HashSet;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::thread;
use std::time::{Duration, Instant};

const CLIENTS: usize = 24;
const TRIALS: usize = 8;

/// What came of one request.
#[derive(Debug)]
struct Sent {
    target: String,
    at: Instant,
    got: Got,
}

/// Sends requests until no server is there any more: every third client with
/// a connection for each, the others with one for as long as it is kept.
fn run_client(number: usize, address: SocketAddr, responses: &AtomicUsize) -> Vec<Sent> {
    let mut all = Vec::new();
    loop {
        let Ok(mut client) = Client::connect(address) else {
            let (target, at, got) = (String::new(), Instant::now(), Got::Refused);
            all.push(Sent { target, at, got });
            return all;
        };
        loop {
            let path = if all.len() % 8 == 3 { "/slow" } else { "/" };
            let target = format!("{path}?{number}-{}", all.len());
            // A failure to send shows as a reset, which is what is judged.
            let _ = client.get(&target);
            let at = Instant::now();
            let got = client.receive();
            let goes_on = matches!(&got, Got::Response(response) if !response.close);
            let closed = matches!(&got, Got::Response(response) if response.close);
            all.push(Sent { target, at, got });
            responses.fetch_add(1, Relaxed);
            if closed {
                assert!(client.is_at_end(), "more after the last response");
            }
            if !goes_on || number.is_multiple_of(3) {
                break;
            }
        }
    }
}

/// One stop under load. An error says how the promise was broken.
fn trial(program: &Path, options: &[&str], after: usize) -> Result<String, String> {
    let all = ["--slow", "30ms", "--drain-timeout", "none"];
    let (server, address) = start_program(program, &[&all, options].concat());
    let responses = AtomicUsize::new(0);
    let (sent, stopped_at) = thread::scope(|scope| {
        let clients: Vec<_> = (0..CLIENTS)
            .map(|number| {
                scope.spawn({
                    let responses = &responses;
                    move || run_client(number, address, responses)
                })
            })
            .collect();
        while responses.load(Relaxed) < after {
            thread::sleep(Duration::from_micros(100));
        }
        let stopped_at = Instant::now();
        server.term();
        let sent = clients
            .into_iter()
            .flat_map(|client| client.join().unwrap());
        (sent.collect::<Vec<_>>(), stopped_at)
    });
    let ended = server.wait();
    let numbers = judge(&sent, stopped_at)?;
    if ended.code != Some(0) || ended.stdout.is_empty() {
        return Err(format!("told nothing good: {ended:?}"));
    }
    // Each run has a number of its own; each came back in exactly one
    // response: no request ran twice, or without its response arriving.
    let (requests, answered) = (ended.count("requests"), ended.count("answered"));
    let distinct: HashSet<_> = numbers.iter().collect();
    if distinct.len() != numbers.len() || requests != numbers.len() || answered != requests {
        return Err(format!(
            "{} responses with {} numbers for {requests} requests, {answered} answered",
            numbers.len(),
            distinct.len()
        ));
    }
    assert!(numbers.iter().all(|number| (1..=requests).contains(number)));
    let refused = sent.iter().filter(|sent| matches!(sent.got, Got::Refused));
    let (refused, all) = (refused.count(), sent.len());
    Ok(format!(
        "{answered} of {} answered, {refused} clients refused",
        all - refused
    ))
}

/// Whether every request ended as promised; the numbers of those that ran.
fn judge(sent: &[Sent], stopped_at: Instant) -> Result<Vec<usize>, String> {
    let mut numbers = Vec::new();
    let (mut lost, mut torn) = (0, 0);
    for Sent { target, at, got } in sent {
        let early = *at <= stopped_at;
        match got {
            Got::Response(response) => {
                let number = response.body.strip_prefix("request ");
                let number = number.and_then(|rest| rest.strip_suffix(&format!(": {target}\n")));
                let number = number.ok_or(format!("{target} got {response:?}"))?;
                numbers.push(number.parse().map_err(|_| number.to_owned())?);
            }
            _ if early => lost += 1,
            Got::Reset | Got::Partial => torn += 1,
            // It came after the stop; nobody has read it.
            Got::Nothing | Got::Refused => {}
        }
    }
    if lost + torn == 0 {
        return Ok(numbers);
    }
    Err(format!(
        "{lost} requests sent before the stop got no response, and {torn} sent after it were \
         reset or torn; {} were answered",
        numbers.len()
    ))
}

fn ours() -> PathBuf {
    env!("CARGO_BIN_EXE_http-drain").into()
}

/// The same routes on axum; `cargo test` builds it beside the tests.
fn axum() -> PathBuf {
    let tests = std::env::current_exe().unwrap();
    let target = tests.parent().unwrap().parent().unwrap();
    let path = target.join("examples/http-drain-axum");
    assert!(
        path.exists(),
        "run `cargo build --workspace --examples` first"
    );
    path
}

#[test]
fn every_request_sent_before_the_stop_is_answered_exactly_once() {
    for number in 0..TRIALS {
        match trial(&ours(), &[], 100 + 137 * number) {
            Ok(counts) => println!("trial {number}: {counts}"),
            Err(broken) => panic!("trial {number}: {broken}"),
        }
    }
}

/// Expects the same trial to fail for a program that does it wrong.
fn control(name: &str, program: &Path, options: &[&str]) {
    for number in 0..TRIALS {
        match trial(program, options, 100 + 137 * number) {
            Ok(_) => {}
            Err(broken) => return println!("control {name} breaks it: {broken}"),
        }
    }
    panic!("control {name} kept it in {TRIALS} trials: the test shows nothing");
}

/// The library's part taken out: nobody waits for what is in hand.
#[test]
fn a_server_that_leaves_at_the_stop_loses_requests() {
    control("exit", &ours(), &["--control", "exit"]);
}

#[test]
fn a_counter_that_loads_and_stores_is_caught() {
    control("careless", &ours(), &["--control", "careless"]);
}

/// Why this is not built on axum: its graceful shutdown drops the clients in
/// the accept queue, and closes kept connections whatever is on its way.
#[test]
fn a_framework_that_just_closes_is_caught() {
    control("axum", &axum(), &[]);
}
