//! Beside a server that stops and one that starts in its place: nothing is lost.

use super::{Pinged, Running, SIZE};
use crate::harness::{Broken, Ended, Program, Server, free_port, promise};
use rustix::process::Signal;

fn serve(program: Program, port: u16, delay: &str) -> Server {
    let address = format!("127.0.0.1:{port}");
    let options = ["--poll", "50ms", "--delay", delay];
    Server::listening_on(program, &[&address], &options)
}

fn sum(servers: &[Ended], key: &str) -> u64 {
    servers.iter().map(|ended| ended.count(key)).sum()
}

#[test]
fn a_restart_between_echoes_loses_nothing() {
    let port = free_port();
    let server = serve(Program::Lastecho, port, "0s");
    let running = Running::start(server.address(), "-n 3 -i 2s");
    running.await_lines(3, " seq=1 ");
    // Nothing is in flight for two seconds.
    let first = server.stop();
    running.await_lines(3, "end of file, nothing in flight; reconnecting");
    let server = serve(Program::Lastecho, port, "0s");
    running.await_lines(3, " seq=2 ");
    running.signal(Signal::INT);
    let pinged = running.wait();
    assert_eq!(pinged.status, Some(0), "{pinged:?}");
    let sent = pinged.count("sent");
    pinged.assert_counts(&[("sent", sent), ("echoed", sent), ("reconnected", 3)]);
    let servers = [first, server.stop()];
    assert_eq!(sum(&servers, "bytes_in"), sent * SIZE, "{servers:?}");
    assert!(servers.iter().all(|ended| ended.code() == Some(0)));
}

/// A flood beside a server that stops and one that starts in its place.
fn restart_in_a_flood(
    program: Program,
    delay: &str,
    options: &str,
    connections: usize,
) -> (Pinged, [Ended; 2]) {
    let port = free_port();
    let server = serve(program, port, delay);
    let options = format!("-n {connections} -i 0 {options}");
    let running = Running::start(server.address(), &options);
    running.await_lines(connections, " seq=1 ");
    let first = server.stop();
    let server = serve(program, port, delay);
    running.await_lines(connections, "reconnected after");
    running.signal(Signal::INT);
    let pinged = running.wait();
    println!("{program:?} {options}: {:?}", pinged.counts);
    (pinged, [first, server.stop()])
}

/// What crosses the end of file on its way was never read: the server says so,
/// to the byte, and whatever it has read came back.
#[test]
fn a_restart_in_a_flood_loses_only_what_nobody_has_read() {
    for _ in 0..3 {
        let (pinged, servers) = restart_in_a_flood(Program::Lastecho, "0s", "", 8);
        let [sent, echoed, lost] = ["sent", "echoed", "lost"].map(|name| pinged.count(name));
        assert_eq!(
            (pinged.status, sent),
            (Some(0), echoed + lost),
            "{pinged:?}"
        );
        let reconnected = pinged.count("reconnected");
        // Or more: a server that has begun to stop still takes who comes at once.
        assert!(reconnected >= 8, "{pinged:?}");
        pinged.assert_counts(&[
            ("sent", sent),
            ("echoed", echoed),
            ("lost", lost),
            ("crossed", lost),
            ("reconnected", reconnected),
        ]);
        for (key, messages) in [
            ("bytes_in", echoed),
            ("bytes_out", echoed),
            ("discarded", lost),
        ] {
            assert_eq!(
                sum(&servers, key),
                messages * SIZE,
                "{key}: {pinged:?} {servers:?}"
            );
        }
    }
}

/// Of messages that a stop finds half way, what the server has read comes back
/// too, and then the end of file: no reset.
#[test]
fn a_restart_in_the_middle_of_large_messages_answers_what_was_read() {
    const LARGE: u64 = 1 << 20;
    let is_loss = |broken: &Broken| matches!(broken, Broken::Short(_) | Broken::Reset(_));
    promise("a restart beside large messages", 3, is_loss, |program| {
        // While it thinks, more comes, which is unread when it sees the stop.
        let (pinged, servers) = restart_in_a_flood(program, "5ms", "-s 1MiB", 4);
        if pinged.stderr.contains("reset") {
            return Err(Broken::Reset(pinged.stderr));
        }
        // "… after 61440 of 1048576 bytes"
        let lines = pinged.stderr.lines();
        let parts = lines.filter_map(|line| line.split_once(" after ")?.1.split_once(" of "));
        let parts: u64 = parts.map(|(part, _)| part.parse::<u64>().unwrap()).sum();
        let came = pinged.count("echoed") * LARGE + parts;
        let told = ["bytes_in", "bytes_out"].map(|key| sum(&servers, key));
        if told != [came, came] {
            let stderr = pinged.stderr;
            return Err(Broken::Short(format!("{came} of {told:?}: {stderr}")));
        }
        assert_eq!(pinged.count("mismatched") + pinged.count("unreachable"), 0);
        Ok(())
    });
}
