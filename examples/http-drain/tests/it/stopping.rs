//! What a stop does to requests that are in hand, and to those that come later.

use crate::client::{Client, request};
use crate::harness::{Curl, connect};
use crate::start;
use crate::unread::stop_unread;
use std::io::ErrorKind;
use std::process::Command;
use std::time::{Duration, Instant};

/// curl's exit statuses.
const REFUSED: Option<i32> = Some(7);
const EMPTY_REPLY: Option<i32> = Some(52);

#[test]
fn slow_requests_are_answered_and_new_ones_refused() {
    let (server, address) = start(&["--slow", "2s", "--verbose"]);
    let url = format!("http://{address}/slow");
    let curls: Vec<_> = (0..3).map(|_| Curl::start(&["--include", &url])).collect();
    server.await_log("GET /slow", 3);
    server.term();
    server.await_log("stopping: 3 connections", 1);
    let error = connect(address).expect_err("connected after the stop");
    assert_eq!(error.kind(), ErrorKind::ConnectionRefused);
    assert_eq!(Curl::start(&[&url]).finish().code, REFUSED);
    for curl in curls {
        let answer = curl.finish();
        assert_eq!(answer.code, Some(0), "{answer:?}");
        assert!(answer.text.contains("Connection: close\r\n"), "{answer:?}");
        assert!(answer.text.ends_with(": /slow\n"), "{answer:?}");
    }
    let ended = server.wait();
    assert_eq!(ended.code, Some(0), "{ended:?}");
    assert_eq!(ended.told("clean"), "true");
    let counts = ["requests", "answered", "drained", "cut"].map(|key| ended.count(key));
    assert_eq!(counts, [3, 3, 3, 0], "{ended:?}");
}

#[test]
fn at_the_deadline_what_is_left_is_cut_and_told() {
    let (server, address) = start(&["--slow", "60s", "--drain-timeout", "500ms", "--verbose"]);
    let curl = Curl::start(&[&format!("http://{address}/slow")]);
    server.await_log("GET /slow", 1);
    server.term();
    assert_eq!(curl.finish().code, EMPTY_REPLY);
    let ended = server.wait();
    assert_eq!(ended.code, Some(3), "{ended:?}");
    assert_eq!(ended.told("clean"), "false");
    let counts = ["requests", "answered", "cut"].map(|key| ended.count(key));
    assert_eq!(counts, [1, 0, 1], "{ended:?}");
    assert!(ended.stderr.contains("cut: GET /slow of 127.0.0.1:"));
    assert!(ended.stderr.contains("cutting 1 connections"));
}

/// With the route's own nine seconds: more than the default deadline allows.
#[test]
fn without_a_deadline_a_stop_waits_for_all() {
    let (server, address) = start(&["--drain-timeout", "none", "--verbose"]);
    let begun = Instant::now();
    let mut clients: Vec<_> = (0..50).map(|_| Client::connect(address).unwrap()).collect();
    for client in &mut clients {
        client.get("/slow").unwrap();
    }
    server.await_log("GET /slow", 50);
    server.term();
    for client in &mut clients {
        assert!(client.response().close);
        assert!(client.is_at_end());
    }
    let ended = server.wait();
    assert!(begun.elapsed() >= Duration::from_secs(9));
    assert_eq!(ended.code, Some(0), "{ended:?}");
    assert_eq!((ended.count("answered"), ended.count("cut")), (50, 0));
}

#[test]
fn a_second_signal_cuts_a_stop_that_has_no_deadline() {
    let (server, address) = start(&["--slow", "60s", "--drain-timeout", "none", "--verbose"]);
    let curl = Curl::start(&[&format!("http://{address}/slow")]);
    server.await_log("GET /slow", 1);
    server.term();
    server.await_log("draining: 1 connections", 1);
    server.term();
    assert_eq!(curl.finish().code, EMPTY_REPLY);
    let ended = server.wait();
    assert_eq!((ended.code, ended.count("cut")), (Some(3), 1), "{ended:?}");
}

#[test]
fn requests_that_arrived_together_are_all_answered_and_only_the_last_says_close() {
    let (server, address) = start(&["--slow", "1s", "--verbose"]);
    let mut client = Client::connect(address).unwrap();
    let three = ["/slow?1", "/?2", "/slow?3"].map(request).concat();
    client.send(&three).unwrap();
    server.await_log("GET /slow?1", 1);
    server.term();
    for (target, close) in [("/slow?1", false), ("/?2", false), ("/slow?3", true)] {
        let response = client.response();
        assert!(response.body.ends_with(&format!("{target}\n")));
        assert_eq!(response.close, close, "{response:?}");
    }
    assert!(client.is_at_end());
    assert_eq!(server.wait().count("answered"), 3);
}

#[test]
fn a_head_that_has_begun_to_arrive_is_heard_out() {
    let (server, address) = start(&[]);
    let mut client = Client::connect(address).unwrap();
    client.send("\r\nGET / HTTP/1.1\r\nHo").unwrap();
    server.term();
    server.await_log("stopping: ", 1);
    client.send("st: localhost\r\n\r\n").unwrap();
    assert!(client.response().close);
    assert!(client.is_at_end());
    assert_eq!(server.wait().code, Some(0));
}

#[test]
fn an_idle_client_does_not_hold_up_a_stop() {
    let (server, address) = start(&["--drain-timeout", "none"]);
    let mut client = Client::connect(address).unwrap();
    client.get("/").unwrap();
    assert!(!client.response().close);
    // An empty line is not the beginning of a request.
    client.send("\r\n").unwrap();
    server.term();
    assert!(client.is_at_end());
    assert_eq!(server.wait().code, Some(0));
}

#[test]
fn outputs_that_nothing_reads_hold_up_no_stop() {
    let mut command = Command::new(env!("CARGO_BIN_EXE_http-drain"));
    command.args(["127.0.0.1:0", "--drain-timeout", "2s"]);
    assert_eq!(stop_unread(command, "listening on "), Some(0));
}
