//! `lastecho-ping`: like ping(8), over a TCP echo; it checks every byte.

mod cli;
mod histogram;
mod link;
mod pattern;
mod pinger;
mod tally;
mod voice;

use anyhow::{Context, Result, bail};
use cli::Options;
use humantime::format_duration;
use lastecho::{Stop, limits, nonblocking_writer, signals};
use pinger::{Pinger, Shared};
use std::process::ExitCode;
use std::thread::{self, Builder};
use std::time::Instant;
use tally::{Tally, bytes};
use voice::{Voice, complain};

/// What a connection's thread needs, with room to spare; see `link`'s buffer.
const STACK: usize = 256 * 1024;

fn main() -> ExitCode {
    let options = Options::parse_or_exit(complain);
    match ping(&options) {
        Ok(status) => ExitCode::from(status),
        Err(error) => {
            complain(&format!("{error:#}"));
            ExitCode::from(tally::WRONG)
        }
    }
}

/// Pings until the count, the stop, or no connection is left; the exit status.
fn ping(options: &Options) -> Result<u8> {
    let target = &options.target;
    let targets = options.resolve();
    let targets = targets.with_context(|| format!("cannot resolve {target}"))?;
    // Where it fails, the limit that there is holds.
    let _ = limits::raise_descriptors();
    let (wanted, most) = (options.connections.get(), limits::connections(STACK));
    if wanted > most {
        bail!("-n {wanted}: descriptors, threads and memory maps allow {most}");
    }
    let stop = Stop::new();
    let _signals = signals::install(&stop).context("cannot catch signals")?;
    let tally = Tally::default();
    let shared = Shared {
        options,
        targets: &targets,
        stop: &stop,
        tally: &tally,
        voice: Voice {
            quiet: options.is_quiet(),
            stop: &stop,
            stdout: nonblocking_writer::stdout().context("cannot use standard output")?,
            stderr: nonblocking_writer::stderr().context("cannot use standard error")?,
        },
    };
    introduce(&shared);
    let began = Instant::now();
    run(&shared).context("cannot start a connection's thread")?;
    let summary = tally.summary(target, began.elapsed());
    shared.voice.say(format_args!("{summary}"));
    nonblocking_writer::flush_standard_streams(cli::words::LAST_LINE);
    Ok(tally.status(options.asked()))
}

fn introduce(shared: &Shared<'_>) {
    let options = shared.options;
    let connections = options.connections;
    let plural = if connections.get() == 1 { "" } else { "s" };
    let pace = if options.interval().is_zero() {
        "one after the other".to_owned()
    } else {
        format!("every {}", format_duration(options.interval()))
    };
    shared.voice.say(format_args!(
        "ECHO {}: {} {pace} on {connections} connection{plural}",
        options.target,
        bytes(options.size)
    ));
}

/// A thread for each connection, and the end of all of them.
fn run(shared: &Shared<'_>) -> std::io::Result<()> {
    thread::scope(|scope| {
        for number in 1..=shared.options.connections.get() {
            let started = Builder::new()
                .name(format!("connection {number}"))
                .stack_size(STACK)
                .spawn_scoped(scope, move || Pinger::new(shared, number).run());
            if let Err(error) = started {
                shared.stop.cut();
                return Err(error);
            }
        }
        Ok(())
    })
}
