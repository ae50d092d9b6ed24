//! Why src/ending.rs is as it is: the naive ways to end a connection lose
//! echoes, the ordered end loses none, and it ends.

use crate::harness::{IN_TIME, WATCHDOG, connect, eventually, noise, once_within};
use lastecho::{Echo, Report, Server, Stop};
use socket2::SockRef;
use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

/// What a client saw, against what the server had written.
#[derive(Debug)]
struct Seen {
    got: usize,
    written: usize,
    reset: bool,
}

impl Seen {
    fn is_loss(&self) -> bool {
        self.got < self.written
    }
}

/// Both ends of a connection over loopback.
fn pair() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let client = connect(listener.local_addr().unwrap()).unwrap();
    let (server, _) = listener.accept().unwrap();
    server.set_read_timeout(Some(WATCHDOG)).unwrap();
    server.set_write_timeout(Some(WATCHDOG)).unwrap();
    (server, client)
}

/// A client that streams 1 MiB and reads only when the server has ended; the
/// server echoes the first part of it and ends in its way.
fn stop_in_a_stream(echoes: usize, end: fn(TcpStream)) -> Seen {
    let (mut server, mut client) = pair();
    let data = noise(1 << 20, echoes as u64);
    let mut sender = client.try_clone().unwrap();
    thread::scope(|scope| {
        let data = &data;
        scope.spawn(move || {
            let _ = sender.write_all(data);
            let _ = sender.shutdown(Shutdown::Write);
        });
        let mut buffer = vec![0; echoes];
        server.read_exact(&mut buffer).unwrap();
        server.write_all(&buffer).unwrap();
        end(server);
        let mut echo = Vec::new();
        let error = client.read_to_end(&mut echo).err();
        let _ = client.shutdown(Shutdown::Both);
        assert!(data.starts_with(&echo));
        Seen {
            got: echo.len(),
            written: echoes,
            reset: error.is_some(),
        }
    })
}

const TRIALS: usize = 40;

/// Ends so many connections in this way; prints and returns how many clients
/// lost something, and how many were reset.
fn losses(way: &str, end: fn(TcpStream)) -> (usize, usize) {
    let seen: Vec<_> = (1..=TRIALS)
        .map(|trial| stop_in_a_stream(trial * 10_000, end))
        .collect();
    let lost = seen.iter().filter(|seen| seen.is_loss()).count();
    let reset = seen.iter().filter(|seen| seen.reset).count();
    let silent = seen.iter().filter(|seen| seen.is_loss() && !seen.reset);
    println!(
        "{way}: {lost} of {TRIALS} lost echoes, {reset} were reset, {} saw a clean end after a loss",
        silent.count()
    );
    (lost, reset)
}

#[test]
fn a_plain_close_with_unread_input_loses_echoes() {
    let (lost, reset) = losses("plain close", drop);
    assert!(lost > 0 && reset > 0);
}

#[test]
fn a_half_close_and_close_loses_echoes() {
    let (lost, reset) = losses("half-close and close", |server| {
        let _ = server.shutdown(Shutdown::Write);
    });
    assert!(lost > 0 && reset > 0);
}

#[test]
fn so_linger_is_no_substitute() {
    let (lost, reset) = losses("SO_LINGER of a minute", |server| {
        let minute = Some(Duration::from_secs(60));
        SockRef::from(&server).set_linger(minute).unwrap();
        let before = Instant::now();
        drop(server);
        assert!(before.elapsed() < IN_TIME, "it lingered");
    });
    assert!(lost > 0 && reset > 0);
}

