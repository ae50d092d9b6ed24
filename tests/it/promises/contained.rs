//! Promise 6: a failure of one connection stays with that connection.

use super::{exits, round_trip, tells};
use crate::harness::{Broken, Kept, Server, WATCHDOG, noise, promise};
use rustix::process::{Resource, Rlimit, Signal, kill_process, prlimit};
use socket2::SockRef;
use std::fs;
use std::io::{self, ErrorKind, Read, Write};
use std::net::TcpStream;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::thread;
use std::time::{Duration, Instant};

fn is_death(broken: &Broken) -> bool {
    matches!(broken, Broken::Died(_))
}

/// Ends the connection with RST, with or without bytes in flight.
fn reset(mut client: TcpStream, bytes: &[u8]) {
    let _ = client.write_all(bytes);
    SockRef::from(&client)
        .set_linger(Some(Duration::ZERO))
        .unwrap();
}

/// Tells the bystander to go home, also when a test panics.
struct Over<'a>(&'a AtomicBool);

impl Drop for Over<'_> {
    fn drop(&mut self) {
        self.0.store(true, SeqCst);
    }
}

/// Checks echoes on a connection of its own while `trouble` goes on elsewhere.
fn beside(server: &Server, trouble: impl FnOnce() -> Kept) -> Kept {
    let over = AtomicBool::new(false);
    let mut client = server.connect();
    thread::scope(|scope| {
        let bystander = scope.spawn(|| {
            let mut seed = 0;
            while !over.load(SeqCst) {
                seed += 1;
                round_trip(&mut client, &noise(300, seed))?;
            }
            Ok(seed)
        });
        let go_home = Over(&over);
        trouble()?;
        drop(go_home);
        let trips = bystander.join().unwrap()?;
        println!("{trips} round trips beside the trouble");
        Ok(())
    })
}

#[test]
fn resets_of_others_are_not_noticed() {
    promise("resets", 1, is_death, |program| {
        let mut server = Server::start(program, &["--poll", "100ms"]);
        beside(&server, || {
            let unread = noise(100_000, 1);
            for number in 0..200 {
                reset(server.connect(), &unread[..number % 5 * 25_000]);
            }
            round_trip(&mut server.connect(), b"a new client")
        })?;
        assert!(server.is_running());
        let ended = server.stop();
        if ended.code() != Some(0) {
            let how = ended.stderr.lines().next().unwrap_or_default();
            return Err(Broken::Died(format!("{}: {how}", ended.status)));
        }
        // Some clients were gone before they were accepted; they count too.
        tells(&ended, &[("accepted", "202"), ("panicked", "0")])?;
        exits(&ended, 0)
    });
}

/// Twenty clients find six descriptors; they are served when others leave.
#[test]
fn a_lack_of_descriptors_only_makes_clients_wait() {
    promise("no descriptors", 1, is_death, |program| {
        let server = Server::start(program, &["--poll", "100ms"]);
        beside(&server, || {
            // All are connected before the first can be accepted.
            kill_process(server.pid(), Signal::STOP).unwrap();
            lower_descriptors(&server, 6);
            let mut clients: Vec<_> = (0..20).map(|_| server.connect()).collect();
            kill_process(server.pid(), Signal::CONT).unwrap();
            for client in &mut clients {
                let sent = client.write_all(b"waiting");
                sent.or_else(|error| lost(&server, &error))?;
            }
            server.await_log("Too many open files");
            for client in clients {
                echoes(client, &server, b"waiting")?;
            }
            Ok(())
        })?;
        let ended = server.stop();
        tells(&ended, &[("accepted", "21"), ("clean", "true")])?;
        exits(&ended, 0)
    });
}

/// Leaves the server so many descriptors more than it has open.
fn lower_descriptors(server: &Server, more: u64) {
    let directory = format!("/proc/{}/fd", server.pid().as_raw_nonzero());
    let open = fs::read_dir(directory).unwrap().count() as u64;
    let limit = Rlimit {
        current: Some(open + more),
        maximum: Some(open + more),
    };
    prlimit(Some(server.pid()), Resource::Nofile, limit).unwrap();
}

/// Waits for the echo for as long as the server is alive.
fn echoes(mut client: TcpStream, server: &Server, owed: &[u8]) -> Kept {
    let slice = Duration::from_millis(50);
    client.set_read_timeout(Some(slice)).unwrap();
    let patience = Instant::now() + WATCHDOG;
    let mut echo = Vec::new();
    while echo.len() < owed.len() && Instant::now() < patience {
        let mut part = [0; 64];
        match client.read(&mut part) {
            Ok(count) if count > 0 => echo.extend_from_slice(&part[..count]),
            Err(error) if error.kind() == ErrorKind::WouldBlock => alive(server)?,
            Err(error) => lost(server, &error)?,
            Ok(_) => return Err(Broken::Short("FIN while waiting".into())),
        }
    }
    assert_eq!(echo, owed);
    Ok(())
}

/// A connection was lost: with the server, or alone.
fn lost(server: &Server, error: &io::Error) -> Kept {
    alive(server)?;
    Err(Broken::Reset(format!("while waiting: {error}")))
}

fn alive(server: &Server) -> Kept {
    let log = server.stderr();
    match log.split_once("panicked") {
        Some((_, how)) => Err(Broken::Died(how.lines().take(2).collect())),
        None => Ok(()),
    }
}

/// The control gives up writing after one poll interval, and ends with a panic.
#[test]
fn a_client_that_never_reads_is_not_noticed() {
    promise("never reads", 1, is_death, |program| {
        let server = Server::start(program, &["--poll", "50ms", "--drain-timeout", "500ms"]);
        let mut stuck = server.connect();
        // The control resets it: not the promise that is tried here.
        let _ = super::flood(&mut stuck, &noise(1 << 16, 3));
        beside(&server, || {
            round_trip(&mut server.connect(), b"a new client")
        })?;
        let ended = server.stop();
        match ended.code() {
            Some(3) => tells(&ended, &[("cut", "1"), ("panicked", "0")]),
            _ => Err(Broken::Died(ended.status.to_string())),
        }
    });
}
