//! The ordered end of a connection: how to close without losing what the peer
//! has not read yet.
//!
//! Closing a socket that has unread input sends RST (RFC 9293, 3.10.4; RFC
//! 1122, 4.2.2.13), and RST destroys what is still in our send queue. So:
//!
//! 1. FIN after the last byte: `shutdown(Write)`.
//! 2. Linger: read and discard until the peer's FIN, or until the peer is
//!    quiet *and* has acknowledged everything, or until the limit.
//! 3. A last bounded sweep of what came meanwhile, then close.
//!
//! Never `shutdown(Read)` before or during this: one more byte from the peer
//! and it is reset. `SO_LINGER` is no substitute: it sends RST as well.
//! `tests/it/ending.rs` runs the alternatives and shows what they lose.

use crate::deadline::Deadline;
use crate::link::Link;
use crate::sys;
use std::io::{self, ErrorKind};
use std::net::Shutdown;
use std::sync::atomic::Ordering::Relaxed;
use std::thread;
use std::time::{Duration, Instant};

/// How often a lingering connection looks at the cut.
const SLICE: Duration = Duration::from_millis(20);
/// A peer that has everything and was silent for so long will not close before
/// its user does: OpenBSD nc and ncat keep their side open while stdin is.
const QUIET: Duration = Duration::from_millis(250);
/// Longest linger in normal life. During a stop, the cut is the limit.
const LINGER: Duration = Duration::from_secs(5);
/// Reads per sweep, so that a flood cannot hold us in one.
const SWEEP: usize = 64;

/// How a connection ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// With FIN; the peer has acknowledged every byte.
    Fin,
    /// The peer reset it, or the network did.
    Reset,
    /// By force: it was cut, or its linger ran out while there were bytes on
    /// their way in either direction.
    Forced,
}

/// Ends the connection in order, up to the point where dropping it closes it.
///
/// Blocks for at most 5 s, during a stop until the cut plus one slice (20 ms).
pub(crate) fn end_in_order(link: &Link) -> End {
    if !link.begin_linger() {
        return End::Forced;
    }
    if link.broken.load(Relaxed) || link.shut(Shutdown::Write).is_err() {
        return End::Reset;
    }
    let end = linger(link);
    if end == End::Fin {
        // What came since the last look; unread it would turn our close into a reset.
        discard(link);
    }
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

fn linger(link: &Link) -> End {
    let own_limit = Deadline::after(LINGER);
    let mut last_heard: Option<Instant> = None;
    let started = Instant::now();
    let mut nap = Duration::from_millis(1);
    loop {
        let out = sys::unacknowledged(link.socket()).unwrap_or(0);
        match discard(link) {
            Swept::Reset => return End::Reset,
            // Only our FIN may be unacknowledged; the peer is gone or about to be.
            Swept::Closed if out <= 1 => return End::Fin,
            Swept::Closed => {
                // Always readable from now on, so a poll would not wait.
                if link
                    .socket()
                    .take_error()
                    .is_ok_and(|error| error.is_some())
                {
                    return End::Reset;
                }
                thread::sleep(nap);
                nap = (nap * 2).min(SLICE);
            }
            Swept::Quiet(0) => {
                let quiet = last_heard.unwrap_or(started).elapsed() >= QUIET;
                if quiet && out == 0 {
                    return End::Fin;
                }
                let _ = sys::wait_readable(link.socket(), SLICE);
            }
            Swept::Quiet(_) => last_heard = Some(Instant::now()),
        }
        if over(link, own_limit) {
            let sending = last_heard.is_some_and(|heard| heard.elapsed() < QUIET);
            return if sending || out > 0 {
                End::Forced
            } else {
                End::Fin
            };
        }
    }
}

fn over(link: &Link, own_limit: Deadline) -> bool {
    link.terms.is_cut() || (own_limit.has_passed() && !link.terms.stop.is_set())
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
            Err(error) => match error.kind() {
                ErrorKind::WouldBlock => break,
                ErrorKind::Interrupted => {}
                _ => return Swept::Reset,
            },
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
        if sys::recv_now(socket, &mut bin)? == 0 {
            break;
        }
    }
    Ok(())
}
