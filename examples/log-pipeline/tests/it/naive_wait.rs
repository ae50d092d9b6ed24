//! A wait that is often written, against the library's: until "the queue is
//! empty and the counter is zero".

use crate::app::WATCHDOG;
use lastecho::{Deadline, Queue, Stop, Take, Workers};
use std::hint;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::thread;
use std::time::{Duration, Instant};

/// Waits, spinning, until nothing waits and nothing is counted as running; how
/// often it looked.
///
/// A consumer takes a job, *then* counts it: in between, the job is nowhere.
fn wait_naively(queue: &Queue<u64>, running: &AtomicU64) -> u64 {
    let mut looks = 1;
    while !(queue.is_empty() && running.load(SeqCst) == 0) {
        looks += 1;
        hint::spin_loop();
    }
    looks
}

#[test]
fn a_wait_on_empty_and_zero_returns_before_the_job_is_done() {
    let queue = Queue::bounded(20, &Stop::new());
    let [running, done] = [0; 2].map(AtomicU64::new);
    let consumer = || {
        while let Take::Job(_) = queue.take(WATCHDOG) {
            // Where programs print what they are about to do: a system call,
            // in which another thread may get its turn.
            thread::yield_now();
            running.fetch_add(1, SeqCst);
            done.fetch_add(1, SeqCst);
            running.fetch_sub(1, SeqCst);
        }
    };
    thread::scope(|scope| {
        scope.spawn(consumer);
        let (patience, mut looks) = (Instant::now() + WATCHDOG, 0);
        for job in 1.. {
            queue.submit(job).unwrap();
            looks += wait_naively(&queue, &running);
            let done = done.load(SeqCst);
            if done < job {
                println!("naive wait: over when {done} of {job} jobs were done; {looks} looks");
                break;
            }
            assert!(
                Instant::now() < patience,
                "the naive wait kept it {job} times"
            );
        }
        queue.close();
    });
}

#[test]
fn draining_the_queue_and_joining_the_workers_waits_for_every_job() {
    for trial in 0..300 {
        let queue = Queue::bounded(20, &Stop::new());
        let done = AtomicU64::new(0);
        let submitted = trial % 40;
        let (tally, left) = thread::scope(|scope| {
            let workers = scope.spawn(|| {
                Workers::new("consumer", 4).run(
                    &Stop::new(),
                    |_| |longest| queue.take(longest),
                    |_| {
                        thread::sleep(Duration::from_micros(trial));
                        done.fetch_add(1, SeqCst);
                        Ok(())
                    },
                    |_, failure| panic!("{failure}"),
                )
            });
            for job in 0..submitted {
                queue.submit(job).unwrap();
            }
            let left = queue.drain(Deadline::after(Duration::from_micros(trial * 10)));
            (workers.join().unwrap().unwrap(), left)
        });
        assert_eq!(tally.done, done.into_inner());
        assert_eq!(tally.done + left.len() as u64, submitted);
    }
}
