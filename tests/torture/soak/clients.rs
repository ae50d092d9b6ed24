//! The soak's clients, each kind with its own manner.

use crate::harness::{Broken, connect, noise};
use socket2::SockRef;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::thread;
use std::time::Duration;

/// How a client behaves on each of its connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// One short message.
    Short,
    /// Lines, each checked before the next.
    Lines,
    /// A byte now and then.
    Slow,
    /// As much as goes, both ways at once.
    Bulk,
    /// Sends, half-closes, then reads.
    HalfClose,
    /// Has an answer, and resets.
    Reset,
}

/// The mix: most connections are short.
pub(super) const KINDS: [Kind; 9] = [
    Kind::Short,
    Kind::Short,
    Kind::Short,
    Kind::Lines,
    Kind::Slow,
    Kind::Slow,
    Kind::Bulk,
    Kind::HalfClose,
    Kind::Reset,
];

/// What clients saw.
#[derive(Debug, Default)]
pub(super) struct Ledger {
    pub(super) connections: u64,
    /// Bytes that came back.
    pub(super) bytes: u64,
    /// Connections that the clients themselves reset.
    pub(super) resets: u64,
    pub(super) broken: Vec<Broken>,
}

impl Ledger {
    pub(super) fn add(&mut self, other: Self) {
        self.connections += other.connections;
        self.bytes += other.bytes;
        self.resets += other.resets;
        self.broken.extend(other.broken);
    }
}

/// One client's connections, until it is refused.
pub(super) struct Visit<'a> {
    address: SocketAddr,
    /// Set before the stop is asked for: from then on echoes may end early.
    stopping: &'a AtomicBool,
    ledger: Ledger,
}

impl<'a> Visit<'a> {
    pub(super) fn new(address: SocketAddr, stopping: &'a AtomicBool) -> Self {
        let ledger = Ledger::default();
        Self {
            address,
            stopping,
            ledger,
        }
    }

    pub(super) fn come_and_go(mut self, kind: Kind) -> Ledger {
        loop {
            match connect(self.address) {
                Ok(client) => {
                    self.ledger.connections += 1;
                    if let Err(error) = self.converse(client, kind) {
                        let broken = Broken::Reset(format!("{kind:?}: {error}"));
                        self.ledger.broken.push(broken);
                    }
                }
                Err(error) => {
                    if error.kind() != ErrorKind::ConnectionRefused || !self.is_stopping() {
                        self.ledger
                            .broken
                            .push(Broken::Reset(format!("connect: {error}")));
                    }
                    return self.ledger;
                }
            }
            thread::sleep(Duration::from_millis(1)); // leaves the server some processor
        }
    }

    fn is_stopping(&self) -> bool {
        self.stopping.load(SeqCst)
    }

    fn converse(&mut self, mut client: TcpStream, kind: Kind) -> io::Result<()> {
        let seed = self.ledger.connections;
        let spread = |least: u64, most: u64| {
            noise(
                usize::try_from(least + seed * 7919 % (most - least)).unwrap(),
                seed,
            )
        };
        match kind {
            Kind::Short => self.ask(&mut client, &spread(1, 300)).map(drop),
            Kind::Lines => self.ask_lines(&mut client),
            Kind::Slow => self.ask_slowly(&mut client),
            Kind::Bulk => self.pour(&client, &spread(1 << 20, 4 << 20)),
            Kind::HalfClose => self.half_close(&mut client, &spread(1, 60_000)),
            Kind::Reset => self.reset(&mut client, &spread(1, 3000)),
        }
    }

    fn ask_lines(&mut self, client: &mut TcpStream) -> io::Result<()> {
        for number in 0..40 {
            if !self.ask(client, format!("line {number}\n").as_bytes())? {
                break;
            }
        }
        Ok(())
    }

    fn ask_slowly(&mut self, client: &mut TcpStream) -> io::Result<()> {
        for byte in 0..5 {
            if !self.ask(client, &[byte])? {
                break;
            }
            thread::sleep(Duration::from_millis(100));
        }
        Ok(())
    }

    fn half_close(&mut self, client: &mut TcpStream, data: &[u8]) -> io::Result<()> {
        self.send(client, data)?;
        // Fails where the server's end is complete already.
        let _ = client.shutdown(Shutdown::Write);
        self.read_echo(client, data)?;
        if client.read(&mut [0])? > 0 {
            let more = Broken::Short("more than was sent".into());
            self.ledger.broken.push(more);
        }
        Ok(())
    }

    fn reset(&mut self, client: &mut TcpStream, data: &[u8]) -> io::Result<()> {
        // The last byte's way there acknowledges what came before it.
        if self.ask(client, data)? && self.ask(client, b"x")? {
            self.ledger.resets += 1;
            SockRef::from(&*client).set_linger(Some(Duration::ZERO))?;
        }
        Ok(())
    }

    /// Sends and gets it back. False where the server ended instead.
    fn ask(&mut self, client: &mut TcpStream, data: &[u8]) -> io::Result<bool> {
        self.send(client, data)?;
        self.read_echo(client, data)
    }

    /// Sends all, unless the server has ended in order, which it may do at a
    /// stop: what comes 250 ms after its FIN meets a closed connection, which
    /// the kernel tells as EPIPE where FIN came before the reset.
    fn send(&self, client: &mut TcpStream, data: &[u8]) -> io::Result<()> {
        match client.write_all(data) {
            Err(error) if error.kind() == ErrorKind::BrokenPipe && self.is_stopping() => Ok(()),
            outcome => outcome,
        }
    }

    /// Reads the echo of `data`. False where the server ended before its end,
    /// which it may do only at a stop.
    fn read_echo(&mut self, client: &TcpStream, data: &[u8]) -> io::Result<bool> {
        let mut echo = Vec::new();
        client.take(data.len() as u64).read_to_end(&mut echo)?;
        self.ledger.bytes += echo.len() as u64;
        let whole = echo.len() == data.len();
        if !data.starts_with(&echo) || !(whole || self.is_stopping()) {
            let what = format!("{} of {} bytes, or others", echo.len(), data.len());
            self.ledger.broken.push(Broken::Short(what));
        }
        Ok(whole)
    }

    /// Sends and reads at the same time.
    fn pour(&mut self, client: &TcpStream, data: &[u8]) -> io::Result<()> {
        thread::scope(|scope| {
            // Fails where the server ended first; the reader judges that.
            let sender = scope.spawn(|| drop((&*client).write_all(data)));
            let read = self.read_echo(client, data);
            // Wakes a sender that nobody listens to any more.
            let _ = client.shutdown(Shutdown::Write);
            sender.join().unwrap();
            read.map(drop)
        })
    }
}
