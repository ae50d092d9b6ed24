//! Events: each comes, in its place, with its numbers and on its thread.

use super::{Running, ask, local, serve};
use crate::harness::{eventually, read_to_end};
use lastecho::{Connection, Event, Live, Outcome, Server, Stop};
use socket2::SockRef;
use std::collections::BTreeMap;
use std::io::{self, BufRead, Write};
use std::net::Shutdown;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::thread::{self, ThreadId};
use std::time::Duration;

/// What happened to each connection, in words, and on which threads.
type Lives = Arc<Mutex<BTreeMap<u64, Vec<(String, ThreadId)>>>>;

fn observed(server: Server) -> (Server, Lives) {
    let lives = Lives::default();
    let ours = Arc::clone(&lives);
    let server = server.observe(move |event| {
        if let Some((id, words)) = in_words(event) {
            let words = (words, thread::current().id());
            ours.lock().unwrap().entry(id).or_default().push(words);
        }
    });
    (server, lives)
}

fn in_words(event: &Event<'_>) -> Option<(u64, String)> {
    Some(match *event {
        Event::Accepted { id, .. } => (id, "accepted".into()),
        Event::Request { id, bytes } => (id, format!("request {bytes}")),
        Event::Reply { id, bytes } => (id, format!("reply {bytes}")),
        Event::Waiting { id } => (id, "waiting".into()),
        Event::Panicked { id, message } => (id, format!("panicked: {message}")),
        Event::Lingering { id } => (id, "lingering".into()),
        Event::Closed {
            id,
            outcome,
            received,
            sent,
            ..
        } => (id, format!("closed: {outcome}, {received}, {sent}")),
        _ => return None,
    })
}

fn words(lives: &Lives, id: u64) -> Vec<String> {
    let lives = lives.lock().unwrap();
    let life = lives.get(&id).into_iter().flatten();
    life.map(|(words, _)| words.clone()).collect()
}

fn await_closed(lives: &Lives, id: u64) {
    let is_closed = || {
        words(lives, id)
            .iter()
            .any(|word| word.starts_with("closed"))
    };
    eventually(&format!("the end of connection {id}"), is_closed);
}

/// Answers each line with itself; `panic` is what it says.
fn fragile(conn: &mut Connection) -> io::Result<()> {
    let mut line = String::new();
    while conn.next()? {
        line.clear();
        conn.read_line(&mut line)?;
        assert_ne!(line, "panic\n");
        conn.write_all(line.as_bytes())?;
    }
    Ok(())
}

#[test]
fn a_connections_life_is_told_in_order_and_on_its_own_thread() {
    let (server, lives) = observed(local());
    serve(server, fragile, |running| {
        let mut client = running.connect();
        assert_eq!(ask(&mut client, "hello\n"), "hello\n");
        assert_eq!(ask(&mut client, "hi\n"), "hi\n");
        client.shutdown(Shutdown::Write).unwrap();
        assert_eq!(read_to_end(&mut client).unwrap(), b"");
        await_closed(&lives, 1);
    });
    let expected = [
        "accepted",
        "request 6",
        "reply 6",
        "waiting",
        "request 3",
        "reply 3",
        "waiting",
        "lingering",
        "closed: ended, 9, 9",
    ];
    assert_eq!(words(&lives, 1), expected);
    let life = &lives.lock().unwrap()[&1];
    let ours = thread::current().id();
    let one = |(_, thread): &(String, ThreadId)| *thread == life[0].1 && *thread != ours;
    assert!(life.iter().all(one), "{life:?}");
}

#[test]
fn requests_that_came_together_are_told_one_by_one_each_with_its_end() {
    let (server, lives) = observed(local());
    serve(server, fragile, |running| {
        let mut client = running.connect();
        client.write_all(b"one\nthree\n").unwrap();
        client.shutdown(Shutdown::Write).unwrap();
        assert_eq!(read_to_end(&mut client).unwrap(), b"one\nthree\n");
        await_closed(&lives, 1);
    });
    let expected = [
        "accepted",
        "request 10",
        "reply 4",
        "waiting",
        "request 6",
        "reply 6",
        "waiting",
        "lingering",
        "closed: ended, 10, 10",
    ];
    assert_eq!(words(&lives, 1), expected);
}

