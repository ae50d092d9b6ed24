//! Clients that never cease to send cannot prolong a stop.

use super::{local, serve};
use crate::harness::{WATCHDOG, eventually, noise};
use lastecho::{Connection, Echo, Ending, Stop};
use std::io::{self, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::thread;
use std::time::{Duration, Instant};

/// Sends for ever; how many bytes it got back at the end.
fn flood(client: TcpStream, wait_for_us: &Stop) -> u64 {
    let mut reader = client.try_clone().unwrap();
    thread::scope(|scope| {
        scope.spawn(|| {
            let block = noise(16 * 1024, 7);
            while !wait_for_us.is_set() && (&client).write_all(&block).is_ok() {}
            let _ = client.shutdown(Shutdown::Write);
        });
        io::copy(&mut reader, &mut io::sink()).unwrap_or(0)
    })
}

#[test]
fn a_client_that_sends_for_ever_does_not_prolong_a_stop() {
    let (seen_end, returned) = (Stop::new(), AtomicBool::new(false));
    let handler = |conn: &mut Connection| {
        let outcome = Echo::default().serve(conn);
        assert_eq!(conn.ending(), Some(Ending::Stopped));
        returned.store(true, SeqCst);
        outcome
    };
    let server = local().drain_timeout(WATCHDOG);
    let (report, before) = serve(server, handler, |running| {
        thread::scope(|scope| {
            let client = running.connect();
            scope.spawn(|| {
                flood(client, &seen_end);
            });
            let received = || {
                running
                    .live
                    .snapshot()
                    .first()
                    .map_or(0, |one| one.received)
            };
            eventually("a flood", || received() > 1 << 20);
            running.stop.set();
            let (before, since) = (received(), Instant::now());
            eventually("the handler's end", || returned.load(SeqCst));
            assert!(since.elapsed() < WATCHDOG / 4);
            // Our FIN is out; it goes on for a while, then looks at it.
            seen_end.set();
            before
        })
    });
    assert!(report.is_clean() && report.drained == 1, "{report}");
    assert_eq!(report.received, report.sent, "{report}");
    // Not more than the buffers of a connection can have held at the stop.
    assert!(report.received - before < 64 << 20, "{before}, {report}");
}

#[test]
fn a_client_that_sends_past_our_end_is_cut_at_the_deadline() {
    let never = Stop::new();
    let grace = Duration::from_millis(500);
    let server = local().drain_timeout(grace);
    let (report, ()) = serve(
        server,
        |conn| Echo::default().serve(conn),
        |running| {
            thread::scope(|scope| {
                let client = running.connect();
                scope.spawn(|| flood(client, &never));
                let flooded = || {
                    running
                        .live
                        .snapshot()
                        .iter()
                        .any(|one| one.received > 1 << 20)
                };
                eventually("a flood", flooded);
                running.stop.set();
                eventually("its end", || running.live.snapshot().is_empty());
            });
        },
    );
    assert_eq!((report.accepted, report.cut), (1, 1), "{report}");
    assert!(report.elapsed >= grace && report.elapsed < grace + WATCHDOG / 4);
}
