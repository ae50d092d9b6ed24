//! The idle timeout: what is silence, and what a handler makes of it.

use super::{local, read_line, serve};
use crate::harness::read_to_end;
use lastecho::{Connection, Ending};
use socket2::{Domain, Socket, Type};
use std::io::{self, BufRead, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Mutex;
use std::thread;
use std::time::Duration;

const ANSWER: usize = 600_000;

/// A client to which the kernel passes little at once.
fn connect_narrow(address: SocketAddr) -> TcpStream {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    socket.set_recv_buffer_size(8192).unwrap();
    socket.connect(&address.into()).unwrap();
    socket.into()
}

#[test]
fn a_client_that_downloads_steadily_while_the_handler_is_busy_is_not_silent() {
    let timeout = Duration::from_millis(800);
    let handler = |conn: &mut Connection| {
        let mut line = String::new();
        while conn.next()? {
            conn.read_line(&mut line)?;
            conn.write_all(&vec![b'x'; ANSWER])?;
            // Longer than the timeout, and shorter than the download.
            thread::sleep(timeout * 5 / 4);
        }
        Ok(())
    };
    let (report, ()) = serve(local().idle_timeout(timeout), handler, |running| {
        let mut client = connect_narrow(running.address());
        for request in [b"first\n".as_slice(), b"second\n"] {
            client.write_all(request).unwrap();
            let mut got = 0;
            while got < ANSWER {
                thread::sleep(timeout / 20);
                let count = client.read(&mut [0; 20_000]).unwrap();
                assert!(count > 0, "ended after {got} bytes of {request:?}");
                got += count;
            }
        }
    });
    assert_eq!((report.accepted, report.idle), (1, 0), "{report}");
}

/// Asks for as long as nothing comes; `last` are its words when it gives up.
fn patient(conn: &mut Connection, times: u32, last: &str) -> io::Result<()> {
    conn.next()?;
    let mut line = Vec::new();
    for _ in 0..times {
        match conn.read_until(b'\n', &mut line) {
            Err(error) if error.kind() == ErrorKind::TimedOut => conn.write_all(b"well?\n")?,
            outcome => return outcome.map(drop),
        }
    }
    conn.write_all(last.as_bytes())
}

#[test]
fn a_silence_that_the_handler_and_the_client_survived_is_not_how_it_ended() {
    let handler = |conn: &mut Connection| patient(conn, 1000, "");
    let server = local().idle_timeout(Duration::from_millis(50));
    let (report, ()) = serve(server, handler, |running| {
        let mut client = running.connect();
        client.write_all(b"half a li").unwrap();
        assert_eq!(read_line(&mut client), "well?\n");
        client.write_all(b"ne\n").unwrap();
        assert!(read_to_end(&mut client).unwrap().len().is_multiple_of(6));
    });
    assert_eq!((report.accepted, report.idle), (1, 0), "{report}");
}

#[test]
fn last_words_to_a_silent_client_do_not_hide_why_it_was_ended() {
    let handler = |conn: &mut Connection| patient(conn, 1, "good bye\n");
    let server = local().idle_timeout(Duration::from_millis(50));
    let (report, ()) = serve(server, handler, |running| {
        let mut client = running.connect();
        client.write_all(b"half a li").unwrap();
        assert_eq!(read_to_end(&mut client).unwrap(), b"well?\ngood bye\n");
    });
    assert_eq!((report.accepted, report.idle), (1, 1), "{report}");
}

/// The same between requests: what `next` said of the client holds no longer.
#[test]
fn a_client_that_speaks_after_all_may_have_a_further_request() {
    let endings = Mutex::new(Vec::new());
    let handler = |conn: &mut Connection| {
        while conn.next()? {}
        let silent = conn.ending();
        conn.write_all(b"well?\n")?;
        while let Err(error) = conn.read_exact(&mut [0]) {
            assert_eq!(error.kind(), ErrorKind::TimedOut);
        }
        endings.lock().unwrap().extend([silent, conn.ending()]);
        Ok(())
    };
    let server = local().idle_timeout(Duration::from_millis(50));
    let (report, ()) = serve(server, handler, |running| {
        let mut client = running.connect();
        assert_eq!(read_line(&mut client), "well?\n");
        client.write_all(b"x").unwrap();
        assert_eq!(read_to_end(&mut client).unwrap(), b"");
    });
    assert_eq!(endings.into_inner().unwrap(), [Some(Ending::Idle), None]);
    assert_eq!((report.accepted, report.idle), (1, 0), "{report}");
}
