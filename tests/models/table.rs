//! The live table: nobody beyond the limit, everybody in the sums, every wait
//! woken.

use super::{LONG, explore, must_break};
use crate::event::Outcome;
use crate::stop::Stop;
use crate::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use crate::sync::{Arc, thread};
use crate::table::{Admission, Limits, Room, Table};
use crate::terms::Terms;
use socket2::{Domain, Socket, Type};
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

fn terms() -> Arc<Terms> {
    Arc::new(Terms::new(&Stop::new(), LONG))
}

fn table(served: usize, per_peer: Option<usize>) -> Arc<Table> {
    let table = Arc::new(Table::default());
    table.set_limits(Limits { served, hard: 100 }, per_peer);
    table
}

/// One thread's work for one client, as the crew does it: a turn in accept,
/// entered, served, gone. Returns false where accepting has ended.
fn serve_one(table: &Table, terms: &Arc<Terms>, serving: &AtomicUsize, most: usize) -> bool {
    match table.await_turn(0, LONG) {
        Room::Full => panic!("a long wait timed out"),
        Room::Closed => return false,
        Room::Free => {}
    }
    // Connected, for what its peer has closed is no share.
    let (socket, _client) = Socket::pair(Domain::UNIX, Type::STREAM, None).unwrap();
    table.return_turn(0, true);
    let peer = SocketAddr::from((Ipv4Addr::LOCALHOST, 1));
    match table.enter(socket.into(), peer, terms) {
        Admission::Served(link) => {
            assert!(serving.fetch_add(1, SeqCst) < most, "beyond the limit");
            thread::sleep(Duration::ZERO); // others may run
            serving.fetch_sub(1, SeqCst);
            table.release(&link);
            table.leave(&link, Outcome::Ended);
        }
        Admission::Limited(link) => {
            table.leave(&link, Outcome::Limited);
        }
        Admission::Exceeding(_) => {}
    }
    true
}

fn serve_three_at_most(served: usize, per_peer: Option<usize>, most: usize) -> Arc<Table> {
    let (table, terms) = (table(served, per_peer), terms());
    let serving = Arc::new(AtomicUsize::new(0));
    for _ in 0..3 {
        table.thread_starts();
        let (table, terms) = (Arc::clone(&table), Arc::clone(&terms));
        let serving = Arc::clone(&serving);
        thread::spawn(move || {
            serve_one(&table, &terms, &serving, most);
            table.thread_ended();
        });
    }
    assert!(table.await_threads(LONG));
    assert_eq!(table.len(), 0);
    table
}

#[test]
fn three_clients_share_one_slot_and_all_are_served() {
    explore(2_000, || {
        let report = serve_three_at_most(1, None, 1).report();
        assert_eq!((report.accepted, report.limited), (3, 0));
    });
}

#[test]
fn of_one_peer_no_more_than_its_share_is_served() {
    explore(2_000, || {
        let report = serve_three_at_most(3, Some(1), 1).report();
        assert_eq!(report.accepted + report.limited, 3);
        assert!(report.accepted >= 1);
    });
}

#[test]
fn whoever_waits_for_room_is_told_of_the_end() {
    explore(2_000, || {
        let (table, terms) = (table(1, None), terms());
        let serving = Arc::new(AtomicUsize::new(0));
        let threads: Vec<_> = (0..2)
            .map(|_| {
                let (table, terms) = (Arc::clone(&table), Arc::clone(&terms));
                let serving = Arc::clone(&serving);
                thread::spawn(move || {
                    while serve_one(&table, &terms, &serving, 1) {
                        if table.report().accepted >= 2 {
                            table.close();
                        }
                    }
                })
            })
            .collect();
        threads
            .into_iter()
            .for_each(|thread| thread.join().unwrap());
        assert!(table.report().accepted >= 2);
    });
}

/// Invariant 1 broken: each thread counts itself.
#[test]
fn a_thread_that_counts_itself_in_is_missed() {
    must_break(1_000, || {
        let table = table(1, None);
        let done = Arc::new(AtomicUsize::new(0));
        for _ in 0..2 {
            let (table, done) = (Arc::clone(&table), Arc::clone(&done));
            thread::spawn(move || {
                table.thread_starts();
                done.fetch_add(1, SeqCst);
                table.thread_ended();
            });
        }
        assert!(table.await_threads(LONG));
        assert_eq!(done.load(SeqCst), 2);
    });
}
