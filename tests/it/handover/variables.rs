//! What the environment and a supervisor pass: variables and sockets.

use super::family::{Family, sum};
use super::passed::echoes;
use crate::harness::{Server, WATCHDOG, connect, read_to_end, run_to_end};
use rustix::process::Signal;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::fd::AsFd;
use std::process::{Command, Output};
use std::time::Duration;

const LASTECHO: &str = env!("CARGO_BIN_EXE_lastecho");

/// Runs the program with these variables, and a shell's redirections before.
fn started(redirect: &str, variables: &[(&str, &str)]) -> Output {
    let script = format!("exec {LASTECHO} {redirect}");
    let mut command = Command::new("sh");
    command
        .args(["-c", &script])
        .envs(variables.iter().copied());
    run_to_end(&mut command, b"")
}

fn complains(redirect: &str, variables: &[(&str, &str)], expected: &str) {
    let output = started(redirect, variables);
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    println!("{told}");
    assert_eq!(output.status.code(), Some(1), "{told}");
    assert_eq!(told.lines().count(), 1, "{told}");
    assert!(told.contains(expected), "{told:?} lacks {expected:?}");
    assert_eq!(output.stdout, b"");
}

#[test]
fn wrong_variables_are_told_in_one_line() {
    // A predecessor's come without the number that nobody can know here.
    const HANDOVER: (&str, &str) = ("LASTECHO_HANDOVER", "4,o");
    for (variables, expected) in [
        (
            &[("LISTEN_FDS", "1"), ("LISTEN_PID", "x")][..],
            "LISTEN_PID=\"x\" is not a process",
        ),
        (
            &[("LISTEN_FDS", "-1"), HANDOVER],
            "LISTEN_FDS=\"-1\" is not a number up to 256",
        ),
        (
            &[("LISTEN_FDS", "257"), HANDOVER],
            "LISTEN_FDS=\"257\" is not a number up to 256",
        ),
        (
            &[("LISTEN_FDS", "99999999999999999999"), HANDOVER],
            "is not a number up to 256",
        ),
        (
            &[("LISTEN_FDS", ""), HANDOVER],
            "LISTEN_FDS=\"\" is not a number",
        ),
        (
            &[("LISTEN_FDS", "2"), ("LISTEN_FDNAMES", "one"), HANDOVER],
            "1 names for 2 descriptors",
        ),
        (
            &[("LASTECHO_HANDOVER", "4,o")],
            "LASTECHO_HANDOVER without LISTEN_FDS",
        ),
        (
            &[("LISTEN_FDS", "1"), ("LASTECHO_HANDOVER", "x")],
            "not as a predecessor writes it",
        ),
        (
            &[("LISTEN_FDS", "1"), ("LASTECHO_HANDOVER", "2,o")],
            "not as a predecessor writes it",
        ),
        // Descriptor 3 is the listener, and taken twice it would be closed twice.
        (
            &[("LISTEN_FDS", "1"), ("LASTECHO_HANDOVER", "3,o")],
            "not as a predecessor writes it",
        ),
        (
            &[("LISTEN_FDS", "1"), ("LASTECHO_HANDOVER", "04,o")],
            "not as a predecessor writes it",
        ),
        (
            &[("LISTEN_FDS", "1"), ("LASTECHO_HANDOVER", "4,oo")],
            "not as a predecessor writes it",
        ),
        (
            &[("LISTEN_FDS", "1"), ("LASTECHO_HANDOVER", "4,é")],
            "not as a predecessor writes it",
        ),
        (
            &[("LISTEN_FDS", "1"), ("LASTECHO_HANDOVER", "4,o")],
            "LASTECHO_HANDOVER, descriptor 4",
        ),
    ] {
        complains("", variables, expected);
    }
    // A socket to somebody, but no predecessor of ours.
    let variables = [("LISTEN_FDS", "1"), ("LASTECHO_HANDOVER", "4,o")];
    complains("4</dev/null", &variables, "LASTECHO_HANDOVER, descriptor 4");
}

/// As sd_listen_fds(3) has it: nothing of it is ours then, and nothing of it
/// goes on to our children.
#[test]
fn what_was_passed_to_another_process_is_left_alone() {
    for variables in [
        &[("LISTEN_FDS", "1")][..],
        &[("LISTEN_FDS", "nonsense"), ("LISTEN_FDNAMES", "a:b")],
        &[("LISTEN_FDS", "1"), ("LISTEN_PID", "1")],
        &[
            ("LISTEN_FDS", "1"),
            ("LISTEN_PID", "1"),
            ("LASTECHO_HANDOVER", "4,o"),
        ],
        &[("LISTEN_FDS", "0"), ("LISTEN_FDNAMES", "")],
    ] {
        let mut family = Family::start_with(&["127.0.0.1:0"], |command| {
            command.envs(variables.iter().copied());
        });
        echoes(family.address());
        family.hand_over();
        echoes(family.address());
        family.stop();
    }
}

