//! Successors that fail: the one that serves goes on as if nothing had been.

use super::family::{Family, children, successors, sum};
use crate::harness::{eventually, read_to_end};
use rustix::process::{Pid, Resource, Rlimit, Signal, getrlimit, kill_process, prlimit};
use std::fs;
use std::io::{ErrorKind, Read, Write};
use std::net::Shutdown;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixDatagram;
use std::process::{Command, Stdio};
use std::time::Duration;

pub(super) const REAL: &str = env!("CARGO_BIN_EXE_lastecho");

/// A client that was there before, and one that comes after, are served.
pub(super) fn serves_on(family: &Family, old: &mut std::net::TcpStream) {
    for mut client in [old.try_clone().unwrap(), family.connect()] {
        client.write_all(b"still there?").unwrap();
        let mut echo = [0; 12];
        client.read_exact(&mut echo).unwrap();
        assert_eq!(&echo, b"still there?");
    }
    let left = children(family.youngest());
    assert!(left.is_empty(), "left over: {left:?}");
}

/// Fails to hand over in this way, then hands over all the same.
fn fails(options: &[&str], spoil: impl FnOnce(&Family), expected: &str) {
    let mut family = Family::start(&[options, &["--poll", "100ms", "127.0.0.1:0"]].concat());
    let mut old = family.connect();
    spoil(&family);
    let why = family.fail_to_hand_over();
    println!("{why}");
    assert!(why.contains(expected), "{why}");
    serves_on(&family, &mut old);
    family.restore();
    family.hand_over();
    old.shutdown(Shutdown::Write).unwrap();
    assert_eq!(read_to_end(&mut old).unwrap(), b"");
    let told = family.stop();
    assert_eq!(told.len(), 2);
    assert_eq!((sum(&told, "accepted"), sum(&told, "bytes_lost")), (2, 0));
}

#[test]
fn one_that_exits_at_once() {
    let spoil = |family: &Family| family.replace("#!/bin/sh\nexit 7");
    fails(&[], spoil, "ended before it was ready: exit status: 7");
}

#[test]
fn one_that_is_killed_while_it_holds_the_sockets() {
    let spoil = |family: &Family| family.replace("#!/bin/sh\nkill -SEGV $$");
    fails(&[], spoil, "ended before it was ready: signal: 11");
}

#[test]
#[ignore = "needs strace"]
fn one_that_crashes_after_binding() {
    // The first option that is set is the listener's, when it is prepared.
    let script = format!(
        "#!/bin/sh\nexec strace -D -qq -o /dev/null -e trace=setsockopt \
         -e inject=setsockopt:signal=KILL:when=3 {REAL} \"$@\""
    );
    let spoil = |family: &Family| family.replace(&script);
    fails(&[], spoil, "ended before it was ready: signal: 9");
}

/// The sockets' options are shared, so it leaves something behind.
#[test]
#[ignore = "needs strace"]
fn one_that_would_wait_for_ever_and_crashes_makes_nobody_hang() {
    let options = ["--poll", "100ms", "--drain-timeout", "none"];
    let mut family = Family::start(&[&options[..], &["127.0.0.1:0"]].concat());
    let first = family.youngest();
    let address = family.address();
    let script = format!(
        "#!/bin/sh\nexec strace -D -qq -o /dev/null -e trace=setsockopt \
         -e inject=setsockopt:signal=KILL:when=3 \
         {REAL} --poll 1h --drain-timeout none {address}"
    );
    family.replace(&script);
    let why = family.fail_to_hand_over();
    assert!(
        why.contains("ended before it was ready: signal: 9"),
        "{why}"
    );
    // So that every wait of before is over.
    std::thread::sleep(Duration::from_millis(300));
    family.restore();
    family.hand_over();
    // Without a client that would wake it.
    assert_eq!(family.wait(first).exit_status(), Some(0));
    family.stop();
}

#[test]
fn one_that_is_never_ready() {
    let spoil = |family: &Family| family.replace("#!/bin/sh\nexec sleep 600");
    let options = ["--handover-timeout", "2s"]; // enough for one that is good
    fails(&options, spoil, "was killed: it was not ready in time");
}

#[test]
fn one_that_says_nonsense_in_place_of_ready() {
    let spoil = |family: &Family| family.replace("#!/bin/sh\nprintf 'x' >&4; exec sleep 600");
    fails(
        &[],
        spoil,
        "was killed: it said something else than that it is ready",
    );
}

