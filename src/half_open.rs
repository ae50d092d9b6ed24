//! Clients in the middle of their handshake with a listener, as the kernel
//! knows them.

use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, netlink};
use std::collections::BTreeSet;
use std::fs::File;
use std::io::{self, BufRead, BufReader, ErrorKind};
use std::net::SocketAddr;
use std::os::fd::AsFd;

/// The state of a connection whose handshake is not over, and of a listener
/// (include/net/tcp_states.h).
const SYN_RECV: u8 = 3;
const LISTEN: u8 = 10;
/// Sockets that are looked at: more than a listener's queue holds. Others may
/// have the same port.
const MOST: usize = 16_384;

/// The clients of one listener that were in the middle of their handshake when
/// it was first asked about them, and still are.
///
/// Not those that came later: where new clients cannot be refused, or come to
/// another listener with the same address (`SO_REUSEPORT`), there would always
/// be some.
#[derive(Default)]
pub(crate) struct HalfOpen(Option<BTreeSet<Vec<u8>>>);

impl HalfOpen {
    /// How many there are. One whose handshake has ended is in the queue by
    /// the time it is not counted any more.
    ///
    /// Asking does not wait, but takes the kernel a moment: 0.4 ms by netlink
    /// and 6 ms by /proc for a table of 262,144 places.
    ///
    /// # Errors
    /// The kernel cannot be asked, or it does not know the listener in this
    /// thread's network namespace.
    pub(crate) fn count(&mut self, listener: impl AsFd, address: SocketAddr) -> io::Result<usize> {
        if self.0.as_ref().is_some_and(BTreeSet::is_empty) {
            return Ok(0);
        }
        let inode = rustix::fs::fstat(listener)?.st_ino;
        let all = ask(by_netlink, address, inode).or_else(|error| {
            ask(by_proc, address, inode).map_err(|other| {
                let message = format!("netlink: {error}; /proc: {other}");
                io::Error::new(other.kind(), message)
            })
        })?;
        let left = match self.0.take() {
            Some(before) => &before & &all,
            None => all,
        };
        Ok(self.0.insert(left).len())
    }
}

/// A listener, or a client in the middle of its handshake. Addresses are as
/// the kernel gives them, to be compared only.
struct Socket {
    state: u8,
    inode: u64,
    /// `None`: any address.
    local: Option<Vec<u8>>,
    /// Address and port.
    remote: Vec<u8>,
}

/// Asks for the listeners and half-open connections with this one's port.
type Way = fn(SocketAddr) -> io::Result<Vec<Socket>>;

/// Asks about the listener with this address and inode.
fn ask(way: Way, address: SocketAddr, inode: u64) -> io::Result<BTreeSet<Vec<u8>>> {
    let sockets = way(address)?;
    let is_it = |socket: &&Socket| socket.state == LISTEN && socket.inode == inode;
    let Some(listener) = sockets.iter().find(is_it) else {
        let message = "the listener is not in this network namespace";
        return Err(io::Error::new(ErrorKind::NotFound, message));
    };
    let local = listener.local.clone();
    let clients = sockets
        .into_iter()
        .filter(|socket| socket.state == SYN_RECV && (local.is_none() || socket.local == local));
    Ok(clients.map(|client| client.remote).collect())
}

/// Asks by sock_diag(7), which looks at its table in one go.
fn by_netlink(listener: SocketAddr) -> io::Result<Vec<Socket>> {
    let (family, kind) = (AddressFamily::NETLINK, SocketType::RAW);
    let protocol = Some(netlink::SOCK_DIAG);
    let socket = rustix::net::socket_with(family, kind, SocketFlags::CLOEXEC, protocol)?;
    let kernel = netlink::SocketAddrNetlink::new(0, 0);
    rustix::net::sendto(&socket, &question(listener), SendFlags::empty(), &kernel)?;
    let mut answer = vec![0; 32 * 1024];
    let mut sockets = Vec::new();
    while sockets.len() < MOST {
        // All of it is there, or is made when we ask for it: no wait.
        let (length, _) = rustix::net::recv(&socket, &mut answer, RecvFlags::DONTWAIT)?;
        if read_answer(&answer[..length], &mut sockets)? {
            break;
        }
    }
    Ok(sockets)
}

