//! Successors that hang before they run: no wait lasts longer than it may.

use super::failing::serves_on;
use super::family::{Family, children, successors};
use crate::harness::eventually;
use nix::sys::fanotify::{EventFFlags, Fanotify, InitFlags, MarkFlags, MaskFlags};
use rustix::process::{Pid, Signal};
use std::fs;
use std::process::{Child, Command, Stdio};

/// Holds up what a process does, and those that it starts, as strace(1) says.
struct HeldUp(Child);

impl HeldUp {
    fn new(pid: Pid, call: &str, how: &str) -> Self {
        let child = Command::new("strace")
            .args(["-f", "-qq", "-o", "/dev/null", "-p", &pid.to_string()])
            .args(["-e", &format!("trace={call}")])
            .args(["-e", &format!("inject={call}:{how}")])
            .stdin(Stdio::null())
            .spawn()
            .unwrap();
        let held_up = Self(child);
        let tracer = format!("TracerPid:\t{}\n", held_up.0.id());
        let tasks = format!("/proc/{pid}/task");
        eventually("strace has all threads", || {
            let mut tasks = fs::read_dir(&tasks).unwrap();
            tasks.all(|task| {
                let status = fs::read_to_string(task.unwrap().path().join("status"));
                status.is_ok_and(|status| status.contains(&tracer))
            })
        });
        held_up
    }
}

impl Drop for HeldUp {
    /// Lets all go on: strace detaches when it is asked to end.
    fn drop(&mut self) {
        let _ = rustix::process::kill_process(Pid::from_child(&self.0), Signal::TERM);
        let _ = self.0.wait();
    }
}

/// A program whose file is looked at for ever before it is executed, as by a
/// virus scanner that does not decide. `None` where that is not permitted.
fn endless_look(family: &Family) -> Option<Fanotify> {
    family.replace("#!/bin/sh\nexit 0"); // a file of its own
    let look = Fanotify::init(InitFlags::FAN_CLASS_CONTENT, EventFFlags::O_RDONLY);
    let look = look.and_then(|look| {
        let (add, asked) = (MarkFlags::FAN_MARK_ADD, MaskFlags::FAN_OPEN_EXEC_PERM);
        look.mark(add, asked, std::io::stdin(), Some(&family.program()))?;
        Ok(look)
    });
    look.inspect_err(|error| println!("not tried, fanotify: {error}"))
        .ok()
}

fn is_given_up(family: &Family, expected: &str) {
    let mut old = family.connect();
    for _ in 0..2 {
        let why = family.fail_to_hand_over();
        println!("{why}");
        assert!(why.starts_with(expected), "{why}");
        assert!(
            why.ends_with("was killed: it was not ready in time"),
            "{why}"
        );
        serves_on(family, &mut old);
    }
}

const OPTIONS: [&str; 5] = [
    "--poll",
    "100ms",
    "--handover-timeout",
    "300ms",
    "127.0.0.1:0",
];

#[test]
fn one_whose_program_cannot_be_read_is_given_up_in_time() {
    let family = Family::start(&OPTIONS);
    let Some(look) = endless_look(&family) else {
        return;
    };
    is_given_up(&family, "the successor, process ");
    drop(look);
    family.stop();
}

/// The first call that std makes in a child, before it forks again.
#[test]
#[ignore = "needs strace"]
fn one_that_is_stopped_before_it_has_said_who_it_is_is_given_up_in_time() {
    let family = Family::start(&OPTIONS);
    let held_up = HeldUp::new(family.youngest(), "rt_sigaction", "signal=STOP:when=1");
    is_given_up(&family, "the successor was ");
    drop(held_up);
    family.stop();
}

#[test]
fn a_stop_does_not_wait_for_one_that_hangs() {
    let mut family = Family::start(&["--handover-timeout", "1h", "127.0.0.1:0"]);
    let Some(_look) = endless_look(&family) else {
        return;
    };
    let only = family.youngest();
    family.signal(Signal::USR2);
    eventually("a successor", || !successors(only).is_empty());
    let started = [children(only), successors(only)].concat();
    family.signal(Signal::TERM);
    assert_eq!(family.wait(only).exit_status(), Some(0));
    let log = family.log();
    assert!(log.contains("was killed: a stop came first"), "{log}");
    for left in started {
        let there = fs::exists(format!("/proc/{left}")).unwrap();
        assert!(!there, "process {left} is left over");
    }
}
