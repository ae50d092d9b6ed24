//! A connection as its handler sees it.

use crate::eager::Eager;
use crate::early::Early;
use crate::link::{Link, Received, idle_error};
use crate::listener;
use crate::stop::Stop;
use crate::sync::Arc;
use crate::sync::atomic::Ordering::Relaxed;
use crate::sys;
use crate::terms::Terms;
use crate::writer::{Writer, write_formatted};
use socket2::SockRef;
use std::fmt;
use std::io::{self, BufRead, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::time::Duration;

/// The buffer of [`BufRead`], allocated when it is first used.
const BUFFER: usize = 8 * 1024;
/// A client that has said nothing yet is listened to for so long, from the
/// moment it was accepted, before a stop is honoured: its connect succeeded,
/// and its first bytes are on their way.
const FIRST_WORD: Duration = Duration::from_millis(100);

/// Why a connection has no further request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Ending {
    /// The peer closed its sending side.
    PeerClosed,
    /// The stop was seen, and everything that had arrived by then was given out.
    Stopped,
    /// No byte moved for the idle timeout; until the handler reads all the same.
    Idle,
}

/// One client's connection, as the handler sees it.
///
/// **Between requests**, [`next`](Self::next) and [`receive`](Self::receive)
/// wait for the peer and are where the stop is honoured: what had arrived when
/// it was seen is still given out, then they say that there is no more.
///
/// **Inside a request**, [`Read`], [`BufRead`] and [`Write`] wait for as long
/// as it takes: poll intervals pass unnoticed and the stop does not interrupt
/// them. Only these do, each with an error: the peer's reset, the idle timeout
/// ([`TimedOut`](io::ErrorKind::TimedOut)) and the cut
/// ([`ConnectionAborted`](io::ErrorKind::ConnectionAborted)).
///
/// The connection has its own read buffer. Do not wrap it in a
/// [`BufReader`](io::BufReader): that would hide pipelined requests from
/// `next`.
///
/// When the handler returns, with or without an error or panic, the server
/// closes the connection in an order that loses no byte already written.
///
/// ```
/// use lastecho::{Connection, Stop};
/// use std::io::{BufRead, Read, Write};
///
/// fn shout(conn: &mut Connection) -> std::io::Result<()> {
///     let mut line = String::new();
///     while conn.next()? {
///         line.clear();
///         conn.read_line(&mut line)?;
///         conn.write_all(line.to_uppercase().as_bytes())?;
///     }
///     Ok(())
/// }
///
/// # fn main() -> std::io::Result<()> {
/// // A handler is easy to test: no server, a real socket.
/// let (mut conn, mut client) = Connection::pair(&Stop::new())?;
/// client.write_all(b"hello\n")?;
/// client.shutdown(std::net::Shutdown::Write)?;
/// shout(&mut conn)?;
/// drop(conn);
/// let mut answer = String::new();
/// client.read_to_string(&mut answer)?;
/// assert_eq!(answer, "HELLO\n");
/// # Ok(())
/// # }
/// ```
pub struct Connection {
    link: Arc<Link>,
    buffer: Vec<u8>,
    /// The part of `buffer` that was read and not consumed yet.
    start: usize,
    end: usize,
    /// Once the stop was seen: where in the peer's stream we end.
    last_byte: Option<u64>,
    ending: Option<Ending>,
    eager: Eager,
}

impl Connection {
    pub(crate) fn new(link: Arc<Link>) -> Self {
        Self {
            link,
            buffer: Vec::new(),
            start: 0,
            end: 0,
            last_byte: None,
            ending: None,
            eager: Eager::default(),
        }
    }

    /// A connection and its peer's end, over loopback, to test a handler with.
    ///
    /// It polls every 10 ms and has no idle timeout. Dropping it closes it
    /// plainly; the ordered end is the server's.
    ///
    /// # Errors
    /// What bind(2), connect(2) and accept(2) say.
    pub fn pair(stop: &Stop) -> io::Result<(Self, TcpStream)> {
        let poll = Duration::from_millis(10);
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let client = TcpStream::connect(listener.local_addr()?)?;
        let (mut socket, mut peer) = listener.accept()?;
        // Somebody else on this machine may have come first.
        while peer != client.local_addr()? {
            (socket, peer) = listener.accept()?;
        }
        listener::set_options(SockRef::from(&socket), poll)?;
        let link = Link::new(1, socket, peer, Arc::new(Terms::new(stop, poll)));
        Ok((Self::new(Arc::new(link)), client))
    }

