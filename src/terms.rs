//! The terms on which all connections of one server are served.

use crate::episode::Seldom;
use crate::event::Event;
use crate::panics::{self, say};
use crate::stop::Stop;
use crate::sync::Arc;
use crate::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

pub(crate) type Observer = Arc<dyn Fn(&Event<'_>) + Send + Sync>;

/// What all connections of one server have in common.
pub(crate) struct Terms {
    pub(crate) stop: Stop,
    /// Set when the grace is over: by the drain deadline or by `Stop::cut`.
    pub(crate) cut: AtomicBool,
    /// Longest that a blocked read or write waits before it looks around.
    pub(crate) poll: Duration,
    /// Longest that a connection may move no byte.
    pub(crate) idle: Option<Duration>,
    pub(crate) observer: Option<Observer>,
    /// Keeps an observer that always panics from filling the log.
    pub(crate) seldom: Seldom,
}

impl Terms {
    /// Without an idle timeout and an observer.
    pub(crate) fn new(stop: &Stop, poll: Duration) -> Self {
        Self {
            stop: stop.clone(),
            cut: AtomicBool::new(false),
            poll,
            idle: None,
            observer: None,
            seldom: Seldom::default(),
        }
    }

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

    /// Tells the observer, with no lock held. Where there is none this is one
    /// branch: the event is not even made.
    pub(crate) fn tell<'a>(&self, event: impl FnOnce() -> Event<'a>) {
        if let Some(observer) = &self.observer {
            self.tell_to(observer, &event());
        }
    }

    /// An observer's panic is its own: it must not end what it looks at.
    #[cold]
    fn tell_to(&self, observer: &Observer, event: &Event<'_>) {
        if let Err(message) = panics::caught(|| observer(event)) {
            let level = self.seldom.level(log::Level::Error);
            say!(level, "the observer panicked: {message:.1000}");
        }
    }
}
