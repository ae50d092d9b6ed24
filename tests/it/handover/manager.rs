//! What the service manager is told.

use super::family::{Family, children};
use crate::harness::{eventually, read_to_end};
use rustix::process::{Pid, Signal, getpid, kill_process};
use std::io::{Read, Write};
use std::os::unix::net::UnixDatagram;
use std::time::Duration;
use tempfile::TempDir;

const READY: &str = "READY=1\nSTATUS=serving";

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

    /// A handover begins, now.
    fn is_told_of_a_handover(&self) {
        let told = self.next().unwrap();
        let usec = told.strip_prefix("RELOADING=1\nMONOTONIC_USEC=");
        let usec = usec.and_then(|rest| rest.strip_suffix("\nSTATUS=handing over"));
        let usec: u128 = usec.unwrap_or_else(|| panic!("{told:?}")).parse().unwrap();
        let uptime = std::fs::read_to_string("/proc/uptime").unwrap();
        let uptime: f64 = uptime.split(' ').next().unwrap().parse().unwrap();
        // It includes the time of a suspension, which the other clock does not.
        let now = Duration::from_secs_f64(uptime + 0.01).as_micros();
        assert!(usec > 0 && usec <= now, "{usec} of {now}");
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
    assert_eq!(manager.next().as_deref(), Some(READY));
    let first = family.youngest();
    let second = family.hand_over();
    family.wait(first);
    manager.is_told_of_a_handover();
    // In one word, so that no reload is over before its main process is known.
    // The first one's end is not the service's.
    let done = format!("MAINPID={second}\n{READY}");
    assert_eq!(manager.next(), Some(done));
    assert_eq!(manager.next(), None);
    family.stop();
    let stopping = "STOPPING=1\nSTATUS=draining: 0 connections left";
    assert_eq!(manager.next().as_deref(), Some(stopping));
    assert_eq!(manager.next(), None);
}

/// As systemd looks at a main process when it is told its number: one that is
/// another's child is not waited for at a stop, but killed.
#[test]
fn the_main_process_is_the_managers_own_when_it_is_told() {
    let manager = Manager::new();
    let mut family = manager.start(&["127.0.0.1:0"], &[]);
    assert_eq!(manager.next().as_deref(), Some(READY));
    // The predecessor stays meanwhile.
    let mut old = family.connect();
    old.write_all(b"x").unwrap();
    old.read_exact(&mut [0]).unwrap();
    let first = family.youngest();
    kill_process(first, Signal::USR2).unwrap();
    let mut main = None;
    eventually("a new main process", || {
        let told = manager.next().unwrap_or_default();
        let number = told.lines().find_map(|line| line.strip_prefix("MAINPID="));
        main = number.map(|number| number.parse().unwrap());
        main.is_some()
    });
    let main = main.unwrap();
    // Orphans are ours, as they are a service manager's.
    let ours = children(getpid());
    assert!(ours.contains(&main), "process {main} is none of {ours:?}");
    let main = Pid::from_raw(main).unwrap();
    family.members.push(main);
    // So its end is seen while its predecessor drains.
    kill_process(main, Signal::KILL).unwrap();
    let ended = family.wait(main);
    assert_eq!(ended.terminating_signal(), Some(Signal::KILL.as_raw()));
    assert!(children(getpid()).contains(&first.as_raw_nonzero().get()));
}

#[test]
fn a_handover_that_fails_is_told_with_its_reason() {
    let manager = Manager::new();
    let mut family = manager.start(&["127.0.0.1:0"], &[]);
    assert_eq!(manager.next().as_deref(), Some(READY));
    let mut before = String::new();
    for _ in 0..2 {
        family.replace("#!/bin/sh\nexit 7");
        let why = family.fail_to_hand_over();
        manager.is_told_of_a_handover();
        // It serves, and no two of these are alike.
        let told = manager.next().unwrap();
        assert!(
            told.starts_with("READY=1\nSTATUS=serving; no handover at 2"),
            "{told}"
        );
        assert!(told.ends_with(&format!("Z: {why}")), "{told}");
        assert_ne!(told, before);
        before = told;
    }
    family.restore();
    let second = family.hand_over();
    manager.is_told_of_a_handover();
    let done = format!("MAINPID={second}\n{READY}");
    assert_eq!(manager.next(), Some(done));
    family.stop();
}

