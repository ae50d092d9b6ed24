//! The threads of a server: each waits for a client, makes sure that another
//! one waits after it, serves, and comes back or retires.

use crate::connection::{Connection, Ending};
use crate::ending::{self, End};
use crate::episode::Episode;
use crate::event::{Event, Outcome};
use crate::link::{Link, Terms};
use crate::listener::{self, Accepted, Listener};
use crate::live::{Admission, Table};
use crate::sys;
use crossbeam_utils::CachePadded;
use std::any::Any;
use std::io;
use std::net::{SocketAddr, TcpStream};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::{self, Scope};
use std::time::Duration;

/// Threads that may wait for clients on one listener when they come back from
/// serving; a further one retires. They save starting a thread per client
/// while clients come and go quickly, and retire when nobody comes.
const SPARE: usize = 16;
/// Clients lost in a row between connect and accept before we take it for a
/// trouble of the system and wait.
const LOST_IN_A_ROW: u32 = 16;

pub(crate) type Observer = Arc<dyn Fn(&Event<'_>) + Send + Sync>;

/// A listener and the threads that wait on it.
pub(crate) struct Port {
    pub(crate) listener: Listener,
    /// Threads in (or on their way to) accept. Written at every connection by
    /// whatever thread accepts, hence on a cache line of its own.
    waiting: CachePadded<AtomicUsize>,
    accepting: Episode,
    starting: Episode,
}

impl Port {
    pub(crate) fn new(listener: Listener) -> Self {
        let address = listener.address();
        Self {
            listener,
            waiting: CachePadded::new(AtomicUsize::new(0)),
            accepting: Episode::new(format!("accepting on {address}")),
            starting: Episode::new(format!("starting a thread for {address}")),
        }
    }

    // All on `waiting` is SeqCst-free: Relaxed suffices, because the number
    // only decides who starts or retires a thread and guards no data.

    /// Counts a thread in, unless enough wait already.
    fn join(&self, most: usize) -> bool {
        let up = |waiting: usize| (waiting < most).then_some(waiting + 1);
        self.waiting
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, up)
            .is_ok()
    }

    /// Counts a thread out, unless it is one of the last `least`.
    fn quit(&self, least: usize) -> bool {
        let down = |waiting: usize| (waiting > least).then(|| waiting - 1);
        self.waiting
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, down)
            .is_ok()
    }
}

/// What all threads of one server share.
pub(crate) struct Crew<'env, F> {
    pub(crate) ports: Vec<Port>,
    pub(crate) table: Arc<Table>,
    pub(crate) terms: Arc<Terms>,
    pub(crate) handler: &'env F,
    pub(crate) observer: Option<Observer>,
    pub(crate) stack_size: usize,
    /// Stop once so many connections have ended.
    pub(crate) stop_after: Option<u64>,
    /// Accepting has ended.
    pub(crate) closed: AtomicBool,
}

