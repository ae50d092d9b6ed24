//! Many connections on one thread: each readiness is checked and answered with
//! the next message.

use super::{MESSAGE, PATIENCE, Seen};
use crate::pattern;
use crate::window::Window;
use anyhow::Result;
use rustix::buffer::spare_capacity;
use rustix::event::Timespec;
use rustix::event::epoll::{self, CreateFlags, Event, EventData, EventFlags};
use rustix::fd::OwnedFd;
use rustix::io::Errno;
use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::time::Instant;

/// Most events that one wait brings.
const EVENTS: usize = 256;
/// Longest wait before the window is looked at, in nanoseconds.
const GLANCE: i64 = 50_000_000;

/// One connection, and how much of the message on its way is back.
struct Client {
    stream: TcpStream,
    position: u64,
    back: usize,
}

/// What a readiness came to.
enum Step {
    Partial,
    Complete,
    Ended,
}

pub(super) fn drive(streams: Vec<TcpStream>, window: &Window) -> Result<Seen> {
    let epoll = epoll::create(CreateFlags::CLOEXEC)?;
    let mut clients = Vec::with_capacity(streams.len());
    for (index, stream) in streams.into_iter().enumerate() {
        stream.set_nonblocking(true)?;
        let data = EventData::new_u64(index as u64);
        epoll::add(&epoll, &stream, data, EventFlags::IN)?;
        clients.push(Client {
            stream,
            position: pattern::start(index),
            back: 0,
        });
    }
    for client in &mut clients {
        client.send()?;
    }
    window.begin();
    run(&epoll, &mut clients, window)
}

/// Plays until the window is over and no message is on its way.
fn run(epoll: &OwnedFd, clients: &mut [Client], window: &Window) -> Result<Seen> {
    let mut seen = Seen::default();
    let mut events: Vec<Event> = Vec::with_capacity(EVENTS);
    let mut playing = clients.len();
    let mut last = Instant::now();
    while playing > 0 && last.elapsed() < PATIENCE {
        wait(epoll, &mut events)?;
        if !events.is_empty() {
            last = Instant::now();
        }
        for event in &events {
            let client = &mut clients[usize::try_from(event.data.u64())?];
            match client.step(&mut seen) {
                Step::Partial => continue,
                Step::Complete => {
                    seen.count += u64::from(window.is_open());
                    if !window.is_over() {
                        match client.send() {
                            Ok(()) => continue,
                            Err(_) => seen.fail(MESSAGE as u64),
                        }
                    }
                }
                Step::Ended => seen.fail((MESSAGE - client.back) as u64),
            }
            epoll::delete(epoll, &client.stream)?;
            playing -= 1;
        }
    }
    // Whoever still waits has lost what has not come back.
    for _ in 0..playing {
        seen.fail(MESSAGE as u64);
    }
    Ok(seen)
}

fn wait(epoll: &OwnedFd, events: &mut Vec<Event>) -> Result<(), Errno> {
    events.clear();
    let glance = Timespec {
        tv_sec: 0,
        tv_nsec: GLANCE,
    };
    match epoll::wait(epoll, spare_capacity(events), Some(&glance)) {
        Ok(_) | Err(Errno::INTR) => Ok(()),
        Err(error) => Err(error),
    }
}

impl Client {
    /// Sends the next message, which an empty send queue always takes whole.
    fn send(&mut self) -> std::io::Result<()> {
        self.back = 0;
        self.stream.write_all(pattern::at(self.position, MESSAGE))
    }

    fn step(&mut self, seen: &mut Seen) -> Step {
        let mut buffer = [0; MESSAGE];
        let count = match self.stream.read(&mut buffer[self.back..]) {
            Ok(0) => return Step::Ended,
            Ok(count) => count,
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Step::Partial,
            Err(_) => return Step::Ended,
        };
        let received = &buffer[self.back..self.back + count];
        seen.wrong += pattern::wrong(self.position, received);
        self.position += count as u64;
        self.back += count;
        if self.back == MESSAGE {
            Step::Complete
        } else {
            Step::Partial
        }
    }
}
