//! Where the server listens, in every form in which people write it.

use crate::harness::{Program, Server, connect, eventually, free_port, noise, read_to_end, text};
use rustix::process::{Pid, Signal, kill_process};
use std::io::{BufRead, BufReader, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, Shutdown, SocketAddr, TcpListener, ToSocketAddrs};
use std::process::{Command, Stdio};
use std::thread;

fn has_ipv6() -> bool {
    TcpListener::bind((Ipv6Addr::LOCALHOST, 0)).is_ok()
}

fn assert_echoes(address: SocketAddr) {
    let data = noise(1000, u64::from(address.port()));
    let mut client = connect(address).unwrap_or_else(|error| panic!("{address}: {error}"));
    client.write_all(&data).unwrap();
    client.shutdown(Shutdown::Write).unwrap();
    let echo = read_to_end(&mut client).unwrap_or_else(|broken| panic!("{address}: {broken}"));
    assert_eq!(echo, data, "{address}");
}

fn listening(address: &str, listeners: usize, options: &[&str]) -> Server {
    let mut command = Command::new(Program::Lastecho.path());
    command.args(options).arg(address);
    Server::spawn(command, listeners)
}

#[test]
fn an_ip_and_a_port_are_one_address() {
    let port = free_port();
    let server = listening(&format!("127.0.0.1:{port}"), 1, &[]);
    assert_eq!(server.address(), (Ipv4Addr::LOCALHOST, port).into());
    assert_echoes(server.address());
    assert_eq!(server.stop().code(), Some(0));
}

#[test]
fn an_ipv6_address_stands_in_brackets() {
    if !has_ipv6() {
        println!("no IPv6 on this machine: nothing to see");
        return;
    }
    let port = free_port();
    let server = listening(&format!("[::1]:{port}"), 1, &[]);
    assert_eq!(server.address(), (Ipv6Addr::LOCALHOST, port).into());
    assert_echoes(server.address());
    assert_eq!(server.stop().code(), Some(0));
}

#[test]
fn a_host_is_all_of_its_addresses() {
    let port = free_port();
    let mut expected: Vec<_> = ("localhost", port).to_socket_addrs().unwrap().collect();
    let unique: std::collections::BTreeSet<_> = expected.iter().copied().collect();
    expected.retain(|address| TcpListener::bind((address.ip(), 0)).is_ok());
    let server = listening(&format!("localhost:{port}"), unique.len(), &[]);
    for address in &expected {
        assert!(server.addresses.contains(address), "{address} is missing");
        assert_echoes(*address);
    }
    println!("localhost is {:?}", server.addresses);
    assert_eq!(server.stop().code(), Some(0));
}

#[test]
fn a_colon_and_a_port_are_all_addresses_of_both_families() {
    let port = free_port();
    let server = listening(&format!(":{port}"), 1, &[]);
    assert_eq!(server.address().port(), port);
    assert_echoes((Ipv4Addr::LOCALHOST, port).into());
    if has_ipv6() {
        assert_eq!(server.address(), (Ipv6Addr::UNSPECIFIED, port).into());
        assert_echoes((Ipv6Addr::LOCALHOST, port).into());
    }
    assert_eq!(server.stop().code(), Some(0));
}

#[test]
fn a_bare_port_is_loopback() {
    let port = free_port();
    let server = listening(&port.to_string(), 1, &[]);
    assert_eq!(server.address(), (Ipv4Addr::LOCALHOST, port).into());
    assert_echoes(server.address());
    assert_eq!(server.stop().code(), Some(0));
}

#[test]
fn port_0_lets_the_system_choose() {
    let server = listening("0", 1, &[]);
    assert_eq!(server.address().ip(), IpAddr::V4(Ipv4Addr::LOCALHOST));
    assert_ne!(server.address().port(), 0);
    assert_echoes(server.address());
}

/// The first line on standard output, empty where there is none, and all of
/// standard error.
fn first_words(argument: Option<&str>) -> (String, String) {
    let complaint = tempfile::tempfile().unwrap();
    let mut child = Command::new(Program::Lastecho.path())
        .args(argument)
        .stdout(Stdio::piped())
        .stderr(complaint.try_clone().unwrap())
        .spawn()
        .unwrap();
    let mut stdout = BufReader::new(child.stdout.take().unwrap());
    let reader = thread::spawn(move || {
        let mut said = String::new();
        stdout.read_line(&mut said).unwrap();
        said
    });
    eventually("a word or an end", || reader.is_finished());
    let _ = kill_process(Pid::from_child(&child), Signal::TERM);
    eventually("its end", || child.try_wait().unwrap().is_some());
    (reader.join().unwrap(), text(&complaint))
}

/// The fixed port may be somebody else's while this runs. Then the refusal
/// names it, which tells the meaning of the address as well as a ready line.
#[test]
fn without_a_port_it_is_48879() {
    for (argument, meaning) in [
        (Some("127.0.0.2"), "127.0.0.2:48879"),
        (Some("localhost"), ":48879"),
        (None, "127.0.0.1:48879"),
    ] {
        let (said, complaint) = first_words(argument);
        let ready = said
            .lines()
            .any(|line| line.starts_with("listening on ") && line.ends_with(meaning));
        let busy = complaint.contains(meaning) && complaint.contains("in use");
        println!(
            "{argument:?}: {}",
            if ready { said.trim() } else { complaint.trim() }
        );
        assert!(ready || busy, "{argument:?}: {said:?}, {complaint:?}");
    }
}

