//! Standard output is for machines, the log is for people.

use super::{assert_echoes, named_pipe};
use crate::harness::{Program, Server, connect};
use rustix::fs::OFlags;
use rustix::process::Signal;
use std::io::Read;

/// The keys of the last line that everybody may rely on, in their order.
const KEYS: [&str; 10] = [
    "clean",
    "accepted",
    "drained",
    "cut",
    "refused",
    "panicked",
    "bytes_in",
    "bytes_out",
    "bytes_lost",
    "elapsed_ms",
];

#[test]
fn standard_output_holds_lines_for_machines_only() {
    let addresses = ["127.0.0.1:0", "127.0.0.1:0"];
    // Each of its first lines is a ready line: the harness reads nothing else.
    let mut server = Server::listening_on(Program::Lastecho, &addresses, &["-vv"]);
    for &address in &server.addresses {
        assert_echoes(&mut connect(address).unwrap(), 1000);
    }
    server.signal(Signal::USR1);
    server.await_log("live: ");
    let ended = server.stop();
    let lines: Vec<_> = ended.stdout.lines().collect();
    assert_eq!(lines.len(), 1, "{}", ended.stdout);
    let pairs = lines[0].strip_prefix("stopped ").unwrap().split(' ');
    let pairs: Vec<_> = pairs.map(|pair| pair.split_once('=').unwrap()).collect();
    let keys: Vec<_> = pairs.iter().map(|(key, _)| *key).take(KEYS.len()).collect();
    assert_eq!(keys, KEYS);
    for (key, value) in &pairs {
        let fits = *key == "clean" || value.bytes().all(|byte| byte.is_ascii_digit());
        assert!(fits && !value.is_empty(), "{key}={value}");
    }
    assert_eq!(ended.told["clean"], "true");
    assert_eq!(ended.count("accepted"), 2);
    assert_eq!(ended.count("bytes_in"), 2000);
    assert_eq!(ended.count("bytes_out"), 2000);
}

#[test]
fn the_log_goes_to_standard_error_or_the_file_and_nowhere_else() {
    let (_directory, path, mut pipe) = named_pipe(OFlags::NONBLOCK);
    let server = Server::start(Program::Lastecho, &["-v", "--log-file", &path]);
    assert_echoes(&mut server.connect(), 1000);
    let ended = server.stop();
    assert_eq!(ended.stderr, "");
    assert_eq!(ended.stdout.lines().count(), 1, "{}", ended.stdout);
    let mut log = vec![0; 65_536];
    let count = pipe.read(&mut log).unwrap();
    assert!(String::from_utf8_lossy(&log[..count]).contains("1000 bytes in"));
}

/// The signal's line comes before the stop's, which another thread logs.
#[test]
fn what_asked_for_a_stop_is_logged_before_the_stop() {
    for trial in 0..20 {
        let mut server = Server::start(Program::Lastecho, &[]);
        server.signal(Signal::TERM);
        let log = server.wait().stderr;
        let at = |needle| {
            log.find(needle)
                .unwrap_or_else(|| panic!("no {needle}: {log}"))
        };
        assert!(
            at("SIGTERM: stopping") < at("stopping: 0"),
            "{trial}: {log}"
        );
    }
}

#[test]
fn a_client_is_logged_when_it_comes_and_when_it_goes() {
    let server = Server::start(Program::Lastecho, &["-vv"]);
    let client = server.connect();
    let peer = client.local_addr().unwrap();
    server.await_log(&format!("connection 1 from {peer}: accepted"));
    drop(client);
    server.await_log(&format!("connection 1 from {peer}, lingering, open for "));
    assert_echoes(&mut server.connect(), 1);
    let log = server.stop().stderr;
    assert!(log.contains("connection 2: 1 byte\n"), "{log}");
    assert!(log.contains(", 1 byte in, 1 byte out: "), "{log}");
}
