//! `systemctl reload`, and what comes after it.

use super::machine::Machine;
use super::traffic::Traffic;
use crate::harness::{eventually, read_to_end};
use rustix::process::Signal;
use std::io::{ErrorKind, Write};
use std::thread;
use std::time::{Duration, Instant};

/// A server that takes a second for each request.
const SLOW: &str = "ExecStart=\nExecStart=/usr/local/bin/lastecho --quiet --delay 1s :7";
/// The control: when systemd hears of its main process, it is another's child.
const ANOTHERS_CHILD: &str = "ExecStart=\nExecStart=/bin/sh -c '\
    /usr/local/bin/lastecho --quiet --delay 1s :7 & \
    systemd-notify --pid=$$!; ";
/// The control: who reloads does not wait.
const NO_WAIT: &str = "ExecReload=\nExecReload=/bin/sh -c 'kill -USR2 $MAINPID'";
/// Puts a program in the place of the right one that does not serve.
const BREAK: &str = "cd /usr/local/bin && cp lastecho good && \
    printf '#!/bin/sh\\nexit 7\\n' >bad && chmod +x bad && mv bad lastecho";
const REQUESTS: usize = 10;

/// Its parent does this afterwards.
fn start_as_anothers_child(machine: &Machine, afterwards: &str) {
    machine.configure(&format!("{ANOTHERS_CHILD}{afterwards}'"));
    machine.systemctl(&["restart", "lastecho"]);
    eventually("systemd has looked whose it is", || {
        machine.journal().contains("which is not our child")
    });
}

/// How many of the requests that it has in hand a stop answers.
fn answered_by_a_stop(machine: &Machine) -> usize {
    let ask = |_| {
        let mut client = machine.connect().unwrap();
        client.write_all(b"slow").unwrap();
        client
    };
    let clients: Vec<_> = (0..REQUESTS).map(ask).collect();
    machine.systemctl(&["stop", "lastecho"]);
    let answers = clients.into_iter().map(|mut c| read_to_end(&mut c));
    answers
        .filter(|a| a.as_deref().is_ok_and(|a| a == b"slow"))
        .count()
}

#[test]
#[ignore = "needs systemd and root: make deps"]
fn after_reloads_under_traffic_a_stop_answers_what_is_in_hand() {
    let Some(machine) = Machine::boot() else {
        return;
    };
    machine.systemctl(&["start", "lastecho"]);
    assert_eq!(machine.show("StatusText"), "serving");
    let traffic = Traffic::begin(&machine);
    for _ in 0..2 {
        let before = machine.show("MainPID");
        machine.systemctl(&["reload", "lastecho"]);
        // It is over when `reload` returns.
        assert_ne!(machine.show("MainPID"), before);
    }
    let seen = traffic.end();
    assert!(seen.echoed > 0 && seen.wrong.is_empty(), "{seen:?}");
    machine.configure(SLOW);
    machine.systemctl(&["restart", "lastecho"]);
    machine.systemctl(&["reload", "lastecho"]);
    let answered = answered_by_a_stop(&machine);
    assert_eq!(answered, REQUESTS, "{}", machine.journal());
    assert_eq!(machine.show("Result"), "success");

    start_as_anothers_child(&machine, "exit 0");
    let main = machine.show("MainPID");
    let parent = format!("/proc/{main}/status");
    // While its parent is there, systemd waits for that one.
    eventually("its parent is gone", || {
        machine.run(&["grep", "PPid", &parent]).ends_with("\t1")
    });
    let answered = answered_by_a_stop(&machine);
    println!("where the main process is another's child, a stop answers {answered}");
    assert!(
        answered < REQUESTS,
        "the control loses none: this test shows nothing"
    );
}

