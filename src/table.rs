//! The table of live connections: who is there, how many may be, and the sums.

use crate::event::{Outcome, Snapshot};
use crate::link::Link;
use crate::lock::lock;
use crate::peers::{Peers, Share};
use crate::report::Report;
use crate::sync::atomic::Ordering::Relaxed;
use crate::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use crate::terms::Terms;
use std::collections::BTreeMap;
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

/// How many connections a server may have.
#[derive(Clone, Copy, Default)]
pub(crate) struct Limits {
    /// Connections with a handler, until a stop.
    pub(crate) served: usize,
    /// Connections of any kind, what descriptors, threads and maps allow.
    pub(crate) hard: usize,
}

/// One lock over all that is counted: whoever holds it sees sums that fit.
///
/// No count is taken inside the thread that it counts: a thread is counted in by
/// the one that starts it, and a server has ended when no thread is left. (A
/// wait for the last *connection* could end while a thread holds one that it
/// has accepted and not yet entered here.)
#[derive(Default)]
pub(crate) struct Table {
    state: Mutex<State>,
    /// There is room, or accepting has ended.
    changed: Condvar,
    /// The last thread has ended. Apart, because to wake the supervisor at
    /// every step of thousands of connections makes the kernel search through
    /// all those that wait for the lock.
    ended: Condvar,
}

#[derive(Default)]
struct State {
    limits: Limits,
    /// Threads that were started and have not ended.
    threads: usize,
    /// By number, so the first is the oldest.
    live: BTreeMap<u64, Arc<Link>>,
    /// Those with a handler; one that lingers holds no slot.
    served: usize,
    /// By port: threads in accept, each of which may bring one more.
    accepting: Vec<usize>,
    /// By port: how often a thread came round, back from accept without trouble
    /// or from a wait for room.
    rounds: Vec<u64>,
    peers: Peers,
    next_id: u64,
    ended: u64,
    /// Threads that wait for a slot; without them nobody needs to be woken.
    waiting: usize,
    /// The stop was seen: the limit of served connections gives way.
    stopping: bool,
    /// Accepting has ended.
    closed: bool,
    report: Report,
}

/// Whether one more connection may be accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Room {
    Free,
    Full,
    /// Accepting has ended.
    Closed,
}

impl State {
    /// Whether one more thread may accept on this port. Each may bring a
    /// client, so there are never more than there is room for; but one on each
    /// port, so that no port waits for another's clients.
    fn room(&self, port: usize) -> Room {
        let accepting: usize = self.accepting.iter().sum();
        let first = self.accepting.get(port).is_none_or(|&here| here == 0);
        if self.closed {
            Room::Closed
        } else if self.has_room(if first { 0 } else { accepting }) {
            Room::Free
        } else {
            Room::Full
        }
    }

    fn come_round(&mut self, port: usize) {
        if self.rounds.len() <= port {
            self.rounds.resize(port + 1, 0);
        }
        self.rounds[port] += 1;
    }

    /// Whether there is room for one more beside so many that are expected.
    fn has_room(&self, expected: usize) -> bool {
        let limits = &self.limits;
        self.live.len() + expected < limits.hard
            && (self.stopping || self.served + expected < limits.served)
    }
}

/// How a client that was accepted goes on.
pub(crate) enum Admission {
    Served(Arc<Link>),
    /// Its peer has too many already: close it politely.
    Limited(Arc<Link>),
    /// Its peer has far too many: close it at once.
    Exceeding(TcpStream),
}

impl Table {
    /// Lets clients in: until then there is room for nobody.
    pub(crate) fn set_limits(&self, limits: Limits, per_peer: Option<usize>) {
        let mut state = lock(&self.state);
        state.limits = limits;
        state.peers = Peers::new(per_peer);
        self.changed.notify_all();
    }

    /// Waits until one more thread may accept on this port, at most so long.
    /// `Free` counts it in, until it [returns](Self::return_turn).
    pub(crate) fn await_turn(&self, port: usize, longest: Duration) -> Room {
        let mut state = self.wait_for(longest, |state| state.room(port) != Room::Full);
        let room = state.room(port);
        if room == Room::Full {
            state.come_round(port);
        }
        if room == Room::Free {
            if state.accepting.len() <= port {
                state.accepting.resize(port + 1, 0);
            }
            state.accepting[port] += 1;
        }
        room
    }

    /// A thread has come back from accept, with a client or without, or
    /// because something is wrong.
    pub(crate) fn return_turn(&self, port: usize, well: bool) {
        let mut state = lock(&self.state);
        state.accepting[port] -= 1;
        if well {
            state.come_round(port);
        }
        self.wake_waiting(&state);
    }

    /// Waits until accepting has ended, at most so long.
    pub(crate) fn await_closed(&self, longest: Duration) -> bool {
        self.wait_for(longest, |state| state.closed).closed
    }

    /// Ends accepting. False if it had ended before.
    pub(crate) fn close(&self) -> bool {
        let mut state = lock(&self.state);
        self.wake_waiting(&state);
        !std::mem::replace(&mut state.closed, true)
    }

