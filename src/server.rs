//! A server: listeners, one thread per live connection, and a graceful stop.

use crate::addresses;
use crate::connection::Connection;
use crate::crew::Crew;
use crate::drain;
use crate::early::LEAST_POLL;
use crate::episode::Seldom;
use crate::event::Event;
use crate::limits;
use crate::listener::Listener;
use crate::live::{Joined, Live};
use crate::lock::lock;
#[cfg(feature = "handover")]
use crate::passed;
use crate::port::Port;
use crate::report::Report;
use crate::stop::Stop;
use crate::sync::thread;
use crate::sync::{Arc, Mutex};
use crate::table::{Limits, Table};
use crate::terms::{Observer, Terms};
use std::fmt;
use std::io::{self, ErrorKind};
use std::net::{TcpListener, ToSocketAddrs};
use std::time::Duration;

/// Half of an idle timeout is a socket timeout.
const LEAST_IDLE: Duration = LEAST_POLL.saturating_mul(2);
/// What an echo and the end of a connection need, with room to spare.
const LEAST_STACK: usize = 128 * 1024;
/// The standard library rounds a stack up to whole pages; this leaves room for it.
const MOST_STACK: usize = isize::MAX.unsigned_abs();
/// A tiny drain timeout means "do not wait", not "burn the processor".
const LEAST_SHARE: Duration = Duration::from_millis(10);

type BeforeServing = Box<dyn FnOnce(&Stop) -> io::Result<()> + Send + Sync>;

/// A TCP server with one blocking thread per live connection, which stops
/// without losing what it has in hand.
///
/// ```
/// use lastecho::{Server, Stop};
/// use std::io::{BufRead, Write};
/// use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
/// # use std::io::Read;
///
/// # fn main() -> std::io::Result<()> {
/// let stop = Stop::new();
/// let hits = AtomicU64::new(0);
/// let server = Server::bind("127.0.0.1:0")?;
/// # let address = server.live().addresses()[0];
/// # let ours = stop.clone();
/// # let client = std::thread::spawn(move || -> std::io::Result<String> {
/// #     let mut peer = std::net::TcpStream::connect(address)?;
/// #     peer.write_all(b"hello\n")?;
/// #     peer.shutdown(std::net::Shutdown::Write)?;
/// #     let mut all = String::new();
/// #     peer.read_to_string(&mut all)?;
/// #     ours.set();
/// #     Ok(all)
/// # });
/// let report = server.run(&stop, |conn| {
///     let mut line = String::new();
///     while conn.next()? {
///         line.clear();
///         conn.read_line(&mut line)?;
///         hits.fetch_add(1, Relaxed);
///         conn.write_all(line.as_bytes())?;
///     }
///     Ok(())
/// })?;
/// println!("{hits:?} lines, {report}");
/// # assert_eq!(client.join().unwrap()?, "hello\n");
/// # assert_eq!((report.accepted, report.sent), (1, 6));
/// # Ok(())
/// # }
/// ```
///
/// # What a stop does
/// 1. New clients are refused; those already connected, even if nobody has
///    accepted them yet, are served.
/// 2. Each connection finishes what it has in hand and what had arrived, then
///    ends with FIN. An idle one notices within one poll interval.
/// 3. What is left at the drain deadline is cut.
///
/// # Its threads
/// Where the process has the usual scheduling policy, theirs is `SCHED_BATCH`
/// (sched(7)): a thread that wakes does not interrupt the one that runs. A
/// program that a handler starts inherits that.
///
/// # What it does not do
/// It cannot end a handler that looks neither at its connection nor at the
/// stop: [`run`](Self::run) then waits for it (and says so through
/// [`Event::Draining`]) for as long as it takes.
pub struct Server {
    pub(crate) listeners: Vec<Listener>,
    table: Arc<Table>,
    poll: Duration,
    drain_timeout: Option<Duration>,
    idle_timeout: Option<Duration>,
    max_connections: Option<usize>,
    max_per_peer: Option<usize>,
    accept_grace: Option<Duration>,
    stack_size: usize,
    stop_after: Option<u64>,
    observer: Option<Observer>,
    /// What comes between being prepared and the first client.
    before_serving: Option<BeforeServing>,
    /// Whether we serve; locked while we are being handed over.
    pub(crate) serving: Arc<Mutex<bool>>,
    /// For those who have a `Live` or a `Handover` of ours.
    pub(crate) joined: Joined,
}

