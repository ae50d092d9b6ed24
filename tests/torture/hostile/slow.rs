//! Senders of one byte a second: they are served as long as they move, and
//! what ends them is an idle timeout shorter than their pauses.

use super::{COST, SLACK, assert_sums};
use crate::gauge::{Gauge, kib};
use crate::harness::{Program, Server, read_to_end};
use crate::witness::{Seen, witnessed};
use crate::{is_long, shared, told};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::thread;
use std::time::{Duration, Instant};

const CLIENTS: usize = 200;
const PAUSE: Duration = Duration::from_secs(1);

fn clients(server: &Server) -> Vec<TcpStream> {
    (0..CLIENTS).map(|_| server.connect()).collect()
}

/// So many bytes of each, a second apart, each of which comes back.
fn trickle(clients: &mut [TcpStream], bytes: u8) {
    for byte in 0..bytes {
        for client in &mut *clients {
            client.write_all(&[byte]).unwrap();
        }
        for client in &mut *clients {
            let mut echo = [!byte];
            client.read_exact(&mut echo).unwrap();
            assert_eq!(echo, [byte]);
        }
        thread::sleep(PAUSE);
    }
}

/// They stay under these options, and the stop ends them. The memory of each,
/// what the witness saw, and how long the stop took.
fn stay(options: &[&str]) -> (u64, Seen, Duration) {
    let bytes = if is_long() { 20 } else { 3 };
    let server = Server::start(Program::Lastecho, options);
    let gauge = Gauge::of(&server);
    let before = gauge.memory();
    let mut clients = clients(&server);
    let (seen, ()) = witnessed(&server, || trickle(&mut clients, bytes));
    let memory = (gauge.memory() - before) / CLIENTS as u64;
    let ended = server.stop();
    for client in &mut clients {
        assert_eq!(read_to_end(client).unwrap(), b"", "FIN, no reset");
    }
    assert_sums(&ended);
    assert_eq!(
        (ended.code(), ended.count("idle")),
        (Some(0), 0),
        "{ended:?}"
    );
    let bytes_in = CLIENTS as u64 * u64::from(bytes) + seen.bytes;
    assert_eq!(ended.count("bytes_in"), bytes_in, "{ended:?}");
    (memory, seen, ended.took)
}

#[test]
fn slow_senders_stay_as_long_as_they_move() {
    let _machine = shared();
    let (memory, seen, stop) = stay(&[]);
    let (_, _, with_timeout) = stay(&["--idle-timeout", "30s"]);
    assert!(memory < COST, "{}", kib(memory));
    assert!(stop.max(with_timeout) < PAUSE + SLACK, "{stop:?}");
    told(
        &format!(
            "{CLIENTS} senders of 1 byte a second, without `--idle-timeout` and with a longer one"
        ),
        "every byte echoed, a thread each, ended by the stop with FIN",
        &format!(
            "{} of memory each; the stop took {stop:.1?}; the witness's slowest echo {:.0?}",
            kib(memory),
            seen.slowest
        ),
    );
}

#[test]
fn slow_senders_are_ended_by_a_shorter_idle_timeout() {
    let _machine = shared();
    let idle = Duration::from_millis(800);
    let server = Server::start(Program::Lastecho, &["--idle-timeout", "800ms"]);
    let since = Instant::now();
    let (seen, ()) = witnessed(&server, || {
        // At once: its time runs from its acceptance.
        let client = |_| {
            let mut client = server.connect();
            client.write_all(b"x").unwrap();
            client
        };
        let mut clients: Vec<_> = (0..CLIENTS).map(client).collect();
        for client in &mut clients {
            assert_eq!(read_to_end(client).unwrap(), b"x");
        }
    });
    let took = since.elapsed();
    assert!(took >= idle && took < idle + SLACK, "{took:?}");
    let ended = server.stop();
    assert_sums(&ended);
    assert_eq!(ended.count("idle"), CLIENTS as u64, "{ended:?}");
    told(
        &format!("{CLIENTS} senders of 1 byte a second, `--idle-timeout 800ms`"),
        "each gets its echo, then FIN, within the timeout",
        &format!(
            "all ended {took:.1?} after their byte; the witness saw {} echoes right",
            seen.echoes
        ),
    );
}
