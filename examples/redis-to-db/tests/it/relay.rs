//! Stands between a program and its Redis, and can hold back what it passes on.

use crate::servers::{Redis, eventually};
use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, Shutdown, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::thread;
use std::time::Duration;

pub(crate) struct Relay {
    port: u16,
    holds: Arc<Holds>,
}

#[derive(Default)]
struct Holds {
    /// Demands for a message do not pass.
    on: AtomicBool,
    /// How many wait.
    held: AtomicUsize,
}

impl Relay {
    pub(crate) fn start(redis: &Redis) -> Self {
        let door = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let (port, target) = (door.local_addr().unwrap().port(), redis.port);
        let holds = Arc::new(Holds::default());
        let shared = Arc::clone(&holds);
        thread::spawn(move || {
            for client in door.incoming().map_while(Result::ok) {
                let holds = Arc::clone(&shared);
                thread::spawn(move || pass(client, target, &holds));
            }
        });
        Self { port, holds }
    }

    pub(crate) fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    /// From now on; waits until so many are held back.
    pub(crate) fn hold(&self, count: usize) {
        self.holds.on.store(true, SeqCst);
        eventually("demands are held back", || {
            self.holds.held.load(SeqCst) == count
        });
    }

    /// What is held back reaches Redis now, whoever has left meanwhile.
    pub(crate) fn let_go(&self) {
        self.holds.on.store(false, SeqCst);
    }
}

fn pass(client: TcpStream, target: u16, holds: &Holds) -> io::Result<()> {
    let mut server = TcpStream::connect((Ipv4Addr::LOCALHOST, target))?;
    let (mut answers, mut back) = (server.try_clone()?, client.try_clone()?);
    thread::spawn(move || {
        let _ = io::copy(&mut answers, &mut back);
        back.shutdown(Shutdown::Both)
    });
    let mut client = client;
    let mut piece = [0; 65536];
    loop {
        let length = client.read(&mut piece).unwrap_or(0);
        let piece = &piece[..length];
        if piece.windows(6).any(|word| word == b"BLMOVE") && holds.on.load(SeqCst) {
            holds.held.fetch_add(1, SeqCst);
            while holds.on.load(SeqCst) {
                thread::sleep(Duration::from_millis(1));
            }
        }
        server.write_all(piece)?;
        if length == 0 {
            return server.shutdown(Shutdown::Write);
        }
    }
}
