//! Why src/listener.rs is as it is: what a listening socket does at its end,
//! with a timeout, and without descriptors.

use crate::harness::{self, WATCHDOG, connect, eventually, noise, read_to_end};
use crate::promises::gets;
use lastecho::{Echo, Stop};
use rustix::process::{Resource, Rlimit, prlimit};
use socket2::SockRef;
use std::fs;
use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::num::NonZeroU32;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::thread;
use std::time::{Duration, Instant};

/// An index that no interface has.
const NO_INTERFACE: NonZeroU32 = NonZeroU32::new(0x7fff_ffff).unwrap();

fn listener() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    (listener, address)
}

#[test]
fn closing_a_listener_resets_who_waits_in_its_queue() {
    let (listener, address) = listener();
    let clients: Vec<_> = (0..20).map(|_| connect(address).unwrap()).collect();
    drop(listener);
    for mut client in clients {
        let end = client.read(&mut [0; 1]);
        assert_eq!(end.unwrap_err().kind(), ErrorKind::ConnectionReset);
    }
}

#[test]
fn a_listener_on_no_interface_refuses_new_clients_and_keeps_its_queue() {
    let (listener, address) = listener();
    let mut clients: Vec<_> = (0..20).map(|_| connect(address).unwrap()).collect();
    SockRef::from(&listener)
        .bind_device_by_index_v4(Some(NO_INTERFACE))
        .unwrap();
    for _ in 0..5 {
        let late = connect(address).unwrap_err();
        assert_eq!(late.kind(), ErrorKind::ConnectionRefused);
    }
    for client in &mut clients {
        client.write_all(b"still welcome").unwrap();
        let (mut accepted, _) = listener.accept().unwrap();
        let mut heard = [0; 13];
        accepted.read_exact(&mut heard).unwrap();
        accepted.write_all(&heard).unwrap();
        accepted.shutdown(Shutdown::Write).unwrap();
        gets(client, b"still welcome").unwrap_or_else(|broken| panic!("{broken}"));
    }
    drop(listener); // the queue is empty: nobody is left to be reset
}

/// The same for a socket of both families, where clients of both come.
#[test]
fn a_dual_stack_listener_on_no_interface_refuses_both_families() {
    let Ok(listener) = TcpListener::bind("[::]:0") else {
        return; // no IPv6 on this machine
    };
    let port = listener.local_addr().unwrap().port();
    let addresses: [SocketAddr; 2] = [
        ([127, 0, 0, 1], port).into(),
        (std::net::Ipv6Addr::LOCALHOST, port).into(),
    ];
    let queued = addresses.map(|address| connect(address).unwrap());
    SockRef::from(&listener)
        .bind_device_by_index_v4(Some(NO_INTERFACE))
        .unwrap();
    for address in addresses {
        let late = connect(address).unwrap_err();
        assert_eq!(late.kind(), ErrorKind::ConnectionRefused, "{address}");
    }
    for _ in &queued {
        listener.accept().unwrap();
    }
}

#[test]
fn a_receive_timeout_makes_accept_time_out() {
    let (listener, _) = listener();
    let timeout = Duration::from_millis(30);
    SockRef::from(&listener)
        .set_read_timeout(Some(timeout))
        .unwrap();
    let before = Instant::now();
    let nobody = listener.accept().unwrap_err();
    assert_eq!(nobody.kind(), ErrorKind::WouldBlock);
    assert!(before.elapsed() >= timeout, "{:?}", before.elapsed());
}

/// So a connection's own options are set explicitly.
#[test]
fn an_accepted_socket_inherits_its_listeners_options_but_not_o_nonblock() {
    let (listener, address) = listener();
    let options = SockRef::from(&listener);
    options.set_read_timeout(Some(WATCHDOG)).unwrap();
    options.set_write_timeout(Some(WATCHDOG)).unwrap();
    options.set_tcp_nodelay(true).unwrap();
    options.set_keepalive(true).unwrap();
    let _client = connect(address).unwrap();
    let accepted = SockRef::from(&listener).accept().unwrap().0;
    assert_eq!(accepted.read_timeout().unwrap(), Some(WATCHDOG));
    assert_eq!(accepted.write_timeout().unwrap(), Some(WATCHDOG));
    assert!(accepted.tcp_nodelay().unwrap() && accepted.keepalive().unwrap());

    let _client = connect(address).unwrap();
    listener.set_nonblocking(true).unwrap();
    let accepted = listener.accept().unwrap().0;
    assert!(!SockRef::from(&accepted).nonblocking().unwrap());
}

/// Connects and is echoed until refused. Counts the connections that were
/// made and not served: the violations.
fn storm(address: SocketAddr, violations: &AtomicU64) {
    let data = noise(100, 1);
    loop {
        let began = Instant::now();
        let served = match connect(address) {
            Ok(client) => is_served(client, began, &data),
            Err(error) if error.kind() == ErrorKind::ConnectionRefused => return,
            Err(_) => false,
        };
        violations.fetch_add(u64::from(!served), SeqCst);
    }
}

