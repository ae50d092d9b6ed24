//! Listening on several addresses: on each once, and on one port where the
//! system chooses it.

use crate::listener::Listener;
use std::io::{self, ErrorKind};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// How many ports are tried, until one is free on all addresses.
const ATTEMPTS: usize = 16;

/// Listens on all of these, with what `take` has for one instead where it has
/// something. An address that is named twice, or that a wildcard address of its
/// family covers, is listened on once.
///
/// # Errors
/// What socket(2), bind(2) and listen(2) say, with the address.
pub(crate) fn listen(
    asked: impl IntoIterator<Item = SocketAddr>,
    mut take: impl FnMut(SocketAddr) -> Option<Listener>,
) -> io::Result<Vec<Listener>> {
    let slots = distinct(asked).into_iter();
    let mut slots: Vec<_> = slots.map(|address| (address, take(address))).collect();
    let taken = slots.iter().filter_map(|(_, taken)| taken.as_ref());
    let both = taken.filter(|listener| listener.takes_both());
    let both: Vec<_> = both.map(|listener| listener.address().port()).collect();
    slots.retain(|(address, taken)| {
        taken.is_some() || address.is_ipv6() || !both.contains(&address.port())
    });
    let chosen = slots.iter().find_map(|(address, taken)| {
        let taken = taken.as_ref().filter(|_| address.port() == 0)?;
        Some(taken.address().port())
    });
    let all: Vec<_> = slots.iter().map(|(address, _)| *address).collect();
    let missing = slots.iter().filter(|(_, taken)| taken.is_none());
    let missing: Vec<_> = missing.map(|(address, _)| *address).collect();
    let mut new = bind(&missing, &all, chosen)?.into_iter();
    let listeners = slots
        .into_iter()
        .filter_map(|(_, taken)| taken.or_else(|| new.next()));
    Ok(listeners.collect())
}

/// Binds one socket to the port on all addresses of both families, or of IPv4
/// alone where the machine has no IPv6, or none that is switched on.
pub(crate) fn listen_everywhere(port: u16) -> io::Result<Listener> {
    let v6 = SocketAddr::from((Ipv6Addr::UNSPECIFIED, port));
    match Listener::bind_at(v6, port, Some(false)) {
        Err(error) if lacks_ipv6(&error) => {
            log::debug!("no IPv6 here ({error}), listening on IPv4 only");
        }
        outcome => return outcome,
    }
    let v4 = Listener::bind((Ipv4Addr::UNSPECIFIED, port).into())?;
    Ok(v4.serving(v6))
}

fn lacks_ipv6(error: &io::Error) -> bool {
    use rustix::io::Errno;
    let errno = Errno::from_io_error(error);
    matches!(errno, Some(Errno::AFNOSUPPORT | Errno::ADDRNOTAVAIL))
}

/// Each once, and none that another one covers.
fn distinct(asked: impl IntoIterator<Item = SocketAddr>) -> Vec<SocketAddr> {
    let mut addresses: Vec<SocketAddr> = Vec::new();
    for address in asked {
        if !addresses.contains(&address) {
            addresses.push(address);
        }
    }
    let wildcards: Vec<_> = addresses
        .iter()
        .copied()
        .filter(|address| address.ip().is_unspecified())
        .collect();
    let covers = |all: &SocketAddr, one: &SocketAddr| {
        all != one && all.port() == one.port() && all.is_ipv4() == one.is_ipv4()
    };
    addresses.retain(|one| !wildcards.iter().any(|all| covers(all, one)));
    addresses
}

/// Binds these of all addresses; those with port 0 to the chosen port, or to one
/// that is free on all of them, or each to another one.
fn bind(
    these: &[SocketAddr],
    all: &[SocketAddr],
    chosen: Option<u16>,
) -> io::Result<Vec<Listener>> {
    let at = |address: SocketAddr, port: u16| {
        let listener = Listener::bind_at(address, port, only_v6(address, all));
        listener.map_err(|error| io::Error::new(error.kind(), format!("{address}: {error}")))
    };
    for _ in 0..ATTEMPTS {
        let mut port = chosen.unwrap_or(0);
        let mut in_use = false;
        let bound = these.iter().map(|&address| {
            if address.port() > 0 {
                return at(address, address.port());
            }
            let bound = at(address, port);
            match &bound {
                Ok(listener) => port = listener.address().port(),
                Err(error) => in_use = error.kind() == ErrorKind::AddrInUse,
            }
            bound
        });
        let bound = bound.collect();
        if !in_use {
            return bound;
        }
    }
    these.iter().map(|&it| at(it, it.port())).collect()
}

