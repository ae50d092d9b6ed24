//! The threads of a server: each waits for a client, makes sure that another
//! one waits after it, serves, and comes back or retires.

use crate::causes::Causes;
use crate::connection::{Connection, Ending};
use crate::early::Early;
use crate::ending::{self, End};
use crate::episode::Seldom;
use crate::event::{Event, Outcome};
use crate::link::Link;
use crate::listener::Accepted;
use crate::lock::lock;
use crate::panics::{self, say};
use crate::port::Port;
use crate::sync::atomic::Ordering::Relaxed;
use crate::sync::thread::{self, Scope};
use crate::sync::{Arc, Mutex};
use crate::sys;
use crate::table::{Admission, Room, Table};
use crate::terms::Terms;
use log::Level::Debug;
use std::io;
use std::net::{SocketAddr, TcpStream};
use std::os::fd::OwnedFd;
use std::time::Duration;

/// Threads that may wait for clients on one listener when they come back from
/// serving; a further one retires. They save starting a thread per client
/// while clients come and go quickly, and retire when nobody comes.
const SPARE: usize = 16;
/// Clients lost in a row between connect and accept before we take it for a
/// trouble of the system and wait.
const LOST_IN_A_ROW: u32 = 16;

/// What all threads of one server share.
pub(crate) struct Crew<'env, F> {
    pub(crate) ports: Vec<Port>,
    pub(crate) table: Arc<Table>,
    pub(crate) terms: Arc<Terms>,
    pub(crate) handler: &'env F,
    pub(crate) stack_size: usize,
    /// Stop once so many connections have ended.
    pub(crate) stop_after: Option<u64>,
    /// A descriptor kept back, so that even when there is no other left, who
    /// is in the queues can be told from nobody, and turned away.
    pub(crate) spare: Mutex<Option<OwnedFd>>,
    /// Keeps handlers that all fail from filling the log.
    pub(crate) seldom: Seldom,
}

impl<F> Crew<'_, F> {
    /// The ports whose end is up to us.
    pub(crate) fn ports_of_ours(&self) -> impl Iterator<Item = &Port> {
        self.ports.iter().filter(|port| port.listener.is_ours())
    }
}