    /// The number of this connection, counted from 1 by its server; log lines
    /// and thread names carry it.
    #[must_use]
    pub fn id(&self) -> u64 {
        self.link.id
    }

    /// The peer's address, as it was when the connection was accepted.
    #[must_use]
    pub fn peer_addr(&self) -> SocketAddr {
        self.link.peer
    }

    /// Our own address on this connection.
    ///
    /// # Errors
    /// What getsockname(2) says.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.link.socket().local_addr()
    }

    /// The socket, for options that are not offered here. Reading from it,
    /// writing to it and shutting it down behind the connection's back breaks
    /// what the connection promises.
    #[must_use]
    pub fn socket(&self) -> &TcpStream {
        self.link.socket()
    }

    /// Why there is no further request; `None` while there may be one.
    #[must_use]
    pub fn ending(&self) -> Option<Ending> {
        self.ending
    }

    /// Waits for the next request: true when there is something to read,
    /// false when there will not be ([`ending`](Self::ending) tells why).
    ///
    /// Blocks until bytes arrive, the peer closes, the idle timeout passes
    /// or, looking once per poll interval, a stop is seen. After a stop it is
    /// true for what had arrived by the time the stop was seen, and for that
    /// only: a client that sends for ever cannot prolong a stop.
    ///
    /// # Errors
    /// The peer's reset, or the cut.
    #[allow(clippy::should_implement_trait)] // an iterator could not return the error
    pub fn next(&mut self) -> io::Result<bool> {
        if self.start < self.end {
            let bytes = self.allowed(self.end - self.start)?;
            self.link.end_request();
            if bytes > 0 {
                self.link.begin_request(bytes);
            } else {
                self.ending = Some(Ending::Stopped);
            }
            return Ok(bytes > 0);
        }
        let mut buffer = self.take_buffer();
        let outcome = self.await_bytes(&mut buffer);
        self.buffer = buffer;
        self.end = *outcome.as_ref().unwrap_or(&0);
        Ok(outcome? > 0)
    }

    /// Waits for bytes and reads them: `next` and a read in one, without a
    /// copy. Zero when there will not be any more ([`ending`](Self::ending)
    /// tells why), or when `buf` is empty.
    ///
    /// Blocks as [`next`](Self::next) does.
    ///
    /// # Errors
    /// The peer's reset, or the cut.
    pub fn receive(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        if self.start < self.end {
            if !self.next()? {
                return Ok(0);
            }
            let room = self.allowed(buf.len())?;
            return self.read_buffered(&mut buf[..room]);
        }
        let count = if buf.is_empty() {
            0
        } else {
            self.await_bytes(buf)?
        };
        self.link.received.fetch_add(count as u64, Relaxed);
        Ok(count)
    }

    /// Whether the answer to the request in hand is the last one: a stop was
    /// seen, and nothing further had arrived by then. Never blocks. A protocol
    /// that says so in its answer (HTTP's `Connection: close`) asks here. False
    /// while a client that has not said anything yet may still do so.
    ///
    /// # Errors
    /// The cut.
    pub fn is_last(&mut self) -> io::Result<bool> {
        Ok(self.link.terms.stop.is_set() && !self.is_awaited() && self.allowance()? == 0)
    }

    /// Waits for so long inside a request; the cut ends it early.
    ///
    /// # Errors
    /// The cut.
    pub fn pause(&self, duration: Duration) -> io::Result<()> {
        self.link.pause(duration)
    }

    /// A handle for other threads to write with, for as long as this
    /// connection lives.
    #[must_use]
    pub fn writer(&self) -> Writer {
        Writer::new(&self.link)
    }

    /// Reads between requests. Zero sets `ending`.
    fn await_bytes(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        self.link.end_request();
        let mut early = Early::default();
        while self.ending.is_none() {
            let room = self.allowed(buf.len())?;
            if room == 0 {
                self.ending = Some(Ending::Stopped);
                break;
            }
            match self.link.receive(&mut buf[..room], &mut self.eager)? {
                Received::Bytes(count) => {
                    self.link.begin_request(count);
                    return Ok(count);
                }
                Received::End => self.ending = Some(Ending::PeerClosed),
                Received::Idle => self.ending = Some(Ending::Idle),
                Received::Nothing => early.note(self.link.terms.tick()),
            }
        }
        Ok(0)
    }

    /// Reads inside a request: zero is the peer's end.
    fn read_through(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        self.ending.take_if(|ending| *ending == Ending::Idle); // it may speak after all
        let mut early = Early::default();
        loop {
            match self.link.receive(buf, &mut self.eager)? {
                Received::Bytes(count) => return Ok(count),
                Received::End => return Ok(0),
                Received::Idle => return Err(idle_error()),
                Received::Nothing => early.note(self.link.terms.tick()),
            }
        }
    }

    /// How many of so many bytes may still be given out.
    fn allowed(&mut self, most: usize) -> io::Result<usize> {
        let allowance = usize::try_from(self.allowance()?);
        Ok(allowance.unwrap_or(usize::MAX).min(most))
    }

    /// How many bytes may still be given out: any number, until the stop is
    /// seen; then what had arrived at that moment.
    fn allowance(&mut self) -> io::Result<u64> {
        if !self.link.terms.stop.is_set() {
            return Ok(u64::MAX);
        }
        let given = self.link.received.load(Relaxed);
        let last = match self.last_byte {
            Some(last) => last,
            None => given + self.arrived()?,
        };
        self.last_byte = Some(last);
        Ok(last.saturating_sub(given))
    }

    /// What has arrived and was not given out yet. Waits a moment for a client
    /// that has not said anything so far.
    fn arrived(&self) -> io::Result<u64> {
        let socket = self.link.socket();
        let arrived = (self.end - self.start) as u64 + sys::pending(socket)?;
        if arrived > 0 || self.link.received.load(Relaxed) > 0 {
            return Ok(arrived);
        }
        sys::wait_readable(socket, self.first_word());
        sys::pending(socket)
    }

    /// What is left of the time for a client's first bytes.
    fn first_word(&self) -> Duration {
        FIRST_WORD.saturating_sub(self.link.opened.elapsed())
    }

    /// Whether a client that has not said anything may still do so.
    fn is_awaited(&self) -> bool {
        self.link.received.load(Relaxed) == 0 && !self.first_word().is_zero()
    }

    fn take_buffer(&mut self) -> Vec<u8> {
        let mut buffer = std::mem::take(&mut self.buffer);
        buffer.resize(BUFFER, 0);
        (self.start, self.end) = (0, 0);
        buffer
    }

    fn read_buffered(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let count = (&self.buffer[self.start..self.end]).read(buf)?;
        self.consume(count);
        Ok(count)
    }
}

