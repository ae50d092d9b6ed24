//! The ordered end of a connection: how to close without losing what the peer
//! has not read yet.
//!
//! Closing a socket that has unread input sends RST (RFC 9293, 3.10.4; RFC
//! 1122, 4.2.2.13), and RST destroys what is still in our send queue. So:
//!
//! 1. FIN after the last byte, a writer's message included: `shutdown(Write)`.
//! 2. Linger: read and discard until the peer's FIN, or until the peer is
//!    quiet *and* has acknowledged everything, or until the limit.
//! 3. A last bounded sweep of what came meanwhile, then close.
//!
//! Never `shutdown(Read)` before or during this: one more byte from the peer
//! and it is reset. `SO_LINGER` is no substitute: it sends RST as well.
//! `tests/it/ending.rs` runs the alternatives and shows what they lose.

use crate::deadline::Deadline;
use crate::early::Early;
use crate::event::Event;
use crate::link::Link;
use crate::socket_errors;
use crate::sync::atomic::Ordering::Relaxed;
use crate::sync::thread;
use crate::sys;
use socket2::SockRef;
use std::io;
use std::net::Shutdown;
use std::time::{Duration, Instant};

/// How often a lingering connection looks at the cut.
const SLICE: Duration = Duration::from_millis(20);
/// A peer that has everything and was silent for so long will not close before
/// its user does: OpenBSD nc and ncat keep their side open while stdin is.
const QUIET: Duration = Duration::from_millis(250);
/// Longest linger in normal life for a peer that has everything and keeps
/// sending, or does not acknowledge our FIN. One that has not taken everything
/// yet has as long as it would have to read: the idle timeout. (Closing would
/// leave its bytes to the kernel, which gives up after some minutes.) During a
/// stop, the cut is the limit.
const LINGER: Duration = Duration::from_secs(5);
/// What is given up stays in the kernel, megabytes of a peer that takes nothing.
/// It tries for some minutes, or until the peer took nothing for so long
/// (TCP_USER_TIMEOUT, tcp(7); for a closed window since Linux 5.11).
const ORPHANED: Duration = Duration::from_secs(5);
/// Reads per sweep, so that a flood cannot hold us in one.
const SWEEP: usize = 64;

/// How a connection ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// In order: the peer has acknowledged every byte.
    Fin,
    /// The peer reset it, or the network did.
    Reset,
    /// It was cut, while it had something in hand or bytes were on their way in
    /// either direction.
    Cut,
    /// Its linger ran out, in normal life, while there were such bytes.
    Expired,
}

/// Ends the connection in order, up to the point where dropping it closes it.
///
/// Blocks until a write in hand is over, then until the peer has everything and
/// is closed or quiet; at most 5 s for
/// one that has everything, the idle timeout for one that takes nothing; during
/// a stop until the cut plus one slice (20 ms).
pub(crate) fn end_in_order(link: &Link) -> End {
    let end = try_in_order(link);
    if matches!(end, End::Cut | End::Expired) {
        // Failing that, the kernel keeps it for as long as without.
        let _ = SockRef::from(link.socket()).set_tcp_user_timeout(Some(ORPHANED));
    }
    end
}

fn try_in_order(link: &Link) -> End {
    link.finish_writing();
    if !link.begin_linger() {
        return End::Cut;
    }
    if link.broken.load(Relaxed) || link.shut(Shutdown::Write).is_err() {
        return End::Reset;
    }
    link.terms.tell(|| Event::Lingering { id: link.id });
    let end = Linger::new(link).wait();
    // What came since the last look; unread it would turn our close into a reset.
    discard(link);
    end
}

/// What one sweep of reads met at its end.
enum Swept {
    /// Nothing more at the moment; so many bytes before that.
    Quiet(u64),
    /// The peer's FIN.
    Closed,
    Reset,
}

/// The wait for the peer after our FIN.
struct Linger<'a> {
    link: &'a Link,
    started: Instant,
    last_heard: Option<Instant>,
    /// The shortest that the send queue has been.
    least_out: u64,
    /// When it runs out in normal life.
    limit: Deadline,
    nap: Duration,
    early: Early,
}

impl<'a> Linger<'a> {
    fn new(link: &'a Link) -> Self {
        Self {
            link,
            started: Instant::now(),
            last_heard: None,
            least_out: u64::MAX,
            limit: Deadline::NEVER,
            nap: Duration::from_millis(1),
            early: Early::default(),
        }
    }

