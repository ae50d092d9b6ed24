//! The runs of each server in each scenario, summed up.

use crate::load::Seen;
use crate::measure::Measured;
use crate::run::Entry;
use crate::scenario::Scenario;
use crate::servers::OURS;
use crate::stats::{Summary, ratio};

/// All runs of a server in a scenario. Only sound runs have figures: half of
/// the clients of a server that lost the others are no measure.
#[derive(Debug)]
pub(crate) struct Row {
    pub(crate) scenario: Scenario,
    pub(crate) server: &'static str,
    pub(crate) rate: Option<Summary>,
    pub(crate) cost: Option<Summary>,
    pub(crate) memory: Option<Summary>,
    /// Summed over all runs.
    pub(crate) seen: Seen,
    /// How many times lastecho's rate is of this one's.
    pub(crate) ratio: Option<f64>,
}

/// A row per scenario and server, in the order of the scenarios.
pub(crate) fn rows(scenarios: &[Scenario], entries: &[Entry]) -> Vec<Row> {
    let of = |scenario| {
        let mut names: Vec<&'static str> = Vec::new();
        for entry in entries.iter().filter(|entry| entry.scenario == scenario) {
            if !names.contains(&entry.server) {
                names.push(entry.server);
            }
        }
        let mut rows: Vec<Row> = names
            .into_iter()
            .map(|server| row(scenario, server, entries))
            .collect();
        compare(&mut rows);
        rows
    };
    scenarios.iter().copied().flat_map(of).collect()
}

fn row(scenario: Scenario, server: &'static str, entries: &[Entry]) -> Row {
    let runs: Vec<&Measured> = entries
        .iter()
        .filter(|entry| entry.scenario == scenario && entry.server == server)
        .filter_map(|entry| entry.outcome.as_ref().ok())
        .collect();
    let summary = |value: &dyn Fn(&Measured) -> Option<f64>| {
        let sound = runs.iter().filter(|measured| measured.seen.is_sound());
        Summary::of(sound.filter_map(|measured| value(measured)))
    };
    Row {
        scenario,
        server,
        rate: summary(&|measured| scenario.rate(measured)),
        cost: summary(&|measured| scenario.cost(measured)),
        memory: summary(&|measured| measured.memory),
        seen: runs.iter().map(|measured| measured.seen).sum(),
        ratio: None,
    }
}

/// Sets the ratios of one scenario's rows.
fn compare(rows: &mut [Row]) {
    let ours = rows.iter().find(|row| row.server == OURS);
    let Some(ours) = ours.and_then(|row| row.rate) else {
        return;
    };
    for row in rows {
        row.ratio = row.rate.and_then(|rate| ratio(ours.median, rate.median));
    }
}

/// What went wrong, a line each.
pub(crate) fn troubles(entries: &[Entry]) -> Vec<String> {
    entries.iter().filter_map(trouble).collect()
}

/// Whether every measurement of lastecho came about and lost nothing.
pub(crate) fn is_sound(entries: &[Entry]) -> bool {
    let mut ours = entries.iter().filter(|entry| entry.server == OURS);
    ours.all(|entry| trouble(entry).is_none())
}

fn trouble(entry: &Entry) -> Option<String> {
    let what = match &entry.outcome {
        Err(error) => error.clone(),
        Ok(measured) if measured.seen.is_sound() => return None,
        Ok(Measured { seen, .. }) => format!(
            "{} bytes lost, {} wrong, {} connections failed",
            seen.lost, seen.wrong, seen.failed
        ),
    };
    let Entry {
        round,
        scenario,
        server,
        ..
    } = entry;
    Some(format!("{server} in {scenario}, round {round}: {what}"))
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use std::time::Duration;

    /// A run of one second with so many echoes and so many bytes lost.
    pub(crate) fn entry(round: u32, server: &'static str, count: u64, lost: u64) -> Entry {
        let seen = Seen {
            count,
            lost,
            ..Seen::default()
        };
        Entry {
            round,
            scenario: Scenario::Echo(50),
            server,
            outcome: Ok(Measured {
                elapsed: Duration::from_secs(1),
                cpu: Duration::from_millis(500),
                memory: Some(10_240.0),
                seen,
            }),
        }
    }

    #[test]
    fn ratios_are_of_medians() {
        let entries = [
            entry(1, "lastecho", 300, 0),
            entry(1, "go", 100, 0),
            entry(2, "lastecho", 900, 0),
            entry(2, "go", 200, 0),
            entry(3, "lastecho", 400, 0),
            entry(3, "go", 999, 0),
            entry(4, "go", 1, 5),
        ];
        let rows = rows(&[Scenario::Echo(50)], &entries);
        assert_eq!(rows.len(), 2);
        assert_eq!((rows[0].server, rows[0].ratio), ("lastecho", Some(1.0)));
        assert_eq!((rows[1].server, rows[1].ratio), ("go", Some(2.0)));
        assert_eq!(rows[1].seen.lost, 5);
        assert_eq!(rows[0].cost.unwrap().median, 1250.0);
    }

    #[test]
    fn a_lost_byte_of_ours_is_not_sound_and_one_of_theirs_is_told() {
        assert!(is_sound(&[entry(1, "go", 1, 9)]));
        assert!(!is_sound(&[entry(1, "lastecho", 1, 9)]));
        let told = troubles(&[entry(4, "go", 1, 9), entry(1, "lastecho", 1, 0)]);
        let line = "go in echo-50, round 4: 9 bytes lost, 0 wrong, 0 connections failed";
        assert_eq!(told, [line]);
        let mut failed = entry(2, "lastecho", 1, 0);
        failed.outcome = Err("refused".into());
        assert!(!is_sound(&[failed]));
    }

    #[test]
    fn without_ours_there_are_no_ratios() {
        let rows = rows(&[Scenario::Echo(50)], &[entry(1, "go", 1, 0)]);
        assert_eq!(rows[0].ratio, None);
    }
}
