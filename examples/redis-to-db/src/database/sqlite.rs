//! One connection to an `SQLite` file for all workers.

use super::{TABLE, Unreached, WRITE, WriteError};
use rusqlite::{Connection, ErrorCode, MAIN_DB, OpenFlags};
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// How long a write waits for another process's lock.
const PATIENCE: Duration = Duration::from_secs(1);

/// Whether the table has each key as it came, and no two for the same: else the
/// second would be lost as a duplicate of the first.
const APART: &str = "SELECT EXISTS (SELECT 1 FROM pragma_table_xinfo('messages') \
    WHERE name = 'key' COLLATE NOCASE AND type NOT LIKE '%INT%' AND (type = '' \
    OR type LIKE '%CHAR%' OR type LIKE '%CLOB%' OR type LIKE '%TEXT%' OR type LIKE '%BLOB%')) \
    AND NOT EXISTS (SELECT 1 FROM pragma_index_list('messages') AS list, \
    pragma_index_xinfo(list.name) AS part WHERE list.\"unique\" AND part.key \
    AND part.name = 'key' COLLATE NOCASE AND part.coll <> 'BINARY')";

/// An `SQLite` file and the connection to it.
pub struct Sqlite {
    path: PathBuf,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    open: Option<Open>,
    /// When it last turned out to be locked by another process.
    locked_at: Option<Instant>,
}

struct Open {
    connection: Connection,
    files: [Option<Identity>; 2],
}

/// Device and inode: which file a path names. The number of one that is open
/// is not given to another.
type Identity = (u64, u64);

impl Sqlite {
    pub(super) fn new(path: &Path) -> Self {
        Self {
            path: path.to_owned(),
            state: Mutex::default(),
        }
    }

    /// Opens the file, or makes it, and sees whether the table can be written to.
    pub(super) fn connect(&self) -> Result<(), Unreached> {
        let mut state = self.lock();
        let connection = &state.open(&self.path)?.connection;
        let trial = connection.prepare(WRITE);
        trial
            .map(drop)
            .map_err(|error| unreached(&self.path, &error))
    }

    /// Waits for its turn, which is short unless another process holds the
    /// file: then who waited meanwhile does not wait as long again.
    pub(super) fn write(&self, key: &str, body: &[u8]) -> Result<bool, WriteError> {
        let asked = Instant::now();
        let mut state = self.lock();
        if state.locked_at.is_some_and(|locked| locked > asked) {
            return Err(WriteError::Down(self.tell("database is locked")));
        }
        let open = match state.open(&self.path) {
            Ok(open) => open,
            Err(unreached) => return Err(WriteError::Down(unreached.why)),
        };
        let (written, opened) = (open.write(key, body), open.files);
        if opened != files(&self.path) {
            // It was perhaps written into a file that has no name any more.
            state.open = None;
            let why = "deleted or replaced while it was open; opening it anew";
            return Err(WriteError::Down(self.tell(why)));
        }
        written.map_err(|error| {
            if error.sqlite_error_code() == Some(ErrorCode::DatabaseBusy) {
                state.locked_at = Some(Instant::now());
            }
            judge(&error)(self.tell(&error.to_string()))
        })
    }

    fn tell(&self, why: &str) -> String {
        tell(&self.path, why)
    }

    /// A panic in the middle has ended its statement; nothing is half done.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn open(&mut self, path: &Path) -> Result<&Open, Unreached> {
        if self.open.is_none() {
            self.open = Some(Open::new(path)?);
        }
        self.open.as_ref().ok_or_else(|| lasting(path, "is closed"))
    }
}

impl Open {
    fn new(path: &Path) -> Result<Self, Unreached> {
        if fs::metadata(path).is_ok_and(|file| !file.is_file()) {
            return Err(lasting(path, "is not a file"));
        }
        let failed = |error| unreached(path, &error);
        // Without URIs: some name a database in memory.
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_CREATE;
        let connection = Connection::open_with_flags(path, flags).map_err(failed)?;
        if connection.is_readonly(MAIN_DB).map_err(failed)? {
            return Err(lasting(path, "is read-only"));
        }
        prepare(&connection).map_err(failed)?;
        if !connection
            .query_one(APART, [], |row| row.get(0))
            .map_err(failed)?
        {
            let why = "the table takes two keys for one: let key be TEXT, without a collation";
            return Err(lasting(path, why));
        }
        let files = files(path);
        if files[0].is_none() {
            return Err(lasting(path, "is not a file")); // ":memory:"
        }
        Ok(Self { connection, files })
    }

    /// Not with `query_row`: the row comes before the commit, whose error it
    /// drops.
    fn write(&self, key: &str, body: &[u8]) -> rusqlite::Result<bool> {
        let mut statement = self.connection.prepare_cached(WRITE)?;
        statement.query_one((key, body), |row| {
            Ok(row.get::<_, Option<bool>>(0)?.unwrap_or(false))
        })
    }
}

/// Sees that a table is there that can be written to.
fn prepare(connection: &Connection) -> rusqlite::Result<()> {
    connection.busy_timeout(PATIENCE)?;
    connection.pragma_update(None, "journal_mode", "WAL")?;
    // Redis forgets the message next: a power cut must not take it back.
    // Where there is no WAL, EXTRA syncs the folder of the journal, too.
    connection.pragma_update(None, "synchronous", "EXTRA")?;
    connection.execute(TABLE, [])?;
    connection.prepare_cached(WRITE).map(|_| ())
}

/// Which files the path names now, and its write-ahead log: what is in that
/// alone is lost with it.
fn files(path: &Path) -> [Option<Identity>; 2] {
    let mut log = path.as_os_str().to_owned();
    log.push("-wal");
    [path, Path::new(&log)].map(|path| {
        let file = fs::metadata(path).ok().filter(fs::Metadata::is_file)?;
        Some((file.dev(), file.ino()))
    })
}

fn lasting(path: &Path, why: &str) -> Unreached {
    Unreached {
        is_lasting: true,
        why: tell(path, why),
    }
}

fn unreached(path: &Path, error: &rusqlite::Error) -> Unreached {
    Unreached {
        is_lasting: !passes(error),
        why: tell(path, &error.to_string()),
    }
}

fn tell(path: &Path, why: &str) -> String {
    format!("{}: {why}", path.display())
}

/// Whether waiting helps.
fn passes(error: &rusqlite::Error) -> bool {
    use ErrorCode::{
        DatabaseBusy, DatabaseLocked, DiskFull, FileLockingProtocolFailed, OperationInterrupted,
        OutOfMemory, SystemIoFailure,
    };
    matches!(
        error.sqlite_error_code(),
        Some(
            DatabaseBusy
                | DatabaseLocked
                | DiskFull
                | FileLockingProtocolFailed
                | OperationInterrupted
                | OutOfMemory
                | SystemIoFailure
        )
    )
}

fn judge(error: &rusqlite::Error) -> fn(String) -> WriteError {
    use ErrorCode::{ConstraintViolation, TooBig, TypeMismatch, Unknown};
    match error.sqlite_error_code() {
        Some(ConstraintViolation | TypeMismatch | TooBig) => WriteError::Refused,
        // What an expression of an index or a trigger says, say about bad JSON.
        Some(Unknown) => WriteError::Unclear,
        Some(_) => WriteError::Down,
        // A trigger ignored it: no row.
        None if matches!(error, rusqlite::Error::QueryReturnedNoRows) => WriteError::Refused,
        None => WriteError::Unclear,
    }
}
