//! Each peer's share: how many connections one peer address may have.
//!
//! A peer that takes nothing of what it asked for and half-closes leaves
//! lingering connections behind, each with megabytes in the kernel. So a share
//! is not given back when the handler is done, but when the peer has what it
//! was sent. And not only then: a client that has read our FIN may come back
//! before its kernel has acknowledged it (delayed by up to 200 ms: RFC 1122,
//! 4.2.3.2), and is no hoarder. Nor is one that comes back while threads that
//! have nothing left to do but count its connections out wait for a processor.

use crate::link::Link;
use crate::sync::Arc;
use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};

/// Connections of one peer that are over and not counted out yet, besides. More
/// than a busy machine has, and few enough to ask the kernel about them all.
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
    /// that linger: at most twice the limit and `OVER`, and never blocks.
    pub(crate) fn share(&self, peer: SocketAddr) -> Share {
        let Some(limit) = self.limit else {
            return Share::Free;
        };
        let links = self.links.get(&host(peer)).map_or(&[][..], Vec::as_slice);
        let most = limit.saturating_mul(2);
        let exceeds = || links.iter().filter(|link| !link.is_over()).count() >= most;
        if links.len() < limit {
            Share::Free
        } else if links.len() >= most.saturating_add(OVER) || (links.len() >= most && exceeds()) {
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

/// One host is one peer, whichever family it came by.
fn host(peer: SocketAddr) -> IpAddr {
    peer.ip().to_canonical()
}
