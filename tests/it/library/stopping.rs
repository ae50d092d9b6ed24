//! Stops from everywhere and at any time.

use super::{Watchdog, alone, ask, echo_lines, local, serve, serve_until};
use crate::harness::{WATCHDOG, connect, eventually, read_to_end};
use lastecho::{Connection, Deadline, Event, Server, Stop};
use std::io::{ErrorKind, Write};
use std::net::{Shutdown, TcpListener};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::sync::mpsc::channel;
use std::thread;
use std::time::Duration;

#[test]
fn clients_that_were_queued_when_a_set_stop_meets_run_are_served() {
    let stop = Stop::new();
    stop.set();
    let _watchdog = Watchdog::new();
    let server = local();
    let address = server.live().addresses()[0];
    let clients = (0..20).map(|number| {
        let mut client = connect(address).unwrap();
        if number > 0 {
            writeln!(client, "client {number}").unwrap();
        } // the first one says nothing
        client
    });
    let clients: Vec<_> = clients.collect();
    let report = server.run(&stop, echo_lines).unwrap();
    for (number, mut client) in clients.into_iter().enumerate() {
        let expected = if number > 0 {
            format!("client {number}\n")
        } else {
            String::new()
        };
        let heard = read_to_end(&mut client).unwrap_or_else(|broken| panic!("{broken}"));
        assert_eq!(String::from_utf8_lossy(&heard), expected);
    }
    assert!(report.is_clean(), "{report}");
    assert_eq!((report.accepted, report.drained), (20, 20), "{report}");
    assert_eq!(
        connect(address).unwrap_err().kind(),
        ErrorKind::ConnectionRefused
    );
    // The control: the flag looked at before accepting, then a plain close.
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut client = connect(listener.local_addr().unwrap()).unwrap();
    client.write_all(b"client\n").unwrap();
    while !stop.is_set() {
        listener.accept().unwrap();
    }
    drop(listener);
    let broken = read_to_end(&mut client).expect_err("the control serves what it should reset");
    println!("control: {broken}");
}

/// The log says what it will do, not what it would have done.
#[test]
fn a_deadline_that_is_set_after_the_stop_was_seen_is_told() {
    let (told, hear) = channel();
    let server = local().drain_timeout(None).observe(move |event| {
        if let Event::Draining { deadline, .. } = event {
            let _ = told.send(*deadline);
        }
    });
    let (report, ()) = serve(server, echo_lines, |running| {
        let mut client = running.connect();
        client.write_all(b"half a li").unwrap();
        let in_hand = || running.live.snapshot().iter().any(|one| one.received > 0);
        eventually("it in hand", in_hand);
        running.stop.set();
        let first = hear.recv_timeout(WATCHDOG).unwrap();
        assert_eq!(first, Deadline::NEVER);
        running.stop.set_by(Deadline::after(10 * WATCHDOG));
        let is_told = |deadline: Deadline| deadline != Deadline::NEVER;
        // What is said next may have been on its way.
        let next = [(); 2].map(|()| hear.recv_timeout(WATCHDOG).unwrap());
        assert!(next.into_iter().any(is_told), "{next:?}");
        client.write_all(b"ne\n").unwrap();
        assert_eq!(read_to_end(&mut client).unwrap(), b"half a line\n");
    });
    assert!(report.is_clean(), "{report}");
}

#[test]
fn a_cut_that_meets_run_refuses_who_is_queued() {
    let stop = Stop::new();
    stop.cut();
    let _watchdog = Watchdog::new();
    let server = local();
    let mut client = connect(server.live().addresses()[0]).unwrap();
    client.write_all(b"never heard\n").unwrap();
    let report = server.run(&stop, echo_lines).unwrap();
    assert_eq!((report.accepted, report.refused), (0, 1), "{report}");
    assert!(!report.is_clean(), "{report}");
    assert_eq!(read_to_end(&mut client).unwrap(), b"");
}

#[test]
fn setting_a_stop_twice_is_setting_it_once() {
    let (report, ()) = serve(local(), echo_lines, |running| {
        let mut client = running.connect();
        assert_eq!(ask(&mut client, "hello\n"), "hello\n");
        running.stop.set();
        running.stop.clone().set();
        assert_eq!(read_to_end(&mut client).unwrap(), b"");
        running.stop.set();
    });
    assert!(report.is_clean() && report.drained == 1, "{report}");
}

#[test]
fn a_handler_can_set_the_stop_and_still_answers() {
    let stop = Stop::new();
    let handler = |conn: &mut Connection| {
        stop.set();
        echo_lines(conn)
    };
    let (report, ()) = serve_until(&stop, local(), handler, |running| {
        let mut client = running.connect();
        client.write_all(b"last\n").unwrap();
        assert_eq!(read_to_end(&mut client).unwrap(), b"last\n");
    });
    assert!(report.is_clean() && report.accepted == 1, "{report}");
}

