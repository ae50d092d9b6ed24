//! All measurements of a run, in an order that is fair.

use crate::kit::{Kit, installed};
use crate::measure::{Measured, measure};
use crate::options::Options;
use crate::scenario::Scenario;
use crate::servers::Server;
use anyhow::{Result, ensure};
use indicatif::{ProgressBar, ProgressStyle};
use std::path::PathBuf;
use std::time::Duration;

/// One measurement, or why there is none.
#[derive(Debug)]
pub(crate) struct Entry {
    pub(crate) round: u32,
    pub(crate) scenario: Scenario,
    pub(crate) server: &'static str,
    pub(crate) outcome: Result<Measured, String>,
}

/// What is to be measured, with everything for it at hand.
pub(crate) struct Plan {
    kit: Kit,
    servers: Vec<(&'static Server, PathBuf)>,
    pub(crate) scenarios: Vec<Scenario>,
    rounds: u32,
    length: Duration,
    /// What is left out, and why.
    pub(crate) omitted: Vec<String>,
}

impl Plan {
    /// Finds or builds every server. What is not installed is an error, or left
    /// out where the command line allows that.
    pub(crate) fn new(options: &Options) -> Result<Self> {
        let (mut servers, mut scenarios) = (options.servers(), options.scenarios());
        let of_servers = servers.iter().filter_map(|server| server.needs());
        let of_scenarios = scenarios.iter().filter_map(|scenario| scenario.needs());
        let mut missing: Vec<&str> = of_servers.chain(of_scenarios).collect();
        missing.retain(|program| installed(program).is_none());
        let is_there = |need: Option<&str>| need.is_none_or(|need| !missing.contains(&need));
        servers.retain(|server| is_there(server.needs()));
        scenarios.retain(|scenario| is_there(scenario.needs()));
        ensure!(
            missing.is_empty() || options.allow_missing,
            "missing: {}; `make bench-deps` installs them, --allow-missing goes on without",
            missing.join(", ")
        );
        let kit = Kit::new(options.lastecho.clone())?;
        let find = |server: &'static Server| Ok((server, kit.program(server)?));
        let servers = servers.into_iter().map(find).collect::<Result<_>>()?;
        let omitted = missing
            .iter()
            .map(|program| format!("{program}: not installed"));
        let mut plan = Self {
            omitted: omitted.collect(),
            kit,
            servers,
            scenarios,
            rounds: options.rounds(),
            length: options.length(),
        };
        plan.omit_what_cannot_be();
        Ok(plan)
    }

    fn omit_what_cannot_be(&mut self) {
        for scenario in &self.scenarios {
            for (server, _) in &self.servers {
                if let Some(reason) = server.refuses(*scenario) {
                    let name = server.name;
                    self.omitted.push(format!("{name} in {scenario}: {reason}"));
                }
            }
        }
    }

    /// The measurements in their order. Every round begins with another server,
    /// so that nobody always has the same predecessor.
    fn steps(&self) -> Vec<(u32, Scenario, usize)> {
        let count = self.servers.len();
        let mut steps = Vec::new();
        for round in 0..self.rounds {
            for &scenario in &self.scenarios {
                let order = (0..count).map(|place| (place + round as usize) % count);
                let able = order.filter(|&index| {
                    let refusal = self.servers[index].0.refuses(scenario);
                    refusal.is_none()
                });
                steps.extend(able.map(|index| (round + 1, scenario, index)));
            }
        }
        steps
    }

    /// Measures all of it; a measurement that fails is told and passed over.
    pub(crate) fn run(&self) -> Vec<Entry> {
        let steps = self.steps();
        let bar = bar(steps.len());
        let measured = steps.into_iter().map(|(round, scenario, index)| {
            let (server, program) = &self.servers[index];
            bar.set_message(format!("{scenario} {}", server.name));
            let outcome = self.kit.start(server, program).and_then(|mut running| {
                measure(&mut running, scenario, scenario.length(self.length))
            });
            bar.inc(1);
            Entry {
                round,
                scenario,
                server: server.name,
                outcome: outcome.map_err(|error| format!("{error:#}")),
            }
        });
        let entries = measured.collect();
        bar.finish_and_clear();
        entries
    }
}

/// On standard error, if that is a terminal.
fn bar(steps: usize) -> ProgressBar {
    let bar = ProgressBar::new(steps as u64);
    if let Ok(style) = ProgressStyle::with_template("{wide_bar} {pos}/{len} {eta} left, {msg:28}") {
        bar.set_style(style);
    }
    bar.enable_steady_tick(Duration::from_secs(1));
    bar
}