/// The IPv6 wildcard takes IPv4's clients, too, unless IPv4 addresses are named
/// beside it: these would be in its way, and say what is wanted of IPv4.
fn only_v6(address: SocketAddr, all: &[SocketAddr]) -> Option<bool> {
    let names_ipv4 = |other: &SocketAddr| other.is_ipv4() && other.port() == address.port();
    let is_wildcard = address.ip() == IpAddr::V6(Ipv6Addr::UNSPECIFIED);
    (is_wildcard && all.iter().any(names_ipv4)).then_some(true)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::{TcpListener, TcpStream};

    fn addresses(text: &str) -> Vec<SocketAddr> {
        text.split(' ').map(|one| one.parse().unwrap()).collect()
    }

    fn has_ipv6() -> bool {
        TcpListener::bind("[::1]:0").is_ok()
    }

    /// What is listened on, with one port in place of P.
    fn bound(text: &str) -> Vec<SocketAddr> {
        // It may be somebody else's by the time it is bound.
        for _ in 0..ATTEMPTS {
            let free = TcpListener::bind("0.0.0.0:0").unwrap();
            let port = free.local_addr().unwrap().port().to_string();
            drop(free);
            if let Ok(listeners) = listen(addresses(&text.replace('P', &port)), |_| None) {
                return listeners.iter().map(Listener::address).collect();
            }
        }
        panic!("{text} cannot be had");
    }

    #[test]
    fn an_address_that_is_named_twice_is_bound_once() {
        assert_eq!(bound("127.0.0.1:P 127.0.0.1:P").len(), 1);
        assert_eq!(bound("127.0.0.1:0 127.0.0.1:0").len(), 1);
        assert_eq!(bound("127.0.0.1:P 127.0.0.2:P 127.0.0.1:P").len(), 2);
        // As the system sees it without us.
        let first = TcpListener::bind("127.0.0.1:0").unwrap();
        let twice = TcpListener::bind(first.local_addr().unwrap()).unwrap_err();
        assert_eq!(twice.kind(), ErrorKind::AddrInUse);
    }

    #[test]
    fn both_wildcards_are_served_whatever_their_order() {
        if !has_ipv6() {
            return;
        }
        for text in ["0.0.0.0:P [::]:P", "[::]:P 0.0.0.0:P", "[::]:0 0.0.0.0:0"] {
            let bound = bound(text);
            assert_eq!(bound.len(), 2, "{text}");
            assert_eq!(bound[0].port(), bound[1].port(), "{text}");
            assert_ne!(bound[0].is_ipv4(), bound[1].is_ipv4(), "{text}");
        }
        // Narrower ones are as narrow as they say.
        let listeners = listen(addresses("[::]:0 127.0.0.1:0"), |_| None).unwrap();
        let port = listeners[0].address().port();
        assert!(TcpStream::connect(("127.0.0.1", port)).is_ok());
        assert!(TcpStream::connect(("127.0.0.2", port)).is_err());
    }

    #[test]
    fn the_ipv6_wildcard_alone_takes_both_families_as_ever() {
        if !has_ipv6() {
            return;
        }
        let listeners = listen(addresses("[::]:0"), |_| None).unwrap();
        let naive = TcpListener::bind("[::]:0").unwrap();
        let naive = Listener::from(naive);
        assert_eq!(listeners[0].takes_both(), naive.takes_both());
    }

    #[test]
    fn a_wildcard_covers_the_addresses_of_its_family() {
        let only = bound("127.0.0.1:P 0.0.0.0:P 127.0.0.2:P");
        assert_eq!(only.len(), 1);
        assert!(only[0].ip().is_unspecified());
    }

    #[test]
    fn port_0_is_one_port_on_all_addresses() {
        let text = "127.0.0.1:0 127.0.0.2:0 127.0.0.3:0";
        for _ in 0..20 {
            let listeners = listen(addresses(text), |_| None).unwrap();
            let ports = listeners.iter().map(|one| one.address().port());
            assert_eq!(ports.collect::<std::collections::BTreeSet<_>>().len(), 1);
        }
    }

    #[test]
    fn what_was_passed_is_taken_and_its_port_is_the_others() {
        let mut passed = Some(Listener::bind("127.0.0.1:0".parse().unwrap()).unwrap());
        let port = passed.as_ref().unwrap().address().port();
        let listeners = listen(addresses("127.0.0.2:0 127.0.0.1:0"), |asked| {
            passed.take_if(|_| asked.ip().to_string() == "127.0.0.1")
        });
        let ports = listeners.unwrap();
        let ports = ports.iter().map(|one| one.address().to_string());
        let expected = [format!("127.0.0.2:{port}"), format!("127.0.0.1:{port}")];
        assert_eq!(ports.collect::<Vec<_>>(), expected);
    }

    #[test]
    fn a_passed_socket_of_both_families_serves_ipv4_too() {
        let Ok(both) = TcpListener::bind("[::]:0") else {
            return;
        };
        let mut passed = Some(Listener::from(both));
        let port = passed.as_ref().unwrap().address().port();
        if passed.as_ref().is_some_and(Listener::takes_both) {
            let text = format!("0.0.0.0:{port} [::]:{port}");
            let take = |asked: SocketAddr| passed.take_if(|_| asked.is_ipv6());
            assert_eq!(listen(addresses(&text), take).unwrap().len(), 1);
        }
    }

    #[test]
    fn an_error_names_its_address() {
        let taken = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = taken.local_addr().unwrap();
        let error = listen([address], |_| None).err().unwrap();
        assert_eq!(error.kind(), ErrorKind::AddrInUse);
        assert!(error.to_string().starts_with(&format!("{address}: ")));
    }
}