#[test]
fn one_that_closes_its_socket_and_goes_on() {
    let spoil = |family: &Family| family.replace("#!/bin/sh\nexec 4>&-; exec sleep 600");
    let expected = "was killed: it closed its socket before it was ready";
    fails(&[], spoil, expected);
}

/// Who is waited for and killed is the process that was started.
#[test]
fn one_that_a_wrapper_starts_in_place_of_becoming_it() {
    let mut family = Family::start(&["--poll", "100ms", "127.0.0.1:0"]);
    let mut old = family.connect();
    family.replace(&format!("#!/bin/sh\n{REAL} {}\nexit 5", family.address()));
    let why = family.fail_to_hand_over();
    assert!(
        why.contains("ended before it was ready: exit status: 5"),
        "{why}"
    );
    let log = family.log();
    assert!(log.contains("LASTECHO_HANDOVER is for process "), "{log}");
    serves_on(&family, &mut old);
    drop(old);
    family.restore();
    family.hand_over();
    family.stop();
}

/// Where numbers of processes mean something else.
#[test]
#[ignore = "needs unshare"]
fn one_in_a_pid_namespace_of_its_own() {
    let mut family = Family::start(&["--poll", "100ms", "127.0.0.1:0"]);
    let unshare = "unshare --user --map-root-user --pid --fork";
    family.replace(&format!(
        "#!/bin/sh\nexec {unshare} {REAL} {}",
        family.address()
    ));
    let why = family.fail_to_hand_over();
    assert!(
        why.contains("ended before it was ready: exit status: 1"),
        "{why}"
    );
    let log = family.log();
    assert!(log.contains(", and this is process 1\n"), "{log}");
    family.restore();
    family.hand_over();
    family.stop();
}

#[test]
fn a_program_that_may_not_be_executed() {
    let spoil = |family: &Family| {
        family.replace("#!/bin/sh\nexit 0");
        fs::set_permissions(family.program(), PermissionsExt::from_mode(0o644)).unwrap();
    };
    fails(&[], spoil, "Permission denied");
}

#[test]
fn a_program_that_is_gone() {
    let spoil = |family: &Family| fs::remove_file(family.program()).unwrap();
    fails(&[], spoil, "No such file or directory");
}

/// The standard library ends the process where a thread has begun and finds no
/// memory for its signal stack.
#[test]
fn without_memory_for_a_thread_there_is_no_handover_and_the_server_serves_on() {
    let mut family = Family::start(&["--poll", "100ms", "127.0.0.1:0"]);
    let mut old = family.connect();
    // Threads that have ended leave their stacks to the next ones.
    family.replace("#!/bin/sh\nexit 7");
    family.fail_to_hand_over();
    let process = family.youngest();
    let statm = fs::read_to_string(format!("/proc/{}/statm", process.as_raw_nonzero())).unwrap();
    let pages: u64 = statm.split(' ').next().unwrap().parse().unwrap();
    let limit = |current| {
        let maximum = getrlimit(Resource::As).maximum;
        prlimit(Some(process), Resource::As, Rlimit { current, maximum }).unwrap();
    };
    limit(Some(pages * rustix::param::page_size() as u64));
    let why = family.fail_to_hand_over();
    assert!(why.contains("cannot start a thread"), "{why}");
    limit(None);
    serves_on(&family, &mut old);
    family.restore();
    family.hand_over();
    drop(old);
    family.stop();
}

#[test]
fn a_stop_during_a_handover_ends_both() {
    let mut family = Family::start(&["127.0.0.1:0"]);
    let only = family.youngest();
    family.replace("#!/bin/sh\nexec sleep 600");
    family.signal(Signal::USR2);
    eventually("a successor", || !successors(only).is_empty());
    let successor = successors(only)[0];
    family.signal(Signal::TERM);
    assert_eq!(family.wait(only).exit_status(), Some(0));
    let log = family.log();
    assert!(log.contains("was killed: a stop came first"), "{log}");
    let successor = Pid::from_raw(successor).unwrap();
    assert!(is_gone(successor), "process {successor} is left over");
}

