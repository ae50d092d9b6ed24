//! One peer that opens everything, under `--max-per-peer`.

use super::{SLACK, assert_sums, stuff};
use crate::gauge::{Gauge, kib};
use crate::harness::{Program, Server, eventually};
use crate::witness::witnessed;
use crate::{alone, is_long, told};
use std::net::{Shutdown, TcpStream};
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

/// Each sends half a megabyte, half-closes and takes nothing of its echo: the
/// server's part is done, and the kernel holds it all.
#[test]
fn one_peer_that_hoards_echoes_never_has_more_than_twice_its_share() {
    let _machine = alone();
    let size = all() / 10;
    let server = Server::start(
        Program::Lastecho,
        &["--max-per-peer", "4", "--drain-timeout", "1s"],
    );
    let gauge = Gauge::of(&server);
    let descriptors = gauge.descriptors();
    let mut most = 0;
    let (seen, hoard) = witnessed(&server, || {
        let hoarded = (0..size).map(|_| {
            let client = server.connect();
            stuff(std::slice::from_ref(&client), 512 * 1024);
            let _ = client.shutdown(Shutdown::Write); // may have been reset
            most = most.max(gauge.descriptors().saturating_sub(descriptors));
            client
        });
        hoarded.collect::<Vec<_>>()
    });
    // The witness has one, and one that lingers.
    assert!(most <= 2 * SHARE + 2, "{most} at once");
    let ended = server.stop();
    drop(hoard);
    let limited = ended.count("limited");
    assert!(limited >= (size - 2 * SHARE) as u64, "{ended:?}");
    told(
        &format!("one peer hoards the echoes of {size} connections, `--max-per-peer 4`"),
        "never more than 8 of its connections; another peer is served",
        &format!(
            "{most} at once, {limited} turned away; the witness saw {} echoes right",
            seen.echoes
        ),
    );
}
