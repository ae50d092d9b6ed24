//! Ordinary requests with curl, and bad input.

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
    assert!(posted.contains("Allow: GET, HEAD\r\n"), "{posted}");
    assert!(posted.contains("Connection: close\r\n"), "{posted}");
    let old = get(&["--include", "--http1.0", &url("/")]);
    assert!(old.contains("Connection: close\r\n"), "{old}");
    server.term();
    let ended = server.wait();
    assert_eq!(ended.code, Some(0), "{ended:?}");
    assert_eq!((ended.count("requests"), ended.count("answered")), (6, 6));
    assert_eq!(ended.count("accepted"), 5);
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
