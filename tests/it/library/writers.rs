//! Writers: whole messages from many threads, and none torn by an end.

use super::{Running, local, serve};
use crate::harness::{WATCHDOG, connect, eventually, read_to_end};
use lastecho::{Connection, State, Writer};
use std::io::{self, Write};
use std::net::TcpListener;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::sync::mpsc::channel;
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

const LINES: usize = 5000;

/// Two threads that format their lines in pieces.
fn write_lines<W: Write + Send>(writer: impl Fn() -> W) {
    thread::scope(|scope| {
        for name in ["one", "two"] {
            let mut writer = writer();
            scope.spawn(move || {
                for number in 0..LINES {
                    writeln!(writer, "{name} says {number} to {name}").unwrap();
                }
            });
        }
    });
}

/// How many lines are not as one of the two threads wrote them.
fn mixed(bytes: &[u8]) -> usize {
    let text = String::from_utf8_lossy(bytes);
    let is_whole = |line: &&str| {
        let words: Vec<_> = line.split(' ').collect();
        matches!(words[..], [one, "says", number, "to", two]
            if one == two && ["one", "two"].contains(&one) && number.parse::<usize>().is_ok())
    };
    let whole = text.lines().filter(is_whole).count();
    2 * LINES - whole
}

#[test]
fn a_formatted_line_is_one_write() {
    let replies = Arc::new(Mutex::new(Vec::new()));
    let told = Arc::clone(&replies);
    let server = local().observe(move |event| {
        if let lastecho::Event::Reply { bytes, .. } = event {
            told.lock().unwrap().push(*bytes);
        }
    });
    let handler = |conn: &mut Connection| {
        let (one, two) = (conn.id(), conn.id() + 1);
        writeln!(conn, "{one} and {two}")?;
        writeln!(conn.writer(), "{two} and {one}")?;
        write!(conn, "as it is")
    };
    serve(server, handler, |running| {
        let all = read_to_end(&mut running.connect()).unwrap();
        assert_eq!(all, b"1 and 2\n2 and 1\nas it is");
    });
    assert_eq!(*replies.lock().unwrap(), [8, 8, 8]);
}

#[test]
fn formatted_lines_of_two_threads_do_not_mix() {
    let handler = |conn: &mut Connection| {
        write_lines(|| conn.writer());
        Ok(())
    };
    serve(local(), handler, |running| {
        let all = read_to_end(&mut running.connect()).unwrap();
        assert_eq!(mixed(&all), 0);
    });
    let mixed = lines_to_clones_of_one_socket();
    println!("control: {mixed} of {} lines mixed", 2 * LINES);
    assert!(mixed > 0, "the control never mixes, so this shows nothing");
}

/// The control: a write for each piece of the format string.
fn lines_to_clones_of_one_socket() -> usize {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut client = connect(listener.local_addr().unwrap()).unwrap();
    let (socket, _) = listener.accept().unwrap();
    let server = thread::spawn(move || write_lines(|| socket.try_clone().unwrap()));
    let all = read_to_end(&mut client).unwrap();
    server.join().unwrap();
    mixed(&all)
}

/// What cannot be formatted is an error, and nothing of it is written.
#[test]
fn a_message_that_cannot_be_formatted_is_not_begun() {
    struct Refuses;
    impl std::fmt::Display for Refuses {
        fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.write_str("half of it")?;
            Err(std::fmt::Error)
        }
    }
    let kinds = Mutex::new(Vec::new());
    let handler = |conn: &mut Connection| {
        let mut writer = conn.writer();
        let refused: [io::Result<()>; 2] = [write!(conn, "{Refuses}"), write!(writer, "{Refuses}")];
        let refused = refused.map(|outcome| outcome.map_err(|error| error.kind()));
        kinds.lock().unwrap().extend(refused);
        conn.write_all(b"whole")
    };
    serve(local(), handler, |running| {
        let all = read_to_end(&mut running.connect()).unwrap();
        assert_eq!(all, b"whole");
    });
    assert_eq!(kinds.into_inner().unwrap(), [Err(io::ErrorKind::Other); 2]);
}

/// Larger than what the kernel keeps for a client that does not read.
const MESSAGE: usize = 12_000_000;

fn has_sent(running: &Running) -> bool {
    let live = running.live.snapshot();
    live.first().is_some_and(|one| one.sent > 0)
}

/// A publisher is in the middle of a message when the handler returns, because
/// of a stop or by itself.
fn interrupt_a_publisher(by_a_stop: bool) {
    let (publish, publisher) = channel::<Writer>();
    let (returns, returned) = channel();
    let server = local().poll(Duration::from_millis(10));
    let (report, outcome) = thread::scope(|scope| {
        let publisher = scope.spawn(move || {
            let mut writer = publisher.recv_timeout(WATCHDOG).unwrap();
            writer.write_all(&vec![b'm'; MESSAGE])
        });
        let handler = |conn: &mut Connection| {
            conn.receive(&mut [0])?;
            publish.send(conn.writer()).unwrap();
            conn.receive(&mut [0])?;
            returns.send(()).unwrap();
            Ok(())
        };
        let (report, ()) = serve(server, handler, |running| {
            let mut client = running.connect();
            client.write_all(b"x").unwrap();
            eventually("a part of it", || has_sent(running));
            match by_a_stop {
                true => running.stop.set(),
                false => client.write_all(b"x").unwrap(),
            }
            returned.recv_timeout(WATCHDOG).unwrap();
            let is_serving = || running.live.snapshot()[0].state == State::Serving;
            eventually("the end waits for it", is_serving);
            // Time to tear it, which no time here can make right.
            thread::sleep(Duration::from_millis(50));
            assert!(is_serving());
            assert_eq!(read_to_end(&mut client).unwrap().len(), MESSAGE);
        });
        (report, publisher.join().unwrap())
    });
    outcome.unwrap();
    assert_eq!(report.sent, MESSAGE as u64, "{report}");
    assert!(report.is_clean() && report.unsent == 0, "{report}");
}

