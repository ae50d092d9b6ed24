//! The log, and lines for machines. None waits for its reader, and what comes
//! from outside is escaped in both.

use anyhow::Result;
use lastecho::escape::EscapedLog;
use lastecho::nonblocking_writer;
use simplelog::{ConfigBuilder, LevelFilter, WriteLogger};
use std::fmt;
use std::time::Duration;

/// How long the last lines may take to their reader.
const LAST_LINES: Duration = Duration::from_secs(1);

/// Starts the log, on standard error.
///
/// # Errors
/// No thread can be started, or there is a log already.
pub fn start_log() -> Result<()> {
    let config = ConfigBuilder::new()
        .set_time_format_rfc3339()
        .add_filter_allow_str("lastecho")
        .add_filter_allow_str("redis_to_db")
        .build();
    let logger = WriteLogger::new(LevelFilter::Info, config, nonblocking_writer::stderr()?);
    EscapedLog::start(LevelFilter::Info, *logger)?;
    Ok(())
}

/// Says on standard error why the program ends.
pub fn complain(program: &str, why: &str) {
    if let Ok(stderr) = nonblocking_writer::stderr() {
        stderr.line(&format!("{program}: {why}"));
    }
}

/// Writes a line for machines.
pub fn say(line: fmt::Arguments<'_>) {
    if let Ok(stdout) = nonblocking_writer::stdout() {
        stdout.line(&line.to_string());
    }
}

/// Waits until all lines are written, for a second at most: call it before the
/// process ends.
pub fn flush() {
    nonblocking_writer::flush_standard_streams(LAST_LINES);
}
