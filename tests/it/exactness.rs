//! Exactness: what comes back is what was sent, byte for byte, and the sums of
//! the `stopped` line are the sums of what clients saw.

mod resets;

use crate::harness::{Broken, Ended, Kept, Program, Server, noise, read_to_end};
use rustix::net::{SendFlags, send};
use rustix::process::Signal;
use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::thread;

/// Sends all of it in pieces of `chunk` bytes while reading, then half-closes
/// and reads to the end.
fn exchange(mut client: TcpStream, data: &[u8], chunk: usize) -> Result<Vec<u8>, Broken> {
    client.set_nodelay(true).unwrap();
    let mut sender = client.try_clone().unwrap();
    thread::scope(|scope| {
        scope.spawn(move || {
            for piece in data.chunks(chunk) {
                if sender.write_all(piece).is_err() {
                    return; // the reader sees why
                }
            }
            let _ = sender.shutdown(Shutdown::Write);
        });
        read_to_end(&mut client)
    })
}

/// Whether the echo of `data` is `data`.
fn check(data: &[u8], echoed: &[u8]) -> Kept {
    if data == echoed {
        return Ok(());
    }
    let same = data.iter().zip(echoed).take_while(|(a, b)| a == b).count();
    let (got, sent) = (echoed.len(), data.len());
    Err(Broken::Short(format!(
        "{got} of {sent} bytes, the first {same} right"
    )))
}

fn assert_echoed(server: &Server, data: &[u8], chunk: usize) {
    let echoed = exchange(server.connect(), data, chunk);
    let kept = echoed.and_then(|echoed| check(data, &echoed));
    kept.unwrap_or_else(|broken| panic!("{broken}; log: {}", server.stderr()));
}

/// Nothing was cut, reset or lost, and so many bytes passed.
fn assert_sums(ended: &Ended, connections: u64, bytes: u64) {
    assert_eq!(ended.code(), Some(0), "{ended:?}");
    assert_eq!(ended.told["clean"], "true");
    assert_eq!(ended.count("accepted"), connections);
    assert_eq!(ended.count("bytes_in"), bytes);
    assert_eq!(ended.count("bytes_out"), bytes);
    assert_eq!(ended.count("bytes_lost"), 0);
    for key in [
        "cut",
        "refused",
        "panicked",
        "failed",
        "reset",
        "idle",
        "expired",
        "discarded",
    ] {
        assert_eq!(ended.count(key), 0, "{key} in {ended:?}");
    }
}

#[test]
fn a_check_that_sees_nothing_would_be_useless() {
    check(b"abc", b"abc").unwrap();
    for wrong in [&b"ab"[..], b"abd", b"abcd", b""] {
        check(b"abc", wrong).unwrap_err();
    }
}

#[test]
fn every_byte_value_and_runs_of_nul_come_back() {
    let server = Server::start(Program::Lastecho, &[]);
    let values: Vec<u8> = (0..=255).collect();
    let pairs: Vec<u8> = (0..=255)
        .flat_map(|high| (0..=255).flat_map(move |low| [high, low]))
        .collect();
    let telnet = [255, 253, 3, 255, 244, 255, 242, 4, 3, 26, 0];
    let streams: [&[u8]; 5] = [&values, &pairs, &[0; 100_000], &telnet, b""];
    for data in streams {
        assert_echoed(&server, data, 4096);
    }
    let bytes = streams.iter().map(|data| data.len() as u64).sum();
    assert_sums(&server.stop(), 5, bytes);
}

#[test]
fn single_bytes_come_back_one_by_one() {
    let server = Server::start(Program::Lastecho, &[]);
    let data = noise(4000, 1);
    assert_echoed(&server, &data, 1);
    // Each is answered before the next is sent.
    let mut client = server.connect();
    client.set_nodelay(true).unwrap();
    for byte in &data[..500] {
        let mut echo = [!byte];
        client.write_all(&[*byte]).unwrap();
        client.read_exact(&mut echo).unwrap();
        assert_eq!(echo, [*byte]);
    }
    drop(client);
    assert_sums(&server.stop(), 2, 4500);
}