const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
const SOCK_DIAG_BY_FAMILY: u16 = 20;
const NLM_F_REQUEST_DUMP: u16 = 0x301;

/// For listeners and half-open connections on the listener's port: a struct
/// nlmsghdr and a struct inet_diag_req_v2.
fn question(listener: SocketAddr) -> Vec<u8> {
    const LENGTH: u32 = 72;
    let family = if listener.is_ipv4() {
        AddressFamily::INET
    } else {
        AddressFamily::INET6
    };
    let states: u32 = 1 << SYN_RECV | 1 << LISTEN;
    let mut question = Vec::new();
    question.extend(LENGTH.to_ne_bytes());
    question.extend(SOCK_DIAG_BY_FAMILY.to_ne_bytes());
    question.extend(NLM_F_REQUEST_DUMP.to_ne_bytes());
    question.extend([0; 8]); // number and sender
    let family = family.as_raw().to_le_bytes()[0];
    let tcp = 6;
    question.extend([family, tcp, 0, 0]);
    question.extend(states.to_ne_bytes());
    question.extend(listener.port().to_be_bytes());
    question.extend([0; 2 + 16 + 16 + 4]); // any other port, address, interface
    question.extend([0xff; 8]); // no cookie
    question
}

/// Takes the sockets out of one part of an answer. True if it is the last.
fn read_answer(mut answer: &[u8], sockets: &mut Vec<Socket>) -> io::Result<bool> {
    let cut_short = || io::Error::new(ErrorKind::InvalidData, "an answer cut short");
    while !answer.is_empty() {
        let length = number(answer, 0).ok_or_else(cut_short)? as usize;
        let kind = answer.get(4..6).ok_or_else(cut_short)?;
        let content = answer.get(16..length).ok_or_else(cut_short)?;
        match u16::from_ne_bytes([kind[0], kind[1]]) {
            NLMSG_DONE => return Ok(true),
            NLMSG_ERROR => {
                let code = number(content, 0).ok_or_else(cut_short)?;
                return Err(io::Error::from_raw_os_error(
                    code.cast_signed().wrapping_neg(),
                ));
            }
            _ => sockets.push(read_socket(content).ok_or_else(cut_short)?),
        }
        answer = answer.get(length.next_multiple_of(4)..).unwrap_or(&[]);
    }
    Ok(false)
}

/// Reads a struct inet_diag_msg.
fn read_socket(message: &[u8]) -> Option<Socket> {
    let port = message.get(6..8)?;
    Some(Socket {
        state: *message.get(1)?,
        inode: number(message, 68)?.into(),
        local: unless_any(message.get(8..24)?, 0),
        remote: [message.get(24..40)?, port].concat(),
    })
}

/// An address, unless it is nothing but zeros.
fn unless_any(address: &[u8], zero: u8) -> Option<Vec<u8>> {
    let any = address.iter().all(|byte| *byte == zero);
    (!any).then(|| address.to_vec())
}

fn number(bytes: &[u8], at: usize) -> Option<u32> {
    let bytes = bytes.get(at..at + 4)?.try_into().ok()?;
    Some(u32::from_ne_bytes(bytes))
}

/// Reads the table of all connections (proc_pid_net(5)), for where netlink is
/// not allowed.
fn by_proc(listener: SocketAddr) -> io::Result<Vec<Socket>> {
    let table = if listener.is_ipv4() { "tcp" } else { "tcp6" };
    let table = File::open(format!("/proc/thread-self/net/{table}"))?;
    let port = format!("{:04X}", listener.port());
    let mut sockets = Vec::new();
    for line in BufReader::with_capacity(1 << 16, table).lines() {
        sockets.extend(read_line(&line?, &port));
        if sockets.len() >= MOST {
            break;
        }
    }
    Ok(sockets)
}