/// Whether the client was echoed, or had FIN because the machine let it speak
/// only after half of the 100 ms for which the server listens to a new client.
fn is_served(mut client: TcpStream, began: Instant, data: &[u8]) -> bool {
    let sent = client.write_all(data).is_ok() && client.shutdown(Shutdown::Write).is_ok();
    let late = began.elapsed() > Duration::from_millis(50);
    let fits = |echo: Vec<u8>| echo == data || (late && echo.is_empty());
    sent && read_to_end(&mut client).is_ok_and(fits)
}

/// Runs `serve` under a storm and asks it to stop in the middle. Returns the
/// violations of so many stops.
fn violations(stops: u64, serve: impl Fn(TcpListener, &Stop) + Sync) -> u64 {
    let violations = AtomicU64::new(0);
    for number in 0..stops {
        let (listener, address) = listener();
        let stop = Stop::new();
        thread::scope(|scope| {
            let server = scope.spawn(|| serve(listener, &stop));
            for _ in 0..8 {
                scope.spawn(|| storm(address, &violations));
            }
            thread::sleep(Duration::from_millis(20 + number)); // the storm
            stop.set();
            server.join().unwrap();
        });
    }
    violations.into_inner()
}

#[test]
fn the_end_of_accepting_breaks_no_promise_where_a_plain_close_does() {
    let stops = 15;
    let ours = violations(stops, |listener, stop| {
        let server = lastecho::Server::from(listener).poll(Duration::from_millis(50));
        let echo = Echo::default();
        let report = server.run(stop, |conn| echo.serve(conn)).unwrap();
        assert!(report.is_clean(), "{report:?}");
    });
    let naive = violations(stops, accept_until_stopped);
    println!("violations in {stops} stops: {ours}, with a plain close {naive}");
    assert_eq!(ours, 0);
    assert!(naive > 0, "the storm is too weak to show anything");
}

/// The naive variant: looks at the flag between accepts, then closes. Each
/// connection that it accepted is served well.
fn accept_until_stopped(listener: TcpListener, stop: &Stop) {
    let poll = Some(Duration::from_millis(50));
    SockRef::from(&listener).set_read_timeout(poll).unwrap();
    thread::scope(|scope| {
        while !stop.is_set() {
            if let Ok((mut socket, _)) = listener.accept() {
                socket.set_read_timeout(Some(WATCHDOG)).unwrap();
                scope.spawn(move || {
                    let mut heard = Vec::new();
                    let _ = socket.read_to_end(&mut heard);
                    let _ = socket.write_all(&heard);
                });
            }
        }
        drop(listener);
    });
}

/// Processor time of a process so far, in clock ticks of 10 ms (proc(5)).
fn ticks(server: &harness::Server) -> u64 {
    let path = format!("/proc/{}/stat", server.pid().as_raw_nonzero());
    let stat = fs::read_to_string(path).unwrap();
    let (_, fields) = stat.rsplit_once(')').unwrap();
    let mut times = fields.split_whitespace().skip(11);
    let mut next = || times.next().unwrap().parse::<u64>().unwrap();
    next() + next()
}

/// Accept returns at once without a descriptor, also from an empty queue.
#[test]
fn a_lack_of_descriptors_does_not_spin_and_fills_no_log() {
    let server = harness::Server::start(harness::Program::Lastecho, &["--poll", "200ms"]);
    let directory = format!("/proc/{}/fd", server.pid().as_raw_nonzero());
    let open = fs::read_dir(directory).unwrap().count() as u64;
    let previous = limit(&server, open);
    let mut clients: Vec<_> = (0..10).map(|_| server.connect()).collect();
    server.await_log("Too many open files");
    let (before, begun) = (ticks(&server), Instant::now());
    thread::sleep(Duration::from_secs(1)); // the episode; its cost is the subject
    let cost = Duration::from_millis(10 * (ticks(&server) - before));
    let all = begun.elapsed();
    limit(&server, previous);
    for client in &mut clients {
        client.write_all(b"now").unwrap();
        client.shutdown(Shutdown::Write).unwrap();
        gets(client, b"now").unwrap_or_else(|broken| panic!("{broken}"));
    }
    // An episode is over at the first client that comes a second later.
    eventually("the end of the episode", || {
        let mut client = server.connect();
        client.shutdown(Shutdown::Write).unwrap();
        let _ = read_to_end(&mut client);
        server.stderr().contains("works again")
    });
    let log = server.stderr();
    println!("without descriptors: {cost:?} of {all:?}\n{log}");
    assert!(cost < all / 5, "{cost:?} of {all:?}");
    assert_eq!(log.matches("accepting on").count(), 2, "{log}");
    assert_eq!(server.stop().code(), Some(0));
}

/// Sets the soft limit of descriptors; returns the one before.
fn limit(server: &harness::Server, descriptors: u64) -> u64 {
    let hard = rustix::process::getrlimit(Resource::Nofile).maximum;
    let new = Rlimit {
        current: Some(descriptors),
        maximum: hard,
    };
    let old = prlimit(Some(server.pid()), Resource::Nofile, new).unwrap();
    old.current.unwrap()
}
