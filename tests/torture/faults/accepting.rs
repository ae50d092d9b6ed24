//! accept4 that fails, with every error that accept(2) lists and more.

use super::observed::{Observed, Seen, assert_unharmed};
use super::strace::{Fault, Hit};
use crate::client::{close, echo, has_heard, hear};
use crate::harness::{Broken, Program, eventually, promise};
use crate::{is_long, shared, told};
use std::thread;
use std::time::Duration;

/// Every error of accept(2), the network's errors that it passes on, EINTR, and
/// three that nobody expects. Whatever it is: clients wait in the queue.
const ERRORS: [&str; 20] = [
    "EMFILE",
    "ENFILE",
    "ENOMEM",
    "ENOBUFS",
    "ECONNABORTED",
    "EPROTO",
    "ENETDOWN",
    "ENOPROTOOPT",
    "EHOSTDOWN",
    "ENONET",
    "EHOSTUNREACH",
    "EOPNOTSUPP",
    "ENETUNREACH",
    "EPERM",
    "ETIMEDOUT",
    "EINTR",
    "EAGAIN",
    "EIO",
    "EINVAL",
    "ENOSYS",
];

/// Failing accepts that only a server that spins gets through.
const MANY: usize = 10_000;

/// How long each fault lasts.
fn each() -> Duration {
    Duration::from_millis(if is_long() { 4000 } else { 200 })
}

/// Each error in turn on one server, with clients who come while it lasts.
fn trial(program: Program, errors: &[&str]) -> Result<Seen, Broken> {
    let mut observed = Observed::start(program, &["--poll", "200ms"]);
    for error in errors {
        if program == Program::Lastecho {
            observed.await_calm();
        }
        let fault = format!("accept4:error={error}");
        let clients = observed.fault(
            |server| Fault::inject(server, Hit::All, &fault),
            |server, fault| {
                // The call in which it was when the fault began may go well.
                eventually("a failure", || fault.injected() > 0);
                let mut clients: Vec<_> = (0..3).map(|_| server.connect()).collect();
                for client in &mut clients {
                    std::io::Write::write_all(client, error.as_bytes()).unwrap();
                }
                thread::sleep(each());
                let waits = clients.iter().all(|client| !has_heard(client));
                assert!(
                    waits || program == Program::Control,
                    "{error}: somebody was served"
                );
                clients
            },
        );
        for mut client in clients {
            hear(&mut client, error.as_bytes())?;
            close(client)?;
        }
        echo(&mut observed.server.connect(), error.as_bytes())?;
    }
    let (seen, ended) = observed.stop()?;
    if program == Program::Lastecho {
        let accepted = 1 + 4 * errors.len() as u64;
        assert_unharmed(&ended);
        assert_eq!(ended.count("accepted"), accepted, "{ended:?}");
    }
    Ok(seen)
}

#[test]
#[ignore = "drives strace: make test"]
fn accept_fails_with_every_error_and_everybody_is_served_afterwards() {
    let _machine = shared();
    // It ends at the first error, and its clients see the end.
    let died = |broken: &Broken| !matches!(broken, Broken::TooLong(_) | Broken::NotTold(_));
    promise("accept fails", 1, died, |program| match program {
        Program::Control => trial(program, &["EMFILE"]).map(drop),
        Program::Lastecho => {
            let seen = trial(program, &ERRORS)?;
            seen.assert_calm();
            seen.assert_quiet();
            told(
                "accept4 fails with each of 20 errors (strace)",
                "clients wait, are served afterwards; under 5 % of a core",
                &seen.in_words(),
            );
            Ok(())
        }
    });
}

/// That the measures of spinning can be exceeded: the control tries again at once.
#[test]
#[ignore = "drives strace: make test"]
fn a_server_that_spins_on_failing_accepts_is_caught() {
    let _machine = shared();
    let mut observed = Observed::start(Program::Control, &["--poll", "200ms"]);
    observed.fault(
        // So many failures, because it would not survive being let go among them.
        |server| {
            Fault::inject(
                server,
                Hit::All,
                &format!("accept4:error=EINTR:when=1..{MANY}"),
            )
        },
        |server, fault| {
            echo(&mut server.connect(), b"at last").unwrap();
            // With naps they would take longer than this waits.
            eventually("all failures", || fault.injected() >= MANY);
        },
    );
    let (seen, _) = observed.stop().unwrap();
    println!("the control: {seen:?}");
    assert!(seen.injected >= MANY, "{seen:?}");
}
