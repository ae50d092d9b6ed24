//! A connection's writes: each whole, in its turn, or the last.

use super::{Link, cut_error, idle_error};
use crate::early::Early;
use crate::event::{Event, State};
use crate::socket_errors;
use crate::sync::atomic::Ordering::Relaxed;
use crate::sys;
use crate::writing::Turn;
use std::io::{self, ErrorKind};

impl Link {
    /// Writes everything and never loses its place: a partial count advances,
    /// a tick that passed without room is only an occasion to look at the
    /// idle timeout.
    ///
    /// Blocks while the peer takes nothing; room, a reset, the idle timeout
    /// and [`cut`](Self::cut) wake it. An error is final.
    pub(crate) fn send_all(&self, buf: &[u8]) -> io::Result<()> {
        self.send_whole(buf)?;
        let (id, bytes) = (self.id, buf.len());
        self.terms.tell(|| Event::Reply { id, bytes });
        Ok(())
    }

    fn send_whole(&self, mut buf: &[u8]) -> io::Result<()> {
        let turn = self.writing.begin();
        let turn = turn.map_err(|turn| self.refused(turn.as_ref(), buf))?;
        let mut early = Early::default();
        while !buf.is_empty() {
            match self.send_some(buf) {
                Ok(0) => early.note(self.terms.tick()),
                Ok(count) => buf = &buf[count..],
                Err(error) => {
                    turn.fail();
                    self.unsent.fetch_add(buf.len() as u64, Relaxed);
                    return Err(error);
                }
            }
        }
        Ok(())
    }

    /// A write that may not begin. After the end it is no matter of this
    /// connection, and is counted nowhere.
    fn refused(&self, turn: Option<&Turn<'_>>, buf: &[u8]) -> io::Error {
        if turn.is_some() {
            self.unsent.fetch_add(buf.len() as u64, Relaxed);
        }
        match self.state() {
            State::Cut => cut_error(),
            _ => ErrorKind::BrokenPipe.into(),
        }
    }

    /// Lets no further write begin, and waits for the one in hand: what is
    /// counted afterwards is all there is.
    ///
    /// Blocks while the peer takes nothing of it; what ends that write ends
    /// this: the idle timeout, a reset, [`cut`](Self::cut).
    pub(crate) fn finish_writing(&self) {
        self.busy.store(true, Relaxed); // with a writer's message, where there is one
        self.writing.close();
    }

    /// Zero where there was no room within a tick.
    fn send_some(&self, buf: &[u8]) -> io::Result<usize> {
        match sys::send(&self.socket, buf) {
            Ok(0) => Err(ErrorKind::WriteZero.into()),
            Ok(count) => {
                self.sent.fetch_add(count as u64, Relaxed);
                self.idle.wrote();
                Ok(count)
            }
            Err(error) if socket_errors::is_tick(&error) => self.no_room().map(|()| 0),
            Err(_) if self.state() == State::Cut => Err(cut_error()),
            Err(error) => Err(self.failed(error)),
        }
    }

    /// A tick passed without room in the send buffer.
    fn no_room(&self) -> io::Result<()> {
        if self.nothing()? {
            return Err(idle_error());
        }
        if let Some(left) = self.idle.left().filter(|&left| left < self.terms.tick()) {
            sys::wait_writable(&self.socket, left);
        }
        Ok(())
    }
}

#[cfg(test)]
#[cfg(not(shuttle))]
mod tests {
    use crate::link::tests::pair;
    use crate::sync::atomic::Ordering::Relaxed;
    use crate::writing::tests::await_waiting;
    use std::thread;
    use std::time::Duration;

    /// Larger than what the kernel keeps for a client that does not read.
    const MESSAGE: usize = 12_000_000;

    #[test]
    fn a_message_that_waits_behind_one_that_is_cut_is_counted_before_the_end() {
        let (link, _client) = pair(1);
        let tick = Some(Duration::from_millis(10));
        link.socket().set_write_timeout(tick).unwrap();
        let write = || link.send_all(&vec![7; MESSAGE]).unwrap_err();
        thread::scope(|scope| {
            scope.spawn(write);
            while link.sent.load(Relaxed) == 0 {
                thread::yield_now();
            }
            scope.spawn(write);
            await_waiting(&link.writing, 1);
            let end = scope.spawn(|| {
                link.finish_writing();
                link.sent.load(Relaxed) + link.unsent.load(Relaxed)
            });
            await_waiting(&link.writing, 2);
            link.cut();
            assert_eq!(end.join().unwrap(), 2 * MESSAGE as u64);
        });
    }
}
