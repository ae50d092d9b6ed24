//! Turns at writing: one at a time, all come to an end, and none is in hand
//! once it is closed.

use super::{exhaust, explore, must_break};
use crate::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use crate::sync::{Arc, Mutex, thread};
use crate::writing::Writing;
use std::time::Duration;

/// What writers share: each notes its bytes before and after it was
/// interrupted, as send(2) in pieces is.
#[derive(Default)]
struct Stream {
    writing: Writing,
    inside: AtomicUsize,
    bytes: AtomicUsize,
}

impl Stream {
    fn write(&self) -> bool {
        let Ok(_turn) = self.writing.begin() else {
            return false;
        };
        assert_eq!(self.inside.fetch_add(1, SeqCst), 0, "two at once");
        self.bytes.fetch_add(1, SeqCst);
        thread::sleep(Duration::ZERO); // others may run
        self.bytes.fetch_add(1, SeqCst);
        self.inside.fetch_sub(1, SeqCst);
        true
    }
}

/// The end comes beside so many writers: what is counted then is all there is.
fn close_beside(writers: usize) {
    let stream = Arc::new(Stream::default());
    let write = |stream: Arc<Stream>| thread::spawn(move || stream.write());
    let writers: Vec<_> = (0..writers).map(|_| write(Arc::clone(&stream))).collect();
    stream.writing.close();
    let counted = stream.bytes.load(SeqCst);
    let wrote = writers.into_iter().map(|one| one.join().unwrap());
    let wrote = wrote.filter(|wrote| *wrote).count();
    assert_eq!(counted, 2 * wrote);
    assert_eq!(stream.bytes.load(SeqCst), counted);
}

#[test]
fn one_writer_and_the_end_under_every_schedule() {
    exhaust(|| close_beside(1));
}

#[test]
fn nothing_is_written_after_the_end_of_many_writers() {
    explore(2_000, || close_beside(3));
}

#[test]
fn writers_that_fail_beside_others_let_none_begin_and_all_end() {
    explore(2_000, || {
        let stream = Arc::new(Stream::default());
        let fails = Arc::clone(&stream);
        let failing = thread::spawn(move || {
            if let Ok(turn) = fails.writing.begin() {
                turn.fail();
            }
        });
        let write = |stream: Arc<Stream>| thread::spawn(move || stream.write());
        let writers: Vec<_> = (0..2).map(|_| write(Arc::clone(&stream))).collect();
        failing.join().unwrap();
        assert!(!stream.write(), "begun after one that failed");
        for writer in writers {
            writer.join().unwrap();
        }
    });
}

/// A lock and a flag, and an end that does not wait for the lock.
#[test]
fn an_end_that_only_sets_a_flag_tears_and_miscounts() {
    must_break(1_000, || {
        let shared = Arc::new((Mutex::new(()), AtomicBool::new(false), AtomicUsize::new(0)));
        let writes = Arc::clone(&shared);
        let writer = thread::spawn(move || {
            let (lock, ended, bytes) = &*writes;
            let _whole = lock.lock().unwrap();
            if !ended.load(SeqCst) {
                bytes.fetch_add(1, SeqCst);
                thread::sleep(Duration::ZERO);
                bytes.fetch_add(1, SeqCst);
            }
        });
        shared.1.store(true, SeqCst);
        let counted = shared.2.load(SeqCst);
        writer.join().unwrap();
        assert_eq!(shared.2.load(SeqCst), counted);
    });
}
