//! What came of a server's life.

use std::fmt;
use std::time::Duration;

/// What came of a server's life: how its connections ended, and what they carried.
///
/// A connection is counted once in `accepted` and at most once among `cut`,
/// `reset`, `panicked`, `idle`, `failed` and `expired`, the first that applies
/// in this order; one of none of these ended well.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Report {
    /// Connections that got a thread and the handler.
    pub accepted: u64,
    /// Of those alive when the stop was seen, or accepted from the queue
    /// afterwards: the ones that ended well.
    pub drained: u64,
    /// Ended by force: at the drain deadline, by [`Stop::cut`](crate::Stop::cut), or still
    /// sending when their linger ran out during the stop.
    pub cut: u64,
    /// Clients that were connected, or in the middle of their handshake, and could
    /// not be served before the drain deadline.
    pub refused: u64,
    /// Closed politely because their peer had too many connections.
    pub limited: u64,
    /// Ended by a panic of the handler.
    pub panicked: u64,
    /// Ended by an error of the handler that was none of the connection's.
    pub failed: u64,
    /// Ended by the peer's reset, or by the network's.
    pub reset: u64,
    /// Ended by the idle timeout.
    pub idle: u64,
    /// Ended, in normal life, while the peer kept sending after our FIN, or did
    /// not acknowledge it.
    pub expired: u64,
    /// Bytes given to handlers.
    pub received: u64,
    /// Bytes written by handlers; of a connection that did not end in order,
    /// those that the peer acknowledged.
    pub sent: u64,
    /// Bytes that handlers wanted written and that were not sent in this sense.
    /// What a [`Writer`](crate::Writer) is refused only because the handler has
    /// returned is counted nowhere.
    pub unsent: u64,
    /// Bytes that arrived after our FIN and were given to nobody.
    pub discarded: u64,
    /// From seeing the stop to the end of the last connection.
    pub elapsed: Duration,
}

impl Report {
    /// Whether the stop was graceful for everybody: nothing cut, nobody refused.
    #[must_use]
    pub fn is_clean(&self) -> bool {
        self.cut == 0 && self.refused == 0
    }
}

impl fmt::Display for Report {
    /// One line of `key=value` pairs.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "clean={} accepted={} drained={} cut={} refused={} limited={} panicked={} failed={} \
             reset={} idle={} expired={} received={} sent={} unsent={} discarded={} elapsed_ms={}",
            self.is_clean(),
            self.accepted,
            self.drained,
            self.cut,
            self.refused,
            self.limited,
            self.panicked,
            self.failed,
            self.reset,
            self.idle,
            self.expired,
            self.received,
            self.sent,
            self.unsent,
            self.discarded,
            self.elapsed.as_millis()
        )
    }
}
