//! The listening sockets that this process was started with, and taking over
//! from who had them.

use crate::addresses;
use crate::listener::{self, Listener};
use crate::lock::lock;
use crate::passed::{self, LEFT, SLICE, TAKEN, YOURS};
use crate::server::Server;
use crate::stop::Stop;
use crate::sync::Arc;
use crate::sys;
use crate::title::Title;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{Ipv6Addr, Shutdown, SocketAddr, ToSocketAddrs};
use std::os::unix::net::UnixStream;

/// The listening sockets that this process was started with.
#[derive(Default)]
pub struct Inherited {
    /// Under the names that whoever passed them gave them; `None` once taken.
    listeners: Vec<(String, Option<Listener>)>,
    titles: Vec<Arc<Title>>,
    predecessor: Option<UnixStream>,
}

/// Takes the listening sockets that a predecessor or a supervisor passed, as
/// the environment says; there may be none.
///
/// Call it at the beginning of `main`: before any other descriptor is opened,
/// which might get the number of one that is announced and not there, and
/// before any thread is started, because it takes the variables out of the
/// environment, so that nobody else believes them. Where there are threads
/// already, it leaves them. A second call finds nothing.
///
/// # Errors
/// The variables contradict each other or this process, or a descriptor is not
/// a listening TCP socket; the message names it.
pub fn inherited() -> io::Result<Inherited> {
    let passed = passed::take()?;
    let titles = passed.listeners.iter();
    Ok(Inherited {
        titles: titles
            .map(|(_, socket)| Arc::clone(socket.title()))
            .collect(),
        listeners: passed
            .listeners
            .into_iter()
            .map(|(name, socket)| (name, Some(socket)))
            .collect(),
        predecessor: passed.predecessor,
    })
}

impl Inherited {
    /// Whether nothing is left that [`bind`](Self::bind) could take.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.listeners.iter().all(|(_, socket)| socket.is_none())
    }

    /// Whether a predecessor passed them, and hands over when we are ready.
    #[must_use]
    pub fn has_predecessor(&self) -> bool {
        self.predecessor.is_some()
    }

    /// Like [`Server::bind`], but takes what was passed for an address: the
    /// listener that a predecessor had bound for it (port 0 included), or the
    /// one that is bound to it.
    ///
    /// # Errors
    /// As [`Server::bind`].
    pub fn bind(&mut self, address: impl ToSocketAddrs) -> io::Result<Server> {
        let asked = address.to_socket_addrs()?;
        Server::over(addresses::listen(asked, |asked| self.take(asked))?)
    }

    /// Like [`Server::bind_all`], but takes what was passed for the port.
    ///
    /// # Errors
    /// As [`Server::bind_all`].
    pub fn bind_all(&mut self, port: u16) -> io::Result<Server> {
        match self.take((Ipv6Addr::UNSPECIFIED, port).into()) {
            Some(socket) => Server::over(vec![socket]),
            None => Server::bind_all(port),
        }
    }

    /// A server on all that is left; `None` where nothing is.
    pub fn server(&mut self) -> Option<Server> {
        let left = self.listeners.iter_mut();
        let left = left.filter_map(|(_, socket)| socket.take()).collect();
        Server::over(left).ok()
    }

    fn take(&mut self, asked: SocketAddr) -> Option<Listener> {
        let name = listener::name(asked);
        let fits = |(passed, socket): &&mut (String, Option<Listener>)| {
            socket
                .as_ref()
                .is_some_and(|socket| *passed == name || socket.address() == asked)
        };
        let (_, socket) = self.listeners.iter_mut().find(fits)?;
        socket.take().map(|socket| socket.serving(asked))
    }

    /// Tells the predecessor that we are ready, and waits for its last word.
    ///
    /// Not being answered while the predecessor lives has no limit: if we gave
    /// up just when it answers, nobody would serve.
    fn succeed(&self, stop: &Stop) -> io::Result<()> {
        let Some(mut predecessor) = self.predecessor.as_ref() else {
            return Ok(());
        };
        let taken = |(_, socket): &(_, Option<Listener>)| match socket {
            None => TAKEN,
            Some(_) => LEFT,
        };
        let word: Vec<u8> = self.listeners.iter().map(taken).collect();
        predecessor.write_all(&word)?;
        while !sys::wait_readable(predecessor, SLICE) && !stop.is_set() {}
        if stop.is_set() {
            // From here on it can not answer; it may have.
            predecessor.shutdown(Shutdown::Both)?;
        }
        let mut answer = [0];
        match predecessor.read(&mut answer) {
            Ok(1) if answer[0] == YOURS => {
                for title in self.titles.iter().filter(|title| !title.foreign) {
                    *lock(&title.ours) = true;
                }
                Ok(())
            }
            // The predecessor serves on, or stops; neither is ours to meddle in.
            _ if stop.is_set() => Err(io::Error::new(
                ErrorKind::Interrupted,
                "a stop came before the predecessor had handed over",
            )),
            _ => Err(io::Error::new(
                ErrorKind::ConnectionAborted,
                "the predecessor has given the handover up",
            )),
        }
    }
}

impl Server {
    /// Ends what is left of `inherited`, and makes [`run`](Self::run) tell the
    /// predecessor, if there is one, when all is prepared. Nobody is accepted
    /// before it has handed over; `run` fails if it does not, and if a stop
    /// comes first.
    #[must_use]
    pub fn take_over(self, inherited: Inherited) -> Self {
        for (name, socket) in &inherited.listeners {
            if let Some(socket) = socket {
                log::warn!(
                    "nothing asks for {} ({name}), which was passed",
                    socket.address()
                );
            }
        }
        self.before_serving(move |stop| inherited.succeed(stop))
    }
}
