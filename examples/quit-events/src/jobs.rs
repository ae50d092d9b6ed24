//! What the servers leave for the channel's worker, and the journal in which
//! it ends up.

use lastecho::WholeLines;
use std::fs::{File, OpenOptions};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// Jobs that may wait.
const MOST: usize = 1024;

/// The sending end of the channel.
#[derive(Clone, Debug)]
pub struct Jobs {
    sender: SyncSender<String>,
    submitted: Arc<AtomicU64>,
}

impl Jobs {
    /// A bounded channel, and the count of what was sent into it.
    #[must_use]
    pub fn channel() -> (Self, Receiver<String>, Arc<AtomicU64>) {
        let (sender, receiver) = sync_channel(MOST);
        let submitted = Arc::new(AtomicU64::new(0));
        let jobs = Self {
            sender,
            submitted: Arc::clone(&submitted),
        };
        (jobs, receiver, submitted)
    }

    /// The work behind both servers: takes its time, leaves a job, greets.
    ///
    /// # Errors
    /// The channel is full, or its worker is gone: nothing was promised.
    pub async fn greet(&self, name: &str, delay: Duration) -> Result<String, &'static str> {
        log::info!("greeting {name:?}");
        tokio::time::sleep(delay).await;
        self.sender
            .try_send(name.to_owned())
            .map_err(|_| "too busy to greet")?;
        self.submitted.fetch_add(1, Relaxed);
        Ok(format!("hello {name}\n"))
    }
}

/// A file of whole lines, which are on the disk for sure once it is closed.
#[derive(Debug)]
pub struct Journal {
    path: PathBuf,
    file: Mutex<Option<WholeLines<File>>>,
    written: AtomicU64,
    kept: AtomicU64,
}

impl Journal {
    /// Opens the file, to append to it.
    ///
    /// # Errors
    /// What open(2) says.
    pub fn open(path: &Path) -> io::Result<Self> {
        let file = OpenOptions::new().create(true).append(true).open(path)?;
        Ok(Self {
            path: path.to_owned(),
            file: Mutex::new(Some(WholeLines::new(file))),
            written: AtomicU64::new(0),
            kept: AtomicU64::new(0),
        })
    }

    /// Writes a line, in one write. Where that fails, what a full disk took of
    /// it stays, and is ended before the next line.
    ///
    /// # Errors
    /// The journal is closed already, or what write(2) says.
    pub fn write(&self, name: &str) -> io::Result<()> {
        let mut file = self.lock();
        let file = file.as_mut().ok_or(io::ErrorKind::BrokenPipe)?;
        file.write(format!("{name:?}\n").as_bytes())?;
        self.written.fetch_add(1, Relaxed);
        Ok(())
    }

    /// Brings everything to the disk, what close(2) would not tell: the lines,
    /// and the file's name in its directory.
    ///
    /// # Errors
    /// What fsync(2) says.
    pub fn close(&self) -> io::Result<()> {
        let Some(file) = self.lock().take() else {
            return Ok(());
        };
        sync(file.get_ref())?;
        let directory = self.path.parent().unwrap_or(Path::new(""));
        sync(&File::open(Path::new(".").join(directory))?)?;
        self.kept.store(self.written.load(Relaxed), Relaxed);
        Ok(())
    }

    /// Lines that are in the file for sure; none before it was closed.
    #[must_use]
    pub fn kept(&self) -> u64 {
        self.kept.load(Relaxed)
    }

    fn lock(&self) -> MutexGuard<'_, Option<WholeLines<File>>> {
        self.file.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// fsync(2), where there is something to be synced: not in a pipe or a terminal.
fn sync(file: &File) -> io::Result<()> {
    match file.sync_all() {
        Err(error) if error.kind() == io::ErrorKind::InvalidInput => Ok(()),
        synced => synced,
    }
}
