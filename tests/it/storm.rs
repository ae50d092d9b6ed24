//! A storm of connects through the stop: whoever connected is served to the
//! end, afterwards there are refusals only.

use crate::harness::{Broken, Kept, Program, Server, connect, noise, promise, read_to_end};
use crate::promises::{exits, tells};
use rustix::process::Signal;
use std::cell::Cell;
use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::Barrier;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::thread;
use std::time::{Duration, Instant};

/// Threads that connect again and again.
pub(crate) const CLIENTS: u64 = 12;
/// Refusals that a client must see in a row before it goes home.
const REFUSALS: u32 = 5;
/// The server listens for a client's first word for 100 ms. One that was not
/// let run between the start of its connect and its word for half of that is
/// late.
const LATE: Duration = Duration::from_millis(50);

/// How a client speaks.
#[derive(Clone, Copy)]
enum Manner {
    /// Sends, half-closes, reads to the end.
    Polite,
    /// Sends, reads its answer, closes. The end is its own.
    Brisk,
    /// Sends and never half-closes: only the stop ends it.
    Lasting,
}

const MANNERS: [Manner; 3] = [Manner::Polite, Manner::Brisk, Manner::Lasting];

/// One connection that was made. It must be served whole.
fn converse((mut client, began): (TcpStream, Instant), manner: Manner, data: &[u8]) -> Kept {
    let sent = client.write_all(data);
    let late = began.elapsed() > LATE;
    sent.map_err(|error| Broken::Reset(format!("while sending: {error}")))?;
    let echo = match manner {
        Manner::Polite => {
            // Fails where the server's end is complete already.
            let _ = client.shutdown(Shutdown::Write);
            read_to_end(&mut client)?
        }
        Manner::Brisk => read_some(&mut client, data.len())?,
        Manner::Lasting => read_to_end(&mut client)?,
    };
    // A late one's word came after the stop: it is owed FIN, and had it.
    if echo == data || (late && echo.is_empty()) {
        return Ok(());
    }
    let (got, of) = (echo.len(), data.len());
    Err(Broken::Short(format!("{got} of {of} bytes, then FIN")))
}

fn read_some(client: &mut TcpStream, most: usize) -> Result<Vec<u8>, Broken> {
    let mut some = Vec::new();
    match client.take(most as u64).read_to_end(&mut some) {
        Ok(_) => Ok(some),
        Err(error) => Err(Broken::Reset(format!("{error} after {} bytes", some.len()))),
    }
}

/// A client's life in the storm, until it was refused for good; which must not
/// be before the end.
pub(crate) fn come_and_go(
    address: SocketAddr,
    number: u64,
    served: &AtomicU64,
    ending: &AtomicBool,
) -> Kept {
    let data = noise(200, number);
    // Lasting ones would not come again before the stop: few of them.
    let manners = if number < 3 {
        &MANNERS[..]
    } else {
        &MANNERS[..2]
    };
    let mut refused = 0;
    for manner in manners.iter().cycle() {
        let began = Instant::now();
        match connect(address) {
            Ok(_) if refused > 0 => {
                return Err(Broken::NotTold("connected after a refusal".into()));
            }
            Ok(client) => {
                converse((client, began), *manner, &data)?;
                served.fetch_add(1, SeqCst);
            }
            Err(error) if error.kind() == ErrorKind::ConnectionRefused => {
                if !ending.load(SeqCst) {
                    return Err(Broken::Refused("before the end".into()));
                }
                refused += 1;
            }
            Err(error) => return Err(Broken::Reset(format!("while connecting: {error}"))),
        }
        if refused == REFUSALS {
            break;
        }
    }
    Ok(())
}

fn storm(program: Program, lasts: Duration) -> Kept {
    let mut server = Server::start(program, &["--poll", "100ms"]);
    let (address, served) = (server.address(), AtomicU64::new(0));
    let ending = AtomicBool::new(false);
    let kept: Vec<Kept> = thread::scope(|scope| {
        let (served, ending) = (&served, &ending);
        let clients: Vec<_> = (0..CLIENTS)
            .map(|number| scope.spawn(move || come_and_go(address, number, served, ending)))
            .collect();
        thread::sleep(lasts); // the storm itself
        ending.store(true, SeqCst);
        server.signal(Signal::TERM);
        clients.into_iter().map(|c| c.join().unwrap()).collect()
    });
    let broken = kept.iter().filter(|kept| kept.is_err()).count();
    println!(
        "{program:?}: {} served, {broken} clients broken",
        served.into_inner()
    );
    kept.into_iter().collect::<Kept>()?;
    let ended = server.wait();
    tells(
        &ended,
        &[("clean", "true"), ("refused", "0"), ("bytes_lost", "0")],
    )?;
    exits(&ended, 0)
}

#[test]
fn whoever_connected_is_served_then_there_are_refusals_only() {
    let number = Cell::new(0);
    promise(
        "connect storm",
        8,
        |broken| matches!(broken, Broken::Reset(_)),
        |program| {
            number.set(number.get() + 7);
            storm(program, Duration::from_millis(40 + number.get() % 30))
        },
    );
}

/// They are in the middle of their connects when the signal falls, all at
/// once, and speak only then.
#[test]
fn clients_that_connect_as_the_signal_falls_are_served_or_refused() {
    promise(
        "connects at the signal",
        6,
        |broken| matches!(broken, Broken::Reset(_)),
        |program| {
            let mut server = Server::start(program, &["--poll", "100ms"]);
            let address = server.address();
            let start = Barrier::new(17);
            let kept: Vec<Kept> = thread::scope(|scope| {
                let start = &start;
                let rush = (0..16).map(|number| scope.spawn(move || rush(address, number, start)));
                let rush: Vec<_> = rush.collect();
                start.wait();
                server.signal(Signal::TERM);
                rush.into_iter()
                    .map(|client| client.join().unwrap())
                    .collect()
            });
            kept.into_iter().collect::<Kept>()?;
            let ended = server.wait();
            tells(&ended, &[("clean", "true"), ("bytes_lost", "0")])
        },
    );
}

/// Connects as often as it is let in, up to twenty times, and speaks on all
/// only then.
fn rush(address: SocketAddr, number: u64, start: &Barrier) -> Kept {
    let data = noise(64, number);
    let mut connected = Vec::new();
    start.wait();
    for _ in 0..20 {
        let began = Instant::now();
        match connect(address) {
            Ok(client) => connected.push((client, began)),
            Err(error) if error.kind() == ErrorKind::ConnectionRefused => break,
            Err(error) => return Err(Broken::Reset(format!("while connecting: {error}"))),
        }
    }
    connected
        .into_iter()
        .try_for_each(|client| converse(client, Manner::Polite, &data))
}
