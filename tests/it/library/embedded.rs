//! The examples for those who embed a server, as people run them.

use super::programs::start;
use super::{ask, read_line};
use crate::harness::{Server, example, read_to_end};
use rustix::process::Signal;
use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::process::Command;
use std::time::{SystemTime, UNIX_EPOCH};

/// Its own tests, which people run with `cargo test --example`.
#[allow(dead_code)] // its program is run as one, below
#[path = "../../../examples/tested_handler.rs"]
mod tested_handler;

fn start_with(name: &str, arguments: &[&str], listeners: usize) -> Server {
    let mut command = Command::new(example(name));
    command.args(arguments);
    Server::spawn(command, listeners)
}

/// It ends in order and says so, and so do these clients' connections.
#[track_caller]
fn assert_stops(server: Server, accepted: u32, clients: Vec<TcpStream>) {
    let ended = server.stop();
    assert_eq!(ended.code(), Some(0), "{ended:?}");
    let report = format!("clean=true accepted={accepted} ");
    assert!(ended.stdout.contains(&report), "{ended:?}");
    for mut client in clients {
        assert_eq!(read_to_end(&mut client).unwrap(), b"");
    }
}

/// A client of the chat room that is in it.
fn enter(server: &Server) -> TcpStream {
    let mut client = server.connect();
    assert!(read_line(&mut client).ends_with(": is here\n"));
    client
}

#[test]
fn in_the_chat_room_all_read_what_one_says() {
    let server = start("chat");
    let mut clients = [enter(&server), enter(&server), enter(&server)];
    for (at, client) in clients.iter_mut().enumerate() {
        for number in at + 2..=3 {
            assert_eq!(read_line(client), format!("{number}: is here\n"));
        }
    }
    clients[1].write_all(b"hello\r\n").unwrap();
    for client in &mut clients {
        assert_eq!(read_line(client), "2: hello\n");
    }
    let [mut first, mut second, mut third] = clients;
    third.shutdown(Shutdown::Write).unwrap();
    assert_eq!(read_to_end(&mut third).unwrap(), b"");
    for client in [&mut first, &mut second] {
        assert_eq!(read_line(client), "3: has left\n");
    }
    let ended = server.stop();
    let report = "clean=true accepted=3 ";
    assert!(ended.stdout.contains(report), "{ended:?}");
    for client in [&mut first, &mut second] {
        // Who leaves first is seen off by who leaves later.
        let last = String::from_utf8(read_to_end(client).unwrap()).unwrap();
        assert!(
            last.lines().all(|line| line.ends_with(": has left")),
            "{last}"
        );
    }
}

/// Neither of the two reads; what is said to them is lost, and nothing waits.
#[test]
fn in_the_chat_room_a_client_that_does_not_read_holds_nobody_up() {
    let server = start("chat");
    let (mut talker, deaf) = (enter(&server), enter(&server));
    let line = format!("{}\n", "x".repeat(1000));
    for _ in 0..45_000 {
        // More than the kernel keeps for a client.
        talker.write_all(line.as_bytes()).unwrap();
    }
    drop((talker, deaf)); // with a reset, which ends what writes to them
    assert_stops(server, 2, Vec::new());
}