impl Read for Connection {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        if self.start < self.end {
            return self.read_buffered(buf);
        }
        let count = if buf.is_empty() {
            0
        } else {
            self.read_through(buf)?
        };
        self.link.received.fetch_add(count as u64, Relaxed);
        Ok(count)
    }
}

impl BufRead for Connection {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        if self.start == self.end {
            let mut buffer = self.take_buffer();
            let outcome = self.read_through(&mut buffer);
            self.buffer = buffer;
            self.end = outcome?;
        }
        Ok(&self.buffer[self.start..self.end])
    }

    fn consume(&mut self, amount: usize) {
        let amount = amount.min(self.end - self.start);
        self.start += amount;
        self.link.received.fetch_add(amount as u64, Relaxed);
    }
}

impl Write for Connection {
    /// Writes all of `buf`; see [`write_all`](Write::write_all).
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        self.link.send_all(buf).map(|()| buf.len())
    }

    /// Writes everything, however slowly the peer takes it. An error is final:
    /// an unknown part of `buf` is on its way, so writing it again would
    /// corrupt the stream.
    fn write_all(&mut self, buf: &[u8]) -> io::Result<()> {
        self.link.send_all(buf)
    }

    /// Formats all of the message, then writes it as one.
    fn write_fmt(&mut self, message: fmt::Arguments<'_>) -> io::Result<()> {
        write_formatted(message, |bytes| self.write_all(bytes))
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connection")
            .field("id", &self.id())
            .field("peer", &self.peer_addr())
            .field("state", &self.link.state())
            .finish_non_exhaustive()
    }
}
