//! A health check's exit status, and what cannot be asked for.

use super::service::{Script, Service, take};
use super::{SIZE, command, lastecho, ping};
use crate::harness::{Program, Server, run_to_end};
use std::io::{Read, Write};
use std::net::TcpListener;

/// Only the summary, and a status that is not 0 unless all is well.
const CHECK: &str = "-c 1 -q";

#[test]
fn a_server_that_echoes_is_healthy() {
    let server = lastecho(&[]);
    let pinged = ping(server.address(), CHECK);
    assert_eq!(pinged.status, Some(0), "{pinged:?}");
    pinged.assert_counts(&[("sent", 1), ("echoed", 1)]);
    assert!(
        pinged.told(1).is_empty() && pinged.stderr.is_empty(),
        "{pinged:?}"
    );
    assert_eq!(pinged.stdout.lines().count(), 4, "{pinged:?}");
}

/// At once: nobody waits ten minutes here.
#[test]
fn a_port_that_refuses_is_not_healthy() {
    let closed = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = closed.local_addr().unwrap();
    drop(closed);
    let pinged = ping(address, "-c 1 -q -W 10m");
    assert_eq!(pinged.status, Some(1), "{pinged:?}");
    pinged.assert_counts(&[("unreachable", 1)]);
    let told = format!("cannot connect to {address}: Connection refused");
    assert!(pinged.stderr.contains(&told), "{pinged:?}");
}

#[test]
fn a_server_that_hangs_is_not_healthy() {
    // Connected by the kernel, and never accepted.
    let hangs = TcpListener::bind("127.0.0.1:0").unwrap();
    let pinged = ping(hangs.local_addr().unwrap(), "-c 1 -q -W 0.2");
    assert_eq!(pinged.status, Some(1), "{pinged:?}");
    pinged.assert_counts(&[("sent", 1), ("lost", 1)]);
}

#[test]
fn a_server_that_answers_something_else_is_worse() {
    const SCRIPTS: &[Script] = &[|client| {
        let mut message = take(client);
        message.reverse();
        client.write_all(&message).unwrap();
        let _ = client.read(&mut [0]);
    }];
    let service = Service::start(SCRIPTS);
    let pinged = ping(service.address, CHECK);
    assert_eq!(pinged.status, Some(2), "{pinged:?}");
    pinged.assert_counts(&[("sent", 1), ("mismatched", 1)]);
}

/// As nc, telnet and ncat take it.
#[test]
fn a_host_and_a_port_are_one_target() {
    let server = Server::start(Program::Lastecho, &[]);
    let port = server.address().port().to_string();
    let output = run_to_end(&mut command(&port, "-c 1 127.0.0.1"), b"");
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    assert_eq!(server.stop().count("bytes_in"), SIZE);
}

#[test]
fn what_cannot_be_asked_for_is_refused_in_one_line() {
    for (target, options, names) in [
        ("7", "-c 0", "0"),
        ("7", "-c -1", "-1"),
        ("7", "-i soon", "soon"),
        ("7", "-i -1s", "-1s"),
        ("7", "-W 0", "--timeout"),
        ("7", "-s 0", "--size"),
        ("7", "-s 17MiB", "16.0 MiB"),
        ("7", "-n 0", "--connections"),
        ("7", "-n 1000000000", "-n 1000000000"),
        ("7", "-f -i 1s", "--interval"),
        ("7", "--what", "--what"),
        ("7", "8", "two addresses"),
        ("7", "host:7", "two addresses"),
        ("7", "host 8", "'7'"),
        ("0xBEEF", "", "write 48879"),
        ("7000-7010", "", "name each"),
        ("0", "", "port 0"),
        ("localhost:0", "", "port 0"),
        ("65536", "", "65536"),
        ("256.1.1.1:7", "", "256.1.1.1"),
        ("nohost.invalid:7", "", "nohost.invalid:7"),
        ("a b", "", "a b"),
    ] {
        let output = run_to_end(&mut command(target, options), b"");
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert_eq!(
            output.status.code(),
            Some(2),
            "{target} {options}: {stderr}"
        );
        assert!(output.stdout.is_empty(), "{target} {options}");
        assert_eq!(stderr.lines().count(), 1, "{target} {options}: {stderr}");
        assert!(
            stderr.starts_with("lastecho-ping: ") && stderr.contains(names),
            "{target} {options}: {stderr}"
        );
    }
}

#[test]
fn the_readme_has_a_row_for_every_option_and_every_count() {
    let readme = include_str!("../../../README.md");
    let section = readme.split("\n## lastecho-ping\n").nth(1).unwrap();
    let section = section.split("\n## ").next().unwrap();
    let help = run_to_end(&mut command("7", "--help"), b"").stdout;
    let help = String::from_utf8(help).unwrap();
    let lines = help.lines().filter(|line| line.starts_with("  -"));
    let options =
        lines.filter_map(|line| line.split_whitespace().find(|word| word.starts_with("--")));
    let options: Vec<_> = options.collect();
    assert!(options.len() > 8, "{help}");
    let server = lastecho(&[]);
    let pinged = ping(server.address(), CHECK);
    let counts = pinged.counts.keys().map(String::as_str);
    for name in options.into_iter().chain(counts) {
        let row = |line: &str| line.starts_with("| `") && line.contains(name);
        assert!(section.lines().any(row), "no row for {name}");
    }
}
