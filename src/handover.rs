//! Restarts that nobody notices: the listening sockets pass to a successor,
//! which says when it is ready; only then the predecessor stops.
//!
//! A successor gets them as a supervisor passes them to what it starts, by the
//! protocol of `sd_listen_fds(3)`: `LISTEN_FDS` and `LISTEN_FDNAMES`,
//! descriptors from 3. `LISTEN_PID` is missing, because it cannot be known
//! before the process exists; instead `LASTECHO_HANDOVER` names a socket on
//! which a letter waits that says for which process all this is.
//!
//! ```text
//! predecessor                         successor
//!      │ starts it ───────────────────────► │ binds what is new, prepares
//!      │ ◄──── a byte per listener: taken? ─┤ ready
//!      ├─ "yours" ────────────────────────► │ accepts
//!      ▼ stops, drains                      ▼ an orphan
//! ```
//!
//! Until "yours" the successor has accepted nobody. If it dies, is late, or the
//! predecessor stops meanwhile, it is killed and nothing has happened. If the
//! predecessor dies, without a word, the successor serves in its place. From
//! "yours" on it is no child of the predecessor, but of the system's or the
//! session's reaper, as it would be after the predecessor's end.
//!
//! ```no_run
//! use lastecho::{Server, Stop, handover, signals};
//! use std::sync::Arc;
//! use std::time::Duration;
//!
//! fn main() -> std::io::Result<()> {
//!     let mut inherited = handover::inherited()?; // first of all
//!     let server = inherited.bind("127.0.0.1:7007")?.take_over(inherited);
//!     let stop = Stop::new();
//!     let (ours, handover) = (stop.clone(), Arc::new(server.handover()?));
//!     let program = handover::Program::this()?;
//!     let usr2 = signal_hook::consts::SIGUSR2;
//!     let _signals = signals::install_with(&stop, &[usr2], move |_, request| {
//!         if request == signals::Request::Other {
//!             let (stop, handover) = (ours.clone(), Arc::clone(&handover));
//!             let successor = program.command();
//!             std::thread::spawn(move || {
//!                 match handover.spawn(successor, Duration::from_secs(10), &stop) {
//!                     Ok(successor) => log::info!("handed over to process {}", successor.id()),
//!                     Err(error) => log::error!("no handover: {error}"),
//!                 }
//!             });
//!         }
//!     })?;
//!     let report = server.run(&stop, |conn| lastecho::Echo::default().serve(conn))?;
//!     println!("{report}");
//!     Ok(())
//! }
//! ```

use crate::deadline::Deadline;
use crate::listener::{LONGEST_WAIT, Listener};
use crate::live::Joined;
use crate::lock::lock;
use crate::passed::{self, Bequest, DECLINED, LEFT, SLICE, TAKEN, YOURS};
use crate::server::Server;
use crate::stop::Stop;
use crate::successor::{Birth, Process, go_on};
use crate::sync::atomic::{AtomicBool, Ordering::Relaxed};
use crate::sync::{Arc, Mutex, MutexGuard, thread};
use crate::sys;
use crate::title::Title;
use std::cell::Cell;
use std::io::{self, ErrorKind, Read};
use std::os::unix::net::UnixStream;
use std::process::Command;
use std::sync::TryLockError;
use std::time::Duration;

pub use crate::inherited::{Inherited, inherited};
pub use crate::program::Program;

impl Server {
    /// What it takes to hand this server over to a successor while it runs.
    ///
    /// # Errors
    /// What duplicating a descriptor says.
    pub fn handover(&self) -> io::Result<Handover> {
        let bequest = |socket: &Listener| {
            Ok(Bequest {
                name: socket.name(),
                descriptor: socket.duplicate()?,
                title: Arc::clone(socket.title()),
            })
        };
        let bequests: io::Result<Vec<_>> = self.listeners.iter().map(bequest).collect();
        Ok(Handover {
            bequests: Mutex::new(bequests?),
            serving: Arc::clone(&self.serving),
            joined: Arc::clone(&self.joined),
            done: AtomicBool::new(false),
        })
    }
}