#[test]
fn an_address_given_twice_is_once() {
    let address = format!("127.0.0.1:{}", free_port());
    let mut command = Command::new(Program::Lastecho.path());
    command.args([&address, &address]);
    let ended = Server::spawn(command, 1).stop();
    assert_eq!(ended.code(), Some(0), "{ended:?}");
    assert!(!ended.stdout.contains("listening"), "{}", ended.stdout);
}

/// Starts it on these arguments.
fn on(arguments: &[&str], listeners: usize) -> Server {
    let mut command = Command::new(Program::Lastecho.path());
    command.args(arguments);
    Server::spawn(command, listeners)
}

/// As nc, telnet and ncat take it.
#[test]
fn a_host_and_a_port_are_one_address() {
    for host in ["127.0.0.2", "0.0.0.0"] {
        let port = free_port();
        let server = on(&[host, &port.to_string()], 1);
        assert_eq!(server.address().to_string(), format!("{host}:{port}"));
        assert_echoes(server.address());
        let ended = server.stop();
        assert!(!ended.stdout.contains("listening"), "{}", ended.stdout);
    }
}

#[test]
fn both_wildcards_are_served_whatever_their_order() {
    if !has_ipv6() {
        println!("no IPv6 on this machine: nothing to see");
        return;
    }
    let port = free_port();
    let (v4, v6) = (format!("0.0.0.0:{port}"), format!("[::]:{port}"));
    for arguments in [[&*v4, &*v6], [&*v6, &*v4]] {
        let server = on(&arguments, 2);
        assert_echoes((Ipv4Addr::LOCALHOST, port).into());
        assert_echoes((Ipv6Addr::LOCALHOST, port).into());
        let ended = server.stop();
        assert_eq!((ended.code(), ended.count("accepted")), (Some(0), 2));
    }
    // As ever where it is alone.
    let server = on(&[&v6], 1);
    assert_echoes((Ipv4Addr::LOCALHOST, port).into());
    assert_echoes((Ipv6Addr::LOCALHOST, port).into());
    assert_eq!(server.stop().code(), Some(0));
}

#[test]
fn an_address_that_another_one_covers_is_served_by_that_one() {
    let port = free_port();
    let [one, all, everywhere] = [
        format!("127.0.0.1:{port}"),
        format!("0.0.0.0:{port}"),
        format!(":{port}"),
    ];
    for arguments in [
        [&one, &all],
        [&all, &one],
        [&one, &everywhere],
        [&everywhere, &all],
    ] {
        let server = on(&arguments.map(String::as_str), 1);
        assert!(server.address().ip().is_unspecified());
        assert_echoes((Ipv4Addr::LOCALHOST, port).into());
        assert!(!server.stop().stdout.contains("listening"), "{arguments:?}");
    }
}

/// A server on localhost and this port, in a mount namespace where /etc/hosts
/// has these lines.
fn on_localhost(lines: &str, port: u16, listeners: usize) -> Server {
    let hosts = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(hosts.path(), lines).unwrap();
    let mut command = Command::new("unshare");
    let script = "mount --bind \"$1\" /etc/hosts && exec \"$2\" \"$3\"";
    command.args(["--mount", "sh", "-c", script, "sh"]);
    command.arg(hosts.path()).arg(Program::Lastecho.path());
    command.arg(format!("localhost:{port}"));
    Server::spawn(command, listeners)
}

/// Two lines of /etc/hosts: glibc then gives the address twice.
#[test]
#[ignore = "needs unshare"]
fn a_host_whose_name_has_an_address_twice_is_listened_on_once() {
    let lines = "127.0.0.1 localhost\n127.0.0.1 box localhost\n";
    let server = on_localhost(lines, free_port(), 1);
    assert_echoes(server.address());
    let ended = server.stop();
    assert_eq!(ended.code(), Some(0), "{ended:?}");
    assert!(!ended.stdout.contains("listening"), "{}", ended.stdout);
}

#[test]
#[ignore = "needs unshare"]
fn port_0_of_a_host_of_both_families_is_one_port() {
    if !has_ipv6() {
        println!("no IPv6 on this machine: nothing to see");
        return;
    }
    let server = on_localhost("127.0.0.1 localhost\n::1 localhost\n", 0, 2);
    assert_eq!(server.addresses[0].port(), server.addresses[1].port());
    for &address in &server.addresses {
        assert_echoes(address);
    }
}

#[test]
fn any_number_of_addresses_is_served() {
    let addresses = ["127.0.0.1:0"; 5];
    let server = Server::listening_on(Program::Lastecho, &addresses, &[]);
    for &address in &server.addresses {
        assert_echoes(address);
    }
    let ended = server.stop();
    assert_eq!((ended.code(), ended.count("accepted")), (Some(0), 5));
}

#[test]
fn an_open_address_without_an_idle_timeout_is_warned_about_once() {
    let warning = "is open to others and there is no --idle-timeout";
    let warnings = |addresses: &[&str], options: &[&str]| {
        let server = Server::listening_on(Program::Lastecho, addresses, options);
        server.stop().stderr.matches(warning).count()
    };
    assert_eq!(warnings(&["0.0.0.0:0"], &[]), 1);
    assert_eq!(warnings(&["127.0.0.1:0", "0.0.0.0:0", ":0"], &["-q"]), 1);
    assert_eq!(warnings(&["0.0.0.0:0"], &["--idle-timeout", "1m"]), 0);
    assert_eq!(warnings(&["127.0.0.1:0", "127.0.0.2:0"], &[]), 0);
}