impl Server {
    /// Listens on every address that `address` resolves to, on each once; port 0
    /// lets the system choose, one port for all of them where one is free. Clients
    /// can connect from now on.
    ///
    /// `[::]` takes IPv4 clients, too, as far as the system does so by default
    /// (`net.ipv6.bindv6only`), but not where `address` names an IPv4 address with
    /// the same port as well: `0.0.0.0:7` and `[::]:7` are two listeners. A
    /// wildcard address covers the others of its family.
    ///
    /// Blocks as long as resolving a host name takes.
    ///
    /// # Errors
    /// What resolving says, and what socket(2), bind(2) and listen(2) say, with the
    /// address.
    pub fn bind(address: impl ToSocketAddrs) -> io::Result<Self> {
        Self::over(addresses::listen(address.to_socket_addrs()?, |_| None)?)
    }

    /// Listens on all addresses of this machine, IPv4 and IPv6, with one socket.
    ///
    /// # Errors
    /// What socket(2), bind(2) and listen(2) say.
    pub fn bind_all(port: u16) -> io::Result<Self> {
        Self::over(vec![addresses::listen_everywhere(port)?])
    }

    pub(crate) fn over(listeners: Vec<Listener>) -> io::Result<Self> {
        if listeners.is_empty() {
            let message = "no address to listen on";
            return Err(io::Error::new(ErrorKind::InvalidInput, message));
        }
        Ok(Self::on(listeners))
    }

    fn on(listeners: Vec<Listener>) -> Self {
        Self {
            listeners,
            table: Arc::default(),
            poll: Duration::from_secs(1),
            drain_timeout: Some(Duration::from_secs(8)),
            idle_timeout: None,
            max_connections: None,
            max_per_peer: None,
            accept_grace: None,
            stack_size: 2 * 1024 * 1024,
            stop_after: None,
            observer: None,
            before_serving: None,
            serving: Arc::default(),
            joined: Joined::default(),
        }
    }

    /// Also listens where `other` listens, under our options: all that was set
    /// on `other`, its limits and its observer too, is dropped. Set it on the
    /// joined server. Only whom it takes over from is kept, where we take over
    /// from nobody ourselves.
    ///
    /// A [`Live`] that was taken from either before is one of both from now on.
    /// A `Handover` refuses: take it from the joined server.
    #[must_use]
    pub fn and(mut self, other: Self) -> Self {
        self.listeners.extend(other.listeners);
        self.before_serving = self.before_serving.or(other.before_serving);
        let earlier = std::mem::take(&mut self.joined);
        for joined in [earlier, other.joined] {
            let _ = joined.set(self.live()); // the first time: a server is joined once
        }
        self
    }

    /// The longest that a blocked accept, read or write waits before it looks
    /// at the stop flag. 1 s by default: 1,000 idle connections then cost
    /// under 1 % of a core.
    ///
    /// At most a quarter of the drain timeout is used (but 10 ms at least), so
    /// that idle connections see the stop well before they would be cut; and
    /// never less than 4 ms, the kernel's own grain.
    #[must_use]
    pub fn poll(mut self, interval: Duration) -> Self {
        self.poll = interval;
        self
    }

    /// The poll interval that is used; see [`poll`](Self::poll).
    #[must_use]
    pub fn poll_interval(&self) -> Duration {
        effective_poll(self.poll, self.drain_timeout)
    }

