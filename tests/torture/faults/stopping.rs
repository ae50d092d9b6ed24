//! A stop while calls fail: it still ends in time, with nothing lost.

use super::strace::{Fault, Hit};
use crate::client::{echo, hear};
use crate::harness::{Broken, Program, Server, eventually, promise, read_to_end};
use crate::{assert_none, shared, told};
use rustix::process::Signal;
use std::io::Write;
use std::time::Duration;

/// What a stop does for the first time, or does while memory is short.
const FAULTS: [&str; 9] = [
    // Refusing new clients.
    "setsockopt:error=ENOPROTOOPT",
    "setsockopt:error=EPERM",
    // Waking the signals' thread.
    "sendto:error=ENOBUFS:when=1..40",
    // Waiting for the peer's FIN.
    "ppoll:error=EINTR",
    "ppoll:error=ENOMEM",
    "recvfrom:error=EINTR:when=1..60",
    "recvfrom:error=ENOMEM",
    "recvfrom:error=ENOBUFS",
    "accept4:error=EMFILE",
];

/// A stop under this fault, of two idle clients and one in a request.
fn stop_under(program: Program, injection: &str) -> Result<Duration, Broken> {
    let options = ["-vv", "--poll", "200ms", "--delay", "400ms"];
    let mut server = Server::start(
        program,
        &[&options[..], &["--drain-timeout", "30s"]].concat(),
    );
    let mut idle = [server.connect(), server.connect()];
    for client in &mut idle {
        echo(client, b"before")?;
    }
    let mut busy = server.connect();
    busy.write_all(b"in hand").unwrap();
    if program == Program::Lastecho {
        server.await_log("connection 3: 7 bytes");
    }
    let fault = Fault::inject(server.pid(), Hit::All, injection);
    server.signal(Signal::TERM);
    hear(&mut busy, b"in hand")?;
    for mut client in idle.into_iter().chain([busy]) {
        let more = read_to_end(&mut client)?;
        assert!(more.is_empty(), "{injection}: {} bytes more", more.len());
    }
    let ended = server.wait();
    if ended.told.is_empty() {
        return Err(Broken::Died(ended.stderr));
    }
    assert!(fault.injected() > 0, "{injection}: nothing was injected");
    assert_eq!(ended.code(), Some(0), "{injection}: {ended:?}");
    assert_eq!(ended.count("bytes_out"), 19, "{injection}: {ended:?}");
    assert_none(&ended, &["bytes_lost", "failed", "reset", "refused", "cut"]);
    Ok(Duration::from_millis(ended.count("elapsed_ms")))
}

#[test]
#[ignore = "drives strace: make test"]
fn a_stop_ends_in_order_whatever_call_fails_meanwhile() {
    let _machine = shared();
    let ends = |broken: &Broken| !matches!(broken, Broken::TooLong(_) | Broken::NotTold(_));
    promise("a stop under faults", 1, ends, |program| match program {
        Program::Control => stop_under(program, "recvfrom:error=ENOMEM").map(drop),
        Program::Lastecho => {
            let mut longest = Duration::ZERO;
            for injection in FAULTS {
                longest = longest.max(stop_under(program, injection)?);
            }
            told(
                "calls fail during a stop, 9 ways (strace)",
                "status 0, what is in hand is answered, FIN for everybody, all within 30 s",
                &format!("{} stops, the longest {longest:.1?}", FAULTS.len()),
            );
            Ok(())
        }
    });
}

#[test]
#[ignore = "drives strace: make test"]
fn clients_that_cannot_be_accepted_by_the_deadline_are_told() {
    let _machine = shared();
    let options = ["--poll", "200ms", "--drain-timeout", "1s"];
    let server = Server::start(Program::Lastecho, &options);
    let fault = Fault::inject(server.pid(), Hit::All, "accept4:error=EMFILE");
    eventually("a failure", || fault.injected() > 0);
    let _waiting = [server.connect(), server.connect(), server.connect()];
    let ended = server.stop();
    assert_eq!(ended.code(), Some(3), "{ended:?}");
    // Nobody can count those whom nobody can accept.
    assert!((1..=3).contains(&ended.count("refused")), "{ended:?}");
    assert!(ended.stderr.lines().count() < 10, "{ended:?}");
    told(
        "accept4 fails until the drain deadline, 3 clients in the queue (strace)",
        "the deadline holds; status 3, refused is told",
        &format!(
            "refused={} after {:.1?}",
            ended.count("refused"),
            ended.took
        ),
    );
}
