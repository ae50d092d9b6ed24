//! Jobs: submitted = done + handed back + returned, and nobody waits for ever.

use super::{LONG, exhaust, explore, must_break};
use crate::deadline::Deadline;
use crate::queue::{Queue, Take};
use crate::stop::Stop;
use crate::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use crate::sync::{Arc, thread};
use crate::workers::Workers;
use std::time::Duration;

/// Takes until the queue is closed; returns how many.
fn take_all(queue: &Queue<u32>) -> usize {
    std::iter::from_fn(|| match queue.take(LONG) {
        Take::Job(_) => Some(()),
        Take::Nothing => panic!("a long wait timed out"),
        Take::Closed => None,
    })
    .count()
}

/// A queue that only [`Queue::close`] ends, so that no wait needs its poll
/// interval.
fn queue(capacity: usize) -> Arc<Queue<u32>> {
    Arc::new(Queue::bounded(capacity, &Stop::new()).poll(LONG))
}

/// Submits so many; returns how many were taken in.
fn submit(queue: &Queue<u32>, jobs: u32) -> usize {
    (0..jobs).filter(|job| queue.submit(*job).is_ok()).count()
}

#[test]
fn a_job_wakes_the_one_who_waits_for_it() {
    exhaust(|| {
        let queue = queue(1);
        let takes = Arc::clone(&queue);
        let taker = thread::spawn(move || takes.take(LONG));
        queue.submit(7).unwrap();
        assert_eq!(taker.join().unwrap(), Take::Job(7));
    });
}

#[test]
fn one_job_through_a_closing_queue_under_every_schedule() {
    exhaust(|| {
        let queue = queue(1);
        let (puts, takes) = (Arc::clone(&queue), Arc::clone(&queue));
        let put = thread::spawn(move || submit(&puts, 1));
        let taken = thread::spawn(move || take_all(&takes));
        queue.close();
        assert_eq!(put.join().unwrap(), taken.join().unwrap());
    });
}

#[test]
fn no_job_is_lost_between_submitters_takers_and_a_drain() {
    explore(2_000, || {
        let queue = queue(1);
        let submitters: Vec<_> = (0..2)
            .map(|_| Arc::clone(&queue))
            .map(|queue| thread::spawn(move || submit(&queue, 2)))
            .collect();
        let takers: Vec<_> = (0..2)
            .map(|_| Arc::clone(&queue))
            .map(|queue| thread::spawn(move || take_all(&queue)))
            .collect();
        // Waits for the takers, who are never late: the deadline is far.
        let returned = queue.drain(Deadline::after(LONG)).len();
        let sum = |threads: Vec<thread::JoinHandle<usize>>| -> usize {
            threads
                .into_iter()
                .map(|thread| thread.join().unwrap())
                .sum()
        };
        assert_eq!(sum(submitters), sum(takers) + returned);
    });
}

#[test]
fn a_drain_whose_deadline_has_passed_returns_what_nobody_started() {
    explore(2_000, || {
        let queue = queue(2);
        let takes = Arc::clone(&queue);
        let put = submit(&queue, 2);
        let taken = thread::spawn(move || take_all(&takes));
        let returned = queue.drain(Deadline::after(Duration::ZERO)).len();
        assert_eq!(put, taken.join().unwrap() + returned);
    });
}

#[test]
fn workers_lose_no_job_whatever_fails_or_panics_or_stops() {
    explore(500, || {
        let stop = Stop::new();
        let queue = Arc::new(Queue::bounded(1, &stop).poll(LONG));
        let (submits, stops) = (Arc::clone(&queue), (Arc::clone(&queue), stop.clone()));
        let submitter = thread::spawn(move || submit(&submits, 3));
        let stopper = thread::spawn(move || {
            stops.1.set();
            stops.0.close(); // at once, not after a poll interval
        });
        let handed_back = AtomicUsize::new(0);
        let tally = Workers::new("worker", 2).poll(LONG).run(
            &stop,
            |_| |longest| queue.take(longest),
            |job| match *job {
                0 => Ok(()),
                1 => Err("failed".into()),
                _ => panic!("job {job}"),
            },
            |_, _| {
                handed_back.fetch_add(1, SeqCst);
            },
        );
        stopper.join().unwrap();
        let put = submitter.join().unwrap();
        let returned = queue.drain(Deadline::after(Duration::ZERO)).len();
        // No thread may have been started, and then nothing is counted.
        if let Ok(tally) = tally {
            let back = handed_back.into_inner();
            assert_eq!(tally.failed + tally.panicked, back as u64);
            assert_eq!(put as u64, tally.done + back as u64 + returned as u64);
        }
    });
}

/// "The queue is empty and the counter is zero" falls between taking a job
/// and counting it.
#[test]
fn waiting_for_an_empty_queue_and_a_counter_at_zero_returns_too_early() {
    must_break(1_000, || {
        let (queue, busy, done) = (queue(1), AtomicUsize::new(0), AtomicUsize::new(0));
        let shared = Arc::new((queue, busy, done));
        submit(&shared.0, 1);
        let works = Arc::clone(&shared);
        let worker = thread::spawn(move || {
            let (queue, busy, done) = &*works;
            while let Take::Job(_) = queue.take(LONG) {
                busy.fetch_add(1, SeqCst);
                done.fetch_add(1, SeqCst);
                busy.fetch_sub(1, SeqCst);
            }
        });
        let (queue, busy, done) = &*shared;
        let is_idle = queue.is_empty() && busy.load(SeqCst) == 0;
        let done = done.load(SeqCst);
        queue.close();
        worker.join().unwrap();
        assert!(!is_idle || done == 1, "idle with {done} of 1 done");
    });
}
