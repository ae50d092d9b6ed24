//! Calls on one connection that fail once: that connection ends as the error
//! says, what it had is told to the byte, and no other notices.

use super::observed::Observed;
use super::strace::{Fault, Hit};
use crate::client::{close, echo, hear};
use crate::harness::{Broken, Program, Server, eventually, promise, read_to_end};
use crate::{shared, told};
use std::io::{Read, Write};
use std::net::TcpStream;

const FIRST: &[u8] = b"answered before";
const SECOND: &[u8] = b"what the fault hits";

/// What must become of the connection.
#[derive(Clone, Copy, Debug, PartialEq)]
enum End {
    /// It goes on.
    Whole,
    /// This system's error: the connection fails, and is ended with FIN.
    Failed,
    /// The peer's or the network's: counted as reset.
    Reset,
}

/// By recv(2), send(2), tcp(7) and ip(7).
const FAULTS: [(&str, End); 24] = [
    ("recvfrom:error=EINTR", End::Whole),
    ("recvfrom:error=EAGAIN", End::Whole),
    ("recvfrom:error=ENOMEM", End::Whole),
    ("recvfrom:error=EIO", End::Failed),
    ("recvfrom:error=EBADF", End::Failed),
    ("recvfrom:error=EFAULT", End::Failed),
    ("recvfrom:error=EINVAL", End::Failed),
    ("recvfrom:error=ENOTSOCK", End::Failed),
    ("recvfrom:error=ECONNRESET", End::Reset),
    ("recvfrom:error=ETIMEDOUT", End::Reset),
    ("recvfrom:error=EHOSTUNREACH", End::Reset),
    ("recvfrom:error=ENOTCONN", End::Reset),
    ("sendto:error=EINTR", End::Whole),
    ("sendto:error=EAGAIN", End::Whole),
    ("sendto:error=ENOBUFS", End::Whole),
    ("sendto:error=ENOMEM", End::Whole),
    ("sendto:error=EIO", End::Failed),
    ("sendto:error=EACCES", End::Failed),
    ("sendto:error=EMSGSIZE", End::Failed),
    ("sendto:error=EPERM", End::Failed),
    ("sendto:error=EPIPE", End::Reset),
    ("sendto:error=ECONNRESET", End::Reset),
    ("sendto:error=ENETDOWN", End::Reset),
    ("sendto:error=ETIMEDOUT", End::Reset),
];

/// Bytes that were read and could not be answered: what a failed write costs.
fn lost(call: &str, end: End) -> u64 {
    let unanswered = call.starts_with("sendto") && end != End::Whole;
    if unanswered { SECOND.len() as u64 } else { 0 }
}

/// One connection with one call that fails.
fn hit(
    server: &Server,
    mut victim: TcpStream,
    fault: &Fault,
    (call, end): (&str, End),
) -> Result<(), Broken> {
    if call.starts_with("sendto") {
        victim.write_all(SECOND).unwrap(); // its echo is what fails
    }
    eventually("the fault", || fault.injected() > 0);
    match end {
        End::Whole if call.starts_with("recvfrom") => {
            echo(&mut victim, SECOND)?;
            return close(victim);
        }
        End::Whole => {
            hear(&mut victim, SECOND)?;
            return close(victim);
        }
        End::Failed => {
            let rest = read_to_end(&mut victim)?;
            assert!(rest.is_empty(), "{rest:?} after a failure");
        }
        // FIN or RST: the network is said to be broken.
        End::Reset => drop(victim.read(&mut [0])),
    }
    echo(&mut server.connect(), b"and the next one")
}

fn trial(program: Program, faults: &[(&str, End)]) -> Result<String, Broken> {
    let mut observed = Observed::start(program, &["--poll", "200ms"]);
    let mut connection = 1;
    for (call, end) in faults {
        let mut victim = observed.server.connect();
        echo(&mut victim, FIRST)?;
        connection += 1;
        let target = match program {
            Program::Lastecho => Hit::Connection(connection),
            Program::Control => Hit::All,
        };
        let injection = format!("{call}:when=1");
        observed.fault(
            |server| Fault::inject(server, target, &injection),
            |server, fault| hit(server, victim, fault, (call, *end)),
        )?;
        connection += u64::from(*end != End::Whole);
    }
    let (seen, ended) = observed.stop()?;
    let count = |wanted| faults.iter().filter(|(_, end)| *end == wanted).count() as u64;
    let owed: u64 = faults.iter().map(|(call, end)| lost(call, *end)).sum();
    assert_eq!(ended.count("failed"), count(End::Failed), "{ended:?}");
    assert_eq!(ended.count("reset"), count(End::Reset), "{ended:?}");
    // Of a connection that was reset only what the peer had acknowledged counts.
    let doubtful = owed + count(End::Reset) * FIRST.len() as u64;
    let told = ended.count("bytes_lost");
    assert!(
        (owed..=doubtful).contains(&told),
        "{owed} to {doubtful}: {ended:?}"
    );
    assert_eq!(ended.code(), Some(0), "{ended:?}");
    seen.assert_quiet();
    Ok(format!(
        "{} connections hit: {} went on, {} ended with FIN, {} counted as reset; {owed} bytes \
         unanswered, {told} told; {} bytes of the other checked, its slowest echo {:.1?}",
        faults.len(),
        count(End::Whole),
        count(End::Failed),
        count(End::Reset),
        seen.rounds.bytes,
        seen.rounds.slowest,
    ))
}

#[test]
#[ignore = "drives strace: make test"]
fn a_call_that_fails_on_one_connection_touches_no_other() {
    let _machine = shared();
    let ends = |broken: &Broken| !matches!(broken, Broken::TooLong(_) | Broken::NotTold(_));
    promise("one connection's fault", 1, ends, |program| match program {
        Program::Control => trial(program, &[("recvfrom:error=EIO", End::Failed)]).map(drop),
        Program::Lastecho => {
            told(
                "recvfrom or sendto fails on one connection, 24 ways (strace)",
                "that connection ends as the error says, told to the byte; no other notices",
                &trial(program, &FAULTS)?,
            );
            Ok(())
        }
    });
}