#[test]
fn a_panic_a_reset_a_cut_and_a_limit_are_told_as_what_they_are() {
    let (server, lives) = observed(local().max_per_peer(1));
    serve(server, fragile, |running| {
        let mut panics = running.connect();
        panics.write_all(b"panic\n").unwrap();
        assert_eq!(read_to_end(&mut panics).unwrap(), b"");
        drop(panics);
        await_closed(&lives, 1);
        let resets = running.connect();
        eventually("its start", || words(&lives, 2) == ["accepted"]);
        SockRef::from(&resets)
            .set_linger(Some(Duration::ZERO))
            .unwrap();
        drop(resets);
        await_closed(&lives, 2);
        let mut is_cut = running.connect();
        is_cut.write_all(b"half").unwrap();
        eventually("half a line in hand", || words(&lives, 3).len() == 2);
        let mut limited = running.connect();
        assert_eq!(read_to_end(&mut limited).unwrap(), b"");
        drop(limited);
        await_closed(&lives, 4);
        running.stop.cut();
        await_closed(&lives, 3);
    });
    let panicked = words(&lives, 1);
    assert!(
        panicked[2].starts_with("panicked: assertion"),
        "{panicked:?}"
    );
    assert_eq!(panicked[..2], ["accepted", "request 6"]);
    let end = ["lingering", "closed: handler panicked, 6, 0"];
    assert_eq!(panicked[3..], end);
    assert_eq!(
        words(&lives, 2),
        ["accepted", "closed: reset by peer, 0, 0"]
    );
    let cut = ["accepted", "request 4", "closed: cut, 4, 0"];
    assert_eq!(words(&lives, 3), cut);
    let limited = ["lingering", "closed: too many from this peer, 0, 0"];
    assert_eq!(words(&lives, 4), limited);
}

#[test]
fn a_writers_reply_is_told_by_the_thread_that_wrote() {
    let (server, lives) = observed(local());
    let wrote = Mutex::new(None);
    let handler = |conn: &mut Connection| {
        let mut writer = conn.writer();
        thread::scope(|scope| {
            scope.spawn(|| {
                *wrote.lock().unwrap() = Some(thread::current().id());
                writer.write_all(b"from another thread\n")
            });
        });
        Ok(())
    };
    serve(server, handler, |running| {
        let heard = read_to_end(&mut running.connect()).unwrap();
        assert_eq!(heard, b"from another thread\n");
        await_closed(&lives, 1);
    });
    let lives = lives.lock().unwrap();
    let reply = lives[&1].iter().find(|(words, _)| words == "reply 20");
    let (_, teller) = reply.unwrap_or_else(|| panic!("{lives:?}"));
    assert_eq!(Some(*teller), wrote.into_inner().unwrap());
}

/// Sums of events, as a metrics library would keep them.
#[derive(Default)]
struct Sums {
    accepted: AtomicU64,
    limited: AtomicU64,
    closed: AtomicU64,
    started: AtomicU64,
    retired: AtomicU64,
}

fn summed(server: Server) -> (Server, Arc<Sums>) {
    let sums = Arc::new(Sums::default());
    let ours = Arc::clone(&sums);
    let server = server.observe(move |event| {
        let count = match event {
            Event::Accepted { .. } => &ours.accepted,
            Event::Closed {
                outcome: Outcome::Limited,
                ..
            } => &ours.limited,
            Event::Closed { .. } => &ours.closed,
            Event::ThreadStarted => &ours.started,
            Event::ThreadRetired => &ours.retired,
            _ => return,
        };
        count.fetch_add(1, SeqCst);
    });
    (server, sums)
}

