//! Odd arguments: zero, one and the greatest value of every public number.

use super::resources::{allow_more, burnt};
use super::{Watchdog, alone, ask, echo_lines, local, serve};
use crate::harness::{connect, eventually, read_to_end};
use lastecho::{Connection, Deadline, Echo, Queue, Server, Shutdown, Stop, Take, Workers, limits};
use proptest::prelude::*;
use proptest::sample::select;
use proptest::test_runner::{Config, TestRunner};
use std::io::Write;
use std::net::{Shutdown as Half, SocketAddr};
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::thread;
use std::time::Duration;

const MOMENT: Duration = Duration::from_millis(20);

fn durations() -> impl Strategy<Value = Duration> {
    let edges = [
        Duration::ZERO,
        Duration::from_nanos(1),
        MOMENT,
        Duration::MAX,
    ];
    select(edges.to_vec())
}

fn numbers() -> impl Strategy<Value = usize> {
    select(vec![0, 1, 2, usize::MAX])
}

/// Runs a property over so many choices of arguments.
fn check<S: Strategy>(cases: u32, arguments: S, property: impl Fn(S::Value)) {
    let config = Config {
        cases,
        failure_persistence: None,
        ..Config::default()
    };
    let _watchdog = Watchdog::new();
    let outcome = TestRunner::new(config).run(&arguments, |arguments| {
        property(arguments);
        Ok(())
    });
    outcome.unwrap();
}

/// Every number that a server takes, and those of its handler.
#[derive(Debug)]
struct Arguments {
    times: (Duration, Option<Duration>, Option<Duration>, Duration),
    numbers: (usize, Option<usize>, usize, usize),
    echo: Echo,
}

fn arguments() -> impl Strategy<Value = Arguments> {
    use proptest::option::of;
    let times = (durations(), of(durations()), of(durations()), durations());
    // A stack that cannot be had has a test of its own.
    let stacks = select(vec![0, 1, 1 << 16, 1 << 21]);
    let numbers_of_it = (numbers(), of(numbers()), stacks, numbers());
    let delays = select(vec![Duration::ZERO, Duration::from_nanos(1)]);
    let all = (times, numbers_of_it, numbers(), delays);
    all.prop_map(|(times, numbers, buffer, delay)| Arguments {
        times,
        numbers,
        echo: Echo { buffer, delay },
    })
}

impl Arguments {
    fn configure(&self, server: Server) -> Server {
        let (poll, drain, idle, grace) = self.times;
        let (most, per_peer, stack, stop_after) = self.numbers;
        server
            .poll(poll)
            .drain_timeout(drain)
            .idle_timeout(idle)
            .accept_grace(grace)
            .max_connections(most)
            .max_per_peer(per_peer)
            .stack_size(stack)
            .stop_after(stop_after as u64)
    }

    /// Whether a client that is quick must get its echo before any stop.
    fn must_echo(&self) -> bool {
        self.times.2.is_none_or(|idle| idle == Duration::MAX) && self.numbers.3 > 0
    }
}

fn visit(address: SocketAddr) -> Option<Vec<u8>> {
    let mut client = connect(address).ok()?;
    client.write_all(b"hello\n").ok()?;
    client.shutdown(Half::Write).ok()?;
    read_to_end(&mut client).ok()
}

#[test]
fn a_server_serves_and_ends_whatever_its_numbers() {
    check(60, arguments(), |arguments| {
        let server = arguments.configure(local());
        let handler = |conn: &mut Connection| arguments.echo.serve(conn);
        let (report, ()) = serve(server, handler, |running| {
            let echo = visit(running.address());
            if arguments.must_echo() {
                assert_eq!(
                    echo.as_deref(),
                    Some(b"hello\n".as_slice()),
                    "{arguments:?}"
                );
            }
            running.stop.set();
            // Without any bound on it, a stop waits for what it was told to.
            running
                .stop
                .set_by(Deadline::after(Duration::from_millis(100)));
        });
        assert!(report.accepted <= 1, "{report}");
    });
}