    fn wait(mut self) -> End {
        loop {
            let out = sys::unacknowledged(self.link.socket());
            self.note_progress(out);
            match discard(self.link) {
                Swept::Reset => return End::Reset,
                // Only our FIN may be unacknowledged: the peer has everything.
                Swept::Closed if out <= 1 => return End::Fin,
                Swept::Closed if self.has_failed() => return End::Reset,
                Swept::Closed => self.nap(),
                Swept::Quiet(0) if out == 0 && self.quiet_for() >= QUIET => return End::Fin,
                Swept::Quiet(0) => {
                    sys::wait_readable(self.link.socket(), SLICE);
                    // Noted in any case: what is there may be out of reach,
                    // for want of memory.
                    self.early.note(SLICE);
                }
                Swept::Quiet(_) => self.last_heard = Some(Instant::now()),
            }
            if let Some(end) = self.is_over() {
                let sending = self.last_heard.is_some() && self.quiet_for() < QUIET;
                return if sending || out > 0 { end } else { End::Fin };
            }
        }
    }

    fn note_progress(&mut self, out: u64) {
        if out < self.least_out {
            self.least_out = out;
            self.limit = match out {
                // Only our FIN may be unacknowledged.
                0 | 1 => Deadline::after(LINGER),
                _ => self.link.terms.idle.into(),
            };
        }
    }

    fn quiet_for(&self) -> Duration {
        self.last_heard.unwrap_or(self.started).elapsed()
    }

    /// After the peer's FIN a read says "end", whatever happens later.
    fn has_failed(&self) -> bool {
        let error = self.link.socket().take_error();
        error.is_ok_and(|error| error.is_some())
    }

    /// After the peer's FIN the socket is always readable, so a poll would not wait.
    fn nap(&mut self) {
        thread::sleep(self.nap);
        self.nap = (self.nap * 2).min(SLICE);
    }

    /// By what: a stop that comes a moment later changes nothing.
    fn is_over(&self) -> Option<End> {
        let terms = &self.link.terms;
        if terms.is_cut() {
            return Some(End::Cut);
        }
        (self.limit.has_passed() && !terms.stop.is_set()).then_some(End::Expired)
    }
}

/// Reads what is there and throws it away; never blocks.
fn discard(link: &Link) -> Swept {
    let mut bin = [0; 16 * 1024];
    let mut bytes = 0;
    for _ in 0..SWEEP {
        match sys::recv_now(link.socket(), &mut bin) {
            Ok(0) => return Swept::Closed,
            Ok(count) => {
                bytes += count as u64;
                link.discarded.fetch_add(count as u64, Relaxed);
            }
            // Nothing there, or no memory to take it: no news of the peer.
            Err(error) if socket_errors::is_tick(&error) => break,
            Err(_) => return Swept::Reset,
        }
    }
    Swept::Quiet(bytes)
}

/// Turns away a client that cannot be served, as politely as can be done
/// without waiting for it.
pub(crate) fn turn_away(socket: &std::net::TcpStream) -> io::Result<()> {
    socket.shutdown(Shutdown::Write)?;
    let mut bin = [0; 16 * 1024];
    for _ in 0..SWEEP {
        match sys::recv_now(socket, &mut bin) {
            Ok(0) => break,
            Ok(_) => {}
            // Nothing more has arrived.
            Err(error) if socket_errors::is_tick(&error) => break,
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::link::tests::pair;

    #[test]
    fn turning_away_a_client_that_has_sent_nothing_is_no_error() {
        let (socket, _client) = sys::tests::pair();
        turn_away(&socket).unwrap();
    }

    #[test]
    fn a_peer_that_owes_only_the_acknowledgement_of_our_fin_has_a_limit() {
        let (link, _client) = pair(1);
        let mut linger = Linger::new(&link);
        // The control: of a byte, for as long as the idle timeout, here for ever.
        linger.note_progress(2);
        assert_eq!(linger.limit, Deadline::NEVER);
        linger.note_progress(1);
        assert_ne!(linger.limit, Deadline::NEVER);
    }

    #[test]
    fn a_linger_that_ran_out_before_a_stop_was_not_cut_by_it() {
        let (link, _client) = pair(1);
        let mut linger = Linger::new(&link);
        assert_eq!(linger.is_over(), None);
        linger.limit = Deadline::after(Duration::ZERO);
        assert_eq!(linger.is_over(), Some(End::Expired));
        // From the stop on, the cut is the limit.
        link.terms.stop.set();
        assert_eq!(linger.is_over(), None);
        link.terms.stop.cut();
        assert_eq!(linger.is_over(), Some(End::Cut));
    }
}