    /// Takes a slot for a client that was accepted, and waits for one where
    /// another listener was faster; the client waits as it did in the queue.
    pub(crate) fn enter(
        &self,
        socket: TcpStream,
        peer: SocketAddr,
        terms: &Arc<Terms>,
    ) -> Admission {
        let mut state = lock(&self.state);
        while !state.has_room(0) && !terms.is_cut() {
            drop(state);
            state = self.wait_for(terms.poll, |state| state.has_room(0));
        }
        state.next_id += 1;
        let share = state.peers.share(peer);
        if share == Share::Exceeded {
            state.report.limited += 1;
            return Admission::Exceeding(socket);
        }
        let link = Arc::new(Link::new(state.next_id, socket, peer, Arc::clone(terms)));
        state.live.insert(link.id, Arc::clone(&link));
        state.peers.enter(&link, share);
        if share == Share::Held {
            return Admission::Limited(link);
        }
        state.served += 1;
        state.report.accepted += 1;
        Admission::Served(link)
    }

    /// Gives the slot back: the handler is done, the connection lingers.
    pub(crate) fn release(&self, link: &Link) {
        let mut state = lock(&self.state);
        state.served -= 1;
        state.peers.release(link);
        self.wake_waiting(&state);
    }

    /// Takes a connection out and adds it up. Returns how many have ended.
    pub(crate) fn leave(&self, link: &Link, outcome: Outcome) -> u64 {
        let mut state = lock(&self.state);
        state.live.remove(&link.id);
        state.peers.leave(link);
        // Who ends after the flag was set was alive when it was set, even if
        // the supervisor has not seen it yet.
        let stopping = state.stopping || link.terms.stop.is_set();
        let report = &mut state.report;
        match outcome {
            Outcome::Ended if stopping => report.drained += 1,
            Outcome::Ended => {}
            Outcome::Cut => report.cut += 1,
            Outcome::Reset => report.reset += 1,
            Outcome::Idle => report.idle += 1,
            Outcome::Panicked => report.panicked += 1,
            Outcome::Failed => report.failed += 1,
            Outcome::Limited => report.limited += 1,
            Outcome::Expired => report.expired += 1,
        }
        report.received += link.received.load(Relaxed);
        report.sent += link.sent.load(Relaxed);
        report.unsent += link.unsent.load(Relaxed);
        report.discarded += link.discarded.load(Relaxed);
        if outcome != Outcome::Limited {
            state.ended += 1;
        }
        self.wake_waiting(&state);
        state.ended
    }

    /// Counts clients that could not be served.
    pub(crate) fn refuse(&self, clients: usize) {
        lock(&self.state).report.refused += clients as u64;
    }

    /// The stop was seen. Returns how many connections are alive.
    pub(crate) fn begin_stop(&self) -> usize {
        let mut state = lock(&self.state);
        state.stopping = true;
        self.changed.notify_all();
        state.live.len()
    }

    /// Connections accepted so far, turned away or not; it only grows.
    pub(crate) fn entered(&self) -> u64 {
        lock(&self.state).next_id
    }

    /// By port: how often a thread came round in accepting; it only grows.
    pub(crate) fn rounds(&self) -> Vec<u64> {
        lock(&self.state).rounds.clone()
    }

    /// Counts a thread in, before it starts.
    pub(crate) fn thread_starts(&self) {
        lock(&self.state).threads += 1;
    }

    /// Counts a thread out, as the last thing it does.
    pub(crate) fn thread_ended(&self) {
        let mut state = lock(&self.state);
        state.threads -= 1;
        if state.threads == 0 {
            self.ended.notify_all();
        }
    }

    /// Waits until every thread has ended, at most so long.
    pub(crate) fn await_threads(&self, longest: Duration) -> bool {
        let (state, _) = self
            .ended
            .wait_timeout_while(lock(&self.state), longest, |state| state.threads > 0)
            .unwrap_or_else(PoisonError::into_inner);
        state.threads == 0
    }

    /// How many connections are alive.
    pub(crate) fn len(&self) -> usize {
        lock(&self.state).live.len()
    }

    /// Cuts every connection that has something in hand.
    pub(crate) fn cut_all(&self) {
        let links: Vec<_> = lock(&self.state).live.values().cloned().collect();
        for link in links {
            link.cut();
        }
    }

    pub(crate) fn oldest(&self) -> Option<Snapshot> {
        lock(&self.state)
            .live
            .first_key_value()
            .map(|(_, link)| link.snapshot())
    }

    pub(crate) fn snapshot(&self) -> Vec<Snapshot> {
        lock(&self.state)
            .live
            .values()
            .map(|link| link.snapshot())
            .collect()
    }

    pub(crate) fn report(&self) -> Report {
        lock(&self.state).report.clone()
    }

    /// Waits for a change that makes `done` true, at most so long.
    fn wait_for(&self, longest: Duration, done: impl Fn(&State) -> bool) -> MutexGuard<'_, State> {
        let mut state = lock(&self.state);
        if done(&state) {
            return state;
        }
        state.waiting += 1;
        let (mut state, _) = self
            .changed
            .wait_timeout_while(state, longest, |state| !done(state))
            .unwrap_or_else(PoisonError::into_inner);
        state.waiting -= 1;
        state
    }

    fn wake_waiting(&self, state: &State) {
        if state.waiting > 0 {
            self.changed.notify_all();
        }
    }
}