/// A running server's listeners, to be handed over.
pub struct Handover {
    /// None once they were handed over.
    bequests: Mutex<Vec<Bequest>>,
    serving: Arc<Mutex<bool>>,
    joined: Joined,
    done: AtomicBool,
}

/// A process that has taken over. The predecessor's [`Server::run`] does not
/// return before this is dropped, so that there is time to tell others.
pub struct Successor<'a> {
    id: u32,
    _underway: MutexGuard<'a, bool>,
}

impl Successor<'_> {
    /// Its process number.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.id
    }
}

impl Handover {
    /// Starts `successor` with our listeners, waits until it is ready, hands
    /// over and sets `stop`, so that our server drains. Until then, and
    /// whenever this fails, it serves on as if nothing had been.
    ///
    /// Blocks until the successor is ready, for at most `timeout`, and until our
    /// threads have come round, a poll interval and about a second at most; less
    /// if `stop` is set meanwhile. Where the successor must be killed, that takes
    /// a moment more. Do not call it on the thread that handles signals.
    ///
    /// # Errors
    /// `WouldBlock` while another handover is under way. `NotConnected` while the
    /// server does not serve: before, afterwards, and as long as it has not
    /// taken over itself what it would hand on. `InvalidInput` where the server has
    /// been [joined](Server::and) since this was taken. `Unsupported` where we
    /// are process 1, whose end would end its whole namespace. Otherwise the
    /// successor could not be started, ended, was not ready in time, or a stop
    /// came first; it was killed then, having served nobody.
    pub fn spawn(
        &self,
        successor: Command,
        timeout: Duration,
        stop: &Stop,
    ) -> io::Result<Successor<'_>> {
        if std::process::id() == 1 {
            let message = "process 1 cannot hand over: its end would end all others";
            return Err(io::Error::new(ErrorKind::Unsupported, message));
        }
        let mut serving = self.begin(stop)?;
        let mut bequests = lock(&self.bequests);
        for bequest in &*bequests {
            bequest.title.hand(true);
        }
        let deadline = Deadline::after(timeout);
        match self.hand_over(successor, &mut bequests, deadline, stop) {
            Ok(id) => {
                *serving = false; // whoever else has a `Handover` of this server
                Ok(Successor {
                    id,
                    _underway: serving,
                })
            }
            Err(error) => {
                for bequest in &*bequests {
                    bequest.title.hand(false);
                }
                Err(error)
            }
        }
    }

    fn hand_over(
        &self,
        mut successor: Command,
        bequests: &mut Vec<Bequest>,
        deadline: Deadline,
        stop: &Stop,
    ) -> io::Result<u32> {
        let (ours, theirs) = UnixStream::pair()?;
        let line = Line {
            socket: ours,
            over: Cell::new(false),
        };
        // Before the descriptors get their places, which may be others' until then.
        let birth = Birth::arrange(&mut successor, &line.socket)?;
        passed::equip(&mut successor, bequests, theirs.into())?;
        let process = Process::start(successor, birth, deadline, stop)?;
        let ready = await_ready(&line.socket, bequests.len(), deadline, stop);
        let outcome = ready.and_then(|taken| {
            let heirlooms = bequests.iter().zip(taken);
            let heirlooms = heirlooms.filter(|&(_, word)| word == TAKEN);
            let titles: Vec<_> = heirlooms.map(|(b, _)| Arc::clone(&b.title)).collect();
            self.leave(&line, &titles, deadline, stop)
        });
        match outcome {
            Ok(()) => {
                bequests.clear();
                stop.set();
                Ok(process.let_go())
            }
            Err(error) => Err(process.give_up(error)),
        }
    }

    /// The right to hand over, which a server has while it serves.
    fn begin(&self, stop: &Stop) -> io::Result<MutexGuard<'_, bool>> {
        let refused = |kind, why| Err(io::Error::new(kind, why));
        if self.joined.get().is_some() {
            let message =
                "this handover was taken before `Server::and`: take it from the joined server";
            return refused(ErrorKind::InvalidInput, message);
        }
        let serving = match self.serving.try_lock() {
            Ok(serving) => serving,
            Err(TryLockError::Poisoned(serving)) => serving.into_inner(), // as `lock` takes it
            Err(TryLockError::WouldBlock) => {
                return refused(ErrorKind::WouldBlock, "another handover is under way");
            }
        };
        if self.is_done() {
            return refused(ErrorKind::NotConnected, "handed over already");
        }
        if !*serving {
            return refused(ErrorKind::NotConnected, "this server is not serving");
        }
        go_on(Deadline::NEVER, stop)?;
        Ok(serving)
    }

    /// Whether a successor has taken over. Whoever sees the stop that this sets
    /// sees it, too.
    #[must_use]
    pub fn is_done(&self) -> bool {
        self.done.load(Relaxed)
    }

    /// Leaves these listeners' clients to the successor. Ours are those that our
    /// threads took before the last word; whoever comes after it would soon
    /// meet our stop.
    fn leave(
        &self,
        line: &Line,
        titles: &[Arc<Title>],
        deadline: Deadline,
        stop: &Stop,
    ) -> io::Result<()> {
        await_threads(titles, Title::is_patient, deadline, stop)?;
        let leave = |leave| titles.iter().for_each(|title| title.leave(leave));
        leave(true);
        let left = await_threads(titles, Title::is_in_slice, deadline, stop);
        let outcome = left.and_then(|()| self.commit(line, titles, stop));
        if outcome.is_err() {
            leave(false); // before the successor is killed, which takes a moment
        }
        outcome
    }

    /// The last step: from now on it is the successor who takes the clients of
    /// these listeners, and ends them.
    fn commit(&self, line: &Line, titles: &[Arc<Title>], stop: &Stop) -> io::Result<()> {
        let mut ours: Vec<_> = titles.iter().map(|title| lock(&title.ours)).collect();
        go_on(Deadline::NEVER, stop)?;
        line.say(YOURS)?;
        for ours in &mut ours {
            **ours = false;
        }
        // Before the titles are free: a stop that comes just now waits for them.
        self.done.store(true, Relaxed);
        Ok(())
    }
}

