//! Peers that fall silent without a word: gone, deaf, or cut off for a while.

use super::joined::{Joined, received};
use crate::client::{Checked, echo, hear};
use crate::harness::{Program, Server, eventually, noise};
use crate::{assert_none, is_long, shared, told};
use rustix::process::Signal;
use std::io::{ErrorKind, Write};
use std::net::TcpStream;
use std::thread;
use std::time::{Duration, Instant};

/// What was asked, and what is owed when the link goes down.
const ASKED: &[u8] = b"an answer that never arrives";

/// Long enough to take the link down while the answer is thought about.
const THINKING: &str = "2s";

/// Sends until nobody takes any more: the peer's window and our buffer are full.
fn fill(client: &mut TcpStream) -> u64 {
    client
        .set_write_timeout(Some(Duration::from_millis(500)))
        .unwrap();
    let (chunk, mut sent) = (noise(1 << 16, 7), 0);
    loop {
        match client.write(&chunk) {
            Ok(count) => sent += count as u64,
            Err(error) if error.kind() == ErrorKind::WouldBlock => return sent,
            Err(error) => panic!("{error} after {sent} bytes"),
        }
    }
}

#[test]
#[ignore = "makes network namespaces: make test"]
fn a_peer_that_vanishes_is_ended_by_the_idle_timeout() {
    let _machine = shared();
    let joined = Joined::by_link();
    let server = joined.start(
        Program::Lastecho,
        &["-vv", "--idle-timeout", "1s", "--delay", THINKING],
    );
    let _silent = joined.connect(server.address());
    let mut owed = joined.connect(server.address());
    owed.write_all(ASKED).unwrap();
    // Which of the two was entered first is open.
    server.await_log(": 28 bytes");
    joined.set_link("down");
    let began = Instant::now();
    eventually("both ended", || {
        server.stderr().matches(": idle timeout").count() == 2
    });
    let noticed = began.elapsed();
    let ended = server.stop();
    assert_eq!(
        (ended.code(), ended.count("idle")),
        (Some(0), 2),
        "{ended:?}"
    );
    // The other's bytes are owed, and nobody knows that they arrived.
    assert_eq!(ended.count("bytes_lost"), ASKED.len() as u64, "{ended:?}");
    assert_none(&ended, &["cut", "reset", "failed"]);
    told(
        "peers vanish without FIN, one idle, one owed 28 bytes (link down)",
        "the idle timeout of 1s ends both, and 5 s later their sockets; what did not arrive is told",
        &format!(
            "ended after {noticed:.1?}: idle={}, bytes_lost={}",
            ended.count("idle"),
            ended.count("bytes_lost")
        ),
    );
}

#[test]
#[ignore = "makes network namespaces: make test"]
fn a_peer_that_vanishes_is_ended_by_keepalive() {
    let _machine = shared();
    let joined = Joined::by_link();
    let server = joined.start(Program::Lastecho, &["-v"]);
    let mut client = joined.connect(server.address());
    echo(&mut client, b"before").unwrap();
    let sockets = joined.sockets();
    let timer = sockets
        .split_once("timer:(keepalive,")
        .map(|(_, timer)| timer);
    let timer = timer.unwrap_or_else(|| panic!("no keepalive: {sockets}"));
    // "59sec" or "1min": of the 60 s that the server asks for.
    let timer = timer.split(',').next().unwrap();
    assert!(timer.ends_with("sec") || timer == "1min", "{timer}");
    let mut measured = format!("armed: first probe in {timer}");
    if is_long() {
        joined.set_link("down");
        measured += &format!("; ended after {:.0?}", await_reset(&server));
    }
    let ended = server.stop();
    assert_eq!(ended.code(), Some(0), "{ended:?}");
    assert_eq!(ended.count("reset"), u64::from(is_long()), "{ended:?}");
    told(
        "a peer vanishes without FIN, no idle timeout (link down)",
        "keepalive ends it after about two minutes (the long version waits for it)",
        &measured,
    );
}

/// It is owed nothing, and that is not known of our FIN.
#[test]
#[ignore = "makes network namespaces: make test"]
fn an_idle_peer_that_has_vanished_holds_a_stop_until_the_deadline() {
    let _machine = shared();
    let joined = Joined::by_link();
    let server = joined.start(Program::Lastecho, &["-v", "--drain-timeout", "2s"]);
    let _silent = joined.connect(server.address());
    server.await_log(": accepted");
    joined.set_link("down");
    let ended = server.stop();
    assert_eq!(
        (ended.code(), ended.count("cut")),
        (Some(3), 1),
        "{ended:?}"
    );
    assert_none(&ended, &["bytes_lost", "refused", "reset", "failed"]);
    told(
        "a peer vanishes without FIN, idle, and then a stop (link down)",
        "cut at the deadline of 2 s, status 3; nothing is lost",
        &format!("elapsed_ms={} cut=1", ended.count("elapsed_ms")),
    );
}

/// How long it takes; longer than the watchdog would wait.
fn await_reset(server: &Server) -> Duration {
    let began = Instant::now();
    while !server.stderr().contains(": reset by peer") {
        let log = server.stderr();
        assert!(began.elapsed() < Duration::from_secs(300), "{log}");
        thread::sleep(Duration::from_millis(100));
    }
    began.elapsed()
}

