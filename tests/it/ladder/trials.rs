//! What can go wrong at a stop, each tried on one step's program.

use super::{Seen, program};
use crate::harness::{Ended, Server, eventually, noise};
use rustix::process::Signal;
use std::fmt;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::os::unix::process::ExitStatusExt;
use std::sync::LazyLock;
use std::thread;
use std::time::{Duration, Instant};

/// The first step whose stop has a deadline, and how long that is.
const WITH_DEADLINE: usize = 7;
const DEADLINE: Duration = Duration::from_secs(4);

/// What clients that send without end send, again and again.
static BYTES: LazyLock<Vec<u8>> = LazyLock::new(|| noise(1 << 20, 8));

fn start(step: usize) -> Server {
    Server::spawn(program(step), 1)
}

/// A client whose first line the server has read and not yet answered.
fn at_work(server: &Server) -> TcpStream {
    let mut client = server.connect();
    client.write_all(b"hello\n").unwrap();
    server.await_log("working");
    client
}

/// A client that has sent so much, and read nothing, that the server is blocked
/// in a write.
fn stuck(server: &Server) -> TcpStream {
    let mut client = at_work(server);
    client.peek(&mut [0]).expect("the first echo");
    let second = Some(Duration::from_secs(1));
    client.set_write_timeout(second).unwrap();
    // Twice: the first time it may be we who were not awake for a second.
    let (mut at, mut failures) = (0, 0);
    while failures < 2 {
        match client.write(&BYTES[at..]) {
            Ok(count) => (at, failures) = ((at + count) % BYTES.len(), 0),
            Err(_) => failures += 1,
        }
    }
    client
}

/// Interrupts a server that works for a client. False if it has answered by
/// then: the signal came too late.
fn interrupt(server: &mut Server, client: &TcpStream) -> bool {
    server.signal(Signal::INT);
    eventually("the signal is taken", || {
        !server.is_running() || sleeps(server)
    });
    client.set_nonblocking(true).unwrap();
    let has_answer = client.peek(&mut [0]).is_ok_and(|count| count > 0);
    client.set_nonblocking(false).unwrap();
    !has_answer
}

fn too_late() -> Seen {
    Seen::Late("the answer was there before the signal".into())
}

/// Neither grace nor the flaw: a failure, unless the deadline of the stop has
/// passed, which is longer than any of this takes.
fn otherwise(step: usize, ended: &Ended, what: impl fmt::Debug) -> Seen {
    let what = format!("step {step}: {what:?}, {ended:?}");
    if step >= WITH_DEADLINE && ended.took >= DEADLINE {
        Seen::Late(what)
    } else {
        Seen::Other(what)
    }
}

/// All that a client still gets, and how that ended.
fn rest(client: &mut TcpStream) -> (Vec<u8>, Option<ErrorKind>) {
    read_on(client, Vec::new())
}

/// The same for a client on a slow line: until the server has ended, it reads
/// some 10 MB/s.
fn rest_slowly(client: &mut TcpStream, server: &mut Server) -> (Vec<u8>, Option<ErrorKind>) {
    let mut all = Vec::new();
    let mut next = Instant::now();
    while server.is_running() {
        let mut part = [0; 65_536];
        match client.read(&mut part) {
            Ok(count) => all.extend(&part[..count]),
            Err(error) => return (all, Some(error.kind())),
        }
        next += Duration::from_millis(6);
        thread::sleep(next.saturating_duration_since(Instant::now()));
    }
    read_on(client, all)
}

fn read_on(client: &mut TcpStream, mut all: Vec<u8>) -> (Vec<u8>, Option<ErrorKind>) {
    let end = client.read_to_end(&mut all);
    (all, end.err().map(|error| error.kind()))
}

fn ends_within(server: &mut Server, patience: Duration) -> bool {
    let until = Instant::now() + patience;
    while server.is_running() {
        if Instant::now() > until {
            return false;
        }
        thread::sleep(Duration::from_millis(2));
    }
    true
}