#[test]
fn one_handover_at_a_time() {
    let family = Family::start(&["--handover-timeout", "1s", "127.0.0.1:0"]);
    family.replace("#!/bin/sh\nexec sleep 600");
    family.signal(Signal::USR2);
    eventually("a successor", || !successors(family.youngest()).is_empty());
    assert_eq!(family.fail_to_hand_over(), "another handover is under way");
}

/// Otherwise the third would own sockets that the second never got, and its
/// stop would end them under the first one, who serves on.
#[test]
fn one_that_has_not_taken_over_yet_hands_nothing_on() {
    let mut family = Family::start(&["--handover-timeout", "1min", "127.0.0.1:0"]);
    let first = family.youngest();
    let address = family.address();
    // The predecessor says nothing while it is stopped.
    let script = format!("#!/bin/sh\nkill -STOP {first}\nexec {REAL} {address}");
    family.replace(&script);
    family.signal(Signal::USR2);
    eventually("a successor", || {
        family.log().matches("process").count() == 2
    });
    let second = Pid::from_raw(successors(first)[0]).unwrap();
    eventually("a refusal", || {
        kill_process(second, Signal::USR2).unwrap();
        let log = family.log();
        assert!(!log.contains("handed over to"), "{log}");
        log.contains("no handover: this server is not serving")
    });
    assert!(children(second).is_empty());
    kill_process(first, Signal::CONT).unwrap();
    eventually("a handover", || {
        family
            .log()
            .contains(&format!("handed over to process {second}\n"))
    });
    family.members.push(second);
    assert_eq!(family.wait(first).exit_status(), Some(0));
    let mut client = family.connect();
    client.write_all(b"x").unwrap();
    client.read_exact(&mut [0]).unwrap();
    assert_eq!(family.stop().len(), 2);
}

/// Nor does it tell the service manager that the service stops.
#[test]
fn one_that_is_stopped_before_it_has_taken_over_accepts_nobody_and_says_nothing() {
    let mut family = Family::start(&["--handover-timeout", "1min", "127.0.0.1:0"]);
    let first = family.youngest();
    let address = family.address();
    let told = family.program().with_file_name("notify");
    let manager = UnixDatagram::bind(&told).unwrap();
    manager.set_nonblocking(true).unwrap();
    let script = format!(
        "#!/bin/sh\nkill -STOP {first}\nexport NOTIFY_SOCKET={}\nexec {REAL} {address}",
        told.display()
    );
    family.replace(&script);
    family.signal(Signal::USR2);
    eventually("a successor", || {
        family.log().matches("process").count() == 2
    });
    let second = Pid::from_raw(successors(first)[0]).unwrap();
    let mut client = family.connect();
    client.write_all(b"still there?").unwrap();
    kill_process(second, Signal::TERM).unwrap();
    eventually("its end", || is_gone(second));
    kill_process(first, Signal::CONT).unwrap();
    eventually("a failure", || family.log().contains("no handover: "));
    let mut echo = [0; 12];
    client.read_exact(&mut echo).unwrap();
    assert_eq!(&echo, b"still there?");
    let heard = manager.recv(&mut [0; 64]).unwrap_err();
    assert_eq!(heard.kind(), ErrorKind::WouldBlock);
    let stdout = family.stdout();
    assert_eq!(stdout.matches("listening on").count(), 1, "{stdout}");
    drop(client);
    family.restore();
    family.hand_over();
    assert_eq!(sum(&family.stop(), "accepted"), 1);
}

fn is_gone(pid: Pid) -> bool {
    !fs::exists(format!("/proc/{pid}")).unwrap()
}

/// Some programs leave SIGCHLD ignored in what they start: the kernel reaps
/// its children then, and nobody hears how they ended (wait(2)).
#[test]
fn an_ignored_sigchld_hides_no_exit_status() {
    let mut family = Family::start_with(&[], |command| {
        let program = command.get_program().to_owned();
        *command = Command::new("env");
        command.arg("--ignore-signal=CHLD").arg(program);
        command.arg("127.0.0.1:0").stdin(Stdio::null());
    });
    for (script, how) in [
        ("#!/bin/sh\nexit 7", "exit status: 7"),
        ("#!/bin/sh\nkill -SEGV $$", "signal: 11"),
    ] {
        family.replace(script);
        let why = family.fail_to_hand_over();
        assert!(why.contains(how), "{why}");
    }
    family.restore();
    family.hand_over();
    family.stop();
}
