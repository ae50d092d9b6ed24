//! `lastecho`: a TCP echo server that never drops the last echo.

mod cli;
mod logging;
mod outlet;

use anyhow::{Context, Result, anyhow};
use cli::{Address, Options, words};
use humantime::format_duration;
use lastecho::signals::{self, Request};
use lastecho::{Echo, Event, Live, Report, Server, Stop, limits};
use outlet::Outlet;
use signal_hook::consts::SIGUSR1;
use std::fs::File;
use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::os::fd::AsFd;
use std::process::ExitCode;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

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

/// Runs the server: handlers first, then bind, then announce.
fn serve(options: &Options) -> Result<Report> {
    let log = logging::start(options.level(), options.log_file.as_deref())?;
    let stdout = File::from(io::stdout().as_fd().try_clone_to_owned()?);
    let stdout = Outlet::new(stdout).context("cannot start the output's thread")?;
    let raised = limits::raise_descriptors();
    let stop = Stop::new();
    let live = Arc::new(OnceLock::new());
    let _signals = catch_signals(&stop, Arc::clone(&live), log.clone())?;
    let server = configure(bind(&options.addresses)?, options);
    let _ = live.set(server.live());
    introduce(options);
    if let Err(error) = raised {
        log::warn!("cannot raise the limit of open descriptors: {error}");
    }
    warn_if_open(live.get().map_or(&[], Live::addresses), options);
    let ready = stdout.clone();
    let server = server.observe(move |event| {
        if let Event::Ready { addresses } = event {
            announce(&ready, addresses);
        }
        logging::tell(event);
    });
    let echo = Echo {
        buffer: options.buffer,
        delay: options.delay,
    };
    let report = server
        .run(&stop, |conn| echo.serve(conn))
        .context("cannot start serving")?;
    log::debug!("{report}");
    stdout.line(&summary(&report));
    stdout.flush_within(LAST_WORDS);
    log.flush_within(LAST_WORDS);
    Ok(report)
}

fn announce(stdout: &Outlet, addresses: &[SocketAddr]) {
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

/// INT, TERM, QUIT and HUP stop, cut, and exit; USR1 lists.
fn catch_signals(stop: &Stop, live: Arc<OnceLock<Live>>, log: Outlet) -> Result<signals::Signals> {
    signals::install_with(stop, &[SIGUSR1], move |signal, request| {
        let name = signals::name(signal);
        match request {
            Request::Stop => log::info!("{name}: stopping"),
            Request::Cut => log::warn!("{name} again: cutting"),
            Request::Again => {
                log::error!("{name} once more: leaving at once");
                log.flush_within(LAST_WORDS);
                std::process::exit(NOT_CLEAN.into());
            }
            _ => logging::list(&live.get().map(Live::snapshot).unwrap_or_default()),
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

/// Listens on all addresses; the first that cannot be had is named.
fn bind(addresses: &[Address]) -> Result<Server> {
    let mut bound: Vec<SocketAddr> = Vec::new();
    let mut all: Option<Server> = None;
    for address in addresses {
        let name = || format!("cannot listen on {address}");
        let servers = match address {
            Address::All(port) => vec![Server::bind_all(*port).with_context(name)?],
            _ => {
                let mut resolved = address.resolve().with_context(name)?;
                // The same address twice, given so or resolved so, is once.
                resolved.retain(|new| new.port() == 0 || !bound.contains(new));
                bound.extend(&resolved);
                bind_each(&resolved).with_context(name)?
            }
        };
        all = servers.into_iter().fold(all, |all, server| match all {
            None => Some(server),
            Some(all) => Some(all.and(server)),
        });
    }
    all.ok_or_else(|| anyhow!("no address to listen on"))
}

/// A host may resolve to addresses that this machine lacks (IPv6 switched off,
/// say): those are passed over, as long as one of several is there.
fn bind_each(addresses: &[SocketAddr]) -> io::Result<Vec<Server>> {
    let mut servers = Vec::new();
    let mut missing = Vec::new();
    for address in addresses {
        match Server::bind(address) {
            Ok(server) => servers.push(server),
            Err(error) if is_missing(&error) => missing.push((address, error)),
            Err(error) => return Err(error),
        }
    }
    match missing.pop() {
        Some((_, error)) if servers.is_empty() => return Err(error),
        last => missing.extend(last),
    }
    for (address, error) in missing {
        log::warn!("not listening on {address}: {error}");
    }
    Ok(servers)
}

fn is_missing(error: &io::Error) -> bool {
    error.kind() == ErrorKind::AddrNotAvailable || error.kind() == ErrorKind::Unsupported
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
