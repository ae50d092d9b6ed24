//! The command line, as like ping(8)'s as TCP allows.

#[path = "../lastecho/address.rs"]
mod address;
#[path = "../lastecho/words.rs"]
pub(crate) mod words;

use address::{Address, Argument};
use clap::Parser;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::num::{NonZeroU64, NonZeroUsize};
use std::time::Duration;
use words::{count, duration, duration_or_zero, size};

/// Like ping(8), over a TCP echo: sends messages, checks every byte that comes back.
///
/// INT, TERM, QUIT and HUP end it with a summary, a further one without
/// waiting for the echo in flight. Exit status: 0 echoes came, with -c all of
/// them; 1 none came, or fewer, or a connection could not be had; 2 an echo
/// was not what was sent, or another error.
#[derive(Debug, Parser)]
#[command(name = "lastecho-ping", version, max_term_width = 100)]
pub(crate) struct Options {
    // Not a doc comment: rustdoc would take the brackets for a link.
    #[arg(
        value_name = "ADDR",
        default_value = "127.0.0.1:48879",
        num_args = ..=2,
        help = "Whom to ask: IP:PORT, [IPv6]:PORT, HOST:PORT, PORT or :PORT (loopback), IP or HOST (port 48879), or HOST PORT"
    )]
    arguments: Vec<Argument>,

    /// What the arguments stand for.
    #[arg(skip)]
    pub(crate) target: Address,

    /// Stop after N messages on each connection [default: go on until a signal]
    #[arg(short, long, allow_hyphen_values = true, value_name = "N", value_parser = self::count::<NonZeroU64>)]
    pub(crate) count: Option<NonZeroU64>,

    /// From one message to the next; longer where the echo takes longer
    #[arg(short, long, allow_hyphen_values = true, value_name = "DURATION", default_value = "1s", value_parser = seconds_or_zero)]
    interval: Duration,

    /// How many bytes a message has
    #[arg(short, long, allow_hyphen_values = true, value_name = "SIZE", default_value = "56", value_parser = self::size)]
    pub(crate) size: usize,

    /// How long to wait for an echo, and for a connection
    #[arg(short = 'W', long, allow_hyphen_values = true, value_name = "DURATION", default_value = "10s", value_parser = seconds)]
    pub(crate) timeout: Duration,

    /// How many connections at once
    #[arg(short = 'n', long, allow_hyphen_values = true, value_name = "N", default_value = "1", value_parser = self::count::<NonZeroUsize>)]
    pub(crate) connections: NonZeroUsize,

    /// Say nothing but the summary, and what went wrong
    #[arg(short, long)]
    quiet: bool,

    /// Flood: the next message as soon as the echo is there; quiet
    #[arg(short, long, conflicts_with = "interval")]
    flood: bool,
}

impl Options {
    /// The command line's options; see [`words::parse_or_exit`].
    pub(crate) fn parse_or_exit(complain: fn(&str)) -> Self {
        let options = words::parse_or_exit::<Self>(complain).with_target();
        options.unwrap_or_else(|mistake| words::wrong(complain, &mistake))
    }

    fn with_target(mut self) -> Result<Self, String> {
        self.target = target(address::joined(&self.arguments))?;
        Ok(self)
    }

    pub(crate) fn interval(&self) -> Duration {
        if self.flood {
            Duration::ZERO
        } else {
            self.interval
        }
    }

    pub(crate) fn is_quiet(&self) -> bool {
        self.quiet || self.flood
    }

    /// The addresses to try, in this order. Blocks as long as resolving takes.
    pub(crate) fn resolve(&self) -> io::Result<Vec<SocketAddr>> {
        self.target.resolve()
    }

    /// How many echoes there are to be in all.
    pub(crate) fn asked(&self) -> Option<u64> {
        let connections = self.connections.get() as u64;
        self.count
            .map(|count| count.get().saturating_mul(connections))
    }
}

/// All addresses of this machine are one to a client, and port 0 is none.
fn target(addresses: Vec<Address>) -> Result<Address, String> {
    let mut addresses = addresses.into_iter();
    let address = match addresses.next().unwrap_or_default() {
        Address::All(port) => Address::One((Ipv4Addr::LOCALHOST, port).into()),
        other => other,
    };
    if let Some(second) = addresses.next() {
        let mistake = format!("{address} and {second} are two addresses, only one can be asked");
        return Err(mistake);
    }
    match address {
        Address::One(one) if one.port() == 0 => Err(format!("{one}: port 0 is for servers")),
        Address::Host(host, 0) => Err(format!("{host}:0: port 0 is for servers")),
        _ => Ok(address),
    }
}

fn seconds(text: &str) -> Result<Duration, String> {
    duration(&with_unit(text))
}

fn seconds_or_zero(text: &str) -> Result<Duration, String> {
    duration_or_zero(&with_unit(text))
}

/// A bare number is seconds, as for ping(8).
fn with_unit(text: &str) -> String {
    let is_number = text.ends_with(|c: char| c.is_ascii_digit())
        && text
            .bytes()
            .all(|byte| byte.is_ascii_digit() || byte == b'.');
    format!("{text}{}", if is_number { "s" } else { "" })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(words: &str) -> Result<Options, String> {
        let words = ["lastecho-ping"]
            .into_iter()
            .chain(words.split_whitespace());
        let options = Options::try_parse_from(words).map_err(|error| error.to_string());
        options?.with_target()
    }

    #[test]
    fn the_defaults_are_pings_where_it_has_them() {
        let options = options("").unwrap();
        assert_eq!(options.target.to_string(), "127.0.0.1:48879");
        assert_eq!(options.interval(), Duration::from_secs(1));
        assert_eq!(options.timeout, Duration::from_secs(10));
        assert_eq!((options.size, options.connections.get()), (56, 1));
        assert!(options.count.is_none() && options.asked().is_none() && !options.is_quiet());
    }

    #[test]
    fn a_bare_number_is_seconds() {
        let options = options("-i 0.2 -W 3 -c 5 -n 4 :7").unwrap();
        assert_eq!(options.interval(), Duration::from_millis(200));
        assert_eq!(options.timeout, Duration::from_secs(3));
        assert_eq!(options.asked(), Some(20));
        assert_eq!(options.target.to_string(), "127.0.0.1:7");
    }

    #[test]
    fn a_host_and_a_port_are_one_target() {
        for words in ["localhost 7", "-c 1 localhost 7", "localhost -c 1 7"] {
            assert_eq!(options(words).unwrap().target.to_string(), "localhost:7");
        }
    }

    #[test]
    fn a_flood_is_quiet_and_has_no_interval() {
        let flood = options("-f").unwrap();
        assert!(flood.is_quiet() && flood.interval().is_zero());
        assert!(options("-f -i 1s").is_err());
        assert!(options("-i 0").unwrap().interval().is_zero());
    }

    #[test]
    fn what_cannot_be_pinged_is_refused() {
        for words in [
            "0",
            "host:0",
            "-W 0",
            "-c 0",
            "-s 0",
            "-n 0",
            "-i -1",
            "-i 1x",
            "-W .",
            "7 8",
            "a:7 8",
            "a 7 8",
            "a 0",
            "7000-7010",
            "0xBEEF",
        ] {
            assert!(options(words).is_err(), "{words}");
        }
    }
}
