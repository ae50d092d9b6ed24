//! The promises of the contract, each tried on lastecho and on the control.

mod answered;
mod contained;
mod ends;
mod fin;
mod queued;
mod told;

use crate::harness::{Broken, Ended, Kept, Server, eventually, read_to_end};
use std::collections::HashSet;
use std::fs;
use std::io::{self, ErrorKind, Read, Write};
use std::net::TcpStream;
use std::thread;
use std::time::{Duration, Instant};

/// A client whose writes found no room for so long is stuck: nobody reads.
const STUCK: Duration = Duration::from_millis(300);

/// The client gets all of `owed` and then FIN.
pub(crate) fn gets(client: &mut TcpStream, owed: &[u8]) -> Kept {
    let echo = read_to_end(client)?;
    if echo == owed {
        return Ok(());
    }
    let (got, of) = (echo.len(), owed.len());
    Err(Broken::Short(format!("{got} of {of} bytes, or other ones")))
}

/// The client's bytes come back while the server goes on.
pub(crate) fn round_trip(client: &mut TcpStream, bytes: &[u8]) -> Kept {
    let mut echo = vec![0; bytes.len()];
    client
        .write_all(bytes)
        .and_then(|()| client.read_exact(&mut echo))
        .map_err(|error| Broken::Reset(format!("round trip: {error}")))?;
    if echo == bytes {
        Ok(())
    } else {
        Err(Broken::Short("other bytes came back".into()))
    }
}

/// Waits until all that these clients have sent is in the server's kernel.
pub(crate) fn await_arrival(clients: &[TcpStream]) {
    let ports = clients
        .iter()
        .map(|client| client.local_addr().unwrap().port());
    let locals: HashSet<String> = ports.map(|port| format!("0100007F:{port:04X}")).collect();
    eventually("arrival of what was sent", || {
        fs::read_to_string("/proc/net/tcp")
            .unwrap()
            .lines()
            .all(|socket| !is_unacknowledged(socket, &locals))
    });
}

/// Whether this line of /proc/net/tcp (proc(5)) is about one of these local
/// addresses, and bytes in its send queue were not acknowledged: the kernel's
/// SIOCOUTQ without a system call of our own.
fn is_unacknowledged(socket: &str, locals: &HashSet<String>) -> bool {
    let mut fields = socket.split_whitespace().skip(1);
    let ours = fields.next().is_some_and(|local| locals.contains(local));
    ours && fields
        .nth(2)
        .is_some_and(|queues| !queues.starts_with("00000000:"))
}

/// Sends the block over and over until nothing moves any more: the server is
/// blocked in a write to this client, which does not read.
pub(crate) fn flood(client: &mut TcpStream, block: &[u8]) -> Kept {
    client.set_write_timeout(Some(STUCK)).unwrap();
    let mut sent = 0;
    loop {
        match client.write(&block[sent % block.len()..]) {
            Ok(count) => sent += count,
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
            Err(error) => return Err(Broken::Reset(format!("{error} after sending {sent} bytes"))),
        }
    }
}

/// Whether these bytes are the beginning of the block sent over and over.
pub(crate) fn is_flood(bytes: &[u8], block: &[u8]) -> bool {
    bytes
        .chunks(block.len())
        .all(|part| block.starts_with(part))
}

/// All that a client gets until its end, and the error if that was its end.
pub(crate) fn take_all(client: &mut TcpStream) -> (Vec<u8>, Option<io::Error>) {
    let mut all = Vec::new();
    let error = client.read_to_end(&mut all).err();
    (all, error)
}

/// Waits for the end, which must come within `limit` of the first signal.
pub(crate) fn ended_within(mut server: Server, limit: Duration) -> Result<Ended, Broken> {
    let patience = Instant::now() + limit;
    while server.is_running() {
        if Instant::now() > patience {
            return Err(Broken::TooLong(format!("not ended after {limit:?}")));
        }
        thread::sleep(Duration::from_millis(1));
    }
    let ended = server.wait();
    if ended.took > limit {
        return Err(Broken::TooLong(format!("{:?} of {limit:?}", ended.took)));
    }
    Ok(ended)
}

/// The server must have told its outcome, and it must be this one.
pub(crate) fn tells(ended: &Ended, outcome: &[(&str, &str)]) -> Kept {
    for (key, value) in outcome {
        let told = ended.told.get(*key).map(String::as_str);
        if told != Some(*value) {
            let line = ended.stdout.trim_end();
            return Err(Broken::NotTold(format!(
                "{key}={value} in {line:?}, {}",
                ended.status
            )));
        }
    }
    Ok(())
}

/// The exit status must say the same.
pub(crate) fn exits(ended: &Ended, code: i32) -> Kept {
    if ended.code() == Some(code) {
        return Ok(());
    }
    Err(Broken::NotTold(format!("{}, not {code}", ended.status)))
}
