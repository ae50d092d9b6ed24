//! One connection's row: what it did, from when to when.

use lastecho::Outcome;
use std::net::SocketAddr;
use std::time::Duration;

/// Changes that one row holds; beyond that the shortest spans are merged.
pub(super) const CHANGES: usize = 256;
/// Where merging begins: nobody can see less in a picture of a second.
const FINEST: Duration = Duration::from_millis(1);

/// What a connection does, in the order in which it is drawn: later ones lie
/// above.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Doing {
    Waiting,
    /// Requests and waits that are too short to draw.
    Quick,
    Serving,
    Lingering,
    /// Cut, and not closed yet.
    Cut,
}

/// From when on a connection did what.
pub(super) type Change = (Duration, Doing);

pub(super) struct Row {
    pub(super) peer: SocketAddr,
    pub(super) opened: Duration,
    changes: Vec<Change>,
    /// Spans shorter than this are merged, once there were too many.
    grain: Duration,
    pub(super) requests: u64,
    pub(super) end: Option<End>,
}

pub(super) struct End {
    pub(super) at: Duration,
    pub(super) outcome: Outcome,
    pub(super) received: u64,
    pub(super) sent: u64,
}

impl Row {
    pub(super) fn new(peer: SocketAddr, opened: Duration, doing: Doing) -> Self {
        Self {
            peer,
            opened,
            changes: vec![(opened, doing)],
            grain: Duration::ZERO,
            requests: 0,
            end: None,
        }
    }

    pub(super) fn doing(&self) -> Doing {
        self.changes.last().map_or(Doing::Waiting, |last| last.1)
    }

    /// From now on it does this. Returns how many changes were merged away.
    pub(super) fn change(&mut self, at: Duration, doing: Doing) -> usize {
        if self.doing() == doing {
            return 0;
        }
        self.changes.push((at, doing));
        match self.changes.len() {
            CHANGES.. => self.merge(),
            _ => 0,
        }
    }

    /// Halves the changes at least, so that it is seldom.
    fn merge(&mut self) -> usize {
        let before = self.changes.len();
        loop {
            // How long the last one takes is not known yet: it stays.
            self.changes = merged(&self.changes, Duration::MAX, self.grain);
            if self.changes.len() <= CHANGES / 2 {
                return before - self.changes.len();
            }
            self.grain = (self.grain * 2).max(FINEST);
        }
    }

    /// What it did, merged to this grain, and when that ended.
    pub(super) fn spans(&self, now: Duration, grain: Duration) -> Vec<(Duration, Duration, Doing)> {
        let end = self.end.as_ref().map_or(now, |end| end.at);
        let changes = merged(&self.changes, end, grain);
        let ends = changes.iter().skip(1).map(|next| next.0).chain([end]);
        let spans = changes.iter().zip(ends);
        spans.map(|(&(at, doing), end)| (at, end, doing)).collect()
    }
}

/// Requests and waits that follow each other and are all shorter than `grain`
/// become one span, except where there are but one or two: a lone request
/// between two long waits is worth seeing.
fn merged(changes: &[Change], end: Duration, grain: Duration) -> Vec<Change> {
    let ends = changes.iter().skip(1).map(|next| next.0).chain([end]);
    let is_short = |(change, end): (&Change, Duration)| {
        change.1 == Doing::Quick
            || change.1 <= Doing::Serving && end.saturating_sub(change.0) < grain
    };
    let short: Vec<bool> = changes.iter().zip(ends).map(is_short).collect();
    let mut merged = Vec::new();
    let mut from = 0;
    while from < changes.len() {
        let run = short[from..].iter().take_while(|&&short| short).count();
        let all = &changes[from..from + run.max(1)];
        if run > 2 || all.iter().any(|change| change.1 == Doing::Quick) {
            merged.push((all[0].0, Doing::Quick));
        } else {
            merged.extend_from_slice(all);
        }
        from += run.max(1);
    }
    merged
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    fn row() -> Row {
        Row::new(([127, 0, 0, 1], 1).into(), Duration::ZERO, Doing::Waiting)
    }

    #[test]
    fn quick_requests_are_merged_and_a_lone_one_is_kept() {
        let mut row = row();
        for at in [1000, 3000, 3010, 3020, 3030] {
            row.change(at * MS, Doing::Serving);
            row.change(at * MS + MS, Doing::Waiting);
        }
        row.change(9000 * MS, Doing::Lingering);
        let spans = row.spans(9001 * MS, 100 * MS);
        let doing: Vec<_> = spans.iter().map(|span| span.2).collect();
        assert_eq!(
            doing,
            [
                Doing::Waiting,
                Doing::Serving,
                Doing::Waiting,
                Doing::Quick,
                Doing::Waiting,
                Doing::Lingering
            ]
        );
        assert_eq!((spans[3].0, spans[3].1), (3000 * MS, 3031 * MS));
        assert_eq!(row.spans(9001 * MS, Duration::ZERO).len(), 12);
    }

    #[test]
    fn a_row_is_bounded_however_long_and_busy_it_is() {
        let mut row = row();
        let mut left_out = 0;
        for at in 1..1_000_000 {
            left_out += row.change(2 * at * MS, Doing::Serving);
            left_out += row.change((2 * at + 1) * MS, Doing::Waiting);
            assert!(row.changes.len() < CHANGES);
        }
        assert_eq!(row.doing(), Doing::Waiting);
        assert_eq!(row.changes.len() + left_out, 1_999_999);
        // In order, and nothing of its life is missing.
        assert!(row.changes.is_sorted_by_key(|change| change.0));
        assert_eq!(row.changes[0].0, Duration::ZERO);
    }
}
