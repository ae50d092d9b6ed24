//! Signals in process: whatever fails, they are heard or do what they did.

use super::resources::allow_more;
use super::{Watchdog, alone};
use crate::harness::eventually;
use lastecho::signals::{self, Request};
use lastecho::{Deadline, Stop};
use rustix::process::{Signal, getpid, kill_process};
use signal_hook::consts::{SIGFPE, SIGILL, SIGKILL, SIGSEGV, SIGSTOP, SIGTERM, SIGUSR1};
use std::io::ErrorKind;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};

fn kill(signal: Signal) {
    kill_process(getpid(), signal).unwrap();
}

#[test]
fn a_panic_of_the_observer_leaves_the_signals_heard() {
    if !alone("library::hearing::a_panic_of_the_observer_leaves_the_signals_heard") {
        return;
    }
    let _watchdog = Watchdog::new();
    let (stop, heard) = (Stop::new(), Arc::new(AtomicUsize::new(0)));
    let hears = Arc::clone(&heard);
    let observer = move |_, request| {
        hears.fetch_add(1, SeqCst);
        assert_eq!(request, Request::Stop, "on purpose");
    };
    let _signals = signals::install_with(&stop, &[SIGUSR1], observer).unwrap();
    for times in 1..=3 {
        kill(Signal::USR1);
        eventually("USR1", || heard.load(SeqCst) == times);
    }
    kill(Signal::TERM);
    assert!(stop.wait(Deadline::NEVER));
}

/// Whether this process catches the signal (`SigCgt`, proc_pid_status(5)).
fn is_caught(signal: i32) -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigCgt:"));
    let mask = u64::from_str_radix(mask.unwrap().trim(), 16).unwrap();
    mask & (1 << (signal - 1)) != 0
}

#[test]
fn where_no_thread_can_be_started_signals_do_what_they_did() {
    if !alone("library::hearing::where_no_thread_can_be_started_signals_do_what_they_did") {
        return;
    }
    allow_more(64 * 1024);
    signals::install(&Stop::new()).unwrap_err();
    assert!(!is_caught(SIGTERM));
    allow_more(1 << 30);
    let _signals = signals::install(&Stop::new()).unwrap();
    assert!(is_caught(SIGTERM));
}

#[test]
fn what_is_no_signal_or_cannot_be_caught_is_refused() {
    if !alone("library::hearing::what_is_no_signal_or_cannot_be_caught_is_refused") {
        return;
    }
    let impossible = [SIGKILL, SIGSTOP, SIGSEGV, SIGILL, SIGFPE];
    let unknown = [i32::MIN, -1, 0, 32, 33, 65, 128, i32::MAX];
    for signal in impossible.into_iter().chain(unknown) {
        let refused = signals::install_with(&Stop::new(), &[SIGUSR1, signal], |_, _| {});
        let refused = refused.unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::InvalidInput, "{refused}");
        assert!(!is_caught(SIGUSR1) && !is_caught(SIGTERM), "{signal}");
    }
    for signal in [1, 31, 34, 64] {
        signals::install_with(&Stop::new(), &[signal], |_, _| {}).unwrap();
    }
}
