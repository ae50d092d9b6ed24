//! The stop of a server: accepting ends, what is in hand is finished, what is
//! left at the deadline is cut.

use crate::connection::Connection;
use crate::crew::Crew;
use crate::deadline::Deadline;
use crate::event::Event;
use crate::listener::BACKLOG;
use crate::sync::atomic::Ordering;
use crate::sync::thread::Scope;
use crate::terms::Terms;
use std::io;
use std::time::{Duration, Instant};

/// How often the doors are looked at while accepting ends.
const DOOR_SLICE: Duration = Duration::from_millis(2);
/// How often the deadline and the cut are looked at.
const SLICE: Duration = Duration::from_millis(20);
/// How often is said what is left.
const WORD: Duration = Duration::from_secs(1);

/// Runs the server until it has ended: waits for the stop, then sees it
/// through. Returns how long the stop took.
///
/// Blocks until every other thread of the server has ended: until the stop,
/// then at most the drain timeout plus what a handler takes to notice the cut.
pub(crate) fn supervise<'scope, F>(
    crew: &'scope Crew<'_, F>,
    scope: &'scope Scope<'scope, '_>,
    grace: Duration,
    drain_timeout: Option<Duration>,
) -> Duration
where
    F: Fn(&mut Connection) -> io::Result<()> + Sync,
{
    while !crew.terms.stop.wait(Deadline::after(crew.terms.poll)) {
        crew.keep_accepting(scope);
    }
    let seen = Instant::now();
    let deadline = Deadline::from(drain_timeout).earlier(crew.terms.stop.cut_at());
    let mut door = Some(Door::close_slowly(crew, grace));
    let left = crew.table.begin_stop();
    crew.terms.tell(|| Event::Stopping { left, deadline });
    let mut next_word = seen + WORD;
    loop {
        let slice = if door.is_some() { DOOR_SLICE } else { SLICE };
        if crew.table.await_threads(slice) {
            return seen.elapsed();
        }
        if door.as_mut().is_some_and(|door| door.is_quiet(crew)) {
            door = None;
            crew.close_ports();
        } else if door.is_some() {
            crew.keep_accepting(scope);
        }
        if is_due(&crew.terms, deadline) {
            door = None;
            cut(crew);
        }
        if Instant::now() >= next_word {
            next_word = Instant::now() + WORD;
            say_what_is_left(crew, deadline);
        }
    }
}

/// Whether the grace is over and nobody was cut yet.
fn is_due(terms: &Terms, deadline: Deadline) -> bool {
    // Relaxed: only the supervisor, this thread, writes it.
    !terms.cut.load(Ordering::Relaxed) && (deadline.has_passed() || terms.stop.is_cut())
}

/// Cuts everything that is left, and whoever still comes.
pub(crate) fn cut<F>(crew: &Crew<'_, F>)
where
    F: Fn(&mut Connection) -> io::Result<()> + Sync,
{
    crew.terms.cut.store(true, Ordering::Relaxed);
    crew.terms.tell(|| Event::Cutting {
        left: crew.table.len(),
    });
    crew.table.cut_all();
    crew.close_ports();
}

fn say_what_is_left<F>(crew: &Crew<'_, F>, deadline: Deadline)
where
    F: Fn(&mut Connection) -> io::Result<()> + Sync,
{
    let oldest = crew.table.oldest();
    crew.terms.tell(|| Event::Draining {
        left: crew.table.len(),
        oldest: oldest.as_ref(),
        deadline,
        cut: crew.terms.is_cut(),
    });
}

/// The end of accepting: nobody new comes in, and whoever is in the queues or
/// in the middle of a handshake still does. Where the listeners are another
/// process's, too, their queues are left to it.
struct Door {
    grace: Duration,
    /// Whether new clients are refused everywhere.
    refusing: bool,
    at_first: u64,
    entered: u64,
    quiet_since: Instant,
}

impl Door {
    fn close_slowly<F>(crew: &Crew<'_, F>, grace: Duration) -> Self {
        let mut refusing = true;
        for port in crew.ports_of_ours() {
            if let Err(error) = port.listener.refuse_new_clients() {
                refusing = false;
                let address = port.listener.address();
                log::debug!("{address}: cannot refuse new clients: {error}");
            }
        }
        let entered = crew.table.entered();
        Self {
            grace,
            refusing,
            at_first: entered,
            entered,
            quiet_since: Instant::now(),
        }
    }

    /// Whether a whole grace has passed without a client.
    fn is_quiet<F>(&mut self, crew: &Crew<'_, F>) -> bool {
        let entered = crew.table.entered();
        // Where new clients cannot be refused, a queue's worth is the end.
        if !self.refusing && entered - self.at_first > u64::from(BACKLOG) {
            return true;
        }
        let mut ours = crew.ports_of_ours().peekable();
        if ours.peek().is_none() {
            return true;
        }
        if entered != self.entered || ours.any(|port| port.listener.has_client()) {
            self.entered = entered;
            self.quiet_since = Instant::now();
            return false;
        }
        self.quiet_since.elapsed() >= self.grace
    }
}