/// Whether the server's first thread is blocked (proc_pid_stat(5)).
fn sleeps(server: &Server) -> bool {
    let pid = server.pid().as_raw_nonzero();
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    stat.rsplit_once(") ")
        .is_some_and(|(_, rest)| rest.starts_with('S'))
}

/// The number that the server says it has echoed to its only client.
fn echoed(stderr: &str) -> Option<usize> {
    let line = stderr
        .lines()
        .find_map(|line| line.strip_prefix("echoed "))?;
    line.strip_suffix(" bytes")?.parse().ok()
}

/// Ctrl-C while an echo is being made: it comes back, whole.
pub(super) fn mid_echo(step: usize, _: Duration) -> Seen {
    let mut server = start(step);
    let mut client = at_work(&server);
    // On its way back from this client, step 2 would look at its flag once.
    eventually("accept is blocked", || sleeps(&server));
    if !interrupt(&mut server, &client) {
        return too_late();
    }
    let mut echo = [0; 6];
    match client.read_exact(&mut echo) {
        Ok(()) if echo == *b"hello\n" => {}
        Ok(()) => return Seen::Other(format!("{echo:?}")),
        Err(error) if error.kind() == ErrorKind::WouldBlock => {
            return Seen::Other(error.to_string());
        }
        Err(_) => return Seen::Flaw,
    }
    drop(client);
    // That it does not end is step 2's own flaw.
    if step <= 2 {
        return Seen::Grace;
    }
    match server.wait() {
        ended if ended.code() == Some(0) => Seen::Grace,
        ended => otherwise(step, &ended, "no clean end"),
    }
}

/// Ctrl-C while no client comes: the server ends.
pub(super) fn nobody_comes(step: usize, patience: Duration) -> Seen {
    let mut server = start(step);
    // Between "listening" and accept, step 2 would look at its flag once.
    eventually("accept is blocked", || sleeps(&server));
    server.signal(Signal::INT);
    if !ends_within(&mut server, patience) {
        let _client = server.connect();
        return match server.wait().code() {
            Some(0) => Seen::Flaw,
            code => Seen::Other(format!("status {code:?}")),
        };
    }
    match server.wait() {
        ended if ended.code() == Some(0) && ended.stdout.starts_with("stopped") => Seen::Grace,
        ended => Seen::Other(format!("{ended:?}")),
    }
}

/// Another signal, after a Ctrl-C that led to nothing.
pub(super) fn quit(step: usize) -> Seen {
    let mut server = start(step);
    eventually("accept is blocked", || sleeps(&server));
    server.signal(Signal::INT);
    eventually("the signal is taken", || sleeps(&server));
    server.signal(Signal::QUIT);
    match server.wait().status.signal() {
        Some(quit) if quit == Signal::QUIT.as_raw() => Seen::Grace,
        other => Seen::Other(format!("{other:?}")),
    }
}

/// Ctrl-C while a client sits there and says nothing: the server ends, and
/// tells the client the end.
pub(super) fn idle(step: usize, patience: Duration) -> Seen {
    let mut server = start(step);
    let mut client = at_work(&server);
    let mut echo = [0; 6];
    client.read_exact(&mut echo).unwrap();
    server.signal(Signal::INT);
    if !ends_within(&mut server, patience) {
        drop(client);
        return match server.wait().code() {
            Some(0) => Seen::Flaw,
            code => Seen::Other(format!("status {code:?}")),
        };
    }
    let ended = server.wait();
    match (rest(&mut client), ended.code()) {
        ((bytes, None), Some(0)) if bytes.is_empty() => Seen::Grace,
        other => otherwise(step, &ended, other),
    }
}

/// Ctrl-C while a client sends, and reads slowly: it gets every byte that the server echoed, and
/// an orderly end.
pub(super) fn in_flight(step: usize, _: Duration) -> Seen {
    let mut server = start(step);
    let mut client = stuck(&server);
    server.signal(Signal::INT);
    let (bytes, error) = rest_slowly(&mut client, &mut server);
    let sent = b"hello\n".iter().chain(BYTES.iter().cycle());
    if !bytes.iter().eq(sent.take(bytes.len())) {
        return Seen::Other("other bytes than were sent".into());
    }
    drop(client);
    let ended = server.wait();
    match (echoed(&ended.stderr), error) {
        (Some(echoed), None) if echoed == bytes.len() => Seen::Grace,
        (Some(echoed), Some(ErrorKind::ConnectionReset)) if echoed > bytes.len() => Seen::Flaw,
        other => otherwise(step, &ended, (bytes.len(), other)),
    }
}

