//! One connection's socket with everything that is known and counted about it,
//! shared between the thread that serves it, writers and the live table.

mod sending;

use crate::deadline::Deadline;
use crate::eager::Eager;
use crate::event::{Event, Snapshot, State};
use crate::idle::Idle;
use crate::lock::lock;
use crate::socket_errors;
use crate::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use crate::sync::{Arc, Condvar, Mutex, PoisonError};
use crate::sys;
use crate::terms::Terms;
use crate::writing::Writing;
use std::io::{self, ErrorKind};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::time::{Duration, Instant};

// Every counter here is Relaxed: each is a number of its own, read for reports
// only, and the lock of the live table orders the last reading after the last
// writing.

/// A live peer has acknowledged everything so long after our FIN: acknowledgements
/// are delayed by at most 200 ms on Linux, 500 ms anywhere (RFC 1122, 4.2.3.2).
const ACKNOWLEDGED: Duration = Duration::from_millis(500);

/// Where a connection is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// A handler has it.
    Open,
    /// Our FIN is out, we wait for the peer's; since when.
    Lingering(Instant),
    /// Both directions were shut by force.
    Cut,
}

pub(crate) struct Link {
    pub(crate) id: u64,
    pub(crate) peer: SocketAddr,
    pub(crate) opened: Instant,
    pub(crate) terms: Arc<Terms>,
    socket: TcpStream,
    /// Bytes given to the handler.
    pub(crate) received: AtomicU64,
    /// Bytes that the kernel took from us.
    pub(crate) sent: AtomicU64,
    /// Bytes that a handler wanted written and the kernel never took.
    pub(crate) unsent: AtomicU64,
    /// Bytes read after our FIN and thrown away.
    pub(crate) discarded: AtomicU64,
    /// Our FIN is in the send queue, or was.
    fin: AtomicBool,
    /// Inside a request. Only the connection's own thread writes it.
    busy: AtomicBool,
    /// The socket failed: the peer's reset, or the network's.
    pub(crate) broken: AtomicBool,
    /// The idle timeout was over, and the peer has not spoken since.
    pub(crate) timed_out: AtomicBool,
    idle: Idle,
    phase: Mutex<Phase>,
    cut_now: Condvar,
    /// One turn is one whole write, so that two writers' bytes do not mix.
    writing: Writing,
}

impl Link {
    pub(crate) fn new(id: u64, socket: TcpStream, peer: SocketAddr, terms: Arc<Terms>) -> Self {
        let idle = Idle::new(terms.idle);
        Self {
            id,
            peer,
            opened: Instant::now(),
            terms,
            socket,
            received: AtomicU64::new(0),
            sent: AtomicU64::new(0),
            unsent: AtomicU64::new(0),
            discarded: AtomicU64::new(0),
            fin: AtomicBool::new(false),
            busy: AtomicBool::new(false),
            broken: AtomicBool::new(false),
            timed_out: AtomicBool::new(false),
            idle,
            phase: Mutex::new(Phase::Open),
            cut_now: Condvar::new(),
            writing: Writing::default(),
        }
    }

    pub(crate) fn socket(&self) -> &TcpStream {
        &self.socket
    }

    pub(crate) fn state(&self) -> State {
        match *lock(&self.phase) {
            Phase::Cut => State::Cut,
            Phase::Lingering(_) => State::Lingering,
            Phase::Open if self.busy.load(Relaxed) => State::Serving,
            Phase::Open => State::Waiting,
        }
    }

    pub(crate) fn snapshot(&self) -> Snapshot {
        Snapshot {
            id: self.id,
            peer: self.peer,
            age: self.opened.elapsed(),
            state: self.state(),
            received: self.received.load(Relaxed),
            sent: self.sent.load(Relaxed),
        }
    }

    /// The handler is given a request, or its first bytes.
    pub(crate) fn begin_request(&self, bytes: usize) {
        self.busy.store(true, Relaxed);
        self.terms.tell(|| Event::Request { id: self.id, bytes });
    }

    /// The handler asks for the next request.
    pub(crate) fn end_request(&self) {
        if self.busy.load(Relaxed) {
            self.busy.store(false, Relaxed);
            self.terms.tell(|| Event::Waiting { id: self.id });
        }
    }

    /// One look at the socket.
    ///
    /// Blocks for at most one tick, or for what is left of the idle timeout;
    /// bytes, FIN, a reset and [`cut`](Self::cut) wake it.
    pub(crate) fn receive(&self, buf: &mut [u8], eager: &mut Eager) -> io::Result<Received> {
        let left = self.idle.left();
        let ending = left.filter(|&left| left < self.terms.tick());
        // Even when the time is over: what came while the handler was busy is
        // no silence.
        if let Some(left) = ending
            && !sys::wait_readable(&self.socket, left)
        {
            return self.nothing_received();
        }
        match eager.recv(&self.socket, buf) {
            Ok(0) if self.state() == State::Cut => Err(cut_error()),
            // A writer met the reset and was told; a reader is told, too.
            Ok(0) if self.broken.load(Relaxed) => Err(ErrorKind::ConnectionReset.into()),
            Ok(0) => Ok(Received::End),
            Ok(count) => {
                self.idle.restart();
                self.outlive_silence();
                Ok(Received::Bytes(count))
            }
            Err(error) if socket_errors::is_tick(&error) => self.nothing_received(),
            Err(error) => Err(self.failed(error)),
        }
    }