/// Our end of the socket to a successor. The last word on it is said when it
/// is dropped at the latest: without one the successor must think that we have
/// died, and serves.
struct Line {
    socket: UnixStream,
    /// Whether the last word was said.
    over: Cell<bool>,
}

impl Line {
    fn say(&self, word: u8) -> io::Result<()> {
        sys::send(&self.socket, &[word])?;
        self.over.set(true);
        Ok(())
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        if !self.over.get() {
            let _ = self.say(DECLINED);
        }
    }
}

/// Waits for the successor's word: for each listener, whether it takes it.
fn await_ready(
    mut successor: &UnixStream,
    count: usize,
    deadline: Deadline,
    stop: &Stop,
) -> io::Result<Vec<u8>> {
    let mut word = vec![0; count];
    let mut filled = 0;
    while filled < word.len() {
        go_on(deadline, stop)?;
        if sys::wait_readable(successor, deadline.cap(SLICE)) {
            filled += match successor.read(&mut word[filled..]) {
                // Reset, if it ended without having read its letter.
                Ok(0) | Err(_) => {
                    let message = "it closed its socket before it was ready";
                    return Err(io::Error::new(ErrorKind::UnexpectedEof, message));
                }
                Ok(count) => count,
            };
        }
    }
    if word.iter().all(|word| [TAKEN, LEFT].contains(word)) {
        return Ok(word);
    }
    let message = "it said something else than that it is ready";
    Err(io::Error::new(ErrorKind::InvalidData, message))
}

/// Waits until none of our threads waits for a client in this way: longer than
/// a slice, as those did that were waiting when the handover began, and then in
/// a slice.
///
/// The first takes [`LONGEST_WAIT`] at most, the second a slice, but for a
/// crowded machine.
fn await_threads(
    titles: &[Arc<Title>],
    waits: fn(&Title) -> bool,
    deadline: Deadline,
    stop: &Stop,
) -> io::Result<()> {
    let patience = Deadline::after(2 * LONGEST_WAIT);
    while titles.iter().any(|title| waits(title)) {
        go_on(Deadline::NEVER, stop)?;
        if deadline.has_passed() && patience.has_passed() {
            let message = "our own threads still waited for clients";
            return Err(io::Error::new(ErrorKind::TimedOut, message));
        }
        thread::sleep(Duration::from_millis(1));
    }
    Ok(())
}
