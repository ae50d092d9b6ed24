//! The listening sockets that this process was started with, and taking over
//! from who had them.

use crate::addresses;
use crate::listener::{self, Listener};
use crate::lock::lock;
use crate::panics::say;
use crate::passed::{self, LEFT, SLICE, TAKEN, YOURS};
use crate::server::Server;
use crate::stop::Stop;
use crate::sync::Arc;
use crate::sys;
use crate::title::Title;
use std::io::{self, ErrorKind, Read};
use std::net::{Ipv6Addr, Shutdown, SocketAddr, ToSocketAddrs};
use std::os::unix::net::UnixStream;
use std::sync::OnceLock;
use std::time::Duration;

/// The listening sockets that this process was started with.
#[derive(Default)]
pub struct Inherited {
    /// Under the names that whoever passed them gave them; `None` once taken.
    listeners: Vec<(String, Option<Listener>)>,
    titles: Vec<Arc<Title>>,
    predecessor: Option<UnixStream>,
    /// Whether it has handed over, once that is known: every server that was
    /// made here waits for it.
    handed_over: Arc<OnceLock<bool>>,
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
/// Signals that a predecessor catches are held off when a successor begins:
/// those that `signals::install` is asked for until
/// then, the others until [`Server::run`]. A thread that is started before `run`
/// goes on without them, and so do the programs that it starts; a signal to the
/// process finds another thread. So install signals and run early, start other
/// threads after `signals::install`, and where such a thread starts programs
/// that must hear signals, let it unblock them first.
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
        handed_over: Arc::default(),
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
        let listeners = addresses::listen(asked, |asked| self.take(asked))?;
        self.serve(listeners)
    }

    /// Like [`Server::bind_all`], but takes what was passed for the port.
    ///
    /// # Errors
    /// As [`Server::bind_all`].
    pub fn bind_all(&mut self, port: u16) -> io::Result<Server> {
        let listener = match self.take((Ipv6Addr::UNSPECIFIED, port).into()) {
            Some(socket) => socket,
            None => addresses::listen_everywhere(port)?,
        };
        self.serve(vec![listener])
    }

    /// A server on all that is left; `None` where nothing is.
    pub fn server(&mut self) -> Option<Server> {
        let left = self.listeners.iter_mut();
        let left = left.filter_map(|(_, socket)| socket.take()).collect();
        self.serve(left).ok()
    }

    /// A server that accepts nobody before a predecessor has handed over.
    fn serve(&self, mut listeners: Vec<Listener>) -> io::Result<Server> {
        for listener in &mut listeners {
            listener.handed_over = self
                .predecessor
                .is_some()
                .then(|| Arc::clone(&self.handed_over));
        }
        Server::over(listeners)
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
    /// up just when it answers, nobody would serve. Where it has died without a
    /// word, the sockets are ours as well.
    fn succeed(&self, stop: &Stop) -> io::Result<()> {
        let Some(predecessor) = &self.predecessor else {
            return Ok(());
        };
        let taken = |(_, socket): &(_, Option<Listener>)| match socket {
            None => TAKEN,
            Some(_) => LEFT,
        };
        let word: Vec<u8> = self.listeners.iter().map(taken).collect();
        // One that has died does not hear it.
        let _ = sys::send(predecessor, &word);
        while !sys::wait_readable(predecessor, SLICE) && !stop.is_set() {}
        let is_late = stop.is_set() && !sys::wait_readable(predecessor, Duration::ZERO);
        if is_late {
            // From here on it cannot answer; it may have.
            predecessor.shutdown(Shutdown::Both)?;
        }
        let refused = |kind, why| Err(io::Error::new(kind, why));
        let mut answer = [0];
        match (&mut &*predecessor).read(&mut answer) {
            Ok(1) if answer[0] == YOURS => {}
            Ok(0) | Err(_) if !is_late => {
                say!(
                    log::Level::Warn,
                    "the predecessor died before it had handed over: serving in its place"
                );
            }
            // The predecessor serves on, or stops; neither is ours to meddle in.
            _ if stop.is_set() => {
                let why = "a stop came before the predecessor had handed over";
                return refused(ErrorKind::Interrupted, why);
            }
            _ => {
                let why = "the predecessor has given the handover up";
                return refused(ErrorKind::ConnectionAborted, why);
            }
        }
        for title in self.titles.iter().filter(|title| !title.foreign) {
            *lock(&title.ours) = true;
        }
        let _ = self.handed_over.set(true);
        Ok(())
    }
}

impl Drop for Inherited {
    /// Servers that wait for a predecessor that has not handed over by now need
    /// not wait any more.
    fn drop(&mut self) {
        let _ = self.handed_over.set(false);
    }
}

impl Server {
    /// Ends what is left of `inherited`, and makes [`run`](Self::run) tell the
    /// predecessor, if there is one, when all is prepared. Nobody is accepted
    /// before it has handed over; `run` fails if it does not, and if a stop
    /// comes first. Where the predecessor dies instead, we serve.
    ///
    /// Of several servers one takes over, the last to be prepared: the word is
    /// for all that were made of `inherited`, and none of them accepts before.
    #[must_use]
    pub fn take_over(self, inherited: Inherited) -> Self {
        for (name, socket) in &inherited.listeners {
            if let Some(socket) = socket {
                say!(
                    log::Level::Warn,
                    "nothing asks for {} ({name}), which was passed",
                    socket.address()
                );
            }
        }
        self.before_serving(move |stop| inherited.succeed(stop))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::passed::DECLINED;
    use std::io::Write;

    /// What comes of these bytes, and of the predecessor's end after them.
    fn succeed(words: &[u8], dies: bool, stop: &Stop) -> (Result<(), ErrorKind>, Option<bool>) {
        let (mut theirs, ours) = UnixStream::pair().unwrap();
        theirs.write_all(words).unwrap();
        let theirs = (!dies).then_some(theirs);
        let mut inherited = Inherited::default();
        inherited.predecessor = Some(ours);
        let handed_over = Arc::clone(&inherited.handed_over);
        let outcome = inherited.succeed(stop).map_err(|error| error.kind());
        drop((inherited, theirs));
        (outcome, handed_over.get().copied())
    }

    #[test]
    fn one_that_declines_goes_on_and_one_that_dies_does_not() {
        let (stop, stopped) = (Stop::new(), Stop::new());
        stopped.set();
        let ours = (Ok(()), Some(true));
        let declined = (Err(ErrorKind::ConnectionAborted), Some(false));
        let late = (Err(ErrorKind::Interrupted), Some(false));
        for dies in [false, true] {
            assert_eq!(succeed(&[YOURS], dies, &stop), ours);
            assert_eq!(succeed(&[YOURS], dies, &stopped), ours);
            assert_eq!(succeed(&[DECLINED], dies, &stop), declined);
            assert_eq!(succeed(&[DECLINED], dies, &stopped), late);
        }
        assert_eq!(succeed(&[], true, &stop), ours);
        // Its clients wait in the queue, and nobody else serves them.
        assert_eq!(succeed(&[], true, &stopped), ours);
        assert_eq!(succeed(&[], false, &stopped), late);
    }
}
