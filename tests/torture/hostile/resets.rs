//! Resets at every point of a connection's life.

use super::{assert_sums, stuff};
use crate::harness::{Broken, Kept, Program, Server, connect, noise, promise};
use crate::witness::watch;
use crate::{is_long, shared, told};
use rustix::process::Signal;
use socket2::SockRef;
use std::cell::Cell;
use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::time::Duration;

/// What a client did before it resets.
#[derive(Clone, Copy, Debug)]
enum Point {
    Connected,
    Sent,
    /// A part of its echo was read.
    InTheEcho,
    /// It got everything, and is between two requests.
    Answered,
    HalfClosed,
    /// It had the server's FIN as well: nothing is left to reset.
    Ended,
}

const POINTS: [Point; 6] = [
    Point::Connected,
    Point::Sent,
    Point::InTheEcho,
    Point::Answered,
    Point::HalfClosed,
    Point::Ended,
];

/// Resets, whatever is on its way.
fn reset(client: TcpStream) {
    let socket = SockRef::from(&client);
    socket.set_linger(Some(Duration::ZERO)).unwrap();
}

/// One life up to this point. Errors are the control's, which may be gone.
fn live(address: SocketAddr, point: Point, data: &[u8]) -> std::io::Result<TcpStream> {
    let mut client = connect(address)?;
    let mut echo = vec![0; data.len()];
    let read = match point {
        Point::Connected => return Ok(client),
        Point::Sent | Point::HalfClosed => 0,
        Point::InTheEcho => data.len() / 2,
        Point::Answered | Point::Ended => data.len(),
    };
    client.write_all(data)?;
    client.read_exact(&mut echo[..read])?;
    if let Point::HalfClosed | Point::Ended = point {
        client.shutdown(Shutdown::Write)?;
    }
    if let Point::Ended = point {
        client.read_to_end(&mut echo)?;
    }
    Ok(client)
}

/// Resets at each point in life.
fn resets_in_life(address: SocketAddr, times: usize) -> std::io::Result<()> {
    for number in 0..times {
        let data = noise(1 + number * 1009 % 60_000, 13);
        for point in POINTS {
            reset(live(address, point, &data)?);
        }
    }
    Ok(())
}

/// Resets of clients that nobody has accepted yet.
fn resets_in_the_queue(server: &mut Server, times: usize) -> std::io::Result<()> {
    server.signal(Signal::STOP);
    let outcome = (0..times).try_for_each(|number| {
        let mut client = connect(server.address())?;
        client.write_all(&noise(number % 2 * 1000, 14))?;
        reset(client);
        Ok(())
    });
    server.signal(Signal::CONT);
    outcome
}

fn trial(program: Program, told: &Cell<(u64, u64, u64)>) -> Kept {
    let times = if is_long() { 300 } else { 40 };
    let mut server = Server::start(program, &["--poll", "50ms", "--delay", "1ms"]);
    let address = server.address();
    let (seen, outcome) = watch(address, || {
        resets_in_life(address, times).and_then(|()| resets_in_the_queue(&mut server, times))
    });
    let died = |error: std::io::Error| Broken::Died(error.to_string());
    let seen = seen?;
    outcome.map_err(died)?;
    // During the drain: each has something in hand that nobody reads.
    let stuck: std::io::Result<Vec<_>> = (0..4).map(|_| connect(address)).collect();
    let stuck = stuck.map_err(died)?;
    stuff(&stuck, 64 << 20);
    server.signal(Signal::TERM);
    if program == Program::Lastecho {
        server.await_log("stopping"); // the control does not say it
    }
    stuck.into_iter().for_each(reset);
    let ended = server.wait();
    if ended.code() != Some(0) {
        return Err(Broken::Died(format!("{}", ended.status)));
    }
    if program == Program::Lastecho {
        assert_sums(&ended);
        assert!(ended.count("bytes_out") >= seen.bytes, "{ended:?}");
        assert!(ended.count("reset") >= 4, "{ended:?}");
        assert!(ended.count("cut") == 0, "{ended:?}");
        told.set((ended.count("reset"), ended.count("bytes_lost"), seen.echoes));
    }
    Ok(())
}

#[test]
fn resets_at_every_point_leave_the_others_alone() {
    let _machine = shared();
    let measured = Cell::default();
    let died = |broken: &Broken| {
        matches!(
            broken,
            Broken::Died(_) | Broken::Short(_) | Broken::Reset(_)
        )
    };
    promise("resets at every point", 1, died, |program| {
        trial(program, &measured)
    });
    let (resets, lost, echoes) = measured.get();
    told(
        "resets after the connect, the send, a part of the echo, all of it, the half-close, the \
         end, in the queue and in the drain",
        "only its own connection ends, and at once; the sums fit; the control dies",
        &format!(
            "{resets} resets met, {lost} bytes lost and told; the witness saw {echoes} echoes right"
        ),
    );
}