/// A line of the table, where it is a listener or half-open and has this port.
fn read_line(line: &str, port: &str) -> Option<Socket> {
    let mut fields = line.split_ascii_whitespace().skip(1);
    let (local, local_port) = fields.next()?.split_once(':')?;
    let remote = fields.next()?;
    let state = u8::from_str_radix(fields.next()?, 16).ok()?;
    let wanted = local_port == port && (state == LISTEN || state == SYN_RECV);
    let inode = wanted.then(|| fields.nth(5)?.parse().ok()).flatten()?;
    Some(Socket {
        state,
        inode,
        local: unless_any(local.as_bytes(), b'0'),
        remote: remote.into(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::tests::{defer, deferring};
    use std::io::Write;
    use std::net::{Ipv4Addr, Ipv6Addr, TcpListener, TcpStream};

    const WAYS: [Way; 2] = [by_netlink, by_proc];

    /// What each way says, which must be the same.
    fn count(listener: &TcpListener) -> usize {
        let address = listener.local_addr().unwrap();
        let inode = rustix::fs::fstat(listener).unwrap().st_ino;
        let [netlink, proc] = WAYS.map(|way| ask(way, address, inode).unwrap().len());
        assert_eq!(netlink, proc);
        netlink
    }

    fn client(listener: &TcpListener, ip: impl Into<std::net::IpAddr>) -> TcpStream {
        let port = listener.local_addr().unwrap().port();
        TcpStream::connect((ip.into(), port)).unwrap()
    }

    #[test]
    fn clients_are_counted_until_their_handshake_is_over() {
        let listener = deferring("127.0.0.1:0");
        assert_eq!(count(&listener), 0);
        let mut clients = [(); 3].map(|()| client(&listener, Ipv4Addr::LOCALHOST));
        assert_eq!(count(&listener), 3);
        clients[0].write_all(b"the end of the handshake").unwrap();
        listener.accept().unwrap();
        assert_eq!(count(&listener), 2);
    }

    #[test]
    fn clients_of_both_families_are_counted() {
        let Ok(_) = TcpListener::bind("[::1]:0") else {
            return; // no IPv6 on this machine
        };
        let listener = deferring("[::1]:0");
        let _client = client(&listener, Ipv6Addr::LOCALHOST);
        assert_eq!(count(&listener), 1);
        let both = deferring("[::]:0");
        let _clients = (
            client(&both, Ipv6Addr::LOCALHOST),
            client(&both, Ipv4Addr::LOCALHOST),
        );
        assert_eq!(count(&both), 2);
    }

    /// The same port on another address is somebody else's.
    #[test]
    fn clients_of_another_listener_are_not_counted() {
        let on_both = || {
            let listener = deferring("127.0.0.1:0");
            let port = listener.local_addr().unwrap().port();
            // Another program may have the port on that address.
            let other = TcpListener::bind((Ipv4Addr::new(127, 0, 0, 2), port));
            Some((listener, defer(other.ok()?)))
        };
        let (listener, other) = (0..100).find_map(|_| on_both()).unwrap();
        let _client = client(&other, Ipv4Addr::new(127, 0, 0, 2));
        assert_eq!((count(&listener), count(&other)), (0, 1));
    }

    #[test]
    fn a_listener_that_the_kernel_does_not_show_is_an_error() {
        let listener = deferring("127.0.0.1:0");
        let address = listener.local_addr().unwrap();
        for way in WAYS {
            let unknown = ask(way, address, u64::MAX).unwrap_err();
            assert_eq!(unknown.kind(), ErrorKind::NotFound);
        }
    }

    #[test]
    fn later_clients_are_not_counted() {
        let listener = deferring("127.0.0.1:0");
        let address = listener.local_addr().unwrap();
        let mut half_open = HalfOpen::default();
        let mut first = client(&listener, Ipv4Addr::LOCALHOST);
        assert_eq!(half_open.count(&listener, address).unwrap(), 1);
        let _later = client(&listener, Ipv4Addr::LOCALHOST);
        assert_eq!(half_open.count(&listener, address).unwrap(), 1);
        first.write_all(b"the end of the handshake").unwrap();
        listener.accept().unwrap();
        assert_eq!(half_open.count(&listener, address).unwrap(), 0);
        assert_eq!(count(&listener), 1);
    }

    #[test]
    fn an_answer_that_is_cut_short_is_an_error() {
        let whole = question("127.0.0.1:7".parse().unwrap());
        for length in 1..whole.len() {
            assert!(read_answer(&whole[..length], &mut Vec::new()).is_err());
        }
        let mut failed = whole;
        failed[4..6].copy_from_slice(&NLMSG_ERROR.to_ne_bytes());
        failed[16..20].copy_from_slice(&(-13_i32).to_ne_bytes());
        let error = read_answer(&failed, &mut Vec::new()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::PermissionDenied);
    }
}