    /// How long a stop may take before what is left is cut: zero cuts at once,
    /// `None` waits for as long as the clients take. 8 s by default, below the 10 s that Docker
    /// and many supervisors allow.
    #[must_use]
    pub fn drain_timeout(mut self, timeout: impl Into<Option<Duration>>) -> Self {
        self.drain_timeout = timeout.into();
        self
    }

    /// Closes a connection that moved no byte in either direction for so long,
    /// 8 ms at least. `None`, the default, waits for ever.
    #[must_use]
    pub fn idle_timeout(mut self, timeout: impl Into<Option<Duration>>) -> Self {
        self.idle_timeout = timeout.into().map(|timeout| timeout.max(LEAST_IDLE));
        self
    }

    /// The most connections served at once; further clients wait in the
    /// listener's queue. By default, and at most, [`limits::connections`]; one
    /// at least.
    #[must_use]
    pub fn max_connections(mut self, most: usize) -> Self {
        self.max_connections = Some(most.max(1));
        self
    }

    /// The most connections that one peer address may hold: those that are
    /// served, and those that have ended and whose last bytes the peer has not
    /// taken half a second later; not those that the peer has closed and that
    /// neither side owes a byte on. Further ones are closed with FIN, politely up
    /// to twice the limit; beyond that without waiting for the peer, which may
    /// then be reset if it goes on sending. One at least; `None`, the default, sets
    /// no limit.
    #[must_use]
    pub fn max_per_peer(mut self, most: impl Into<Option<usize>>) -> Self {
        self.max_per_peer = most.into().map(|most| most.max(1));
        self
    }

    /// How long it must be quiet before accepting ends at a stop; 10 ms by
    /// default. Clients in the middle of their handshake are waited for besides,
    /// however far away they are.
    ///
    /// The drain timeout is its limit: where it is longer, every stop takes the
    /// whole drain timeout, an idle server's too, and is clean all the same.
    /// Without a drain timeout such a stop ends with [`Stop::cut`].
    ///
    /// Where the kernel does not tell of those (neither by netlink's sock_diag
    /// nor by `/proc`) this is all the time they have, and should be more than a
    /// round trip: by default 10 ms where all listeners are on loopback, else
    /// 150 ms.
    #[must_use]
    pub fn accept_grace(mut self, grace: Duration) -> Self {
        self.accept_grace = Some(grace);
        self
    }

    /// The stack of a connection's thread, in bytes; 2 MiB by default, 128 KiB
    /// at least, which suffice for an echo. Only what a handler touches becomes
    /// resident. [`run`](Self::run) fails where there is no room for one.
    #[must_use]
    pub fn stack_size(mut self, bytes: usize) -> Self {
        self.stack_size = bytes.clamp(LEAST_STACK, MOST_STACK);
        self
    }

    /// Sets the stop once so many connections have ended; zero sets it as soon
    /// as the server is ready, and serves only those who are connected by then.
    #[must_use]
    pub fn stop_after(mut self, connections: u64) -> Self {
        self.stop_after = Some(connections);
        self
    }

