//! Senders that never stop, through the drain.

use super::{COST, SLACK, assert_sums};
use crate::gauge::{Gauge, kib};
use crate::harness::{Ended, Program, Server, WATCHDOG, connect, eventually};
use crate::{alone, told};
use rustix::process::Signal;
use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::thread;
use std::time::{Duration, Instant};

const CLIENTS: usize = 20;

/// Goes on sending on all, and reads what comes back, until `over`; the FIN of
/// the server does not impress it. It counts what it got.
fn flood(mut clients: Vec<TcpStream>, over: &AtomicBool, got: &AtomicU64) {
    let (out, mut bin) = ([b'x'; 16 * 1024], [0; 64 * 1024]);
    let patience = Instant::now() + WATCHDOG;
    while !over.load(Relaxed) && !clients.is_empty() {
        assert!(Instant::now() < patience, "the flood is never over");
        clients.retain_mut(|client| {
            let sent = client.write(&out);
            let read = client.read(&mut bin);
            got.fetch_add(*read.as_ref().unwrap_or(&0) as u64, Relaxed);
            let goes_on = |error: std::io::Error| error.kind() == ErrorKind::WouldBlock;
            sent.map_or_else(goes_on, |_| true) && read.map_or_else(goes_on, |_| true)
        });
        thread::sleep(Duration::from_millis(1)); // leaves the server some processor
    }
}

/// Floods a server, asks it to stop, and does `meanwhile` what it says. What
/// was told, and the memory of each at the time of the signal.
fn flooded(options: &[&str], meanwhile: impl FnOnce(&mut Server)) -> (Ended, u64) {
    let mut server = Server::start(Program::Lastecho, options);
    let gauge = Gauge::of(&server);
    let before = gauge.memory();
    let (over, got) = (AtomicBool::new(false), AtomicU64::new(0));
    let client = |_| {
        let client = connect(server.address()).unwrap();
        client.set_nonblocking(true).unwrap();
        client
    };
    let clients = (0..CLIENTS).map(client).collect();
    thread::scope(|scope| {
        scope.spawn(|| flood(clients, &over, &got));
        eventually("a flood", || got.load(Relaxed) > 10 << 20);
        let memory = (gauge.memory() - before) / CLIENTS as u64;
        server.signal(Signal::TERM);
        meanwhile(&mut server);
        let ended = server.wait();
        over.store(true, Relaxed);
        (ended, memory)
    })
}

#[test]
fn senders_that_never_stop_are_cut_at_the_drain_deadline() {
    let _machine = alone();
    let drain = Duration::from_secs(1);
    let (ended, memory) = flooded(&["--drain-timeout", "1s"], |_| {});
    assert_sums(&ended);
    assert_eq!(ended.code(), Some(3), "{ended:?}");
    // One that was not let run for a while ends in order.
    let counted = ended.count("cut") + ended.count("drained");
    assert_eq!(counted, CLIENTS as u64, "{ended:?}");
    assert!(
        ended.took >= drain && ended.took < drain + SLACK,
        "{ended:?}"
    );
    assert!(memory < COST, "{}", kib(memory));
    // The control: without a deadline it goes on, until a second signal.
    let (control, _) = flooded(&["--drain-timeout", "none"], |server| {
        thread::sleep(2 * drain);
        assert!(server.is_running(), "it stopped without a deadline");
        server.signal(Signal::TERM);
    });
    assert!(control.count("cut") > 0, "{control:?}");
    told(
        &format!("{CLIENTS} senders that never stop, through the drain"),
        "cut at the drain deadline (here 1 s), one buffer each",
        &format!(
            "{} cut, the stop took {:.2?}, {} of memory each, {} bytes discarded after FIN; without a \
             deadline it went on until a second signal",
            ended.count("cut"),
            ended.took,
            kib(memory),
            ended.count("discarded"),
        ),
    );
}
