//! What signals ask for: a stop, a cut, an exit, a list.

mod inherited;

use crate::harness::{
    Broken, IN_TIME, Program, Server, WATCHDOG, eventually, once_within, promise, read_to_end,
};
use crate::outputs::{stall_stdout, wait_unread};
use crate::promises::ended_within;
use rustix::process::{Signal, kill_process};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::thread;
use std::time::{Duration, Instant};

/// Longer than signals may be apart and still be the same request.
const LATER: Duration = Duration::from_millis(250);
/// Keeps a connection busy for much longer than any of these tests lasts.
const BUSY: [&str; 4] = ["--delay", "2m", "--drain-timeout", "2m"];

fn signal_name(signal: Signal) -> &'static str {
    match signal {
        Signal::INT => "SIGINT",
        Signal::TERM => "SIGTERM",
        Signal::QUIT => "SIGQUIT",
        _ => "SIGHUP",
    }
}

/// A server with one client whose byte it has in hand, and thinks about.
fn busy_server(program: Program, options: &[&str]) -> (Server, TcpStream) {
    let server = Server::start(program, options);
    let mut client = server.connect();
    client.write_all(b"x").unwrap();
    eventually("the byte was read", || unread(&client) == 0);
    (server, client)
}

/// What this client has sent and the server's program has not read.
fn unread(client: &TcpStream) -> u64 {
    let (ours, theirs) = (client.peer_addr().unwrap(), client.local_addr().unwrap());
    let ends = format!(
        "0100007F:{:04X} 0100007F:{:04X} 01 ",
        ours.port(),
        theirs.port()
    );
    let table = std::fs::read_to_string("/proc/net/tcp").unwrap();
    // In the accept queue it has no owner yet, but shows as well.
    let queues = table
        .lines()
        .find(|line| line.contains(&ends))
        .and_then(|line| {
            let fields: Vec<_> = line.split_whitespace().collect();
            (fields[9] != "0").then(|| fields[4].to_owned())
        });
    let unread = queues.and_then(|q| u64::from_str_radix(q.split_once(':')?.1, 16).ok());
    unread.unwrap_or(u64::MAX)
}

#[test]
fn each_of_the_four_signals_stops_gracefully() {
    for signal in [Signal::INT, Signal::TERM, Signal::QUIT, Signal::HUP] {
        let mut server = Server::start(Program::Lastecho, &["--poll", "50ms"]);
        let mut client = server.connect();
        client.write_all(b"served").unwrap();
        client.read_exact(&mut [0; 6]).unwrap();
        server.signal(signal);
        assert!(read_to_end(&mut client).unwrap().is_empty());
        drop(client);
        let ended = server.wait();
        assert_eq!(ended.code(), Some(0), "{signal:?}: {ended:?}");
        assert_eq!(ended.told["clean"], "true");
        assert_eq!(ended.count("drained"), 1, "{ended:?}");
        let words = format!("{}: stopping", signal_name(signal));
        assert!(ended.stderr.contains(&words), "{}", ended.stderr);
    }
}

/// An idle server has nothing to wait for, however long its poll interval.
#[test]
fn an_idle_server_ends_at_once() {
    once_within(
        Duration::from_millis(500),
        "the end of an idle server",
        || {
            let server = Server::start(Program::Lastecho, &["--poll", "30s"]);
            // In the middle of its wait for clients, not before it.
            thread::sleep(Duration::from_millis(20));
            let ended = server.stop();
            assert_eq!(ended.code(), Some(0), "{ended:?}");
            ended.took
        },
    );
}

/// The process stands still meanwhile, so that they all meet it at once. On a
/// machine that is so busy that it sees the burst in two pieces all the same, it
/// is two requests; so one of a few bursts must do.
#[test]
fn signals_in_quick_succession_are_one_request() {
    let mut cut = String::new();
    for _ in 0..5 {
        let (mut server, mut client) =
            busy_server(Program::Lastecho, &["--delay", "1s", "--poll", "50ms"]);
        kill_process(server.pid(), Signal::STOP).unwrap();
        for signal in [
            Signal::TERM,
            Signal::HUP,
            Signal::INT,
            Signal::TERM,
            Signal::QUIT,
        ] {
            server.signal(signal);
        }
        kill_process(server.pid(), Signal::CONT).unwrap();
        let echo = read_to_end(&mut client);
        drop(client);
        let ended = server.wait();
        if ended.code() == Some(0) {
            assert_eq!(
                (echo.unwrap().as_slice(), ended.count("cut")),
                (&b"x"[..], 0)
            );
            return;
        }
        cut = ended.stderr;
    }
    panic!("five bursts, and each was taken for two requests: {cut}");
}

/// Waits until the signals thread has seen a signal (or the server has ended),
/// and until a further one is another request.
fn let_it_sink_in(server: &mut Server, seen: &str) {
    eventually("the signal was seen", || {
        server.stderr().contains(seen) || !server.is_running()
    });
    thread::sleep(LATER);
}