#[test]
fn a_message_in_hand_is_whole_when_the_handler_returns() {
    interrupt_a_publisher(false);
}

#[test]
fn a_message_in_hand_is_whole_at_a_stop() {
    interrupt_a_publisher(true);
}

/// The wait for it has an end all the same.
#[test]
fn a_message_that_the_client_does_not_take_is_cut_and_counted() {
    let (publish, publisher) = channel::<Writer>();
    let server = local().drain_timeout(Duration::from_millis(300));
    let (report, told) = thread::scope(|scope| {
        let publisher = scope.spawn(move || {
            let mut writer = publisher.recv_timeout(WATCHDOG).unwrap();
            let torn = writer.write_all(&vec![b'm'; MESSAGE]).unwrap_err();
            (torn.kind(), writer)
        });
        let handler = |conn: &mut Connection| {
            publish.send(conn.writer()).unwrap();
            conn.receive(&mut [0]).map(drop)
        };
        serve(server, handler, |running| {
            let client = running.connect();
            eventually("a part of it", || has_sent(running));
            running.stop.set();
            let told = publisher.join().unwrap();
            drop(client);
            told
        })
    });
    let (kind, mut writer) = told;
    assert_eq!(kind, io::ErrorKind::ConnectionAborted);
    assert_eq!((report.cut, report.drained), (1, 0), "{report}");
    assert_eq!(report.sent + report.unsent, MESSAGE as u64, "{report}");
    let late = writer.write_all(b"x").unwrap_err();
    assert_eq!(late.kind(), io::ErrorKind::BrokenPipe);
}

#[test]
fn what_writers_sent_is_counted_to_the_byte() {
    const CLIENTS: usize = 8;
    let (wrote, closed) = (AtomicU64::new(0), Arc::new(AtomicU64::new(0)));
    let told = Arc::clone(&closed);
    let server = local().observe(move |event| {
        if let lastecho::Event::Closed { sent, .. } = event {
            told.fetch_add(*sent, SeqCst);
        }
    });
    let (report, got) = thread::scope(|scope| {
        let write = |mut writer: Writer| {
            while writer.write_all(&[7; 100]).is_ok() {
                wrote.fetch_add(100, SeqCst);
            }
        };
        let handler = |conn: &mut Connection| {
            conn.receive(&mut [0])?;
            for _ in 0..2 {
                let writer = conn.writer();
                scope.spawn(move || write(writer));
            }
            thread::sleep(Duration::from_micros(200));
            Ok(())
        };
        serve(server, handler, |running| {
            let visit = || {
                let mut client = running.connect();
                client.write_all(b"x").unwrap();
                read_to_end(&mut client).unwrap().len() as u64
            };
            thread::scope(|scope| {
                let visits = || (0..150).map(|_| visit()).sum::<u64>();
                let clients = [(); CLIENTS].map(|()| scope.spawn(visits));
                clients.into_iter().map(|c| c.join().unwrap()).sum::<u64>()
            })
        })
    });
    let counts = [report.sent, closed.load(SeqCst), wrote.load(SeqCst)];
    assert_eq!(counts, [got; 3], "{report}");
    assert_eq!(report.unsent, 0, "{report}");
}

/// A part of the first is on its way, and nothing can follow it.
#[test]
fn after_a_message_that_failed_no_other_is_begun() {
    let kinds = Mutex::new(Vec::new());
    let server = local().idle_timeout(Duration::from_millis(300));
    let handler = |conn: &mut Connection| {
        let mut write = |letter| {
            let outcome = conn.write_all(&vec![letter; MESSAGE]);
            kinds.lock().unwrap().push(outcome.unwrap_err().kind());
        };
        write(b'a');
        write(b'b');
        Ok(())
    };
    let (report, ()) = serve(server, handler, |running| {
        let mut client = running.connect();
        eventually("both failed", || kinds.lock().unwrap().len() == 2);
        let got = read_to_end(&mut client).unwrap();
        assert!(got.iter().all(|&letter| letter == b'a'));
    });
    let expected = [io::ErrorKind::TimedOut, io::ErrorKind::BrokenPipe];
    assert_eq!(kinds.into_inner().unwrap(), expected);
    assert_eq!((report.idle, report.accepted), (1, 1), "{report}");
    assert_eq!(report.sent + report.unsent, 2 * MESSAGE as u64, "{report}");
}
