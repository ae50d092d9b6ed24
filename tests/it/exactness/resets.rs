//! Clients that reset, scan ports and leave the queue: the others' echo stays exact.

use super::{assert_echoed, check, exchange};
use crate::harness::{Broken, Kept, Program, Server, connect, eventually, noise, promise};
use rustix::process::Signal;
use socket2::SockRef;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::thread;
use std::time::Duration;

/// Closes with a reset, whatever is on its way.
fn reset(client: TcpStream) {
    SockRef::from(&client)
        .set_linger(Some(Duration::ZERO))
        .unwrap();
}

/// A hundred of each: clients that reset in the middle of their echo, that
/// close at once, and that reset at once.
fn storm_of_resets(address: SocketAddr) {
    let data = noise(200_000, 4);
    for number in 0..100_u32 {
        drop(connect(address));
        if let Ok(scan) = connect(address) {
            reset(scan);
        }
        let Ok(mut client) = connect(address) else {
            return;
        };
        client.set_nonblocking(true).unwrap();
        let length = (number as usize * 7919) % data.len();
        let _ = client.write(&data[..length]);
        for _ in 0..number % 5 {
            let _ = client.read(&mut vec![0; 1000 * number as usize]);
        }
        reset(client);
    }
}

/// The checked client's echoes, before, in and after a storm of resets.
fn through_a_storm(program: Program) -> Kept {
    let server = Server::start(program, &["--poll", "50ms"]);
    let (address, data) = (server.address(), noise(4 << 20, 5));
    let echoed = thread::scope(|scope| {
        let storms = [(); 3].map(|()| scope.spawn(move || storm_of_resets(address)));
        let echoed = exchange(server.connect(), &data, 10_000);
        for storm in storms {
            storm.join().unwrap();
        }
        echoed
    });
    check(&data, &echoed?)?;
    let after = connect(address).map_err(|error| Broken::Died(error.to_string()))?;
    check(&data, &exchange(after, &data, 100_000)?)?;
    let ended = server.stop();
    if ended.code() != Some(0) {
        return Err(Broken::Died(format!("{} after the storm", ended.status)));
    }
    if program == Program::Lastecho {
        let (read, sent) = (ended.count("bytes_in"), ended.count("bytes_out"));
        assert!(sent >= 2 * data.len() as u64 && sent <= read, "{ended:?}");
        assert_eq!(ended.count("bytes_lost"), read - sent, "{ended:?}");
        assert!(ended.count("reset") > 0, "nobody was reset: {ended:?}");
        assert_eq!(
            (ended.count("panicked"), ended.count("failed")),
            (0, 0),
            "{ended:?}"
        );
    }
    Ok(())
}

#[test]
fn resets_and_port_scans_leave_the_others_echo_exact() {
    let died = |broken: &Broken| matches!(broken, Broken::Died(_));
    promise("a storm of resets", 1, died, through_a_storm);
}

#[test]
fn clients_that_left_the_queue_before_they_were_accepted_change_nothing() {
    let mut server = Server::start(Program::Lastecho, &["--poll", "50ms"]);
    server.signal(Signal::STOP); // nobody accepts now
    let mut patient = server.connect();
    for number in 0..100 {
        let mut client = server.connect();
        let _ = client.write_all(&noise(number * 100, 6));
        if number % 2 == 0 {
            reset(client);
        }
    }
    patient.write_all(b"patient\n").unwrap();
    server.signal(Signal::CONT);
    let mut echo = [0; 8];
    patient.read_exact(&mut echo).unwrap();
    assert_eq!(&echo, b"patient\n");
    // All that left in order were read and answered; the others were reset.
    let data = noise(50_000, 7);
    assert_echoed(&server, &data, 50_000);
    eventually("a server that runs", || server.is_running());
    let ended = server.stop();
    assert_eq!(
        (ended.code(), ended.count("panicked")),
        (Some(0), 0),
        "{ended:?}"
    );
    assert!(ended.count("accepted") >= 52, "{ended:?}");
}
