//! One connection's socket with everything that is known and counted about it,
//! shared between the thread that serves it, writers and the live table.

use crate::event::{Snapshot, State};
use crate::lock::lock;
use crate::stop::Stop;
use crate::sys;
use std::io::{self, ErrorKind};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

// Every counter here is Relaxed: each is a number of its own, read for reports
// only, and the lock of the live table orders the last reading after the last
// writing.

/// What all connections of one server have in common.
pub(crate) struct Terms {
    pub(crate) stop: Stop,
    /// Set when the grace is over: by the drain deadline or by `Stop::cut`.
    pub(crate) cut: AtomicBool,
    /// Longest that a blocked read or write waits before it looks around.
    pub(crate) poll: Duration,
    /// Longest that a connection may move no byte.
    pub(crate) idle: Option<Duration>,
}

impl Terms {
    /// The socket timeouts to use: a poll interval, or an idle timeout shorter than it.
    pub(crate) fn tick(&self) -> Duration {
        self.idle.map_or(self.poll, |idle| idle.min(self.poll))
    }

    pub(crate) fn is_cut(&self) -> bool {
        self.cut.load(Relaxed) || self.stop.is_cut()
    }
}

/// Where a connection is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// A handler has it.
    Open,
    /// Our FIN is out, we wait for the peer's.
    Lingering,
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
    /// Inside a request.
    pub(crate) busy: AtomicBool,
    /// The socket failed: the peer's reset, or the network's.
    pub(crate) broken: AtomicBool,
    /// The idle timeout ended it.
    pub(crate) timed_out: AtomicBool,
    /// When a byte last moved, in microseconds since `opened`.
    moved: AtomicU64,
    phase: Mutex<Phase>,
    cut_now: Condvar,
    /// Held over a whole write, so that two writers' bytes do not mix.
    writing: Mutex<()>,
}

impl Link {
    pub(crate) fn new(id: u64, socket: TcpStream, peer: SocketAddr, terms: Arc<Terms>) -> Self {
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
            moved: AtomicU64::new(0),
            phase: Mutex::new(Phase::Open),
            cut_now: Condvar::new(),
            writing: Mutex::new(()),
        }
    }

    pub(crate) fn socket(&self) -> &TcpStream {
        &self.socket
    }

    pub(crate) fn state(&self) -> State {
        match *lock(&self.phase) {
            Phase::Cut => State::Cut,
            Phase::Lingering => State::Lingering,
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

    /// Restarts the idle clock. Without an idle timeout there is none.
    pub(crate) fn touch(&self) {
        if self.terms.idle.is_some() {
            let now = u64::try_from(self.opened.elapsed().as_micros()).unwrap_or(u64::MAX);
            self.moved.store(now, Relaxed);
        }
    }

    /// What is left of the idle timeout; `None` where there is none.
    pub(crate) fn idle_left(&self) -> Option<Duration> {
        let moved = Duration::from_micros(self.moved.load(Relaxed));
        let quiet = self.opened.elapsed().saturating_sub(moved);
        self.terms.idle.map(|idle| idle.saturating_sub(quiet))
    }

    /// Reads once; `Ok(None)` when nothing came within a tick.
    ///
    /// Blocks for at most one tick; bytes, FIN, a reset and [`cut`](Self::cut) wake it.
    pub(crate) fn receive(&self, buf: &mut [u8]) -> io::Result<Option<usize>> {
        match sys::recv(&self.socket, buf) {
            Ok(0) if self.state() == State::Cut => Err(cut_error()),
            Ok(count) => {
                self.touch();
                Ok(Some(count))
            }
            Err(error) if error.kind() == ErrorKind::Interrupted => Ok(None),
            Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(None),
            Err(error) => Err(self.failed(error)),
        }
    }

    /// Writes everything and never loses its place: a partial count advances,
    /// a tick that passed without room is only an occasion to look at the
    /// idle timeout.
    ///
    /// Blocks while the peer takes nothing; room, a reset, the idle timeout
    /// and [`cut`](Self::cut) wake it. An error is final.
    pub(crate) fn send_all(&self, mut buf: &[u8]) -> io::Result<()> {
        let _whole = lock(&self.writing);
        while !buf.is_empty() {
            match self.send_some(buf) {
                Ok(count) => buf = &buf[count..],
                Err(error) => {
                    self.unsent.fetch_add(buf.len() as u64, Relaxed);
                    return Err(error);
                }
            }
        }
        Ok(())
    }

    fn send_some(&self, buf: &[u8]) -> io::Result<usize> {
        match sys::send(&self.socket, buf) {
            Ok(0) => Err(ErrorKind::WriteZero.into()),
            Ok(count) => {
                self.sent.fetch_add(count as u64, Relaxed);
                self.touch();
                Ok(count)
            }
            Err(error) if error.kind() == ErrorKind::Interrupted => Ok(0),
            Err(error) if error.kind() == ErrorKind::WouldBlock => self.no_room().map(|()| 0),
            Err(_) if self.state() == State::Cut => Err(cut_error()),
            Err(error) => Err(self.failed(error)),
        }
    }

    /// A tick passed without room in the send buffer.
    fn no_room(&self) -> io::Result<()> {
        match self.idle_left() {
            Some(Duration::ZERO) => Err(self.idle_error()),
            Some(left) if left < self.terms.tick() => {
                sys::wait_writable(&self.socket, left).map(drop)
            }
            _ => Ok(()),
        }
    }

    /// Notes that the socket is beyond use.
    fn failed(&self, error: io::Error) -> io::Error {
        self.broken.store(true, Relaxed);
        error
    }

    pub(crate) fn idle_error(&self) -> io::Error {
        self.timed_out.store(true, Relaxed);
        io::Error::new(ErrorKind::TimedOut, "idle timeout: no byte moved")
    }

    /// Blocks for so long, or until the connection is cut (an error).
    pub(crate) fn pause(&self, duration: Duration) -> io::Result<()> {
        let phase = lock(&self.phase);
        let (phase, _) = self
            .cut_now
            .wait_timeout_while(phase, duration, |phase| *phase != Phase::Cut)
            .unwrap_or_else(PoisonError::into_inner);
        if *phase == Phase::Cut {
            Err(cut_error())
        } else {
            Ok(())
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
            *phase = Phase::Lingering;
        }
        *phase == Phase::Lingering
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
        let queued = sys::unacknowledged(&self.socket).unwrap_or(0);
        // The kernel counts our FIN as one byte.
        let bytes = queued.saturating_sub(u64::from(self.fin.load(Relaxed)));
        let bytes = bytes.min(self.sent.load(Relaxed));
        self.sent.fetch_sub(bytes, Relaxed);
        self.unsent.fetch_add(bytes, Relaxed);
    }
}

pub(crate) fn cut_error() -> io::Error {
    io::Error::new(
        ErrorKind::ConnectionAborted,
        "cut: the drain deadline passed, or a cut was asked for",
    )
}
