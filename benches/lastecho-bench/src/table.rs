//! The results as text: for people, and as CSV.

use crate::results::Row;
use crate::run::Entry;
use crate::stats::Summary;
use std::fmt::Write as _;

const COLUMNS: [&str; 10] = [
    "server", "median", "min", "max", "ours/it", "cpu", "KiB each", "lost", "wrong", "failed",
];

/// A block per scenario; the ratio is lastecho's median to this server's.
pub(crate) fn text(rows: &[Row]) -> String {
    let mut text = String::new();
    for block in rows.chunk_by(|a, b| a.scenario == b.scenario) {
        let scenario = block[0].scenario;
        let (rate, cost) = (scenario.rate_unit(), scenario.cost_unit());
        let _ = writeln!(text, "\n{scenario}: {rate}, server CPU in {cost}");
        line(&mut text, &COLUMNS.map(str::to_owned));
        for row in block {
            line(&mut text, &cells(row));
        }
    }
    text
}

fn cells(row: &Row) -> [String; 10] {
    let number = |value: Option<f64>| value.map_or_else(|| "-".into(), short);
    let [median, min, max] = match row.rate {
        Some(Summary { median, min, max }) => [median, min, max].map(Some),
        None => [None; 3],
    };
    [
        row.server.into(),
        number(median),
        number(min),
        number(max),
        row.ratio
            .map_or_else(|| "-".into(), |ratio| format!("{ratio:.2}")),
        number(row.cost.map(|cost| cost.median)),
        number(row.memory.map(|memory| memory.median / 1024.0)),
        row.seen.lost.to_string(),
        row.seen.wrong.to_string(),
        row.seen.failed.to_string(),
    ]
}

fn line(text: &mut String, cells: &[String; 10]) {
    let _ = write!(text, "  {:<14}", cells[0]);
    for cell in &cells[1..] {
        let _ = write!(text, " {cell:>9}");
    }
    text.push('\n');
}

/// Three digits or more, whatever the size.
fn short(value: f64) -> String {
    let decimals = match value {
        _ if value >= 100.0 => 0,
        _ if value >= 10.0 => 1,
        _ if value >= 1.0 => 2,
        _ => 3,
    };
    format!("{value:.decimals$}")
}

/// A line per measurement. Failed ones are left out; the text tells them.
pub(crate) fn csv(entries: &[Entry]) -> String {
    let mut csv = String::from(
        "round,scenario,server,rate,rate_unit,cpu,cpu_unit,bytes_per_connection,lost,wrong,failed\n",
    );
    for entry in entries {
        let Ok(measured) = &entry.outcome else {
            continue;
        };
        let scenario = entry.scenario;
        let number = |value: Option<f64>| value.map_or_else(String::new, |v| format!("{v:.3}"));
        let seen = measured.seen;
        let _ = writeln!(
            csv,
            "{},{scenario},{},{},{},{},{},{},{},{},{}",
            entry.round,
            entry.server,
            number(scenario.rate(measured)),
            scenario.rate_unit(),
            number(scenario.cost(measured)),
            scenario.cost_unit(),
            number(measured.memory),
            seen.lost,
            seen.wrong,
            seen.failed,
        );
    }
    csv
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::results::{rows, tests::entry};
    use crate::scenario::Scenario;

    #[test]
    fn the_table_has_a_block_per_scenario_with_ratios() {
        let entries = [
            entry(1, "lastecho", 1500, 0),
            entry(1, "go", 1000, 0),
            entry(2, "go", 1, 7),
        ];
        let expected = "
echo-50: echoes/s, server CPU in us/echo
  server            median       min       max   ours/it       cpu  KiB each      lost     wrong    failed
  lastecho            1500      1500      1500      1.00       333      10.0         0         0         0
  go                  1000      1000      1000      1.50       500      10.0         7         0         0
";
        assert_eq!(text(&rows(&[Scenario::Echo(50)], &entries)), expected);
    }

    #[test]
    fn the_csv_has_a_line_per_measurement() {
        let mut failed = entry(2, "go", 1, 0);
        failed.outcome = Err("refused".into());
        let csv = csv(&[entry(1, "go", 1000, 7), failed]);
        let lines: Vec<_> = csv.lines().skip(1).collect();
        assert_eq!(
            lines,
            ["1,echo-50,go,1000.000,echoes/s,500.000,us/echo,10240.000,7,0,0"]
        );
        assert_eq!(csv.lines().next().unwrap().split(',').count(), 11);
    }
}
