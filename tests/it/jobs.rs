//! Jobs are conserved: submitted = done + handed back + returned, whatever
//! stops, panics and fails meanwhile.

use crate::library::resources::allow_more;
use crate::library::{Watchdog, alone};
use lastecho::{Deadline, Failure, Queue, Reason, Stop, Take, WorkError, Worker, Workers};
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use std::collections::VecDeque;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::thread;
use std::time::{Duration, Instant};

const JOBS: usize = 400;

/// Where each job went; a conserved job is in exactly one place.
#[derive(Default)]
struct Places {
    rejected: Mutex<Vec<usize>>,
    done: Mutex<Vec<usize>>,
    handed_back: Mutex<Vec<usize>>,
    returned: Mutex<Vec<usize>>,
}

impl Places {
    fn all(&self) -> Vec<usize> {
        let places = [
            &self.rejected,
            &self.done,
            &self.handed_back,
            &self.returned,
        ];
        let mut all: Vec<_> = places
            .iter()
            .flat_map(|place| place.lock().unwrap().clone())
            .collect();
        all.sort_unstable();
        all
    }
}

/// Submitters, workers and a stop after so many jobs, all at once.
fn run(capacity: usize, count: usize, stop_at: usize, every: usize, stop_workers: bool) -> Places {
    let places = Places::default();
    let (upstream, workers) = (Stop::new(), Stop::new());
    let queue = Queue::bounded(capacity, &upstream).poll(Duration::from_millis(1));
    thread::scope(|scope| {
        for half in 0..2 {
            let (places, queue) = (&places, &queue);
            scope.spawn(move || {
                for job in (half..JOBS).step_by(2) {
                    if let Err(rejected) = queue.submit(job) {
                        assert_eq!(rejected.reason, Reason::Closed);
                        places.rejected.lock().unwrap().push(rejected.job);
                    }
                }
            });
        }
        let pool = Workers::new("job", count).poll(Duration::from_millis(1));
        let tally = pool
            .run(
                &workers,
                |_| |longest| queue.take(longest),
                |job: &mut usize| {
                    if *job >= stop_at {
                        upstream.set();
                        if stop_workers {
                            workers.set();
                        }
                    }
                    match *job % every {
                        1 => panic!("job {job}, on purpose"),
                        2 => Err("on purpose".into()),
                        _ => {
                            places.done.lock().unwrap().push(*job);
                            Ok(())
                        }
                    }
                },
                |job, failure| {
                    let panicked = matches!(failure, Failure::Panicked(_));
                    assert_eq!(panicked, job % every == 1, "{failure}");
                    places.handed_back.lock().unwrap().push(job);
                },
            )
            .unwrap();
        let left = queue.drain(Deadline::after(Duration::ZERO));
        places.returned.lock().unwrap().extend(left);
        assert_eq!(tally.done, places.done.lock().unwrap().len() as u64);
        let back = places.handed_back.lock().unwrap().len() as u64;
        assert_eq!(tally.failed + tally.panicked, back);
    });
    places
}

#[test]
fn every_job_is_in_one_place_after_a_stop_at_any_moment() {
    std::panic::set_hook(Box::new(|_| {})); // hundreds of panics are on purpose
    let config = Config {
        cases: 60,
        failure_persistence: None,
        ..Config::default()
    };
    let strategy = (1..40_usize, 1..9_usize, 0..JOBS, 3..50_usize, any::<bool>());
    let outcome = TestRunner::new(config).run(&strategy, |(capacity, count, at, every, both)| {
        let places = run(capacity, count, at, every, both);
        prop_assert_eq!(places.all(), (0..JOBS).collect::<Vec<_>>());
        Ok(())
    });
    let _ = std::panic::take_hook();
    outcome.unwrap();
}

/// The control: a wait for "queue empty and counter zero" returns between
/// taking a job and counting it, and the job is in no place.
#[test]
fn a_wait_for_empty_and_zero_loses_the_job_that_is_between_them() {
    let lost = (0..20).any(|_| {
        let queue: Mutex<VecDeque<u32>> = Mutex::new(VecDeque::from([1]));
        let (counter, done, over) = (
            AtomicUsize::new(0),
            AtomicBool::new(false),
            AtomicBool::new(false),
        );
        thread::scope(|scope| {
            scope.spawn(|| {
                let job = queue.lock().unwrap().pop_front();
                thread::yield_now(); // where a scheduler may put anything
                thread::sleep(Duration::from_millis(1));
                counter.fetch_add(1, SeqCst);
                if job.is_some() && !over.load(SeqCst) {
                    done.store(true, SeqCst);
                }
                counter.fetch_sub(1, SeqCst);
            });
            while !queue.lock().unwrap().is_empty() || counter.load(SeqCst) > 0 {
                thread::yield_now();
            }
            over.store(true, SeqCst); // the program would exit here
        });
        !done.load(SeqCst)
    });
    assert!(
        lost,
        "the naive wait never lost its job, so this shows nothing"
    );
    println!("empty and zero: the control lost the job in hand");
}

#[test]
fn a_full_queue_says_so_and_gives_the_job_back() {
    let queue = Queue::bounded(1, &Stop::new());
    queue.submit('a').unwrap();
    let rejected = queue.try_submit('b').unwrap_err();
    assert_eq!((rejected.job, rejected.reason), ('b', Reason::Full));
    assert_eq!(queue.take(Duration::ZERO), Take::Job('a'));
    queue.try_submit('b').unwrap();
    assert_eq!(queue.drain(Deadline::after(Duration::ZERO)), ['b']);
    assert_eq!(queue.try_submit('c').unwrap_err().reason, Reason::Closed);
}

