//! Writers: whole messages from many threads, and none torn by an end.

use super::{local, serve};
use crate::harness::{connect, read_to_end};
use lastecho::Connection;
use std::io::{self, Write};
use std::net::TcpListener;
use std::sync::{Arc, Mutex};
use std::thread;

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
