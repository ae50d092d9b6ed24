//! `--timeline`: a picture of the server's life, one row a connection.

mod axis;
mod bars;
mod legend;
mod picture;
mod record;
mod row;

use anyhow::{Context, Result, bail};
use lastecho::{Event, Report};
use record::Record;
use rustix::fs::{FileType, OFlags, fstat};
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Of the picture's file and of the log's: both name clients.
pub(crate) const MODE: u32 = 0o640;

/// What is recorded for the picture; nothing where none was asked for.
///
/// Clones share the record.
#[derive(Clone)]
pub(crate) struct Timeline(Option<Arc<Asked>>);

struct Asked {
    path: PathBuf,
    file: File,
    begun: Instant,
    record: Mutex<Record>,
}

impl Timeline {
    /// Opens the file now, so that one that cannot be written is told before
    /// anybody is served. What it holds stays until there is a picture.
    pub(crate) fn open(path: Option<&Path>) -> Result<Self> {
        let Some(path) = path else {
            return Ok(Self(None));
        };
        let file =
            open(path).with_context(|| format!("cannot open timeline file {}", path.display()))?;
        Ok(Self(Some(Arc::new(Asked {
            path: path.to_owned(),
            file,
            begun: Instant::now(),
            record: Mutex::default(),
        }))))
    }

    /// Refuses what is written meanwhile as a file for the picture, which would
    /// take its place: the same file, whatever its name.
    pub(crate) fn must_not_be(&self, other: impl AsFd, what: &str) -> Result<()> {
        let Some(asked) = &self.0 else {
            return Ok(());
        };
        let (ours, other) = (fstat(&asked.file)?, fstat(other)?);
        let is_file = FileType::from_raw_mode(ours.st_mode) == FileType::RegularFile;
        if is_file && (ours.st_dev, ours.st_ino) == (other.st_dev, other.st_ino) {
            bail!("timeline file {} is {what}, too", asked.path.display());
        }
        Ok(())
    }

    /// An observer that notes each event before `next` is told. Noting blocks
    /// for a few map operations, at most while a row of some hundred entries is
    /// made shorter.
    pub(crate) fn before<F>(&self, next: F) -> impl Fn(&Event<'_>) + use<F>
    where
        F: Fn(&Event<'_>),
    {
        let asked = self.0.clone();
        move |event| {
            if let Some(asked) = &asked {
                let now = asked.begun.elapsed();
                asked.record().note(now, event);
            }
            next(event);
        }
    }

    /// Notes which signal asked for the stop.
    pub(crate) fn signal(&self, name: &'static str) {
        if let Some(asked) = &self.0 {
            asked.record().signal.get_or_insert(name);
        }
    }

    /// Draws the picture: everybody has ended. A failure is logged.
    pub(crate) fn draw(&self, report: &Report) {
        let Some(asked) = &self.0 else {
            return;
        };
        let picture = picture::draw(&asked.record(), report, asked.begun.elapsed());
        let path = asked.path.display();
        match asked.write(picture.as_bytes()) {
            Ok(()) => log::info!("timeline written to {path}"),
            Err(error) => log::error!("cannot write timeline {path}: {error}"),
        }
    }
}

/// A pipe that nobody reads must hold up neither start nor exit: hence NONBLOCK.
fn open(path: &Path) -> io::Result<File> {
    OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(false)
        .mode(MODE)
        .custom_flags(OFlags::NONBLOCK.bits().cast_signed())
        .open(path)
}

impl Asked {
    fn record(&self) -> MutexGuard<'_, Record> {
        self.record.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self, picture: &[u8]) -> io::Result<()> {
        if self.file.metadata()?.is_file() {
            self.file.set_len(0)?;
        }
        (&self.file).write_all(picture)
    }
}

/// A time as the picture's texts have it.
fn seconds(time: Duration) -> String {
    match time.as_secs_f64() {
        short if short < 10.0 => format!("{short:.2} s"),
        long => format!("{long:.1} s"),
    }
}
