//! `log-pipeline`: access logs over TCP, through a bounded queue, to consumers
//! that parse them; a stop ends the three in that order and loses no line.

mod access;
mod framing;
mod ledger;
mod options;
mod output;
mod pipeline;

use anyhow::{Context, Result};
use clap::Parser;
use lastecho::escape::EscapedLog;
use lastecho::{Deadline, Shutdown, Stop, nonblocking_writer, signals};
use ledger::LAST_LINES;
use options::{Control, Options};
use output::Output;
use pipeline::Pipeline;
use simplelog::{ConfigBuilder, LevelFilter, WriteLogger};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Instant;

/// Something was cut, or a result could not be written.
const NOT_CLEAN: u8 = 3;

fn main() -> ExitCode {
    let options = Options::try_parse().unwrap_or_else(|error| options::refuse(&error));
    let status = match run(options) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(NOT_CLEAN),
        Err(error) => {
            options::complain(&format!("{error:#}"));
            ExitCode::FAILURE
        }
    };
    nonblocking_writer::flush_standard_streams(LAST_LINES);
    status
}

/// Starts everything, waits for the stop, sees it through; whether it was clean.
fn run(options: Options) -> Result<bool> {
    start_log()?;
    let output = Output::new().context("cannot use standard output")?;
    let stop = Stop::new();
    let _signals = signals::install(&stop).context("cannot catch signals")?;
    let (timeout, control) = (options.drain_timeout, options.control);
    let pipeline = Arc::new(Pipeline::new(options, output.clone())?);
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
    let clean = outcome.is_clean() && counts.cut == 0 && counts.lost == 0;
    let summary = format!(
        "stopped clean={clean} received={} processed={} failed={} cut={} lost={} elapsed_ms={}",
        counts.received,
        counts.processed,
        counts.failed,
        counts.cut,
        counts.lost,
        stopped.elapsed().as_millis()
    );
    output.write_within(LAST_LINES, vec![summary]);
    Ok(clean)
}

/// The log goes to standard error, and never waits for its reader.
fn start_log() -> Result<()> {
    let config = ConfigBuilder::new().set_time_format_rfc3339().build();
    let logger = WriteLogger::new(LevelFilter::Info, config, nonblocking_writer::stderr()?);
    EscapedLog::start(LevelFilter::Info, *logger)?;
    Ok(())
}
