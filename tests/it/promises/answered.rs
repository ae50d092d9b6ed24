//! Promise 1: what a handler was given, and what had arrived when the stop was
//! seen, is answered.

use super::{await_arrival, flood, gets, is_flood};
use crate::harness::{Broken, Kept, Program, Server, noise, promise, read_to_end};
use rustix::process::{Signal, kill_process};
use std::cell::Cell;
use std::io::Write;
use std::net::Shutdown;
use std::thread;
use std::time::Duration;

fn is_loss(broken: &Broken) -> bool {
    matches!(broken, Broken::Reset(_) | Broken::Short(_))
}

#[test]
fn what_was_read_is_answered_when_the_stop_falls_into_a_stream() {
    let seed = Cell::new(0);
    promise("stop in a stream", 30, is_loss, |program| {
        seed.set(seed.get() + 1);
        let moment = Duration::from_micros(seed.get() * 137 % 3000);
        stop_in_a_stream(program, &noise(1 << 20, seed.get()), moment)
    });
}

fn stop_in_a_stream(program: Program, data: &[u8], moment: Duration) -> Kept {
    let mut server = Server::start(program, &["--poll", "100ms"]);
    let mut client = server.connect();
    let mut sender = client.try_clone().unwrap();
    let echoed = thread::scope(|scope| {
        scope.spawn(move || {
            let _ = sender.write_all(data);
            let _ = sender.shutdown(Shutdown::Write);
        });
        thread::sleep(moment); // when the stop falls is the subject
        server.signal(Signal::TERM);
        let echoed = read_to_end(&mut client);
        let _ = client.shutdown(Shutdown::Both);
        echoed
    })?;
    if !data.starts_with(&echoed) {
        return Err(Broken::Short("not a prefix of what was sent".into()));
    }
    let ended = server.wait();
    let (got, read) = (echoed.len() as u64, ended.count("bytes_in"));
    if got < read {
        return Err(Broken::Short(format!("{got} of {read} bytes")));
    }
    if program == Program::Lastecho {
        assert_eq!(ended.count("bytes_out"), got, "{ended:?}");
        assert_eq!(ended.code(), Some(0), "{ended:?}");
    }
    Ok(())
}

/// The control answers the one in hand, and resets for those behind it.
#[test]
fn slow_requests_in_hand_and_those_behind_them_are_answered() {
    promise("slow requests", 2, is_loss, |program| {
        let options = ["--poll", "100ms", "--delay", "200ms", "--buffer", "8"];
        let mut server = Server::start(program, &options);
        let requests = noise(24, 1); // three reads of eight bytes
        let mut clients: Vec<_> = (0..8).map(|_| server.connect()).collect();
        // All arrive at once, however slow the machine is.
        kill_process(server.pid(), Signal::STOP).unwrap();
        for client in &mut clients {
            client.write_all(&requests).unwrap();
        }
        await_arrival(&clients);
        kill_process(server.pid(), Signal::CONT).unwrap();
        thread::sleep(Duration::from_millis(50)); // the first ones are in hand now
        server.signal(Signal::TERM);
        for client in &mut clients {
            gets(client, &requests)?;
        }
        drop(clients);
        let ended = server.wait();
        if program == Program::Lastecho {
            assert_eq!(ended.count("drained"), 8, "{ended:?}");
            assert_eq!(ended.code(), Some(0), "{ended:?}");
        }
        Ok(())
    });
}

/// The server's process stands still while the input arrives, so that none of
/// it can have been read before the stop.
#[test]
fn unread_input_is_answered() {
    promise("unread input", 3, is_loss, |program| {
        // Several slow reads, or the control might be done before it stops.
        let options = ["--poll", "100ms", "--delay", "20ms", "--buffer", "4KiB"];
        let mut server = Server::start(program, &options);
        let mut clients: Vec<_> = (0..8).map(|_| server.connect()).collect();
        for client in &mut clients {
            super::round_trip(client, b"accepted")?;
        }
        kill_process(server.pid(), Signal::STOP).unwrap();
        // Less than the smallest receive window, so that all of it arrives.
        let data = noise(24 * 1024, 2);
        for client in &mut clients {
            client.write_all(&data).unwrap();
        }
        await_arrival(&clients);
        server.signal(Signal::TERM);
        kill_process(server.pid(), Signal::CONT).unwrap();
        for client in &mut clients {
            gets(client, &data)?;
        }
        Ok(())
    });
}

/// Much longer than the control's deadline of one poll interval for a write.
#[test]
fn a_slow_reader_gets_everything() {
    promise("slow reader", 1, is_loss, |program| {
        let mut server = Server::start(program, &["--poll", "50ms"]);
        let mut client = server.connect();
        let block = noise(1 << 20, 3);
        flood(&mut client, &block)?;
        server.signal(Signal::TERM);
        thread::sleep(Duration::from_secs(1)); // its slowness is the subject
        let echoed = read_to_end(&mut client)?;
        drop(client);
        let ended = server.wait();
        if !is_flood(&echoed, &block) || echoed.len() as u64 != ended.count("bytes_in") {
            let got = echoed.len();
            return Err(Broken::Short(format!("{got} bytes, {ended:?}")));
        }
        assert_eq!(ended.code(), Some(0), "{ended:?}");
        Ok(())
    });
}
