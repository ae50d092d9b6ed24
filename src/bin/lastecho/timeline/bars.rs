//! The rows of the picture.

use super::legend::{LOOKS, colour};
use super::picture::{LEFT, LINE, PLOT, Picture, TOP, bytes};
use super::row::{End, Row};
use super::seconds;
use lastecho::Outcome;
use std::fmt::Write as _;
use std::time::Duration;

/// Spans drawn in all: half a megabyte.
const SPANS: usize = 40_000;

impl Picture<'_> {
    /// All rows, and how many changes were merged for want of room.
    pub(super) fn rows(&self) -> (String, usize) {
        let finest = self.spans(Duration::ZERO);
        let mut grain = self.axis.grain();
        while self.spans(grain) > SPANS && grain < self.exit {
            grain *= 2;
        }
        let mut svg = String::new();
        let step = self.label_step();
        for ((number, (id, row)), y) in self.record.rows.iter().enumerate().zip(self.places()) {
            let _ = writeln!(svg, "<g class=\"row\"><title>{}</title>", tooltip(*id, row));
            if number % step == 0 {
                let _ = writeln!(
                    svg,
                    "<text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{}</text>",
                    LEFT - 6.0,
                    y + 4.0,
                    label(*id, row)
                );
            }
            self.bars(&mut svg, row, y, grain);
            svg.push_str("</g>\n");
        }
        (svg, finest - self.spans(grain))
    }

    fn spans(&self, grain: Duration) -> usize {
        let rows = self.record.rows.values();
        rows.map(|row| row.spans(self.exit, grain).len()).sum()
    }

    /// The middle of each row.
    fn places(&self) -> impl Iterator<Item = f64> {
        let (row, bottom) = (self.row, self.bottom);
        std::iter::successors(Some(TOP + row / 2.0), move |y| {
            (y + row < bottom).then_some(y + row)
        })
    }

    /// Every how many rows there is room for a label.
    fn label_step(&self) -> usize {
        let steps = [1, 2, 5, 10, 20, 50, 100];
        let fits = |step: &&u8| f64::from(**step) * self.row >= LINE;
        usize::from(*steps.iter().find(fits).unwrap_or(&100))
    }

    fn bars(&self, svg: &mut String, row: &Row, y: f64, grain: Duration) {
        let spans = row.spans(self.exit, grain);
        for look in LOOKS {
            let mut path = String::new();
            for (from, to, _) in spans.iter().filter(|span| span.2 == look.doing) {
                let (from, to) = (self.axis.x(*from), self.axis.x(*to));
                // However short it is, it was there.
                let _ = write!(path, "M{from:.1} {y:.1}h{:.1}", (to - from).max(1.0));
            }
            if !path.is_empty() {
                let _ = writeln!(svg, "<path class=\"{}\" d=\"{path}\"/>", look.class);
            }
        }
    }

    /// How the connections ended: a dot where one did not end well, and in
    /// words where there is room.
    pub(super) fn ends(&self, svg: &mut String) {
        let rows = self.record.rows.values().zip(self.places());
        for (end, y) in rows.filter_map(|(row, y)| Some((row.end.as_ref()?, y))) {
            if end.outcome != Outcome::Ended {
                let (x, radius) = (self.axis.x(end.at), (self.row / 3.0).clamp(1.5, 5.0));
                let (colour, line) = (colour(end.outcome), radius / 5.0);
                let _ = writeln!(
                    svg,
                    "<circle class=\"end\" cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"{radius:.1}\" \
                     fill=\"{colour}\" stroke=\"#333\" stroke-width=\"{line:.1}\"/>"
                );
            }
            if self.row >= LINE {
                let (x, y, words) = (LEFT + PLOT + 8.0, y + 4.0, words(end));
                let _ = writeln!(svg, "<text x=\"{x:.1}\" y=\"{y:.1}\">{words}</text>");
            }
        }
    }
}

fn label(id: u64, row: &Row) -> String {
    let peer = row.peer.to_string();
    match peer.len() {
        0..=24 => format!("{id}  {peer}"),
        // A long IPv6 address: its end tells more than its beginning.
        length => format!("{id}  …{}", &peer[length - 23..]),
    }
}

fn tooltip(id: u64, row: &Row) -> String {
    let (opened, peer, requests) = (seconds(row.opened), row.peer, row.requests);
    let end = row.end.as_ref();
    let end = end.map_or_else(String::new, |end| {
        format!(" to {}: {}", seconds(end.at), words(end))
    });
    format!("connection {id} from {peer}, requests: {requests}, {opened}{end}")
}

fn words(end: &End) -> String {
    let outcome = match end.outcome {
        Outcome::Panicked => "panicked".to_owned(),
        Outcome::Failed => "failed".to_owned(),
        Outcome::Reset => "reset".to_owned(),
        other => other.to_string(),
    };
    let (received, sent) = (bytes(end.received), bytes(end.sent));
    format!("{outcome}, {received} in, {sent} out")
}
