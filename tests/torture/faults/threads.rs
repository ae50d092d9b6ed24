//! Threads and memory that cannot be had: clone3, mmap, mprotect, brk.

use super::observed::{Observed, Seen, assert_unharmed};
use super::strace::{Fault, Hit};
use crate::client::{close, echo, has_heard, hear};
use crate::harness::{Broken, Program};
use crate::{is_long, shared, told};
use std::io::Write;
use std::thread;
use std::time::Duration;

/// What becomes of clients who come while it lasts.
#[derive(Clone, Copy, PartialEq)]
enum New {
    /// The thread that waits takes the first; the others wait in the queue.
    Wait,
    /// There is another way.
    Served,
}

/// By clone(2), mmap(2), mprotect(2), brk(2) and pthread_create(3).
const FAULTS: [(&str, New); 13] = [
    ("clone3:error=EAGAIN", New::Wait),
    ("clone3:error=ENOMEM", New::Wait),
    ("clone3:error=EPERM", New::Wait),
    ("clone3:error=EINTR", New::Wait),
    // The C library takes clone(2) instead.
    ("clone3:error=ENOSYS", New::Served),
    ("mmap:error=ENOMEM", New::Wait),
    ("mmap:error=EAGAIN", New::Wait),
    ("mmap:error=ENFILE", New::Wait),
    ("mmap:error=EPERM", New::Wait),
    ("mmap:error=EINTR", New::Wait),
    ("mprotect:error=ENOMEM", New::Wait),
    ("mprotect:error=EACCES", New::Wait),
    ("munmap:error=ENOMEM", New::Wait),
];

fn trial(faults: &[(&str, New)]) -> Result<Seen, Broken> {
    let lasting = Duration::from_millis(if is_long() { 4000 } else { 300 });
    let mut observed = Observed::start(Program::Lastecho, &["--poll", "200ms"]);
    for (injection, new) in faults {
        observed.await_calm();
        let clients = observed.fault(
            |server| Fault::inject(server, Hit::All, injection),
            |server, fault| {
                let mut clients: Vec<_> = (0..4).map(|_| server.connect()).collect();
                for client in &mut clients {
                    client.write_all(injection.as_bytes()).unwrap();
                }
                thread::sleep(lasting);
                assert!(fault.injected() > 0, "{injection}: nothing was injected");
                let waits = clients.iter().any(|client| !has_heard(client));
                if *new == New::Wait {
                    assert!(waits, "{injection}: a thread was had");
                }
                if *new == New::Served {
                    for client in &mut clients {
                        hear(client, injection.as_bytes()).unwrap();
                    }
                    return Vec::new();
                }
                clients
            },
        );
        for mut client in clients {
            hear(&mut client, injection.as_bytes())?;
            close(client)?;
        }
        echo(&mut observed.server.connect(), injection.as_bytes())?;
    }
    let (seen, ended) = observed.stop()?;
    assert_unharmed(&ended);
    Ok(seen)
}

#[test]
#[ignore = "drives strace: make test"]
fn without_threads_and_memory_clients_wait_and_are_served_afterwards() {
    let _machine = shared();
    let seen = trial(&FAULTS).unwrap_or_else(|broken| panic!("{broken}"));
    seen.assert_calm();
    seen.assert_quiet();
    told(
        "clone3, mmap and mprotect fail with each of their errors (strace)",
        "clients wait, are served afterwards; under 5 % of a core",
        &seen.in_words(),
    );
}
