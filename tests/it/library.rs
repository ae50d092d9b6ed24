//! The library in process: what its user may rely on.

mod arguments;
mod embedded;
mod events;
mod floods;
mod handlers;
mod hearing;
mod joined;
mod limits;
mod programs;
mod requests;
pub(crate) mod resources;
mod silence;
mod stopping;
mod telling;
mod writers;

use crate::harness::{WATCHDOG, connect};
use lastecho::{Connection, Live, Report, Server, State, Stop};
use std::io::{self, BufRead, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::Command;
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::thread;

/// A server that runs while a test plays its clients.
pub(crate) struct Running {
    pub(crate) stop: Stop,
    pub(crate) live: Live,
}

impl Running {
    pub(crate) fn address(&self) -> SocketAddr {
        self.live.addresses()[0]
    }

    pub(crate) fn connect(&self) -> TcpStream {
        connect(self.address()).unwrap()
    }

    /// How many connections are in this state now.
    pub(crate) fn count(&self, state: State) -> usize {
        let live = self.live.snapshot();
        live.iter().filter(|one| one.state == state).count()
    }
}

/// Runs `server` while `clients` plays, then stops it.
pub(crate) fn serve<T>(
    server: Server,
    handler: impl Fn(&mut Connection) -> io::Result<()> + Sync,
    clients: impl FnOnce(&Running) -> T,
) -> (Report, T) {
    serve_until(&Stop::new(), server, handler, clients)
}

/// The same with a stop that others may hold.
pub(crate) fn serve_until<T>(
    stop: &Stop,
    server: Server,
    handler: impl Fn(&mut Connection) -> io::Result<()> + Sync,
    clients: impl FnOnce(&Running) -> T,
) -> (Report, T) {
    let running = Running {
        stop: stop.clone(),
        live: server.live(),
    };
    let _watchdog = Watchdog::new();
    thread::scope(|scope| {
        let run = scope.spawn(|| server.run(stop, &handler));
        let _cut = CutOnPanic(stop);
        let value = clients(&running);
        stop.set();
        let report = run.join().expect("run panicked").expect("run failed");
        (report, value)
    })
}

/// A failed assertion must end the server that it happened beside.
struct CutOnPanic<'a>(&'a Stop);

impl Drop for CutOnPanic<'_> {
    fn drop(&mut self) {
        if thread::panicking() {
            self.0.cut();
        }
    }
}

/// Aborts the process if it lives for longer than anything may take: a scope
/// that hangs cannot be left in another way.
pub(crate) struct Watchdog(#[allow(dead_code)] Sender<()>);

impl Watchdog {
    pub(crate) fn new() -> Self {
        let (alive, ended) = channel::<()>();
        let name = thread::current().name().unwrap_or("a test").to_owned();
        thread::spawn(move || {
            if ended.recv_timeout(2 * WATCHDOG) == Err(RecvTimeoutError::Timeout) {
                let _ = writeln!(io::stderr(), "{name} hangs");
                std::process::abort();
            }
        });
        Self(alive)
    }
}

pub(crate) fn local() -> Server {
    Server::bind("127.0.0.1:0").unwrap()
}

/// The handler of most tests: answers each line with itself.
pub(crate) fn echo_lines(conn: &mut Connection) -> io::Result<()> {
    let mut line = Vec::new();
    while conn.next()? {
        line.clear();
        conn.read_until(b'\n', &mut line)?;
        conn.write_all(&line)?;
    }
    Ok(())
}

/// Reads one line, and not a byte more.
pub(crate) fn read_line(client: &mut TcpStream) -> String {
    let mut line = Vec::new();
    let mut byte = [0];
    while !line.ends_with(b"\n") {
        match client.read(&mut byte) {
            Ok(1) => line.push(byte[0]),
            other => panic!("{other:?} after {:?}", String::from_utf8_lossy(&line)),
        }
    }
    String::from_utf8(line).unwrap()
}

/// Sends a line and reads one.
pub(crate) fn ask(client: &mut TcpStream, line: &str) -> String {
    client.write_all(line.as_bytes()).unwrap();
    read_line(client)
}

/// Gives a test's body a process of its own, for what a whole process shares
/// (descriptors, threads, limits): true there; here, once it has passed, false.
pub(crate) fn alone(test: &str) -> bool {
    const VARIABLE: &str = "LASTECHO_TEST_ALONE";
    if std::env::var(VARIABLE).is_ok_and(|name| name == test) {
        return true;
    }
    let output = Command::new(std::env::current_exe().unwrap())
        .args([test, "--exact", "--nocapture", "--test-threads=1"])
        .env(VARIABLE, test)
        // One heap for all threads, so that limits of memory mean stacks.
        .env("MALLOC_ARENA_MAX", "1")
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{test} alone: {text}{errors}");
    assert!(text.contains("1 passed"), "there is no test {test}: {text}");
    print!("{text}");
    false
}
