//! `lastecho`: a TCP echo server that never drops the last echo.

mod cli;
mod listen;
mod logging;
mod manager;
mod orphans;
mod restart;
mod timeline;

use anyhow::{Context, Result};
use cli::{Options, words};
use humantime::format_duration;
use lastecho::handover::{self, Program};
use lastecho::signals::{self, Request};
use lastecho::{
    Echo, Event, Live, NonBlockingWriter, Report, Server, Stop, limits, nonblocking_writer,
};
use manager::{Manager, SERVING};
use restart::Restart;
use signal_hook::consts::{SIGUSR1, SIGUSR2};
use std::io;
use std::net::SocketAddr;
use std::process::ExitCode;
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;
use timeline::Timeline;

/// Something was cut or refused.
const NOT_CLEAN: u8 = 3;
/// What the echo needs, with room to spare.
const STACK: usize = 128 * 1024;
/// How long the last lines may take to reach whoever reads them.
const LAST_WORDS: Duration = Duration::from_secs(1);

fn main() -> ExitCode {
    let options = Options::parse_or_exit(complain);
    match serve(&options) {
        Ok(report) if report.is_clean() => ExitCode::SUCCESS,
        Ok(_) => ExitCode::from(NOT_CLEAN),
        Err(error) => {
            complain(&format!("{error:#}"));
            ExitCode::FAILURE
        }
    }
}

/// One line for people, before there is a log and after it.
fn complain(message: &str) {
    words::complain("lastecho", message);
}

/// What signals and events act on.
struct Running {
    live: Live,
    restart: Arc<Restart>,
}

impl Running {
    fn new(
        server: &Server,
        program: io::Result<Program>,
        stop: &Stop,
        options: &Options,
    ) -> Result<Self> {
        let restart = Restart {
            handover: server.handover().context("cannot keep the listeners")?,
            program,
            timeout: options.handover_timeout,
            stop: stop.clone(),
            manager: Manager::from_environment(),
            telling: Mutex::default(),
        };
        Ok(Self {
            live: server.live(),
            restart: Arc::new(restart),
        })
    }
}

/// Runs the server: what was passed first, then handlers, bind, announce.
fn serve(options: &Options) -> Result<Report> {
    let mut inherited = handover::inherited().context("what was passed cannot be used")?;
    let succeeds = inherited.has_predecessor();
    let program = Program::this(); // who needs it may complain
    let timeline = Timeline::open(options.timeline.as_deref())?;
    let log = logging::start(options.level(), options.log_file.as_deref(), &timeline)?;
    timeline.must_not_be(io::stdout(), "standard output")?;
    let stdout = nonblocking_writer::stdout().context("cannot start the output's thread")?;
    let raised = limits::raise_descriptors();
    let stop = Stop::new();
    let running = Arc::new(OnceLock::new());
    let _signals = catch_signals(&stop, Arc::clone(&running), log.clone(), timeline.clone())?;
    orphans::reap();
    let server = listen::listen(&options.addresses(), &mut inherited)?.take_over(inherited);
    let server = configure(server, options);
    introduce(options);
    if let Err(error) = raised {
        log::warn!("cannot raise the limit of open descriptors: {error}");
    }
    let present = Running::new(&server, program, &stop, options)?;
    let running = running.get_or_init(|| present);
    warn_if_open(running.live.addresses(), options);
    let observer = observer(stdout.clone(), running, succeeds, server.poll_interval());
    let server = server.observe(timeline.before(observer));
    let echo = Echo {
        buffer: options.buffer,
        delay: options.delay,
    };
    let report = server
        .run(&stop, |conn| echo.serve(conn))
        .context("cannot start serving")?;
    log::debug!("{report}");
    timeline.draw(&report);
    stdout.line(&summary(&report));
    stdout.flush_within(LAST_WORDS);
    log.flush_within(LAST_WORDS);
    running.restart.manager.flush();
    Ok(report)
}

