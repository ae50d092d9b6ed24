//! The command line. The test suite's control program reads it too.

// By path, because whoever reads this file by path would look elsewhere.
#[path = "address.rs"]
mod address;
#[path = "words.rs"]
pub(crate) mod words;

pub(crate) use address::Address;
use address::Argument;

use clap::Parser;
use log::LevelFilter;
use std::num::{NonZeroU64, NonZeroUsize};
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;
use words::{count, duration, duration_or_zero, size};

/// A TCP echo server that never drops the last echo.
///
/// INT, TERM, QUIT and HUP ask for a graceful stop, a further one cuts what is
/// left. USR1 logs the live connections. USR2 restarts: a successor takes over
/// the listening sockets, and this process drains. Exit status: 0 clean, 1 could not
/// start, 2 usage, 3 stopped but something was cut or refused.
#[derive(Debug, Parser)]
#[command(version, max_term_width = 100)]
pub(crate) struct Options {
    /// Where to listen: IP:PORT, [IPv6]:PORT, HOST:PORT, :PORT (all
    /// addresses), PORT (loopback), IP or HOST (port 48879), or HOST PORT; port 0
    /// lets the system choose [default: the sockets that were passed, or 127.0.0.1:48879]
    #[arg(value_name = "ADDR")]
    arguments: Vec<Argument>,

    /// Longest that a blocked accept, read or write waits before it looks at the stop flag
    #[arg(long, allow_hyphen_values = true, value_name = "DURATION", default_value = "1s", value_parser = duration)]
    pub(crate) poll: Duration,

    /// How long a stop may take before what is left is cut
    #[arg(
        long,
        allow_hyphen_values = true,
        value_name = "DURATION|none",
        default_value = "8s"
    )]
    pub(crate) drain_timeout: OrNone<Duration>,

    /// Close a connection that moved no byte for so long
    #[arg(
        long,
        allow_hyphen_values = true,
        value_name = "DURATION|none",
        default_value = "none"
    )]
    pub(crate) idle_timeout: OrNone<Duration>,

    /// Further clients wait in the accept queue [default: what descriptors, threads and memory maps allow]
    #[arg(long, allow_hyphen_values = true, value_name = "N", value_parser = count::<NonZeroUsize>)]
    pub(crate) max_connections: Option<NonZeroUsize>,

    /// Further connections of one peer address are closed politely
    #[arg(
        long,
        allow_hyphen_values = true,
        value_name = "N|none",
        default_value = "none"
    )]
    pub(crate) max_per_peer: OrNone<NonZeroUsize>,

    /// Think before each echo: a slow request, to watch a drain
    #[arg(long, allow_hyphen_values = true, value_name = "DURATION", default_value = "0s", value_parser = duration_or_zero)]
    pub(crate) delay: Duration,

    /// How long a successor may take to get ready when USR2 asks for a restart
    #[arg(long, allow_hyphen_values = true, value_name = "DURATION", default_value = "10s", value_parser = duration)]
    pub(crate) handover_timeout: Duration,

    /// Stop gracefully once N connections have ended
    #[arg(long, allow_hyphen_values = true, value_name = "N", value_parser = count::<NonZeroU64>)]
    pub(crate) exit_after: Option<NonZeroU64>,

    /// Largest single read
    #[arg(long, allow_hyphen_values = true, value_name = "SIZE", default_value = "60KiB", value_parser = size)]
    pub(crate) buffer: usize,

    /// Draw what happened, a row a connection, into this SVG file at exit
    #[arg(long, allow_hyphen_values = true, value_name = "FILE.svg")]
    pub(crate) timeline: Option<PathBuf>,

    /// Log only warnings and errors
    #[arg(short, long, conflicts_with_all = ["verbose", "log_level"])]
    quiet: bool,

    /// Log each connection's beginning and end; twice: a hex dump of what passes
    #[arg(short, long, action = clap::ArgAction::Count, conflicts_with = "log_level")]
    verbose: u8,

    /// off, error, warn, info, debug or trace [default: info]
    #[arg(long, allow_hyphen_values = true, value_name = "LEVEL", value_parser = level)]
    log_level: Option<LevelFilter>,

    /// Append the log to this file instead of standard error
    #[arg(long, allow_hyphen_values = true, value_name = "PATH")]
    pub(crate) log_file: Option<PathBuf>,
}

impl Options {
    /// The command line's options; see [`words::parse_or_exit`].
    pub(crate) fn parse_or_exit(complain: fn(&str)) -> Self {
        words::parse_or_exit(complain)
    }

    pub(crate) fn addresses(&self) -> Vec<Address> {
        address::joined(&self.arguments)
    }

    pub(crate) fn level(&self) -> LevelFilter {
        let by_count = match (self.quiet, self.verbose) {
            (true, _) => LevelFilter::Warn,
            (_, 0) => LevelFilter::Info,
            (_, 1) => LevelFilter::Debug,
            _ => LevelFilter::Trace,
        };
        self.log_level.unwrap_or(by_count)
    }
}

fn level(text: &str) -> Result<LevelFilter, &'static str> {
    text.parse()
        .map_err(|_| "must be off, error, warn, info, debug or trace")
}

/// A value, or the word `none`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct OrNone<T>(pub(crate) Option<T>);

impl FromStr for OrNone<Duration> {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text == "none" {
            Ok(Self(None))
        } else {
            duration(text).map(Some).map(Self)
        }
    }
}

impl FromStr for OrNone<NonZeroUsize> {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text == "none" {
            return Ok(Self(None));
        }
        Ok(Self(Some(count(text)?)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_buffer_is_the_librarys() {
        let options = Options::parse_from(["lastecho"]);
        assert_eq!(options.buffer, lastecho::Echo::default().buffer);
        assert_eq!(Address::default().to_string(), "127.0.0.1:48879");
    }
}
