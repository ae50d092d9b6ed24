//! The options that are durations: each is tried by the time that something takes.

use crate::harness::{
    IN_TIME, Program, Server, WATCHDOG, eventually, noise, once_within, read_to_end,
};
use rustix::process::Signal;
use socket2::{Domain, Socket, Type};
use std::io::{self, ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

fn ms(milliseconds: u64) -> Duration {
    Duration::from_millis(milliseconds)
}

fn echo(client: &mut TcpStream, byte: u8) {
    client.write_all(&[byte]).unwrap();
    let mut back = [0];
    client.read_exact(&mut back).unwrap();
    assert_eq!(back, [byte]);
}

/// How long an idle connection takes to see the stop.
fn until_fin(poll: &str) -> Duration {
    let mut server = Server::start(
        Program::Lastecho,
        &["--poll", poll, "--drain-timeout", "none"],
    );
    let mut client = server.connect();
    echo(&mut client, b'x'); // its poll interval begins here
    let asked = Instant::now();
    server.signal(Signal::TERM);
    assert!(read_to_end(&mut client).unwrap().is_empty());
    asked.elapsed()
}

#[test]
fn a_shorter_poll_interval_sees_the_stop_sooner() {
    once_within(ms(750), "the stop seen at --poll 20ms", || {
        until_fin("20ms")
    });
    let long = until_fin("1500ms");
    println!("the stop is seen after {long:?} at 1500ms");
    assert!(long < IN_TIME, "{long:?}");
}

#[test]
fn what_is_left_at_the_drain_timeout_is_cut() {
    let mut server = Server::start(
        Program::Lastecho,
        &["--drain-timeout", "300ms", "--delay", "1m", "-v"],
    );
    let mut client = server.connect();
    client.write_all(b"think").unwrap();
    // Not cut before the thinking begins.
    eventually("it thinks", || {
        server.signal(Signal::USR1);
        server.stderr().contains("serving")
    });
    let asked = Instant::now();
    server.signal(Signal::TERM);
    let ended = server.wait();
    let took = asked.elapsed();
    assert!(took >= ms(290) && took < IN_TIME, "{took:?}");
    assert_eq!(
        (ended.code(), ended.count("cut")),
        (Some(3), 1),
        "{ended:?}"
    );
    assert_eq!(ended.told["clean"], "false");
    let lost = (ended.count("bytes_in"), ended.count("bytes_lost"));
    assert_eq!(lost, (5, 5));
}

#[test]
fn without_a_drain_timeout_nothing_is_cut() {
    let mut server = Server::start(
        Program::Lastecho,
        &[
            "--drain-timeout",
            "none",
            "--delay",
            "500ms",
            "--poll",
            "50ms",
        ],
    );
    let mut client = server.connect();
    client.write_all(b"think").unwrap();
    client.shutdown(Shutdown::Write).unwrap();
    server.signal(Signal::TERM);
    server.await_log("cut never; another signal cuts at once");
    assert_eq!(read_to_end(&mut client).unwrap(), b"think");
    assert_eq!(server.wait().code(), Some(0));
}

/// An idle timeout is kept to the point, whether the poll interval is
/// shorter or longer.
#[test]
fn a_silent_connection_is_closed_after_the_idle_timeout() {
    for poll in ["50ms", "1m"] {
        let server = Server::start(
            Program::Lastecho,
            &[
                "--idle-timeout",
                "400ms",
                "--poll",
                poll,
                "--drain-timeout",
                "none",
            ],
        );
        let mut client = server.connect();
        let since = Instant::now();
        echo(&mut client, b'x');
        assert!(read_to_end(&mut client).unwrap().is_empty());
        let took = since.elapsed();
        println!("--idle-timeout 400ms --poll {poll}: closed after {took:?}");
        assert!(took >= ms(390) && took < IN_TIME, "{poll}: {took:?}");
        drop(client);
        let ended = server.stop();
        assert_eq!(
            (ended.code(), ended.count("idle")),
            (Some(0), 1),
            "{ended:?}"
        );
    }
}

#[test]
fn without_an_idle_timeout_a_silent_connection_stays() {
    let server = Server::start(
        Program::Lastecho,
        &["--idle-timeout", "none", "--poll", "20ms"],
    );
    let mut client = server.connect();
    client.set_read_timeout(Some(ms(400))).unwrap();
    let error = client.read(&mut [0]).expect_err("it was closed");
    assert_eq!(error.kind(), ErrorKind::WouldBlock);
}

/// Runs a trial with a poll interval shorter and one longer than the idle
/// timeout, side by side.
fn for_both_polls(trial: impl Fn(&str) + Sync) {
    thread::scope(|scope| {
        for poll in ["50ms", "5s"] {
            let trial = &trial;
            scope.spawn(move || trial(poll));
        }
    });
}

/// Notes how long this machine has kept us from what a lively client does.
struct Gaps {
    last: Instant,
    longest: Duration,
    limit: Duration,
}

impl Gaps {
    fn begin(&mut self) {
        self.last = Instant::now();
        self.longest = Duration::ZERO;
    }

    /// An error where the client was not lively.
    fn note(&mut self) -> io::Result<()> {
        self.longest = self.longest.max(self.last.elapsed());
        self.last = Instant::now();
        if self.longest < self.limit {
            Ok(())
        } else {
            Err(ErrorKind::TimedOut.into())
        }
    }
}

/// Tries until this machine lets a client be lively, with an idle timeout of
/// a second, and then with longer ones: no gap of more than a quarter of it, for
/// several may add up where buffers hide what moves. The trial's own outcome is
/// that the connection lived.
fn while_lively(mut trial: impl FnMut(u32, &mut Gaps) -> io::Result<()>) {
    for seconds in [1, 1, 1, 2, 4, 8, 16, 32] {
        let mut gaps = Gaps {
            last: Instant::now(),
            longest: Duration::ZERO,
            limit: Duration::from_secs(seconds.into()) / 4,
        };
        let lived = trial(seconds, &mut gaps);
        if gaps.note().is_ok() {
            return lived.unwrap_or_else(|error| panic!("closed as idle: {error}"));
        }
        println!("not lively, {:?} without a byte: again", gaps.longest);
    }
    panic!("this machine is too busy for a lively client");
}

/// A server with this idle timeout, and a time of several of them.
fn lively(seconds: u32, poll: &str) -> (Server, Duration) {
    let idle = format!("{seconds}s");
    let server = Server::start(
        Program::Lastecho,
        &["--idle-timeout", &idle, "--poll", poll],
    );
    (server, seconds * ms(2500))
}

#[test]
fn bytes_that_come_in_restart_the_idle_clock() {
    for_both_polls(|poll| {
        while_lively(|seconds, gaps| {
            let (server, long) = lively(seconds, poll);
            let mut client = server.connect();
            let begun = Instant::now();
            gaps.begin();
            while begun.elapsed() < long {
                client.write_all(b"x")?;
                client.read_exact(&mut [0])?;
                thread::sleep(ms(60));
                gaps.note()?;
            }
            client.write_all(b"x")?;
            client.read_exact(&mut [0])
        });
    });
}

/// Nothing comes in any more, and the echo, all of it, is on its way to a reader
/// who takes it in small bites: each well within the idle timeout, all of them
/// far beyond it. (A bite is most of the receive buffer: its kernel asks for
/// more only when there is room again, so smaller ones would move nothing on
/// the wire for a long time.)
#[test]
fn bytes_that_go_out_restart_the_idle_clock() {
    const BITE: usize = 16 * 1024;
    for_both_polls(|poll| {
        while_lively(|seconds, gaps| {
            let (server, long) = lively(seconds, poll);
            let data = noise(1 << 20, 3);
            let mut client = connect_small(server.address());
            client.write_all(&data)?;
            let (mut echo, mut got) = (vec![0; data.len()], 0);
            let begun = Instant::now();
            gaps.begin();
            while got < echo.len() {
                let slowly = begun.elapsed() < long;
                let bite = if slowly { BITE } else { 65_536 }.min(echo.len() - got);
                match client.read(&mut echo[got..got + bite])? {
                    0 => return Err(ErrorKind::UnexpectedEof.into()),
                    count => got += count,
                }
                thread::sleep(if slowly { seconds * ms(60) } else { ms(0) });
                gaps.note()?;
            }
            assert!(begun.elapsed() > long, "it was all there too soon");
            // It was not closed meanwhile.
            client.write_all(b"more")?;
            client.read_exact(&mut [0; 4])?;
            assert!(echo == data, "--poll {poll}: not the same back");
            Ok(())
        });
    });
}

/// A client whose receive buffer takes little at a time.
fn connect_small(server: SocketAddr) -> TcpStream {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    socket.set_recv_buffer_size(16 * 1024).unwrap();
    socket.connect_timeout(&server.into(), WATCHDOG).unwrap();
    let client = TcpStream::from(socket);
    client.set_read_timeout(Some(WATCHDOG)).unwrap();
    client
}

#[test]
fn a_delay_is_a_pause_before_each_echo() {
    let server = Server::start(Program::Lastecho, &["--delay", "200ms"]);
    let mut client = server.connect();
    let begun = Instant::now();
    for byte in 0..3 {
        echo(&mut client, byte);
    }
    let took = begun.elapsed();
    assert!(took >= ms(600) && took < IN_TIME, "{took:?}");
}

#[test]
fn durations_beyond_the_clock_are_for_ever() {
    let forever = "100000y";
    let server = Server::start(
        Program::Lastecho,
        &[
            "--poll",
            forever,
            "--drain-timeout",
            forever,
            "--idle-timeout",
            forever,
        ],
    );
    let mut client = server.connect();
    echo(&mut client, b'x');
    drop(client);
    assert_eq!(server.stop().code(), Some(0));
}
