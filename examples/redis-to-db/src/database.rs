//! Where messages go: a table with a key, so that writing twice is writing
//! once.

mod postgres;
mod sqlite;

use self::postgres::{Server, Session};
use self::sqlite::Sqlite;
use crate::options::{Options, Target};
use anyhow::Result;
use lastecho::Stop;
use std::error::Error;
use std::fmt;

/// Both databases understand both. `written` counts how often a message came;
/// whatever kind of number it is, it says whether the message is new.
const TABLE: &str = "CREATE TABLE IF NOT EXISTS messages \
    (key TEXT PRIMARY KEY, body BYTEA NOT NULL, written INTEGER NOT NULL)";
const WRITE: &str = "INSERT INTO messages (key, body, written) VALUES ($1, $2, 1) \
    ON CONFLICT (key) DO UPDATE SET written = messages.written + 1 RETURNING written = 1";

/// Why the database could not be reached.
#[derive(Debug)]
pub struct Unreached {
    /// No waiting mends it: a wrong password, a file that is no database.
    pub is_lasting: bool,
    why: String,
}

/// Why a message is not in the database.
#[derive(Debug)]
pub enum WriteError {
    /// There was no connection to try it on.
    Unreached(Unreached),
    /// It is the database: down, locked, full. The message can wait.
    Down(String),
    /// It is the message: the database will never take it.
    Refused(String),
    /// The answer does not say which of the two it is. It is the message where
    /// others can be written meanwhile.
    Unclear(String),
}

/// A database that is shared by all workers.
pub enum Database {
    /// One connection for all: `SQLite` has one writer at a time anyway. With
    /// 32 connections the slowest write waited for seconds (8 s against 1.4 s).
    Sqlite(Sqlite),
    /// A connection for each worker.
    Postgres(Box<Server>),
}

/// A worker's way into the database.
pub enum Writer<'a> {
    /// The connection that all share.
    Sqlite(&'a Sqlite),
    /// Its own connection, made anew after an error.
    Postgres(&'a Server, Option<Box<Session>>),
}

impl Database {
    /// Opens and connects nowhere yet. Where the stop is set, it gives up to
    /// connect.
    ///
    /// # Errors
    /// The certificates to trust cannot be read.
    pub fn new(options: &Options, stop: &Stop) -> Result<Self> {
        Ok(match &options.database {
            Target::File(path) => Self::Sqlite(Sqlite::new(path)),
            Target::Postgres(config) => {
                let server = Server::new(config, options.database_ca.as_deref(), stop)?;
                Self::Postgres(Box::new(server))
            }
        })
    }

    /// A way into it for one worker.
    #[must_use]
    pub fn writer(&self) -> Writer<'_> {
        match self {
            Self::Sqlite(sqlite) => Writer::Sqlite(sqlite),
            Self::Postgres(server) => Writer::Postgres(server, None),
        }
    }
}

impl Writer<'_> {
    /// Whether a write needs no connection to be made first. A file is opened
    /// by the write that finds it closed.
    #[must_use]
    pub fn is_connected(&self) -> bool {
        !matches!(self, Self::Postgres(_, None))
    }

    /// Opens the file or connects, unless that is done, and sees whether the
    /// table can be written to.
    ///
    /// # Errors
    /// Where it cannot.
    pub fn connect(&mut self) -> Result<(), Unreached> {
        match self {
            Self::Sqlite(sqlite) => sqlite.connect(),
            Self::Postgres(_, Some(_)) => Ok(()),
            Self::Postgres(server, session) => {
                *session = Some(Box::new(server.connect()?));
                Ok(())
            }
        }
    }

    /// Writes a message; whether it is new. Once it returns, the database has
    /// it for good.
    ///
    /// # Errors
    /// [`WriteError`] tells whose fault it is.
    pub fn write(&mut self, key: &str, body: &[u8]) -> Result<bool, WriteError> {
        let (server, session) = match self {
            Self::Sqlite(sqlite) => return sqlite.write(key, body),
            Self::Postgres(server, session) => (server, session),
        };
        if let Some(kept) = session.take() {
            let answer = kept.write(key, body, session);
            if let Ok(_) | Err(WriteError::Refused(_)) = answer {
                return answer;
            }
            // It has died, perhaps long ago, or was made when the table was
            // another: that says nothing about now.
        }
        let fresh = server.connect().map_err(WriteError::Unreached)?;
        Box::new(fresh).write(key, body, session)
    }
}

impl fmt::Display for Unreached {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.why)
    }
}

impl Error for Unreached {}

impl fmt::Display for WriteError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unreached(unreached) => unreached.fmt(f),
            Self::Down(why) | Self::Refused(why) | Self::Unclear(why) => f.write_str(why),
        }
    }
}

impl Error for WriteError {}
