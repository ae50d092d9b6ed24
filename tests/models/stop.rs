//! Whoever waits for a stop is woken by it.

use super::{exhaust, must_break};
use crate::deadline::Deadline;
use crate::stop::Stop;
use crate::sync::atomic::{AtomicBool, Ordering::SeqCst};
use crate::sync::{Arc, Condvar, Mutex, thread};

#[test]
fn a_waiter_is_woken_however_the_stop_falls() {
    exhaust(|| {
        let stop = Stop::new();
        let waits = stop.clone();
        let waiter = thread::spawn(move || waits.wait(Deadline::NEVER));
        stop.set();
        assert!(waiter.join().unwrap());
    });
}

#[test]
fn of_two_that_ask_at_once_both_are_heard() {
    exhaust(|| {
        let stop = Stop::new();
        let cuts = stop.clone();
        let cutter = thread::spawn(move || cuts.cut());
        stop.set();
        assert!(stop.is_set());
        cutter.join().unwrap();
        assert!(stop.is_set() && stop.is_cut());
    });
}

/// A flag and a condition variable, and nothing that keeps the setter from
/// falling between a waiter's look and its sleep.
#[test]
fn without_the_lock_a_wake_up_is_lost() {
    must_break(1000, || {
        let shared = Arc::new((AtomicBool::new(false), Mutex::new(()), Condvar::new()));
        let waits = Arc::clone(&shared);
        let waiter = thread::spawn(move || {
            let (flag, lock, changed) = &*waits;
            let mut guard = lock.lock().unwrap();
            while !flag.load(SeqCst) {
                guard = changed.wait(guard).unwrap();
            }
        });
        shared.0.store(true, SeqCst);
        shared.2.notify_all();
        waiter.join().unwrap();
    });
}
