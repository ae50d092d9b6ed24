//! Handlers: what they may borrow, and that their failures stay with them.

use super::{Running, Watchdog, ask, echo_lines, local, read_line, serve};
use crate::harness::{Broken, connect, eventually, noise, read_to_end};
use lastecho::{Connection, Deadline, Event, Stop, Writer};
use std::io::{self, BufRead, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::thread;
use std::time::Duration;

#[test]
fn handlers_borrow_from_the_caller() {
    let greeting = String::from("hello ");
    let (hits, names) = (AtomicU64::new(0), Mutex::new(Vec::new()));
    let handler = |conn: &mut Connection| {
        let mut line = String::new();
        while conn.next()? {
            line.clear();
            conn.read_line(&mut line)?;
            hits.fetch_add(1, SeqCst);
            names.lock().unwrap().push(line.trim_end().to_owned());
            write!(conn, "{greeting}{line}")?;
        }
        Ok(())
    };
    let (report, ()) = serve(local(), handler, |running| {
        for name in ["anna", "bert", "carl"] {
            let answer = ask(&mut running.connect(), &format!("{name}\n"));
            assert_eq!(answer, format!("hello {name}\n"));
        }
    });
    assert_eq!(names.into_inner().unwrap(), ["anna", "bert", "carl"]);
    assert_eq!((hits.into_inner(), report.accepted), (3, 3));
}

/// Answers, then panics or fails if the line says so, in front of unread input.
fn fragile(conn: &mut Connection) -> io::Result<()> {
    let mut line = String::new();
    while conn.next()? {
        line.clear();
        conn.read_line(&mut line)?;
        match line.as_str() {
            "panic\n" => {
                conn.write_all(b"last words\n")?;
                panic!("on purpose");
            }
            "fail\n" => {
                conn.write_all(b"last words\n")?;
                return Err(io::Error::other("failed on purpose"));
            }
            _ => conn.write_all(line.as_bytes())?,
        }
    }
    Ok(())
}

/// Sends the line and much more that nobody will read; returns what came back.
fn provoke(address: SocketAddr, line: &str) -> Result<Vec<u8>, Broken> {
    let mut client = connect(address).unwrap();
    let _ = client.write_all(&[line.as_bytes(), &noise(32 * 1024, 1)].concat());
    read_to_end(&mut client)
}

#[test]
fn a_panic_or_an_error_of_a_handler_stays_with_its_connection() {
    let (report, ()) = serve(local(), fragile, |running| {
        let mut bystander = running.connect();
        assert_eq!(ask(&mut bystander, "before\n"), "before\n");
        for line in ["panic\n", "fail\n", "panic\n"] {
            let heard = provoke(running.address(), line);
            let heard = heard.unwrap_or_else(|broken| panic!("{line}: {broken}"));
            assert_eq!(String::from_utf8_lossy(&heard), "last words\n");
        }
        assert_eq!(ask(&mut bystander, "after\n"), "after\n");
        assert_eq!(ask(&mut running.connect(), "new\n"), "new\n");
    });
    let told = (report.accepted, report.panicked, report.failed);
    assert_eq!(told, (5, 2, 1), "{report}");
    assert!(report.is_clean(), "{report}");
    // The control: scoped threads and plain sockets, as one would write it.
    let (heard, died) = panic_in_a_naive_server();
    println!("control: client: {heard:?}, server died: {died}");
    assert!(matches!(heard, Err(Broken::Reset(_))) && died);
}

fn panic_in_a_naive_server() -> (Result<Vec<u8>, Broken>, bool) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let client = thread::spawn(move || provoke(address, "panic\n"));
    let server = thread::spawn(move || {
        thread::scope(|scope| {
            let (mut socket, _) = listener.accept().unwrap();
            scope.spawn(move || {
                let mut line = [0; 6 + 1024];
                socket.read_exact(&mut line).unwrap();
                socket.write_all(b"last words\n").unwrap();
                panic!("on purpose");
            });
        });
    });
    let died = server.join().is_err();
    (client.join().unwrap(), died)
}

/// A panic's value may panic itself when it is dropped.
struct Bomb;

impl Drop for Bomb {
    fn drop(&mut self) {
        if !thread::panicking() {
            panic!("the panic's value panics");
        }
    }
}

#[test]
fn a_panic_whose_value_panics_stays_with_its_connection() {
    let handler = |conn: &mut Connection| {
        if conn.next()? {
            std::panic::panic_any(Bomb);
        }
        Ok(())
    };
    let (report, ()) = serve(local(), handler, |running| {
        let mut client = running.connect();
        client.write_all(b"x").unwrap();
        assert_eq!(read_to_end(&mut client).unwrap(), b"");
    });
    assert_eq!((report.accepted, report.panicked), (1, 1), "{report}");
}

