//! A look at a running server.

use crate::event::Snapshot;
use crate::report::Report;
use crate::sync::Arc;
use crate::table::Table;
use std::net::SocketAddr;
use std::sync::OnceLock;

/// A look at a server's live connections, from any thread.
#[derive(Clone)]
pub struct Live {
    pub(crate) table: Arc<Table>,
    pub(crate) addresses: Arc<[SocketAddr]>,
    pub(crate) joined: Joined,
}

/// The server that a server has become part of since; see [`Server::and`].
///
/// [`Server::and`]: crate::Server::and
pub(crate) type Joined = Arc<OnceLock<Live>>;

impl Live {
    /// The look at what runs.
    fn latest(&self) -> &Self {
        let mut live = self;
        while let Some(joined) = live.joined.get() {
            live = joined;
        }
        live
    }

    /// The listeners' addresses, with the ports that the system chose.
    #[must_use]
    pub fn addresses(&self) -> &[SocketAddr] {
        &self.latest().addresses
    }

    /// The live connections, oldest first. Blocks for as long as copying takes.
    #[must_use]
    pub fn snapshot(&self) -> Vec<Snapshot> {
        self.latest().table.snapshot()
    }

    /// What has been counted so far. Bytes of live connections are not in it.
    #[must_use]
    pub fn report(&self) -> Report {
        self.latest().table.report()
    }

    /// How often accepting came round on each of the [addresses](Self::addresses):
    /// with a client, without one when a poll interval had passed, or because there
    /// was no room for more. It stands still while accepting fails or hangs, which
    /// is what a watchdog looks for.
    #[must_use]
    pub fn rounds(&self) -> Vec<u64> {
        let live = self.latest();
        let mut rounds = live.table.rounds();
        rounds.resize(live.addresses.len(), 0);
        rounds
    }
}

impl std::fmt::Debug for Live {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.snapshot()).finish()
    }
}
