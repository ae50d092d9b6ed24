//! The terms on which all connections of one server are served.

use crate::stop::Stop;
use crate::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

/// What all connections of one server have in common.
pub(crate) struct Terms {
    pub(crate) stop: Stop,
    /// Set when the grace is over: by the drain deadline or by `Stop::cut`.
    pub(crate) cut: AtomicBool,
    /// Longest that a blocked read or write waits before it looks around.
    pub(crate) poll: Duration,
    /// Longest that a connection may move no byte.
    pub(crate) idle: Option<Duration>,
}

impl Terms {
    /// The socket timeouts to use: a poll interval, or half of an idle timeout
    /// that is short, so that its end can be compared with its middle.
    pub(crate) fn tick(&self) -> Duration {
        self.idle
            .map_or(self.poll, |idle| (idle / 2).min(self.poll))
    }

    // Relaxed: whoever sees it late looks again within a slice.
    pub(crate) fn is_cut(&self) -> bool {
        self.cut.load(Relaxed) || self.stop.is_cut()
    }
}