#[test]
#[ignore = "needs systemd and root: make deps"]
fn a_reload_with_a_broken_program_fails_and_says_why() {
    let Some(machine) = Machine::boot() else {
        return;
    };
    machine.systemctl(&["start", "lastecho"]);
    let main = machine.show("MainPID");
    machine.run(&["sh", "-c", BREAK]);
    for _ in 0..2 {
        let output = machine.try_systemctl(&["reload", "lastecho"]);
        assert!(!output.status.success(), "{output:?} {}", machine.journal());
        let status = machine.show("StatusText");
        assert!(status.starts_with("serving; no handover at "), "{status}");
        assert!(status.ends_with("exit status: 7"), "{status}");
        assert!(machine.journal().contains(&status), "{}", machine.journal());
        assert_eq!(machine.show("MainPID"), main);
        assert_eq!(machine.show("ActiveState"), "active");
        machine.echoes().unwrap();
    }
    machine.configure(NO_WAIT);
    machine.systemctl(&["reload", "lastecho"]); // the control: it says success
    eventually("it has failed", || {
        machine.show("StatusText").contains("no handover")
    });
    machine.configure("");
    machine.run(&["mv", "/usr/local/bin/good", "/usr/local/bin/lastecho"]);
    machine.systemctl(&["reload", "lastecho"]);
    assert_ne!(machine.show("MainPID"), main);
    assert_eq!(machine.show("StatusText"), "serving");
    machine.echoes().unwrap();
}

#[test]
#[ignore = "needs systemd and root: make deps"]
fn a_successor_that_is_killed_is_missed_while_its_predecessor_drains() {
    let Some(machine) = Machine::boot() else {
        return;
    };
    machine.configure(&SLOW.replace("1s", "5s"));
    machine.systemctl(&["start", "lastecho"]);
    let mut client = machine.connect().unwrap();
    client.write_all(b"slow").unwrap();
    machine.systemctl(&["reload", "lastecho"]);
    machine.signal_main(Signal::KILL);
    eventually("it is missed", || machine.show("ActiveState") != "active");
    // The predecessor thinks about its answer still.
    client.set_nonblocking(true).unwrap();
    let early = client.peek(&mut [0]);
    let log = || machine.journal();
    assert!(
        early.is_err_and(|e| e.kind() == ErrorKind::WouldBlock),
        "{}",
        log()
    );
    client.set_nonblocking(false).unwrap();
    assert_eq!(read_to_end(&mut client).unwrap(), b"slow");
    eventually("another serves", || machine.connect().is_ok());
    assert_eq!(machine.show("NRestarts"), "1");

    start_as_anothers_child(&machine, "exec sleep 600");
    machine.signal_main(Signal::KILL);
    eventually("it is gone", || machine.connect().is_err());
    // The control: systemd does not notice.
    let patience = Instant::now() + Duration::from_secs(3);
    while Instant::now() < patience {
        assert!(
            machine.connect().is_err(),
            "the control is replaced: this test shows nothing"
        );
        thread::sleep(Duration::from_millis(100));
    }
}

/// systemd 253 and newer.
#[test]
#[ignore = "needs systemd and root: make deps"]
fn notify_reload_waits_for_the_handover() {
    let Some(machine) = Machine::boot() else {
        return;
    };
    if machine.version() < 253 {
        println!("systemd {} has no notify-reload", machine.version());
        return;
    }
    machine.configure("Type=notify-reload\nReloadSignal=SIGUSR2\nExecReload=");
    machine.systemctl(&["start", "lastecho"]);
    for _ in 0..3 {
        let before = machine.show("MainPID");
        machine.systemctl(&["reload", "lastecho"]);
        assert_ne!(machine.show("MainPID"), before);
        assert_eq!(machine.show("StatusText"), "serving");
        machine.echoes().unwrap();
    }
    // It has no way to tell systemd that there was no handover.
    machine.run(&["sh", "-c", BREAK]);
    machine.systemctl(&["reload", "lastecho"]);
    let status = machine.show("StatusText");
    assert!(status.starts_with("serving; no handover at "), "{status}");
    // Without the signal's name it is HUP, and that is a stop.
    machine.configure("Type=notify-reload\nExecReload=");
    machine.systemctl(&["reload", "lastecho"]);
    eventually("it has stopped", || {
        machine.show("ActiveState") == "inactive"
    });
}
