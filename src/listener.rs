//! A listening socket whose accept times out, and the end of accepting.

use crate::half_open::HalfOpen;
use crate::lock::lock;
use crate::sync::{Arc, Mutex, thread};
use crate::sys;
use crate::title::Title;
use socket2::{Domain, Protocol, SockRef, Socket, Type};
use std::io::{self, ErrorKind};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::num::NonZeroU32;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::OnceLock;
use std::time::Duration;

/// Room for clients that we have not accepted yet. Large, because clients
/// beyond the limit of connections wait there, and because SYN cookies, which
/// the kernel falls back to when it is full, break handshakes in flight at the
/// end of accepting.
pub(crate) const BACKLOG: u16 = 4096;
/// The longest that a thread waits for a client at a time, whatever the poll
/// interval: a handover waits until those that wait have come round.
pub(crate) const LONGEST_WAIT: Duration = Duration::from_secs(1);
/// How long a thread waits for a client while a handover is under way.
const SLICE: Duration = Duration::from_millis(20);
/// An interface index that no interface has.
const NO_INTERFACE: NonZeroU32 = NonZeroU32::new(0x7fff_ffff).unwrap();

/// A bound and listening socket.
pub(crate) struct Listener {
    /// `None` once it was let go.
    socket: Mutex<Option<Arc<Socket>>>,
    address: SocketAddr,
    /// What was asked for: port 0 for one that the system chose.
    #[cfg_attr(not(feature = "handover"), allow(dead_code))]
    asked: SocketAddr,
    title: Arc<Title>,
    half_open: Mutex<HalfOpen>,
    /// How long to wait for a client where the socket was not told.
    tick: OnceLock<Duration>,
    /// Whether a predecessor has handed over, once that is known: nobody is
    /// accepted before it has. `None` where there is none.
    pub(crate) handed_over: Option<Arc<OnceLock<bool>>>,
}

/// What came of one wait for a client.
pub(crate) enum Accepted {
    Client(TcpStream, SocketAddr),
    /// Nobody came in time, or a signal arrived.
    Nobody,
    /// One client's trouble (it was gone before we took it): try again at once.
    Lost(io::Error),
    /// The system's trouble (no descriptors, no memory …): wait, then try again.
    Exhausted(io::Error),
}

impl Listener {
    /// Binds and listens, with `SO_REUSEADDR`: we send FIN first at a stop, so
    /// connections of the past linger in TIME_WAIT on our port.
    pub(crate) fn bind(address: SocketAddr) -> io::Result<Self> {
        Self::bind_at(address, address.port(), None)
    }

    /// The same for what was asked for, but on this port, and, where it is said,
    /// with or without IPv4's clients.
    pub(crate) fn bind_at(asked: SocketAddr, port: u16, only_v6: Option<bool>) -> io::Result<Self> {
        let socket = Socket::new(
            Domain::for_address(asked),
            Type::STREAM,
            Some(Protocol::TCP),
        )?;
        socket.set_reuse_address(true)?;
        if let Some(only_v6) = only_v6 {
            socket.set_only_v6(only_v6)?;
        }
        let mut address = asked;
        address.set_port(port);
        Ok(Self::listen(socket, address)?.serving(asked))
    }

    fn listen(socket: Socket, address: SocketAddr) -> io::Result<Self> {
        socket.bind(&address.into())?;
        socket.listen(BACKLOG.into())?;
        let bound = ip_address(&socket)?;
        Ok(Self::over(socket, bound, address, Title::new(false, true)))
    }

    fn over(socket: Socket, address: SocketAddr, asked: SocketAddr, title: Title) -> Self {
        Self {
            socket: Mutex::new(Some(Arc::new(socket))),
            address,
            asked,
            title: Arc::new(title),
            half_open: Mutex::default(),
            tick: OnceLock::new(),
            handed_over: None,
        }
    }

