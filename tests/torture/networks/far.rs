//! Clients that are far away when the stop comes: their connect has succeeded,
//! and the last packet of their handshake has not arrived.

use super::joined::Joined;
use super::relay::Weather;
use crate::faults::strace::{Fault, Hit};
use crate::harness::{Broken, Program, Server, eventually, promise, read_to_end};
use crate::{shared, told};
use rustix::process::Signal;
use std::io::Write;
use std::net::Shutdown;
use std::thread;
use std::time::Duration;

const MS: Duration = Duration::from_millis(1);
/// What asks the kernel for such clients, and what does so where that fails.
const NETLINK: &str = "socket:error=EAFNOSUPPORT";
const NETLINK_AND_PROC: &str = "socket,openat:error=EACCES";

/// By satellite, or farther away than any machine here is slow.
fn far(delay: Duration) -> Weather {
    Weather {
        delay,
        ..Weather::default()
    }
}

/// Near, but the last packet of the handshake is lost, the second to the server.
fn unheard() -> Weather {
    Weather {
        delay: 10 * MS,
        without: Some(2),
        ..Weather::default()
    }
}

/// The stop comes when the connect of the only client has just succeeded; the
/// client speaks after this pause. Returns what it got.
fn stop_after_connect(
    server: &mut Server,
    joined: &Joined,
    pause: Duration,
) -> Result<Vec<u8>, Broken> {
    let mut client = joined.connect(server.address());
    server.signal(Signal::TERM);
    thread::sleep(pause);
    let said = client.write_all(b"from far away");
    let said = said.and_then(|()| client.shutdown(Shutdown::Write));
    said.map_err(|error| Broken::Reset(error.to_string()))?;
    read_to_end(&mut client)
}

/// The same, for a client that is owed its echo.
fn is_served(program: Program, weather: Weather, pause: Duration) -> Result<(), Broken> {
    let joined = Joined::through(weather);
    let mut server = joined.start(program, &["--drain-timeout", "50s"]);
    let echo = stop_after_connect(&mut server, &joined, pause)?;
    assert_eq!(echo, b"from far away");
    let ended = server.wait();
    assert_eq!((ended.code(), ended.count("accepted")), (Some(0), 1));
    assert_eq!(ended.count("refused"), 0, "{ended:?}");
    Ok(())
}

fn reset(broken: &Broken) -> bool {
    matches!(broken, Broken::Reset(_))
}

#[test]
#[ignore = "makes network namespaces: make test"]
fn a_client_in_the_middle_of_its_handshake_is_served_from_far_away() {
    let _machine = shared();
    promise("far away", 1, reset, |program| {
        is_served(program, far(300 * MS), Duration::ZERO)
    });
    told(
        "a lone client 300 ms away whose connect has just succeeded when the stop comes",
        "it is served",
        "1 of 1",
    );
}

#[test]
#[ignore = "makes network namespaces: make test"]
fn a_client_whose_handshake_lost_its_last_packet_is_served() {
    let _machine = shared();
    promise("lost packet", 1, reset, |program| {
        is_served(program, unheard(), 300 * MS)
    });
    told(
        "the last packet of a lone client's handshake is lost when the stop comes, and it speaks late",
        "it is served",
        "1 of 1",
    );
}

/// Where the kernel answers in no way, a grace of a fixed length is all that is
/// left: what it does to such a client shows what asking is good for.
#[test]
#[ignore = "makes network namespaces and drives strace: make test"]
fn where_netlink_is_not_allowed_proc_tells_of_clients_in_their_handshake() {
    let _machine = shared();
    let served = |calls| {
        let joined = Joined::through(far(700 * MS));
        let options = ["--drain-timeout", "50s", "--log-level", "debug"];
        let mut server = joined.start(Program::Lastecho, &options);
        let fault = Fault::inject(server.pid(), Hit::All, calls);
        let echo = stop_after_connect(&mut server, &joined, Duration::ZERO);
        let ended = server.wait();
        assert!(fault.injected() > 0, "{ended:?}");
        (echo, ended)
    };
    let (echo, ended) = served(NETLINK);
    assert_eq!(echo.unwrap_or_default(), b"from far away", "{ended:?}");
    assert_eq!(ended.code(), Some(0), "{ended:?}");
    // A machine may be so busy that the grace comes to an end too late to do harm.
    eventually("a reset after a fixed grace", || {
        let (echo, ended) = served(NETLINK_AND_PROC);
        let why = "cannot ask for clients in a handshake: netlink: ";
        assert!(ended.stderr.contains(why), "{ended:?}");
        echo.is_err_and(|broken| reset(&broken))
    });
}

#[test]
#[ignore = "makes network namespaces: make test"]
fn a_handshake_that_has_not_ended_by_the_deadline_is_told_as_refused() {
    let _machine = shared();
    let joined = Joined::through(far(700 * MS));
    let mut server = joined.start(Program::Lastecho, &["--drain-timeout", "100ms"]);
    let echo = stop_after_connect(&mut server, &joined, Duration::ZERO);
    let ended = server.wait();
    assert!(echo.is_err_and(|broken| reset(&broken)), "{ended:?}");
    assert_eq!(ended.count("refused"), 1, "{ended:?}");
    assert_eq!(ended.code(), Some(3), "{ended:?}");
}
