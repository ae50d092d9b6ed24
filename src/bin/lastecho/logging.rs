//! The log: for people, on standard error or in a file, never in the way.

use crate::outlet::Outlet;
use anyhow::{Context, Result};
use lastecho::{Event, Snapshot};
use log::LevelFilter;
use simplelog::{ConfigBuilder, WriteLogger};
use std::fmt::Write as _;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use time::format_description::BorrowedFormatItem;
use time::macros::format_description;

/// RFC 3339, to the millisecond.
const TIME: &[BorrowedFormatItem<'_>] =
    format_description!("[year]-[month]-[day]T[hour]:[minute]:[second].[subsecond digits:3]Z");

/// Starts logging and returns the outlet, to flush it at the end.
pub(crate) fn start(level: LevelFilter, file: Option<&Path>) -> Result<Outlet> {
    let target = match file {
        Some(path) => {
            open(path).with_context(|| format!("cannot open log file {}", path.display()))?
        }
        None => File::from(io::stderr().as_fd().try_clone_to_owned()?),
    };
    let outlet = Outlet::new(target).context("cannot start the log's thread")?;
    // UTC: the local offset cannot be read safely in a program with threads.
    let config = ConfigBuilder::new()
        .set_time_format_custom(TIME)
        .set_thread_level(LevelFilter::Off)
        .set_target_level(LevelFilter::Off)
        .set_location_level(LevelFilter::Off)
        .build();
    WriteLogger::init(level, config, outlet.clone())?;
    // The default hook writes to standard error and would wait for its reader.
    std::panic::set_hook(Box::new(|panic| log::error!("{panic}")));
    Ok(outlet)
}

fn open(path: &Path) -> io::Result<File> {
    OpenOptions::new()
        .append(true)
        .create(true)
        .mode(0o640)
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
            log::info!("draining: {} left{oldest}; {what_next}", count(left));
        }
        Event::Cutting { left } => log::warn!("cutting: {} left", count(left)),
        _ => {}
    }
}

/// Logs the live connections, as one record so that none is dropped alone.
pub(crate) fn list(live: &[Snapshot]) {
    let mut text = format!("live: {}", count(live.len()));
    for snapshot in live {
        let _ = write!(text, "\nlive: {snapshot}");
    }
    log::info!("{text}");
}

fn count(connections: usize) -> String {
    match connections {
        1 => "1 connection".to_owned(),
        n => format!("{n} connections"),
    }
}
