//! The command line.

use crate::ledger::LAST_LINES;
use clap::{Parser, ValueEnum};
use lastecho::nonblocking_writer;
use std::time::Duration;

/// Receives access logs over TCP and tells what each line says.
///
/// Every line is put into a queue ("process" on standard output) and parsed by
/// a consumer ("consumer"). INT, TERM, QUIT and HUP ask for a graceful stop, a
/// further one cuts it short. Exit status: 0 clean, 1 could not start, 2
/// usage, 3 stopped but something was cut or not written.
#[derive(Debug, Parser)]
#[command(version)]
pub(crate) struct Options {
    /// Where to listen; port 0 lets the system choose
    #[arg(value_name = "IP:PORT", default_value = "127.0.0.1:5140")]
    pub(crate) address: std::net::SocketAddr,

    /// Lines that may wait; when it is full, senders wait
    #[arg(long, value_name = "N", default_value_t = 20, value_parser = count)]
    pub(crate) queue: usize,

    /// Lines parsed at the same time
    #[arg(long, value_name = "N", default_value_t = 4, value_parser = count)]
    pub(crate) consumers: usize,

    /// Think before each line: a slow consumer, to watch a drain
    #[arg(long, value_name = "DURATION", default_value = "0s", value_parser = humantime::parse_duration)]
    pub(crate) work: Duration,

    /// Longest that an idle connection waits before it looks at the stop flag
    #[arg(long, value_name = "DURATION", default_value = "1s", value_parser = duration)]
    pub(crate) poll: Duration,

    /// How long a stop may take before what is left is cut
    #[arg(long, value_name = "DURATION", default_value = "8s", value_parser = duration)]
    pub(crate) drain_timeout: Duration,

    /// For the tests: the parser panics on lines that contain this.
    #[arg(long, hide = true)]
    pub(crate) panic_on: Option<String>,

    /// For the tests: switch a promise off.
    #[arg(long, hide = true)]
    pub(crate) control: Option<Control>,
}

/// What the tests take away, to see that they notice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Control {
    /// A stop that runs no phase.
    Abandon,
}

/// Says in one line what is wrong; help and version are not.
pub(crate) fn refuse(error: &clap::Error) -> ! {
    if !error.use_stderr() {
        let _ = error.print();
        std::process::exit(0);
    }
    let text = error.to_string();
    let first = text.lines().next().unwrap_or_default();
    let what = first.strip_prefix("error: ").unwrap_or(first);
    complain(&format!("{what} (see --help)"));
    nonblocking_writer::flush_standard_streams(LAST_LINES);
    std::process::exit(2);
}

/// Says on standard error what went wrong, in one line.
pub(crate) fn complain(what: &str) {
    if let Ok(stderr) = nonblocking_writer::stderr() {
        stderr.line(&format!("log-pipeline: {what}"));
    }
}

fn duration(text: &str) -> Result<Duration, String> {
    match humantime::parse_duration(text) {
        Ok(Duration::ZERO) => Err("must be more than zero".into()),
        Ok(duration) => Ok(duration),
        Err(error) => Err(format!("{error}, write for example 250ms, 1s or 2m")),
    }
}

fn count(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(number @ 1..=1000) => Ok(number),
        _ => Err("must be a whole number from 1 to 1000".into()),
    }
}