impl<F> Crew<'_, F>
where
    F: Fn(&mut Connection) -> io::Result<()> + Sync,
{
    pub(crate) fn tell(&self, event: &Event<'_>) {
        if let Some(observer) = &self.observer {
            observer(event);
        }
    }

    /// Sees to it that a thread waits for clients on every port. Where none
    /// can be started, those that serve come back, and this is tried again.
    pub(crate) fn keep_accepting<'scope>(&'scope self, scope: &'scope Scope<'scope, '_>) {
        for port in &self.ports {
            let _ = self.follow(scope, port);
        }
    }

    /// Starts a thread that waits for clients, unless one waits already.
    pub(crate) fn follow<'scope>(
        &'scope self,
        scope: &'scope Scope<'scope, '_>,
        port: &'scope Port,
    ) -> io::Result<()> {
        if !port.join(1) {
            return Ok(());
        }
        self.table.thread_starts();
        let started = thread::Builder::new()
            .name(format!("accept {}", port.listener.address().port()))
            .stack_size(self.stack_size)
            .spawn_scoped(scope, move || {
                let _counted = Counted(&self.table);
                self.accept(scope, port);
            });
        match started {
            Ok(_) => {
                port.starting.worked();
                Ok(())
            }
            Err(error) => {
                self.table.thread_ended();
                port.quit(0);
                port.starting.failed(&error);
                Err(error)
            }
        }
    }

    /// The life of a thread.
    ///
    /// Each wait lasts at most a poll interval; [`Listener::close`] ends it at
    /// once after `closed` was set. The thread was counted in by who started it.
    fn accept<'scope>(&'scope self, scope: &'scope Scope<'scope, '_>, port: &'scope Port) {
        let mut lost = 0;
        // Acquire pairs with the Release of `close`: accept fails afterwards.
        while !self.closed.load(Ordering::Acquire) {
            if !self.table.await_room(self.terms.poll) {
                continue;
            }
            match port.listener.accept() {
                Accepted::Client(socket, peer) => {
                    lost = 0;
                    port.accepting.worked();
                    port.quit(0);
                    let _ = self.follow(scope, port);
                    self.serve(socket, peer);
                    if !port.join(SPARE) {
                        return;
                    }
                }
                Accepted::Nobody => {
                    if port.quit(1) {
                        return;
                    }
                }
                Accepted::Lost(error) if lost < LOST_IN_A_ROW => {
                    lost += 1;
                    log::debug!("a client was gone before it was accepted: {error}");
                }
                Accepted::Lost(error) | Accepted::Exhausted(error) => {
                    self.wait_after(port, &error);
                }
            }
        }
        port.quit(0);
    }

    fn wait_after(&self, port: &Port, error: &io::Error) {
        // Once closed, accept fails because we closed it.
        if !self.closed.load(Ordering::Acquire) {
            thread::sleep(port.accepting.failed(error).min(self.terms.poll));
        }
    }

    /// Serves one client, from its acceptance to its end.
    fn serve(&self, socket: TcpStream, peer: SocketAddr) {
        if let Err(error) = listener::prepare_connection(&socket, self.terms.tick()) {
            // A client that reset while it was queued; if not, then the
            // timeouts that the socket inherited from its listener hold.
            log::debug!("client {peer}: {error}");
        }
        if self.terms.is_cut() {
            self.refuse(&socket);
            return;
        }
        match self.table.enter(socket, peer, &self.terms) {
            Admission::Served(link) => {
                if self.terms.is_cut() {
                    link.cut(); // it may have come too late for the cut of all
                }
                self.tell(&Event::Accepted { id: link.id, peer });
                let outcome = self.handle(&link);
                self.close(&link, outcome);
            }
            Admission::Limited(link) => {
                ending::end_in_order(&link);
                self.close(&link, Outcome::Limited);
            }
        }
    }

    /// Counts and turns away a client that came too late.
    pub(crate) fn refuse(&self, socket: &TcpStream) {
        self.table.refuse();
        if let Err(error) = ending::turn_away(socket) {
            log::debug!("turning a client away: {error}");
        }
    }

    /// Runs the handler, then the ordered end.
    fn handle(&self, link: &Arc<Link>) -> Outcome {
        sys::name_thread(&format!("conn {}", link.id));
        let mut conn = Connection::new(Arc::clone(link));
        let returned = catch_unwind(AssertUnwindSafe(|| (self.handler)(&mut conn)));
        let ending = conn.ending();
        drop(conn);
        self.table.release(link);
        let end = ending::end_in_order(link);
        if end != End::Fin {
            link.settle();
        }
        self.judge(link, returned, ending, end)
    }

    fn judge(
        &self,
        link: &Link,
        returned: thread::Result<io::Result<()>>,
        ending: Option<Ending>,
        end: End,
    ) -> Outcome {
        let (id, peer) = (link.id, link.peer);
        if let Err(panic) = &returned {
            log::error!(
                "connection {id} from {peer}: handler panicked: {}",
                message(panic)
            );
        }
        let timed_out = link.timed_out.load(Ordering::Relaxed) || ending == Some(Ending::Idle);
        match (end, returned) {
            (End::Forced, _) if self.terms.stop.is_set() => Outcome::Cut,
            (End::Reset, _) => Outcome::Reset,
            (_, Err(_)) => Outcome::Panicked,
            _ if timed_out => Outcome::Idle,
            (_, Ok(Err(error))) => {
                log::warn!("connection {id} from {peer}: handler failed: {error}");
                Outcome::Failed
            }
            (End::Forced, _) => Outcome::Expired,
            (End::Fin, _) => Outcome::Ended,
        }
    }

    fn close(&self, link: &Link, outcome: Outcome) {
        let ended = self.table.leave(link, outcome);
        let snapshot = link.snapshot();
        log::debug!("{snapshot}: {outcome}");
        self.tell(&Event::Closed {
            id: link.id,
            peer: link.peer,
            outcome,
            received: snapshot.received,
            sent: snapshot.sent,
        });
        if self.stop_after.is_some_and(|most| ended >= most) {
            self.terms.stop.set();
        }
    }

    /// Ends accepting for good and wakes the threads that wait in it.
    pub(crate) fn close_ports(&self) {
        // Release: a thread whose accept fails sees why.
        self.closed.store(true, Ordering::Release);
        for port in &self.ports {
            port.listener.close();
        }
    }

    /// Turns away whoever is still in the queues, without waiting.
    pub(crate) fn refuse_queues(&self) {
        for port in &self.ports {
            if port.listener.stop_waiting().is_err() {
                continue;
            }
            while let Accepted::Client(socket, _) = port.listener.accept() {
                self.refuse(&socket);
            }
        }
    }
}

/// Counts a thread out, however it ends.
struct Counted<'a>(&'a Table);

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        self.0.thread_ended();
    }
}

fn message(panic: &Box<dyn Any + Send>) -> &str {
    panic
        .downcast_ref::<&str>()
        .copied()
        .or_else(|| panic.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("(no message)")
}

/// How long a whole grace without a client must be before accepting ends:
/// long enough for a handshake in flight to complete.
pub(crate) fn default_grace<'a>(addresses: impl IntoIterator<Item = &'a SocketAddr>) -> Duration {
    let local = |address: &SocketAddr| address.ip().to_canonical().is_loopback();
    if addresses.into_iter().all(local) {
        Duration::from_millis(10)
    } else {
        Duration::from_millis(150)
    }
}
