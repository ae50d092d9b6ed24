//! The time in which clients count, told to all of them by one atomic.

use std::sync::atomic::{AtomicU8, Ordering::Relaxed};

const CONNECTING: u8 = 0;
const WARMING: u8 = 1;
const OPEN: u8 = 2;
const SHUT: u8 = 3;
const OVER: u8 = 4;

/// Connecting, warming up, counting, going on without counting, over: in this
/// order.
///
/// Relaxed is enough: nothing is handed over with it, and a client that sees a
/// change an operation late is off by one count.
pub(crate) struct Window(AtomicU8);

impl Window {
    pub(crate) fn new() -> Self {
        Self(AtomicU8::new(CONNECTING))
    }

    /// All connections stand and the load begins; the clients say so.
    pub(crate) fn begin(&self) {
        self.0.store(WARMING, Relaxed);
    }

    pub(crate) fn has_begun(&self) -> bool {
        self.0.load(Relaxed) != CONNECTING
    }

    pub(crate) fn open(&self) {
        self.0.store(OPEN, Relaxed);
    }

    /// Whether clients count.
    pub(crate) fn is_open(&self) -> bool {
        self.0.load(Relaxed) == OPEN
    }

    /// Counting ends; the load goes on, for a look at it.
    pub(crate) fn shut(&self) {
        self.0.store(SHUT, Relaxed);
    }

    /// Clients send nothing new.
    pub(crate) fn end(&self) {
        self.0.store(OVER, Relaxed);
    }

    pub(crate) fn is_over(&self) -> bool {
        self.0.load(Relaxed) == OVER
    }
}
