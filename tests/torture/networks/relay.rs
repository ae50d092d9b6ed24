//! A link whose packets pass through our hands: two TUN devices, and in between
//! a thread for each direction that loses, delays, reorders and duplicates.

use super::joined::{CLIENT, SERVER};
use crate::harness::{eventually, noise, text};
use std::collections::BTreeMap;
use std::fs::File;
use std::iter::Cycle;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};
use std::vec::IntoIter;

/// What befalls packets.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Weather {
    /// Of 100 packets, so many are lost.
    pub(super) loss: u8,
    /// Of 100 packets, so many come twice.
    pub(super) twice: u8,
    pub(super) delay: Duration,
    /// Up to so much more, at random, so that packets overtake each other.
    pub(super) jitter: Duration,
    /// Of the TCP packets to the server, the one with this number is lost.
    pub(super) without: Option<u64>,
}

/// What befell them.
#[derive(Debug, Default)]
pub(super) struct Counts {
    pub(super) passed: AtomicU64,
    pub(super) lost: AtomicU64,
    pub(super) twice: AtomicU64,
    pub(super) overtaken: AtomicU64,
}

/// Two socats with a TUN device each, and two threads between them.
pub(super) struct Relay {
    socats: Vec<Child>,
    threads: Vec<JoinHandle<()>>,
    done: Arc<AtomicBool>,
    pub(super) counts: Arc<Counts>,
    _place: tempfile::TempDir,
}

impl Relay {
    /// `ends` are the commands that run socat at the server's end and the clients'.
    pub(super) fn start(ends: [Command; 2], weather: Weather) -> Self {
        let place = tempfile::tempdir().unwrap();
        let [server, clients, to_server, to_clients] =
            ["server", "clients", "to-server", "to-clients"].map(|name| place.path().join(name));
        let here = [&to_server, &to_clients].map(|path| {
            let socket = UnixDatagram::bind(path).unwrap();
            socket
                .set_write_timeout(Some(Duration::from_millis(1)))
                .unwrap();
            socket
        });
        let [server_end, clients_end] = ends;
        let socats = vec![
            socat(server_end, SERVER, &to_server, &server),
            socat(clients_end, CLIENT, &to_clients, &clients),
        ];
        let (done, counts) = (Arc::default(), Arc::default());
        let [server_side, clients_side] = &here;
        let back = Weather {
            without: None,
            ..weather
        };
        let directions = [
            Direction::new([server_side, clients_side], clients, back, &counts),
            Direction::new([clients_side, server_side], server, weather, &counts),
        ];
        let threads = directions.into_iter().map(|direction| {
            let done = Arc::clone(&done);
            thread::spawn(move || direction.run(&done))
        });
        Self {
            threads: threads.collect(),
            socats,
            done,
            counts,
            _place: place,
        }
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.done.store(true, Relaxed);
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
        for socat in &mut self.socats {
            let _ = socat.kill();
            let _ = socat.wait();
        }
    }
}

/// Starts one end and waits until its device is there.
fn socat(mut command: Command, address: &str, relay: &Path, own: &Path) -> Child {
    let said: File = tempfile::tempfile().unwrap();
    command.args(["-d", "-d"]);
    command.arg(format!("TUN:{address}/24,up,iff-no-pi,tun-name=wire"));
    command.arg(format!(
        "UNIX-SENDTO:{},bind={}",
        relay.display(),
        own.display()
    ));
    let command = command
        .stdin(Stdio::null())
        .stderr(said.try_clone().unwrap());
    let mut child = command
        .spawn()
        .unwrap_or_else(|error| panic!("{command:?}: {error}; install it with: make deps"));
    let mut over = false;
    eventually("a TUN device", || {
        over = child.try_wait().unwrap().is_some();
        over || text(&said).contains("starting data transfer loop")
    });
    assert!(
        !over,
        "no TUN device (make deps; needs root): {}",
        text(&said)
    );
    child
}

/// Packets on their way in one direction.
struct Direction {
    from: UnixDatagram,
    to: UnixDatagram,
    at: PathBuf,
    weather: Weather,
    counts: Arc<Counts>,
    chances: Cycle<IntoIter<u8>>,
    /// By the time when they are due, and their number.
    on_the_way: BTreeMap<(Instant, u64), Vec<u8>>,
    number: u64,
    /// TCP packets so far.
    tcp: u64,
    /// The latest that has arrived.
    latest: u64,
}

impl Direction {
    fn new(
        [from, to]: [&UnixDatagram; 2],
        at: PathBuf,
        weather: Weather,
        counts: &Arc<Counts>,
    ) -> Self {
        Self {
            from: from.try_clone().unwrap(),
            to: to.try_clone().unwrap(),
            chances: noise(1 << 16, 1).into_iter().cycle(),
            at,
            weather,
            counts: Arc::clone(counts),
            on_the_way: BTreeMap::new(),
            number: 0,
            tcp: 0,
            latest: 0,
        }
    }

    fn run(mut self, done: &AtomicBool) {
        let mut packet = vec![0; 1 << 16];
        while !done.load(Relaxed) {
            let next = self.on_the_way.first_key_value();
            let due = next.map(|((due, _), _)| due.saturating_duration_since(Instant::now()));
            let wait = due.unwrap_or(Duration::from_millis(20));
            let wait = wait.clamp(Duration::from_millis(1), Duration::from_millis(20));
            self.from.set_read_timeout(Some(wait)).unwrap();
            if let Ok(length) = self.from.recv(&mut packet) {
                self.take(&packet[..length]);
            }
            self.deliver();
        }
    }

    /// Whether something befalls this packet, of 100.
    fn chance(&mut self, of_100: u8) -> bool {
        // One of 256 is near enough.
        u16::from(self.chances.next().unwrap()) * 100 < u16::from(of_100) * 256
    }

    fn take(&mut self, packet: &[u8]) {
        // IPv4 and TCP: the kernel sends packets of its own, too.
        let is_tcp = packet[0] >> 4 == 4 && packet.get(9) == Some(&6);
        self.tcp += u64::from(is_tcp);
        let unwanted = is_tcp && self.weather.without == Some(self.tcp);
        if unwanted || self.chance(self.weather.loss) {
            self.counts.lost.fetch_add(1, Relaxed);
            return;
        }
        let times = if self.chance(self.weather.twice) {
            2
        } else {
            1
        };
        self.counts.twice.fetch_add(times - 1, Relaxed);
        for _ in 0..times {
            let jitter = self.weather.jitter * u32::from(self.chances.next().unwrap()) / 255;
            self.number += 1;
            let due = Instant::now() + self.weather.delay + jitter;
            self.on_the_way.insert((due, self.number), packet.to_vec());
        }
    }

    fn deliver(&mut self) {
        while let Some(entry) = self.on_the_way.first_entry() {
            let (due, number) = *entry.key();
            if due > Instant::now() {
                return;
            }
            // What finds no room is lost, as it would be in a router; waiting
            // for it could hold up both directions for ever.
            let sent = self.to.send_to(&entry.remove(), &self.at);
            let count = if sent.is_ok() {
                &self.counts.passed
            } else {
                &self.counts.lost
            };
            count.fetch_add(1, Relaxed);
            if number < self.latest {
                self.counts.overtaken.fetch_add(1, Relaxed);
            }
            self.latest = self.latest.max(number);
        }
    }
}
