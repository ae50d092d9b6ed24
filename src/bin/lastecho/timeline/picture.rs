//! The record as an SVG picture.
//!
//! All text in it is ours (numbers, addresses, names of signals), so there is
//! nothing to escape.

use super::axis::Axis;
use super::legend::{LOOKS, legend};
use super::record::Record;
use super::seconds;
use lastecho::Report;
use std::fmt::Write as _;
use std::time::Duration;

const WIDTH: f64 = 1000.0;
/// Where the rows begin and how long they can be; labels left, ends right.
pub(super) const LEFT: f64 = 185.0;
pub(super) const PLOT: f64 = 620.0;
/// Above the rows: title, totals, legend, and the names of the vertical lines.
pub(super) const TOP: f64 = 112.0;
/// From the name of a vertical line to the one above it.
const LEVEL: f64 = 13.0;
/// All rows together are to be so high, where that leaves each visible.
const HEIGHT: f64 = 1000.0;
const HIGHEST_ROW: f64 = 22.0;
const LOWEST_ROW: f64 = 1.0;
/// The height of a line of text, and about the width of a letter.
pub(super) const LINE: f64 = 12.0;
const LETTER: f64 = 6.0;

/// Draws what was recorded; `exit` is now.
pub(super) fn draw(record: &Record, report: &Report, exit: Duration) -> String {
    let rows = record.rows.len().max(1);
    let row = (HEIGHT / rows as f64).clamp(LOWEST_ROW, HIGHEST_ROW);
    let picture = Picture {
        record,
        exit,
        axis: axis(record, exit),
        row,
        bottom: TOP + rows as f64 * row,
    };
    picture.draw(report)
}

/// From the first connection on, not from the start: a server may have been
/// idle for a long time.
fn axis(record: &Record, exit: Duration) -> Axis {
    let first = record.rows.values().map(|row| row.opened).min();
    let first = first.unwrap_or_default();
    let begin = first.saturating_sub((exit - first.min(exit)) / 25);
    let mut end = exit;
    // A deadline far beyond the exit is told at the edge.
    if let Some(deadline) = record.deadline
        && deadline <= exit + (exit - begin) / 3
    {
        end = end.max(deadline);
    }
    Axis::new((begin, end + (end - begin) / 25), LEFT, PLOT)
}

pub(super) struct Picture<'a> {
    pub(super) record: &'a Record,
    pub(super) exit: Duration,
    pub(super) axis: Axis,
    /// The height of a row.
    pub(super) row: f64,
    /// Where the last one ends.
    pub(super) bottom: f64,
}

