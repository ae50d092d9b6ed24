//! Each peer's share: how many connections one peer address may have.
//!
//! A peer that takes nothing of what it asked for and half-closes leaves
//! lingering connections behind, each with megabytes in the kernel. So a share
//! is not given back when the handler is done, but when the peer has what it
//! was sent. And not only then: a client that has read our FIN may come back
//! before its kernel has acknowledged it (delayed by up to 200 ms: RFC 1122,
//! 4.2.3.2), and is no hoarder. Nor is one that comes back while threads that
//! have nothing left to do but end its connections wait for a processor.
//!
//! A peer that opens everything makes us look here each time, under the lock of
//! the table. So the kernel is asked about a few of its connections, and what
//! holds of these is taken to hold of the others.

use crate::event::State;
use crate::link::Link;
use crate::sync::Arc;
use crate::sys;
use std::collections::{BTreeMap, HashMap};
use std::net::{IpAddr, SocketAddr};

/// So many connections of a kind the kernel is asked about, the oldest ones:
/// more than a busy machine has in a state that it leaves at once.
const ASKED: usize = 32;

/// The connections of each peer, where there is a limit.
#[derive(Default)]
pub(crate) struct Peers {
    /// Connections that one peer may hold; of any kind that is not over it has
    /// at most twice as many.
    limit: Option<usize>,
    hosts: HashMap<IpAddr, Host>,
}

/// One peer's connections, by number: the first is the oldest.
#[derive(Default)]
struct Host {
    served: BTreeMap<u64, Arc<Link>>,
    /// Those whose handler is done, or that never had one.
    lingering: BTreeMap<u64, Arc<Link>>,
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
            hosts: HashMap::new(),
        }
    }

    /// What the next connection of this peer gets. Asks the kernel about three
    /// times `ASKED` of its connections at most. Never blocks.
    pub(crate) fn share(&self, peer: SocketAddr) -> Share {
        match (self.limit, self.hosts.get(&host(peer))) {
            (Some(limit), Some(host)) => host.share(limit),
            _ => Share::Free,
        }
    }

    /// A connection has got a share, or is closed politely without one.
    pub(crate) fn enter(&mut self, link: &Arc<Link>, share: Share) {
        if self.limit.is_some() {
            let host = self.hosts.entry(host(link.peer)).or_default();
            let links = match share {
                Share::Free => &mut host.served,
                Share::Held | Share::Exceeded => &mut host.lingering,
            };
            links.insert(link.id, Arc::clone(link));
        }
    }

    /// Its handler is done.
    pub(crate) fn release(&mut self, link: &Link) {
        if let Some(host) = self.hosts.get_mut(&host(link.peer)) {
            let link = host.served.remove_entry(&link.id);
            host.lingering.extend(link);
        }
    }

    pub(crate) fn leave(&mut self, link: &Link) {
        let address = host(link.peer);
        if let Some(host) = self.hosts.get_mut(&address) {
            host.served.remove(&link.id);
            host.lingering.remove(&link.id);
            if host.served.is_empty() && host.lingering.is_empty() {
                self.hosts.remove(&address);
            }
        }
    }
}

impl Host {
    fn share(&self, limit: usize) -> Share {
        let all = self.served.len() + self.lingering.len();
        let most = limit.saturating_mul(2);
        if all < limit {
            Share::Free
        } else if all >= most && all - asked(&self.lingering, is_over) >= most {
            Share::Exceeded
        } else if self.held() < limit {
            Share::Free
        } else {
            Share::Held
        }
    }

    fn held(&self) -> usize {
        let served = self.served.len() - asked(&self.served, is_left);
        let lingering = match asked(&self.lingering, Link::is_held) {
            ASKED => self.lingering.len(),
            held => held,
        };
        served + lingering
    }
}

/// Of how many of the oldest it is true.
fn asked(links: &BTreeMap<u64, Arc<Link>>, question: impl Fn(&Link) -> bool) -> usize {
    let oldest = links.values().take(ASKED);
    oldest.filter(|link| question(link)).count()
}

/// Whether the peer has closed it and neither side owes a byte: the handler is
/// about to notice. Never blocks.
fn is_left(link: &Link) -> bool {
    let socket = link.socket();
    link.state() == State::Waiting
        && sys::is_hung_up_by_peer(socket)
        && sys::pending(socket).is_ok_and(|bytes| bytes == 0)
        && sys::unacknowledged(socket) == 0
}

/// Whether both sides have ended it and the peer has everything: its thread is
/// about to count it out. Never blocks.
fn is_over(link: &Link) -> bool {
    sys::is_hung_up(link.socket()) && sys::unacknowledged(link.socket()) == 0
}

