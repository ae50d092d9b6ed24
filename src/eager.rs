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
                found => return found,
            }
        }
        let begun = Instant::now();
        let found = sys::recv(socket, buf);
        self.quick = if begun.elapsed() < SOON {
            self.quick + 1
        } else {
            0
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
    use std::net::TcpListener;

    #[test]
    fn it_is_learned_from_short_waits_and_given_up_at_the_first_long_one() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut peer = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let socket = listener.accept().unwrap().0;
        socket.set_read_timeout(Some(2 * SOON)).unwrap();
        let (mut eager, mut byte) = (Eager::default(), [0]);
        let mut echo = |eager: &mut Eager| {
            peer.write_all(b"x").unwrap();
            assert!(sys::wait_readable(&socket, Duration::from_secs(60)));
            assert_eq!(eager.recv(&socket, &mut byte).unwrap(), 1);
        };
        // More often than LEARNED where the machine itself takes a break.
        while eager.quick < LEARNED {
            echo(&mut eager);
        }
        echo(&mut eager);
        assert_eq!(eager.quick, LEARNED);
        let silence = eager.recv(&socket, &mut [0]).unwrap_err();
        assert_eq!(silence.kind(), ErrorKind::WouldBlock);
        assert_eq!(eager.quick, 0);
    }
}