/// Ctrl-C while a client is owed more than it takes: the server ends, and tells
/// that it cut one.
pub(super) fn never_reads(step: usize, patience: Duration) -> Seen {
    let mut server = start(step);
    let client = stuck(&server);
    server.signal(Signal::INT);
    if !ends_within(&mut server, patience) {
        drop(client);
        return match server.wait().code() {
            Some(0) => Seen::Flaw,
            code => Seen::Other(format!("status {code:?}")),
        };
    }
    match server.wait() {
        ended if ended.code() == Some(3) && ended.count("cut") == 1 => Seen::Grace,
        ended => Seen::Other(format!("{ended:?}")),
    }
}

/// Ctrl-C while one line is worked on and the next has arrived: both are
/// answered.
pub(super) fn unread(step: usize, _: Duration) -> Seen {
    let mut server = start(step);
    let mut client = at_work(&server);
    client.write_all(b"again\n").unwrap();
    if !interrupt(&mut server, &client) {
        return too_late();
    }
    let (bytes, error) = rest(&mut client);
    let ended = server.wait();
    match (bytes.as_slice(), error, ended.code(), ended.count("cut")) {
        (b"hello\nagain\n", None, Some(0), 0) => Seen::Grace,
        (b"hello\n", None, Some(0), 0) => Seen::Flaw,
        other => otherwise(step, &ended, other),
    }
}

/// Ctrl-C while clients wait to be accepted: they are served. The server is
/// frozen meanwhile, or it would accept them at once.
pub(super) fn queued(step: usize, _: Duration) -> Seen {
    let mut server = start(step);
    server.signal(Signal::STOP);
    let mut clients: Vec<_> = (0..4).map(|_| server.connect()).collect();
    for client in &mut clients {
        client.write_all(b"hello\n").unwrap();
    }
    server.signal(Signal::INT);
    server.signal(Signal::CONT);
    let ends: Vec<_> = clients.iter_mut().map(rest).collect();
    let served =
        |(bytes, error): &(Vec<u8>, Option<ErrorKind>)| bytes == b"hello\n" && error.is_none();
    let reset = |(_, error): &(Vec<u8>, _)| *error == Some(ErrorKind::ConnectionReset);
    let ended = server.wait();
    match ended.code() {
        Some(0) if ends.iter().all(served) => Seen::Grace,
        Some(0) if ends.iter().any(reset) => Seen::Flaw,
        _ => otherwise(step, &ended, ends),
    }
}

/// No Ctrl-C: three lines and a megabyte come back, another client's reset is
/// its own.
pub(super) fn nobody_stops(step: usize) -> Seen {
    let server = start(step);
    let mut client = at_work(&server);
    let mut leaving = server.connect();
    leaving.write_all(b"hello\n").unwrap();
    drop(leaving); // resets when its echo comes
    let mut echo = [0; 6];
    for _ in 0..3 {
        client.read_exact(&mut echo).unwrap();
        client.write_all(b"again\n").unwrap();
    }
    client.read_exact(&mut echo).unwrap();
    let mut sender = client.try_clone().unwrap();
    let mut bytes = Vec::new();
    let end: io::Result<usize> = thread::scope(|scope| {
        scope.spawn(move || {
            sender.write_all(&BYTES).unwrap();
            sender.shutdown(Shutdown::Write).unwrap();
        });
        client.read_to_end(&mut bytes)
    });
    eventually("the last words", || server.stderr().contains("echoed "));
    match end {
        Ok(_) if bytes == *BYTES && echo == *b"again\n" => Seen::Grace,
        end => Seen::Other(format!("step {step}: {} bytes, {end:?}", bytes.len())),
    }
}
