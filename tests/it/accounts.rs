//! What is told is what happened, where that is hard to know.

use crate::harness::{Program, Server, connect, eventually, noise, read_to_end};
use rustix::process::{Resource, Rlimit, Signal, prlimit};
use socket2::SockRef;
use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

/// A client whose kernel takes little at a time, so that the rest waits in the
/// server's send queue.
fn narrow_client(server: &Server) -> TcpStream {
    let client = server.connect();
    SockRef::from(&client)
        .set_recv_buffer_size(16 * 1024)
        .unwrap();
    client
}

#[test]
fn a_client_that_pauses_longer_than_a_linger_is_not_told_as_loss() {
    let server = Server::start(Program::Lastecho, &[]);
    let mut client = narrow_client(&server);
    let data = noise(1_000_000, 1);
    client.write_all(&data).unwrap();
    client.shutdown(Shutdown::Write).unwrap();
    thread::sleep(Duration::from_millis(5_500)); // the linger's 5 s are the subject
    assert_eq!(read_to_end(&mut client).unwrap(), data);
    let ended = server.stop();
    assert_eq!(ended.code(), Some(0), "{ended:?}");
    assert_eq!(ended.count("bytes_out"), data.len() as u64, "{ended:?}");
    assert_eq!(ended.count("bytes_lost"), 0, "{ended:?}");
}

#[test]
fn the_idle_timeout_leaves_a_client_alone_that_takes_its_echo_slowly() {
    let server = Server::start(
        Program::Lastecho,
        &["--idle-timeout", "2s", "--poll", "100ms"],
    );
    let mut client = narrow_client(&server);
    let data = noise(600_000, 2);
    client.write_all(&data).unwrap();
    let begun = Instant::now();
    let mut echoed = vec![0; data.len()];
    for part in echoed.chunks_mut(data.len() / 25) {
        client.read_exact(part).unwrap();
        thread::sleep(Duration::from_millis(200)); // slow for several idle timeouts
    }
    assert!(begun.elapsed() > Duration::from_secs(4));
    assert_eq!(echoed, data);
    // Now it moves nothing, and is ended by FIN.
    assert!(read_to_end(&mut client).unwrap().is_empty());
    drop(client);
    let ended = server.stop();
    assert_eq!(
        (ended.count("idle"), ended.count("bytes_lost")),
        (1, 0),
        "{ended:?}"
    );
}

#[test]
fn whoever_waits_at_the_deadline_without_descriptors_left_is_counted_as_refused() {
    let mut server = Server::start(Program::Lastecho, &["--drain-timeout", "500ms"]);
    let open = std::fs::read_dir(format!("/proc/{}/fd", server.pid().as_raw_nonzero())).unwrap();
    let limit = Some(open.count() as u64);
    let none_left = Rlimit {
        current: limit,
        maximum: limit,
    };
    prlimit(Some(server.pid()), Resource::Nofile, none_left).unwrap();
    let mut clients: Vec<_> = (0..3).map(|_| server.connect()).collect();
    for client in &mut clients {
        client.write_all(b"hi").unwrap();
    }
    server.await_log("accepting on");
    server.signal(Signal::TERM);
    let ended = server.wait();
    assert_eq!(ended.code(), Some(3), "{ended:?}");
    assert_eq!(ended.told["clean"], "false", "{ended:?}");
    // A hole among its descriptors may have let one or another in.
    let told = ended.count("accepted") + ended.count("refused");
    assert!(told == 3 && ended.count("refused") > 0, "{ended:?}");
}

#[test]
fn tiny_intervals_do_not_burn_the_processor() {
    for options in [["--poll", "1ns"], ["--drain-timeout", "1ns"]] {
        let server = Server::start(Program::Lastecho, &options);
        let _idle = [
            connect(server.address()).unwrap(),
            connect(server.address()).unwrap(),
        ];
        let ticks = || {
            let stat =
                std::fs::read_to_string(format!("/proc/{}/stat", server.pid().as_raw_nonzero()));
            let stat = stat.unwrap();
            let fields: Vec<_> = stat
                .rsplit(')')
                .next()
                .unwrap()
                .split_whitespace()
                .collect();
            // utime and stime, in hundredths of a second (proc(5))
            fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap()
        };
        let (before, begun) = (ticks(), Instant::now());
        eventually("a second passed", || {
            begun.elapsed() > Duration::from_secs(1)
        });
        let used = Duration::from_millis(10 * (ticks() - before));
        let all = begun.elapsed();
        println!("{options:?}: {used:?} of {all:?}");
        assert!(used < all * 3 / 10, "{options:?}: {used:?} of {all:?}");
    }
}
