//! Two servers that become one.

use super::{local, serve};
use crate::harness::{connect, eventually};
use lastecho::{Echo, Server};
use std::io::{Read, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// In whatever order they are joined.
fn each_looks_at_all(servers: [Server; 3], join: fn(Server, Server, Server) -> Server) {
    let before = servers.each_ref().map(Server::live);
    let own = before.each_ref().map(|live| live.addresses()[0]);
    let [first, second, third] = servers;
    let all = join(first, second, third);
    for live in &before {
        assert_eq!(live.addresses(), own);
    }
    let (report, ()) = serve(
        all,
        |conn| Echo::default().serve(conn),
        |_| {
            let mut clients = own.map(|address| connect(address).unwrap());
            for client in &mut clients {
                client.write_all(b"x").unwrap();
                client.read_exact(&mut [0]).unwrap();
            }
            for live in &before {
                assert_eq!(live.snapshot().len(), clients.len());
                assert_eq!(live.rounds().len(), clients.len());
            }
            drop(clients);
            eventually("their end", || before[2].snapshot().is_empty());
        },
    );
    for live in &before {
        assert_eq!(live.report().accepted, report.accepted);
    }
}

#[test]
fn a_look_that_was_taken_before_servers_were_joined_is_one_at_all_of_them() {
    let servers = || [local(), local(), local()];
    each_looks_at_all(servers(), |one, two, three| one.and(two).and(three));
    each_looks_at_all(servers(), |one, two, three| one.and(two.and(three)));
}

#[test]
fn what_was_set_on_a_server_is_dropped_where_it_joins_another() {
    let told = [(); 2].map(|()| Arc::new(AtomicU64::new(0)));
    let [first, second] = told.each_ref().map(|told| {
        let told = Arc::clone(told);
        local().observe(move |_| {
            told.fetch_add(1, Relaxed);
        })
    });
    let all = first.and(second.stop_after(0));
    serve(
        all,
        |conn| Echo::default().serve(conn),
        |running| {
            let mut client = connect(running.live.addresses()[1]).unwrap();
            client.write_all(b"x").unwrap();
            client.read_exact(&mut [0]).unwrap();
            assert!(!running.stop.is_set());
        },
    );
    let [first, second] = told.map(|told| told.load(Relaxed));
    assert!(first > 0 && second == 0, "{first}, {second}");
}