/// Promise 3: a second signal cuts at once what is still in hand.
#[test]
fn a_later_signal_cuts_at_once() {
    promise(
        "the second signal",
        3,
        |broken| matches!(broken, Broken::TooLong(_)),
        |program| {
            // The control has no cut and would think to the end.
            let (mut server, _client) = busy_server(program, &BUSY);
            server.signal(Signal::TERM);
            match program {
                Program::Lastecho => let_it_sink_in(&mut server, "SIGTERM: stopping"),
                Program::Control => thread::sleep(LATER), // it says nothing
            }
            server.signal(Signal::TERM);
            let ended = ended_within(server, IN_TIME)?;
            println!("{program:?}: cut, {:?} after the first signal", ended.took);
            assert_eq!(
                (ended.code(), ended.count("cut")),
                (Some(3), 1),
                "{ended:?}"
            );
            assert_eq!(ended.told["clean"], "false", "{ended:?}");
            assert!(
                ended.stderr.contains("SIGTERM again: cutting"),
                "{}",
                ended.stderr
            );
            Ok(())
        },
    );
}

#[test]
fn the_second_signal_may_be_another_one() {
    let (mut server, _client) = busy_server(Program::Lastecho, &BUSY);
    server.signal(Signal::INT);
    let_it_sink_in(&mut server, "SIGINT: stopping");
    server.signal(Signal::HUP);
    let ended = server.wait();
    assert_eq!(
        (ended.code(), ended.count("cut")),
        (Some(3), 1),
        "{ended:?}"
    );
}

/// Somebody who has lost patience gets out. Nothing in the server itself can
/// hold it up after a cut; a reader who takes nothing from its standard output
/// can, for a second.
#[test]
fn a_third_signal_exits() {
    let patience = Instant::now() + WATCHDOG;
    while Instant::now() < patience {
        let mut server = Server::start(Program::Lastecho, &[]);
        stall_stdout(&server);
        for seen in ["SIGTERM: stopping", "SIGTERM again: cutting"] {
            server.signal(Signal::TERM);
            let_it_sink_in(&mut server, seen);
            if !server.is_running() {
                break;
            }
        }
        if !server.is_running() {
            continue; // too late: it has ended by itself
        }
        server.signal(Signal::TERM);
        let ended = wait_unread(server).unwrap_or_else(|broken| panic!("{broken}"));
        println!("three signals, and it was gone after {:?}", ended.took);
        let last = ended.stderr.lines().last().unwrap();
        if ended.code() == Some(0) && ended.took > Duration::from_millis(950) {
            continue; // it had ended by itself before it saw the third
        }
        assert_eq!(ended.code(), Some(3), "{}", ended.stderr);
        assert!(
            last.contains("SIGTERM once more: leaving at once"),
            "{last}"
        );
        assert!(ended.told.is_empty(), "it ended by itself");
        return;
    }
    panic!("this machine is too busy to send three signals in a second");
}

#[test]
fn usr1_lists_the_live_connections_and_changes_nothing() {
    let mut server = Server::start(Program::Lastecho, &[]);
    server.signal(Signal::USR1);
    server.await_log("live: 0 connections");
    let mut first = server.connect();
    first.write_all(b"four").unwrap();
    first.read_exact(&mut [0; 4]).unwrap();
    let mut second = server.connect();
    second.write_all(b"seven b").unwrap();
    second.read_exact(&mut [0; 7]).unwrap();
    for (client, bytes) in [(&first, 4), (&second, 7)] {
        let waits = format!("from {}, waiting, open for ", client.local_addr().unwrap());
        // A moment after its echo it may still be serving.
        eventually("both are listed as waiting", || {
            server.signal(Signal::USR1);
            server.stderr().contains(&waits)
        });
        let log = server.stderr();
        let line = log.lines().find(|line| line.contains(&waits)).unwrap();
        let bytes = format!("s, {bytes} bytes in, {bytes} bytes out");
        assert!(line.ends_with(&bytes), "{line}");
    }
    server.await_log("live: 2 connections");
    first.write_all(b"still here").unwrap();
    first.read_exact(&mut [0; 10]).unwrap();
    drop((first, second));
    let ended = server.stop();
    assert_eq!(
        (ended.code(), ended.count("accepted")),
        (Some(0), 2),
        "{ended:?}"
    );
}

#[test]
fn a_drain_says_once_a_second_what_is_left() {
    let (mut server, client) = busy_server(Program::Lastecho, &BUSY);
    let peer = client.local_addr().unwrap();
    server.signal(Signal::TERM);
    eventually("two lines about the drain", || {
        server.stderr().matches("draining: ").count() >= 2
    });
    let log = server.stderr();
    let lines: Vec<_> = log
        .lines()
        .filter(|line| line.contains("draining: "))
        .collect();
    for line in &lines[..2] {
        println!("{line}");
        for words in [
            "1 connection left",
            &format!("from {peer}, serving, open for "),
            "1 byte in, 0 bytes out",
            "cut in 11",
            "another signal cuts at once",
        ] {
            assert!(line.contains(words), "{words}: {line}");
        }
    }
    server.signal(Signal::TERM);
    assert_eq!(server.wait().code(), Some(3));
}
