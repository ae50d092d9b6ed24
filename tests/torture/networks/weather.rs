//! A stop in the middle of a flood, over links that lose, delay, reorder and
//! duplicate.

use super::joined::Joined;
use super::relay::Weather;
use crate::harness::{Broken, Program, eventually, noise, promise, read_to_end};
use crate::{is_long, shared, told};
use std::io::Write;
use std::net::{Shutdown, TcpStream};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::thread;
use std::time::Duration;

const CLIENTS: usize = 3;
/// More than any of these links carries in the time.
const STREAM: usize = 16 << 20;
/// Packets after which it is a flood.
const LEAST: u64 = 300;
const DRAIN: Duration = Duration::from_secs(50);

const MS: Duration = Duration::from_millis(1);

/// What one client got back of what it sent.
fn flood(mut client: TcpStream, stream: &[u8]) -> Result<u64, Broken> {
    thread::scope(|scope| {
        let mut sender = client.try_clone().unwrap();
        let writer = scope.spawn(move || {
            // Ends when the reader has met the end.
            let _ = sender.write_all(stream);
        });
        let echo = read_to_end(&mut client);
        let _ = client.shutdown(Shutdown::Both);
        writer.join().unwrap();
        let echo = echo?;
        if !stream.starts_with(&echo) {
            return Err(Broken::Short("something else came back".into()));
        }
        Ok(echo.len() as u64)
    })
}

/// Clients flood; in the middle of it the server is asked to stop.
fn stop_in_a_flood(program: Program, name: &str, weather: Weather) -> Result<(), Broken> {
    let joined = Joined::through(weather);
    let server = joined.start(program, &["--drain-timeout", "50s"]);
    let (address, stream) = (server.address(), Arc::new(noise(STREAM, 1)));
    let clients: Vec<_> = (0..CLIENTS)
        .map(|number| {
            let (client, stream) = (joined.connect(address), Arc::clone(&stream));
            // Each somewhere else in it.
            thread::spawn(move || flood(client, &stream[number * 1000..]))
        })
        .collect();
    let passed = || joined.relay().counts.passed.load(Relaxed);
    eventually("a flood", || passed() >= LEAST);
    thread::sleep(Duration::from_secs(if is_long() { 8 } else { 1 }));
    let ended = server.stop();
    let mut received = 0;
    for client in clients {
        received += client.join().unwrap()?;
    }
    if ended.told.is_empty() {
        return Err(Broken::Died(ended.stderr));
    }
    if ended.count("bytes_out") != received {
        return Err(Broken::NotTold(format!("{received} arrived: {ended:?}")));
    }
    let befell = befell(&joined, weather);
    assert!(received > 0, "nothing went through: {befell}");
    assert_eq!(ended.count("bytes_lost"), 0, "{ended:?}");
    assert_eq!(ended.count("drained"), CLIENTS as u64, "{ended:?}");
    assert_eq!(ended.code(), Some(0), "{ended:?}");
    assert!(ended.took < DRAIN, "{ended:?}");
    told(
        &format!("{name}, 3 clients in a flood when the stop comes"),
        "FIN for everybody, every byte read is answered, bytes_out is what arrived",
        &format!(
            "{befell}; {received} bytes checked; stopped in {} ms",
            ended.count("elapsed_ms")
        ),
    );
    Ok(())
}

/// What befell the packets, and that it did. (Where a queue is full, some are
/// lost in any weather.)
fn befell(joined: &Joined, weather: Weather) -> String {
    let counts = &joined.relay().counts;
    let (passed, lost) = (counts.passed.load(Relaxed), counts.lost.load(Relaxed));
    let (twice, overtaken) = (counts.twice.load(Relaxed), counts.overtaken.load(Relaxed));
    assert!(lost > 0 || weather.loss == 0, "{counts:?}");
    assert!(twice > 0 || weather.twice == 0, "{counts:?}");
    assert!(overtaken > 0 || weather.jitter.is_zero(), "{counts:?}");
    format!("{passed} packets passed, {lost} lost, {twice} twice, {overtaken} overtaken")
}

fn keeps(name: &str, weather: Weather) {
    let _machine = shared();
    let broken = |broken: &Broken| !matches!(broken, Broken::TooLong(_));
    promise(name, 1, broken, |program| {
        stop_in_a_flood(program, name, weather)
    });
}

#[test]
#[ignore = "makes network namespaces: make test"]
fn loss() {
    let loss = Weather {
        loss: 3,
        delay: MS,
        ..Weather::default()
    };
    keeps("3 % of packets lost", loss);
}

#[test]
#[ignore = "makes network namespaces: make test"]
fn delay_and_reordering() {
    let delay = Weather {
        delay: 30 * MS,
        jitter: 20 * MS,
        ..Weather::default()
    };
    keeps("packets delayed by 30 to 50 ms, out of order", delay);
}

#[test]
#[ignore = "makes network namespaces: make test"]
fn duplication() {
    let twice = Weather {
        twice: 20,
        delay: MS,
        ..Weather::default()
    };
    keeps("20 % of packets twice", twice);
}

#[test]
#[ignore = "makes network namespaces: make test"]
fn everything_at_once() {
    let all = Weather {
        loss: 3,
        twice: 10,
        delay: 10 * MS,
        jitter: 20 * MS,
        without: None,
    };
    keeps("packets lost, delayed, out of order and twice", all);
}
