//! Bytes that mean something to others: urgent data, telnet's negotiation.

use super::assert_sums;
use crate::harness::{Broken, Kept, Program, Server, promise, read_to_end};
use crate::{shared, told};
use socket2::SockRef;
use std::io::Write;
use std::net::Shutdown;
use std::time::Instant;

const ROUNDS: usize = 200;

/// RFC 854: interpret as command; the urgent one is the data mark of a Synch.
const IAC: u8 = 255;
const DATA_MARK: u8 = 242;
/// What a telnet client says by itself: do and will and won't and don't of some
/// options, a subnegotiation of the terminal's type, are-you-there, interrupt,
/// and an escaped 255.
const NEGOTIATION: [u8; 28] = [
    IAC, 253, 3, IAC, 251, 24, IAC, 252, 1, IAC, 254, 6, IAC, 250, 24, 0, b'v', b't', IAC, 240,
    IAC, 246, IAC, 244, IAC, IAC, b'\r', 0,
];

/// Says it all again and again, with something urgent in between; whether it
/// all comes back in its place, as it was.
fn reflected(program: Program, ordinary: &[u8], urgent: u8) -> Kept {
    let server = Server::start(program, &[]);
    let mut client = server.connect();
    let mut expected = Vec::new();
    for _ in 0..ROUNDS {
        client.write_all(ordinary).unwrap();
        SockRef::from(&client).send_out_of_band(&[urgent]).unwrap();
        expected.extend_from_slice(ordinary);
        expected.push(urgent);
    }
    client.shutdown(Shutdown::Write).unwrap();
    let echo = read_to_end(&mut client)?;
    if echo != expected {
        let (got, of) = (echo.len(), expected.len());
        return Err(Broken::Short(format!("{got} of {of} bytes")));
    }
    let ended = server.stop();
    if program == Program::Lastecho {
        assert_sums(&ended);
        assert_eq!(ended.count("bytes_out"), expected.len() as u64);
    }
    Ok(())
}

fn is_short(broken: &Broken) -> bool {
    matches!(broken, Broken::Short(_))
}

#[test]
fn urgent_data_comes_back_in_its_place() {
    let _machine = shared();
    let since = Instant::now();
    promise("urgent data", 3, is_short, |program| {
        reflected(program, b"before and after", b'!')
    });
    told(
        "out-of-band data between ordinary bytes",
        "echoed in its place; the control loses it",
        &format!(
            "3 times {ROUNDS} marks, {:.1?} with the control",
            since.elapsed()
        ),
    );
}

#[test]
fn telnets_commands_and_its_synch_come_back_as_they_are() {
    let _machine = shared();
    let ordinary = [&NEGOTIATION[..], &[IAC]].concat();
    let since = Instant::now();
    promise("telnet's commands", 3, is_short, |program| {
        reflected(program, &ordinary, DATA_MARK)
    });
    told(
        "a telnet client negotiates, interrupts and sends Synch",
        "every byte back as it was, the urgent data mark in its place; the control loses it",
        &format!(
            "3 times {ROUNDS} times {} bytes, {:.1?} with the control",
            ordinary.len() + 1,
            since.elapsed()
        ),
    );
}
