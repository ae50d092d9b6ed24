//! What became of the messages: counts.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// taken = moved + failed + panicked + in hand, at any time that is quiet.
///
/// Relaxed everywhere: they are sums, and guard nothing.
#[derive(Debug, Default)]
pub struct Counts {
    /// Messages that a worker got.
    pub taken: AtomicU64,
    /// In the database.
    pub moved: AtomicU64,
    /// Of those: it had them already.
    pub duplicates: AtomicU64,
    /// Back in the list.
    pub put_back: AtomicU64,
    /// Not written, because of an error.
    pub failed: AtomicU64,
    /// Not written, because of a panic.
    pub panicked: AtomicU64,
    /// Of failed and panicked: with the dead.
    pub dead: AtomicU64,
    /// Of failed and panicked: no longer in our list by then.
    pub not_ours: AtomicU64,
    /// Out of a worker's hand, wherever it is now.
    pub settled: AtomicU64,
    /// Put back that processes that are gone had in hand.
    pub recovered: AtomicU64,
    /// In the list, at the keeper's last look.
    pub waiting: AtomicU64,
}

impl Counts {
    /// Messages that a worker has and Redis was not told about yet.
    #[must_use]
    pub fn in_hand(&self) -> u64 {
        let settled = self.settled.load(Relaxed);
        self.taken.load(Relaxed).saturating_sub(settled)
    }
}

impl fmt::Display for Counts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let counts = [
            ("moved", &self.moved),
            ("duplicates", &self.duplicates),
            ("put_back", &self.put_back),
            ("failed", &self.failed),
            ("panicked", &self.panicked),
            ("dead", &self.dead),
            ("recovered", &self.recovered),
        ];
        for (number, (name, count)) in counts.iter().enumerate() {
            let space = if number == 0 { "" } else { " " };
            write!(f, "{space}{name}={}", count.load(Relaxed))?;
        }
        Ok(())
    }
}

/// One more.
pub fn count(sum: &AtomicU64) {
    sum.fetch_add(1, Relaxed);
}