impl Picture<'_> {
    fn draw(&self, report: &Report) -> String {
        let (svg_rows, merged) = self.rows();
        let notes = self.notes(self.record.merged + merged);
        let height = self.bottom + 24.0 + LINE * 1.3 * notes.len() as f64 + 6.0;
        let mut svg = self.head(height);
        self.title(&mut svg, report);
        legend(&mut svg);
        self.ticks(&mut svg);
        svg.push_str(&svg_rows);
        self.marks(&mut svg);
        self.ends(&mut svg);
        for (line, note) in notes.iter().enumerate() {
            let y = self.bottom + 36.0 + LINE * 1.3 * line as f64;
            let _ = writeln!(
                svg,
                "<text class=\"note\" x=\"10\" y=\"{y:.1}\">{note}</text>"
            );
        }
        svg + "</svg>\n"
    }

    fn head(&self, height: f64) -> String {
        let mut svg = format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{WIDTH}\" height=\"{height:.0}\" \
             viewBox=\"0 0 {WIDTH} {height:.0}\">\n<style>\n\
             text{{font:11px sans-serif;fill:#333}}\n.title{{font-size:14px;font-weight:bold}}\n\
             .note{{font-style:italic}}\n.tick{{stroke:#e4e4e4}}\n.mark{{stroke-width:1.5}}\n\
             .row path{{stroke-width:{:.2};fill:none}}\n",
            self.row * if self.row > 4.0 { 0.7 } else { 0.95 }
        );
        for look in LOOKS {
            let _ = writeln!(svg, ".{}{{stroke:{}}}", look.class, look.colour);
        }
        // The page's own colour may be dark.
        svg + "</style>\n<rect width=\"100%\" height=\"100%\" fill=\"#fff\"/>\n"
    }

    fn title(&self, svg: &mut String, report: &Report) {
        let addresses = &self.record.addresses;
        let names: Vec<_> = addresses.iter().take(2).map(ToString::to_string).collect();
        let more = match addresses.len() {
            0..=2 => String::new(),
            count => format!(" and {} more", count - 2),
        };
        let _ = writeln!(
            svg,
            "<text class=\"title\" x=\"10\" y=\"20\">lastecho {} on {}{more}</text>\n\
             <text x=\"10\" y=\"37\">{}; {} threads at most; the stop took {}</text>",
            env!("CARGO_PKG_VERSION"),
            names.join(", "),
            totals(report),
            self.record.most_threads,
            seconds(report.elapsed),
        );
    }

    fn ticks(&self, svg: &mut String) {
        for (x, label) in self.axis.ticks() {
            let (bottom, text) = (self.bottom + 4.0, self.bottom + 16.0);
            let _ = writeln!(
                svg,
                "<path class=\"tick\" d=\"M{x:.1} {TOP}V{bottom:.1}\"/>\
                 <text x=\"{x:.1}\" y=\"{text:.1}\" text-anchor=\"middle\">{label}</text>"
            );
        }
    }

    /// The vertical lines: what happened when.
    fn marks(&self, svg: &mut String) {
        let record = self.record;
        let signal = record.signal.unwrap_or("stop");
        let marks = [
            (record.stop, "stop", signal, "#000", "6 3"),
            (record.deadline, "deadline", "deadline", "#d55e00", "2 3"),
            (record.cut, "cut", "cut", "#d55e00", "none"),
            (Some(self.exit), "exit", "exit", "#000", "none"),
        ];
        let marks = marks.into_iter();
        let mut marks: Vec<_> = marks.filter_map(|mark| Some((mark.0?, mark))).collect();
        marks.sort_by_key(|(at, _)| *at);
        // From the right, so that no line crosses the name of one before it:
        // that is above all names that it would reach.
        let mut placed: Vec<(f64, f64)> = Vec::new();
        for (at, (_, id, name, colour, dashes)) in marks.into_iter().rev() {
            let beyond = if self.axis.shows(at) { "" } else { " →" };
            let (x, name) = (self.axis.x(at), format!("{name} {}{beyond}", seconds(at)));
            let reach = x + 3.0 + width(&name);
            let reached = placed.iter().filter(|other| other.0 < reach);
            let y = reached
                .map(|other| other.1 - LEVEL)
                .fold(TOP - 6.0, f64::min);
            placed.push((x, y));
            let (top, bottom, text) = (y - 8.0, self.bottom + 4.0, x + 3.0);
            let _ = writeln!(
                svg,
                "<path class=\"mark\" id=\"{id}\" stroke=\"{colour}\" stroke-dasharray=\"{dashes}\" \
                 d=\"M{x:.1} {top:.1}V{bottom:.1}\"/><text x=\"{text:.1}\" y=\"{y:.1}\">{name}</text>"
            );
        }
    }

    /// What is not in the picture.
    fn notes(&self, merged: usize) -> Vec<String> {
        let mut notes = Vec::new();
        if self.record.left_out > 0 {
            notes.push(format!(
                "left out: {} connections. Kept are the first, those that did not end well, and \
                 those alive at the stop, {} in all.",
                self.record.left_out,
                self.record.rows.len()
            ));
        }
        if merged > 0 {
            notes.push(format!(
                "merged: {merged} changes between waiting and request that are too close to draw."
            ));
        }
        notes
    }
}

fn totals(report: &Report) -> String {
    let badly = [
        (report.cut, "cut"),
        (report.reset, "reset"),
        (report.panicked, "panicked"),
        (report.failed, "failed"),
        (report.idle, "idle for too long"),
        (report.expired, "still sending"),
    ];
    let well = report.accepted - badly.iter().map(|(count, _)| count).sum::<u64>();
    let mut totals = format!("connections: {}, {well} ended well", report.accepted);
    let others = [(report.refused, "refused"), (report.limited, "turned away")];
    for (count, words) in badly.iter().chain(&others).filter(|(count, _)| *count > 0) {
        let _ = write!(totals, ", {count} {words}");
    }
    let (received, sent) = (bytes(report.received), bytes(report.sent));
    totals + &format!("; {received} in, {sent} out")
}

/// About how wide a text is.
pub(super) fn width(text: &str) -> f64 {
    LETTER * text.chars().count() as f64
}

/// As people read it: three digits or four.
pub(super) fn bytes(count: u64) -> String {
    let real = count as f64;
    match count {
        0..10_000 => format!("{count} B"),
        10_000..1_000_000 => format!("{:.0} kB", real / 1e3),
        1_000_000..1_000_000_000 => format!("{:.1} MB", real / 1e6),
        _ => format!("{:.1} GB", real / 1e9),
    }
}
