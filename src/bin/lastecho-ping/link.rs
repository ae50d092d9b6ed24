//! One TCP connection to an echo service: a message there and back.

use lastecho::{Deadline, Stop};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use socket2::{Domain, Protocol, Socket, Type};
use std::io::{self, ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::os::fd::AsFd;
use std::time::Duration;

/// Longest wait before a look at the stop, and longest that a write blocks.
const POLL: Duration = Duration::from_millis(100);
/// Bytes of a message that are on their way at once. What both kernels hold
/// for a connection without being read is more, so the service never blocks on
/// us while we block on it.
const WINDOW: usize = 32 * 1024;
/// The largest single read.
const PIECE: usize = 8 * 1024;
/// How long an echo service may take to end a connection after our FIN; one
/// that does not end it has said nothing wrong.
const LINGER: Duration = Duration::from_millis(250);

/// What is said of the peer's FIN.
pub(crate) const END_OF_FILE: &str = "end of file";

/// What came of a message.
pub(crate) enum Outcome {
    Echoed,
    /// At this place came this byte instead of that.
    Mismatched {
        at: usize,
        came: u8,
        sent: u8,
    },
    /// The peer ended the connection in order before a byte came: lost, or
    /// never read.
    Crossed,
    /// So many bytes came, then this.
    Lost {
        echoed: usize,
        why: String,
    },
    /// The connection had ended before the kernel took a byte.
    NotSent {
        why: String,
    },
}

impl Outcome {
    /// The same, where a write had failed before so many bytes were read. The
    /// kernel says why once only, so that a read then meets a plain end of
    /// file. A broken pipe means that the peer's FIN had come first.
    fn after(self, failed: Option<io::Error>, echoed: usize) -> Self {
        match (self, failed) {
            (Self::Crossed | Self::Lost { .. }, Some(error))
                if error.kind() != ErrorKind::BrokenPipe =>
            {
                lost(echoed, error)
            }
            (outcome, _) => outcome,
        }
    }
}

/// What came of the time between two messages.
pub(crate) enum Turn {
    /// The next message is due.
    Due,
    Stopped,
    /// The connection ended: by the peer's FIN, or otherwise.
    Ended {
        why: String,
    },
    /// So many bytes came that nobody had asked for.
    Unasked(usize),
}

pub(crate) struct Link {
    socket: TcpStream,
    pub(crate) peer: SocketAddr,
    pub(crate) has_echoed: bool,
}

impl Link {
    /// Connects to the first of these that answers, each with an equal share
    /// of the time that is left. The stop ends it early.
    pub(crate) fn connect(
        targets: &[SocketAddr],
        deadline: Deadline,
        stop: &Stop,
    ) -> io::Result<Self> {
        let mut failed = io::Error::from(ErrorKind::NotFound);
        for (target, left) in targets.iter().zip((1..=targets.len()).rev()) {
            let share = deadline.remaining().unwrap_or(Duration::MAX);
            let share = Deadline::after(share / u32::try_from(left).unwrap_or(u32::MAX));
            match connect_to(*target, share, stop) {
                Ok(socket) => {
                    return Ok(Self {
                        socket,
                        peer: *target,
                        has_echoed: false,
                    });
                }
                Err(error) => failed = error,
            }
        }
        Err(failed)
    }

    /// Waits until the next message is due, watching what the peer does.
    /// Blocks until then; the stop ends it within a poll interval.
    pub(crate) fn await_turn(&mut self, due: Deadline, stop: &Stop) -> Turn {
        let mut unasked = [0; PIECE];
        loop {
            if is_ready(&self.socket, PollFlags::IN, due.cap(POLL)) {
                match self.socket.read(&mut unasked) {
                    Ok(0) => {
                        return Turn::Ended {
                            why: END_OF_FILE.to_owned(),
                        };
                    }
                    Ok(count) => return Turn::Unasked(count),
                    Err(error) if is_tick(&error) => {}
                    Err(error) => {
                        return Turn::Ended {
                            why: error.to_string(),
                        };
                    }
                }
            }
            if stop.is_set() {
                return Turn::Stopped;
            }
            if due.has_passed() {
                return Turn::Due;
            }
        }
    }

    /// Sends a message and compares what comes back, byte by byte. Blocks until
    /// all of it is there, the deadline, or the cut; the stop does not
    /// interrupt what is in hand. After a write that failed, what had come
    /// before is still read and counted.
    pub(crate) fn exchange(&mut self, message: &[u8], deadline: Deadline, stop: &Stop) -> Outcome {
        let (mut written, mut echoed) = (0, 0);
        let mut failed = None;
        while echoed < message.len() {
            let room = message.len().min(echoed + WINDOW);
            if written < room && failed.is_none() {
                match self.socket.write(&message[written..room]) {
                    Ok(count) => {
                        written += count;
                        continue;
                    }
                    Err(error) if is_tick(&error) => {}
                    Err(error) if written == 0 => {
                        return Outcome::NotSent {
                            why: error.to_string(),
                        };
                    }
                    Err(error) => failed = Some(error),
                }
            }
            if stop.is_cut() {
                return lost(echoed, "interrupted");
            }
            if deadline.has_passed() {
                return lost(echoed, "no echo in time");
            }
            match self.compare(message, echoed, deadline) {
                Ok(count) => echoed += count,
                Err(outcome) => return outcome.after(failed, echoed),
            }
        }
        self.has_echoed = true;
        Outcome::Echoed
    }

    /// Reads what is there of an echo, at most a poll interval long.
    fn compare(&mut self, message: &[u8], from: usize, until: Deadline) -> Result<usize, Outcome> {
        if !is_ready(&self.socket, PollFlags::IN, until.cap(POLL)) {
            return Ok(0);
        }
        let expected = &message[from..];
        let mut bytes = [0; PIECE];
        let room = expected.len().min(PIECE);
        let count = match self.socket.read(&mut bytes[..room]) {
            Ok(0) if from == 0 => return Err(Outcome::Crossed),
            Ok(0) => return Err(lost(from, END_OF_FILE)),
            Ok(count) => count,
            Err(error) if is_tick(&error) => return Ok(0),
            Err(error) => return Err(lost(from, error)),
        };
        let pairs = bytes[..count].iter().zip(expected);
        let wrong = pairs.enumerate().find(|(_, (came, sent))| came != sent);
        wrong.map_or(Ok(count), |(at, (&came, &sent))| {
            let at = from + at;
            Err(Outcome::Mismatched { at, came, sent })
        })
    }

    /// Ends the connection in order and returns how many bytes came unasked.
    pub(crate) fn finish(mut self) -> usize {
        let _ = self.socket.shutdown(Shutdown::Write);
        // A stop makes it no shorter: it is short.
        match self.await_turn(Deadline::after(LINGER), &Stop::new()) {
            Turn::Unasked(count) => count,
            _ => 0,
        }
    }
}

fn connect_to(target: SocketAddr, deadline: Deadline, stop: &Stop) -> io::Result<TcpStream> {
    let domain = Domain::for_address(target);
    let socket = Socket::new(domain, Type::STREAM, Some(Protocol::TCP))?;
    socket.set_nonblocking(true)?;
    match socket.connect(&target.into()) {
        Err(error) if Errno::from_io_error(&error) != Some(Errno::INPROGRESS) => return Err(error),
        _ => {}
    }
    while !is_ready(&socket, PollFlags::OUT, deadline.cap(POLL)) {
        if stop.is_set() {
            return Err(ErrorKind::Interrupted.into());
        }
        if deadline.has_passed() {
            return Err(ErrorKind::TimedOut.into());
        }
    }
    if let Some(error) = socket.take_error()? {
        return Err(error);
    }
    // A socket that asks for a port that nobody has may be given that very
    // port, and connects to itself (RFC 793, simultaneous open): a fine echo.
    if is_its_own_peer(&socket)? {
        return Err(ErrorKind::ConnectionRefused.into());
    }
    socket.set_nonblocking(false)?;
    socket.set_tcp_nodelay(true)?;
    socket.set_read_timeout(Some(POLL))?;
    socket.set_write_timeout(Some(POLL))?;
    Ok(socket.into())
}

fn is_its_own_peer(socket: &Socket) -> io::Result<bool> {
    Ok(socket.local_addr()?.as_socket() == socket.peer_addr()?.as_socket())
}

/// Waits so long until a socket is ready. By poll(2), not by the socket's own
/// timeout, which the kernel rounds up to its clock tick of some milliseconds.
fn is_ready(socket: &impl AsFd, events: PollFlags, longest: Duration) -> bool {
    let timeout = Timespec::try_from(longest).ok();
    let mut sockets = [PollFd::new(socket, events)];
    // An interrupted wait is a short one.
    poll(&mut sockets, timeout.as_ref()).is_ok_and(|ready| ready > 0)
}

/// Whether a call came back only to let us look around.
fn is_tick(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted)
}

