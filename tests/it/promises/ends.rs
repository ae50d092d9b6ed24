//! Promise 3: a stop ends.

use super::{await_arrival, ended_within, exits, flood, gets, round_trip, take_all, tells};
use crate::harness::{Broken, IN_TIME, Program, Server, noise, promise};
use rustix::process::Signal;
use std::io::Write;
use std::net::TcpStream;
use std::slice::from_ref;
use std::thread;
use std::time::Duration;

fn is_too_long(broken: &Broken) -> bool {
    matches!(broken, Broken::TooLong(_))
}

/// The clients do not close when they see our FIN, as `nc` with an open stdin
/// does not. The control's stop takes one poll interval as well, so it gets a
/// long one: the promise switched off.
#[test]
fn five_hundred_idle_connections_end_within_a_poll_interval_and_the_linger() {
    promise("idle connections", 1, is_too_long, |program| {
        let poll = match program {
            Program::Lastecho => "1s",
            Program::Control => "30s",
        };
        let mut server = Server::start(program, &["--poll", poll]);
        let mut clients: Vec<_> = (0..500).map(|_| server.connect()).collect();
        for client in &mut clients {
            round_trip(client, b"idle from now on")?;
        }
        server.signal(Signal::TERM);
        let ended = ended_within(server, IN_TIME)?;
        println!("500 idle connections: {:?}", ended.took);
        tells(&ended, &[("drained", "500"), ("clean", "true")])?;
        exits(&ended, 0)
    });
}

/// The poll interval is capped at a quarter of the drain timeout, so 30 s of
/// it delay nothing, while the control is held for as long.
#[test]
fn a_client_that_never_reads_is_cut_at_the_drain_deadline() {
    promise("never reads", 1, is_too_long, |program| {
        let options = ["--poll", "30s", "--drain-timeout", "500ms"];
        let mut server = Server::start(program, &options);
        let mut client = server.connect();
        flood(&mut client, &noise(1 << 16, 1))?;
        server.signal(Signal::TERM);
        let ended = ended_within(server, IN_TIME)?;
        tells(&ended, &[("cut", "1"), ("clean", "false")])?;
        exits(&ended, 3)
    });
}

#[test]
fn a_request_that_takes_too_long_is_cut_at_the_drain_deadline() {
    promise("too slow", 1, is_too_long, |program| {
        let options = [
            "--poll",
            "100ms",
            "--delay",
            "30s",
            "--drain-timeout",
            "500ms",
        ];
        let mut server = Server::start(program, &options);
        let mut client = server.connect();
        client.write_all(b"slow").unwrap();
        await_arrival(from_ref(&client));
        server.signal(Signal::TERM);
        let ended = ended_within(server, IN_TIME)?;
        assert!(ended.took >= Duration::from_millis(500), "{ended:?}");
        tells(&ended, &[("cut", "1"), ("bytes_lost", "4")])?;
        exits(&ended, 3)
    });
}

/// One that thinks, one that never reads, and one that is idle.
#[test]
fn a_second_signal_cuts_at_once() {
    promise("second signal", 1, is_too_long, |program| {
        let options = [
            "--poll",
            "100ms",
            "--delay",
            "30s",
            "--drain-timeout",
            "30s",
        ];
        let mut server = Server::start(program, &options);
        let [mut slow, mut flooding, mut idle] = [(); 3].map(|()| server.connect());
        slow.write_all(b"slow").unwrap();
        await_arrival(from_ref(&slow));
        flood(&mut flooding, &noise(1 << 16, 2))?;
        server.signal(Signal::TERM);
        gets(&mut idle, b"")?; // the stop was seen: here is FIN
        thread::sleep(Duration::from_millis(300)); // nearer ones are the same request
        server.signal(Signal::TERM);
        let ended = ended_within(server, IN_TIME)?;
        let (echo, _) = take_all(&mut slow);
        assert!(echo.is_empty(), "{echo:?}");
        drop::<[TcpStream; 2]>([flooding, idle]);
        tells(&ended, &[("cut", "2"), ("drained", "1")])?;
        exits(&ended, 3)
    });
}
