//! The command line. The test suite's control program reads it too.

use bytesize::ByteSize;
use clap::Parser;
use log::LevelFilter;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, ToSocketAddrs};
use std::num::{NonZeroU64, NonZeroUsize};
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

/// 0xBEEF, the port of the program that this one descends from.
const DEFAULT_PORT: u16 = 48879;
/// A larger buffer than this cannot make a read larger.
const LARGEST_BUFFER: u64 = 16 * 1024 * 1024;

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
    /// addresses), PORT (loopback), IP or HOST (port 48879); port 0 lets the
    /// system choose [default: the sockets that were passed, or 127.0.0.1:48879]
    #[arg(value_name = "ADDR")]
    pub(crate) addresses: Vec<Address>,

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

    /// Log only warnings and errors
    #[arg(short, long, conflicts_with_all = ["verbose", "log_level"])]
    quiet: bool,

    /// Log a line per connection; twice: a hex dump of what passes
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
    /// The command line's options; help, version and mistakes end the process
    /// as DESIGN says: help on standard output with status 0, a mistake in one
    /// line on standard error with status 2.
    pub(crate) fn parse_or_exit(complain: fn(&str)) -> Self {
        Self::try_parse().unwrap_or_else(|error| {
            if error.use_stderr() {
                let message = match error.kind() {
                    clap::error::ErrorKind::InvalidUtf8 => not_utf8(),
                    _ => one_line(&error),
                };
                complain(&message);
                std::process::exit(2);
            }
            let _ = error.print();
            std::process::exit(0);
        })
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

/// Clap does not say which argument it could not read.
fn not_utf8() -> String {
    let culprit = std::env::args_os().find(|argument| argument.to_str().is_none());
    format!(
        "{:?} is not UTF-8 (see --help)",
        culprit.unwrap_or_default()
    )
}

/// Clap's message without its usage and hints, in one line.
fn one_line(error: &clap::Error) -> String {
    let text = error.render().to_string();
    let lines = text.lines().map(str::trim);
    let lines =
        lines.take_while(|line| !line.starts_with("Usage:") && !line.starts_with("For more"));
    let words: Vec<_> = lines
        .filter(|line| !line.is_empty() && !line.starts_with("tip:"))
        .collect();
    let message = words.join(" ");
    format!(
        "{} (see --help)",
        message.strip_prefix("error: ").unwrap_or(&message)
    )
}

fn duration(text: &str) -> Result<Duration, String> {
    match duration_or_zero(text)? {
        Duration::ZERO => Err("must be more than zero".into()),
        duration => Ok(duration),
    }
}

fn duration_or_zero(text: &str) -> Result<Duration, String> {
    let sum = |sum: Duration, term| {
        let term = humantime::parse_duration(term).map_err(|error| error.to_string())?;
        sum.checked_add(term).ok_or_else(|| "too long".to_owned())
    };
    let duration = terms(text).into_iter().try_fold(Duration::ZERO, sum);
    duration.map_err(|error| format!("{error}, write for example 250ms, 1s or 2m"))
}

/// The terms of "1m 30s" or "1m30s". Given one by one, because humantime takes
/// "1 2s" for 12 s, and panics at the very longest sums.
fn terms(text: &str) -> Vec<&str> {
    let number = |c: char| c.is_ascii_digit() || c == '.';
    let (mut terms, mut begun, mut before) = (Vec::new(), 0, true);
    for (at, c) in text.trim_start().char_indices() {
        if number(c) && !before {
            terms.push(&text.trim_start()[begun..at]);
            begun = at;
        }
        before = number(c);
    }
    terms.push(&text.trim_start()[begun..]);
    terms
}

fn count<N: FromStr>(text: &str) -> Result<N, &'static str> {
    text.parse()
        .map_err(|_| "must be a whole number above zero")
}

