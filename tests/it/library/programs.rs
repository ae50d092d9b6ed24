//! The example programs, as people copy them.

use super::{ask, read_line};
use crate::harness::{Server, example, read_to_end};
use std::io::Write;
use std::net::Shutdown;
use std::process::Command;

pub(super) fn start(name: &str) -> Server {
    let mut command = Command::new(example(name));
    command.arg("127.0.0.1:0");
    Server::spawn(command, 1)
}

#[test]
fn the_echo_example_echoes_and_reports() {
    let server = start("echo");
    let mut client = server.connect();
    assert_eq!(ask(&mut client, "hello\n"), "hello\n");
    let ended = server.stop();
    assert_eq!(ended.code(), Some(0), "{ended:?}");
    assert!(ended.stdout.contains("clean=true accepted=1"), "{ended:?}");
    assert_eq!(read_to_end(&mut client).unwrap(), b"");
}

#[test]
fn the_line_server_answers_each_command_and_its_mistakes() {
    let server = start("line_server");
    let mut client = server.connect();
    for (question, answer) in [
        ("PING\n", "PONG\n"),
        ("PING\r\n", "PONG\n"),
        ("ECHO  two words \n", " two words \n"),
        ("ECHO \n", "\n"),
        ("HITS\n", "5\n"),
        ("nonsense\n", "ERR unknown command\n"),
        ("\n", "ERR unknown command\n"),
        ("QUIT\n", "BYE\n"),
    ] {
        assert_eq!(ask(&mut client, question), answer, "{question:?}");
    }
    assert_eq!(read_to_end(&mut client).unwrap(), b"");
    let mut tail = server.connect();
    tail.write_all(b"PING\nECHO no end of line").unwrap();
    tail.shutdown(Shutdown::Write).unwrap();
    assert_eq!(read_to_end(&mut tail).unwrap(), b"PONG\nno end of line\n");
    let ended = server.stop();
    assert!(ended.stdout.contains("clean=true accepted=2"), "{ended:?}");
}

#[test]
fn the_line_server_bounds_a_hostile_line() {
    let server = start("line_server");
    let mut client = server.connect();
    let longest = format!("ECHO {}\n", "x".repeat(1024 - 6));
    assert_eq!(ask(&mut client, &longest), longest[5..]);
    let _ = client.write_all(&vec![b'x'; 1 << 20]);
    assert_eq!(read_line(&mut client), "ERR line too long\n");
    assert_eq!(read_to_end(&mut client).unwrap(), b"");
    let ended = server.stop();
    assert_eq!(ended.code(), Some(0), "{ended:?}");
}

#[test]
fn a_stop_finds_the_line_server_between_two_lines() {
    let server = start("line_server");
    let mut client = server.connect();
    client.write_all(b"PING\nPING\nPI").unwrap();
    assert_eq!(read_line(&mut client), "PONG\n");
    assert_eq!(read_line(&mut client), "PONG\n");
    let mut idle = server.connect();
    assert_eq!(ask(&mut idle, "PING\n"), "PONG\n");
    let stopped = std::thread::spawn(|| server.stop());
    assert_eq!(read_to_end(&mut idle).unwrap(), b"");
    client.write_all(b"NG\n").unwrap();
    assert_eq!(read_to_end(&mut client).unwrap(), b"PONG\n");
    let ended = stopped.join().unwrap();
    assert!(
        ended.stdout.contains("clean=true accepted=2 drained=2"),
        "{ended:?}"
    );
}

#[test]
fn an_address_that_cannot_be_had_is_named() {
    for name in ["echo", "line_server"] {
        let output = Command::new(example(name))
            .arg("192.0.2.1:1")
            .output()
            .unwrap();
        let text = String::from_utf8_lossy(&output.stderr);
        assert!(
            !output.status.success() && text.contains("192.0.2.1:1"),
            "{text}"
        );
    }
}