    /// Tells `observer` what happens, on the thread on which it happens: it
    /// should be quick and must not block. [`Event`] says what, and what it
    /// costs. Its panic is caught and logged, and changes nothing for clients.
    #[must_use]
    pub fn observe(mut self, observer: impl Fn(&Event<'_>) + Send + Sync + 'static) -> Self {
        self.observer = Some(Arc::new(observer));
        self
    }

    /// A look at this server from other threads, also while it runs.
    #[must_use]
    pub fn live(&self) -> Live {
        Live {
            table: Arc::clone(&self.table),
            addresses: self.listeners.iter().map(Listener::address).collect(),
            joined: Arc::clone(&self.joined),
        }
    }

    /// Serves clients with `handler` until the stop, then sees the stop through.
    ///
    /// The handler runs on a thread of its own for each connection and may
    /// borrow from the caller. Its error or panic ends that connection and
    /// nothing else.
    ///
    /// Blocks until every thread that it started has ended. The stop may be
    /// set before (then only those already connected are served), from any
    /// thread, and more than once.
    ///
    /// # Errors
    /// Only before serving: a listener cannot be prepared, not even one thread
    /// per listener can be started, or a predecessor does not hand over.
    pub fn run<F>(mut self, stop: &Stop, handler: F) -> io::Result<Report>
    where
        F: Fn(&mut Connection) -> io::Result<()> + Sync,
    {
        #[cfg(feature = "handover")]
        passed::release_signals(); // who wants to be told of one has said so
        let live = self.live();
        let (grace, drain_timeout) = (self.accept_grace, self.drain_timeout);
        let (limits, per_peer) = (self.limits(), self.max_per_peer);
        let (before_serving, serving) = (self.before_serving.take(), Arc::clone(&self.serving));
        let crew = self.into_crew(stop, &handler)?;
        let elapsed = thread::scope(|scope| {
            let started = crew
                .ports
                .iter()
                .try_for_each(|port| crew.follow(scope, port));
            let started = started.and_then(|()| before_serving.map_or(Ok(()), |act| act(stop)));
            let (mut ports, tick) = (crew.ports.iter(), crew.terms.tick());
            let started = started
                .and_then(|()| ports.try_for_each(|port| port.await_predecessor(stop, tick)));
            if let Err(error) = started {
                drain::cut(&crew); // no thread of ours would end by itself
                return Err(error);
            }
            *lock(&serving) = true;
            crew.terms.tell(|| Event::Ready {
                addresses: live.addresses(),
            });
            // Nobody is served before that was told.
            crew.table.set_limits(limits, per_peer);
            if crew.stop_after == Some(0) {
                stop.set();
            }
            Ok(drain::supervise(&crew, scope, grace, drain_timeout))
        })?;
        *lock(&serving) = false; // a handover has its last word first
        Ok(Report {
            elapsed,
            ..live.report()
        })
    }

    /// Acts once everything is prepared, before anybody is served; an error
    /// ends the run.
    #[cfg(feature = "handover")]
    pub(crate) fn before_serving(
        mut self,
        act: impl FnOnce(&Stop) -> io::Result<()> + Send + Sync + 'static,
    ) -> Self {
        self.before_serving = Some(Box::new(act));
        self
    }

    fn limits(&self) -> Limits {
        let hard = limits::connections(self.stack_size);
        Limits {
            served: self.max_connections.unwrap_or(hard).min(hard),
            hard,
        }
    }

    fn into_crew<'env, F>(self, stop: &Stop, handler: &'env F) -> io::Result<Crew<'env, F>> {
        let poll = self.poll_interval();
        let spare = self
            .listeners
            .first()
            .map(Listener::duplicate)
            .transpose()?;
        let terms = Terms {
            idle: self.idle_timeout,
            observer: self.observer,
            ..Terms::new(stop, poll)
        };
        for listener in &self.listeners {
            listener.prepare(terms.tick())?;
        }
        let ports = self.listeners.into_iter().enumerate();
        let ports = ports
            .map(|(number, listener)| Port::new(number, listener))
            .collect();
        Ok(Crew {
            ports,
            table: self.table,
            terms: Arc::new(terms),
            handler,
            stack_size: self.stack_size,
            stop_after: self.stop_after,
            spare: Mutex::new(spare),
            seldom: Seldom::default(),
        })
    }
}

/// The poll interval that is used; see [`Server::poll`].
fn effective_poll(asked: Duration, drain_timeout: Option<Duration>) -> Duration {
    let share = drain_timeout.map_or(Duration::MAX, |drain| (drain / 4).max(LEAST_SHARE));
    asked.min(share).max(LEAST_POLL)
}

impl From<TcpListener> for Server {
    /// A server on a listener of your own. It must be shared with nobody:
    /// its options are changed, and the stop ends it.
    fn from(listener: TcpListener) -> Self {
        Self::on(vec![listener.into()])
    }
}

impl fmt::Debug for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Server")
            .field("addresses", &self.live().addresses())
            .finish_non_exhaustive()
    }
}
