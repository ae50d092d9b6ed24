//! Where messages go: a table with a key, so that writing twice is writing
//! once.

use crate::options::Target;
use postgres::error::SqlState;
use postgres::{Client, NoTls, Statement};
use rusqlite::ErrorCode;
use std::error::Error;
use std::fmt;
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Both databases understand both. `written` counts how often a message came.
const TABLE: &str = "CREATE TABLE IF NOT EXISTS messages \
    (key TEXT PRIMARY KEY, body BYTEA NOT NULL, written INTEGER NOT NULL)";
const WRITE: &str = "INSERT INTO messages (key, body, written) VALUES ($1, $2, 1) \
    ON CONFLICT (key) DO UPDATE SET written = messages.written + 1 RETURNING written";

/// How long a write waits for somebody else's lock, or PostgreSQL for an
/// answer to a connection.
const PATIENCE: Duration = Duration::from_secs(1);
const CONNECT: Duration = Duration::from_secs(5);

/// Why a message is not in the database.
#[derive(Debug)]
pub enum WriteError {
    /// It is the database: down, locked, full. The message can wait.
    Down(Box<dyn Error + Send + Sync>),
    /// It is the message: the database will never take it.
    Refused(Box<dyn Error + Send + Sync>),
}

/// A database that is shared by all workers.
pub enum Database {
    /// One connection for all: `SQLite` has one writer at a time anyway. With
    /// 32 connections the slowest write waited for seconds (8 s against 1.4 s).
    Sqlite(Mutex<Sqlite>),
    /// A connection for each worker.
    Postgres(Box<postgres::Config>),
}

/// The connection to an `SQLite` file.
pub struct Sqlite {
    connection: rusqlite::Connection,
    is_ready: bool,
    /// When it last turned out to be locked by another process.
    locked_at: Option<Instant>,
}

/// A worker's way into the database.
pub struct Writer<'a> {
    database: &'a Database,
    /// Made when it is needed, and anew after an error.
    client: Option<(Client, Statement)>,
}

impl Database {
    /// Opens the file; `PostgreSQL` is connected to when it is needed.
    ///
    /// # Errors
    /// The file cannot be opened or made.
    pub fn open(target: &Target) -> rusqlite::Result<Self> {
        Ok(match target {
            Target::File(path) => Self::Sqlite(Mutex::new(Sqlite::open(path)?)),
            Target::Postgres(config) => {
                let mut config = config.clone();
                if config.get_connect_timeout().is_none() {
                    config.connect_timeout(CONNECT);
                }
                Self::Postgres(config)
            }
        })
    }

    /// A way into it for one worker.
    #[must_use]
    pub fn writer(&self) -> Writer<'_> {
        Writer {
            database: self,
            client: None,
        }
    }
}

impl Writer<'_> {
    /// Writes a message; whether it is new. Once it returns, the database has
    /// it for good.
    ///
    /// # Errors
    /// [`WriteError`] tells whose fault it is.
    pub fn write(&mut self, key: &str, body: &[u8]) -> Result<bool, WriteError> {
        let config = match self.database {
            Database::Sqlite(sqlite) => return Sqlite::write(sqlite, key, body),
            Database::Postgres(config) => config,
        };
        if let Some(kept) = self.client.take() {
            match self.ask(kept, key, body) {
                // It has died, perhaps long ago: that says nothing about now.
                Err(WriteError::Down(_)) if self.client.is_none() => {}
                answer => return answer,
            }
        }
        let fresh = connect(config).map_err(|error| WriteError::Down(error.into()))?;
        self.ask(fresh, key, body)
    }

    /// Writes on this connection, and keeps it unless it dies of it, or of a
    /// panic.
    fn ask(
        &mut self,
        (mut client, statement): (Client, Statement),
        key: &str,
        body: &[u8],
    ) -> Result<bool, WriteError> {
        // Returns when the server is ready for the next: it has committed.
        let row = client.query_one(&statement, &[&key, &body]);
        if !client.is_closed() {
            self.client = Some((client, statement));
        }
        Ok(row.map_err(refused_or_down)?.get::<_, i32>(0) == 1)
    }
}

fn connect(config: &postgres::Config) -> Result<(Client, Statement), postgres::Error> {
    let mut client = config.connect(NoTls)?;
    // One at a time: two that make the table together fail. The lock ends with
    // the batch.
    client.batch_execute(&format!("SELECT pg_advisory_xact_lock(48879); {TABLE}"))?;
    let statement = client.prepare(WRITE)?;
    Ok((client, statement))
}

/// Data exceptions (22) and violated constraints (23) are the message's fault.
fn refused_or_down(error: postgres::Error) -> WriteError {
    match error.code().map(SqlState::code) {
        Some(code) if code.starts_with("22") || code.starts_with("23") => {
            WriteError::Refused(error.into())
        }
        _ => WriteError::Down(error.into()),
    }
}

impl Sqlite {
    fn open(path: &Path) -> rusqlite::Result<Self> {
        Ok(Self {
            connection: rusqlite::Connection::open(path)?,
            is_ready: false,
            locked_at: None,
        })
    }

    /// Waits for its turn, which is short unless another process holds the
    /// file: then whoever waited meanwhile does not wait as long again.
    fn write(sqlite: &Mutex<Self>, key: &str, body: &[u8]) -> Result<bool, WriteError> {
        let asked = Instant::now();
        // A panic in the middle has ended its statement; nothing is half done.
        let mut sqlite: MutexGuard<'_, Self> =
            sqlite.lock().unwrap_or_else(PoisonError::into_inner);
        if sqlite.locked_at.is_some_and(|locked| locked > asked) {
            return Err(WriteError::Down("database is locked".into()));
        }
        let written = sqlite.try_write(key, body);
        written.map_err(|error| match error.sqlite_error_code() {
            Some(ErrorCode::ConstraintViolation | ErrorCode::TypeMismatch | ErrorCode::TooBig) => {
                WriteError::Refused(error.into())
            }
            code => {
                if code == Some(ErrorCode::DatabaseBusy) {
                    sqlite.locked_at = Some(Instant::now());
                }
                WriteError::Down(error.into())
            }
        })
    }

    fn try_write(&mut self, key: &str, body: &[u8]) -> rusqlite::Result<bool> {
        if !self.is_ready {
            self.connection.busy_timeout(PATIENCE)?;
            self.connection.pragma_update(None, "journal_mode", "WAL")?;
            // Redis forgets the message next: a power cut must not take it back.
            self.connection.pragma_update(None, "synchronous", "FULL")?;
            self.connection.execute(TABLE, [])?;
            self.is_ready = true;
        }
        let mut statement = self.connection.prepare_cached(WRITE)?;
        // Not `query_row`: the row comes before the commit, whose error it drops.
        statement.query_one((key, body), |row| Ok(row.get::<_, i64>(0)? == 1))
    }
}

impl fmt::Display for WriteError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (Self::Down(error) | Self::Refused(error)) = self;
        write!(f, "database: {error}")?;
        // postgres says only "db error"; what is wrong is its source.
        error.source().map_or(Ok(()), |why| write!(f, ": {why}"))
    }
}

impl Error for WriteError {}