fn lost(echoed: usize, why: impl ToString) -> Outcome {
    let why = why.to_string();
    Outcome::Lost { echoed, why }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;

    const PATIENCE: Duration = Duration::from_secs(60);

    fn pair() -> (Link, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let target = listener.local_addr().unwrap();
        let link = Link::connect(&[target], Deadline::after(PATIENCE), &Stop::new()).unwrap();
        (link, listener.accept().unwrap().0)
    }

    #[test]
    fn the_first_address_that_answers_is_taken() {
        let closed = TcpListener::bind("127.0.0.1:0").unwrap();
        let refusing = closed.local_addr().unwrap();
        drop(closed);
        let open = TcpListener::bind("127.0.0.1:0").unwrap();
        let target = open.local_addr().unwrap();
        let deadline = Deadline::after(PATIENCE);
        let link = Link::connect(&[refusing, target], deadline, &Stop::new()).unwrap();
        assert_eq!(link.peer, target);
    }

    #[test]
    fn a_socket_that_is_connected_to_itself_is_known() {
        let closed = TcpListener::bind("127.0.0.1:0").unwrap();
        let target = closed.local_addr().unwrap();
        drop(closed);
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        socket.bind(&target.into()).unwrap();
        socket.connect(&target.into()).unwrap();
        assert!(is_its_own_peer(&socket).unwrap());
        let (link, _peer) = pair();
        assert!(!is_its_own_peer(&link.socket.into()).unwrap());
    }

    #[test]
    fn a_peer_that_takes_nothing_costs_a_message_and_no_more_than_the_time_for_it() {
        let (mut link, _peer) = pair();
        let message = vec![0; 16 << 20];
        let deadline = Deadline::after(Duration::from_millis(50));
        let outcome = link.exchange(&message, deadline, &Stop::new());
        assert!(matches!(outcome, Outcome::Lost { echoed: 0, .. }));
    }

    static LARGE: [u8; 1 << 20] = [7; 1 << 20];
    /// More than one read, and less than what is on its way at once.
    const PART: usize = 3 * PIECE;

    #[track_caller]
    fn assert_lost_after_part(link: &mut Link, expected: &str) {
        match link.exchange(&LARGE, Deadline::after(PATIENCE), &Stop::new()) {
            Outcome::Lost { echoed, why } => {
                assert_eq!(echoed, PART, "{why}");
                assert!(why.contains(expected), "{why}");
            }
            _ => panic!("it was not lost in the middle"),
        }
    }

    /// Its kernel answers our next bytes with a reset, which destroys nothing
    /// that had come.
    #[test]
    fn what_came_before_an_orderly_end_is_counted_although_a_write_fails() {
        let (mut link, mut peer) = pair();
        peer.write_all(&LARGE[..PART]).unwrap();
        drop(peer);
        assert_lost_after_part(&mut link, END_OF_FILE);
    }

    #[test]
    fn what_came_before_a_reset_is_counted_and_the_reset_is_told() {
        let (mut link, mut peer) = pair();
        peer.write_all(&LARGE[..PART]).unwrap();
        std::thread::scope(|scope| {
            scope.spawn(|| {
                peer.read_exact(&mut [0]).unwrap();
                drop(peer); // with unread bytes: a reset
            });
            assert_lost_after_part(&mut link, "reset");
        });
    }

    #[test]
    fn a_cut_ends_a_wait_and_a_stop_does_not() {
        let (mut link, mut peer) = pair();
        let stop = Stop::new();
        stop.set();
        peer.write_all(b"x").unwrap();
        let outcome = link.exchange(b"x", Deadline::after(PATIENCE), &stop);
        assert!(matches!(outcome, Outcome::Echoed));
        stop.cut();
        let outcome = link.exchange(b"x", Deadline::NEVER, &stop);
        assert!(matches!(outcome, Outcome::Lost { .. }));
    }
}
