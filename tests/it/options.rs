//! Every option does what its table says. The larger families are in files of
//! their own; here is what stands alone.

mod addresses;
mod limits;
mod times;
mod words;

use crate::harness::{Program, Server, eventually, once_within, read_to_end};
use rustix::process::Signal;
use std::fs;
use std::io::{Read, Write};
use std::net::Shutdown;
use std::process::Command;
use std::time::{Duration, Instant};

#[test]
fn after_so_many_connections_it_stops_by_itself() {
    let mut server = Server::start(Program::Lastecho, &["--exit-after", "3"]);
    for number in 0..3_u8 {
        assert!(server.is_running(), "ended before connection {number}");
        let mut client = server.connect();
        client.write_all(&[number]).unwrap();
        client.shutdown(Shutdown::Write).unwrap();
        assert_eq!(read_to_end(&mut client).unwrap(), [number]);
    }
    let ended = server.wait();
    assert_eq!(ended.code(), Some(0), "{ended:?}");
    assert_eq!((ended.count("accepted"), ended.count("bytes_out")), (3, 3));
}

#[test]
fn after_so_many_connections_the_stop_is_graceful() {
    let server = Server::start(Program::Lastecho, &["--exit-after", "1", "--poll", "100ms"]);
    let mut stays = server.connect();
    stays.write_all(b"still here").unwrap();
    stays.read_exact(&mut [0; 10]).unwrap();
    let mut leaves = server.connect();
    leaves.write_all(b"bye").unwrap();
    leaves.shutdown(Shutdown::Write).unwrap();
    assert_eq!(read_to_end(&mut leaves).unwrap(), b"bye");
    assert!(read_to_end(&mut stays).unwrap().is_empty());
    drop(stays);
    let ended = server.wait();
    assert_eq!(
        (ended.code(), ended.count("drained")),
        (Some(0), 1),
        "{ended:?}"
    );
}

/// The sizes of the reads, from the dump.
fn largest_read(buffer: &str, bytes: usize) -> usize {
    let server = Server::start(Program::Lastecho, &["-vv", "--buffer", buffer]);
    let mut client = server.connect();
    let data = vec![b'x'; bytes];
    client.write_all(&data).unwrap();
    client.shutdown(Shutdown::Write).unwrap();
    assert_eq!(read_to_end(&mut client).unwrap(), data);
    let log = server.stop().stderr;
    let sizes = log.lines().filter_map(|line| {
        let (_, size) = line
            .strip_suffix(" bytes")
            .or_else(|| line.strip_suffix(" byte"))?
            .rsplit_once(": ")?;
        size.parse::<usize>().ok()
    });
    sizes.max().unwrap_or_else(|| panic!("no reads in {log}"))
}

#[test]
fn no_read_is_larger_than_the_buffer() {
    assert_eq!(largest_read("16", 1000), 16);
    assert_eq!(largest_read("1B", 10), 1);
    assert_eq!(largest_read("3KiB", 50_000), 3072);
}

/// The timer of an idle connection, from /proc/net/tcp: kind 2 is keepalive
/// (proc_pid_net(5), in hundredths of a second).
#[test]
fn keepalive_is_on() {
    let server = Server::start(Program::Lastecho, &[]);
    let mut client = server.connect();
    client.write_all(b"x").unwrap();
    client.read_exact(&mut [0]).unwrap();
    let (ours, theirs) = (server.address().port(), client.local_addr().unwrap().port());
    let ends = format!("0100007F:{ours:04X} 0100007F:{theirs:04X} 01 ");
    let mut timer = String::new();
    // Until our data is acknowledged another timer shows.
    eventually("the keepalive timer", || {
        let table = fs::read_to_string("/proc/net/tcp").unwrap();
        let line = table.lines().find(|line| line.contains(&ends));
        let line = line.unwrap_or_else(|| panic!("no {ends} in {table}"));
        timer = line.split_whitespace().nth(5).unwrap().to_owned();
        timer.starts_with("02:")
    });
    let left = u32::from_str_radix(&timer[3..], 16).unwrap();
    println!("keepalive in {left} hundredths of a second");
    assert!(left > 1_000 && left <= 6_100, "{timer}");
}

#[test]
fn the_server_is_ready_in_no_time() {
    once_within(Duration::from_millis(250), "ready", || {
        let begun = Instant::now();
        let server = Server::start(Program::Lastecho, &[]);
        let took = begun.elapsed();
        drop(server);
        took
    });
}

#[test]
fn the_soft_limit_of_descriptors_is_raised_to_the_hard_one() {
    let mut command = Command::new("sh");
    command.args(["-c", "ulimit -S -n 64; exec \"$@\"", "sh"]);
    command.arg(Program::Lastecho.path()).arg("127.0.0.1:0");
    let mut server = Server::spawn(command, 1);
    let path = format!("/proc/{}/limits", server.pid().as_raw_nonzero());
    let limits = fs::read_to_string(path).unwrap();
    let line = limits
        .lines()
        .find(|line| line.starts_with("Max open files"));
    let values: Vec<_> = line.unwrap().split_whitespace().skip(3).take(2).collect();
    assert_eq!(values[0], values[1], "{limits}");
    assert_ne!(values[0], "64");
    server.signal(Signal::TERM);
    assert_eq!(server.wait().code(), Some(0));
}
