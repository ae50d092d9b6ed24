//! A storm of connects through many restarts, ended by a stop.

use super::family::{Family, sum};
use crate::harness::{Kept, Program, Server, eventually};
use crate::storm::{CLIENTS, come_and_go};
use rustix::process::{Signal, kill_process};
use std::cell::Cell;
use std::fs;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::thread;

const HANDOVERS: usize = 50;
/// Connections that must be served while one hands over and drains.
const WITHIN: u64 = 100;

/// Lets a storm rage while `events` happen, then ends it with `stop`.
fn storm(
    address: SocketAddr,
    events: impl FnOnce(&AtomicU64),
    stop: impl FnOnce(),
) -> (u64, Vec<Kept>) {
    let (served, ending) = (AtomicU64::new(0), AtomicBool::new(false));
    let kept = thread::scope(|scope| {
        let (served, ending) = (&served, &ending);
        let clients: Vec<_> = (0..CLIENTS)
            .map(|number| scope.spawn(move || come_and_go(address, number, served, ending)))
            .collect();
        events(served);
        ending.store(true, SeqCst);
        stop();
        clients.into_iter().map(|c| c.join().unwrap()).collect()
    });
    (served.into_inner(), kept)
}

fn await_served(served: &AtomicU64, more: u64) {
    let enough = served.load(SeqCst) + more;
    eventually("enough were served", || served.load(SeqCst) >= enough);
}

#[test]
fn fifty_handovers_in_a_storm_lose_nothing() {
    let mut family = Family::start(&["--poll", "100ms", "127.0.0.1:0"]);
    let address = family.address();
    let (youngest, least) = (Cell::new(family.youngest()), Cell::new(u64::MAX));
    let events = |served: &AtomicU64| {
        await_served(served, WITHIN);
        for _ in 0..HANDOVERS {
            let before = served.load(SeqCst);
            let predecessor = family.youngest();
            youngest.set(family.hand_over());
            assert_eq!(family.wait(predecessor).exit_status(), Some(0));
            let within = served.load(SeqCst) - before;
            least.set(least.get().min(within));
            await_served(served, WITHIN.saturating_sub(within));
        }
    };
    let stop = || kill_process(youngest.get(), Signal::TERM).unwrap();
    let (served, kept) = storm(address, events, stop);
    kept.into_iter().collect::<Kept>().unwrap();
    let told = family.stop();
    assert_eq!(told.len(), HANDOVERS + 1);
    println!(
        "{served} served by {} processes, at least {} in each handover",
        told.len(),
        least.get()
    );
    for key in ["cut", "refused", "reset", "bytes_lost"] {
        assert_eq!(sum(&told, key), 0, "{key}: {told:?}");
    }
    // The storm counts those that it has seen through to the end.
    assert!(sum(&told, "accepted") >= served);
    assert_eq!(sum(&told, "bytes_in"), sum(&told, "bytes_out"));
}

/// Whether it ends, holds the sockets, or is never ready: the old one serves on.
#[test]
fn fifty_successors_that_fail_in_a_storm_lose_nothing() {
    let options = ["--poll", "100ms", "--handover-timeout", "300ms"];
    let family = Family::start(&[&options[..], &["127.0.0.1:0"]].concat());
    let spoil: [fn(&Family); 5] = [
        |family| family.replace("#!/bin/sh\nexit 7"),
        |family| family.replace("#!/bin/sh\nkill -SEGV $$"),
        |family| family.replace("#!/bin/sh\nexec sleep 600"),
        |family| {
            family.replace("#!/bin/sh\nexit 0");
            fs::set_permissions(family.program(), PermissionsExt::from_mode(0o644)).unwrap();
        },
        |family| fs::remove_file(family.program()).unwrap(),
    ];
    let events = |served: &AtomicU64| {
        for spoil in spoil.iter().cycle().take(HANDOVERS) {
            await_served(served, WITHIN);
            spoil(&family);
            family.fail_to_hand_over();
            family.restore();
        }
    };
    let stop = || family.signal(Signal::TERM);
    let (served, kept) = storm(family.address(), events, stop);
    kept.into_iter().collect::<Kept>().unwrap();
    let told = family.stop();
    println!("{served} served by {} process", told.len());
    assert_eq!(told.len(), 1);
    for key in ["cut", "refused", "reset", "bytes_lost"] {
        assert_eq!(sum(&told, key), 0, "{key}: {told:?}");
    }
}

/// The control: a stop and a start instead, as fast as that goes.
#[test]
fn a_stop_and_a_start_in_a_storm_are_noticed() {
    let options = ["--poll", "100ms"];
    let first = Server::start(Program::Lastecho, &options);
    let address = first.address();
    let second = Cell::new(None);
    let events = |served: &AtomicU64| {
        await_served(served, WITHIN);
        first.stop();
        let address = address.to_string();
        second.set(Some(Server::listening_on(
            Program::Lastecho,
            &[&address],
            &options,
        )));
    };
    let (_, kept) = storm(address, events, || {
        second.take().unwrap().stop();
    });
    let broken = kept.iter().filter(|kept| kept.is_err()).count();
    println!("{broken} of {CLIENTS} clients noticed: {kept:?}");
    assert!(broken > 0, "this storm shows nothing");
}
