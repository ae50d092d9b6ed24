//! Calls on connections that fail again and again, and harm nobody: the
//! connection is late, whole, and does not spin.

use super::observed::{Observed, Seen, assert_unharmed};
use super::strace::{Fault, Hit};
use crate::client::{close, echo};
use crate::harness::{Broken, Program, Server, eventually, promise};
use crate::{is_long, shared, told};
use std::io::Write;
use std::time::Duration;

/// By recv(2) and send(2): a signal, no room or nothing there, no memory.
const PASSING: [&str; 8] = [
    "recvfrom:error=EINTR",
    "recvfrom:error=EAGAIN",
    "recvfrom:error=ENOMEM",
    "recvfrom:error=ENOBUFS",
    "sendto:error=EINTR",
    "sendto:error=EAGAIN",
    "sendto:error=ENOMEM",
    "sendto:error=ENOBUFS",
];

/// What a connection can do without: a thread's name, a line of log, a larger
/// buffer. (Its options it inherits from the listener, without a call.)
const SPARED: [&str; 5] = [
    "prctl:error=EINVAL",
    "sigaltstack:error=ENOMEM",
    "write:error=ENOSPC",
    "write:error=EIO",
    "write:error=EPIPE",
];

/// Calls a second that a thread may make while all fail. Naps let through some
/// 60; where each is tried again at once, strace lets through some 20,000.
const SPIN: f64 = 1000.0;
/// Long enough to measure its processor time.
const LEAST: Duration = Duration::from_millis(300);

fn failures() -> u32 {
    if is_long() { 150 } else { 45 }
}

/// Each thread's next calls fail, so many; whoever comes is served all the same.
/// Returns how many calls a second the quickest thread made.
fn storm(observed: &mut Observed, call: &str) -> Result<f64, Broken> {
    // An end by number: strace that lets go in the middle of an injected call
    // leaves ENOSYS, which is an error like no other.
    let injection = format!("{call}:when=1..{}", failures());
    observed.fault(
        |server| Fault::inject(server, Hit::All, &injection),
        |server, fault| {
            let mut client = server.connect();
            echo(&mut client, call.as_bytes())?;
            // Once its calls work again they go on working.
            echo(&mut client, b"again")?;
            close(client)?;
            let over = || !PASSING.contains(&call) || fault.is_over(failures());
            eventually(call, || {
                fault.injected() > 0 && fault.lasts() > LEAST && over()
            });
            Ok(fault.quickest(failures()).unwrap_or(0.0))
        },
    )
}

fn finish(observed: Observed, clients: u64) -> Result<Seen, Broken> {
    let (seen, ended) = observed.stop()?;
    assert_unharmed(&ended);
    assert_eq!(ended.count("accepted"), 1 + clients, "{ended:?}");
    Ok(seen)
}

#[test]
#[ignore = "drives strace: make test"]
fn storms_of_passing_errors_delay_every_byte_and_lose_none() {
    let _machine = shared();
    let lost = |broken: &Broken| !matches!(broken, Broken::TooLong(_) | Broken::NotTold(_));
    promise("passing errors", 1, lost, |program| {
        let mut observed = Observed::start(program, &["--poll", "200ms"]);
        for call in PASSING {
            let rate = storm(&mut observed, call)?;
            println!("{call}: {rate:.0} calls a second by {program:?}");
            let calm = rate > 0.0 && rate < SPIN;
            assert!(calm || program == Program::Control, "{call}: a spin");
        }
        let seen = finish(observed, PASSING.len() as u64)?;
        seen.assert_calm();
        assert_eq!(seen.lines, 0, "{seen:?}");
        let fault = "recvfrom and sendto fail in storms: EINTR, EAGAIN, ENOMEM, ENOBUFS (strace)";
        told(fault, "every byte, late; no spin", &seen.in_words());
        Ok(())
    });
}

#[test]
#[ignore = "drives strace: make test"]
fn what_a_connection_can_do_without_may_fail() {
    let _machine = shared();
    let mut observed = Observed::start(Program::Lastecho, &["--poll", "200ms", "-v"]);
    for call in SPARED {
        storm(&mut observed, call).unwrap_or_else(|broken| panic!("{call}: {broken}"));
        observed.await_calm();
    }
    let seen = finish(observed, SPARED.len() as u64).unwrap_or_else(|broken| panic!("{broken}"));
    seen.assert_calm();
    let fault = "prctl, sigaltstack and the log's write fail (strace)";
    told(fault, "everybody is served all the same", &seen.in_words());
}

/// The program's own signals come by a pipe whose reads fail, too.
#[test]
#[ignore = "drives strace: make test"]
fn a_stop_is_heard_after_every_read_has_failed() {
    let _machine = shared();
    for error in ["ENOMEM", "EINTR", "EIO"] {
        let mut server = Server::start(Program::Lastecho, &[]);
        let injection = format!("recvfrom:error={error}:when=1..40");
        let fault = Fault::inject(server.pid(), Hit::All, &injection);
        server.signal(rustix::process::Signal::USR1);
        server.await_log("live: 0 connections");
        assert!(fault.lift().injected > 0, "{error}");
        let mut client = server.connect();
        client.write_all(b"still here").unwrap();
        let ended = server.stop();
        assert_eq!(ended.code(), Some(0), "{ended:?}");
        assert_eq!(ended.count("bytes_out"), 10, "{ended:?}");
    }
    told(
        "reads of the signals' own pipe fail (strace)",
        "signals are still acted on",
        "USR1 during the fault and TERM after it, 3 of 3",
    );
}
