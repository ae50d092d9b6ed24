//! How many clients are served at once, and what becomes of the others.

use crate::harness::{Program, Server, WATCHDOG, connect, eventually, noise, read_to_end};
use rustix::process::Signal;
use socket2::{Domain, Socket, Type};
use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::time::Duration;

/// How long to look at a client that should hear nothing.
const SILENCE: Duration = Duration::from_millis(200);

fn say(client: &mut TcpStream, words: &[u8]) {
    client.write_all(words).unwrap();
}

fn assert_hears(client: &mut TcpStream, words: &[u8]) {
    let mut echo = vec![0; words.len()];
    client.read_exact(&mut echo).unwrap();
    assert_eq!(echo, words);
}

fn assert_hears_nothing_yet(client: &mut TcpStream) {
    client.set_read_timeout(Some(SILENCE)).unwrap();
    let error = client.read(&mut [0; 8]).expect_err("heard something");
    assert_eq!(error.kind(), ErrorKind::WouldBlock, "{error}");
    client.set_read_timeout(Some(WATCHDOG)).unwrap();
}

/// The list that USR1 brings.
fn live(server: &mut Server) -> String {
    let lists = |log: &str| log.matches("live: ").count();
    let before = lists(&server.stderr());
    server.signal(Signal::USR1);
    eventually("the list of live connections", || {
        lists(&server.stderr()) > before
    });
    let log = server.stderr();
    let lines: Vec<_> = log.lines().filter(|line| line.contains("live: ")).collect();
    lines[before..].join("\n")
}

/// A client with a small receive buffer, on a source address of its own choice.
fn connect_from(source: &str, server: SocketAddr, receive_buffer: Option<usize>) -> TcpStream {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    let source: SocketAddr = source.parse().unwrap();
    socket.bind(&source.into()).unwrap();
    if let Some(bytes) = receive_buffer {
        socket.set_recv_buffer_size(bytes).unwrap();
    }
    socket.connect_timeout(&server.into(), WATCHDOG).unwrap();
    let client = TcpStream::from(socket);
    client.set_read_timeout(Some(WATCHDOG)).unwrap();
    client
}

#[test]
fn a_client_beyond_the_limit_waits_and_is_then_served() {
    let server = Server::start(Program::Lastecho, &["--max-connections", "1"]);
    let mut first = server.connect();
    say(&mut first, b"first");
    assert_hears(&mut first, b"first");
    let mut second = server.connect(); // connected, not refused
    say(&mut second, b"second");
    assert_hears_nothing_yet(&mut second);
    drop(first);
    assert_hears(&mut second, b"second");
    drop(second);
    assert_eq!(server.stop().count("accepted"), 2);
}

#[test]
fn all_listeners_share_one_limit() {
    let addresses = ["127.0.0.1:0", "127.0.0.1:0"];
    let server = Server::listening_on(Program::Lastecho, &addresses, &["--max-connections", "1"]);
    let mut first = connect(server.addresses[0]).unwrap();
    say(&mut first, b"first");
    assert_hears(&mut first, b"first");
    let mut second = connect(server.addresses[1]).unwrap();
    say(&mut second, b"second");
    assert_hears_nothing_yet(&mut second);
    drop(first);
    assert_hears(&mut second, b"second");
}

#[test]
fn a_limit_that_cannot_be_kept_is_said() {
    let server = Server::start(Program::Lastecho, &["--max-connections", "100000000"]);
    assert!(server.stop().stderr.contains("--max-connections 100000000"));
}

/// Its echo is in our send buffer, our FIN behind it, and the client reads
/// nothing: it lingers. The slot is the next client's.
#[test]
fn a_lingering_connection_holds_no_slot() {
    let mut server = Server::start(Program::Lastecho, &["--max-connections", "1"]);
    let mut slow = connect_from("127.0.0.1:0", server.address(), Some(4096));
    let data = noise(300_000, 7);
    slow.write_all(&data).unwrap();
    slow.shutdown(Shutdown::Write).unwrap();
    let mut next = server.connect();
    say(&mut next, b"next");
    assert_hears(&mut next, b"next");
    // It gives the slot back a moment before it lingers.
    eventually("both are there, one of them lingers", || {
        let list = live(&mut server);
        list.contains("live: 2 connections") && list.contains("lingering")
    });
    assert_eq!(read_to_end(&mut slow).unwrap(), data);
}

#[test]
fn at_the_stop_the_limit_gives_way() {
    let mut server = Server::start(
        Program::Lastecho,
        &[
            "--max-connections",
            "1",
            "--delay",
            "2m",
            "--drain-timeout",
            "2m",
        ],
    );
    let mut first = server.connect();
    say(&mut first, b"first");
    eventually("the first is served", || {
        live(&mut server).contains("1 connection")
    });
    let mut second = server.connect();
    say(&mut second, b"second");
    server.signal(Signal::TERM);
    // Both at once, although there is one slot and the first still thinks.
    eventually("both are served", || {
        let list = live(&mut server);
        list.contains("live: 2 connections") && list.matches(" serving, open for ").count() == 2
    });
}

#[test]
fn a_peer_with_too_many_connections_is_closed_politely() {
    let server = Server::start(Program::Lastecho, &["--max-per-peer", "1", "-v"]);
    let mut first = server.connect();
    say(&mut first, b"first");
    assert_hears(&mut first, b"first");
    let mut second = server.connect();
    let _ = second.write_all(b"second");
    let heard = read_to_end(&mut second).expect("FIN, not a reset");
    assert!(heard.is_empty(), "{heard:?}");
    let mut other = connect_from("127.0.0.2:0", server.address(), None);
    say(&mut other, b"another peer");
    assert_hears(&mut other, b"another peer");
    drop((first, second, other));
    let ended = server.stop();
    assert_eq!(ended.count("limited"), 1, "{ended:?}");
    assert_eq!(ended.count("accepted"), 2, "{ended:?}");
    assert_eq!(ended.code(), Some(0));
}

#[test]
fn a_peer_may_come_back_when_its_connection_has_ended() {
    let server = Server::start(Program::Lastecho, &["--max-per-peer", "1"]);
    for _ in 0..20 {
        let mut client = server.connect();
        say(&mut client, b"again");
        client.shutdown(Shutdown::Write).unwrap();
        // Our FIN comes after the slot was given back.
        assert_eq!(read_to_end(&mut client).unwrap(), b"again");
    }
    assert_eq!(server.stop().count("limited"), 0);
}

/// What it asked for is in our send buffer and stays there.
#[test]
fn a_peer_that_takes_nothing_and_half_closes_keeps_its_share() {
    let mut server = Server::start(Program::Lastecho, &["--max-per-peer", "1"]);
    let mut slow = connect_from("127.0.0.1:0", server.address(), Some(4096));
    let data = noise(300_000, 9);
    slow.write_all(&data).unwrap();
    slow.shutdown(Shutdown::Write).unwrap();
    eventually("it lingers", || live(&mut server).contains("lingering"));
    eventually("its share is taken", || {
        let mut next = server.connect();
        let _ = next.write_all(b"next"); // fails where FIN and reset came first
        !matches!(next.read(&mut [0; 4]), Ok(4))
    });
    assert_eq!(read_to_end(&mut slow).unwrap(), data);
    eventually("it has its share back", || {
        let mut next = server.connect();
        let _ = next.write_all(b"next");
        matches!(next.read(&mut [0; 4]), Ok(4))
    });
    assert!(server.stop().count("limited") > 0);
}