fn size(text: &str) -> Result<usize, String> {
    match text.parse::<ByteSize>().map(|size| size.as_u64()) {
        Ok(0) => Err("must be more than zero".into()),
        Ok(bytes) if bytes <= LARGEST_BUFFER => Ok(usize::try_from(bytes).unwrap_or(usize::MAX)),
        Ok(_) => Err(format!("must be at most {}", ByteSize::b(LARGEST_BUFFER))),
        Err(error) => Err(format!("{error}, write for example 4096, 16KiB or 1MiB")),
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

/// Where to listen, as people write it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Address {
    /// One address.
    One(SocketAddr),
    /// Every address of a host.
    Host(String, u16),
    /// All addresses of this machine.
    All(u16),
}

impl Address {
    /// Where it listens if nobody says where.
    pub(crate) const DEFAULT: Self = Self::One(SocketAddr::new(
        IpAddr::V4(Ipv4Addr::LOCALHOST),
        DEFAULT_PORT,
    ));

    /// The addresses to listen on; none for [`All`](Self::All).
    pub(crate) fn resolve(&self) -> std::io::Result<Vec<SocketAddr>> {
        match self {
            Self::One(address) => Ok(vec![*address]),
            Self::Host(host, port) => Ok((host.as_str(), *port).to_socket_addrs()?.collect()),
            Self::All(_) => Ok(Vec::new()),
        }
    }
}

impl FromStr for Address {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if let Ok(address) = text.parse() {
            return Ok(Self::One(address));
        }
        if let Ok(ip) = text.parse::<IpAddr>() {
            return Ok(Self::One((ip, DEFAULT_PORT).into()));
        }
        if text.ends_with(']') {
            return format!("{text}:{DEFAULT_PORT}").parse();
        }
        if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) {
            return Ok(Self::One((Ipv4Addr::LOCALHOST, port(text)?).into()));
        }
        match text.rsplit_once(':') {
            Some(("", number)) => port(number).map(Self::All),
            Some((name, number)) => Ok(Self::Host(host(name)?, port(number)?)),
            None => Ok(Self::Host(host(text)?, DEFAULT_PORT)),
        }
    }
}

fn port(text: &str) -> Result<u16, String> {
    // `parse` would take a sign.
    let digits = text.bytes().all(|byte| byte.is_ascii_digit());
    let number = digits.then(|| text.parse().ok()).flatten();
    number.ok_or_else(|| format!("'{text}' is not a port (0 to 65535)"))
}

/// A host name as the resolver may be asked for it (RFC 1123, and the
/// underscores that people use), or an IPv6 address with a zone.
fn host(text: &str) -> Result<String, String> {
    let zoned = text.strip_prefix('[').and_then(|t| t.strip_suffix(']'));
    let allowed = |c: char| c.is_alphanumeric() || "-._".contains(c);
    let fits = match zoned {
        Some(zoned) => zoned.split_once('%').is_some_and(|(ip, zone)| {
            ip.parse::<Ipv6Addr>().is_ok() && !zone.is_empty() && zone.chars().all(allowed)
        }),
        None => !text.is_empty() && text.len() <= 255 && text.chars().all(allowed),
    };
    // Four numbers that are no IPv4 address are a mistake, not a host.
    let numeric = text
        .bytes()
        .all(|byte| byte.is_ascii_digit() || byte == b'.');
    if fits && !numeric {
        Ok(zoned.unwrap_or(text).to_owned())
    } else {
        Err(format!("'{text}' is neither an IP address nor a host name"))
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::One(address) => address.fmt(f),
            // An IPv6 address with a zone.
            Self::Host(host, port) if host.contains(':') => write!(f, "[{host}]:{port}"),
            Self::Host(host, port) => write!(f, "{host}:{port}"),
            Self::All(port) => write!(f, ":{port}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(text: &str) -> String {
        text.parse::<Address>()
            .map_or_else(|error| format!("! {error}"), |address| address.to_string())
    }

    #[test]
    fn addresses_as_people_write_them() {
        for (text, meaning) in [
            ("127.0.0.1:80", "127.0.0.1:80"),
            ("[::1]:80", "[::1]:80"),
            ("localhost:80", "localhost:80"),
            (":80", ":80"),
            ("80", "127.0.0.1:80"),
            ("0", "127.0.0.1:0"),
            ("192.0.2.1", "192.0.2.1:48879"),
            ("::1", "[::1]:48879"),
            ("[::1]", "[::1]:48879"),
            ("::", "[::]:48879"),
            ("my-host.example", "my-host.example:48879"),
            ("[fe80::1%lo]:80", "[fe80::1%lo]:80"),
        ] {
            assert_eq!(parsed(text), meaning, "{text}");
        }
    }

    #[test]
    fn what_is_no_address_is_refused() {
        for text in [
            "",
            ":",
            "host:",
            "65536",
            ":65536",
            ":+80",
            "1.2.3.4.5",
            "256.1.1.1:80",
            "a b:80",
            "::1:x",
            "-x y",
        ] {
            assert!(parsed(text).starts_with('!'), "{text} is {}", parsed(text));
        }
    }

    #[test]
    fn durations_and_sizes() {
        assert_eq!(duration("250ms"), Ok(Duration::from_millis(250)));
        assert_eq!(duration("2m"), Ok(Duration::from_secs(120)));
        assert!(duration("0s").is_err() && duration("5").is_err() && duration("-1s").is_err());
        assert_eq!(size("64KiB"), Ok(65_536));
        assert_eq!(size("4096"), Ok(4096));
        assert!(size("0").is_err() && size("17MiB").is_err() && size("much").is_err());
    }

    #[test]
    fn the_default_buffer_is_the_librarys() {
        let options = Options::parse_from(["lastecho"]);
        assert_eq!(options.buffer, lastecho::Echo::default().buffer);
        assert_eq!(Address::DEFAULT.to_string(), "127.0.0.1:48879");
    }
}
