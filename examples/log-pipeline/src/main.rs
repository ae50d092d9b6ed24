//! `log-pipeline`: access logs over TCP, through a bounded queue, to consumers
//! that parse them; a stop ends the three in that order and loses no line.

mod access;
mod ledger;
mod options;
mod pipeline;

use anyhow::{Context, Result};
use clap::Parser;
use lastecho::{Deadline, Shutdown, Stop, signals};
use ledger::say;
use options::{Control, Options};
use pipeline::Pipeline;
use simplelog::{ConfigBuilder, LevelFilter, WriteLogger};
use std::io::{self, Write};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Instant;

/// Something was cut.
const NOT_CLEAN: u8 = 3;

fn main() -> ExitCode {
    let options = Options::try_parse().unwrap_or_else(|error| options::refuse(&error));
    match run(options) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(NOT_CLEAN),
        Err(error) => {
            let _ = writeln!(io::stderr(), "log-pipeline: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Starts everything, waits for the stop, sees it through; whether it was clean.
fn run(options: Options) -> Result<bool> {
    let config = ConfigBuilder::new().set_time_format_rfc3339().build();
    WriteLogger::init(LevelFilter::Info, config, io::stderr())?;
    let stop = Stop::new();
    let _signals = signals::install(&stop).context("cannot catch signals")?;
    let (timeout, control) = (options.drain_timeout, options.control);
    let pipeline = Arc::new(Pipeline::new(options)?);
    let shutdown = Shutdown::on(&stop);
    let consumers = pipeline.start_consumers(&stop)?;
    let upstream = pipeline.start_upstream(&stop)?;
    let abandon = control == Some(Control::Abandon);
    if !abandon {
        pipeline.stop_in_order(&shutdown, upstream, consumers);
    }

    let _ = stop.wait(Deadline::NEVER);
    let stopped = Instant::now();
    log::info!(
        "stopping: {} lines on their way",
        pipeline.ledger.on_the_way()
    );
    let outcome = shutdown.run(timeout);
    if !abandon {
        pipeline.ledger.seal();
    }
    let counts = pipeline.ledger.counts();
    log::info!("stopped: {outcome}");
    log::info!("{counts}");
    let clean = outcome.is_clean() && counts.cut == 0;
    say(format_args!(
        "stopped clean={clean} received={} processed={} failed={} cut={} elapsed_ms={}",
        counts.received,
        counts.processed,
        counts.failed,
        counts.cut,
        stopped.elapsed().as_millis()
    ));
    Ok(clean)
}
