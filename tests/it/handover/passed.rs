//! What is passed, and what comes of it.

use super::family::{Family, descriptors};
use crate::harness::{connect, eventually, free_port, read_to_end};
use std::collections::BTreeMap;
use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::process::CommandExt;
use std::time::Duration;

const LASTECHO: &str = env!("CARGO_BIN_EXE_lastecho");

pub(super) fn echoes(address: SocketAddr) {
    let mut client = connect(address).unwrap();
    client.write_all(b"hello").unwrap();
    let mut echo = [0; 5];
    client.read_exact(&mut echo).unwrap();
    assert_eq!(&echo, b"hello");
}

/// Descriptors by what they are, without their numbers.
fn kinds(pid: rustix::process::Pid) -> BTreeMap<String, usize> {
    let mut kinds = BTreeMap::new();
    for (_, target) in descriptors(pid) {
        let target = target.to_string_lossy();
        let kind = target.split(['[', '#']).next().unwrap_or_default();
        *kinds.entry(kind.to_owned()).or_default() += 1;
    }
    kinds
}

#[test]
fn a_successor_has_what_its_predecessor_had_and_no_more() {
    let mut family = Family::start(&["127.0.0.1:0", "127.0.0.1:0"]);
    let first = family.youngest();
    let before = kinds(first);
    let clients: Vec<TcpStream> = (0..5).map(|_| family.connect()).collect();
    let second = family.hand_over();
    // Those clients are the predecessor's, and it drains.
    // Its socket to the predecessor closes when it has heard the last word.
    let mut after = kinds(second);
    for _ in 0..100 {
        if after != before {
            std::thread::sleep(Duration::from_millis(20));
            after = kinds(second);
        }
    }
    assert_eq!(after, before, "{:?}", descriptors(second));
    let cwd = |pid| std::fs::read_link(format!("/proc/{pid}/cwd")).unwrap();
    let arguments = |pid| std::fs::read(format!("/proc/{pid}/cmdline")).unwrap();
    let ours = std::env::current_dir().unwrap();
    assert_eq!(cwd(second), ours);
    assert_eq!(
        arguments(second),
        arguments(family.members[0]).as_slice(),
        "other arguments"
    );
    drop(clients);
    family.stop();
}

#[test]
fn the_same_addresses_stay_port_0_included() {
    let asked = ["127.0.0.1:0", "127.0.0.1:0", "127.0.0.2:0"];
    let mut family = Family::start(&asked);
    let announced = |family: &Family, count| {
        eventually("all are announced", || family.addresses().len() == count);
        family.addresses()
    };
    let before = announced(&family, asked.len());
    family.hand_over();
    let after = announced(&family, 2 * asked.len())[asked.len()..].to_vec();
    assert_eq!(before, after);
    for address in after {
        echoes(address);
    }
    family.stop();
}

#[test]
fn as_many_listeners_as_can_be_passed_are_handed_over() {
    let mut family = Family::start(&["127.0.0.1:0"; 256]);
    family.hand_over();
    family.stop();

    let family = Family::start(&["127.0.0.1:0"; 257]);
    let why = family.fail_to_hand_over();
    assert_eq!(why, "257 listeners are more than can be passed (256)");
}

#[test]
fn an_address_that_is_no_longer_asked_for_is_closed_and_a_new_one_bound() {
    let (one, two, three) = (free_port(), free_port(), free_port());
    let at = |port: u16| SocketAddr::from(([127, 0, 0, 1], port));
    let mut family = Family::start(&[&one.to_string(), &two.to_string()]);
    family.replace(&format!("#!/bin/sh\nexec {LASTECHO} {two} {three}"));
    let first = family.youngest();
    family.hand_over();
    family.wait(first);
    echoes(at(two));
    echoes(at(three));
    let error = connect(at(one)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ConnectionRefused);
    let log = family.log();
    assert!(
        log.contains(&format!("nothing asks for 127.0.0.1:{one}")),
        "{log}"
    );
    family.stop();
}

