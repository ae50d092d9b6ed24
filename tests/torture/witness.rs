//! A client that checks its echoes while others make trouble.

use crate::client::{close, echo};
use crate::harness::{Broken, Server, WATCHDOG, noise};
use socket2::{Domain, Socket, Type};
use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread;
use std::time::{Duration, Instant};

/// The witness is a peer of its own: not the one that makes trouble.
const SOURCE: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 2);
/// Echoes on one connection; then it takes a new one.
const ROUNDS: u32 = 8;
const LENGTHS: [usize; 4] = [1, 200, 5000, 30_000];

/// What the witness saw.
#[derive(Debug, Default)]
pub(crate) struct Seen {
    pub(crate) connections: u64,
    pub(crate) echoes: u64,
    pub(crate) bytes: u64,
    /// The longest that an echo took, connect included.
    pub(crate) slowest: Duration,
}

/// A client at an address of its own on the loopback network, whose reads and
/// writes cannot hang for ever.
pub(crate) fn connect_from(source: Ipv4Addr, address: SocketAddr) -> io::Result<TcpStream> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
    socket.bind(&SocketAddr::from((source, 0)).into())?;
    socket.connect_timeout(&address.into(), WATCHDOG)?;
    let client = TcpStream::from(socket);
    client.set_read_timeout(Some(WATCHDOG))?;
    client.set_write_timeout(Some(WATCHDOG))?;
    Ok(client)
}

/// Checks echoes from beginning to end of `trouble`, and once more after it.
pub(crate) fn witnessed<T>(server: &Server, trouble: impl FnOnce() -> T) -> (Seen, T) {
    let (seen, value) = watch(server.address(), trouble);
    match seen {
        Ok(seen) => (seen, value),
        Err(broken) => panic!("the witness: {broken}; log: {}", server.stderr()),
    }
}

/// The same, where what is broken is the caller's to judge.
pub(crate) fn watch<T>(
    address: SocketAddr,
    trouble: impl FnOnce() -> T,
) -> (Result<Seen, Broken>, T) {
    let over = AtomicBool::new(false);
    thread::scope(|scope| {
        let witness = scope.spawn(|| {
            let mut seen = Seen::default();
            while !over.load(Relaxed) {
                seen.one_connection(address)?;
            }
            seen.one_connection(address)?;
            Ok(seen)
        });
        let over = SetAtEnd(&over);
        let value = trouble();
        drop(over);
        (witness.join().unwrap(), value)
    })
}

/// Ends the witness also where the trouble panics.
struct SetAtEnd<'a>(&'a AtomicBool);

impl Drop for SetAtEnd<'_> {
    fn drop(&mut self) {
        self.0.store(true, Relaxed);
    }
}

impl Seen {
    fn one_connection(&mut self, address: SocketAddr) -> Result<(), Broken> {
        let mut since = Instant::now();
        let mut client =
            connect_from(SOURCE, address).map_err(|error| Broken::Died(error.to_string()))?;
        self.connections += 1;
        for length in LENGTHS.into_iter().cycle().take(ROUNDS as usize) {
            echo(&mut client, &noise(length, self.bytes))?;
            self.echoes += 1;
            self.bytes += length as u64;
            self.slowest = self.slowest.max(since.elapsed());
            thread::sleep(Duration::from_millis(2)); // leaves the processor to the trouble
            since = Instant::now();
        }
        // Its end as well, so that its next connection is not one too many.
        close(client)
    }
}
