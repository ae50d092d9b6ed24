//! Successors that hang before they run: no wait lasts longer than it may.

use super::failing::serves_on;
use super::family::{Family, children, successors};
use crate::harness::eventually;
use nix::sys::fanotify::{EventFFlags, Fanotify, InitFlags, MarkFlags, MaskFlags};
use rustix::process::{Pid, Signal, kill_process};
use std::fs;
use std::process::{Child, Command, Stdio};

/// Holds up or spoils what a process does, and those that it starts, as
/// strace(1) says.
struct HeldUp(Child);

impl HeldUp {
    fn new(pid: Pid, call: &str, how: &str) -> Self {
        Self::at(pid, &[(call, how)])
    }

    fn at(pid: Pid, calls: &[(&str, &str)]) -> Self {
        let mut command = Command::new("strace");
        command.args(["-f", "-qq", "-o", "/dev/null", "-p", &pid.to_string()]);
        let traced: Vec<_> = calls.iter().map(|&(call, _)| call).collect();
        command.args(["-e", &format!("trace={}", traced.join(","))]);
        for (call, how) in calls {
            command.args(["-e", &format!("inject={call}:{how}")]);
        }
        let child = command.stdin(Stdio::null()).spawn().unwrap();
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
        let _ = kill_process(Pid::from_child(&self.0), Signal::TERM);
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

/// No process has a handle before Linux 5.3, nor where a sandbox says so.
#[test]
#[ignore = "needs strace"]
fn without_handles_of_processes_one_that_hangs_is_killed_and_others_take_over() {
    for (call, error) in [
        ("pidfd_open", "error=ENOSYS"),
        ("pidfd_open", "error=EPERM"),
        ("pidfd_send_signal", "error=EPERM"),
    ] {
        let options = ["--poll", "100ms", "--handover-timeout", "3s", "127.0.0.1:0"];
        let mut family = Family::start(&options);
        family.replace("#!/bin/sh\nexec sleep 600");
        let spoiled = HeldUp::new(family.youngest(), call, error);
        is_given_up(&family, "the successor, process ");
        family.restore();
        family.hand_over();
        drop(spoiled);
        family.stop();
    }
}

/// Without handles, too, one that hangs before it runs is found.
#[test]
#[ignore = "needs strace"]
fn without_handles_of_processes_one_that_does_not_say_who_it_is_is_killed() {
    let family = Family::start(&OPTIONS);
    let stops = ("rt_sigaction", "signal=STOP:when=1");
    let calls = [stops, ("pidfd_open", "error=EPERM")];
    let spoiled = HeldUp::at(family.youngest(), &calls);
    is_given_up(&family, "the successor was ");
    drop(spoiled);
    family.stop();
}

/// The child between is killed by somebody else (out of memory, say), after it
/// has said who its child is: nobody tells how that ends. The log says what was
/// done to it.
#[test]
#[ignore = "needs strace"]
fn one_whose_parent_is_killed_is_killed_itself_where_its_number_is_certain() {
    let between = ("close_range", "signal=KILL");
    let no_handle = ("pidfd_open", "error=EPERM");
    for (calls, fate) in [
        (&[between][..], "was killed"),
        (&[between, no_handle], "is left to end by itself"),
    ] {
        let mut family = Family::start(&OPTIONS);
        family.replace("#!/bin/sh\nexec sleep 600");
        let killed = HeldUp::at(family.youngest(), calls);
        let why = family.fail_to_hand_over();
        drop(killed);
        let (name, rest) = why.rsplit_once(", ").unwrap();
        assert_eq!(rest, format!("{fate}: it was not ready in time"));
        let number = name.strip_prefix("the successor, process ").unwrap();
        let successor = Pid::from_raw(number.parse().unwrap()).unwrap();
        if calls.contains(&no_handle) {
            kill_process(successor, Signal::ALARM).unwrap();
        }
        let signal = family.wait(successor).terminating_signal().unwrap();
        assert_eq!(signal == libc::SIGALRM, calls.contains(&no_handle));
        family.stop();
    }
}
