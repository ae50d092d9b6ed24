//! The stop of a server: accepting ends, what is in hand is finished, what is
//! left at the deadline is cut.

use crate::connection::Connection;
use crate::crew::Crew;
use crate::deadline::Deadline;
use crate::event::Event;
use crate::listener::BACKLOG;
use crate::panics::say;
use crate::sync::atomic::Ordering;
use crate::sync::thread::Scope;
use crate::terms::Terms;
use std::io;
use std::time::{Duration, Instant};

/// How often the doors are looked at while accepting ends.
const DOOR_SLICE: Duration = Duration::from_millis(2);
/// How long it must be quiet before accepting ends: a client that the kernel
/// was just looking at when new ones were refused is in its tables by then.
const GRACE: Duration = Duration::from_millis(10);
/// The same where clients are far away, and the kernel does not tell of those
/// in the middle of their handshake.
const FAR_GRACE: Duration = Duration::from_millis(150);
/// Of the time that it takes to ask the kernel, so much goes by before it is
/// asked again.
const ASKING_PAUSE: u32 = 16;
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
    accept_grace: Option<Duration>,
    drain_timeout: Option<Duration>,
) -> Duration
where
    F: Fn(&mut Connection) -> io::Result<()> + Sync,
{
    while !crew.terms.stop.wait(Deadline::after(crew.terms.poll)) {
        crew.keep_accepting(scope);
    }
    let seen = Instant::now();
    let own = Deadline::from(drain_timeout);
    // Looked at again and again: it may be asked for after the stop was seen.
    let deadline = || own.earlier(crew.terms.stop.cut_at());
    let mut door = Some(Door::close_slowly(crew, accept_grace));
    begin_stop(crew, deadline());
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
        if is_due(&crew.terms, deadline()) {
            door = None;
            cut(crew);
        }
        if Instant::now() >= next_word {
            next_word = Instant::now() + WORD;
            let half_open = door.as_ref().map_or(0, |door| door.half_open);
            say_what_is_left(crew, half_open, deadline());
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

fn begin_stop<F>(crew: &Crew<'_, F>, deadline: Deadline)
where
    F: Fn(&mut Connection) -> io::Result<()> + Sync,
{
    let left = crew.table.begin_stop();
    crew.terms.tell(|| Event::Stopping { left, deadline });
}

fn say_what_is_left<F>(crew: &Crew<'_, F>, half_open: usize, deadline: Deadline)
where
    F: Fn(&mut Connection) -> io::Result<()> + Sync,
{
    let oldest = crew.table.oldest();
    crew.terms.tell(|| Event::Draining {
        left: crew.table.len(),
        oldest: oldest.as_ref(),
        half_open,
        deadline,
        cut: crew.terms.is_cut(),
    });
}

/// The end of accepting: nobody new comes in, and whoever is in the queues or
/// in the middle of a handshake still does. Where the listeners are another
/// process's, too, their queues are left to it.
struct Door {
    /// How long it must be quiet before the kernel is asked who is on the way.
    grace: Duration,
    /// How long, where it cannot be asked: [`FAR_GRACE`] for a listener that is
    /// not on loopback.
    far_grace: Duration,
    /// Whether new clients are refused everywhere.
    refusing: bool,
    at_first: u64,
    entered: u64,
    quiet_since: Instant,
    /// When the kernel may be asked again.
    ask_again: Instant,
    /// Clients in the middle of their handshake when it was last asked.
    half_open: usize,
    /// How long it must be quiet for the listeners that it could not be asked
    /// about the last time.
    blind: Option<Duration>,
}

impl Door {
    fn close_slowly<F>(crew: &Crew<'_, F>, accept_grace: Option<Duration>) -> Self {
        let mut refusing = true;
        for port in crew.ports_of_ours() {
            if let Err(error) = port.listener.refuse_new_clients() {
                refusing = false;
                let address = port.listener.address();
                say!(
                    log::Level::Debug,
                    "{address}: cannot refuse new clients: {error}"
                );
            }
        }
        let entered = crew.table.entered();
        Self {
            grace: accept_grace.unwrap_or(GRACE),
            far_grace: accept_grace.unwrap_or(FAR_GRACE),
            refusing,
            at_first: entered,
            entered,
            quiet_since: Instant::now(),
            ask_again: Instant::now(),
            half_open: 0,
            blind: None,
        }
    }

    /// Whether a whole grace has passed without a client, and none is in the
    /// middle of its handshake.
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
        let quiet = self.quiet_since.elapsed();
        if quiet < self.grace || Instant::now() < self.ask_again {
            return false;
        }
        self.ask(crew);
        if self.half_open > 0 || self.blind.is_some_and(|grace| quiet < grace) {
            return false;
        }
        // One whose handshake has ended since we looked is in a queue now.
        !crew.ports_of_ours().any(|port| port.listener.has_client())
    }

    /// Asks the kernel how many clients are in the middle of their handshake.
    /// Where it does not tell of one listener's, it may of the others'.
    fn ask<F>(&mut self, crew: &Crew<'_, F>) {
        let began = Instant::now();
        // It may be able to answer the next time: a lack of descriptors.
        let was_blind = self.blind.take().is_some();
        self.half_open = 0;
        for port in crew.ports_of_ours() {
            let address = port.listener.address();
            match port.listener.half_open() {
                Ok(count) => self.half_open += count,
                Err(error) => {
                    let far = !address.ip().to_canonical().is_loopback();
                    let grace = if far { self.far_grace } else { self.grace };
                    self.blind = self.blind.max(Some(grace));
                    if !was_blind {
                        say!(
                            log::Level::Debug,
                            "{address}: cannot ask for clients in a handshake: {error}"
                        );
                    }
                }
            }
        }
        self.ask_again = Instant::now() + began.elapsed() * ASKING_PAUSE;
    }
}

#[cfg(test)]
mod tests {
    use crate::listener::Listener;
    use crate::sys::tests::deferring;
    use crate::{Echo, Event, Report, Server, Stop};
    use nix::sched::{CloneFlags, unshare};
    use std::io::{ErrorKind, Read, Write};
    use std::net::{Shutdown, TcpListener, TcpStream};
    use std::sync::mpsc;
    use std::thread;
    use std::time::Duration;

    const WATCHDOG: Duration = Duration::from_secs(60);
    /// Longer than any grace.
    const LATE: Duration = Duration::from_millis(400);

    /// A client whose connect has succeeded, and whose handshake has not ended.
    fn half_open() -> (TcpListener, TcpStream) {
        let listener = deferring("127.0.0.1:0");
        let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        client.set_read_timeout(Some(WATCHDOG)).unwrap();
        (listener, client)
    }

    /// Serves until the stop, which comes at once; `meanwhile` runs beside it.
    fn stopped(server: Server, meanwhile: impl FnOnce(&Stop)) -> Report {
        let (stop, echo) = (Stop::new(), Echo::default());
        stop.set();
        let ours = stop.clone();
        let (ended, end) = mpsc::channel();
        thread::spawn(move || {
            let report = server.run(&ours, |conn| echo.serve(conn));
            ended.send(report).unwrap();
        });
        meanwhile(&stop);
        end.recv_timeout(WATCHDOG).expect("an end").unwrap()
    }

    #[test]
    fn a_client_whose_handshake_ends_long_after_the_stop_is_served() {
        let (listener, client) = half_open();
        is_served_late(Server::from(listener), client);
    }

    /// The kernel tells nothing of a listener of another network namespace: that
    /// is no reason to give up on others' clients.
    #[test]
    fn a_listener_that_the_kernel_does_not_show_costs_no_client_of_another() {
        let elsewhere = thread::spawn(|| {
            unshare(CloneFlags::CLONE_NEWNET).map(|()| TcpListener::bind("0.0.0.0:0").unwrap())
        });
        let hidden = match elsewhere.join().unwrap() {
            Ok(hidden) => Listener::from(hidden),
            Err(_) => return, // that is not permitted here
        };
        assert!(hidden.half_open().is_err());
        let (listener, client) = half_open();
        let listeners = vec![listener.into(), hidden];
        is_served_late(Server::over(listeners).unwrap(), client);
    }

    fn is_served_late(server: Server, mut client: TcpStream) {
        let (told, waiting) = mpsc::channel();
        let server = server.drain_timeout(WATCHDOG);
        let server = server.observe(move |event| {
            if let Event::Draining { half_open, .. } = event {
                let _ = told.send(*half_open);
            }
        });
        let report = stopped(server, |_| {
            assert_eq!(waiting.recv_timeout(WATCHDOG), Ok(1));
            client.write_all(b"late").unwrap();
            client.shutdown(Shutdown::Write).unwrap();
            let mut echo = String::new();
            client.read_to_string(&mut echo).unwrap();
            assert_eq!(echo, "late");
        });
        assert_eq!((report.accepted, report.refused), (1, 0));
        assert!(report.is_clean(), "{report}");
    }

    /// What it takes: a pause of a fixed length resets that client.
    #[test]
    fn a_fixed_grace_resets_a_client_whose_handshake_ends_later() {
        let (listener, mut client) = half_open();
        let listener = Listener::from(listener);
        listener.refuse_new_clients().unwrap();
        thread::sleep(super::FAR_GRACE);
        assert!(!listener.has_client());
        listener.close();
        let _ = client.write_all(b"late");
        let end = client.read(&mut [0]).unwrap_err();
        assert_eq!(end.kind(), ErrorKind::ConnectionReset);
    }

    #[test]
    fn a_client_whose_handshake_has_not_ended_by_the_deadline_is_refused() {
        let (listener, _client) = half_open();
        let server = Server::from(listener).drain_timeout(LATE);
        let report = stopped(server, |_| {});
        assert_eq!((report.accepted, report.refused), (0, 1));
        assert!(!report.is_clean() && report.elapsed >= LATE, "{report}");
    }

    #[test]
    fn the_cut_ends_the_wait_for_a_handshake() {
        let (listener, _client) = half_open();
        let server = Server::from(listener).drain_timeout(None);
        let report = stopped(server, Stop::cut);
        assert_eq!((report.accepted, report.refused), (0, 1));
    }

    #[test]
    fn a_client_that_went_away_in_its_handshake_is_not_waited_for() {
        let (listener, client) = half_open();
        let server = Server::from(listener).drain_timeout(None);
        let report = stopped(server, |_| {
            socket2::SockRef::from(&client)
                .set_linger(Some(Duration::ZERO))
                .unwrap();
            drop(client); // a reset
        });
        assert!(report.is_clean(), "{report}");
    }
}
