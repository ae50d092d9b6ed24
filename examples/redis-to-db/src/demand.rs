//! What is known of the workers' last demands for a message: whether Redis may
//! have put one into a worker's list without the worker's knowing.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};

/// A worker's last demand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Demand {
    /// It had an answer.
    Answered,
    /// The other end closed the connection: what Redis did, it has done.
    Broken,
    /// Redis may do it yet.
    Waiting,
}

/// How many workers' demands are where. Relaxed everywhere: they are sums, and
/// guard nothing.
#[derive(Debug, Default)]
pub struct Demands {
    counts: [AtomicU64; 3],
    is_released: AtomicBool,
}

impl Demands {
    /// Counts what became of a worker's demand. What is counted as answered is
    /// of no interest, and wraps.
    pub fn change(&self, demand: &mut Demand, now: Demand) {
        let before = std::mem::replace(demand, now);
        self.counts[before as usize].fetch_sub(1, Relaxed);
        self.counts[now as usize].fetch_add(1, Relaxed);
    }

    /// Notes that all that the workers' lists had was put back.
    pub fn release(&self) {
        self.is_released.store(true, Relaxed);
    }

    /// How many messages there may be, at most, that no worker knows of.
    pub fn open(&self) -> u64 {
        let [_, broken, waiting] = self.counts.each_ref().map(|count| count.load(Relaxed));
        if self.is_released.load(Relaxed) {
            return waiting;
        }
        broken + waiting
    }
}
