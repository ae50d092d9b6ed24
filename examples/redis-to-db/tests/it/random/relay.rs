//! A relay between the programs and a server. It can hold packets back, for as
//! long as it takes, and delivers them afterwards, whether or not their sender
//! is still there.

use crate::servers::eventually;
use std::collections::BTreeMap;
use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, Shutdown, TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;

/// Which way packets go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Way {
    ToServer,
    ToProgram,
}

/// What is held back: one way, of all connections or of every third.
#[derive(Clone, Copy, Debug)]
pub(super) struct Held {
    pub(super) way: Way,
    pub(super) third: Option<u64>,
}

impl Held {
    fn holds(self, way: Way, connection: u64) -> bool {
        self.way == way && self.third.is_none_or(|third| connection % 3 == third)
    }
}

/// Listens on a port of its own. Dropping it ends its connections.
pub(super) struct Relay {
    pub(super) port: u16,
    shared: Arc<Shared>,
}

struct Shared {
    server: u16,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    held: Option<Held>,
    /// Both sockets of each connection, by its number.
    connections: BTreeMap<u64, [TcpStream; 2]>,
    accepted: u64,
    is_over: bool,
}

impl Relay {
    /// To a server on this port, which need not be there yet.
    pub(super) fn to(server: u16) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        let shared = Arc::new(Shared {
            server,
            state: Mutex::default(),
            changed: Condvar::new(),
        });
        let accepting = Arc::clone(&shared);
        thread::spawn(move || accepting.accept(&listener));
        Self { port, shared }
    }

    pub(super) fn hold(&self, held: Held) {
        self.shared.lock().held = Some(held);
    }

    pub(super) fn release(&self) {
        self.shared.lock().held = None;
        self.shared.changed.notify_all();
    }

    /// Ends all connections.
    pub(super) fn cut(&self) {
        for socket in self.shared.lock().connections.values().flatten() {
            let _ = socket.shutdown(Shutdown::Both);
        }
    }

    /// Waits until both ends have ended all connections, and everything is
    /// delivered.
    pub(super) fn await_idle(&self) {
        eventually("the relay is idle", || {
            self.shared.lock().connections.is_empty()
        });
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.shared.lock().is_over = true;
        self.release();
        self.cut();
        // Wakes the thread that accepts.
        let _ = TcpStream::connect((Ipv4Addr::LOCALHOST, self.port));
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn accept(self: &Arc<Self>, listener: &TcpListener) {
        for program in listener.incoming().flatten() {
            if self.lock().is_over {
                return;
            }
            let shared = Arc::clone(self);
            // Where the server is away, the program sees its connection end.
            thread::spawn(move || drop(shared.connect(program)));
        }
    }

    /// Serves a connection to the end of both ways.
    fn connect(&self, program: TcpStream) -> io::Result<()> {
        let server = TcpStream::connect((Ipv4Addr::LOCALHOST, self.server))?;
        program.set_nodelay(true)?;
        server.set_nodelay(true)?;
        let both = [program.try_clone()?, server.try_clone()?];
        let number = {
            let mut state = self.lock();
            state.accepted += 1;
            let number = state.accepted;
            state.connections.insert(number, both);
            number
        };
        thread::scope(|scope| {
            scope.spawn(|| self.pass(&server, &program, Way::ToProgram, number));
            self.pass(&program, &server, Way::ToServer, number);
        });
        self.lock().connections.remove(&number);
        Ok(())
    }

    /// Passes on what comes, the end too. What waits for its release is one
    /// buffer and what the kernel's take.
    fn pass(&self, mut from: &TcpStream, mut to: &TcpStream, way: Way, number: u64) {
        let mut piece = [0; 1 << 14];
        loop {
            // A program that is killed ends its connection with an error.
            let length = from.read(&mut piece).unwrap_or(0);
            self.await_release(way, number);
            if length == 0 || to.write_all(&piece[..length]).is_err() {
                break;
            }
        }
        let _ = to.shutdown(Shutdown::Write);
        let _ = from.shutdown(Shutdown::Read);
    }

    fn await_release(&self, way: Way, number: u64) {
        let is_held = |state: &mut State| {
            let held = state.held.is_some_and(|held| held.holds(way, number));
            held && !state.is_over
        };
        let released = self.changed.wait_while(self.lock(), is_held);
        drop(released.unwrap_or_else(PoisonError::into_inner));
    }
}

#[test]
fn what_is_held_back_arrives_after_its_sender_has_gone() {
    let server = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let relay = Relay::to(server.local_addr().unwrap().port());
    relay.hold(Held {
        way: Way::ToServer,
        third: None,
    });
    let mut program = TcpStream::connect((Ipv4Addr::LOCALHOST, relay.port)).unwrap();
    let (mut served, _) = server.accept().unwrap();
    program.write_all(b"late").unwrap();
    drop(program);
    served.set_nonblocking(true).unwrap();
    let early = served.read(&mut [0]).unwrap_err();
    assert_eq!(early.kind(), io::ErrorKind::WouldBlock);
    relay.release();
    served.set_nonblocking(false).unwrap();
    served
        .set_read_timeout(Some(crate::harness::WATCHDOG))
        .unwrap();
    let mut arrived = String::new();
    served.read_to_string(&mut arrived).unwrap();
    assert_eq!(arrived, "late");
    drop(served);
    relay.await_idle();
}