#[test]
fn a_supervisor_may_pass_nothing() {
    for names in [None, Some("")] {
        let mut command = supervised(std::io::stdin(), "127.0.0.1:0");
        command.env("LISTEN_FDS", "0");
        command.envs(names.map(|names| ("LISTEN_FDNAMES", names)));
        let server = Server::spawn(command, 1);
        echoes(server.address());
        assert_eq!(server.stop().code(), Some(0));
    }
}

/// A supervisor in a few lines: passes what it has as descriptor 3, with the
/// right LISTEN_PID, and becomes the program.
fn supervised(passed: impl AsFd, arguments: &str) -> Command {
    let mut command = Command::new("sh");
    let script = format!("exec 3<&0 0</dev/null; LISTEN_PID=$$ exec {LASTECHO} {arguments}");
    let passed = passed.as_fd().try_clone_to_owned().unwrap();
    command
        .args(["-c", &script])
        .env("LISTEN_FDS", "1")
        .stdin(passed);
    command
}

#[test]
fn descriptors_that_are_no_listeners_are_told_in_one_line() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let udp = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("socket");
    let unix = std::os::unix::net::UnixListener::bind(path).unwrap();
    let file = tempfile::tempfile().unwrap();
    for (passed, expected) in [
        (
            client.as_fd(),
            "inherited descriptor 3: not a listening TCP socket",
        ),
        (
            udp.as_fd(),
            "inherited descriptor 3: not a listening TCP socket",
        ),
        (
            unix.as_fd(),
            "inherited descriptor 3: not a listening TCP socket",
        ),
        (
            file.as_fd(),
            "inherited descriptor 3: Socket operation on non-socket",
        ),
    ] {
        let output = supervised(passed, "").output().unwrap();
        let told = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(1), "{told}");
        assert!(
            told.contains(expected) && told.lines().count() == 1,
            "{told}"
        );
    }
    let mut command = supervised(&file, "");
    command.env("LISTEN_FDS", "2"); // and there is no descriptor 4
    let file = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    command.stdin(std::os::fd::OwnedFd::from(file));
    let told = command.output().unwrap().stderr;
    let told = String::from_utf8_lossy(&told).into_owned();
    assert!(
        told.contains("inherited descriptor 4: Bad file descriptor"),
        "{told}"
    );
}

#[test]
fn a_supervisors_socket_is_served_and_left_as_it_was() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let socket = socket2::SockRef::from(&listener);
    // The second one also has who came between them.
    for accepted in [2, 3] {
        let mut command = supervised(&listener, "--poll 100ms");
        command.env("LISTEN_FDNAMES", "echo");
        let mut server = Server::spawn_with_stdin(command, 1);
        assert_eq!(server.address(), address);
        echoes(address);
        assert_eq!(socket.read_timeout().unwrap(), None);
        assert!(!socket.tcp_nodelay().unwrap() && !socket.keepalive().unwrap());
        assert!(socket.nonblocking().unwrap()); // the exception
        let mut idle = connect(address).unwrap();
        std::thread::sleep(Duration::from_millis(150));
        server.signal(Signal::TERM);
        assert_eq!(read_to_end(&mut idle).unwrap(), b"");
        let ended = server.wait();
        assert_eq!((ended.code(), ended.count("accepted")), (Some(0), accepted));
        // Who comes now waits for the next one.
        let _ = connect(address).unwrap();
    }
}

/// A socket of systemd's with `SocketProtocol=mptcp`, and clients that use it.
#[test]
fn multipath_tcp_is_served_like_tcp() {
    use socket2::{Domain, Protocol, Socket, Type};
    let mptcp = || Socket::new(Domain::IPV4, Type::STREAM, Some(Protocol::MPTCP));
    let listener = match mptcp() {
        Ok(listener) => listener,
        Err(error) => {
            println!("this kernel has no MPTCP: {error}");
            return;
        }
    };
    let loopback = SocketAddr::from(([127, 0, 0, 1], 0));
    listener.bind(&loopback.into()).unwrap();
    listener.listen(16).unwrap();
    let address = listener.local_addr().unwrap();
    let connect = || {
        let client = mptcp().unwrap();
        client.connect(&address).unwrap();
        client.set_read_timeout(Some(WATCHDOG)).unwrap();
        TcpStream::from(client)
    };
    let serve = |client: &mut TcpStream, data: &[u8]| {
        client.write_all(data).unwrap();
        client.read_exact(&mut vec![0; data.len()]).unwrap();
    };
    let mut family = Family::start_with(&[], |command| {
        *command = supervised(&listener, "--poll 100ms");
    });
    let mut before = connect();
    serve(&mut before, b"before");
    echoes(address.as_socket().unwrap());
    // The predecessor ends its connections in order; the successor has the socket.
    let first = family.youngest();
    family.hand_over();
    assert_eq!(read_to_end(&mut before).unwrap(), b"");
    drop(before);
    family.wait(first);
    let mut after = connect();
    serve(&mut after, &[7; 100_000]);
    echoes(address.as_socket().unwrap());
    drop(after);
    let told = family.stop();
    assert_eq!((sum(&told, "accepted"), sum(&told, "bytes_lost")), (4, 0));
    assert_eq!((sum(&told, "failed"), sum(&told, "cut")), (0, 0));
}
