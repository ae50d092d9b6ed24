//! An HTTP server with a quick and a slow route that stops without losing a
//! request.

mod app;
mod http;

use app::App;
use clap::{Parser, ValueEnum};
use lastecho::escape::EscapedLog;
use lastecho::nonblocking_writer::{self, flush_standard_streams};
use lastecho::signals::{self, Request, Signals};
use lastecho::{Deadline, Event, Report, Server, Stop};
use simplelog::{ConfigBuilder, LevelFilter, WriteLogger};
use std::error::Error;
use std::fmt::Display;
use std::io;
use std::net::SocketAddr;
use std::process::{ExitCode, exit};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

/// A client that keeps its connection is waited for so long.
const IDLE: Duration = Duration::from_secs(60);
/// How long the last lines may take to their reader.
const LAST_LINES: Duration = Duration::from_secs(1);
/// Something was cut or refused.
const NOT_CLEAN: u8 = 3;

/// `None` is no limit.
type Limit = Option<Duration>;

/// An HTTP server with two routes, / (at once) and /slow.
///
/// INT, TERM, QUIT and HUP ask for a graceful stop, a further one cuts what is
/// left. Exit status: 0 clean, 1 could not start, 2 usage, 3 stopped but
/// something was cut or refused.
#[derive(Parser)]
struct Options {
    /// Where to listen; port 0 lets the system choose
    #[arg(value_name = "IP:PORT", default_value = "127.0.0.1:8080")]
    address: SocketAddr,

    /// How long /slow takes
    #[arg(long, value_name = "DURATION", default_value = "9s", value_parser = humantime::parse_duration)]
    slow: Duration,

    /// How long a stop may take before what is left is cut
    #[arg(long, value_name = "DURATION|none", default_value = "8s", value_parser = limit)]
    drain_timeout: Limit,

    /// Log every request
    #[arg(short, long)]
    verbose: bool,

    /// Test only: do it wrong, to show that the tests notice
    #[arg(long, hide = true)]
    control: Option<Control>,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Control {
    /// Leave at the stop instead of waiting for what is in hand.
    Exit,
    /// Count requests with a load and a store.
    Careless,
}

fn limit(text: &str) -> Result<Limit, humantime::DurationError> {
    match text {
        "none" => Ok(None),
        _ => humantime::parse_duration(text).map(Some),
    }
}

fn main() -> ExitCode {
    let options = Options::try_parse().unwrap_or_else(|error| usage(&error));
    let served = start_log(&options).and_then(|()| Ok(serve(&options)?));
    let status = match served {
        Ok(report) if report.is_clean() => ExitCode::SUCCESS,
        Ok(_) => ExitCode::from(NOT_CLEAN),
        Err(error) => {
            log::error!("{}: {error}", options.address);
            ExitCode::FAILURE
        }
    };
    flush_standard_streams(LAST_LINES);
    status
}

/// The log goes to standard error, and never waits for its reader.
fn start_log(options: &Options) -> Result<(), Box<dyn Error>> {
    let level = if options.verbose {
        LevelFilter::Debug
    } else {
        LevelFilter::Info
    };
    let config = ConfigBuilder::new().set_time_format_rfc3339().build();
    let logger = WriteLogger::new(level, config, nonblocking_writer::stderr()?);
    Ok(EscapedLog::start(level, *logger)?)
}

fn serve(options: &Options) -> io::Result<Report> {
    let stop = Stop::new();
    let _signals = catch_signals(&stop)?;
    let app = App {
        slow: options.slow,
        requests: AtomicU64::new(0),
        answered: AtomicU64::new(0),
        careless: options.control == Some(Control::Careless),
    };
    if options.control == Some(Control::Exit) {
        leave_at(&stop);
    }
    let report = Server::bind(options.address)?
        .drain_timeout(options.drain_timeout)
        .idle_timeout(IDLE)
        .observe(tell)
        .run(&stop, |conn| app.serve(conn))?;
    let (requests, answered) = (app.requests.load(Relaxed), app.answered.load(Relaxed));
    say(format_args!(
        "stopped requests={requests} answered={answered} {report}"
    ));
    Ok(report)
}

fn catch_signals(stop: &Stop) -> io::Result<Signals> {
    signals::install_with(stop, &[], |signal, request| {
        log::info!("{}: {request:?}", signals::name(signal));
        if request == Request::Again {
            flush_standard_streams(LAST_LINES);
            exit(NOT_CLEAN.into());
        }
    })
}

/// What people want to know while a stop lasts.
fn tell(event: &Event<'_>) {
    match event {
        Event::Ready { addresses } => {
            for address in *addresses {
                say(format_args!("listening on {address}"));
            }
        }
        Event::Stopping { left, deadline } => {
            log::info!("stopping: {left} connections, to be cut {deadline}");
        }
        Event::Draining {
            left,
            oldest: Some(oldest),
            ..
        } => log::info!("draining: {left} connections, {oldest}"),
        Event::Cutting { left } => log::warn!("cutting {left} connections"),
        _ => {}
    }
}

/// A line for machines. One that nobody reads is dropped.
fn say(line: impl Display) {
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
            stderr.line(&format!("http-drain: {line} (see --help)"));
        }
        flush_standard_streams(LAST_LINES);
        exit(2);
    }
    let _ = error.print();
    exit(0);
}

fn leave_at(stop: &Stop) {
    let stop = stop.clone();
    std::thread::spawn(move || {
        let _ = stop.wait(Deadline::NEVER);
        exit(0);
    });
}