#[test]
fn a_handover_beside_another_and_one_of_a_process_that_drains_are_not_told() {
    let manager = Manager::new();
    let options = ["--delay", "1s", "--handover-timeout", "1s", "127.0.0.1:0"];
    let mut family = manager.start(&options, &[]);
    assert_eq!(manager.next().as_deref(), Some(READY));
    family.replace("#!/bin/sh\nexec sleep 600");
    family.signal(Signal::USR2);
    manager.is_told_of_a_handover();
    assert!(family.fail_to_hand_over().contains("another handover"));
    let told = manager
        .next()
        .or_else(|| manager.next())
        .or_else(|| manager.next());
    assert!(told.unwrap().contains("; no handover at "));
    eventually("both are in the log", || {
        family.log().matches("no handover: ").count() == 2
    });
    family.restore();
    let first = family.youngest();
    let mut client = family.connect();
    client.write_all(b"slow").unwrap();
    family.hand_over();
    manager.is_told_of_a_handover();
    assert!(manager.next().unwrap().starts_with("MAINPID="));
    kill_process(first, Signal::USR2).unwrap();
    let log = || family.log();
    eventually("it was refused", || {
        log().contains("no handover: handed over already")
    });
    assert_eq!(read_to_end(&mut client).unwrap(), b"slow");
    assert_eq!(manager.next(), None);
    family.stop();
}

#[test]
fn what_is_left_at_a_stop_is_told() {
    let manager = Manager::new();
    let mut family = manager.start(&["--delay", "3s", "127.0.0.1:0"], &[]);
    assert_eq!(manager.next().as_deref(), Some(READY));
    let mut client = family.connect();
    client.write_all(b"slow").unwrap();
    eventually("it has the client", || {
        family.signal(Signal::USR1);
        family.log().contains("live: 1 connection")
    });
    family.signal(Signal::TERM);
    let draining = "STATUS=draining: 1 connection left";
    assert_eq!(manager.next(), Some(format!("STOPPING=1\n{draining}")));
    let again = manager
        .next()
        .or_else(|| manager.next())
        .or_else(|| manager.next());
    assert_eq!(again.as_deref(), Some(draining));
    assert_eq!(read_to_end(&mut client).unwrap(), b"slow");
    let first = family.youngest();
    assert_eq!(family.wait(first).exit_status(), Some(0));
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
    client.write_all(b"x").unwrap();
    client.read_exact(&mut [0]).unwrap();
    family.hand_over();
    family.stop(); // a watchdog is on it
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
    assert_eq!(manager.next().as_deref(), Some(READY));
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
    assert_eq!(manager.next().as_deref(), Some(READY));
    assert_eq!(manager.next(), None, "the watchdog is another process's");
    family.stop();

    // What counts is the poll interval that is used: a quarter of the drain timeout.
    for poll in ["50ms", "1h"] {
        hang_and_come_back(&["--poll", poll, "--drain-timeout", "400ms", "127.0.0.1:0"]);
    }
}

/// The longest interval is no reason to kill a server that is well.
#[test]
fn the_watchdog_is_pinged_with_the_longest_poll_interval() {
    let manager = Manager::new();
    let longest = format!("{}s 999999999ns", u64::MAX);
    let arguments = ["--poll", &longest, "--drain-timeout", "none", "127.0.0.1:0"];
    let family = manager.start(&arguments, &[("WATCHDOG_USEC", "300000")]);
    assert_eq!(manager.next().as_deref(), Some(READY));
    for _ in 0..5 {
        assert_eq!(manager.next().as_deref(), Some("WATCHDOG=1"));
    }
    family.stop();
}

fn hang_and_come_back(arguments: &[&str]) {
    let manager = Manager::new();
    let family = manager.start(arguments, &[("WATCHDOG_USEC", "300000")]);
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
    let is_pinged = || manager.next().as_deref() == Some("WATCHDOG=1");
    eventually("pings once more", is_pinged);
    family.stop();
}
