//! Clients that come and go while the service does.

use super::machine::{ADDRESS, Machine};
use crate::harness::connect;
use std::io::{self, Read, Write};
use std::net::Shutdown;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread::JoinHandle;

/// What a client sends.
const MESSAGE: usize = 1000;

/// Clients that check every echo.
pub(super) struct Traffic {
    over: Arc<AtomicBool>,
    threads: Vec<JoinHandle<Seen>>,
}

impl Traffic {
    /// Clients from inside, one after the other on each of some threads, until
    /// [`end`](Self::end).
    pub(super) fn begin(machine: &Machine) -> Self {
        let over = Arc::new(AtomicBool::new(false));
        let come_and_go = || {
            let over = Arc::clone(&over);
            machine.inside(move || {
                let mut seen = Seen::default();
                while !over.load(Relaxed) {
                    seen.note(ask());
                }
                seen
            })
        };
        let threads = (0..4).map(|_| come_and_go()).collect();
        Self { over, threads }
    }

    /// What all of them have seen.
    pub(super) fn end(mut self) -> Seen {
        self.over.store(true, Relaxed);
        let mut all = Seen::default();
        for thread in self.threads.drain(..) {
            let seen = thread.join().unwrap();
            all.echoed += seen.echoed;
            all.wrong.extend(seen.wrong);
        }
        all
    }
}

impl Drop for Traffic {
    fn drop(&mut self) {
        self.over.store(true, Relaxed);
    }
}

#[derive(Debug, Default)]
pub(super) struct Seen {
    pub(super) echoed: usize,
    /// Clients that were refused, reset or answered in part.
    pub(super) wrong: Vec<String>,
}

impl Seen {
    fn note(&mut self, answer: io::Result<usize>) {
        match answer {
            Ok(MESSAGE) => self.echoed += 1,
            // Its message crossed the end of file on its way.
            Ok(0) => {}
            // The first of them are enough to know.
            _ if self.wrong.len() > 5 => {}
            Ok(count) => self.wrong.push(format!("{count} of {MESSAGE} bytes")),
            Err(error) => self.wrong.push(error.to_string()),
        }
    }
}

/// How much of one message comes back.
fn ask() -> io::Result<usize> {
    let mut client = connect(ADDRESS)?;
    client.write_all(&[7; MESSAGE])?;
    client.shutdown(Shutdown::Write)?;
    client.read_to_end(&mut Vec::new())
}