/// Puts events into words, for people, machines and the service manager.
fn observer(
    stdout: NonBlockingWriter,
    running: &Running,
    succeeds: bool,
    poll: Duration,
) -> impl Fn(&Event<'_>) + use<> {
    let (live, restart) = (running.live.clone(), Arc::clone(&running.restart));
    move |event| {
        match event {
            Event::Ready { addresses } => {
                announce(&stdout, addresses);
                // A predecessor tells it in one word with our process number.
                if !succeeds {
                    restart.manager.tell(&format!("READY=1\nSTATUS={SERVING}"));
                }
                restart.manager.watch(live.clone(), poll);
            }
            // The service goes on where a successor has it.
            _ if restart.handover.is_done() => {}
            Event::Stopping { left, .. } => {
                let draining = logging::count(*left);
                let draining = format!("STOPPING=1\nSTATUS=draining: {draining} left");
                restart.manager.tell(&draining);
            }
            Event::Draining { left, .. } => {
                let draining = logging::count(*left);
                let draining = format!("STATUS=draining: {draining} left");
                restart.manager.tell(&draining);
            }
            _ => {}
        }
        logging::tell(event);
    }
}

fn announce(stdout: &NonBlockingWriter, addresses: &[SocketAddr]) {
    for address in addresses {
        stdout.line(&format!("listening on {address}"));
    }
}

/// Says in the log what was started, and how.
fn introduce(options: &Options) {
    let or_none = |limit: Option<Duration>| {
        limit.map_or_else(|| "none".to_owned(), |d| format_duration(d).to_string())
    };
    log::info!(
        "lastecho {}, process {}: poll {}, drain timeout {}, idle timeout {}",
        env!("CARGO_PKG_VERSION"),
        std::process::id(),
        format_duration(options.poll),
        or_none(options.drain_timeout.0),
        or_none(options.idle_timeout.0),
    );
}

/// INT, TERM, QUIT and HUP stop, cut, and exit; USR1 lists, USR2 restarts.
///
/// They set a stop of their own. The server's is set when the signal is in the
/// log, where it stands before what it makes others log.
fn catch_signals(
    stop: &Stop,
    running: Arc<OnceLock<Running>>,
    log: NonBlockingWriter,
    timeline: Timeline,
) -> Result<signals::Signals> {
    let stop = stop.clone();
    signals::install_with(&Stop::new(), &[SIGUSR1, SIGUSR2], move |signal, request| {
        let name = signals::name(signal);
        match request {
            Request::Stop => {
                timeline.signal(name);
                log::info!("{name}: stopping");
                stop.set();
            }
            Request::Cut => {
                log::warn!("{name} again: cutting");
                stop.cut();
            }
            Request::Again => {
                log::error!("{name} once more: leaving at once");
                log.flush_within(LAST_WORDS);
                std::process::exit(NOT_CLEAN.into());
            }
            _ => match running.get() {
                None => log::warn!("{name}: not serving yet"),
                Some(running) if signal == SIGUSR2 => Restart::begin(&running.restart),
                Some(running) => logging::list(&running.live.snapshot()),
            },
        }
    })
    .context("cannot catch signals")
}

fn configure(server: Server, options: &Options) -> Server {
    let server = server
        .poll(options.poll)
        .drain_timeout(options.drain_timeout.0)
        .idle_timeout(options.idle_timeout.0)
        .max_per_peer(options.max_per_peer.0.map(usize::from))
        .stack_size(STACK);
    let server = match options.max_connections.map(usize::from) {
        None => server,
        Some(wanted) => {
            let most = limits::connections(STACK);
            if wanted > most {
                log::warn!(
                    "--max-connections {wanted}: descriptors, threads and memory maps allow {most}"
                );
            }
            server.max_connections(wanted)
        }
    };
    match options.exit_after {
        None => server,
        Some(connections) => server.stop_after(connections.get()),
    }
}

fn warn_if_open(addresses: &[SocketAddr], options: &Options) {
    let open = addresses
        .iter()
        .find(|address| !address.ip().to_canonical().is_loopback());
    if let (Some(address), None) = (open, options.idle_timeout.0) {
        log::warn!(
            "{address} is open to others and there is no --idle-timeout: silent clients stay for ever"
        );
    }
}

/// The last line on standard output, for machines.
fn summary(report: &Report) -> String {
    format!(
        "stopped clean={} accepted={} drained={} cut={} refused={} panicked={} bytes_in={} \
         bytes_out={} bytes_lost={} elapsed_ms={} limited={} failed={} reset={} idle={} \
         expired={} discarded={}",
        report.is_clean(),
        report.accepted,
        report.drained,
        report.cut,
        report.refused,
        report.panicked,
        report.received,
        report.sent,
        report.received.saturating_sub(report.sent),
        report.elapsed.as_millis(),
        report.limited,
        report.failed,
        report.reset,
        report.idle,
        report.expired,
        report.discarded,
    )
}