#[test]
fn jobs_are_done_whatever_the_numbers_of_queue_and_workers() {
    let arguments = (numbers(), durations(), select(vec![0, 1, 2]), durations());
    check(60, arguments, |(capacity, poll, count, worker_poll)| {
        let (queue, done) = (
            Queue::bounded(capacity, &Stop::new()).poll(poll),
            AtomicUsize::new(0),
        );
        thread::scope(|scope| {
            scope.spawn(|| {
                for job in 0..3 {
                    queue.submit(job).unwrap();
                }
                queue.close();
            });
            let workers = Workers::new("odd", count).poll(worker_poll);
            let work = |_: &mut i32| {
                done.fetch_add(1, SeqCst);
                Ok(())
            };
            let source = |_| |longest| queue.take(longest);
            workers.run(&Stop::new(), source, work, |_, _| {}).unwrap();
        });
        assert_eq!(done.load(SeqCst), 3);
        assert_eq!(queue.take(poll), Take::Closed);
        assert!(queue.drain(Deadline::NEVER).is_empty());
    });
}

#[test]
fn phases_run_whatever_the_timeout() {
    let timeouts = proptest::option::of(durations());
    check(40, (timeouts, 0..4_usize), |(timeout, count)| {
        let (shutdown, begun) = (Shutdown::new(), Stop::new());
        for number in 0..count {
            let begun = begun.clone();
            shutdown.phase(format!("{number}"), move |deadline| {
                begun.set_by(deadline);
                Ok(())
            });
        }
        shutdown.fire();
        let outcome = shutdown.run(timeout);
        assert_eq!(outcome.phases.len(), count);
        // In a moment a phase may be left behind, on a busy machine.
        if timeout.is_none_or(|timeout| timeout > MOMENT) {
            assert!(outcome.is_clean(), "{outcome}");
        }
    });
}

#[test]
fn deadlines_and_pauses_take_any_time() {
    let (conn, _client) = Connection::pair(&Stop::new()).unwrap();
    check(20, durations(), |time| {
        let deadline = Deadline::after(time);
        assert!(deadline.cap(time) <= time);
        assert_eq!(deadline == Deadline::NEVER, time == Duration::MAX);
        if time < Duration::MAX {
            conn.pause(time).unwrap();
        }
    });
}

#[test]
fn zero_connections_until_the_stop_is_a_stop_at_once() {
    let _watchdog = Watchdog::new();
    let report = local().stop_after(0).run(&Stop::new(), echo_lines).unwrap();
    assert!(report.is_clean(), "{report}");
}

#[test]
fn accepting_ends_with_the_drain_timeout_whatever_the_grace() {
    let drain = Duration::from_millis(200);
    for timeout in [Some(drain), None] {
        let server = local().accept_grace(Duration::MAX).drain_timeout(timeout);
        let (report, ()) = serve(server, echo_lines, |running| {
            assert_eq!(ask(&mut running.connect(), "hello\n"), "hello\n");
            let stop = running.stop.clone();
            running.stop.set();
            thread::spawn(move || {
                thread::sleep(drain);
                timeout.is_none().then(|| stop.cut())
            });
        });
        let least = timeout.unwrap_or_default();
        assert!(report.elapsed >= least && report.is_clean(), "{report}");
    }
}

#[test]
fn a_stack_that_no_memory_holds_is_an_error() {
    let _watchdog = Watchdog::new();
    let server = local().stack_size(usize::MAX);
    server.run(&Stop::new(), echo_lines).unwrap_err();
}

#[test]
fn at_least_one_connection_whatever_the_stack_under_a_limit_of_memory() {
    if !alone(
        "library::arguments::at_least_one_connection_whatever_the_stack_under_a_limit_of_memory",
    ) {
        return;
    }
    allow_more(1 << 30);
    for stack in [0, 1, 1 << 20, usize::MAX] {
        assert!(limits::connections(stack) >= 1 && limits::threads(stack) >= 1);
    }
}

/// Where another process has set the options of the socket, each wait is polled
/// for.
#[test]
fn the_shortest_idle_timeout_does_not_take_the_processor() {
    if !alone("library::arguments::the_shortest_idle_timeout_does_not_take_the_processor") {
        return;
    }
    let time = Duration::from_millis(500);
    let server = local().idle_timeout(Duration::from_nanos(1));
    serve(server, echo_lines, |running| {
        let mut client = running.connect();
        let _ = client.write_all(b"half a li");
        eventually("its end", || running.live.report().idle == 1);
        let before = burnt();
        thread::sleep(time);
        let burnt = burnt() - before;
        assert!(burnt < time / 2, "{burnt:?} of {time:?}");
    });
    // The same numbers, longer: it is served.
    let server = local().idle_timeout(Duration::MAX);
    serve(server, echo_lines, |running| {
        assert_eq!(ask(&mut running.connect(), "hello\n"), "hello\n");
    });
}
