//! Threads that look at the event once per poll interval.

use crate::jobs::Journal;
use lastecho::{Shutdown, Stop};
use std::io;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::thread;
use std::time::Duration;

/// Starts a thread that does something now and then, until the event.
///
/// # Errors
/// What starting a thread says.
pub fn start_polling(
    number: u32,
    shutdown: &Shutdown,
    poll: Duration,
    deaf: bool,
) -> io::Result<()> {
    // Counted in before the thread starts: a stop that falls in between must
    // not find nobody running.
    let running = shutdown.running();
    let shutdown = shutdown.clone();
    let work = move || {
        let _running = running;
        let mut rounds = 0_u64;
        while !shutdown.has_fired() || deaf {
            rounds += 1; // the work
            thread::sleep(poll);
        }
        log::info!("polling worker {number}: {rounds} rounds");
    };
    thread::Builder::new()
        .name(format!("poll-{number}"))
        .spawn(work)
        .map(drop)
}

/// Writes jobs into the journal, until every sender is gone or `end` is set
/// and nothing comes any more: a sender that is stuck must not hold us.
///
/// Blocks for at most a poll interval after that.
pub fn work_off(jobs: &Receiver<String>, journal: &Journal, end: &Stop, poll: Duration) {
    loop {
        match jobs.recv_timeout(poll) {
            Ok(job) => {
                if let Err(error) = journal.write(&job) {
                    log::error!("{job:?} is not in the journal: {error}");
                }
            }
            Err(RecvTimeoutError::Timeout) if !end.is_set() => {}
            Err(_) => return,
        }
    }
}
