//! An echo server that is one thread and one epoll loop, to measure against:
//! level-triggered, one buffer for all connections, non-blocking calls.

use clap::Parser;
use rustix::buffer::spare_capacity;
use rustix::event::epoll::{self, CreateFlags, Event, EventData, EventFlags};
use rustix::fd::{AsRawFd, OwnedFd};
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, accept_with, bind, listen, recv,
    send, socket_with, sockopt,
};
use std::io;
use std::net::SocketAddr;

/// As long as lastecho's, so that no peer loses clients in its accept queue.
const BACKLOG: i32 = 4096;
/// Most events that one wait brings.
const EVENTS: usize = 1024;
/// What an event of the listener carries; no descriptor has this number.
const LISTENER: u64 = u64::MAX;

/// Echoes with one epoll loop.
#[derive(Parser)]
struct Options {
    /// Where to listen
    #[arg(value_name = "IP:PORT")]
    address: SocketAddr,

    /// Bytes of the buffer that all connections share
    #[arg(long, value_name = "BYTES", default_value_t = 61_440)]
    buffer: usize,
}

/// One client, and what it has not taken yet of its last echo.
struct Client {
    socket: OwnedFd,
    owed: Vec<u8>,
}

struct Loop {
    epoll: OwnedFd,
    listener: OwnedFd,
    /// By the number of their descriptor.
    clients: Vec<Option<Client>>,
    buffer: Vec<u8>,
}

fn main() -> io::Result<()> {
    let options = Options::parse();
    let listener = listening(options.address)?;
    let epoll = epoll::create(CreateFlags::CLOEXEC)?;
    epoll::add(
        &epoll,
        &listener,
        EventData::new_u64(LISTENER),
        EventFlags::IN,
    )?;
    let echo = Loop {
        epoll,
        listener,
        clients: Vec::new(),
        buffer: vec![0; options.buffer],
    };
    echo.run()
}

fn listening(address: SocketAddr) -> io::Result<OwnedFd> {
    let family = match address {
        SocketAddr::V4(_) => AddressFamily::INET,
        SocketAddr::V6(_) => AddressFamily::INET6,
    };
    let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
    let listener = socket_with(family, SocketType::STREAM, flags, None)?;
    sockopt::set_socket_reuseaddr(&listener, true)?;
    // Accepted sockets inherit it.
    sockopt::set_tcp_nodelay(&listener, true)?;
    bind(&listener, &address)?;
    listen(&listener, BACKLOG)?;
    Ok(listener)
}

impl Loop {
    fn run(mut self) -> io::Result<()> {
        let mut events: Vec<Event> = Vec::with_capacity(EVENTS);
        loop {
            events.clear();
            match epoll::wait(&self.epoll, spare_capacity(&mut events), None) {
                Ok(_) | Err(Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
            for event in &events {
                let key = event.data.u64();
                if key == LISTENER {
                    self.accept()?;
                } else {
                    self.serve(key);
                }
            }
        }
    }

    /// Takes every client in the queue.
    fn accept(&mut self) -> io::Result<()> {
        loop {
            let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
            let socket = match accept_with(&self.listener, flags) {
                Ok(socket) => socket,
                Err(Errno::AGAIN) => return Ok(()),
                Err(Errno::INTR | Errno::CONNABORTED) => continue,
                Err(error) => return Err(error.into()),
            };
            let place = usize::try_from(socket.as_raw_fd()).unwrap_or(0);
            let key = EventData::new_u64(place as u64);
            epoll::add(&self.epoll, &socket, key, EventFlags::IN)?;
            if place >= self.clients.len() {
                self.clients.resize_with(place + 1, || None);
            }
            let owed = Vec::new();
            self.clients[place] = Some(Client { socket, owed });
        }
    }

    /// One step of a ready client; closing its descriptor takes it out of the
    /// epoll set.
    fn serve(&mut self, key: u64) {
        let place = usize::try_from(key).ok();
        let Some(slot) = place.and_then(|place| self.clients.get_mut(place)) else {
            return;
        };
        let Some(client) = slot else { return };
        let was_owing = !client.owed.is_empty();
        let step = if was_owing {
            client.settle()
        } else {
            client.echo(&mut self.buffer)
        };
        let is_owing = !client.owed.is_empty();
        let goes_on = match step {
            Ok(true) if was_owing == is_owing => true,
            Ok(true) => {
                let interest = if is_owing {
                    EventFlags::OUT
                } else {
                    EventFlags::IN
                };
                let key = EventData::new_u64(key);
                epoll::modify(&self.epoll, &client.socket, key, interest).is_ok()
            }
            Err(Errno::AGAIN | Errno::INTR) => true,
            Ok(false) | Err(_) => false,
        };
        if !goes_on {
            *slot = None;
        }
    }
}

impl Client {
    /// Reads once and writes it back; what does not fit is owed. False at the
    /// end of the client's input.
    fn echo(&mut self, buffer: &mut [u8]) -> Result<bool, Errno> {
        let (count, _) = recv(&self.socket, &mut *buffer, RecvFlags::empty())?;
        if count == 0 {
            return Ok(false);
        }
        let sent = match send(&self.socket, &buffer[..count], SendFlags::NOSIGNAL) {
            Ok(sent) => sent,
            Err(Errno::AGAIN | Errno::INTR) => 0,
            Err(error) => return Err(error),
        };
        self.owed.extend_from_slice(&buffer[sent..count]);
        Ok(true)
    }

    /// Writes what is owed.
    fn settle(&mut self) -> Result<bool, Errno> {
        let sent = send(&self.socket, &self.owed, SendFlags::NOSIGNAL)?;
        self.owed.drain(..sent);
        Ok(true)
    }
}
