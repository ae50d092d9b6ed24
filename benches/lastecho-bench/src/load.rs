//! The clients: they send, check every byte that comes back, and count.

mod blocking;
mod bulk;
mod cycles;
mod idle;
mod many;
pub(crate) mod redis;

use crate::pattern;
use crate::scenario::Scenario;
use crate::window::Window;
use anyhow::{Context, Result};
use rustix::net::sockopt::{Timeout, set_socket_timeout};
use rustix::net::{AddressFamily, SocketFlags, SocketType, socket_with};
use std::io::{Read, Write};
use std::iter::Sum;
use std::net::{SocketAddr, TcpStream};
use std::ops::Add;
use std::thread::ScopedJoinHandle;
use std::time::Duration;

/// Bytes of a message.
pub(crate) const MESSAGE: usize = 64;
/// How long an echo may take before it is lost.
const PATIENCE: Duration = Duration::from_secs(10);

/// What clients saw.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Seen {
    /// Echoes, bytes or cycles, in the window only; all else counts always.
    pub(crate) count: u64,
    /// Bytes that came back changed.
    pub(crate) wrong: u64,
    /// Bytes that did not come back.
    pub(crate) lost: u64,
    /// Connections that could not be made or ended before their time.
    pub(crate) failed: u64,
}

impl Seen {
    /// Nothing went wrong.
    pub(crate) fn is_sound(&self) -> bool {
        self.wrong + self.lost + self.failed == 0
    }

    /// A connection ended while so many bytes were on their way.
    fn fail(&mut self, lost: u64) {
        self.failed += 1;
        self.lost += lost;
    }
}

impl Add for Seen {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self {
            count: self.count + other.count,
            wrong: self.wrong + other.wrong,
            lost: self.lost + other.lost,
            failed: self.failed + other.failed,
        }
    }
}

impl Sum for Seen {
    fn sum<I: Iterator<Item = Self>>(all: I) -> Self {
        all.fold(Self::default(), Self::add)
    }
}

/// Loads the server until the window is over and all echoes are back.
pub(crate) fn drive(scenario: Scenario, address: SocketAddr, window: &Window) -> Result<Seen> {
    let connections = scenario.connections();
    match scenario {
        Scenario::Cycles(clients) => return Ok(cycles::drive(clients, address, window)),
        Scenario::Redis(_) => anyhow::bail!("{scenario} is not driven by us"),
        _ => {}
    }
    let streams: Vec<TcpStream> = (0..connections)
        .map(|number| connect(address).with_context(|| format!("connection {number}")))
        .collect::<Result<_>>()?;
    for stream in &streams {
        stream.set_nodelay(true)?;
    }
    match scenario {
        Scenario::Bulk(_) => bulk::drive(&streams, window),
        Scenario::Idle(_) => Ok(idle::drive(&streams, window)),
        Scenario::Echo(n) if n > 1 => {
            // So that a slow server has met all its clients before it is
            // measured.
            let seen = echo_once(&streams, 0);
            if seen.failed > 0 {
                window.begin();
                return Ok(seen);
            }
            Ok(seen + many::drive(streams, window)?)
        }
        _ => Ok(blocking::drive(&streams, window)),
    }
}

/// A connection on which nothing can hang for ever, made in few system calls:
/// `cycles` makes one for each echo.
fn connect(address: SocketAddr) -> Result<TcpStream> {
    let family = match address {
        SocketAddr::V4(_) => AddressFamily::INET,
        SocketAddr::V6(_) => AddressFamily::INET6,
    };
    let socket = socket_with(family, SocketType::STREAM, SocketFlags::CLOEXEC, None)?;
    set_socket_timeout(&socket, Timeout::Recv, Some(PATIENCE))?;
    // Bounds the connect, too (socket(7)).
    set_socket_timeout(&socket, Timeout::Send, Some(PATIENCE))?;
    rustix::net::connect(&socket, &address)?;
    Ok(socket.into())
}

/// Sends a message and waits for its echo; false when the connection ended.
fn ping(mut stream: &TcpStream, position: u64, seen: &mut Seen) -> bool {
    let mut echo = [0; MESSAGE];
    let sent = stream.write_all(pattern::at(position, MESSAGE));
    match sent.and_then(|()| stream.read_exact(&mut echo)) {
        Ok(()) => seen.wrong += pattern::wrong(position, &echo),
        Err(_) => seen.fail(MESSAGE as u64),
    }
    seen.failed == 0
}

/// An echo on each, one after the other, up to the first that fails.
fn echo_once(streams: &[TcpStream], offset: u64) -> Seen {
    let mut seen = Seen::default();
    for (index, stream) in streams.iter().enumerate() {
        // A server that hangs once need not be waited for a thousand times.
        if !ping(stream, pattern::start(index) + offset, &mut seen) {
            break;
        }
    }
    seen
}

/// Adds up what clients saw; passes a panic of theirs on.
fn gather(clients: Vec<ScopedJoinHandle<'_, Seen>>) -> Seen {
    let join = |client: ScopedJoinHandle<'_, Seen>| {
        client
            .join()
            .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    };
    clients.into_iter().map(join).sum()
}
