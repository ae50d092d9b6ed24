//! The log: for people, on standard error or in a file, never in the way.

use crate::timeline::{MODE, Timeline};
use anyhow::{Context, Result};
use lastecho::escape::{EscapedLog, LINES};
use lastecho::{Event, NonBlockingWriter, Snapshot, nonblocking_writer};
use log::LevelFilter;
use rustix::fs::OFlags;
use simplelog::{ConfigBuilder, WriteLogger};
use std::fmt::Write as _;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::path::Path;
use time::format_description::BorrowedFormatItem;
use time::macros::format_description;

/// RFC 3339, to the millisecond.
const TIME: &[BorrowedFormatItem<'_>] =
    format_description!("[year]-[month]-[day]T[hour]:[minute]:[second].[subsecond digits:3]Z");

/// Starts logging and returns the writer, to flush it at the end.
///
/// A file that is the timeline's, too, would be overwritten by it: refused.
pub(crate) fn start(
    level: LevelFilter,
    file: Option<&Path>,
    timeline: &Timeline,
) -> Result<NonBlockingWriter> {
    let writer = match file {
        Some(path) => {
            let file = open(path);
            let file = file.with_context(|| format!("cannot open log file {}", path.display()))?;
            timeline.must_not_be(&file, "the log")?;
            NonBlockingWriter::new(file)
        }
        None => {
            timeline.must_not_be(io::stderr(), "the log")?;
            nonblocking_writer::stderr()
        }
    };
    let writer = writer.context("cannot start the log's thread")?;
    // UTC: the local offset cannot be read safely in a program with threads.
    let config = ConfigBuilder::new()
        .set_time_format_custom(TIME)
        .set_thread_level(LevelFilter::Off)
        .set_target_level(LevelFilter::Off)
        .set_location_level(LevelFilter::Off)
        .build();
    EscapedLog::start(level, *WriteLogger::new(level, config, writer.clone()))?;
    Ok(writer)
}

/// Opens the log's file. Nothing may hold up the start: hence O_NONBLOCK, with
/// which a writer that is full is tried again. A named pipe is opened for
/// reading, too: then it needs no reader yet, and may change it (fifo(7)).
fn open(path: &Path) -> io::Result<File> {
    let is_pipe = path.metadata().is_ok_and(|at| at.file_type().is_fifo());
    OpenOptions::new()
        .read(is_pipe)
        .append(true)
        .create(true)
        .mode(MODE)
        .custom_flags(OFlags::NONBLOCK.bits().cast_signed())
        .open(path)
}

/// Puts a server's events into words.
pub(crate) fn tell(event: &Event<'_>) {
    match *event {
        Event::Stopping { left, deadline } => {
            log::info!(
                "stopping: {} left, cut {deadline}; another signal cuts at once",
                count(left)
            );
        }
        Event::Draining {
            left,
            oldest,
            half_open,
            deadline,
            cut,
        } => {
            let oldest =
                oldest.map_or_else(String::new, |oldest| format!(", the oldest: {oldest}"));
            let what_next = if cut {
                "already cut; another signal exits".to_owned()
            } else {
                format!("cut {deadline}; another signal cuts at once")
            };
            let half_open = match half_open {
                0 => String::new(),
                n => format!(" and {n} in a handshake"),
            };
            let left = count(left);
            log::info!("draining: {left} left{half_open}{oldest}; {what_next}");
        }
        Event::Cutting { left } => log::warn!("cutting: {} left", count(left)),
        _ => {}
    }
}

/// Logs the live connections, as one record so that none is dropped alone. A
/// snapshot holds no text from outside.
pub(crate) fn list(live: &[Snapshot]) {
    let mut text = format!("live: {}", count(live.len()));
    for snapshot in live {
        let _ = write!(text, "\nlive: {snapshot}");
    }
    log::info!(target: LINES, "{text}");
}

pub(crate) fn count(connections: usize) -> String {
    match connections {
        1 => "1 connection".to_owned(),
        n => format!("{n} connections"),
    }
}