    /// The same, as what serves `asked` from now on.
    pub(crate) fn serving(self, asked: SocketAddr) -> Self {
        Self { asked, ..self }
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Whether it is on all addresses of both families.
    pub(crate) fn takes_both(&self) -> bool {
        let only_v6 = self.socket().and_then(|socket| socket.only_v6());
        self.address.ip() == IpAddr::V6(Ipv6Addr::UNSPECIFIED) && only_v6.is_ok_and(|only| !only)
    }

    /// The socket, for one use: it closes when nobody uses it after it was
    /// [let go](Self::let_go).
    fn socket(&self) -> io::Result<Arc<Socket>> {
        let socket = lock(&self.socket).clone();
        socket.ok_or_else(|| io::Error::new(ErrorKind::NotConnected, "let go"))
    }

    /// Whether ending it is up to us.
    pub(crate) fn is_ours(&self) -> bool {
        *lock(&self.title.ours)
    }

    /// Makes the socket ready for [`accept`](Self::accept): blocking, but for
    /// at most a tick, and no longer than [`LONGEST_WAIT`]. Linux rounds the time up to its clock tick (4 ms where
    /// measured) and takes zero as "for ever", hence the floor. The options of
    /// connections are set here, too: see
    /// [`prepare_connection`](Self::prepare_connection).
    ///
    /// Where a predecessor waits on it, too, it waits no longer than that one
    /// set: else that one would stay slow, if we fail.
    ///
    /// A supervisor's socket keeps its options, and is waited for instead. But it
    /// does not block from then on (O_NONBLOCK, which is all its processes' as
    /// well): another of them may take the client that was waited for.
    pub(crate) fn prepare(&self, tick: Duration) -> io::Result<()> {
        let socket = self.socket()?;
        let wait = tick.min(LONGEST_WAIT);
        socket.set_nonblocking(self.title.foreign)?;
        if self.title.foreign {
            let _ = self.tick.set(wait);
            self.title.note_early();
            return Ok(());
        }
        let before = socket.write_timeout()?;
        let wait = if self.is_ours() {
            wait
        } else {
            self.patience(wait)
        };
        set_options(SockRef::from(&*socket), wait)?;
        // A predecessor's were the same, most often.
        let changed = socket.write_timeout()? != before;
        if wait < tick || (changed && self.may_have_client()) {
            self.title.note_early();
        }
        Ok(())
    }

    /// How long [`accept`](Self::accept) waits at most: another process that
    /// has the socket may have set less than our tick.
    pub(crate) fn patience(&self, tick: Duration) -> Duration {
        let wait = tick.min(LONGEST_WAIT);
        let set = self.socket().and_then(|socket| socket.read_timeout());
        set.ok().flatten().map_or(wait, |set| set.min(wait))
    }

    /// Sees to it that an accepted socket has the options of a connection.
    ///
    /// On Linux it inherits them, which saves eight system calls, unless its
    /// handshake was over before they were set on the listener: then it was in
    /// the queue when we looked.
    pub(crate) fn prepare_connection(&self, socket: &TcpStream, tick: Duration) -> io::Result<()> {
        if self.title.is_early() {
            set_options(SockRef::from(socket), tick)?;
        }
        Ok(())
    }

    /// Waits for a client; blocks at most for the tick given to
    /// [`prepare`](Self::prepare), and less when a signal arrives, which
    /// std's accept would hide. Where a successor takes the clients, it waits as
    /// long, and brings nobody.
    pub(crate) fn accept(&self) -> Accepted {
        if let Some(_patient) = self.title.be_patient() {
            return self.accept_within(self.tick.get().copied());
        }
        let alone = lock(&self.title.alone);
        if self.title.has_left() {
            drop(alone);
            thread::sleep(SLICE);
            return Accepted::Nobody;
        }
        self.accept_within(Some(SLICE))
    }

    /// Waits for a client as the socket does, or so long.
    fn accept_within(&self, wait: Option<Duration>) -> Accepted {
        let socket = match self.socket() {
            Ok(socket) => socket,
            Err(error) => return Accepted::Exhausted(error),
        };
        if wait.is_some_and(|wait| !sys::wait_readable(&*socket, wait)) {
            return Accepted::Nobody;
        }
        match socket.accept() {
            Ok((socket, address)) => match address.as_socket() {
                Some(peer) => Accepted::Client(socket.into(), peer),
                None => Accepted::Lost(io::Error::other("peer without an IP address")),
            },
            Err(error) => classify(error),
        }
    }

    /// A second descriptor of the same socket.
    pub(crate) fn duplicate(&self) -> io::Result<OwnedFd> {
        self.socket()?.as_fd().try_clone_to_owned()
    }

    /// Whether a client waits to be accepted, as far as the kernel says: not
    /// where the look fails, so that a look that always fails delays no stop.
    /// Never blocks.
    pub(crate) fn has_client(&self) -> bool {
        let socket = self.socket();
        socket.is_ok_and(|socket| sys::wait_readable(&*socket, Duration::ZERO))
    }

    /// Whether a client may wait to be accepted: it does, or the look failed.
    /// Never blocks.
    fn may_have_client(&self) -> bool {
        let socket = self.socket();
        socket.is_ok_and(|socket| !sys::has_nothing(&*socket))
    }

    /// How many clients are in the middle of their handshake, of those that
    /// were when this was first asked.
    ///
    /// # Errors
    /// The kernel cannot be asked here.
    pub(crate) fn half_open(&self) -> io::Result<usize> {
        lock(&self.half_open).count(&*self.socket()?, self.address)
    }

    /// From now on new clients are refused at once (ECONNREFUSED), while those
    /// in the queue and those in the middle of their handshake stay welcome.
    ///
    /// Binding the listener to an interface that does not exist does this
    /// without privileges on Linux, and cannot be taken back. Where it fails,
    /// the caller can only accept until the queue is empty, and a client whose
    /// handshake ends just then is reset. `tests/it/accepting.rs` shows both.
    pub(crate) fn refuse_new_clients(&self) -> io::Result<()> {
        self.socket()?.bind_device_by_index_v4(Some(NO_INTERFACE))
    }

    /// Makes [`accept`](Self::accept) return at once from now on.
    pub(crate) fn stop_waiting(&self) -> io::Result<()> {
        self.socket()?.set_nonblocking(true)
    }

    /// Ends listening and wakes every thread that is blocked in
    /// [`accept`](Self::accept). Who still waited in the queue is reset.
    pub(crate) fn close(&self) {
        if let Ok(socket) = self.socket() {
            let _ = socket.shutdown(Shutdown::Both);
        }
    }

    /// Closes our descriptor, as soon as nobody is in [`accept`](Self::accept)
    /// any more; other processes that have the socket listen on.
    pub(crate) fn let_go(&self) {
        lock(&self.socket).take();
    }
}

#[cfg(feature = "handover")]
impl Listener {
    /// A socket that another process has bound: a predecessor, who may hand it
    /// over, or a supervisor, who keeps it.
    ///
    /// # Errors
    /// It is not a listening TCP socket.
    pub(crate) fn inherit(descriptor: OwnedFd, foreign: bool) -> io::Result<Self> {
        let socket = Socket::from(descriptor);
        // Multipath TCP is TCP to us; systemd has SocketProtocol=mptcp.
        let tcp = [Protocol::TCP, Protocol::MPTCP].map(Some);
        let tcp = tcp.contains(&socket.protocol()?);
        if !tcp || !socket.is_listener()? {
            let message = "not a listening TCP socket";
            return Err(io::Error::new(ErrorKind::InvalidInput, message));
        }
        let address = ip_address(&socket)?;
        let title = Title::new(foreign, false);
        Ok(Self::over(socket, address, address, title))
    }