#[test]
fn the_small_services_do_what_their_rfcs_say_and_stop_together() {
    let server = start_with("small_services", &["0"], 4);
    let [discard, daytime, chargen, time] = server.addresses[..] else {
        panic!("{:?}", server.addresses);
    };
    let connect = |address| crate::harness::connect(address).unwrap();
    let mut client = connect(discard);
    client.write_all(&[b'x'; 100_000]).unwrap();
    client.shutdown(Shutdown::Write).unwrap();
    assert_eq!(read_to_end(&mut client).unwrap(), b"");

    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap()
        .as_secs();
    let told = read_to_end(&mut connect(time)).unwrap();
    let told = u64::from(u32::from_be_bytes(told.try_into().unwrap()));
    // 1900 to 1970 has 17 leap years (RFC 868); good until 2036.
    let since_1970 = told - (70 * 365 + 17) * 86_400;
    assert!((now..now + 120).contains(&since_1970), "{now} {since_1970}");
    let line = String::from_utf8(read_to_end(&mut connect(daytime)).unwrap()).unwrap();
    let told = humantime::parse_rfc3339(line.strip_suffix("\r\n").unwrap()).unwrap();
    let told = told.duration_since(UNIX_EPOCH).unwrap().as_secs();
    assert!((now..now + 120).contains(&told), "{line}");

    let mut reader = connect(chargen);
    for first in 0..200 {
        let line = read_line(&mut reader);
        let expected: String = (' '..='~').cycle().skip(first % 95).take(72).collect();
        assert_eq!(line, expected + "\r\n", "{first}");
    }
    let idle = connect(discard);
    let ended = std::thread::spawn(|| server.stop());
    read_to_end(&mut reader).unwrap();
    drop(idle);
    let ended = ended.join().unwrap();
    assert_eq!(ended.code(), Some(0), "{ended:?}");
    assert_eq!(ended.stdout.matches("clean=true ").count(), 4, "{ended:?}");
}

#[test]
fn a_server_beside_a_main_loop_ends_with_it_and_the_loop_with_the_server() {
    let server = start("own_main_loop");
    let mut client = server.connect();
    let load = ask(&mut client, "?\n");
    let numbers = load.split(' ').take(3);
    assert_eq!(numbers.flat_map(str::parse::<f64>).count(), 3, "{load}");
    assert_stops(server, 1, vec![client]);

    // The loop ends by itself, after two samples.
    let server = start_with("own_main_loop", &["127.0.0.1:0", "2"], 1);
    let ended = server.wait();
    assert_eq!(ended.code(), Some(0), "{ended:?}");
    assert!(ended.stdout.ends_with("sampled 2 times\n"), "{ended:?}");
    assert!(ended.stdout.contains("clean=true "), "{ended:?}");
}

#[test]
fn a_program_with_its_own_signals_gives_each_its_meaning() {
    let mut server = start("own_signals");
    let mut client = server.connect();
    assert_eq!(ask(&mut client, "hello\n"), "1: hello\n");
    server.signal(Signal::HUP);
    crate::harness::eventually("the second version", || {
        ask(&mut client, "hello\n") == "2: hello\n"
    });
    assert_stops(server, 1, vec![client]);
    for (signal, clean) in [
        (Signal::INT, true),
        (Signal::INT, false),
        (Signal::QUIT, false),
    ] {
        let mut server = start("own_signals");
        let mut client = server.connect();
        assert_eq!(ask(&mut client, "hello\n"), "1: hello\n");
        if !clean {
            client.write_all(b"half a li").unwrap(); // and no more: it is cut
        }
        // An answer on another connection: the half line has arrived as well.
        let mut other = server.connect();
        assert_eq!(ask(&mut other, "hello\n"), "1: hello\n");
        drop(other);
        server.signal(signal);
        if clean {
            drop(client);
        }
        let ended = server.wait();
        let report = format!("clean={clean} accepted=2 ");
        assert!(ended.stdout.contains(&report), "{signal:?}: {ended:?}");
        let cut = format!(" cut={} ", u32::from(!clean));
        assert!(ended.stdout.contains(&cut), "{signal:?}: {ended:?}");
    }
}

#[test]
fn the_tested_handler_runs_as_a_server_too() {
    let server = start("tested_handler");
    let mut client = server.connect();
    assert_eq!(ask(&mut client, "2147483647 1\n"), "2147483648\n");
    assert_eq!(ask(&mut client, "\n"), "0\n");
    let mut bytes = [0; 4];
    client.write_all(b"one\n").unwrap();
    client.read_exact(&mut bytes).unwrap();
    assert_eq!(&bytes, b"ERR\n");
    assert_stops(server, 1, vec![client]);
}
