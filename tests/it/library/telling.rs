//! What a server tells: events, snapshots, the log, the report.

use super::{Watchdog, alone, ask, echo_lines, local, serve};
use crate::harness::{eventually, read_to_end};
use lastecho::{Connection, Episode, Event, Server, State};
use std::io::Write;
use std::sync::{Arc, LazyLock, Mutex, Once};
use std::time::Duration;

/// Everything that the library logged in this process.
static LOG: Mutex<Vec<String>> = Mutex::new(Vec::new());

/// Shared by a program and its logger.
static LOG_HOST: LazyLock<Episode> = LazyLock::new(|| Episode::new("the log's host"));

struct Capture;

impl log::Log for Capture {
    fn enabled(&self, _: &log::Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &log::Record<'_>) {
        // As a logger does whose own way out is in trouble.
        if record.args().to_string().starts_with("the log's host: ") {
            LOG_HOST.failed(&"again");
        }
        LOG.lock().unwrap().push(record.args().to_string());
    }

    fn flush(&self) {}
}

fn capture_log() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        log::set_logger(&Capture).unwrap();
        log::set_max_level(log::LevelFilter::Debug);
    });
}

#[test]
fn panics_and_errors_of_handlers_are_logged_with_number_and_peer() {
    capture_log();
    let handler = |conn: &mut Connection| {
        conn.next()?;
        match conn.id() {
            1 => panic!("first on purpose"),
            _ => Err(std::io::Error::other("second on purpose")),
        }
    };
    serve(local(), handler, |running| {
        for (id, what) in [(1, "panicked: first"), (2, "failed: second")] {
            let mut client = running.connect();
            client.write_all(b"x").unwrap();
            read_to_end(&mut client).unwrap();
            let peer = client.local_addr().unwrap();
            let line = format!("connection {id} from {peer}: handler {what} on purpose");
            drop(client);
            eventually(&line, || LOG.lock().unwrap().contains(&line));
        }
    });
}

#[test]
fn a_logger_may_share_the_episode_that_it_logs() {
    let _watchdog = Watchdog::new();
    capture_log();
    LOG_HOST.failed(&"unreachable");
    let line = "the log's host: unreachable; trying again";
    assert!(LOG.lock().unwrap().iter().any(|said| said == line));
}

/// As one does that prints to a reader who has left.
struct Broken;

impl log::Log for Broken {
    fn enabled(&self, _: &log::Metadata<'_>) -> bool {
        true
    }

    fn log(&self, _: &log::Record<'_>) {
        panic!("the logger, on purpose");
    }

    fn flush(&self) {}
}

#[test]
fn a_logger_that_panics_costs_words_and_nothing_else() {
    if !alone("library::telling::a_logger_that_panics_costs_words_and_nothing_else") {
        return;
    }
    let _watchdog = Watchdog::new();
    log::set_logger(&Broken).unwrap();
    log::set_max_level(log::LevelFilter::Debug);
    let handler = |conn: &mut Connection| {
        conn.next()?;
        Err(std::io::Error::other("on purpose"))
    };
    let shutdown = lastecho::Shutdown::new();
    for name in ["first", "second"] {
        shutdown.phase(name, |_| Ok(()));
    }
    let (report, left) = serve(local(), handler, |running| {
        for _ in 0..3 {
            let mut client = running.connect();
            client.write_all(b"x").unwrap();
            read_to_end(&mut client).unwrap();
        }
        eventually("the ends", || running.live.report().failed == 3);
        running.live.snapshot().len()
    });
    assert_eq!((report.accepted, report.failed, left), (3, 3, 0));
    shutdown.fire();
    let outcome = shutdown.run(Duration::from_secs(60));
    assert_eq!(outcome.phases.len(), 2);
}

/// An error with a cause, both of them long.
#[derive(Debug)]
struct Layer(&'static str, Option<Box<Layer>>);

impl std::fmt::Display for Layer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.0)
    }
}

