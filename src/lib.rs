//! Thread-based TCP servers that stop gracefully.
#![doc = "guide to come"]

mod connection;
mod crew;
mod deadline;
mod drain;
mod echo;
mod ending;
mod episode;
mod event;
pub mod limits;
mod link;
mod listener;
mod live;
mod lock;
mod report;
mod server;
#[cfg(feature = "signals")]
pub mod signals;
mod stop;
mod sys;

pub use connection::{Connection, Ending, Writer};
pub use deadline::Deadline;
pub use echo::Echo;
pub use event::{Event, Outcome, Snapshot, State};
pub use live::Live;
pub use report::Report;
pub use server::Server;
pub use stop::Stop;