/// One host is one peer, whichever family it came by.
fn host(peer: SocketAddr) -> IpAddr {
    peer.ip().to_canonical()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::link::tests::pair;
    use std::io::{Read, Write};
    use std::net::Shutdown;

    fn linger(peers: &mut Peers, link: &Link) {
        assert!(link.begin_linger());
        link.shut(Shutdown::Write).unwrap();
        peers.release(link);
    }

    #[test]
    fn what_is_over_does_not_count_against_twice_the_limit() {
        let mut peers = Peers::new(Some(1));
        let ((first, client), (second, _client)) = (pair(1), pair(2));
        for link in [&first, &second] {
            peers.enter(link, Share::Free);
            linger(&mut peers, link);
        }
        // The control: nothing is over before the client has closed, too.
        assert_eq!(peers.share(first.peer), Share::Exceeded);
        drop(client);
        while !is_over(&first) {
            std::thread::yield_now();
        }
        assert_eq!(peers.share(first.peer), Share::Free);
    }

    #[test]
    fn the_kernel_is_asked_about_a_few_only() {
        let mut peers = Peers::new(Some(1));
        let all: Vec<_> = (0..ASKED as u64 + 2).map(pair).collect();
        let peer = all[0].0.peer;
        for (link, _) in &all {
            peers.enter(link, Share::Free);
            linger(&mut peers, link);
        }
        for (link, client) in &all {
            client.shutdown(Shutdown::Both).unwrap();
            while !is_over(link) {
                std::thread::yield_now();
            }
        }
        assert_eq!(peers.share(peer), Share::Exceeded);
        // The control: one less, and all that is not over has room.
        peers.leave(&all[0].0);
        assert_eq!(peers.share(peer), Share::Free);
    }

    #[test]
    fn a_connection_that_its_client_has_left_is_no_share() {
        let mut peers = Peers::new(Some(1));
        let (link, mut client) = pair(1);
        peers.enter(&link, Share::Free);
        // The control: it is held while it is open, and while a byte is unread.
        assert_eq!(peers.share(link.peer), Share::Held);
        client.write_all(b"x").unwrap();
        client.shutdown(Shutdown::Write).unwrap();
        while !sys::is_hung_up_by_peer(link.socket()) {
            std::thread::yield_now();
        }
        assert_eq!(peers.share(link.peer), Share::Held);
        assert_eq!(sys::recv(link.socket(), &mut [0]).unwrap(), 1);
        assert_eq!(peers.share(link.peer), Share::Free);
        link.begin_request(1);
        assert_eq!(peers.share(link.peer), Share::Held);
    }

    #[test]
    fn a_connection_that_its_client_has_left_is_a_share_while_it_is_owed_bytes() {
        let mut peers = Peers::new(Some(1));
        let (link, mut client) = pair(1);
        peers.enter(&link, Share::Free);
        client.shutdown(Shutdown::Write).unwrap();
        while !sys::is_hung_up_by_peer(link.socket()) {
            std::thread::yield_now();
        }
        let mut socket = link.socket();
        socket.set_nonblocking(true).unwrap();
        while socket.write(&[7; 65_536]).is_ok() {}
        assert_eq!(peers.share(link.peer), Share::Held);
        socket.shutdown(Shutdown::Write).unwrap();
        client.read_to_end(&mut Vec::new()).unwrap();
        while sys::unacknowledged(socket) > 0 {
            std::thread::yield_now();
        }
        assert_eq!(peers.share(link.peer), Share::Free);
    }

    #[test]
    fn what_holds_of_those_asked_about_holds_of_the_others() {
        let all: Vec<_> = (0..ASKED as u64 + 2).map(pair).collect();
        let mut peers = Peers::new(Some(all.len()));
        for (link, _) in &all {
            peers.enter(link, Share::Held);
        }
        assert_eq!(peers.share(all[0].0.peer), Share::Held);
        // The control: one that is asked about lets go, and so do the others.
        linger(&mut peers, &all[0].0);
        assert_eq!(peers.share(all[0].0.peer), Share::Free);
    }

    #[test]
    fn a_host_is_forgotten_with_its_last_connection() {
        let mut peers = Peers::new(Some(1));
        let (link, _client) = pair(1);
        peers.enter(&link, Share::Free);
        linger(&mut peers, &link);
        assert_eq!(peers.hosts.len(), 1);
        peers.leave(&link);
        assert!(peers.hosts.is_empty());
    }
}