#[test]
fn a_flag_of_ones_own_stops_a_server() {
    let flag = Arc::new(AtomicBool::new(false));
    let server = local().poll(Duration::from_millis(10));
    let stop = Stop::from(Arc::clone(&flag));
    let (report, ()) = serve_until(&stop, server, echo_lines, |running| {
        let mut client = running.connect();
        assert_eq!(ask(&mut client, "hello\n"), "hello\n");
        flag.store(true, SeqCst);
        assert_eq!(read_to_end(&mut client).unwrap(), b"");
    });
    assert!(report.is_clean() && report.drained == 1, "{report}");
}

#[test]
fn two_servers_on_one_stop_both_end() {
    let stop = Stop::new();
    let reports = serve_until(&stop, local(), echo_lines, |one| {
        let (other, ()) = serve_until(&stop, local(), echo_lines, |other| {
            let (mut a, mut b) = (one.connect(), other.connect());
            assert_eq!(ask(&mut a, "a\n"), "a\n");
            assert_eq!(ask(&mut b, "b\n"), "b\n");
            stop.set();
            assert_eq!(read_to_end(&mut a).unwrap(), b"");
            assert_eq!(read_to_end(&mut b).unwrap(), b"");
        });
        other
    });
    for report in [reports.0, reports.1] {
        assert!(report.is_clean() && report.drained == 1, "{report}");
    }
}

/// What came of one client and a stop that set out at the same time.
fn race(delay: Duration) -> bool {
    let (report, connected) = serve(local(), echo_lines, |running| {
        thread::scope(|scope| {
            scope.spawn(|| {
                thread::sleep(delay);
                running.stop.set();
            });
            let Ok(mut client) = connect(running.address()) else {
                return false;
            };
            client.write_all(b"hello\n").unwrap();
            let _ = client.shutdown(Shutdown::Write);
            let heard = read_to_end(&mut client).unwrap_or_else(|broken| panic!("{broken}"));
            assert_eq!(
                String::from_utf8_lossy(&heard),
                "hello\n",
                "connected, not served"
            );
            true
        })
    });
    assert!(report.is_clean(), "{report}");
    assert_eq!(report.accepted, u64::from(connected), "{report}");
    connected
}

#[test]
fn a_stop_while_a_thread_is_starting_loses_no_client() {
    let connected = (0..150)
        .filter(|n| race(Duration::from_micros(n * 3)))
        .count();
    println!("{connected} of 150 clients came before the stop");
    assert!(connected > 0);
}

#[test]
fn a_listener_of_ones_own_is_served_and_ended() {
    for nonblocking in [false, true] {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(nonblocking).unwrap();
        let address = listener.local_addr().unwrap();
        let server = Server::from(listener).poll(Duration::from_millis(20));
        let (report, ()) = serve(server, echo_lines, |running| {
            assert_eq!(running.live.addresses(), [address]);
            // Also after it has waited in vain for a while.
            for _ in 0..2 {
                assert_eq!(ask(&mut running.connect(), "hello\n"), "hello\n");
                thread::sleep(Duration::from_millis(60));
            }
        });
        assert_eq!(report.accepted, 2, "{report}");
        assert!(connect(address).is_err());
    }
}

fn count(directory: &str) -> usize {
    std::fs::read_dir(directory).unwrap().count()
}

/// Descriptors and threads of this process.
fn holdings() -> (usize, usize) {
    (count("/proc/self/fd"), count("/proc/self/task"))
}

fn cycle() {
    let (report, ()) = serve(
        local().poll(Duration::from_millis(10)),
        echo_lines,
        |running| {
            let mut client = running.connect();
            assert_eq!(ask(&mut client, "hello\n"), "hello\n");
            running.stop.set();
            assert_eq!(read_to_end(&mut client).unwrap(), b"");
        },
    );
    assert!(report.is_clean() && report.drained == 1, "{report}");
}

#[test]
fn a_hundred_runs_leave_no_descriptor_and_no_thread_behind() {
    if !alone("library::stopping::a_hundred_runs_leave_no_descriptor_and_no_thread_behind") {
        return;
    }
    cycle();
    let (descriptors, threads) = holdings();
    for _ in 0..100 {
        cycle();
    }
    // Threads of the system end a moment after what ran on them.
    eventually("no more of either than after the first run", || {
        let now = holdings();
        now.0 <= descriptors && now.1 <= threads
    });
    println!(
        "after 1 run {descriptors} descriptors, {threads} threads; after 101 {:?}",
        holdings()
    );
}
