//! A short wait that does not sleep, for as long as that pays.

use crate::sync::thread;
use crate::sys;
use std::io::{self, ErrorKind};
use std::net::TcpStream;
use std::time::{Duration, Instant};

/// So many waits in a row were over soon: the next one may be, too.
const LEARNED: u32 = 3;
/// What "soon" is. Long against what looking costs: where every wait is just as
/// long and the look always in vain, it takes 50 µs in four waits.
const SOON: Duration = Duration::from_millis(20);
/// A read of more is part of a stream: there is most often more, and where
/// there is not, looking for it costs half as much again per gigabyte.
const MESSAGE: usize = 4096;
/// How long it looks again and again before it sleeps, in tries and in time.
const TRIES: u32 = 100;
const LOOK: Duration = Duration::from_micros(50);

/// Reads that look a few times, giving the processor to others in between,
/// before they block.
///
/// Waking a thread that sleeps costs 10 to 80 µs, most of it on the sender's
/// side; one that yields finds its bytes without. It does so only where the last
/// waits were short, and gives it up at the first one that is not, so silence
/// costs nothing.
#[derive(Default)]
pub(crate) struct Eager {
    /// Waits in a row that were over soon.
    quick: u32,
}

impl Eager {
    /// Reads once, as [`sys::recv`] does.
    pub(crate) fn recv(&mut self, socket: &TcpStream, buf: &mut [u8]) -> io::Result<usize> {
        if self.quick >= LEARNED {
            match look(socket, buf) {
                Err(error) if error.kind() == ErrorKind::WouldBlock => self.quick = 0,
                found => return self.learn(found, true),
            }
        }
        let begun = Instant::now();
        let found = sys::recv(socket, buf);
        self.learn(found, begun.elapsed() < SOON)
    }

    fn learn(&mut self, found: io::Result<usize>, soon: bool) -> io::Result<usize> {
        let stream = found.as_ref().is_ok_and(|&count| count > MESSAGE);
        self.quick = match soon && !stream {
            true => LEARNED.min(self.quick + 1),
            false => 0,
        };
        found
    }
}

fn look(socket: &TcpStream, buf: &mut [u8]) -> io::Result<usize> {
    let begun = Instant::now();
    for _ in 1..TRIES {
        let found = sys::recv_now(socket, buf);
        let nothing = matches!(&found, Err(error) if error.kind() == ErrorKind::WouldBlock);
        if !nothing || begun.elapsed() >= LOOK {
            return found;
        }
        thread::yield_now();
    }
    sys::recv_now(socket, buf)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    fn pair() -> (TcpStream, TcpStream) {
        let (socket, peer) = sys::tests::pair();
        socket.set_read_timeout(Some(2 * SOON)).unwrap();
        (socket, peer)
    }

    fn pass(eager: &mut Eager, socket: &TcpStream, peer: &mut TcpStream, bytes: usize) {
        peer.write_all(&vec![7; bytes]).unwrap();
        assert!(sys::wait_readable(socket, Duration::from_secs(60)));
        assert_eq!(eager.recv(socket, &mut vec![0; bytes]).unwrap(), bytes);
    }

    /// More often than `LEARNED` where the machine itself takes a break.
    fn teach(eager: &mut Eager, socket: &TcpStream, peer: &mut TcpStream) {
        while eager.quick < LEARNED {
            pass(eager, socket, peer, 1);
        }
    }

    #[test]
    fn it_is_learned_from_short_waits_and_given_up_at_the_first_long_one() {
        let ((socket, mut peer), mut eager) = (pair(), Eager::default());
        teach(&mut eager, &socket, &mut peer);
        pass(&mut eager, &socket, &mut peer, 1);
        assert_eq!(eager.quick, LEARNED);
        let silence = eager.recv(&socket, &mut [0]).unwrap_err();
        assert_eq!(silence.kind(), ErrorKind::WouldBlock);
        assert_eq!(eager.quick, 0);
    }

    #[test]
    fn a_stream_is_read_without_looking() {
        let ((socket, mut peer), mut eager) = (pair(), Eager::default());
        teach(&mut eager, &socket, &mut peer);
        pass(&mut eager, &socket, &mut peer, MESSAGE + 1);
        assert_eq!(eager.quick, 0);
    }
}