#[test]
fn accepted_and_closed_and_threads_started_and_retired_balance() {
    const HELD: u64 = 20;
    let (server, sums) = summed(local());
    let (report, ()) = serve(server, fragile, |running| {
        for line in ["panic\n", "hello\n"].repeat(10) {
            let mut client = running.connect();
            client.write_all(line.as_bytes()).unwrap();
            client.shutdown(Shutdown::Write).unwrap();
            read_to_end(&mut client).unwrap();
        }
        let mut held: Vec<_> = (0..HELD).map(|_| running.connect()).collect();
        for client in &mut held {
            assert_eq!(ask(client, "hello\n"), "hello\n");
        }
        // One for each, and one that waits for the next.
        let threads = || sums.started.load(SeqCst) - sums.retired.load(SeqCst);
        eventually("a thread for each", || threads() > HELD);
        assert!(sums.accepted.load(SeqCst) - sums.closed.load(SeqCst) >= HELD);
    });
    assert_eq!(report.accepted, 20 + HELD, "{report}");
    assert_eq!(sums.accepted.load(SeqCst), report.accepted);
    assert_eq!(sums.closed.load(SeqCst), report.accepted);
    assert_eq!(sums.limited.load(SeqCst), 0);
    // At once, without waiting: `run` has returned.
    assert_eq!(sums.started.load(SeqCst), sums.retired.load(SeqCst));
}

/// What clients hear from a server with this observer.
fn heard(server: Server) -> Vec<String> {
    let (report, heard) = serve(server.max_per_peer(3), fragile, |running: &Running| {
        let mut heard = Vec::new();
        for line in ["hello\n", "panic\n", "half"] {
            let mut client = running.connect();
            client.write_all(line.as_bytes()).unwrap();
            client.shutdown(Shutdown::Write).unwrap();
            let bytes = read_to_end(&mut client).unwrap();
            heard.push(String::from_utf8(bytes).unwrap());
            drop(client);
            // Who is left at the stop counts as drained.
            eventually("its end", || running.live.snapshot().is_empty());
        }
        let mut stays = running.connect();
        heard.push(ask(&mut stays, "stays\n"));
        running.stop.set();
        assert_eq!(read_to_end(&mut stays).unwrap(), b"");
        heard
    });
    let sums = (report.accepted, report.panicked, report.drained);
    let ended = format!("{sums:?}, {}, {}", report.received, report.sent);
    heard.into_iter().chain([ended]).collect()
}

#[test]
fn an_observer_that_panics_at_every_event_changes_nothing_for_clients() {
    let told = Arc::new(AtomicU64::new(0));
    let ours = Arc::clone(&told);
    let panics = local().observe(move |_| {
        ours.fetch_add(1, SeqCst);
        // Past the hook, which would only write to standard error.
        std::panic::resume_unwind(Box::new("on purpose"));
    });
    let without = heard(local());
    assert_eq!(without[..4], ["hello\n", "", "half", "stays\n"]);
    assert_eq!(heard(panics), without);
    // Four lives, of four events at least, were told all the same.
    assert!(told.load(SeqCst) > 16, "{told:?}");
}

#[test]
fn no_lock_is_held_while_an_observer_is_told() {
    let server = local();
    let live: Live = server.live();
    let looks = Arc::new(AtomicU64::new(0));
    let ours = Arc::clone(&looks);
    let server = server.observe(move |_| {
        let seen = live.snapshot().len() as u64 + live.report().accepted;
        ours.fetch_add(1 + seen, SeqCst);
    });
    // The watchdog ends the test where one is.
    let (report, ()) = serve(server, fragile, |running| {
        for line in ["hello\n", "panic\n"] {
            let mut client = running.connect();
            client.write_all(line.as_bytes()).unwrap();
            client.shutdown(Shutdown::Write).unwrap();
            read_to_end(&mut client).unwrap();
        }
        let mut half = running.connect();
        half.write_all(b"half").unwrap();
        eventually("it in hand", || {
            running.live.snapshot().iter().any(|one| one.received == 4)
        });
        running.stop.cut();
        eventually("its end", || running.live.snapshot().is_empty());
    });
    assert_eq!((report.accepted, report.cut), (3, 1), "{report}");
    assert!(looks.load(SeqCst) > 0);
}

#[test]
fn a_server_that_never_runs_tells_nothing() {
    let (server, sums) = summed(local());
    drop(server);
    assert_eq!(sums.started.load(SeqCst), 0);
    let (server, sums) = summed(local());
    let stop = Stop::new();
    stop.set();
    server.run(&stop, fragile).unwrap();
    assert_eq!(sums.accepted.load(SeqCst), 0);
    assert_eq!(sums.started.load(SeqCst), sums.retired.load(SeqCst));
    assert!(sums.started.load(SeqCst) > 0);
}
