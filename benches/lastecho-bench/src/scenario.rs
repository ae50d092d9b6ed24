//! What is measured, and in which units.

use crate::load::redis;
use crate::measure::Measured;
use std::fmt;
use std::str::FromStr;
use std::time::Duration;

/// A kind of load; the number is how many connections or clients.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Scenario {
    /// Messages of 64 bytes to and fro on all connections at once.
    Echo(usize),
    /// The same from a blocking thread per connection, as rust_echo_bench does
    /// it: a cross-check of our epoll client.
    Threads(usize),
    /// The same from redis-benchmark: a cross-check of all of our clients.
    Redis(usize),
    /// Writes of 64 KiB, written and read by two threads per connection.
    Bulk(usize),
    /// Connect, echo 64 bytes, reset; all over again.
    Cycles(usize),
    /// Connections that say nothing.
    Idle(usize),
}

use Scenario::{Bulk, Cycles, Echo, Idle, Redis, Threads};

/// What `make bench` measures.
pub(crate) const ALL: [Scenario; 10] = [
    Echo(1),
    Echo(50),
    Echo(1000),
    Threads(50),
    Redis(50),
    Bulk(1),
    Bulk(4),
    Cycles(4),
    Cycles(32),
    Idle(1000),
];

/// How cost and memory grow with the number of connections.
pub(crate) const SCALING: [Scenario; 7] = [
    Echo(1),
    Echo(10),
    Echo(100),
    Echo(1000),
    Echo(2000),
    Echo(4000),
    Echo(8000),
];

impl Scenario {
    /// Connections, or clients, at the same time.
    pub(crate) fn connections(self) -> usize {
        match self {
            Echo(n) | Threads(n) | Redis(n) | Bulk(n) | Cycles(n) | Idle(n) => n,
        }
    }

    fn kind(self) -> &'static str {
        match self {
            Echo(_) => "echo",
            Threads(_) => "threads",
            Redis(_) => "redis",
            Bulk(_) => "bulk",
            Cycles(_) => "cycles",
            Idle(_) => "idle",
        }
    }

    /// How long to measure where others are measured for `length`: an idle
    /// server uses so little that a clock tick of 10 ms counts.
    pub(crate) fn length(self, length: Duration) -> Duration {
        match self {
            Idle(_) => length * 4,
            _ => length,
        }
    }

    /// What must be installed on the machine for it.
    pub(crate) fn needs(self) -> Option<&'static str> {
        matches!(self, Redis(_)).then_some(redis::PROGRAM)
    }

    /// Whether connections live long enough to have a memory worth naming.
    pub(crate) fn has_memory(self) -> bool {
        matches!(self, Echo(_) | Threads(_) | Idle(_))
    }

    pub(crate) fn rate_unit(self) -> &'static str {
        match self {
            Echo(_) | Threads(_) | Redis(_) => "echoes/s",
            Bulk(_) => "MB/s",
            Cycles(_) => "cycles/s",
            Idle(_) => "-",
        }
    }

    /// Throughput in [`Self::rate_unit`]; an idle server has none.
    pub(crate) fn rate(self, measured: &Measured) -> Option<f64> {
        let per_second = measured.seen.count as f64 / measured.elapsed.as_secs_f64();
        match self {
            Bulk(_) => Some(per_second / 1e6),
            Idle(_) => None,
            _ => Some(per_second),
        }
    }

    pub(crate) fn cost_unit(self) -> &'static str {
        match self {
            Echo(_) | Threads(_) | Redis(_) => "us/echo",
            Bulk(_) => "s/GB",
            Cycles(_) => "us/cycle",
            Idle(_) => "% of a core",
        }
    }

    /// The server's processor time in [`Self::cost_unit`].
    pub(crate) fn cost(self, measured: &Measured) -> Option<f64> {
        let cpu = measured.cpu.as_secs_f64();
        let count = measured.seen.count as f64;
        match self {
            Idle(_) => Some(100.0 * cpu / measured.elapsed.as_secs_f64()),
            _ if measured.seen.count == 0 => None,
            Bulk(_) => Some(cpu / count * 1e9),
            _ => Some(cpu / count * 1e6),
        }
    }
}

impl fmt::Display for Scenario {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.kind(), self.connections())
    }
}

impl FromStr for Scenario {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let kinds = [Echo, Threads, Redis, Bulk, Cycles, Idle];
        let known = || kinds.map(|kind| kind(1).kind()).join(", ");
        let unknown = || format!("write KIND-NUMBER, for example echo-50; kinds: {}", known());
        let (kind, number) = text.split_once('-').ok_or_else(unknown)?;
        let number = number.parse().ok().filter(|n| (1..=20_000).contains(n));
        let number = number.ok_or("the number must be from 1 to 20000")?;
        let mut scenarios = kinds.iter().map(|make| make(number));
        scenarios
            .find(|scenario| scenario.kind() == kind)
            .ok_or_else(unknown)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::load::Seen;

    #[test]
    fn names_are_read_back() {
        for scenario in ALL.into_iter().chain(SCALING) {
            assert_eq!(scenario.to_string().parse(), Ok(scenario));
        }
        for bad in ["echo", "echo-", "echo-0", "echo-20001", "ech-1", ""] {
            assert!(bad.parse::<Scenario>().is_err(), "{bad}");
        }
    }

    #[test]
    fn rates_and_costs_are_in_their_units() {
        let measured = |count| Measured {
            elapsed: Duration::from_secs(2),
            cpu: Duration::from_secs(1),
            memory: None,
            seen: Seen {
                count,
                ..Seen::default()
            },
        };
        let million = measured(1_000_000);
        assert_eq!(Echo(1).rate(&million), Some(500_000.0));
        assert_eq!(Echo(1).cost(&million), Some(1.0));
        assert_eq!(Bulk(1).rate(&million), Some(0.5));
        assert_eq!(Bulk(1).cost(&measured(1_000_000_000)), Some(1.0));
        assert_eq!(Idle(1).rate(&million), None);
        assert_eq!(Idle(1).cost(&measured(0)), Some(50.0));
        assert_eq!(Cycles(4).cost(&measured(0)), None);
    }
}
