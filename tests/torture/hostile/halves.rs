//! Connections of which one half is closed.

use super::{SLACK, assert_sums, await_ends, stuff};
use crate::gauge::queued;
use crate::harness::{Broken, Kept, Program, Server, eventually, noise, promise, read_to_end};
use crate::witness::witnessed;
use crate::{shared, told};
use std::io::Write;
use std::net::Shutdown;
use std::thread;
use std::time::{Duration, Instant};

const CLIENTS: usize = 20;
/// So much that it fits the server's send buffer: the handler is done, and the
/// connection lingers.
const FITS: usize = 512 << 10;

/// Sends, half-closes, sleeps for several poll intervals, and reads to the end.
fn late_reader(program: Program) -> Kept {
    let server = Server::start(program, &["--poll", "50ms"]);
    // More than the kernels hold, so that the server has to wait.
    let data = noise(32 << 20, 11);
    let mut client = server.connect();
    let mut sender = client.try_clone().unwrap();
    let echo = thread::scope(|scope| {
        scope.spawn(|| {
            // Fails where the server gives up.
            let _ = sender.write_all(&data);
            let _ = sender.shutdown(Shutdown::Write);
        });
        client.peek(&mut [0]).unwrap();
        thread::sleep(Duration::from_millis(300));
        read_to_end(&mut client)
    })?;
    if echo != data {
        let (got, of) = (echo.len(), data.len());
        return Err(Broken::Short(format!("{got} of {of} bytes, then FIN")));
    }
    if program == Program::Lastecho {
        let ended = server.stop();
        assert_eq!(ended.count("bytes_out"), data.len() as u64, "{ended:?}");
    }
    Ok(())
}

#[test]
fn a_client_that_half_closes_and_reads_late_gets_everything() {
    let _machine = shared();
    let lost = |broken: &Broken| matches!(broken, Broken::Short(_) | Broken::Reset(_));
    let since = Instant::now();
    promise("a late reader", 3, lost, late_reader);
    told(
        "a client half-closes, and reads only after several poll intervals",
        "every byte, then FIN; the control loses some",
        &format!(
            "3 times 32 MiB exact, {:.1?} with the control",
            since.elapsed()
        ),
    );
}

#[test]
fn half_closers_that_never_read_are_ended_by_the_idle_timeout() {
    let _machine = shared();
    let idle = Duration::from_secs(1);
    let server = Server::start(Program::Lastecho, &["-v", "--idle-timeout", "1s"]);
    let mut took = Duration::ZERO;
    let (seen, ()) = witnessed(&server, || {
        let clients: Vec<_> = (0..CLIENTS).map(|_| server.connect()).collect();
        assert_eq!(stuff(&clients, FITS), (FITS, FITS));
        for client in &clients {
            client.shutdown(Shutdown::Write).unwrap();
        }
        let since = Instant::now();
        await_ends(&server, "linger ran out", CLIENTS);
        took = since.elapsed();
        eventually("the kernel's end of them", || queued(&server) == 0);
        drop(clients);
    });
    assert!(took < idle + SLACK, "{took:?}");
    let ended = server.stop();
    assert_sums(&ended);
    assert_eq!(ended.count("expired"), CLIENTS as u64, "{ended:?}");
    told(
        &format!(
            "{CLIENTS} clients that send 512 KiB, half-close and never read, `--idle-timeout 1s`"
        ),
        "their linger ends with the timeout, counted as expired, nothing left in the kernel",
        &format!(
            "all closed after {took:.1?}; the witness saw {} echoes right",
            seen.echoes
        ),
    );
}

/// The control of the test above: without the timeout, the drain deadline.
#[test]
fn half_closers_that_never_read_stay_without_it_until_the_drain_deadline() {
    let _machine = shared();
    let server = Server::start(Program::Lastecho, &["-v", "--drain-timeout", "1s"]);
    let client = [server.connect()];
    assert_eq!(stuff(&client, FITS), (FITS, FITS));
    client[0].shutdown(Shutdown::Write).unwrap();
    thread::sleep(Duration::from_secs(2)); // twice the timeout of the other test
    assert!(!server.stderr().contains("bytes out: "), "it was closed");
    let ended = server.stop();
    drop(client);
    assert_sums(&ended);
    assert_eq!(
        (ended.code(), ended.count("cut")),
        (Some(3), 1),
        "{ended:?}"
    );
    assert!(ended.took < Duration::from_secs(1) + SLACK, "{ended:?}");
    told(
        "a client that sends 512 KiB, half-closes and never reads, no `--idle-timeout`",
        "it stays, until the drain deadline (here 1 s) cuts it",
        &format!("the stop took {:.2?}", ended.took),
    );
}

/// Connections that ended, of clients on 127.0.0.1: all but the witness's.
fn ends(log: &str) -> usize {
    let ends = log.lines().filter(|line| line.contains("bytes out: "));
    ends.filter(|line| line.contains("from 127.0.0.1:")).count()
}

#[test]
fn clients_that_shut_their_reading_half_are_served_or_reset_themselves() {
    let _machine = shared();
    let server = Server::start(Program::Lastecho, &["-v"]);
    let (seen, ()) = witnessed(&server, || {
        let client = |number| {
            let mut client = server.connect();
            client.shutdown(Shutdown::Read).unwrap();
            client.write_all(&noise(1000 * number, 12)).unwrap();
            client.shutdown(Shutdown::Write).unwrap();
            client
        };
        let clients: Vec<_> = (0..CLIENTS).map(client).collect();
        eventually("their end", || ends(&server.stderr()) >= CLIENTS);
        drop(clients);
    });
    let ended = server.stop();
    assert_sums(&ended);
    assert_eq!(ended.code(), Some(0), "{ended:?}");
    let accepted = CLIENTS as u64 + seen.connections;
    assert_eq!(ended.count("accepted"), accepted, "{ended:?}");
    told(
        &format!("{CLIENTS} clients shut their reading half, send, and shut the other"),
        "each ends at once, by FIN or by the client's own reset, and its bytes are told",
        &format!(
            "{} reset, {} bytes lost, the stop clean; the witness saw {} echoes right",
            ended.count("reset"),
            ended.count("bytes_lost"),
            seen.echoes
        ),
    );
}
