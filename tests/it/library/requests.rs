//! Between requests and inside one: what a stop lets through.

use super::{ask, echo_lines, local, read_line, serve, serve_until};
use crate::harness::{WATCHDOG, eventually, noise, read_to_end};
use lastecho::{Connection, Deadline, Ending, State, Stop};
use std::io::{self, BufRead, BufReader, ErrorKind, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::Mutex;
use std::thread;
use std::time::Duration;

fn numbered(lines: std::ops::Range<u32>) -> String {
    lines.map(|number| format!("{number}\n")).collect()
}

#[test]
fn a_pipelined_line_client_is_answered_in_full() {
    let lines = numbered(0..5000);
    let (report, ()) = serve(local(), echo_lines, |running| {
        let mut client = running.connect();
        client.write_all(lines.as_bytes()).unwrap();
        client.shutdown(Shutdown::Write).unwrap();
        assert_eq!(read_to_end(&mut client).unwrap(), lines.as_bytes());
    });
    assert_eq!(report.received, report.sent, "{report}");
}

/// The moments of a stop that falls into a pipeline, on both its ends.
#[derive(Default)]
struct Script {
    first: Stop,
    stop: Stop,
    second: Stop,
    late: Stop,
}

fn await_moment(moment: &Stop) {
    assert!(moment.wait(Deadline::after(WATCHDOG)), "it never came");
}

impl Script {
    /// In the server, after a line was read and before it is answered.
    fn heard(&self, line: &str, socket: &TcpStream) {
        match line {
            "0\n" => {
                self.first.set();
                let expected = numbered(1..5000).len() as u64;
                eventually("all lines", || {
                    rustix::io::ioctl_fionread(socket).unwrap() == expected
                });
                self.stop.set();
            }
            "1\n" => {
                self.second.set();
                await_moment(&self.late);
            }
            _ => {}
        }
    }

    /// The client: one line, then many, then one when the stop has been seen.
    fn play(&self, mut client: TcpStream) -> Vec<u8> {
        client.write_all(b"0\n").unwrap();
        await_moment(&self.first);
        client.write_all(numbered(1..5000).as_bytes()).unwrap();
        await_moment(&self.second);
        let _ = client.write_all(b"late\n");
        self.late.set();
        read_to_end(&mut client).unwrap()
    }
}

#[test]
fn pipelined_lines_that_had_arrived_at_the_stop_are_answered_and_later_ones_not() {
    let (script, endings) = (Script::default(), Mutex::new(Vec::new()));
    let handler = |conn: &mut Connection| {
        let mut line = String::new();
        while conn.next()? {
            line.clear();
            conn.read_line(&mut line)?;
            script.heard(&line, conn.socket());
            conn.write_all(line.as_bytes())?;
        }
        endings.lock().unwrap().push(conn.ending());
        Ok(())
    };
    let (report, answers) = serve_until(&script.stop, local(), handler, |running| {
        script.play(running.connect())
    });
    assert_eq!(String::from_utf8_lossy(&answers), numbered(0..5000));
    assert_eq!(endings.into_inner().unwrap(), [Some(Ending::Stopped)]);
    assert!(report.is_clean() && report.drained == 1, "{report}");
    let answers = pipeline_into_a_naive_server();
    println!("control: {} bytes of answers", answers.len());
    assert_eq!(answers, b"0\n", "the control answers what it should lose");
}

/// The control: a `BufReader`, and the flag looked at between lines.
fn pipeline_into_a_naive_server() -> Vec<u8> {
    let script = Script::default();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let (socket, _) = listener.accept().unwrap();
    thread::scope(|scope| {
        let client = scope.spawn(|| script.play(client));
        let mut lines = BufReader::new(&socket);
        while !script.stop.is_set() {
            let mut line = String::new();
            lines.read_line(&mut line).unwrap();
            script.heard(&line, &socket);
            (&socket).write_all(line.as_bytes()).unwrap();
        }
        script.second.set();
        // Read away what it lost, or its client would see a reset besides.
        socket.shutdown(Shutdown::Write).unwrap();
        let _ = io::copy(&mut lines, &mut io::sink());
        client.join().unwrap()
    })
}

#[test]
fn a_line_begun_before_the_stop_is_finished_after_it_and_answered() {
    let endings = Mutex::new(Vec::new());
    let handler = |conn: &mut Connection| {
        echo_lines(conn)?;
        endings.lock().unwrap().push(conn.ending());
        Ok(())
    };
    let server = local().poll(Duration::from_millis(10));
    let (report, ()) = serve(server, handler, |running| {
        let (mut middle, mut idle) = (running.connect(), running.connect());
        assert_eq!(ask(&mut idle, "idle\n"), "idle\n");
        middle.write_all(b"hel").unwrap();
        let in_hand = || running.live.snapshot().iter().any(|one| one.received == 3);
        eventually("half a line in hand", in_hand);
        running.stop.set();
        // The stop has taken effect once the idle one is gone.
        assert_eq!(read_to_end(&mut idle).unwrap(), b"");
        assert_eq!(running.count(State::Serving), 1);
        middle.write_all(b"lo\n").unwrap();
        assert_eq!(read_line(&mut middle), "hello\n");
        assert_eq!(read_to_end(&mut middle).unwrap(), b"");
    });
    assert_eq!(endings.into_inner().unwrap(), [Some(Ending::Stopped); 2]);
    assert!(report.is_clean() && report.drained == 2, "{report}");
}

#[test]
fn a_line_that_never_ends_is_cut_at_the_deadline() {
    let errors = Mutex::new(Vec::new());
    let handler = |conn: &mut Connection| {
        echo_lines(conn).inspect_err(|error| errors.lock().unwrap().push(error.kind()))
    };
    let grace = Duration::from_millis(300);
    let (report, ()) = serve(local().drain_timeout(grace), handler, |running| {
        let mut client = running.connect();
        client.write_all(b"hel").unwrap();
        eventually("half a line in hand", || running.count(State::Serving) == 1);
        running.stop.set();
        let _ = client.read(&mut [0]); // until the cut
    });
    assert_eq!(errors.into_inner().unwrap(), [ErrorKind::ConnectionAborted]);
    assert_eq!((report.cut, report.drained), (1, 0), "{report}");
    assert!(!report.is_clean());
    assert!(report.elapsed >= grace && report.elapsed < grace + WATCHDOG / 4);
}

#[test]
fn ending_tells_the_peers_end_from_a_stop() {
    let (mut conn, mut client) = Connection::pair(&Stop::new()).unwrap();
    client.write_all(b"x").unwrap();
    client.shutdown(Shutdown::Write).unwrap();
    assert!(conn.next().unwrap() && conn.ending().is_none());
    assert_eq!(conn.receive(&mut [0; 8]).unwrap(), 1);
    assert!(!conn.next().unwrap());
    assert_eq!(conn.ending(), Some(Ending::PeerClosed));
    assert_eq!(conn.receive(&mut [0; 8]).unwrap(), 0);

    let stop = Stop::new();
    let (mut conn, mut client) = Connection::pair(&stop).unwrap();
    client.write_all(b"x").unwrap();
    stop.set();
    assert!(conn.next().unwrap() && conn.ending().is_none());
    assert_eq!(conn.receive(&mut [0; 8]).unwrap(), 1);
    assert!(!conn.next().unwrap());
    assert_eq!(conn.ending(), Some(Ending::Stopped));
}

#[test]
fn every_way_to_read_sees_the_same_stream() {
    let (mut conn, mut client) = Connection::pair(&Stop::new()).unwrap();
    let sent = noise(100_000, 3);
    let all = sent.clone();
    let client = thread::spawn(move || {
        client.write_all(&all).unwrap();
        client.shutdown(Shutdown::Write).unwrap();
        client
    });
    let mut got = Vec::new();
    let mut buffer = [0; 3000];
    for turn in 0.. {
        if !conn.next().unwrap() {
            break;
        }
        assert!(conn.next().unwrap(), "asked twice");
        assert_eq!(conn.receive(&mut []).unwrap(), 0, "no room, no end");
        let count = match turn % 4 {
            0 => conn.receive(&mut buffer).unwrap(),
            1 => conn.read(&mut buffer).unwrap(),
            2 => {
                let line = conn.read_until(b'\n', &mut got).unwrap();
                assert!(line > 0);
                0
            }
            _ => {
                let bytes = conn.fill_buf().unwrap();
                got.extend_from_slice(bytes);
                let count = bytes.len();
                conn.consume(count);
                0
            }
        };
        got.extend_from_slice(&buffer[..count]);
    }
    assert!(
        got == sent,
        "{} of {} bytes, or others",
        got.len(),
        sent.len()
    );
    drop(client.join().unwrap());
}

/// It is asked before the client has said anything: that may still come.
#[test]
fn asking_for_the_last_answer_neither_waits_nor_ends_anything() {
    let stop = Stop::new();
    let (mut conn, mut client) = Connection::pair(&stop).unwrap();
    stop.set();
    assert!(!conn.is_last().unwrap());
    client.write_all(b"first\n").unwrap();
    let mut line = String::new();
    assert!(conn.next().unwrap());
    conn.read_line(&mut line).unwrap();
    assert_eq!(line, "first\n");
    assert!(conn.is_last().unwrap());
    assert!(!conn.next().unwrap());
}

#[test]
fn no_way_to_read_gives_out_more_than_the_stop_allows() {
    let stop = Stop::new();
    let (mut conn, mut client) = Connection::pair(&stop).unwrap();
    client.write_all(b"abc").unwrap();
    assert!(conn.next().unwrap());
    conn.read_exact(&mut [0; 2]).unwrap();
    stop.set();
    assert!(!conn.is_last().unwrap()); // sees the stop: one byte has arrived
    conn.read_exact(&mut [0]).unwrap();
    // Inside a request more is read than the stop lets begin: what is left
    // of it in the buffer is no request any more, whatever reads it.
    client.write_all(b"defghi").unwrap();
    assert_eq!(conn.fill_buf().unwrap(), b"defghi");
    assert_eq!(conn.receive(&mut [0; 100]).unwrap(), 0);
    assert_eq!(conn.ending(), Some(Ending::Stopped));

    let stop = Stop::new();
    let (mut conn, mut client) = Connection::pair(&stop).unwrap();
    client.write_all(b"abc").unwrap();
    assert!(conn.next().unwrap());
    conn.read_exact(&mut [0; 3]).unwrap();
    client.write_all(b"d").unwrap();
    eventually("it", || {
        rustix::io::ioctl_fionread(conn.socket()).unwrap() == 1
    });
    stop.set();
    assert!(!conn.is_last().unwrap()); // sees the stop: one byte has arrived
    client.write_all(b"efghi").unwrap();
    eventually("all", || {
        rustix::io::ioctl_fionread(conn.socket()).unwrap() == 6
    });
    assert_eq!(conn.fill_buf().unwrap(), b"defghi");
    assert_eq!(conn.receive(&mut [0; 100]).unwrap(), 1);
    assert_eq!(conn.receive(&mut [0; 100]).unwrap(), 0);
}