/// The same stream, the same moments, and the library's end.
#[test]
fn the_ordered_end_loses_nothing() {
    for trial in 1..=TRIALS {
        let (seen, report) = with_server(Duration::from_secs(8), |server, stop| {
            let data = noise(1 << 20, trial as u64);
            let mut client = connect(server).unwrap();
            let mut sender = client.try_clone().unwrap();
            thread::scope(|scope| {
                let data = &data;
                scope.spawn(move || {
                    let _ = sender.write_all(data);
                    let _ = sender.shutdown(Shutdown::Write);
                });
                // The stop falls when so much has come back.
                let mut echo = vec![0; trial * 10_000];
                client.read_exact(&mut echo).unwrap();
                stop.set();
                client.read_to_end(&mut echo).expect("FIN, not a reset");
                assert!(data.starts_with(&echo));
                echo.len() as u64
            })
        });
        assert_eq!((report.received, report.sent), (seen, seen), "{report:?}");
        assert!(report.is_clean(), "{report:?}");
    }
    println!("ordered end: 0 of {TRIALS} lost echoes");
}

/// Why the ordered end never shuts the reading side: what the client has not
/// read yet is lost.
#[test]
fn after_shutting_both_sides_one_more_byte_resets() {
    let lost = (0..TRIALS).filter(|_| {
        let (mut server, mut client) = pair();
        server.set_nonblocking(true).unwrap();
        let mut written = 0;
        while let Ok(count) = server.write(&[b'x'; 65_536]) {
            written += count;
        }
        server.shutdown(Shutdown::Read).unwrap();
        server.shutdown(Shutdown::Write).unwrap();
        client.write_all(b"x").unwrap();
        let mut echo = Vec::new();
        let end = client.read_to_end(&mut echo);
        assert_eq!(end.unwrap_err().kind(), ErrorKind::ConnectionReset);
        echo.len() < written
    });
    let lost = lost.count();
    println!("SHUT_RD, SHUT_WR, one more byte: {lost} of {TRIALS} lost echoes");
    assert!(lost > 0);
}

/// Runs an echo server in this process around `clients`, who stop it.
fn with_server<T>(drain: Duration, clients: impl FnOnce(SocketAddr, &Stop) -> T) -> (T, Report) {
    let stop = Stop::new();
    let server = Server::bind("127.0.0.1:0").unwrap();
    let address = server.live().addresses()[0];
    let server = server.poll(Duration::from_millis(20)).drain_timeout(drain);
    thread::scope(|scope| {
        let run = scope.spawn(|| {
            let echo = Echo::default();
            server.run(&stop, |conn| echo.serve(conn)).unwrap()
        });
        let seen = clients(address, &stop);
        stop.set();
        (seen, run.join().unwrap())
    })
}

fn hello(address: SocketAddr) -> TcpStream {
    let mut client = connect(address).unwrap();
    client.write_all(b"hello").unwrap();
    client.read_exact(&mut [0; 5]).unwrap();
    client
}

/// As `nc` does whose standard input stays open: the quiet rule ends it, after
/// 250 ms and long before the deadline.
#[test]
fn a_client_that_never_closes_does_not_hold_a_stop() {
    let ((client, asked), report) = with_server(Duration::from_secs(30), |address, stop| {
        let client = hello(address);
        let asked = Instant::now();
        stop.set();
        (client, asked)
    });
    let took = asked.elapsed();
    drop(client);
    println!("never closes: {took:?}");
    assert!(took >= Duration::from_millis(250), "{took:?}, {report:?}");
    assert!(took < IN_TIME, "{took:?}, {report:?}");
    assert_eq!((report.drained, report.cut), (1, 0), "{report:?}");
}

/// One that is waited for is waited for 250 ms.
#[test]
fn a_client_that_closes_on_fin_is_not_waited_for() {
    once_within(Duration::from_millis(250), "a client closes on FIN", || {
        let ((), report) = with_server(Duration::from_secs(30), |address, stop| {
            let mut client = hello(address);
            stop.set();
            assert_eq!(client.read(&mut [0; 8]).unwrap(), 0);
        });
        assert_eq!((report.drained, report.cut), (1, 0), "{report:?}");
        report.elapsed
    });
}