#[test]
fn a_writer_serves_other_threads_until_the_connection_ends() {
    let writer: Mutex<Option<Writer>> = Mutex::new(None);
    let handler = |conn: &mut Connection| {
        *writer.lock().unwrap() = Some(conn.writer());
        echo_lines(conn)
    };
    let mut sender = None;
    serve(local(), handler, |running| {
        let mut client = running.connect();
        eventually("a writer", || writer.lock().unwrap().is_some());
        let mut other = writer.lock().unwrap().clone().unwrap();
        other.write_all(b"from another thread\n").unwrap();
        assert_eq!(read_line(&mut client), "from another thread\n");
        assert_eq!(ask(&mut client, "still echoed\n"), "still echoed\n");
        drop(client);
        eventually("the end", || running.live.snapshot().is_empty());
        sender = Some(other);
    });
    let error = sender.unwrap().write_all(b"too late\n").unwrap_err();
    assert_eq!(error.kind(), ErrorKind::BrokenPipe);
}

/// Larger than a socket takes at once, so that every write is interrupted.
const BLOCK: usize = 1 << 20;
const BLOCKS: usize = 4;

/// Whether what four threads wrote in blocks of one letter arrived in blocks.
fn is_in_blocks(bytes: &[u8]) -> bool {
    let uniform = |block: &[u8]| block.iter().all(|byte| *byte == block[0]);
    bytes.len() == 4 * BLOCKS * BLOCK && bytes.chunks(BLOCK).all(uniform)
}

/// Four threads, each with a letter and a way to write of its own.
fn write_blocks<W: Write + Send>(writer: impl Fn() -> W) {
    thread::scope(|scope| {
        for letter in b"abcd" {
            let mut writer = writer();
            scope.spawn(move || {
                for _ in 0..BLOCKS {
                    writer.write_all(&vec![*letter; BLOCK]).unwrap();
                }
            });
        }
    });
}

#[test]
fn whole_writes_of_many_threads_do_not_mix() {
    let handler = |conn: &mut Connection| {
        write_blocks(|| conn.writer());
        Ok(())
    };
    let (report, ()) = serve(local(), handler, |running: &Running| {
        let all = read_to_end(&mut running.connect()).unwrap();
        assert!(is_in_blocks(&all), "mixed, or only {} bytes", all.len());
    });
    assert_eq!(report.sent, (4 * BLOCKS * BLOCK) as u64, "{report}");
    let mixed = (1..=20).find(|_| !is_in_blocks(&clones_of_one_socket()));
    println!("control: mixed in trial {mixed:?}");
    assert!(
        mixed.is_some(),
        "the control never mixes, so this shows nothing"
    );
}

/// The control: every thread has a clone of the socket and no lock.
fn clones_of_one_socket() -> Vec<u8> {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut client = connect(listener.local_addr().unwrap()).unwrap();
    let (socket, _) = listener.accept().unwrap();
    let server = thread::spawn(move || write_blocks(|| socket.try_clone().unwrap()));
    let all = read_to_end(&mut client).unwrap();
    server.join().unwrap();
    all
}

#[test]
fn a_handler_that_ignores_everything_holds_run_and_is_named() {
    let (gate, returned) = (Stop::new(), AtomicBool::new(false));
    let (named, naming) = std::sync::mpsc::channel();
    let server = local()
        .drain_timeout(Duration::from_millis(100))
        .observe(move |event| {
            if let Event::Draining {
                left,
                oldest: Some(oldest),
                cut: true,
                ..
            } = event
            {
                let _ = named.send((*left, oldest.id, oldest.state));
            }
        });
    let stop = Stop::new();
    let _watchdog = Watchdog::new();
    let address = server.live().addresses()[0];
    let report = thread::scope(|scope| {
        let run = scope.spawn(|| {
            let report = server.run(&stop, |_| {
                assert!(gate.wait(Deadline::NEVER));
                Ok(())
            });
            returned.store(true, SeqCst);
            report
        });
        let _client = connect(address).unwrap();
        stop.set();
        let named = naming.recv_timeout(crate::harness::WATCHDOG);
        let was_held = !returned.load(SeqCst);
        gate.set();
        assert_eq!(named, Ok((1, 1, lastecho::State::Cut)));
        assert!(was_held, "run returned before its handler");
        run.join().unwrap().unwrap()
    });
    assert_eq!((report.accepted, report.cut), (1, 1), "{report}");
}
