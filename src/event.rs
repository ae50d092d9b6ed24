//! What happens in a server's life, told as it happens.

use crate::deadline::Deadline;
use std::fmt;
use std::net::SocketAddr;
use std::time::Duration;

/// Something that happened in a server's life.
///
/// Told to the observer (see [`Server::observe`](crate::Server::observe)) on
/// the thread on which it happened and with no lock held. That thread waits for
/// the observer, so an observer should be quick and must not block. Without an
/// observer each event costs one branch that is not taken.
///
/// A connection's life, told by its own thread and so in this order:
///
/// ```text
/// Accepted ─► ( Request ─► Reply … ─► Waiting )… ─► [ Panicked ] ─► [ Lingering ] ─► Closed
/// ```
///
/// Threads are `ThreadStarted`, serve any number of connections one after the
/// other, and are `ThreadRetired`. A server's life is told by the thread that
/// is in [`Server::run`](crate::Server::run): `Ready ─► Stopping ─► Draining …
/// ─► [ Cutting ]`. What different threads tell may come in any order: a
/// connection that notices the cut at once is `Closed` before `Cutting`. One
/// that is [`Outcome::Limited`] is never `Accepted`.
///
/// As metrics, with one counter each and no lock:
///
/// ```
/// use lastecho::{Event, Server};
/// use std::sync::Arc;
/// use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
///
/// #[derive(Default)]
/// struct Metrics { open: AtomicU64, requests: AtomicU64, sent: AtomicU64 }
///
/// # fn main() -> std::io::Result<()> {
/// let metrics = Arc::new(Metrics::default());
/// let ours = Arc::clone(&metrics);
/// let server = Server::bind("127.0.0.1:0")?.observe(move |event| {
///     match event {
///         Event::Accepted { .. } => ours.open.fetch_add(1, Relaxed),
///         Event::Closed { .. } => ours.open.fetch_sub(1, Relaxed),
///         Event::Request { .. } => ours.requests.fetch_add(1, Relaxed),
///         Event::Reply { bytes, .. } => ours.sent.fetch_add(*bytes as u64, Relaxed),
///         _ => 0,
///     };
/// });
/// # Ok(())
/// # }
/// ```
/// (With [`max_per_peer`](crate::Server::max_per_peer), leave out what is
/// [`Outcome::Limited`]: it was never accepted.)
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub enum Event<'a> {
    /// Clients are accepted on all of these addresses.
    Ready {
        /// The listeners' addresses, with the ports that the system chose.
        addresses: &'a [SocketAddr],
    },
    /// A client got a thread.
    Accepted {
        /// The connection's number.
        id: u64,
        /// The client's address.
        peer: SocketAddr,
    },
    /// A request begins: [`next`](crate::Connection::next) or
    /// [`receive`](crate::Connection::receive) gives the handler bytes. What it
    /// reads inside the request is not told.
    Request {
        /// The connection's number.
        id: u64,
        /// The bytes that are there to begin with.
        bytes: usize,
    },
    /// A handler wrote something, and the kernel has all of it. Told by the
    /// thread that wrote; a [`Writer`](crate::Writer)'s may come at any time, even after
    /// `Closed`.
    Reply {
        /// The connection's number.
        id: u64,
        /// The bytes of this one `write`.
        bytes: usize,
    },
    /// A request is over: the handler asks for the next one. (From its
    /// acceptance to its first request a connection waits, too.)
    Waiting {
        /// The connection's number.
        id: u64,
    },
    /// A handler panicked; see also [`Outcome::Panicked`].
    Panicked {
        /// The connection's number.
        id: u64,
        /// The panic's message.
        message: &'a str,
    },
    /// The handler is done and our FIN is out, after the last byte; the
    /// connection lingers until its peer has everything. Not told of one that
    /// was cut or reset before.
    Lingering {
        /// The connection's number.
        id: u64,
    },
    /// A connection was closed. (One that is [limited](Outcome::Limited) was
    /// never told as accepted.)
    Closed {
        /// The connection's number.
        id: u64,
        /// The client's address.
        peer: SocketAddr,
        /// How it ended.
        outcome: Outcome,
        /// Bytes given to the handler.
        received: u64,
        /// Bytes written; see [`Report::sent`](crate::Report::sent).
        sent: u64,
    },
    /// The stop was seen.
    Stopping {
        /// Connections that are alive.
        left: usize,
        /// When they will be cut.
        deadline: Deadline,
    },
    /// A second of draining passed and something is left.
    Draining {
        /// Connections that are alive.
        left: usize,
        /// The one that was accepted first.
        oldest: Option<&'a Snapshot>,
        /// Clients in the middle of their handshake, which are waited for, too.
        half_open: usize,
        /// When they will be cut.
        deadline: Deadline,
        /// Whether they were already: then a handler ignores its connection.
        cut: bool,
    },
    /// The grace is over: what is left is cut now. Those that linger are left
    /// to themselves; each one's [`Outcome`] tells.
    Cutting {
        /// Connections that are alive.
        left: usize,
    },
    /// A thread of the server began to wait for clients.
    ThreadStarted,
    /// A thread of the server ends; before `run` returns, each has.
    ThreadRetired,
}

/// How a connection ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Outcome {
    /// In order.
    Ended,
    /// By force; see [`Report::cut`](crate::Report::cut).
    Cut,
    /// By the peer's reset, or the network's.
    Reset,
    /// By the idle timeout.
    Idle,
    /// By a panic of the handler.
    Panicked,
    /// By an error of the handler.
    Failed,
    /// Closed politely at once: its peer had too many connections.
    Limited,
    /// In normal life, while the peer kept sending after our FIN, or did not
    /// acknowledge it.
    Expired,
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Ended => "ended",
            Self::Cut => "cut",
            Self::Reset => "reset by peer",
            Self::Idle => "idle timeout",
            Self::Panicked => "handler panicked",
            Self::Failed => "handler failed",
            Self::Limited => "too many from this peer",
            Self::Expired => "linger ran out",
        })
    }
}

/// What a live connection is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum State {
    /// Between requests: waiting for the peer.
    Waiting,
    /// Inside a request: the handler has something in hand.
    Serving,
    /// The handler is done; waiting for the peer to take everything and close.
    Lingering,
    /// Cut; its thread has not noticed yet.
    Cut,
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Waiting => "waiting",
            Self::Serving => "serving",
            Self::Lingering => "lingering",
            Self::Cut => "cut",
        })
    }
}

/// Returns a number of bytes in words.
pub(crate) fn bytes(count: u64) -> String {
    match count {
        1 => "1 byte".to_owned(),
        _ => format!("{count} bytes"),
    }
}

/// A live connection at one moment.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Snapshot {
    /// The connection's number, counted from 1.
    pub id: u64,
    /// The client's address.
    pub peer: SocketAddr,
    /// Since it was accepted.
    pub age: Duration,
    /// What it is doing.
    pub state: State,
    /// Bytes given to the handler so far.
    pub received: u64,
    /// Bytes that the kernel took from us so far.
    pub sent: u64,
}

impl fmt::Display for Snapshot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "connection {} from {}, {}, open for {:.1}s, {} in, {} out",
            self.id,
            self.peer,
            self.state,
            self.age.as_secs_f64(),
            bytes(self.received),
            bytes(self.sent)
        )
    }
}
