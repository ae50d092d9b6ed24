//! The command line.

use crate::scenario::{ALL, SCALING, Scenario};
use crate::servers::{self, Server};
use clap::Parser;
use std::path::PathBuf;
use std::time::Duration;

/// Rounds and length of a measurement, in seconds, for figures.
const FULL: (u32, f64) = (5, 2.0);
/// The same for a look; all of it stays under two minutes.
const QUICK: (u32, f64) = (1, 0.4);

/// Measures lastecho against other echo servers on this machine.
///
/// A round measures every scenario over all servers; the rounds alternate, so
/// that whatever else the machine does meets them all. Every echoed byte is
/// checked. Exit status: 0 done, 1 failed, or lastecho lost or changed a byte,
/// 2 usage.
#[derive(Debug, Parser)]
pub(crate) struct Options {
    /// One short round, to see that everything works
    #[arg(long)]
    quick: bool,

    /// Rounds; medians are of so many runs [default: 5, with --quick 1]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1000))]
    rounds: Option<u32>,

    /// Seconds of each measurement, after a warm-up [default: 2, with --quick 0.4]
    #[arg(long, value_name = "SECONDS", value_parser = seconds)]
    seconds: Option<f64>,

    /// Only these servers
    #[arg(long, value_name = "SERVER", value_delimiter = ',', value_parser = server)]
    only: Vec<&'static Server>,

    /// Only these scenarios, such as echo-50, bulk-4, cycles-32, idle-9000
    #[arg(long, value_name = "KIND-NUMBER", value_delimiter = ',')]
    scenario: Vec<Scenario>,

    /// Cost and memory over 1 to 8,000 connections instead
    #[arg(long, conflicts_with = "scenario")]
    scaling: bool,

    /// Go on without the programs that are not on this machine
    #[arg(long)]
    pub(crate) allow_missing: bool,

    /// Measure in this machine's own network, with its settings and filters
    #[arg(long)]
    pub(crate) here: bool,

    /// Where the CSV and the plot go
    #[arg(long, value_name = "DIR", default_value = "target/bench")]
    pub(crate) results: PathBuf,

    /// The lastecho to measure [default: the one beside this program]
    #[arg(long, value_name = "PATH")]
    pub(crate) lastecho: Option<PathBuf>,
}

impl Options {
    pub(crate) fn rounds(&self) -> u32 {
        self.rounds.unwrap_or(self.preset().0)
    }

    pub(crate) fn length(&self) -> Duration {
        Duration::from_secs_f64(self.seconds.unwrap_or(self.preset().1))
    }

    fn preset(&self) -> (u32, f64) {
        if self.quick { QUICK } else { FULL }
    }

    pub(crate) fn servers(&self) -> Vec<&'static Server> {
        if self.only.is_empty() {
            servers::ALL.iter().collect()
        } else {
            self.only.clone()
        }
    }

    pub(crate) fn scenarios(&self) -> Vec<Scenario> {
        match self.scenario.as_slice() {
            [] if self.scaling => SCALING.to_vec(),
            [] => ALL.to_vec(),
            chosen => chosen.to_vec(),
        }
    }

    /// What the result files are called.
    pub(crate) fn name(&self) -> &'static str {
        if self.scaling { "scaling" } else { "bench" }
    }

    pub(crate) fn is_scaling(&self) -> bool {
        self.scaling
    }
}

fn server(name: &str) -> Result<&'static Server, String> {
    let found = servers::ALL.iter().find(|server| server.name == name);
    found.ok_or_else(|| {
        let names: Vec<_> = servers::ALL.iter().map(|server| server.name).collect();
        format!("the servers are {}", names.join(", "))
    })
}

fn seconds(text: &str) -> Result<f64, String> {
    let seconds = text.parse().ok().filter(|s| (0.05..=3600.0).contains(s));
    seconds.ok_or_else(|| "must be from 0.05 to 3600".into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(arguments: &str) -> Result<Options, clap::Error> {
        let words = arguments.split_whitespace();
        Options::try_parse_from(std::iter::once("lastecho-bench").chain(words))
    }

    #[test]
    fn quick_is_a_preset_that_can_be_overridden() {
        let both = |arguments| {
            let options = parsed(arguments).unwrap();
            (options.rounds(), options.length().as_secs_f64())
        };
        assert_eq!(both(""), FULL);
        assert_eq!(both("--quick"), QUICK);
        assert_eq!(both("--quick --seconds 3"), (QUICK.0, 3.0));
        assert_eq!(both("--rounds 9"), (9, FULL.1));
    }

    #[test]
    fn servers_and_scenarios_are_chosen_by_name() {
        let options = parsed("--only epoll,lastecho --scenario echo-7,idle-9000").unwrap();
        let names: Vec<_> = options.servers().iter().map(|s| s.name).collect();
        assert_eq!(names, ["epoll", "lastecho"]);
        let scenarios = [Scenario::Echo(7), Scenario::Idle(9000)];
        assert_eq!(options.scenarios(), scenarios);
        assert_eq!(parsed("--scaling").unwrap().scenarios(), SCALING);
    }

    #[test]
    fn nonsense_is_refused() {
        for bad in [
            "--only nginx",
            "--scenario echo",
            "--rounds 0",
            "--seconds 0",
            "--seconds NaN",
            "--scaling --scenario echo-1",
        ] {
            assert!(parsed(bad).is_err(), "{bad}");
        }
    }
}
