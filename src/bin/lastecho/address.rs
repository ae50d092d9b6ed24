//! Addresses as people write them, the same for both programs.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, ToSocketAddrs};
use std::str::FromStr;
use std::{fmt, io};

/// 0xBEEF, the port of the program that this one descends from.
pub(crate) const DEFAULT_PORT: u16 = 48879;

/// Where to listen or to connect to, as people write it.
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
    /// The addresses it stands for; none for [`All`](Self::All).
    pub(crate) fn resolve(&self) -> io::Result<Vec<SocketAddr>> {
        match self {
            Self::One(address) => Ok(vec![*address]),
            Self::Host(host, port) => Ok((host.as_str(), *port).to_socket_addrs()?.collect()),
            Self::All(_) => Ok(Vec::new()),
        }
    }
}

impl Address {
    fn port(&self) -> u16 {
        match self {
            Self::One(address) => address.port(),
            Self::Host(_, port) | Self::All(port) => *port,
        }
    }

    fn with_port(self, port: u16) -> Self {
        match self {
            Self::One(address) => Self::One((address.ip(), port).into()),
            Self::Host(host, _) => Self::Host(host, port),
            Self::All(_) => Self::All(port),
        }
    }
}

/// An address, or a part of one, as an argument of its own.
#[derive(Clone, Debug)]
pub(crate) struct Argument {
    address: Address,
    part: Part,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Part {
    /// A bare IP or HOST.
    Host,
    /// A bare PORT.
    Port,
    Both,
}

impl FromStr for Argument {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let address: Address = text.parse()?;
        let bare = text.parse::<IpAddr>().is_ok() || text.ends_with(']') || !text.contains(':');
        let part = match (bare, is_number(text)) {
            (true, true) => Part::Port,
            (true, false) => Part::Host,
            (false, _) => Part::Both,
        };
        Ok(Self { address, part })
    }
}

/// The addresses that arguments stand for: an IP or HOST and then a PORT, as nc
/// and telnet take them, are one address.
pub(crate) fn joined(arguments: &[Argument]) -> Vec<Address> {
    let mut arguments = arguments.iter().peekable();
    let mut addresses = Vec::new();
    while let Some(first) = arguments.next() {
        let ends = |next: &&Argument| first.part == Part::Host && next.part == Part::Port;
        let address = first.address.clone();
        addresses.push(match arguments.next_if(ends) {
            Some(second) => address.with_port(second.address.port()),
            None => address,
        });
    }
    addresses
}

impl Default for Address {
    /// Where it is if nobody says where.
    fn default() -> Self {
        Self::One((Ipv4Addr::LOCALHOST, DEFAULT_PORT).into())
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
        if is_number(text) {
            return Ok(Self::One((Ipv4Addr::LOCALHOST, port(text)?).into()));
        }
        match text.rsplit_once(':') {
            Some(("", number)) => port(number).map(Self::All),
            Some((name, number)) => Ok(Self::Host(host(name)?, port(number)?)),
            None => Ok(Self::Host(host(text)?, DEFAULT_PORT)),
        }
    }
}

fn is_number(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit())
}

fn port(text: &str) -> Result<u16, String> {
    // `parse` would take a sign.
    let number = is_number(text).then(|| text.parse().ok()).flatten();
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
    if fits && (zoned.is_some() || !is_numeric(text)) {
        return Ok(zoned.unwrap_or(text).to_owned());
    }
    let advice = advice(text);
    Err(format!(
        "'{text}' is neither an IP address nor a host name{advice}"
    ))
}

/// Whether it would be a number or an IPv4 address, if it were anything: the
/// resolver would make an address of "0xBEEF" and "1.2", and a host's name has a
/// letter and does not end in a number (RFC 1123, 2.1; the URL standard, too).
fn is_numeric(text: &str) -> bool {
    let text = text.strip_suffix('.').unwrap_or(text);
    let last = text.rsplit('.').next().unwrap_or(text);
    is_number(last) || hexadecimal(last).is_some() || !text.chars().any(char::is_alphabetic)
}

fn hexadecimal(text: &str) -> Option<u64> {
    let digits = text
        .strip_prefix("0x")
        .or_else(|| text.strip_prefix("0X"))?;
    let digits = if digits.is_empty() { "0" } else { digits };
    u64::from_str_radix(digits, 16).ok()
}

/// What to write instead.
fn advice(text: &str) -> String {
    let is_port = |text: &str| port(text).is_ok();
    let range = text.split_once('-');
    if range.is_some_and(|(first, last)| is_port(first) && is_port(last)) {
        return ", and a range of ports is not taken: name each".into();
    }
    let port = hexadecimal(text).and_then(|number| u16::try_from(number).ok());
    port.map_or_else(String::new, |port| format!(": write {port}"))
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
    fn a_host_and_a_port_are_one_address() {
        let arguments = |words: &str| {
            let words = words.split(' ').map(|word| word.parse().unwrap());
            let joined = joined(&words.collect::<Vec<Argument>>()).into_iter();
            let shown: Vec<_> = joined.map(|address| address.to_string()).collect();
            shown.join(" ")
        };
        for (words, meaning) in [
            ("0.0.0.0 7", "0.0.0.0:7"),
            ("::1 7", "[::1]:7"),
            ("[::1] 7", "[::1]:7"),
            ("localhost 7", "localhost:7"),
            ("[fe80::1%lo] 7", "[fe80::1%lo]:7"),
            ("a 7 b 8", "a:7 b:8"),
            ("a b 8", "a:48879 b:8"),
            ("7 8", "127.0.0.1:7 127.0.0.1:8"),
            ("7 a", "127.0.0.1:7 a:48879"),
            ("a:7 8", "a:7 127.0.0.1:8"),
            (":7 8", ":7 127.0.0.1:8"),
            ("a 7 8", "a:7 127.0.0.1:8"),
        ] {
            assert_eq!(arguments(words), meaning, "{words}");
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
            "7000-7010",
            "0xBEEF",
            "0x7f.1",
            "1.2",
            "host.7",
            "7000-7010:80",
            "0xBEEF:80",
            "127.0.0.1:0x7",
            ":7000-7010",
        ] {
            assert!(parsed(text).starts_with('!'), "{text} is {}", parsed(text));
        }
    }
}
