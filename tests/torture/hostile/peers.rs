//! One peer that opens everything, under `--max-per-peer`.

use super::{SLACK, assert_sums, stuff};
use crate::gauge::{Gauge, kib, mib, socket_limits, socket_memory};
use crate::harness::{Program, Server, WATCHDOG, eventually};
use crate::witness::witnessed;
use crate::{alone, is_long, shared, told};
use rustix::process::{Signal, kill_process};
use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

/// What the server allows one peer.
const SHARE: usize = 4;

/// The C library keeps the stacks of threads that ended, 40 MiB at most.
const KEPT_STACKS: u64 = 48 << 20;

/// How many it opens.
fn all() -> usize {
    if is_long() { 2000 } else { 300 }
}

/// Whether the server has sent nothing but FIN. Never blocks.
fn has_fin(client: &TcpStream) -> bool {
    client.set_nonblocking(true).unwrap();
    matches!(client.peek(&mut [0]), Ok(0))
}

/// Connects so often; returns when all beyond the share have been closed.
fn open_everything(server: &Server, size: usize) -> Vec<TcpStream> {
    let clients: Vec<_> = (0..size).map(|_| server.connect()).collect();
    eventually("FIN for all beyond the share", || {
        let closed = clients.iter().filter(|client| has_fin(client));
        closed.count() == size - SHARE
    });
    clients
}

#[test]
fn one_peer_that_opens_everything_has_its_share_and_no_more() {
    let _machine = alone();
    let size = all();
    let server = Server::start(Program::Lastecho, &["--max-per-peer", "4"]);
    let gauge = Gauge::of(&server);
    let (memory, descriptors) = (gauge.memory(), gauge.descriptors());
    let since = Instant::now();
    let (seen, clients) = witnessed(&server, || open_everything(&server, size));
    let took = since.elapsed();
    // The witness's last one may still linger.
    eventually("none but the share", || {
        gauge.descriptors() <= descriptors + SHARE + 1
    });
    let left = gauge.memory().saturating_sub(memory);
    assert!(left < KEPT_STACKS, "{}", kib(left));
    assert!(took < Duration::from_secs(5) + SLACK, "{took:?}");
    let ended = server.stop();
    drop(clients);
    assert_sums(&ended);
    assert_eq!(ended.code(), Some(0), "{ended:?}");
    assert_eq!(ended.count("limited"), (size - SHARE) as u64, "{ended:?}");
    let accepted = SHARE as u64 + seen.connections;
    assert_eq!(ended.count("accepted"), accepted, "{ended:?}");
    told(
        &format!("one peer opens {size} connections and keeps them, `--max-per-peer 4`"),
        "4 are served, the others closed with FIN; another peer is served",
        &format!(
            "all others closed after {took:.1?}, {} of memory left; the witness saw {} echoes \
             right, the slowest {:.0?}",
            kib(left),
            seen.echoes,
            seen.slowest
        ),
    );
}

/// What comes after our FIN is thrown away, for five seconds at most.
#[test]
fn beyond_its_share_a_peer_that_never_stops_sending_is_closed_all_the_same() {
    let _machine = shared();
    let server = Server::start(Program::Lastecho, &["--max-per-peer", "4"]);
    let mut share = [(); SHARE].map(|()| server.connect());
    for client in &mut share {
        client.write_all(b"x").unwrap();
        client.read_exact(&mut [0]).unwrap();
    }
    let mut flood = server.connect();
    let since = Instant::now();
    let (seen, ()) = witnessed(&server, || {
        while flood.write(&[b'x'; 16 * 1024]).is_ok() {
            assert!(since.elapsed() < WATCHDOG, "it is never closed");
            thread::sleep(Duration::from_millis(1)); // leaves the server some processor
        }
    });
    let took = since.elapsed();
    assert!(took < Duration::from_secs(5) + SLACK, "{took:?}");
    let ended = server.stop();
    drop(share);
    assert_sums(&ended);
    assert_eq!(ended.count("limited"), 1, "{ended:?}");
    told(
        "a connection beyond `--max-per-peer` never stops sending",
        "closed 5 s after FIN, what it sends is thrown away",
        &format!(
            "closed after {took:.1?}, {} bytes discarded; the witness saw {} echoes right",
            ended.count("discarded"),
            seen.echoes
        ),
    );
}

/// Connections of the peer 127.0.0.1 that are alive and were not turned away:
/// those that a handler has, or had.
fn alive(server: &Server) -> usize {
    let before = server.stderr().len();
    kill_process(server.pid(), Signal::USR1).unwrap();
    let list = || server.stderr()[before..].to_owned();
    // One record, in one write.
    eventually("the list", || {
        list().contains("] live: ") && list().ends_with('\n')
    });
    let list = list();
    let of_peer = list
        .lines()
        .filter(|line| line.contains("live: connection ") && line.contains(" from 127.0.0.1:"));
    of_peer
        .filter(|line| !line.contains(" 0 bytes in,"))
        .count()
}

/// As many as it wants, each with as much to answer as it wants, and none that
/// reads: what was echoed stays with the server, after the half-close too.
fn open_and_leave(server: &Server, size: usize) -> (Vec<TcpStream>, usize) {
    let mut most = 0;
    let leave = |number| {
        let client = [server.connect()];
        // One that fits the send buffer, so that the handler is done with it,
        // and one that does not.
        stuff(&client, if number % 4 == 3 { 8 << 20 } else { 1 << 20 });
        // Fails where the server has turned it away already.
        let _ = client[0].shutdown(Shutdown::Write);
        most = most.max(alive(server));
        let [client] = client;
        client
    };
    let clients = (0..size).map(leave).collect();
    (clients, most)
}

#[test]
fn one_peer_that_half_closes_and_never_reads_has_its_share_and_no_more() {
    let _machine = alone();
    let size = if is_long() { 200 } else { 30 };
    let options = ["-v", "--max-per-peer", "4", "--drain-timeout", "1s"];
    let server = Server::start(Program::Lastecho, &options);
    let (receive, send) = socket_limits();
    let sockets = socket_memory();
    let (seen, (clients, most)) = witnessed(&server, || open_and_leave(&server, size));
    assert!(most <= 2 * SHARE, "{most} connections of one peer at once");
    let kernel = socket_memory().saturating_sub(sockets);
    // Both ends of a connection are on this machine.
    assert!(
        kernel < 2 * SHARE as u64 * 2 * (receive + send),
        "{}",
        mib(kernel)
    );
    let ended = server.stop();
    drop(clients);
    assert_sums(&ended);
    let (share, size) = (SHARE as u64, size as u64);
    let (limited, cut) = (ended.count("limited"), ended.count("cut"));
    assert!(limited >= size - 2 * share, "{ended:?}");
    assert!((share..=2 * share).contains(&cut), "{ended:?}");
    assert_eq!(ended.code(), Some(3), "{ended:?}");
    told(
        &format!(
            "one peer opens {size} connections, sends up to 8 MiB on each, half-closes and never reads, `--max-per-peer 4`"
        ),
        "never more than 8 are alive, with what they hold in the kernel; the others are closed",
        &format!(
            "{most} alive at most, {} in the kernel for both ends; the witness saw {} echoes right",
            mib(kernel),
            seen.echoes
        ),
    );
}