#[test]
fn a_submitter_that_waits_for_room_is_freed_by_the_stop() {
    let stop = Stop::new();
    let queue = Queue::bounded(1, &stop);
    queue.submit(1).unwrap();
    thread::scope(|scope| {
        let waiting = scope.spawn(|| queue.submit(2));
        stop.set();
        assert_eq!(waiting.join().unwrap().unwrap_err().job, 2);
    });
    assert_eq!(queue.take(Duration::ZERO), Take::Job(1));
    assert_eq!(queue.take(Duration::ZERO), Take::Closed);
}

#[test]
fn a_drain_waits_for_workers_up_to_its_deadline() {
    let queue = Queue::bounded(9, &Stop::new());
    for job in 0..9 {
        queue.submit(job).unwrap();
    }
    thread::scope(|scope| {
        scope.spawn(|| while let Take::Job(_) = queue.take(Duration::from_secs(60)) {});
        assert!(
            queue
                .drain(Deadline::after(Duration::from_secs(60)))
                .is_empty()
        );
    });
}

/// No worker is left to take it, and no deadline was given.
#[test]
fn a_drain_without_workers_is_ended_by_the_cut() {
    let _watchdog = Watchdog::new();
    let stop = Stop::new();
    let queue = Queue::bounded(9, &stop);
    queue.submit("left").unwrap();
    thread::scope(|scope| {
        let drained = scope.spawn(|| queue.drain(Deadline::NEVER));
        while !matches!(queue.try_submit("late"), Err(rejected) if rejected.reason == Reason::Closed)
        {
            thread::yield_now();
        }
        stop.cut();
        let left = drained.join().unwrap();
        assert_eq!(left[0], "left");
    });
}

/// Worker number 1 panics where it is told to; the others wait for jobs.
struct Fragile(&'static str);

impl Worker for Fragile {
    type Job = ();

    fn take(&mut self, longest: Duration) -> Take<()> {
        match self.0 {
            "take" => panic!("in take, on purpose"),
            "hand_back" => Take::Job(()),
            _ => {
                thread::sleep(longest);
                Take::Nothing
            }
        }
    }

    fn work(&mut self, (): &mut ()) -> Result<(), WorkError> {
        Err("on purpose".into())
    }

    fn hand_back(&mut self, (): (), _: Failure) {
        panic!("in hand_back, on purpose");
    }
}

/// No stop is set: it is the panic that ends the others.
#[test]
fn a_panic_outside_of_work_ends_the_run() {
    let _watchdog = Watchdog::new();
    for place in ["make", "take", "hand_back"] {
        let workers = Workers::new("fragile", 3).poll(Duration::from_millis(10));
        let run = || {
            workers.run_each(&Stop::new(), |number| match (number, place) {
                (1, "make") => panic!("in make, on purpose"),
                (1, _) => Fragile(place),
                _ => Fragile("waits"),
            })
        };
        let outcome = std::panic::catch_unwind(run);
        assert!(outcome.is_err(), "{place}");
    }
}

#[test]
fn more_workers_than_threads_can_be_had_are_an_error() {
    if !alone("jobs::more_workers_than_threads_can_be_had_are_an_error") {
        return;
    }
    let run = |count| {
        let closed = |_: Duration| Take::<()>::Closed;
        Workers::new("many\0", count).run(&Stop::new(), |_| closed, |()| Ok(()), |(), _| {})
    };
    for count in [20_000, usize::MAX] {
        let error = run(count).unwrap_err();
        println!("{error}");
    }
    assert_eq!(run(2).unwrap().done, 0);
    allow_more(1 << 20);
    run(2).unwrap_err();
}

/// How often a worker with the shortest poll interval asks for a job, and how
/// often it may.
fn asks(source: impl Fn(Duration) -> Take<()> + Sync) -> (usize, usize) {
    let (stop, asks) = (Stop::new(), AtomicUsize::new(0));
    let counted = |longest| {
        asks.fetch_add(1, SeqCst);
        source(longest)
    };
    let workers = Workers::new("idle", 0).poll(Duration::ZERO);
    let begun = Instant::now();
    thread::scope(|scope| {
        scope.spawn(|| {
            thread::sleep(Duration::from_millis(300));
            stop.set();
        });
        workers
            .run(&stop, |_| counted, |()| Ok(()), |(), _| {})
            .unwrap();
    });
    let most = begun.elapsed().as_millis() / 4 + 100;
    (asks.into_inner(), usize::try_from(most).unwrap())
}

#[test]
fn asking_for_jobs_in_vain_is_no_spin_whatever_the_intervals() {
    let (asks_at_once, most) = asks(|_| Take::Nothing);
    assert!(asks_at_once <= most, "{asks_at_once} of {most}");
    let queue = Queue::bounded(0, &Stop::new()).poll(Duration::ZERO);
    let (asks_a_queue, most) = asks(|longest| queue.take(longest));
    assert!(asks_a_queue <= most, "{asks_a_queue} of {most}");
    println!("{asks_at_once} and {asks_a_queue} times of {most}");
}
