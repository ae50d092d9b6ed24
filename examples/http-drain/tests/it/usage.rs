//! Ordinary requests with curl, and bad input.

use crate::client::Client;
use crate::harness::{Curl, Program};
use crate::start;
use std::process::Command;

#[test]
fn curl_is_answered_on_both_routes_and_told_what_is_wrong() {
    let (server, address) = start(&["--slow", "10ms"]);
    let url = |path: &str| format!("http://{address}{path}");
    let get = |options: &[&str]| {
        let answer = Curl::start(options).finish();
        assert_eq!(answer.code, Some(0), "{answer:?}");
        answer.text
    };
    // One curl, two requests, one connection.
    let both = get(&[&url("/"), &url("/slow")]);
    assert_eq!(both, "request 1: /\nrequest 2: /slow\n");
    assert!(get(&["--head", &url("/")]).starts_with("HTTP/1.1 200 OK\r\n"));
    assert!(get(&["--include", &url("/nowhere")]).starts_with("HTTP/1.1 404 Not Found\r\n"));
    let posted = get(&["--include", "--data", "abc", &url("/")]);
    assert!(posted.starts_with("HTTP/1.1 405 Method Not Allowed\r\n"));
    assert!(posted.contains("Allow: GET, HEAD, OPTIONS\r\n"), "{posted}");
    assert!(posted.contains("Connection: close\r\n"), "{posted}");
    let old = get(&["--include", "--http1.0", &url("/")]);
    assert!(old.contains("Connection: close\r\n"), "{old}");
    server.term();
    let ended = server.wait();
    assert_eq!(ended.code, Some(0), "{ended:?}");
    assert_eq!((ended.count("requests"), ended.count("answered")), (6, 6));
    assert_eq!(ended.count("accepted"), 5);
}

/// A proxy's client sends the absolute form (RFC 9112, 3.2.2), and `OPTIONS *`
/// asks about the server itself (RFC 9110, 9.3.7).
#[test]
fn every_form_of_a_target_is_understood() {
    let (server, address) = start(&["--slow", "10ms"]);
    let proxy = format!("http://{address}");
    let get = |options: &[&str]| {
        Curl::start(&[&["--include"], options].concat())
            .finish()
            .text
    };
    let proxied = get(&["--proxy", &proxy, "http://example.test/slow?a"]);
    assert!(proxied.starts_with("HTTP/1.1 200 OK\r\n"), "{proxied}");
    assert!(
        proxied.ends_with(": http://example.test/slow?a\n"),
        "{proxied}"
    );
    let star = ["--request", "OPTIONS", "--request-target", "*"];
    let star = get(&[&star[..], &[&proxy]].concat());
    assert!(star.starts_with("HTTP/1.1 200 OK\r\n"), "{star}");
    assert!(star.contains("Allow: GET, HEAD, OPTIONS\r\n"), "{star}");
    assert!(star.contains("Content-Length: 0\r\n"), "{star}");
    let nowhere = get(&["--request-target", "*", &proxy]);
    assert!(
        nowhere.starts_with("HTTP/1.1 404 Not Found\r\n"),
        "{nowhere}"
    );
    server.term();
    assert_eq!(server.wait().code, Some(0));
}

/// Control characters and changes of direction in a target (httparse lets bytes
/// above 127 pass) reach neither the log's lines nor the reader's terminal.
#[test]
fn what_a_target_holds_is_escaped_in_the_log() {
    let (server, address) = start(&["--verbose"]);
    let mut client = Client::connect(address).unwrap();
    client.get("/\u{9b}31m\u{202e}x").unwrap();
    client.response();
    server.await_log(r"GET /\u{9b}31m\u{202e}x of", 1);
    let log = server.stderr();
    let hostile = log
        .chars()
        .find(|&c| c != '\n' && (c.is_control() || c == '\u{202e}'));
    assert_eq!(hostile, None, "{log}");
}

#[test]
fn bad_input_is_named_in_one_line() {
    let (_server, address) = start(&[]);
    let taken = address.to_string();
    let cases: [(&[&str], i32, &str); 4] = [
        (&["--slow", "nine"], 2, "'nine' for '--slow <DURATION>'"),
        (&["--drain-timeout", ""], 2, "--drain-timeout"),
        (&["localhost"], 2, "'localhost' for '[IP:PORT]'"),
        (&[&taken], 1, &taken),
    ];
    for (options, code, part) in cases {
        let mut command = Command::new(env!("CARGO_BIN_EXE_http-drain"));
        command.args(options);
        let ended = Program::start(command).wait();
        assert_eq!(ended.code, Some(code), "{options:?}: {ended:?}");
        assert!(ended.stderr.contains(part), "{options:?}: {ended:?}");
        assert_eq!(ended.stderr.lines().count(), 1, "{ended:?}");
        assert!(ended.stdout.is_empty(), "{ended:?}");
    }
}