#[test]
fn older_ones_drain_while_younger_ones_hand_over() {
    let options = ["--delay", "1s", "--poll", "100ms", "127.0.0.1:0"];
    let mut family = Family::start(&options);
    let mut slow: Vec<TcpStream> = Vec::new();
    for _ in 0..3 {
        let mut client = family.connect();
        client.write_all(b"slow").unwrap();
        std::thread::sleep(Duration::from_millis(50));
        slow.push(client);
        family.hand_over();
    }
    for client in &mut slow {
        assert_eq!(read_to_end(client).unwrap(), b"slow");
    }
    assert_eq!(family.stop().len(), 4);
}

#[test]
fn the_program_is_found_whatever_it_was_called() {
    for name in ["lastecho", "nonsense", "", "-lastecho", "./lastecho"] {
        // A shell finds `lastecho` on the path; a login shell is called `-sh`;
        // others are called what their starter likes.
        let mut family = Family::start_with(&["127.0.0.1:0"], |command| {
            let program = std::path::PathBuf::from(command.get_program());
            command.arg0(name).env("PATH", program.parent().unwrap());
        });
        family.hand_over();
        let cmdline = std::fs::read(format!("/proc/{}/cmdline", family.youngest())).unwrap();
        assert_eq!(
            cmdline.split(|&byte| byte == 0).next(),
            Some(name.as_bytes())
        );
        family.stop();
    }
}

#[test]
fn an_embedded_server_restarts_in_a_few_lines() {
    let program = crate::harness::example("restart");
    let mut family = Family::of(&program, &["127.0.0.1:0"], |_| {});
    let ask = |family: &Family| {
        let mut client = family.connect();
        client.write_all(b"who?\n").unwrap();
        let mut answer = [0; 64];
        let length = client.read(&mut answer).unwrap();
        String::from_utf8_lossy(&answer[..length]).into_owned()
    };
    let first = family.youngest();
    assert_eq!(ask(&family), format!("process {first}: who?\n"));
    let second = family.hand_over();
    family.wait(first);
    assert_eq!(ask(&family), format!("process {second}: who?\n"));
    family.stop();
}

/// The old one's threads wait in accept for up to a poll interval: none of them
/// may take a client that comes after the handover, and end it soon.
#[test]
fn who_comes_after_a_handover_is_the_successors_to_serve() {
    let mut family = Family::start(&["--poll", "1s", "127.0.0.1:0"]);
    // So that many threads wait.
    let before: Vec<TcpStream> = (0..20).map(|_| family.connect()).collect();
    drop(before);
    let first = family.youngest();
    family.hand_over();
    std::thread::sleep(Duration::from_millis(100));
    let after: Vec<TcpStream> = (0..20).map(|_| family.connect()).collect();
    family.wait(first);
    for mut client in after {
        client.write_all(b"still open").unwrap();
        client.read_exact(&mut [0; 10]).unwrap();
    }
    let accepted: Vec<_> = super::family::told(&family.stdout())
        .iter()
        .map(|told| told["accepted"].clone())
        .collect();
    assert_eq!(accepted, ["20"]);
    family.stop();
}

/// With a poll interval of an hour, too, and where a stop has no end of its own.
#[test]
fn no_thread_waits_for_longer_than_a_handover_may_take() {
    let options = [
        "--poll",
        "1h",
        "--drain-timeout",
        "none",
        "--handover-timeout",
        "10s",
    ];
    let mut family = Family::start(&[&options[..], &["127.0.0.1:0"]].concat());
    let before: Vec<TcpStream> = (0..20).map(|_| family.connect()).collect();
    drop(before);
    for _ in 0..2 {
        let predecessor = family.youngest();
        family.hand_over();
        std::thread::sleep(Duration::from_millis(100));
        let after: Vec<TcpStream> = (0..20).map(|_| family.connect()).collect();
        // Without a client that would wake it.
        assert_eq!(family.wait(predecessor).exit_status(), Some(0));
        for mut client in after {
            client.write_all(b"still open").unwrap();
            client.read_exact(&mut [0; 10]).unwrap();
        }
    }
    assert_eq!(family.stop().len(), 3);
}