#[test]
fn reads_of_any_size_give_the_same_echo() {
    let data = noise(300_000, 2);
    for size in ["1", "7", "4096", "65536", "1MiB"] {
        let server = Server::start(Program::Lastecho, &["--buffer", size]);
        let length = if size == "1" { 20_000 } else { data.len() };
        assert_echoed(&server, &data[..length], 10_000);
        assert_sums(&server.stop(), 1, length as u64);
    }
}

#[test]
fn a_client_that_half_closes_gets_all_the_rest() {
    let server = Server::start(Program::Lastecho, &[]);
    let lengths = [1, 2047, 2048, 2049, 61_439, 61_440, 61_441, 1_000_000];
    for length in lengths {
        let data = noise(length, length as u64);
        let mut client = server.connect();
        let mut sender = client.try_clone().unwrap();
        thread::scope(|scope| {
            scope.spawn(|| {
                sender.write_all(&data).unwrap();
                sender.shutdown(Shutdown::Write).unwrap();
            });
            // It begins to read only when the echo has piled up.
            let mut byte = [0];
            client.peek(&mut byte).unwrap();
            check(&data, &read_to_end(&mut client).unwrap()).unwrap();
        });
    }
    let bytes = lengths.iter().sum::<usize>() as u64;
    assert_sums(&server.stop(), lengths.len() as u64, bytes);
}

#[test]
fn sixty_four_mebibytes_pass_both_ways_at_once() {
    let server = Server::start(Program::Lastecho, &[]);
    // Repeated, because making it takes time; no piece repeats within it.
    let mut data = noise(1_000_003, 3).repeat(68);
    data.truncate(64 << 20);
    assert_echoed(&server, &data, 100_003);
    assert_sums(&server.stop(), 1, 64 << 20);
}

#[test]
fn many_clients_at_once_get_their_own_bytes() {
    let server = Server::start(Program::Lastecho, &[]);
    thread::scope(|scope| {
        for number in 1..=50 {
            let server = &server;
            let data = noise(100_000, number as u64);
            scope.spawn(move || assert_echoed(server, &data, 997 * number));
        }
    });
    assert_sums(&server.stop(), 50, 50 * 100_000);
}

#[test]
fn out_of_band_data_is_echoed_in_its_place() {
    let server = Server::start(Program::Lastecho, &[]);
    let mut client = server.connect();
    let mut expected = Vec::new();
    for _ in 0..100 {
        client.write_all(b"before").unwrap();
        assert_eq!(send(&client, b"!", SendFlags::OOB).unwrap(), 1);
        client.write_all(b"after").unwrap();
        expected.extend_from_slice(b"before!after");
    }
    client.shutdown(Shutdown::Write).unwrap();
    check(&expected, &read_to_end(&mut client).unwrap()).unwrap();
    assert_echoed(&server, b"others are served", 4);
    assert_sums(&server.stop(), 2, expected.len() as u64 + 17);
}

#[test]
fn bytes_behind_out_of_band_data_that_had_arrived_at_the_stop_are_echoed() {
    let options = ["-vv", "--delay", "500ms", "--poll", "20ms"];
    let mut server = Server::start(Program::Lastecho, &options);
    let mut client = server.connect();
    client.write_all(b"x").unwrap();
    server.await_log("connection 1: 1 byte"); // in hand now, for 500 ms
    send(&client, b"!", SendFlags::OOB).unwrap();
    client.write_all(b"behind").unwrap();
    server.signal(Signal::TERM);
    let rest = read_to_end(&mut client).unwrap();
    assert_eq!(String::from_utf8_lossy(&rest), "x!behind");
    assert_eq!(server.wait().count("bytes_lost"), 0);
}
