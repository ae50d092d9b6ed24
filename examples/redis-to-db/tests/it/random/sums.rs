//! What came out of all runs.

use super::plan::Plan;
use super::run::Outcome;
use std::collections::BTreeMap;
use std::fmt;
use std::time::Instant;

pub(super) struct Sums {
    seeds: [u64; 2],
    began: Instant,
    runs: usize,
    outcome: Outcome,
    faults: BTreeMap<String, usize>,
    /// What was lost, by run.
    pub(super) failures: Vec<String>,
}

impl Sums {
    pub(super) fn new(first: u64, runs: u64) -> Self {
        Self {
            seeds: [first, first + runs - 1],
            began: Instant::now(),
            runs: 0,
            outcome: Outcome::default(),
            faults: BTreeMap::new(),
            failures: Vec::new(),
        }
    }

    /// Adds a run. A failure is shown at once, with its plan.
    pub(super) fn add(&mut self, plan: &Plan, outcome: Result<Outcome, String>) {
        self.runs += 1;
        for kind in plan.steps.iter().filter_map(|(_, step)| step.kind()) {
            *self.faults.entry(kind).or_default() += 1;
        }
        match outcome {
            Ok(one) => {
                self.outcome.messages += one.messages;
                self.outcome.twice += one.twice;
                self.outcome.dead += one.dead;
                self.outcome.killed += one.killed;
            }
            Err(why) => {
                println!("{plan}FAILED: {why}\nagain: LASTECHO_SEED={}", plan.seed);
                self.failures.push(why);
            }
        }
    }
}

impl fmt::Display for Sums {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [first, last] = self.seeds;
        let Outcome {
            messages,
            twice,
            dead,
            killed,
        } = self.outcome;
        write!(
            f,
            "{} runs, seeds {first} to {last}, {} failed; {messages} messages, {twice} written \
             more than once, {dead} dead; {killed} programs killed; {:.1?}; faults: ",
            self.runs,
            self.failures.len(),
            self.began.elapsed(),
        )?;
        let faults = self
            .faults
            .iter()
            .map(|(kind, count)| format!("{kind} {count}"));
        f.write_str(&faults.collect::<Vec<_>>().join(", "))
    }
}