    /// The name under which it is handed over.
    pub(crate) fn name(&self) -> String {
        name(self.asked)
    }

    pub(crate) fn title(&self) -> &Arc<Title> {
        &self.title
    }
}

impl From<TcpListener> for Listener {
    fn from(listener: TcpListener) -> Self {
        let unknown = SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0));
        let address = listener.local_addr().unwrap_or(unknown);
        Self::over(listener.into(), address, address, Title::new(false, true))
    }
}

fn ip_address(socket: &Socket) -> io::Result<SocketAddr> {
    let address = socket.local_addr()?.as_socket();
    address.ok_or_else(|| io::Error::new(ErrorKind::InvalidInput, "not an IP socket"))
}

/// What was asked for, without the colons that separate such names.
#[cfg(feature = "handover")]
pub(crate) fn name(asked: SocketAddr) -> String {
    asked.to_string().replace(':', "_")
}

/// Sorts the errors of accept(2): "treat as EAGAIN", out of something, or
/// unknown, which waits as well so that a lasting error never spins.
fn classify(error: io::Error) -> Accepted {
    use rustix::io::Errno;
    match Errno::from_io_error(&error) {
        Some(Errno::AGAIN | Errno::INTR) => Accepted::Nobody,
        Some(
            Errno::CONNABORTED
            | Errno::PROTO
            | Errno::NOPROTOOPT
            | Errno::OPNOTSUPP
            | Errno::NETDOWN
            | Errno::NETUNREACH
            | Errno::HOSTDOWN
            | Errno::HOSTUNREACH
            | Errno::NONET
            | Errno::TIMEDOUT
            | Errno::PERM,
        ) => Accepted::Lost(error),
        _ => Accepted::Exhausted(error),
    }
}

