//! Thread-based TCP servers that stop without losing what they have in hand.
//!
//! One blocking thread per connection, no async runtime, and a stop that keeps
//! four promises: what a handler read is answered, whoever was connected is
//! served and not reset, it ends by a deadline, and its outcome is told.
//!
//! ```no_run
//! use lastecho::{Server, Stop, signals};
//! use std::io::{BufRead, Write};
//!
//! fn main() -> std::io::Result<()> {
//!     let stop = Stop::new();
//!     let _signals = signals::install(&stop)?; // INT, TERM, QUIT, HUP
//!     let report = Server::bind("127.0.0.1:48879")?.run(&stop, |conn| {
//!         let mut line = String::new();
//!         while conn.next()? {
//!             line.clear();
//!             conn.read_line(&mut line)?;
//!             conn.write_all(line.as_bytes())?;
//!         }
//!         Ok(())
//!     })?;
//!     println!("{report}");
//!     Ok(())
//! }
//! ```
//!
//! # Between requests and inside one
//!
//! The stop is honoured between requests, never inside one. A handler says
//! where that is: [`Connection::next`] waits for a request and is false when
//! there is none left, because the peer closed, the idle timeout passed or the
//! server stops. Everything else ([`Read`](std::io::Read),
//! [`BufRead`](std::io::BufRead), [`Write`](std::io::Write)) is inside a
//! request and waits for as long as the peer takes; only the cut ends it.
//!
//! When the stop is seen, what has already arrived is still a request: it is
//! given out and answered. What arrives later is not.
//!
//! The [`guide`] tells step by step how a threaded
//! server stops, and helps to choose.
//!
//! # The parts
//!
//! - [`Stop`] is a flag that any number of servers share, set from any thread;
//!   [`signals`] sets it for you.
//! - [`Server`] listens and runs your handler on a thread per connection. The
//!   threads are scoped: a handler borrows what it needs.
//! - [`Connection`] is what a handler gets. [`Connection::pair`] makes one for
//!   a test.
//! - [`Report`] tells what came of it, [`Event`] tells it as it happens, and
//!   [`Live`] shows who is connected.
//! - [`handover`] passes the listening sockets to a successor.
//! - [`Echo`] is the handler of the `lastecho` program.
//! - [`Queue`] and [`Workers`] do jobs as a server does requests, [`Shutdown`]
//!   stops the parts of a program in order, and [`Episode`] is the back-off
//!   that threads share when something that all of them need is in trouble.
//! - [`NonBlockingWriter`] is for a log that never holds up a stop, [`escape`]
//!   for what such a log must not show as it came, and [`WholeLines`] for a
//!   file whose disk may be full.
//!
//! # How long a stop takes
//!
//! A connection that waits for its peer sees the stop within one
//! [poll interval](Server::poll), then lingers until its peer closes, 250 ms
//! if the peer does not, and until the cut if it does not acknowledge our FIN.
//! One that is inside a request finishes it. What is
//! left at the [drain timeout](Server::drain_timeout) is cut. A handler that
//! looks neither at its connection nor at the stop cannot be ended from
//! outside, and [`Server::run`] waits for it.
//!
//! # `Stop`, or a cut?
//!
//! [`Stop::set`] is patient, [`Stop::cut`] is not: it shuts every connection
//! that has something in hand. Call `set` first; the drain timeout cuts for you.
//!
//! # Features
//!
//! - `signals`: the [`signals`] module (signal-hook).
//! - `handover`: the [`handover`] module (command-fds), restarts that nobody
//!   notices, and sockets from systemd.
//! - `cli` (default): the `lastecho` program; implies both. A library user says
//!   `default-features = false, features = ["signals"]`.
//!
//! # Platform
//!
//! Linux. Timed accept, the refusal of new clients at a stop, and the count of
//! unacknowledged bytes rest on facts of its kernel, each named where it is
//! used and held by a test.

#[cfg(not(target_os = "linux"))]
compile_error!("lastecho rests on Linux's sockets: see ARCHITECTURE.md, \"Why not\"");

mod addresses;
mod causes;
mod connection;
mod crew;
mod deadline;
mod drain;
mod eager;
mod early;
mod echo;
mod ending;
mod episode;
pub mod escape;
mod event;
#[doc = include_str!("guide.md")]
#[cfg(all(feature = "signals", feature = "handover"))]
pub mod guide {}
mod half_open;
#[cfg(feature = "handover")]
pub mod handover;
mod idle;
#[cfg(feature = "handover")]
mod inherited;
pub mod limits;
mod link;
mod listener;
mod live;
mod lock;
#[cfg(all(test, shuttle))]
#[path = "../tests/models/main.rs"]
mod models;
pub mod nonblocking_writer;
mod panics;
#[cfg(feature = "handover")]
mod passed;
mod peers;
mod port;
#[cfg(feature = "handover")]
mod program;
// The code in README.md must compile.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
mod readme {}
mod queue;
mod report;
mod server;
mod shutdown;
#[cfg(feature = "signals")]
pub mod signals;
mod socket_errors;
mod stop;
#[cfg(feature = "handover")]
mod successor;
mod sync;
mod sys;
mod table;
mod terms;
mod title;
mod whole_lines;
mod workers;
mod writer;
mod writing;

pub use connection::{Connection, Ending};
pub use deadline::Deadline;
pub use echo::Echo;
pub use episode::Episode;
pub use event::{Event, Outcome, Snapshot, State};
pub use live::Live;
pub use nonblocking_writer::NonBlockingWriter;
pub use queue::{Queue, Reason, Rejected, Take};
pub use report::Report;
pub use server::Server;
pub use shutdown::{PhaseEnd, PhaseError, Running, Shutdown, ShutdownOutcome};
pub use stop::{SetOnDrop, Stop};
pub use whole_lines::WholeLines;
pub use workers::{Failure, Tally, WorkError, Worker, Workers};
pub use writer::Writer;
