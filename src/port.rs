//! A listener and the number of threads that wait on it.

use crate::deadline::Deadline;
use crate::episode::Episode;
use crate::listener::{Accepted, BACKLOG, Listener};
use crate::stop::Stop;
use crate::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use crate::sync::thread;
use crossbeam_utils::CachePadded;
use std::io::{self, ErrorKind};
use std::net::TcpStream;
use std::time::Duration;

/// How often is looked for a predecessor's last word, and for the stop.
const SLICE: Duration = Duration::from_millis(20);
/// How long after a stop it is waited for.
const LAST_WORD: Duration = Duration::from_secs(1);

/// A listener and the threads that wait on it.
pub(crate) struct Port {
    /// Its place among the server's ports.
    pub(crate) number: usize,
    pub(crate) listener: Listener,
    /// Threads in (or on their way to) accept. Written at every connection by
    /// whatever thread accepts, hence on a cache line of its own.
    waiting: CachePadded<AtomicUsize>,
    pub(crate) accepting: Episode,
    pub(crate) starting: Episode,
}

impl Port {
    pub(crate) fn new(number: usize, listener: Listener) -> Self {
        let address = listener.address();
        Self {
            number,
            listener,
            waiting: CachePadded::new(AtomicUsize::new(0)),
            accepting: Episode::new(format!("accepting on {address}")),
            starting: Episode::new(format!("starting a thread for {address}")),
        }
    }

    /// Waits for the predecessor's last word where there is one. At a stop it may
    /// have said it, and the server that hears it gets a moment to tell. After it
    /// none but us waits on the listener, which then waits as we would.
    ///
    /// # Errors
    /// It has not handed over, or a stop came first.
    pub(crate) fn await_predecessor(&self, stop: &Stop, tick: Duration) -> io::Result<()> {
        let Some(handed_over) = &self.listener.handed_over else {
            return Ok(());
        };
        let mut patience = Deadline::NEVER;
        loop {
            let refused = |kind, why| Err(io::Error::new(kind, why));
            match handed_over.get() {
                Some(true) => {
                    // It has worked before; else the predecessor's wait stays.
                    let _ = self.listener.prepare(tick);
                    return Ok(());
                }
                Some(false) => {
                    let why = "the predecessor has not handed over";
                    return refused(ErrorKind::ConnectionAborted, why);
                }
                None if patience.has_passed() => {
                    let why = "a stop came before the predecessor had handed over";
                    return refused(ErrorKind::Interrupted, why);
                }
                None if stop.is_set() => patience = patience.earlier(Deadline::after(LAST_WORD)),
                None => {}
            }
            thread::sleep(SLICE);
        }
    }

    // Relaxed: the number only decides who starts or retires a thread and
    // guards no data.

    /// Counts a thread in, unless enough wait already.
    pub(crate) fn join(&self, most: usize) -> bool {
        let up = |waiting: usize| (waiting < most).then_some(waiting + 1);
        self.waiting.fetch_update(Relaxed, Relaxed, up).is_ok()
    }

    /// Counts a thread out, unless it is one of the last `least`.
    pub(crate) fn quit(&self, least: usize) -> bool {
        let down = |waiting: usize| (waiting > least).then(|| waiting - 1);
        self.waiting.fetch_update(Relaxed, Relaxed, down).is_ok()
    }

    /// Gives out whoever is in the queue, without waiting for more. False if
    /// somebody is left that could not be accepted. Blocks for 10 ms at most.
    pub(crate) fn sweep(&self, mut each: impl FnMut(TcpStream)) -> bool {
        if self.listener.stop_waiting().is_err() {
            return true;
        }
        let mut patience = 10;
        // Bounded, for where new clients cannot be refused and keep coming.
        for _ in 0..2 * BACKLOG {
            match self.listener.accept() {
                Accepted::Client(client, _) => each(client),
                Accepted::Nobody => break,
                // Another thread was faster to take the last descriptor.
                _ if patience > 0 => {
                    patience -= 1;
                    thread::sleep(Duration::from_millis(1));
                }
                _ => break,
            }
        }
        !self.listener.has_client()
    }
}

#[cfg(test)]
#[cfg(feature = "handover")]
mod tests {
    use super::*;
    use crate::lock::lock;
    use std::sync::{Arc, OnceLock};

    #[test]
    fn a_successor_waits_as_long_as_it_wants_once_its_predecessor_has_handed_over() {
        let (short, long) = (Duration::from_millis(200), Duration::from_millis(800));
        let predecessor = Listener::bind("127.0.0.1:0".parse().unwrap()).unwrap();
        predecessor.prepare(short).unwrap();
        let mut listener = Listener::inherit(predecessor.duplicate().unwrap(), false).unwrap();
        let handed_over = Arc::new(OnceLock::new());
        listener.handed_over = Some(Arc::clone(&handed_over));
        let port = Port::new(0, listener);
        port.listener.prepare(long).unwrap();
        assert_eq!(port.listener.patience(long), short);
        *lock(&port.listener.title().ours) = true;
        handed_over.set(true).unwrap();
        port.await_predecessor(&Stop::new(), long).unwrap();
        assert_eq!(port.listener.patience(long), long);
    }
}