    /// The peer speaks after all. A silence that tore a message stays the end.
    fn outlive_silence(&self) {
        if self.timed_out.load(Relaxed) && !self.writing.has_failed() {
            self.timed_out.store(false, Relaxed);
        }
    }

    fn nothing_received(&self) -> io::Result<Received> {
        Ok(match self.nothing()? {
            true => Received::Idle,
            false => Received::Nothing,
        })
    }

    /// A tick passed in which we moved nothing. Says whether the idle timeout is over.
    ///
    /// The supervisor cuts at once; this notices where there is none
    /// (`Connection::pair`).
    fn nothing(&self) -> io::Result<bool> {
        if self.terms.is_cut() {
            self.cut();
            return Err(cut_error());
        }
        self.idle.look_at_queue(
            || sys::unacknowledged(&self.socket),
            || sys::last_acknowledged(&self.socket),
        );
        let over = self.idle.left() == Some(Duration::ZERO);
        if over {
            self.timed_out.store(true, Relaxed);
        }
        Ok(over)
    }

    /// Notes that the peer or the network has ended the connection. Other
    /// errors are the system's: the connection fails, and is ended in order.
    fn failed(&self, error: io::Error) -> io::Error {
        if socket_errors::is_end(&error) {
            self.broken.store(true, Relaxed);
        }
        error
    }

    /// Blocks for so long, or until the connection is cut (an error).
    pub(crate) fn pause(&self, duration: Duration) -> io::Result<()> {
        let end = Deadline::after(duration);
        let mut phase = lock(&self.phase);
        while *phase != Phase::Cut && !end.has_passed() {
            if self.terms.is_cut() {
                drop(phase);
                self.cut();
                return Err(cut_error());
            }
            let slice = end.cap(self.terms.poll);
            let waited = self.cut_now.wait_timeout(phase, slice);
            phase = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
        match *phase {
            Phase::Cut => Err(cut_error()),
            _ => Ok(()),
        }
    }

    /// Shuts both directions and wakes whatever is blocked on this connection.
    ///
    /// One that lingers is left to itself: it has nothing in hand, looks at
    /// [`Terms::is_cut`] every slice, and shutting its reading side would turn
    /// a late byte of the peer into a reset.
    pub(crate) fn cut(&self) {
        let mut phase = lock(&self.phase);
        if *phase == Phase::Open {
            *phase = Phase::Cut;
            let _ = self.shut(Shutdown::Both);
            self.cut_now.notify_all();
        }
    }

    /// The handler is done. False if the connection was cut before.
    pub(crate) fn begin_linger(&self) -> bool {
        let mut phase = lock(&self.phase);
        if *phase == Phase::Open {
            *phase = Phase::Lingering(Instant::now());
        }
        matches!(*phase, Phase::Lingering(_))
    }

    /// Whether the peer holds this connection: it is served, or the peer had
    /// time to acknowledge what it was sent and did not. Never blocks.
    pub(crate) fn is_held(&self) -> bool {
        let Phase::Lingering(since) = *lock(&self.phase) else {
            return true;
        };
        since.elapsed() > ACKNOWLEDGED && sys::unacknowledged(&self.socket) > 0
    }

    /// Sends FIN after the last byte; `Both` also ends all reading.
    pub(crate) fn shut(&self, how: Shutdown) -> io::Result<()> {
        self.socket.shutdown(how)?;
        self.fin.store(true, Relaxed);
        Ok(())
    }

    /// Takes back what the peer has not acknowledged: of a connection that was
    /// cut or reset, nobody can say that it arrived.
    pub(crate) fn settle(&self) {
        // The kernel counts our FIN as one byte.
        let fin = u64::from(self.fin.load(Relaxed));
        let bytes = sys::unacknowledged(&self.socket).saturating_sub(fin);
        let bytes = bytes.min(self.sent.load(Relaxed));
        self.sent.fetch_sub(bytes, Relaxed);
        self.unsent.fetch_add(bytes, Relaxed);
    }
}

/// What one look at a socket brought.
pub(crate) enum Received {
    Bytes(usize),
    /// The peer's FIN.
    End,
    /// The idle timeout is over.
    Idle,
    /// A tick passed, or a signal came.
    Nothing,
}

pub(crate) fn idle_error() -> io::Error {
    io::Error::new(ErrorKind::TimedOut, "idle timeout: no byte moved")
}

fn cut_error() -> io::Error {
    let why = "cut: the drain deadline passed, or a cut was asked for";
    io::Error::new(ErrorKind::ConnectionAborted, why)
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::stop::Stop;

    /// A connection without an idle timeout, and its client.
    pub(crate) fn pair(id: u64) -> (Arc<Link>, TcpStream) {
        let (socket, client) = sys::tests::pair();
        let peer = client.local_addr().unwrap();
        let terms = Arc::new(Terms::new(&Stop::new(), Duration::from_secs(1)));
        (Arc::new(Link::new(id, socket, peer, terms)), client)
    }
}
