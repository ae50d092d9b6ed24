//! Promise 2: who was connected before the stop is served, also from the
//! accept queue.

use super::{gets, round_trip};
use crate::harness::{Broken, Program, Server, connect, eventually, noise, promise};
use rustix::process::{Signal, kill_process};
use std::io::{ErrorKind, Write};
use std::net::TcpStream;

/// The process stands still while the clients connect, so that none of them
/// can have been accepted before the stop.
fn queue_clients(server: &Server, count: u64) -> Vec<(TcpStream, Vec<u8>)> {
    let clients = (0..count).map(|number| {
        let (mut client, data) = (server.connect(), noise(100, number));
        client.write_all(&data).unwrap();
        (client, data)
    });
    clients.collect()
}

#[test]
fn clients_in_the_accept_queue_are_served() {
    promise(
        "accept queue",
        3,
        |broken| matches!(broken, Broken::Reset(_)),
        |program| {
            let mut server = Server::start(program, &["--poll", "100ms"]);
            kill_process(server.pid(), Signal::STOP).unwrap();
            let mut clients = queue_clients(&server, 100);
            server.signal(Signal::TERM);
            kill_process(server.pid(), Signal::CONT).unwrap();
            for (client, data) in &mut clients {
                gets(client, data)?;
            }
            drop(clients);
            let ended = server.wait();
            if program == Program::Lastecho {
                assert_eq!(ended.count("accepted"), 100, "{ended:?}");
                assert_eq!(ended.count("bytes_out"), 100 * 100, "{ended:?}");
                assert_eq!(ended.code(), Some(0), "{ended:?}");
            }
            Ok(())
        },
    );
}

/// The control knows no limit: it would accept them if it did not stand still.
#[test]
fn clients_that_wait_for_a_slot_are_served() {
    promise(
        "no slot",
        3,
        |broken| matches!(broken, Broken::Reset(_)),
        |program| {
            let options = ["--poll", "100ms", "--max-connections", "1"];
            let mut server = Server::start(program, &options);
            let mut busy = server.connect();
            round_trip(&mut busy, b"the only slot")?;
            if program == Program::Control {
                kill_process(server.pid(), Signal::STOP).unwrap();
            }
            let mut clients = queue_clients(&server, 20);
            server.signal(Signal::TERM);
            kill_process(server.pid(), Signal::CONT).unwrap();
            for (client, data) in &mut clients {
                gets(client, data)?;
            }
            gets(&mut busy, b"")?;
            drop((busy, clients));
            let ended = server.wait();
            assert_eq!(ended.count("accepted"), 21, "{ended:?}");
            assert_eq!(ended.code(), Some(0), "{ended:?}");
            Ok(())
        },
    );
}

/// No promise to break: the control refuses them as well.
#[test]
fn after_the_stop_no_new_client_is_served() {
    let options = ["--poll", "100ms", "--delay", "500ms"];
    let mut server = Server::start(Program::Lastecho, &options);
    let mut slow = server.connect();
    slow.write_all(b"slow").unwrap();
    super::await_arrival(std::slice::from_ref(&slow));
    server.signal(Signal::TERM);
    eventually("a refusal", || match connect(server.address()) {
        Ok(_) => false,
        Err(error) => {
            assert_eq!(error.kind(), ErrorKind::ConnectionRefused);
            true
        }
    });
    assert!(connect(server.address()).is_err());
    gets(&mut slow, b"slow").unwrap_or_else(|broken| panic!("{broken}"));
}
