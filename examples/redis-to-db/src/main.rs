//! `redis-to-db`: workers that move messages from a Redis list into a
//! database, at least once, whatever stops, fails or is killed meanwhile.

use anyhow::{Context, Result};
use clap::Parser;
use lastecho::escape::{EscapedLog, escaped};
use lastecho::{Deadline, Shutdown, Stop, nonblocking_writer, signals};
use redis_to_db::hook::run_before_exit;
use redis_to_db::mover::Mover;
use redis_to_db::options::{Options, refuse};
use redis_to_db::outcome::say;
use simplelog::{ConfigBuilder, LevelFilter, WriteLogger};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How long the last lines may take to their reader.
const LAST_LINES: Duration = Duration::from_secs(1);
/// Something was left behind, or an error stopped us.
const NOT_CLEAN: u8 = 3;

fn main() -> ExitCode {
    let options = Options::try_parse().unwrap_or_else(|error| refuse("redis-to-db", &error));
    let status = match start_log().and_then(|()| run(options)) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(NOT_CLEAN),
        Err(error) => {
            if let Ok(stderr) = nonblocking_writer::stderr() {
                stderr.line(&escaped(&format!("redis-to-db: {error:#}")));
            }
            ExitCode::FAILURE
        }
    };
    nonblocking_writer::flush_standard_streams(LAST_LINES);
    status
}

/// The log goes to standard error, and never waits for its reader.
fn start_log() -> Result<()> {
    let config = ConfigBuilder::new()
        .set_time_format_rfc3339()
        .add_filter_allow_str("lastecho")
        .add_filter_allow_str("redis_to_db")
        .build();
    let logger = WriteLogger::new(LevelFilter::Info, config, nonblocking_writer::stderr()?);
    EscapedLog::start(LevelFilter::Info, *logger)?;
    Ok(())
}

/// Starts everything, waits for the stop, sees it through; whether it was clean.
fn run(options: Options) -> Result<bool> {
    let stop = Stop::new();
    let _signals = signals::install(&stop).context("cannot catch signals")?;
    let shutdown = Shutdown::on(&stop);
    let (timeout, workers) = (options.drain_timeout, options.workers);
    let hook = options.before_exit.clone();
    let mover = Arc::new(Mover::new(options, &stop)?);
    if let Some(keeper) = mover.begin()? {
        mover.start(keeper, &shutdown)?;
        say(format_args!("moving workers={workers}"));
    }
    if let Some(command) = hook {
        run_before_exit(command, &shutdown);
    }

    let _ = stop.wait(Deadline::NEVER);
    let stopped = Instant::now();
    log::info!("stopping: {} messages in hand", mover.counts.in_hand());
    let outcome = shutdown.run(timeout);
    Ok(mover.tell(&outcome, stopped.elapsed()))
}
