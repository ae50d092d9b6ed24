//! Predecessors that die in a handover, and signals to all of a family.

use super::failing::REAL;
use super::family::{Family, successors};
use crate::harness::eventually;
use rustix::process::{Pid, Signal, kill_process};
use std::collections::BTreeMap;
use std::fs;
use std::io::{Read, Write};

/// The successor takes over from one that is killed when it has come so far.
fn one_that_is_killed(when: &str, kill: impl FnOnce(&Family, Pid)) {
    let mut family = Family::start(&["--handover-timeout", "1min", "127.0.0.1:0"]);
    let (first, address) = (family.youngest(), family.address());
    family.replace(&format!(
        "#!/bin/sh\nset {first}\nkill -STOP $1\n{when}exec {REAL} {address}"
    ));
    family.signal(Signal::USR2);
    // Which accepts nobody, then.
    eventually("its predecessor is stopped", || {
        let stat = fs::read_to_string(format!("/proc/{first}/stat"));
        stat.unwrap().contains(") T ")
    });
    let second = Pid::from_raw(successors(first)[0]).unwrap();
    family.members.push(second);
    // Who comes now waits in the queue.
    let mut early = family.connect();
    early.write_all(b"early").unwrap();
    kill(&family, first);
    family.wait(first);
    let mut late = family.connect();
    late.write_all(b"late!").unwrap();
    for client in [&mut early, &mut late] {
        client.read_exact(&mut [0; 5]).unwrap();
    }
    eventually("it says so", || {
        family
            .log()
            .contains("the predecessor died before it had handed over")
    });
    drop((early, late));
    kill_process(second, Signal::TERM).unwrap();
    assert_eq!(family.wait(second).exit_status(), Some(0));
    let told = super::family::told(&family.stdout());
    assert_eq!((told.len(), told[0]["accepted"].as_str()), (1, "2"));
}

#[test]
fn a_successor_that_is_ready_serves_where_its_predecessor_is_killed() {
    one_that_is_killed("", |family, first| {
        eventually("it is ready", || {
            family.log().matches("process").count() == 2
        });
        kill_process(first, Signal::KILL).unwrap();
    });
}

#[test]
fn a_successor_that_is_not_ready_yet_serves_where_its_predecessor_is_killed() {
    one_that_is_killed(
        "while kill -0 $1 2>/dev/null; do sleep 0.01; done\n",
        |_, first| {
            kill_process(first, Signal::KILL).unwrap();
        },
    );
}

/// Whether the threads of a server hold none of their signals off. While a
/// thread is started, its starter does for a moment.
fn hears_signals(pid: Pid) -> bool {
    const HUP_INT_QUIT_USR1_USR2_TERM: u64 = 0x4a07;
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).unwrap();
    let of_task = |task: fs::DirEntry| {
        let status = fs::read_to_string(task.path().join("status")).ok()?;
        let field = |name| status.lines().find_map(|line| line.strip_prefix(name));
        let mask = u64::from_str_radix(field("SigBlk:\t")?, 16).unwrap();
        Some((field("Name:\t")?.to_owned(), mask))
    };
    let masks: BTreeMap<_, _> = tasks.filter_map(|task| of_task(task.ok()?)).collect();
    let mut servers = ["lastecho", "accept", "signals"].iter();
    servers.all(|&name| {
        masks
            .get(name)
            .is_some_and(|mask| mask & HUP_INT_QUIT_USR1_USR2_TERM == 0)
    })
}

/// `systemctl kill -s USR2` reaches all processes of a service, also one that
/// has no handler yet.
#[test]
fn a_signal_that_the_predecessor_catches_does_not_end_a_newborn() {
    let mut family = Family::start(&["--poll", "100ms", "127.0.0.1:0"]);
    family.replace("#!/bin/sh\nkill -USR2 $$\nexit 9");
    let why = family.fail_to_hand_over();
    assert!(
        why.ends_with("ended before it was ready: exit status: 9"),
        "{why}"
    );
    // One that has a handler by and by hears it then.
    family.replace(&format!(
        "#!/bin/sh\nkill -USR1 $$\nexec {REAL} {}",
        family.address()
    ));
    family.hand_over();
    eventually("it hears the signal", || {
        let log = family.log();
        log.contains("SIGUSR1: not serving yet") || log.contains("live: 0 connections")
    });
    let second = family.youngest();
    eventually("nothing is held off any more", || hears_signals(second));
    family.stop();
}
