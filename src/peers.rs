//! Each peer's share: how many connections one peer address may have.
//!
//! A peer that takes nothing of what it asked for and half-closes leaves
//! lingering connections behind, each with megabytes in the kernel. So a share
//! is not given back when the handler is done, but when the peer has what it
//! was sent. And not only then: a client that has read our FIN may come back
//! before its kernel has acknowledged it (delayed by up to 200 ms: RFC 1122,
//! 4.2.3.2), and is no hoarder. Nor is one that comes back while threads that
//! have nothing left to do but count its connections out wait for a processor.

use crate::event::State;
use crate::link::Link;
use crate::sync::Arc;
use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};

/// So many connections of one peer may be over and not counted out yet, besides.
/// More than a busy machine has, and few enough to ask the kernel about each
/// time, for a peer that opens everything makes us ask.
const OVER: usize = 32;

/// The connections of each peer, where there is a limit.
#[derive(Default)]
pub(crate) struct Peers {
    /// Connections that one peer may hold; of any kind that is not over it has
    /// at most twice as many.
    limit: Option<usize>,
    links: HashMap<IpAddr, Vec<Arc<Link>>>,
}

/// What a peer's next connection gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Share {
    /// It is served.
    Free,
    /// The peer holds its share: this one is closed politely.
    Held,
    /// Even so many are on their way out already that this one is closed
    /// without waiting for the peer.
    Exceeded,
}

impl Peers {
    pub(crate) fn new(limit: Option<usize>) -> Self {
        Self {
            limit,
            links: HashMap::new(),
        }
    }

    /// What the next connection of this peer gets. Asks the kernel about those
    /// that linger, at most twice the limit and `OVER`, and about `OVER` where
    /// there are more. Never blocks.
    pub(crate) fn share(&self, peer: SocketAddr) -> Share {
        let Some(limit) = self.limit else {
            return Share::Free;
        };
        let links = self.links.get(&host(peer)).map_or(&[][..], Vec::as_slice);
        let most = limit.saturating_mul(2);
        if links.len() < limit {
            Share::Free
        } else if links.len() >= most && links.len() - over(links) >= most {
            Share::Exceeded
        } else if links.iter().filter(|link| link.is_held()).count() < limit {
            Share::Free
        } else {
            Share::Held
        }
    }

    pub(crate) fn enter(&mut self, link: &Arc<Link>) {
        if self.limit.is_some() {
            let links = self.links.entry(host(link.peer)).or_default();
            links.push(Arc::clone(link));
        }
    }

    pub(crate) fn leave(&mut self, link: &Link) {
        let host = host(link.peer);
        if let Some(links) = self.links.get_mut(&host) {
            links.retain(|other| other.id != link.id);
            if links.is_empty() {
                self.links.remove(&host);
            }
        }
    }
}

/// How many of the `OVER` oldest that linger are over.
fn over(links: &[Arc<Link>]) -> usize {
    let lingering = links.iter().filter(|link| link.state() == State::Lingering);
    lingering.take(OVER).filter(|link| link.is_over()).count()
}

/// One host is one peer, whichever family it came by.
fn host(peer: SocketAddr) -> IpAddr {
    peer.ip().to_canonical()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stop::Stop;
    use crate::terms::Terms;
    use std::net::{Shutdown, TcpListener, TcpStream};
    use std::time::Duration;

    /// A connection that lingers, its client, and the client's address.
    fn lingering() -> (Arc<Link>, TcpStream, SocketAddr) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (socket, peer) = listener.accept().unwrap();
        let terms = Terms::new(&Stop::new(), Duration::from_secs(1));
        let link = Arc::new(Link::new(1, socket, peer, Arc::new(terms)));
        assert!(link.begin_linger());
        link.shut(Shutdown::Write).unwrap();
        (link, client, peer)
    }

    #[test]
    fn what_is_over_does_not_count_against_twice_the_limit() {
        let mut peers = Peers::new(Some(1));
        let (first, client, peer) = lingering();
        peers.enter(&first);
        let (second, _client, _) = lingering();
        peers.enter(&second);
        // The control: nothing is over before the client has closed, too.
        assert_eq!(peers.share(peer), Share::Exceeded);
        drop(client);
        while !first.is_over() {
            std::thread::yield_now();
        }
        assert_eq!(peers.share(peer), Share::Free);
        for _ in 0..=OVER {
            peers.enter(&first);
        }
        assert_eq!(peers.share(peer), Share::Exceeded);
    }
}
