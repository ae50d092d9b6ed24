//! Limits: of connections, of one peer's, of silence.

use super::{Running, ask, echo_lines, local, read_line, serve};
use crate::harness::{connect, eventually, noise, read_to_end};
use lastecho::{Connection, Ending, State, Stop};
use socket2::{Domain, Socket, Type};
use std::io::{self, ErrorKind, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::thread;
use std::time::Duration;

/// How many are in a handler at once, and how many ever were.
#[derive(Default)]
struct Crowd {
    now: AtomicUsize,
    most: AtomicUsize,
}

impl Crowd {
    fn echo_lines(&self, conn: &mut Connection) -> io::Result<()> {
        let now = self.now.fetch_add(1, SeqCst) + 1;
        self.most.fetch_max(now, SeqCst);
        let outcome = echo_lines(conn);
        self.now.fetch_sub(1, SeqCst);
        outcome
    }
}

/// Two clients on each of three listeners; how many were served at once.
fn crowd(limit: usize) -> usize {
    let crowd = Crowd::default();
    let server = local().and(local()).and(local()).max_connections(limit);
    let (report, ()) = serve(
        server,
        |conn| crowd.echo_lines(conn),
        |running| {
            let addresses = [running.live.addresses(), running.live.addresses()].concat();
            let mut clients: Vec<_> = addresses.iter().map(|a| connect(*a).unwrap()).collect();
            for client in &mut clients {
                client.write_all(b"hello\n").unwrap();
            }
            eventually("a full house", || crowd.now.load(SeqCst) >= limit.min(6));
            // One by one they are answered and make room for the others.
            while !clients.is_empty() {
                let answered = |client: &mut TcpStream| client.peek(&mut [0]).is_ok();
                clients
                    .iter()
                    .for_each(|c| c.set_nonblocking(true).unwrap());
                eventually("an answer", || clients.iter_mut().any(answered));
                let index = clients.iter_mut().position(answered).unwrap();
                let mut client = clients.swap_remove(index);
                client.set_nonblocking(false).unwrap();
                assert_eq!(read_line(&mut client), "hello\n");
            }
        },
    );
    assert_eq!((report.accepted, report.refused), (6, 0), "{report}");
    crowd.most.into_inner()
}

#[test]
fn one_limit_holds_over_many_listeners_and_further_clients_wait() {
    assert_eq!(crowd(2), 2);
    let without = crowd(1000);
    println!("control: without a limit {without} at once");
    assert_eq!(without, 6);
}

#[test]
fn at_a_stop_waiting_clients_are_served_beyond_the_limit() {
    let handler = |conn: &mut Connection| {
        if conn.peer_addr().port() > 0 && conn.next()? {
            echo_lines(conn)?;
        }
        Ok(())
    };
    let server = local()
        .max_connections(1)
        .drain_timeout(Duration::from_secs(30));
    let (report, ()) = serve(server, handler, |running| {
        let mut first = running.connect();
        assert_eq!(ask(&mut first, "first\n"), "first\n");
        first.write_all(b"half a li").unwrap(); // keeps the only slot
        eventually("it in hand", || running.live.snapshot()[0].received > 6);
        let mut waiting = running.connect();
        waiting.write_all(b"waiting\n").unwrap();
        running.stop.set();
        assert_eq!(read_to_end(&mut waiting).unwrap(), b"waiting\n");
        first.write_all(b"ne\n").unwrap();
        assert_eq!(read_to_end(&mut first).unwrap(), b"half a line\n");
    });
    assert!(report.is_clean() && report.drained == 2, "{report}");
}

#[test]
fn a_lingering_connection_holds_no_slot() {
    let handler = |conn: &mut Connection| {
        conn.next()?;
        conn.write_all(b"goodbye\n")
    };
    let (report, ()) = serve(local().max_connections(1), handler, |running| {
        let mut stubborn = running.connect();
        assert_eq!(ask(&mut stubborn, "x\n"), "goodbye\n");
        let done = Stop::new();
        thread::scope(|scope| {
            scope.spawn(|| {
                // It goes on sending after our end, so we go on listening.
                while !done.is_set() && stubborn.write_all(b"x").is_ok() {
                    thread::sleep(Duration::from_millis(20));
                }
            });
            assert_eq!(ask(&mut running.connect(), "y\n"), "goodbye\n");
            let live = running.live.snapshot();
            done.set();
            // The other was served beside it, not after it.
            assert_eq!((live[0].id, live[0].state), (1, State::Lingering));
        });
    });
    assert_eq!(report.accepted, 2, "{report}");
}

/// A client at an address of its own on this machine's loopback network.
fn connect_from(source: [u8; 4], address: SocketAddr) -> TcpStream {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    socket.bind(&SocketAddr::from((source, 0)).into()).unwrap();
    socket.connect(&address.into()).unwrap();
    let client = TcpStream::from(socket);
    client
        .set_read_timeout(Some(crate::harness::WATCHDOG))
        .unwrap();
    client
}

#[test]
fn further_connections_of_one_peer_are_closed_politely() {
    let (report, ()) = serve(local().max_per_peer(2), echo_lines, |running| {
        let mut served = [running.connect(), running.connect()];
        for client in &mut served {
            assert_eq!(ask(client, "hello\n"), "hello\n");
        }
        let mut third = running.connect();
        third.write_all(b"hello\n").unwrap();
        assert_eq!(read_to_end(&mut third).unwrap(), b"");
        let mut stranger = connect_from([127, 0, 0, 2], running.address());
        assert_eq!(ask(&mut stranger, "hello\n"), "hello\n");
        // Once one has ended there is room for another.
        let [mut first, _second] = served;
        first.shutdown(std::net::Shutdown::Write).unwrap();
        assert_eq!(read_to_end(&mut first).unwrap(), b"");
        assert_eq!(ask(&mut running.connect(), "hello\n"), "hello\n");
    });
    assert_eq!((report.accepted, report.limited), (4, 1), "{report}");
    assert!(report.is_clean(), "{report}");
}

/// What a handler saw at its end under an idle timeout.
fn idle(
    timeout: Duration,
    play: impl FnOnce(&mut TcpStream),
) -> (Option<Ending>, Option<ErrorKind>) {
    let seen = Mutex::new(Vec::new());
    let handler = |conn: &mut Connection| {
        let outcome = echo_lines(conn);
        let error = outcome.as_ref().err().map(io::Error::kind);
        seen.lock().unwrap().push((conn.ending(), error));
        outcome
    };
    let (report, ()) = serve(local().idle_timeout(timeout), handler, |running| {
        let mut client = running.connect();
        play(&mut client);
        assert_eq!(read_to_end(&mut client).unwrap(), b"");
    });
    assert_eq!((report.accepted, report.idle), (1, 1), "{report}");
    let seen = seen.into_inner().unwrap();
    assert_eq!(seen.len(), 1);
    seen[0]
}

#[test]
fn silence_between_requests_ends_a_connection_in_order() {
    let seen = idle(Duration::from_millis(100), |client| {
        assert_eq!(ask(client, "hello\n"), "hello\n");
    });
    assert_eq!(seen, (Some(Ending::Idle), None));
}

#[test]
fn silence_inside_a_request_is_an_error() {
    let seen = idle(Duration::from_millis(100), |client| {
        client.write_all(b"half a li").unwrap();
    });
    assert_eq!(seen, (None, Some(ErrorKind::TimedOut)));
}

#[test]
fn a_slow_client_is_not_silent() {
    let timeout = Duration::from_millis(900);
    let seen = idle(timeout, |client| {
        for byte in b"slow but steady\n" {
            client.write_all(&[*byte]).unwrap();
            thread::sleep(timeout / 9);
        }
        assert_eq!(read_line(client), "slow but steady\n");
    });
    assert_eq!(seen, (Some(Ending::Idle), None));
}

#[test]
fn a_client_that_takes_nothing_runs_into_the_idle_timeout() {
    let errors = Mutex::new(Vec::new());
    let flood = |conn: &mut Connection| loop {
        let outcome = conn.write_all(&noise(1 << 20, 1));
        if let Err(error) = outcome {
            errors.lock().unwrap().push(error.kind());
            return Err(error);
        }
    };
    let server = local().idle_timeout(Duration::from_millis(200));
    let (report, ()) = serve(server, flood, |running: &Running| {
        let mut client = running.connect();
        eventually("its end", || !errors.lock().unwrap().is_empty());
        // Afterwards it takes what was written before, to the end.
        assert!(!read_to_end(&mut client).unwrap().is_empty());
    });
    assert_eq!(errors.into_inner().unwrap(), [ErrorKind::TimedOut]);
    assert_eq!((report.accepted, report.idle), (1, 1), "{report}");
}

#[test]
fn what_came_while_the_handler_was_busy_is_not_silence() {
    let timeout = Duration::from_millis(100);
    let handler = |conn: &mut Connection| {
        let mut byte = [0];
        while conn.receive(&mut byte)? > 0 {
            if byte == *b"1" {
                // Longer than the idle timeout, and not a word to the client.
                conn.pause(3 * timeout)?;
            } else {
                conn.write_all(b"both\n")?;
            }
        }
        Ok(())
    };
    serve(local().idle_timeout(timeout), handler, |running| {
        let mut client = running.connect();
        client.write_all(b"12").unwrap();
        assert_eq!(read_line(&mut client), "both\n");
    });
}