impl<F> Crew<'_, F>
where
    F: Fn(&mut Connection) -> io::Result<()> + Sync,
{
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
        let started = sys::can_start_thread().and_then(|()| {
            let thread = thread::Builder::new().name("accept".into());
            thread
                .stack_size(self.stack_size)
                .spawn_scoped(scope, move || {
                    let _counted = Counted(&self.table, &self.terms);
                    sys::take_turns();
                    self.terms.tell(|| Event::ThreadStarted);
                    self.accept(scope, port);
                })
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
    /// Each wait lasts at most a tick; [`Crew::close_ports`] ends it
    /// at once. The thread was counted in by who started it.
    fn accept<'scope>(&'scope self, scope: &'scope Scope<'scope, '_>, port: &'scope Port) {
        let mut lost = 0;
        let mut early = Early::default();
        loop {
            match self.table.await_turn(port.number, self.terms.poll) {
                Room::Free => {}
                Room::Full if port.quit(1) => return,
                Room::Full => continue,
                Room::Closed => break,
            }
            let accepted = port.listener.accept();
            let well = matches!(accepted, Accepted::Client(..) | Accepted::Nobody);
            self.table.return_turn(port.number, well);
            match accepted {
                Accepted::Client(socket, peer) => {
                    lost = 0;
                    port.accepting.worked();
                    port.quit(0);
                    let _ = self.follow(scope, port);
                    self.serve(port, socket, peer);
                    if !port.join(SPARE) {
                        return;
                    }
                    sys::name_thread("accept");
                }
                Accepted::Nobody if port.quit(1) => return,
                Accepted::Nobody => early.note(port.listener.patience(self.terms.tick())),
                Accepted::Lost(error) if lost < LOST_IN_A_ROW => {
                    lost += 1;
                    say!(Debug, "a client was gone before it was accepted: {error}");
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
        if !self.table.await_closed(Duration::ZERO) {
            let wait = port.accepting.failed(error).min(self.terms.poll);
            self.table.await_closed(wait);
        }
    }

    /// Serves one client, from its acceptance to its end.
    fn serve(&self, port: &Port, socket: TcpStream, peer: SocketAddr) {
        let tick = self.terms.tick();
        if let Err(error) = port.listener.prepare_connection(&socket, tick) {
            // What it inherited holds. One that came too early to inherit
            // anything is still woken by its peer, and by the cut.
            say!(Debug, "client {peer}: {error}");
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
                say!(Debug, "connection {} from {peer}: accepted", link.id);
                self.terms.tell(|| Event::Accepted { id: link.id, peer });
                let outcome = self.handle(&link);
                self.close(&link, outcome);
            }
            Admission::Limited(link) => {
                ending::end_in_order(&link);
                self.close(&link, Outcome::Limited);
            }
            Admission::Exceeding(socket) => turn_away(&socket),
        }
    }

    /// Counts and turns away a client that came too late.
    pub(crate) fn refuse(&self, socket: &TcpStream) {
        self.table.refuse(1);
        turn_away(socket);
    }

    /// Runs the handler, then the ordered end.
    fn handle(&self, link: &Arc<Link>) -> Outcome {
        sys::name_thread(&format!("conn {}", link.id));
        let mut conn = Connection::new(Arc::clone(link));
        // The error is put into words in here too: it may be the handler's own type.
        let returned =
            panics::caught(|| (self.handler)(&mut conn).map_err(|e| Causes(&e).to_string()));
        if let Err(message) = &returned {
            self.terms.tell(|| Event::Panicked {
                id: link.id,
                message,
            });
        }
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
        returned: Result<Result<(), String>, String>,
        ending: Option<Ending>,
        end: End,
    ) -> Outcome {
        let (id, peer) = (link.id, link.peer);
        if let Err(message) = &returned {
            let level = self.seldom.level(log::Level::Error);
            say!(
                level,
                "connection {id} from {peer}: handler panicked: {message:.1000}"
            );
        }
        let timed_out = link.timed_out.load(Relaxed) || ending == Some(Ending::Idle);
        match (end, returned) {
            (End::Cut, _) => Outcome::Cut,
            (End::Reset, _) => Outcome::Reset,
            (_, Err(_)) => Outcome::Panicked,
            _ if timed_out => Outcome::Idle,
            (_, Ok(Err(error))) => {
                let level = self.seldom.level(log::Level::Warn);
                say!(
                    level,
                    "connection {id} from {peer}: handler failed: {error}"
                );
                Outcome::Failed
            }
            (End::Expired, _) => Outcome::Expired,
            (End::Fin, _) => Outcome::Ended,
        }
    }

    fn close(&self, link: &Link, outcome: Outcome) {
        let ended = self.table.leave(link, outcome);
        let snapshot = link.snapshot();
        say!(Debug, "{snapshot}: {outcome}");
        self.terms.tell(|| Event::Closed {
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

    /// Ends accepting for good and wakes the threads that wait in it. Whoever
    /// is still in a queue or in the middle of a handshake is turned away and
    /// counted, unless the queue is another process's, too. Blocks for a moment.
    pub(crate) fn close_ports(&self) {
        if !self.table.close() {
            return;
        }
        drop(lock(&self.spare).take());
        for port in self.ports_of_ours() {
            // Before the sweep: one that comes into the queue in between is
            // counted twice rather than not at all.
            self.table.refuse(port.listener.half_open().unwrap_or(0));
            if !port.sweep(|client| self.refuse(&client)) {
                self.table.refuse(1); // at least
            }
            port.listener.close();
        }
        for port in &self.ports {
            port.listener.let_go();
        }
    }
}

fn turn_away(socket: &TcpStream) {
    if let Err(error) = ending::turn_away(socket) {
        say!(Debug, "turning a client away: {error}");
    }
}

/// A thread that was counted in; counts it out, however it ends.
struct Counted<'a>(&'a Table, &'a Terms);

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        // First: the server has ended when the last thread is counted out.
        self.1.tell(|| Event::ThreadRetired);
        self.0.thread_ended();
    }
}