/// What it sent before the stop was seen is answered; then its linger runs
/// until the deadline, and it is cut because it still sends.
#[test]
fn a_client_that_sends_for_ever_is_held_until_the_deadline_and_cut() {
    let drain = Duration::from_millis(500);
    let patience = Instant::now() + WATCHDOG;
    while Instant::now() < patience {
        let ((got, pause), report) = with_server(drain, send_for_ever);
        println!("sends for ever, pauses of up to {pause:?}: {report}");
        assert_eq!(got, report.sent, "{report:?}");
        assert_eq!(report.sent, report.received, "{report:?}");
        assert!(report.elapsed < IN_TIME, "{report:?}");
        if pause < Duration::from_millis(100) {
            assert!(report.elapsed >= drain, "{report:?}");
            assert_eq!((report.cut, report.drained), (1, 0), "{report:?}");
            return;
        }
    }
    panic!("this machine never let the client send without a pause");
}

/// Returns how much came back and the longest pause between two sends: one of
/// 250 ms, which a crowded machine may impose, is quiet enough to end in order.
fn send_for_ever(address: SocketAddr, stop: &Stop) -> (u64, Duration) {
    let mut client = hello(address);
    let mut sender = client.try_clone().unwrap();
    thread::scope(|scope| {
        let mut last = Instant::now();
        let sender = scope.spawn(move || {
            let (words, mut longest) = (noise(1024, 1), Duration::ZERO);
            while sender.write_all(&words).is_ok() {
                longest = longest.max(last.elapsed());
                last = Instant::now();
                thread::sleep(Duration::from_micros(100));
            }
            longest.max(last.elapsed())
        });
        stop.set();
        let mut echo = Vec::new();
        // FIN comes early; the reset at the deadline ends the sender.
        let _ = client.read_to_end(&mut echo);
        (echo.len() as u64 + 5, sender.join().unwrap())
    })
}

/// Bytes in the send queue of the socket that serves this client, or served it
/// before it was closed: proc(5), /proc/net/tcp.
fn kept_for(client: &TcpStream) -> usize {
    let hex = |port: u16| format!("0100007F:{port:04X}");
    let server = hex(client.peer_addr().unwrap().port());
    let client = hex(client.local_addr().unwrap().port());
    let sockets = std::fs::read_to_string("/proc/net/tcp").unwrap();
    let queue = sockets.lines().find_map(|line| {
        let fields: Vec<_> = line.split_whitespace().collect();
        (fields[1] == server && fields[2] == client).then(|| fields[4].to_owned())
    });
    let queue = queue.unwrap_or_else(|| "0:".into());
    usize::from_str_radix(queue.split(':').next().unwrap(), 16).unwrap()
}

/// The kernel would keep the megabytes of a peer that takes nothing for
/// minutes, as it does for the one that was just closed.
#[test]
fn what_is_given_up_does_not_stay_in_the_kernel() {
    let (naive, stuck) = pair();
    naive.set_nonblocking(true).unwrap();
    while (&naive).write(&[0; 65_536]).is_ok() {}
    drop(naive);
    let (client, report) = with_server(Duration::from_millis(200), |address, _| {
        let mut client = hello(address);
        client.write_all(&[0; 1 << 20]).unwrap(); // fits the server's send buffer
        client.shutdown(Shutdown::Write).unwrap();
        eventually("the echo waits for a reader", || {
            kept_for(&client) > 1 << 19
        });
        client
    });
    assert_eq!(report.cut, 1, "{report:?}");
    println!("kept after the cut: {}", kept_for(&client));
    assert!(kept_for(&client) > 0, "nothing was given up: {report:?}");
    eventually("the kernel lets go", || kept_for(&client) == 0);
    let naive = kept_for(&stuck);
    println!("kept after a plain close, at the same time: {naive}");
    assert!(naive > 0, "plain close would do as well");
}