/// A client with a zero window, and another that is checked meanwhile.
fn deaf(options: &[&str]) -> (Joined, Server, TcpStream, u64, Checked) {
    let joined = Joined::by_link();
    let server = joined.start(Program::Lastecho, options);
    let mut client = joined.connect(server.address());
    let checked = Checked::over(joined.connect(server.address()));
    let sent = fill(&mut client);
    (joined, server, client, sent, checked)
}

#[test]
#[ignore = "makes network namespaces: make test"]
fn a_zero_window_holds_a_stop_until_the_deadline_and_nobody_else() {
    let _machine = shared();
    let (_joined, server, mut client, sent, checked) = deaf(&["--drain-timeout", "2s"]);
    let rounds = checked.finish().unwrap();
    let ended = server.stop();
    assert_eq!(
        (ended.code(), ended.count("cut")),
        (Some(3), 1),
        "{ended:?}"
    );
    let elapsed = ended.count("elapsed_ms");
    assert!((2000..50_000).contains(&elapsed), "{ended:?}");
    let got = received(&mut client).len() as u64;
    let others = rounds.bytes;
    let (low, high) = (
        ended.count("bytes_out") - others,
        ended.count("bytes_in") - others,
    );
    assert!((low..=high).contains(&got), "{got} arrived: {ended:?}");
    assert!(
        high > got && sent > high,
        "the window was never full: {ended:?}"
    );
    assert_none(&ended, &["reset", "failed", "refused"]);
    told(
        "a zero window: a client that sends and never reads, at a stop",
        "cut at the deadline of 2 s, status 3; bytes_out <= arrived <= bytes_in",
        &format!(
            "elapsed_ms={elapsed}; {low} <= {got} <= {high}; another client's {others} bytes checked"
        ),
    );
}

#[test]
#[ignore = "makes network namespaces: make test"]
fn a_zero_window_is_ended_by_the_idle_timeout() {
    let _machine = shared();
    let (_joined, server, mut client, sent, checked) = deaf(&["-v", "--idle-timeout", "4s"]);
    // From now on nothing is sent: what is, after our FIN, is read and thrown away.
    let began = Instant::now();
    eventually("its end", || server.stderr().contains(": idle timeout"));
    let noticed = began.elapsed();
    let rounds = checked.finish().unwrap();
    let ended = server.stop();
    assert_eq!(
        (ended.code(), ended.count("idle")),
        (Some(0), 1),
        "{ended:?}"
    );
    let got = received(&mut client).len() as u64;
    let (low, high) = (
        ended.count("bytes_out") - rounds.bytes,
        ended.count("bytes_in") - rounds.bytes,
    );
    assert!((low..=high).contains(&got), "{got} arrived: {ended:?}");
    assert!(ended.count("bytes_lost") > 0 && sent > high, "{ended:?}");
    told(
        "a zero window: a client that sends and never reads, in normal life",
        "the idle timeout of 4s ends it; bytes_out <= arrived <= bytes_in",
        &format!("ended {noticed:.1?} after its last byte; {low} <= {got} <= {high}"),
    );
}

/// A stop during which the link goes down, with an answer still owed.
fn stop_as_link_goes_down(drain: &str) -> (Joined, Server, TcpStream) {
    let joined = Joined::by_link();
    let options = ["-vv", "--delay", THINKING, "--drain-timeout", drain];
    let mut server = joined.start(Program::Lastecho, &options);
    let mut client = joined.connect(server.address());
    client.write_all(ASKED).unwrap();
    server.await_log("connection 1: 28 bytes");
    server.signal(Signal::TERM);
    server.await_log("stopping: 1 connection left");
    joined.set_link("down");
    (joined, server, client)
}

#[test]
#[ignore = "makes network namespaces: make test"]
fn a_link_that_goes_down_during_the_drain_is_cut_at_the_deadline() {
    let _machine = shared();
    let (_joined, server, _client) = stop_as_link_goes_down("5s");
    let ended = server.wait();
    assert_eq!(
        (ended.code(), ended.count("cut")),
        (Some(3), 1),
        "{ended:?}"
    );
    assert_eq!(ended.count("bytes_lost"), ASKED.len() as u64, "{ended:?}");
    let elapsed = ended.count("elapsed_ms");
    assert!((5000..50_000).contains(&elapsed), "{ended:?}");
    told(
        "the link goes down during the drain",
        "cut at the deadline of 5 s, status 3, the answer is told as lost",
        &format!(
            "elapsed_ms={elapsed} cut=1 bytes_lost={}",
            ended.count("bytes_lost")
        ),
    );
}

#[test]
#[ignore = "makes network namespaces: make test"]
fn a_link_that_comes_back_during_the_drain_loses_nothing() {
    let _machine = shared();
    let (joined, server, mut client) = stop_as_link_goes_down("50s");
    let began = Instant::now();
    eventually("an answer into nothing", || {
        thread::sleep(Duration::from_millis(100));
        // The timer of what was sent and not acknowledged (ss(8)).
        joined.sockets().contains("timer:(on,")
    });
    joined.set_link("up");
    let down = began.elapsed();
    hear(&mut client, ASKED).unwrap();
    assert!(received(&mut client).is_empty());
    drop(client);
    let ended = server.wait();
    assert_eq!(
        (ended.code(), ended.count("drained")),
        (Some(0), 1),
        "{ended:?}"
    );
    assert_none(&ended, &["bytes_lost", "cut", "reset"]);
    told(
        "the link goes down during the drain and comes back",
        "the answer arrives, then FIN; status 0",
        &format!(
            "down for {down:.1?}, elapsed_ms={} bytes_lost=0",
            ended.count("elapsed_ms")
        ),
    );
}
