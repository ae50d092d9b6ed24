//! What a run is made of: programs, signals, faults.

use super::relay::Held;
use rustix::process::Signal;

/// Where messages go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Store {
    Sqlite,
    Postgres,
}

/// A server that the programs talk to.
#[derive(Clone, Copy, Debug)]
pub(super) enum Side {
    Redis,
    Postgres,
}

/// What lasts for a while.
#[derive(Clone, Copy, Debug)]
pub(super) enum Fault {
    /// A program, by its number, sleeps.
    ProgramAsleep(usize),
    RedisAsleep,
    /// Ended by this signal.
    RedisAway(Signal),
    /// Ended at once.
    PostgresAway,
    /// Packets wait.
    HeldBack(Side, Held),
    /// Redis does not let the programs run this command.
    Refused(&'static str),
    /// The key with this suffix is something else.
    WrongType(&'static str),
    /// Redis is at its `maxmemory`.
    NoMemory,
    /// Redis takes no further connection.
    NoConnections,
    /// PostgreSQL lets new connections only read.
    ReadOnly,
    /// Someone else holds the table in PostgreSQL.
    Locked,
    /// So many bytes are left for `SQLite`.
    DiskFull(u64),
}

/// A program that starts.
#[derive(Clone, Debug)]
pub(super) struct Launch {
    pub(super) number: usize,
    pub(super) options: Vec<String>,
    pub(super) injected: Option<Injected>,
}

/// What strace makes of a program's system calls. It counts for each thread.
#[derive(Clone, Copy, Debug)]
pub(super) enum Injected {
    /// At a call of this name it is killed.
    KilledAtCall(&'static str, u8),
    /// From one commit to another the disk fails.
    FailingCommit(u8, u8),
}

impl Injected {
    /// The call, and what becomes of it.
    pub(super) fn for_strace(self) -> (&'static str, String) {
        match self {
            Self::KilledAtCall(call, when) => (call, format!("signal=KILL:when={when}")),
            Self::FailingCommit(from, to) => ("fsync", format!("error=EIO:when={from}..{to}")),
        }
    }
}

/// What happens at a moment of a run.
#[derive(Clone, Debug)]
pub(super) enum Step {
    Start(Launch),
    /// To a program, by its number.
    Signalled(usize, Signal),
    /// All connections to a server end.
    Cut(Side),
    Begin(Fault),
    End(Fault),
}

impl Step {
    /// The kind of a fault, where one begins.
    pub(super) fn kind(&self) -> Option<String> {
        let fault = match self {
            Self::Begin(fault) => format!("{fault:?}"),
            Self::Cut(_) => "Cut".into(),
            Self::Signalled(_, Signal::KILL) => "Killed".into(),
            Self::Signalled(..) => "Signalled".into(),
            Self::Start(launch) => format!("{:?}", launch.injected?),
            Self::End(_) => return None,
        };
        let name = fault.split(|c: char| !c.is_alphabetic()).next();
        name.map(str::to_owned)
    }
}
