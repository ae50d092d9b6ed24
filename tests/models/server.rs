//! A whole server, real sockets included: clients that connected before, at
//! and after the stop are all accounted for.

use super::{run, schedules};
use crate::connection::Connection;
use crate::event::Event;
use crate::server::Server;
use crate::stop::Stop;
use crate::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use crate::sync::{Arc, thread};
use shuttle::rand::{Rng, thread_rng};
use shuttle::scheduler::RandomScheduler;
use std::io;
use std::net::TcpStream;
use std::time::Duration;

const TICK: Duration = Duration::from_millis(1);

/// Clients come from two threads while the stop falls, threads cannot always
/// be started, one handler panics: the report's sums fit, the run ends, and
/// whatever began by then was told to be over.
fn clients_and_a_stop() {
    let (stop, served) = (Stop::new(), Arc::new(AtomicUsize::new(0)));
    let server = Server::bind("127.0.0.1:0").unwrap();
    let address = server.live().addresses()[0];
    let server = server.poll(TICK).accept_grace(TICK).max_connections(2);
    let balance = Arc::new(AtomicUsize::new(0));
    let told = Arc::clone(&balance);
    let server = server.observe(move |event| {
        let change = match event {
            Event::Accepted { .. } | Event::ThreadStarted => 1,
            Event::Closed { .. } | Event::ThreadRetired => usize::MAX, // less one
            _ => 0,
        };
        told.fetch_add(change, SeqCst);
    });
    let (stops, handled) = (stop.clone(), Arc::clone(&served));
    let clients = thread::spawn(move || {
        let clients: Vec<_> = (0..3)
            .filter_map(|_| TcpStream::connect(address).ok())
            .collect();
        match thread_rng().gen_bool(0.5) {
            true => stops.set(),
            false => stops.cut(),
        }
        clients.len()
    });
    let report = server.run(&stop, move |_: &mut Connection| -> io::Result<()> {
        match handled.fetch_add(1, SeqCst) {
            1 => panic!("the second client's handler"),
            _ => Ok(()),
        }
    });
    let connected = clients.join().unwrap() as u64;
    assert_eq!(balance.load(SeqCst), 0);
    // An error only where not even the first thread could be started.
    if let Ok(report) = report {
        assert_eq!(report.accepted, served.load(SeqCst) as u64);
        let ended = report.accepted + report.refused;
        assert!(ended <= connected, "{report}");
        assert!(report.refused > 0 || ended == connected, "{report}");
    }
}

#[test]
fn every_client_is_served_or_refused_and_counted() {
    run(RandomScheduler::new(schedules(100)), clients_and_a_stop);
}
