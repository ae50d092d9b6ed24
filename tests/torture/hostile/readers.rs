//! Clients that send and never read.

use super::{COST, SLACK, assert_sums, await_ends, stuff};
use crate::gauge::{Gauge, kib, mib, queued, socket_limits, socket_memory};
use crate::harness::{Program, Server, eventually};
use crate::witness::witnessed;
use crate::{alone, told};
use std::net::TcpStream;
use std::time::{Duration, Instant};

const CLIENTS: usize = 20;
/// More than both ends' kernels hold of one connection.
const MOST: usize = 256 << 20;

/// Connections that are stuck: nothing moves any more.
fn stuck(server: &Server) -> Vec<TcpStream> {
    let clients: Vec<_> = (0..CLIENTS).map(|_| server.connect()).collect();
    let (least, most) = stuff(&clients, MOST);
    assert!(least > 0 && most < MOST, "{least} to {most} bytes taken");
    clients
}

#[test]
fn never_readers_cost_one_buffer_each_and_the_kernels() {
    let _machine = alone();
    let mut server = Server::start(Program::Lastecho, &["--drain-timeout", "1s"]);
    let gauge = Gauge::of(&server);
    let (before, sockets) = (gauge.memory(), socket_memory());
    let (seen, clients) = witnessed(&server, || stuck(&server));
    let memory = (gauge.memory() - before) / CLIENTS as u64;
    let kernel = socket_memory().saturating_sub(sockets) / CLIENTS as u64;
    let (receive, send) = socket_limits();
    assert!(memory < COST, "{}", kib(memory));
    // Both ends of a connection are on this machine.
    assert!(kernel < 2 * (receive + send), "{}", mib(kernel));
    assert!(server.is_running(), "without an idle timeout they stay");
    let ended = server.stop();
    drop(clients);
    assert_sums(&ended);
    assert_eq!(ended.code(), Some(3), "{ended:?}");
    assert_eq!(ended.count("cut"), CLIENTS as u64, "{ended:?}");
    assert!(ended.took >= Duration::from_secs(1), "{ended:?}");
    assert!(ended.took < Duration::from_secs(1) + SLACK, "{ended:?}");
    told(
        &format!("{CLIENTS} clients that send as much as is taken and never read"),
        "one buffer each, the kernel's within its limits; the drain deadline (here 1 s) cuts them",
        &format!(
            "{} of memory each, {} in the kernel for both ends (limit of one end: {}); the stop \
             took {:.1?}; the witness's slowest echo {:.0?}",
            kib(memory),
            mib(kernel),
            mib(receive + send),
            ended.took,
            seen.slowest
        ),
    );
}

/// One idle timeout in the write, another one for what is still unacknowledged.
/// Then nothing of it is left, in the kernel neither: a socket that is closed
/// with bytes in its send queue would keep them for minutes.
#[test]
fn never_readers_are_ended_by_the_idle_timeout() {
    let _machine = alone();
    let idle = Duration::from_secs(1);
    let server = Server::start(Program::Lastecho, &["-v", "--idle-timeout", "1s"]);
    let mut took = Duration::ZERO;
    let (seen, ()) = witnessed(&server, || {
        let clients = stuck(&server);
        let since = Instant::now();
        assert!(queued(&server) > 0, "nothing is stuck");
        await_ends(&server, "idle timeout", CLIENTS);
        took = since.elapsed();
        eventually("the kernel's end of them", || queued(&server) == 0);
        drop(clients);
    });
    assert!(took < 3 * idle + SLACK, "{took:?}");
    let ended = server.stop();
    assert_sums(&ended);
    assert_eq!(ended.count("idle"), CLIENTS as u64, "{ended:?}");
    told(
        &format!("{CLIENTS} clients that never read, `--idle-timeout 1s`"),
        "closed within three idle timeouts, counted as idle, nothing left in the kernel",
        &format!(
            "all closed {took:.1?} after the last was stuck; {} of {} bytes lost, all told; the \
             witness saw {} echoes right",
            ended.count("bytes_lost"),
            ended.count("bytes_in"),
            seen.echoes
        ),
    );
}
