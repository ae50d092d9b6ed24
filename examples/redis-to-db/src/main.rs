//! `redis-to-db`: workers that move messages from a Redis list into a
//! database, at least once, whatever stops, fails or is killed meanwhile.

use anyhow::{Context, Result};
use clap::Parser;
use lastecho::{Deadline, Shutdown, Stop, signals};
use redis_to_db::hook::run_before_exit;
use redis_to_db::mover::Mover;
use redis_to_db::options::{Options, refuse};
use redis_to_db::output::{complain, flush, say, start_log};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Instant;

/// Something was left behind, or an error stopped us.
const NOT_CLEAN: u8 = 3;

fn main() -> ExitCode {
    let options = Options::try_parse().unwrap_or_else(|error| refuse("redis-to-db", &error));
    let status = match start_log().and_then(|()| run(options)) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(NOT_CLEAN),
        Err(error) => {
            complain("redis-to-db", &format!("{error:#}"));
            ExitCode::FAILURE
        }
    };
    flush();
    status
}

/// Starts everything, waits for the stop, sees it through; whether it was clean.
fn run(options: Options) -> Result<bool> {
    let stop = Stop::new();
    let _signals = signals::install(&stop).context("cannot catch signals")?;
    let shutdown = Shutdown::on(&stop);
    let (timeout, workers) = (options.drain_timeout, options.workers);
    let hook = options.before_exit.clone();
    let mover = Arc::new(Mover::new(options, &stop)?);
    if let Some(keeper) = mover.begin_until_stop()? {
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
