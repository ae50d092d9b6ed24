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
}
