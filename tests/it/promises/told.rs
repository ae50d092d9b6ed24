//! Promise 5: the outcome is told, and it is what the clients saw.

use super::{exits, flood, is_flood, take_all, tells};
use crate::harness::{Broken, Ended, Kept, Program, Server, noise, promise};
use rustix::process::Signal;
use std::net::TcpStream;
use std::process::Command;
use std::thread;

fn is_told_wrongly(broken: &Broken) -> bool {
    matches!(broken, Broken::NotTold(_))
}

/// What the clients got is what the server says that it gave out, where nobody
/// was cut, and between that and what it took in otherwise.
fn sums_hold(ended: &Ended, got: usize) -> Kept {
    if ended.told.is_empty() {
        return Err(Broken::NotTold(format!("nothing, {}", ended.status)));
    }
    let (taken, given) = (ended.count("bytes_in"), ended.count("bytes_out"));
    let got = got as u64;
    let clean = ended.told["clean"] == "true";
    let fits = if clean {
        (got, got) == (taken, given)
    } else {
        (given..=taken).contains(&got)
    };
    if fits && ended.count("bytes_lost") == taken - given {
        return Ok(());
    }
    let line = ended.stdout.trim_end();
    Err(Broken::NotTold(format!("{got} bytes received, {line:?}")))
}

/// The stop falls into writes that are blocked, then the clients read. The
/// control believes that what it wrote has arrived, and resets it away; 30 s
/// keep its writes from giving up before that.
#[test]
fn where_nothing_was_cut_the_sums_are_what_clients_received() {
    promise("sums of a clean stop", 2, is_told_wrongly, |program| {
        let mut server = Server::start(program, &["--poll", "30s"]);
        let mut clients: Vec<_> = (0..3).map(|_| server.connect()).collect();
        let block = flood_all(&mut clients);
        server.signal(Signal::TERM);
        let got = received(&mut clients, &block);
        drop(clients);
        let ended = server.wait();
        sums_hold(&ended, got)?;
        let outcome = [("accepted", "3"), ("drained", "3"), ("clean", "true")];
        tells(&ended, &outcome)?;
        exits(&ended, 0)
    });
}

/// Clients that never read are cut, idle ones are drained.
#[test]
fn cut_and_drained_connections_are_told() {
    promise("cut and drained", 1, is_told_wrongly, |program| {
        let options = ["--poll", "100ms", "--drain-timeout", "600ms"];
        let mut server = Server::start(program, &options);
        let mut floods: Vec<_> = (0..2).map(|_| server.connect()).collect();
        let mut idle: Vec<_> = (0..3).map(|_| server.connect()).collect();
        for client in &mut idle {
            super::round_trip(client, b"idle")?;
        }
        let block = flood_all(&mut floods);
        server.signal(Signal::TERM);
        let ended = server.wait();
        let got = received(&mut floods, &block) + 3 * b"idle".len();
        sums_hold(&ended, got)?;
        let outcome = [("cut", "2"), ("drained", "3"), ("refused", "0")];
        tells(&ended, &outcome)?;
        exits(&ended, 3)
    });
}

/// Forty descriptors less the reserve carry eight connections. The others
/// connect, wait, and cannot be served before the deadline.
#[test]
fn clients_that_could_not_be_served_are_told() {
    promise("refused", 1, is_told_wrongly, |program| {
        let mut server = limited(program, &["--poll", "100ms", "--drain-timeout", "500ms"]);
        let mut floods: Vec<_> = (0..8).map(|_| server.connect()).collect();
        let block = flood_all(&mut floods);
        let waiting: Vec<_> = (0..5).map(|_| server.connect()).collect();
        server.signal(Signal::TERM);
        let ended = server.wait();
        drop(waiting);
        sums_hold(&ended, received(&mut floods, &block))?;
        let outcome = [("cut", "8"), ("refused", "5"), ("accepted", "8")];
        tells(&ended, &outcome)?;
        exits(&ended, 3)
    });
}

fn limited(program: Program, options: &[&str]) -> Server {
    let mut command = Command::new("sh");
    command.args(["-c", "ulimit -n 40; exec \"$0\" \"$@\""]);
    command.arg(program.path()).args(options).arg("127.0.0.1:0");
    Server::spawn(command, 1)
}

/// Fills every client's connection until it is stuck; returns what was sent
/// over and over.
fn flood_all(clients: &mut [TcpStream]) -> Vec<u8> {
    let block = noise(1 << 16, 6);
    thread::scope(|scope| {
        for client in clients {
            // Where the control resets it, its words are tried, not its ends.
            scope.spawn(|| flood(client, &block));
        }
    });
    block
}

/// How much these clients got, checked.
fn received(clients: &mut [TcpStream], block: &[u8]) -> usize {
    thread::scope(|scope| {
        let readers: Vec<_> = clients
            .iter_mut()
            .map(|client| scope.spawn(|| take_all(client).0))
            .collect();
        let echoes = readers.into_iter().map(|reader| reader.join().unwrap());
        let lengths = echoes.map(|echo| {
            assert!(is_flood(&echo, block), "an echo was not what was sent");
            echo.len()
        });
        lengths.sum()
    })
}