fn is_unsupported(error: &io::Error) -> bool {
    use rustix::io::Errno;
    Errno::from_io_error(error) == Some(Errno::OPNOTSUPP)
}

/// Sets what every connection needs: blocking calls that return once per
/// `tick`; no Nagle delay; urgent data in its place (out of line it would hide
/// what follows it from FIONREAD, and the echo would lack it); and keepalive, so
/// that a peer that vanished is noticed after about two minutes (60 s idle, then
/// six probes 10 s apart).
pub(crate) fn set_options(socket: SockRef<'_>, tick: Duration) -> io::Result<()> {
    let keepalive = socket2::TcpKeepalive::new()
        .with_time(Duration::from_secs(60))
        .with_interval(Duration::from_secs(10))
        .with_retries(6);
    let tick = Some(tick.max(Duration::from_millis(1)));
    socket.set_read_timeout(tick)?;
    socket.set_tcp_nodelay(true)?;
    match socket.set_out_of_band_inline(true) {
        // Linux has no urgent data on Multipath TCP.
        Err(error) if is_unsupported(&error) => {}
        outcome => outcome?,
    }
    socket.set_tcp_keepalive(&keepalive)?;
    socket.set_write_timeout(tick)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn errno(errno: rustix::io::Errno) -> Accepted {
        classify(errno.into())
    }

    #[test]
    fn errors_of_one_client_are_told_from_errors_of_the_system() {
        use rustix::io::Errno;
        for e in [
            Errno::CONNABORTED,
            Errno::PROTO,
            Errno::NETDOWN,
            Errno::PERM,
        ] {
            assert!(matches!(errno(e), Accepted::Lost(_)), "{e}");
        }
        for e in [
            Errno::MFILE,
            Errno::NFILE,
            Errno::NOBUFS,
            Errno::NOMEM,
            Errno::BADF,
        ] {
            assert!(matches!(errno(e), Accepted::Exhausted(_)), "{e}");
        }
        for e in [Errno::AGAIN, Errno::INTR] {
            assert!(matches!(errno(e), Accepted::Nobody), "{e}");
        }
    }

    #[test]
    fn accept_returns_after_its_timeout() {
        let listener = Listener::bind("127.0.0.1:0".parse().unwrap()).unwrap();
        listener.prepare(Duration::from_millis(5)).unwrap();
        assert!(matches!(listener.accept(), Accepted::Nobody));
        assert!(!listener.has_client());
    }

    /// Else a handover would have to wait for it.
    #[test]
    fn accept_returns_after_a_second_at_most_and_connections_have_the_whole_time() {
        let long = Duration::from_secs(3600);
        let listener = Listener::bind("127.0.0.1:0".parse().unwrap()).unwrap();
        listener.prepare(long).unwrap();
        assert_eq!(listener.patience(long), LONGEST_WAIT);
        assert!(matches!(listener.accept(), Accepted::Nobody));
        let _client = TcpStream::connect(listener.address()).unwrap();
        let socket = accept(&listener);
        listener.prepare_connection(&socket, long).unwrap();
        assert_has_options(&socket, long);
    }

    #[test]
    fn refusing_keeps_the_queue_and_refuses_the_rest() {
        let listener = Listener::bind("127.0.0.1:0".parse().unwrap()).unwrap();
        listener.prepare(Duration::from_secs(5)).unwrap();
        let _queued = TcpStream::connect(listener.address()).unwrap();
        listener.refuse_new_clients().unwrap();
        let late = TcpStream::connect(listener.address()).unwrap_err();
        assert_eq!(late.kind(), ErrorKind::ConnectionRefused);
        assert!(listener.has_client());
        assert!(matches!(listener.accept(), Accepted::Client(..)));
    }

    fn assert_has_options(socket: &TcpStream, tick: Duration) {
        let socket = SockRef::from(socket);
        assert_eq!(socket.read_timeout().unwrap(), Some(tick));
        assert_eq!(socket.write_timeout().unwrap(), Some(tick));
        assert!(socket.tcp_nodelay().unwrap());
        assert!(socket.out_of_band_inline().unwrap());
        assert!(socket.keepalive().unwrap());
        let times = (socket.tcp_keepalive_time(), socket.tcp_keepalive_interval());
        assert_eq!(times.0.unwrap(), Duration::from_secs(60));
        assert_eq!(times.1.unwrap(), Duration::from_secs(10));
        assert_eq!(socket.tcp_keepalive_retries().unwrap(), 6);
    }

    fn accept(listener: &Listener) -> TcpStream {
        match listener.accept() {
            Accepted::Client(socket, _) => socket,
            _ => panic!("nobody came"),
        }
    }

    #[test]
    fn accepted_sockets_inherit_what_connections_need() {
        let listener = Listener::bind((Ipv4Addr::LOCALHOST, 0).into()).unwrap();
        let tick = Duration::from_millis(800);
        listener.prepare(tick).unwrap();
        let _client = TcpStream::connect(listener.address()).unwrap();
        assert_has_options(&accept(&listener), tick);
    }

    #[test]
    fn who_came_before_the_listener_was_prepared_gets_it_too() {
        let listener = Listener::bind((Ipv4Addr::LOCALHOST, 0).into()).unwrap();
        let _client = TcpStream::connect(listener.address()).unwrap();
        let tick = Duration::from_millis(800);
        listener.prepare(tick).unwrap();
        let socket = accept(&listener);
        assert_eq!(socket.write_timeout().unwrap(), None);
        listener.prepare_connection(&socket, tick).unwrap();
        assert_has_options(&socket, tick);
    }

    #[test]
    #[cfg(feature = "handover")]
    fn a_successor_waits_no_longer_than_its_predecessor_and_connections_as_told() {
        let (short, long) = (Duration::from_millis(200), Duration::from_secs(3600));
        let predecessor = Listener::bind((Ipv4Addr::LOCALHOST, 0).into()).unwrap();
        predecessor.prepare(short).unwrap();
        let descriptor = predecessor.duplicate().unwrap();
        let successor = Listener::inherit(descriptor, false).unwrap();
        successor.prepare(long).unwrap();
        assert!(matches!(predecessor.accept(), Accepted::Nobody));
        assert!(matches!(successor.accept(), Accepted::Nobody));
        let _client = TcpStream::connect(successor.address()).unwrap();
        let socket = accept(&successor);
        successor.prepare_connection(&socket, long).unwrap();
        assert_has_options(&socket, long);
        // One that wants less gets it.
        successor.prepare(short / 2).unwrap();
        assert_eq!(predecessor.patience(short), short / 2);
    }

    /// A listener that is being handed over, and whether a client that comes
    /// after `word` is taken by a thread that was in a slice of it.
    #[cfg(feature = "handover")]
    fn takes_who_comes_after(word: impl FnOnce(&Title)) -> bool {
        use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
        let listener = Listener::bind((Ipv4Addr::LOCALHOST, 0).into()).unwrap();
        listener.prepare(SLICE).unwrap();
        listener.title().hand(true);
        let over = AtomicBool::new(false);
        thread::scope(|scope| {
            let taken = scope.spawn(|| {
                while !over.load(SeqCst) {
                    if matches!(listener.accept(), Accepted::Client(..)) {
                        return true;
                    }
                }
                false
            });
            while !listener.title().is_in_slice() {
                thread::yield_now();
            }
            word(listener.title());
            let _client = TcpStream::connect(listener.address()).unwrap();
            thread::sleep(2 * SLICE);
            over.store(true, SeqCst);
            let taken = taken.join().unwrap();
            listener.title().leave(false);
            // Who is left comes back to it.
            assert!(taken || matches!(listener.accept(), Accepted::Client(..)));
            taken
        })
    }

    #[test]
    #[cfg(feature = "handover")]
    fn who_has_left_takes_no_client() {
        assert!(!takes_who_comes_after(|title| {
            title.leave(true);
            while title.is_in_slice() {
                thread::yield_now();
            }
        }));
        // The control: one that is still in a slice takes it all the same.
        let is_taken = |_| takes_who_comes_after(|title| title.leave(true));
        assert!((0..100).any(is_taken));
    }

    #[test]
    fn closing_wakes_a_blocked_accept() {
        let listener = Listener::bind("127.0.0.1:0".parse().unwrap()).unwrap();
        listener.prepare(Duration::from_secs(60)).unwrap();
        thread::scope(|scope| {
            let accept = scope.spawn(|| {
                loop {
                    match listener.accept() {
                        Accepted::Nobody => {}
                        other => return matches!(other, Accepted::Exhausted(_)),
                    }
                }
            });
            // Whether it is blocked yet or not: afterwards accept fails.
            listener.close();
            assert!(accept.join().unwrap());
        });
    }
}
