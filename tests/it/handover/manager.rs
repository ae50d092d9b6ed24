//! What the service manager is told.

use super::family::Family;
use crate::harness::eventually;
use rustix::process::Signal;
use std::os::unix::net::UnixDatagram;
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// A service manager's ear.
struct Manager {
    directory: TempDir,
    socket: UnixDatagram,
}

impl Manager {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let socket = UnixDatagram::bind(directory.path().join("notify")).unwrap();
        socket
            .set_read_timeout(Some(Duration::from_millis(500)))
            .unwrap();
        Self { directory, socket }
    }

    fn start(&self, arguments: &[&str], variables: &[(&str, &str)]) -> Family {
        Family::start_with(arguments, |command| {
            command.env("NOTIFY_SOCKET", self.directory.path().join("notify"));
            command.envs(variables.iter().copied());
        })
    }

    /// The next message, if there is one within half a second.
    fn next(&self) -> Option<String> {
        let mut message = [0; 256];
        let length = self.socket.recv(&mut message).ok()?;
        Some(
            String::from_utf8_lossy(&message[..length])
                .trim_end()
                .to_owned(),
        )
    }
}

#[test]
fn readiness_the_main_process_and_the_stop_are_told() {
    let manager = Manager::new();
    let mut family = manager.start(&["127.0.0.1:0"], &[]);
    assert_eq!(manager.next().as_deref(), Some("READY=1"));
    let first = family.youngest();
    let second = family.hand_over();
    family.wait(first);
    let mut told = [manager.next().unwrap(), manager.next().unwrap()];
    told.sort();
    // The first one's end is not the service's.
    assert_eq!(told, [format!("MAINPID={second}"), "READY=1".to_owned()]);
    assert_eq!(manager.next(), None);
    family.stop();
    assert_eq!(manager.next().as_deref(), Some("STOPPING=1"));
    assert_eq!(manager.next(), None);
}

#[test]
fn a_manager_that_does_not_read_holds_nobody_up() {
    let manager = Manager::new();
    let sender = UnixDatagram::unbound().unwrap();
    sender.set_nonblocking(true).unwrap();
    let path = manager.directory.path().join("notify");
    while sender.send_to(b"STATUS=full", &path).is_ok() {}
    let mut family = manager.start(&["--poll", "100ms", "127.0.0.1:0"], &[]);
    let mut client = family.connect();
    std::io::Write::write_all(&mut client, b"x").unwrap();
    std::io::Read::read_exact(&mut client, &mut [0]).unwrap();
    family.hand_over();
    let begun = Instant::now();
    family.stop();
    assert!(begun.elapsed() < Duration::from_secs(10));
}

#[test]
fn a_manager_that_is_not_there_is_told_of_in_the_log() {
    for name in ["/nonexistent/notify", "@nobody-is-here", "nonsense"] {
        let set = |command: &mut std::process::Command| {
            command.env("NOTIFY_SOCKET", name);
        };
        let family = Family::start_with(&["127.0.0.1:0"], set);
        let told = format!("NOTIFY_SOCKET={name:?}: ");
        eventually("the manager is missed", || family.log().contains(&told));
        family.stop();
    }
}

#[test]
fn the_watchdog_is_pinged_while_accepting_goes_round() {
    let manager = Manager::new();
    let mut family = manager.start(
        &["--poll", "50ms", "127.0.0.1:0"],
        &[("WATCHDOG_USEC", "300000")],
    );
    assert_eq!(manager.next().as_deref(), Some("READY=1"));
    for _ in 0..5 {
        assert_eq!(manager.next().as_deref(), Some("WATCHDOG=1"));
    }
    // A successor pings, too.
    let first = family.youngest();
    family.hand_over();
    family.wait(first);
    let mut pings = 0;
    eventually("pings of the successor", || {
        pings += usize::from(manager.next().as_deref() == Some("WATCHDOG=1"));
        pings > 5
    });
    family.signal(Signal::TERM);
    family.stop();
}

#[test]
fn the_watchdog_is_not_pinged_while_accepting_fails() {
    let manager = Manager::new();
    let variables = [("WATCHDOG_USEC", "300000"), ("WATCHDOG_PID", "1")];
    let family = manager.start(&["--poll", "50ms", "127.0.0.1:0"], &variables);
    assert_eq!(manager.next().as_deref(), Some("READY=1"));
    assert_eq!(manager.next(), None, "the watchdog is another process's");
    family.stop();

    let manager = Manager::new();
    let family = manager.start(
        &["--poll", "50ms", "127.0.0.1:0"],
        &[("WATCHDOG_USEC", "300000")],
    );
    // No descriptor is left, so a client waits and every accept fails.
    let pid = Some(family.youngest());
    let limit = rustix::process::Rlimit {
        current: Some(0),
        maximum: Some(4096),
    };
    rustix::process::prlimit(pid, rustix::process::Resource::Nofile, limit).unwrap();
    let _client = family.connect();
    eventually("silence", || manager.next().is_none());
    let limit = rustix::process::Rlimit {
        current: Some(4096),
        maximum: Some(4096),
    };
    rustix::process::prlimit(pid, rustix::process::Resource::Nofile, limit).unwrap();
    assert_eq!(manager.next().as_deref(), Some("WATCHDOG=1"));
    family.stop();
}