impl std::error::Error for Layer {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        let cause = self.1.as_deref();
        cause.map(|cause| cause as &(dyn std::error::Error + 'static))
    }
}

#[test]
fn a_handlers_error_is_logged_with_its_causes_up_to_a_length() {
    capture_log();
    let handler = |conn: &mut Connection| {
        conn.next()?;
        let cause = Layer("the disk is full", None);
        let middle = Layer("cannot write the row", Some(Box::new(cause)));
        let outer = match conn.id() {
            1 => Layer("cannot answer", Some(Box::new(middle))),
            _ => Layer(Box::leak("long ".repeat(100_000).into_boxed_str()), None),
        };
        Err(std::io::Error::other(outer))
    };
    serve(local(), handler, |running| {
        let mut client = running.connect();
        client.write_all(b"x").unwrap();
        read_to_end(&mut client).unwrap();
        let peer = client.local_addr().unwrap();
        let line = format!(
            "connection 1 from {peer}: handler failed: \
             cannot answer: cannot write the row: the disk is full"
        );
        drop(client);
        eventually(&line, || LOG.lock().unwrap().contains(&line));

        let mut client = running.connect();
        client.write_all(b"x").unwrap();
        read_to_end(&mut client).unwrap();
        let peer = client.local_addr().unwrap();
        drop(client);
        let begins = format!("connection 2 from {peer}: handler failed: long long");
        let length = || {
            let log = LOG.lock().unwrap();
            let line = log.iter().find(|line| line.starts_with(&begins));
            line.map(String::len)
        };
        eventually("the second", || length().is_some());
        assert!(length().unwrap() < 2000, "{:?}", length());
    });
}

/// A server, and the words for what happens to it.
fn observed(server: Server) -> (Server, Arc<Mutex<Vec<String>>>) {
    let words = Arc::new(Mutex::new(Vec::new()));
    let ours = Arc::clone(&words);
    let server = server.observe(move |event| {
        let word = match event {
            Event::Ready { addresses } => format!("ready on {}", addresses.len()),
            Event::Accepted { id, .. } => format!("accepted {id}"),
            Event::Closed {
                id,
                outcome,
                received,
                sent,
                ..
            } => {
                format!("closed {id}: {outcome}, {received}, {sent}")
            }
            Event::Stopping { left, .. } => format!("stopping {left}"),
            Event::Draining { left, cut, .. } => format!("draining {left}, {cut}"),
            Event::Cutting { left } => format!("cutting {left}"),
            _ => return, // what tests/it/library/events.rs is for
        };
        ours.lock().unwrap().push(word);
    });
    (server, words)
}

#[test]
fn an_observer_hears_what_happens_to_the_server_in_order() {
    let (server, words) = observed(local().and(local()));
    let (report, ()) = serve(server, echo_lines, |running| {
        // Clients may come as soon as it is bound, and be heard of before that.
        eventually("ready", || words.lock().unwrap().len() == 1);
        let mut client = running.connect();
        assert_eq!(ask(&mut client, "hello\n"), "hello\n");
        drop(client);
        eventually("its end", || words.lock().unwrap().len() == 3);
        let mut client = running.connect();
        assert_eq!(ask(&mut client, "hi\n"), "hi\n");
        client.write_all(b"half").unwrap();
        let in_hand = || running.live.snapshot()[0].received == 7;
        eventually("half a line in hand", in_hand);
        running.stop.set();
        eventually("the stop", || words.lock().unwrap().len() == 5);
        running.stop.cut();
        eventually("the end", || running.live.snapshot().is_empty());
    });
    let expected = [
        "ready on 2",
        "accepted 1",
        "closed 1: ended, 6, 6",
        "accepted 2",
        "stopping 1",
        "cutting 1",
        "closed 2: cut, 7, 3",
    ];
    assert_eq!(*words.lock().unwrap(), expected);
    assert_eq!((report.received, report.sent), (13, 9), "{report}");
    assert_eq!(
        (report.accepted, report.cut, report.drained),
        (2, 1, 0),
        "{report}"
    );
}

#[test]
fn a_snapshot_says_who_is_there_and_what_they_do() {
    let (report, ()) = serve(local(), echo_lines, |running| {
        assert!(running.live.snapshot().is_empty());
        let mut waiting = running.connect();
        assert_eq!(ask(&mut waiting, "hello\n"), "hello\n");
        let mut serving = running.connect();
        serving.write_all(b"half").unwrap();
        let doing = || {
            let live = running.live.snapshot().into_iter();
            live.map(|one| (one.state, one.received))
                .collect::<Vec<_>>()
        };
        let expected = [(State::Waiting, 6), (State::Serving, 4)];
        eventually("one waiting, one in mid-line", || doing() == expected);
        let live = running.live.snapshot();
        let [first, second] = &live[..] else {
            panic!("{live:?}");
        };
        assert_eq!((first.id, first.peer), (1, waiting.local_addr().unwrap()));
        assert_eq!((first.received, first.sent), (6, 6));
        assert_eq!((second.id, second.peer), (2, serving.local_addr().unwrap()));
        assert_eq!((second.received, second.sent), (4, 0));
        assert!(second.age <= first.age);
        let text = second.to_string();
        assert!(
            text.starts_with(&format!(
                "connection 2 from {}, serving, open for",
                second.peer
            )),
            "{text}"
        );
        assert_eq!(running.live.report().accepted, 2);
        assert!(format!("{:?}", running.live).contains("Serving"));
    });
    assert_eq!(report.accepted, 2);
}

#[test]
fn a_connections_thread_and_debug_text_carry_its_number() {
    let names = Mutex::new(Vec::new());
    let handler = |conn: &mut Connection| {
        let name = std::fs::read_to_string("/proc/thread-self/comm")?;
        names
            .lock()
            .unwrap()
            .push((conn.id(), name.trim().to_owned(), format!("{conn:?}")));
        echo_lines(conn)
    };
    serve(local(), handler, |running| {
        for _ in 0..3 {
            assert_eq!(ask(&mut running.connect(), "hello\n"), "hello\n");
        }
    });
    for (id, name, text) in names.into_inner().unwrap() {
        assert_eq!(name, format!("conn {id}"));
        assert!(
            text.starts_with(&format!("Connection {{ id: {id}, ")),
            "{text}"
        );
    }
}

#[test]
fn a_report_reads_as_pairs_and_counts_each_connection_once() {
    let (report, ()) = serve(local(), echo_lines, |running| {
        for _ in 0..5 {
            assert_eq!(ask(&mut running.connect(), "hello\n"), "hello\n");
        }
        let ended = || running.live.report().received == 30;
        eventually("all ended", ended);
    });
    let text = report.to_string();
    for pair in [
        "clean=true",
        "accepted=5",
        "drained=0",
        "received=30",
        "sent=30",
        "unsent=0",
    ] {
        assert!(
            text.split(' ').any(|word| word == pair),
            "no {pair} in {text}"
        );
    }
    assert_eq!(report.clone(), report);
}
