//! What the three programs have in common: options, log, outcome, exit status.

use clap::{Parser, ValueEnum};
use lastecho::ShutdownOutcome;
use lastecho::escape::EscapedLog;
use lastecho::nonblocking_writer::{self, flush_standard_streams};
use simplelog::{ConfigBuilder, LevelFilter, WriteLogger};
use std::error::Error;
use std::fmt::Display;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{ExitCode, exit};
use std::time::Duration;

/// How long the last lines may take to their reader.
const LAST_LINES: Duration = Duration::from_secs(1);
/// A part was stuck or failed, or a job is missing.
const NOT_CLEAN: u8 = 3;

/// `None` is no limit.
type Limit = Option<Duration>;

/// An HTTP server, a gRPC server, polling workers, a channel worker and a
/// closer that stop in order.
///
/// Exit status: 0 clean, 1 could not start, 2 usage, 3 stopped but a part was
/// stuck or failed.
#[derive(Clone, Debug, Parser)]
pub struct Options {
    /// Where the HTTP server listens; port 0 lets the system choose
    #[arg(long, value_name = "IP:PORT", default_value = "127.0.0.1:8081")]
    pub http: SocketAddr,

    /// Where the gRPC server listens
    #[arg(long, value_name = "IP:PORT", default_value = "127.0.0.1:50051")]
    pub grpc: SocketAddr,

    /// The file to which the channel's worker appends a line for each greeting
    #[arg(long, value_name = "PATH", default_value = "greetings.txt")]
    pub journal: PathBuf,

    /// How often workers look at the event
    #[arg(long, value_name = "DURATION", default_value = "100ms", value_parser = humantime::parse_duration)]
    pub poll: Duration,

    /// How long all parts together may take to stop
    #[arg(long, value_name = "DURATION|none", default_value = "8s", value_parser = limit)]
    pub timeout: Limit,

    /// Test only: do it wrong, to show that the tests notice
    #[arg(long, hide = true)]
    pub control: Option<Control>,
}

/// How to do it wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Control {
    /// Leave at the event instead of stopping the parts.
    Exit,
    /// Close the journal first, not last.
    CloserFirst,
    /// One polling worker never looks at the event.
    DeafWorker,
}

fn limit(text: &str) -> Result<Limit, humantime::DurationError> {
    match text {
        "none" => Ok(None),
        _ => humantime::parse_duration(text).map(Some),
    }
}

/// How a program's run ended.
#[derive(Debug)]
pub struct Summary {
    /// Phase by phase.
    pub outcome: ShutdownOutcome,
    /// Jobs that the servers promised to their clients.
    pub submitted: u64,
    /// Jobs that are in the journal for sure.
    pub journaled: u64,
}

impl Summary {
    /// Whether every part stopped and every job is in the journal.
    #[must_use]
    pub fn is_clean(&self) -> bool {
        self.outcome.is_clean() && self.submitted == self.journaled
    }

    fn tell(&self) {
        for (name, end, took) in &self.outcome.phases {
            say(format_args!(
                "phase name={name} ms={} end={end}",
                took.as_millis()
            ));
        }
        let (submitted, journaled) = (self.submitted, self.journaled);
        let clean = self.is_clean();
        say(format_args!(
            "stopped clean={clean} submitted={submitted} journaled={journaled}"
        ));
    }
}

/// The main function of each program.
pub fn main(run: impl FnOnce(&Options) -> Result<Summary, Box<dyn Error>>) -> ExitCode {
    let options = Options::try_parse().unwrap_or_else(|error| usage(&error));
    let status = match start_log().and_then(|()| run(&options)) {
        Ok(summary) => {
            summary.tell();
            if summary.is_clean() {
                ExitCode::SUCCESS
            } else {
                ExitCode::from(NOT_CLEAN)
            }
        }
        Err(error) => {
            log::error!("{error}");
            ExitCode::FAILURE
        }
    };
    flush_standard_streams(LAST_LINES);
    status
}

/// The log goes to standard error, and never waits for its reader.
fn start_log() -> Result<(), Box<dyn Error>> {
    let config = ConfigBuilder::new()
        .set_time_format_rfc3339()
        .add_filter_allow_str("lastecho")
        .add_filter_allow_str("quit_events")
        .build();
    let logger = WriteLogger::new(LevelFilter::Info, config, nonblocking_writer::stderr()?);
    Ok(EscapedLog::start(LevelFilter::Info, *logger)?)
}

/// A line for machines. One that nobody reads is dropped.
pub fn say(line: impl Display) {
    if let Ok(stdout) = nonblocking_writer::stdout() {
        stdout.line(&line.to_string());
    }
}

/// Help goes to standard output, a mistake to standard error in one line.
fn usage(error: &clap::Error) -> ! {
    if error.use_stderr() {
        let text = error.to_string();
        let line = text.lines().next().unwrap_or_default();
        if let Ok(stderr) = nonblocking_writer::stderr() {
            stderr.line(&format!("quit-events: {line} (see --help)"));
        }
        flush_standard_streams(LAST_LINES);
        exit(2);
    }
    let _ = error.print();
    exit(0);
}
