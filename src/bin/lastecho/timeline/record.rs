//! What happened, in bounded memory.

use super::row::{Doing, End, Row};
use lastecho::{Event, Outcome};
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

/// Rows there may be. With [`CHANGES`](super::row::CHANGES) each, of 24 bytes,
/// that is some 12 MiB at the very most.
const ROWS: usize = 2_000;
/// Connections that have ended before the stop and are kept; the other rows are
/// for those that are alive.
const ENDED: usize = 1_000;
/// The same where they did not end well, which is worth seeing.
const ENDED_BADLY: usize = 1_250;

/// What happened so far, in times since the start.
#[derive(Default)]
pub(super) struct Record {
    pub(super) addresses: Vec<SocketAddr>,
    /// By the connections' numbers.
    pub(super) rows: BTreeMap<u64, Row>,
    ended: usize,
    /// Connections without a row.
    pub(super) left_out: u64,
    /// Changes that were merged into others.
    pub(super) merged: usize,
    threads: u64,
    pub(super) most_threads: u64,
    /// Which signal asked for the stop, if one did.
    pub(super) signal: Option<&'static str>,
    pub(super) stop: Option<Duration>,
    pub(super) deadline: Option<Duration>,
    pub(super) cut: Option<Duration>,
}

impl Record {
    pub(super) fn note(&mut self, now: Duration, event: &Event<'_>) {
        match *event {
            Event::Ready { addresses } => self.addresses = addresses.to_vec(),
            Event::Accepted { id, peer } => self.open(now, id, peer),
            Event::Request { id, .. } => {
                self.change(now, id, Doing::Serving);
                if let Some(row) = self.rows.get_mut(&id) {
                    row.requests += 1;
                }
            }
            Event::Waiting { id } => self.change(now, id, Doing::Waiting),
            Event::Lingering { id } => self.change(now, id, Doing::Lingering),
            Event::Closed {
                id,
                outcome,
                received,
                sent,
                ..
            } => {
                let end = End {
                    at: now,
                    outcome,
                    received,
                    sent,
                };
                self.close(id, end);
            }
            Event::Stopping { deadline, .. } => {
                self.stop = Some(now);
                self.deadline = deadline.remaining().map(|left| now + left);
            }
            Event::Cutting { .. } => self.cut(now),
            Event::ThreadStarted => {
                self.threads += 1;
                self.most_threads = self.most_threads.max(self.threads);
            }
            Event::ThreadRetired => self.threads = self.threads.saturating_sub(1),
            _ => {}
        }
    }

    fn open(&mut self, now: Duration, id: u64, peer: SocketAddr) {
        if self.rows.len() >= ROWS {
            self.left_out += 1;
            return;
        }
        let doing = match self.cut {
            None => Doing::Waiting,
            Some(_) => Doing::Cut,
        };
        self.rows.insert(id, Row::new(peer, now, doing));
    }

    fn change(&mut self, now: Duration, id: u64, doing: Doing) {
        // One that was cut may not have noticed.
        let row = self.rows.get_mut(&id);
        if let Some(row) = row.filter(|row| row.doing() < Doing::Cut) {
            self.merged += row.change(now, doing);
        }
    }

    /// Those that linger are left to themselves.
    fn cut(&mut self, now: Duration) {
        self.cut = Some(now);
        let open = self.rows.values_mut().filter(|row| row.end.is_none());
        for row in open.filter(|row| row.doing() < Doing::Lingering) {
            self.merged += row.change(now, Doing::Cut);
        }
    }

    /// Keeps the row of a connection that has ended where there is room for
    /// it, and in any case if it was alive at the stop.
    fn close(&mut self, id: u64, end: End) {
        let most = match end.outcome {
            Outcome::Ended => ENDED,
            _ => ENDED_BADLY,
        };
        if self.stop.is_some() || self.ended < most {
            if let Some(row) = self.rows.get_mut(&id) {
                row.end = Some(end);
                self.ended += 1;
            }
        } else if self.rows.remove(&id).is_some() {
            self.left_out += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use lastecho::Deadline;

    const MS: Duration = Duration::from_millis(1);

    fn accept(record: &mut Record, id: u64) {
        let peer = ([127, 0, 0, 1], 1).into();
        record.note(MS, &Event::Accepted { id, peer });
    }

    fn close(record: &mut Record, id: u64, outcome: Outcome) {
        let closed = Event::Closed {
            id,
            peer: ([127, 0, 0, 1], 1).into(),
            outcome,
            received: 0,
            sent: 0,
        };
        record.note(2 * MS, &closed);
    }

    fn stop(record: &mut Record) {
        let stopping = Event::Stopping {
            left: 0,
            deadline: Deadline::NEVER,
        };
        record.note(3 * MS, &stopping);
    }

    #[test]
    fn the_first_the_failed_and_those_alive_at_the_stop_are_kept() {
        let mut record = Record::default();
        for id in 1..=5_000 {
            accept(&mut record, id);
            if id != 4_000 {
                let failed = id % 1_000 == 500;
                close(
                    &mut record,
                    id,
                    [Outcome::Ended, Outcome::Reset][usize::from(failed)],
                );
            }
        }
        stop(&mut record);
        close(&mut record, 4_000, Outcome::Cut);
        let last: Vec<_> = record.rows.keys().copied().skip(ENDED).collect();
        assert_eq!(last, [1_500, 2_500, 3_500, 4_000, 4_500]);
        assert_eq!(record.rows.len() as u64 + record.left_out, 5_000);
    }

    #[test]
    fn there_are_never_more_rows_than_the_limit() {
        let mut record = Record::default();
        for id in 1..=5_000 {
            accept(&mut record, id);
        }
        for id in 1..=5_000 {
            record.note(2 * MS, &Event::Request { id, bytes: 1 });
        }
        stop(&mut record);
        for id in 1..=5_000 {
            close(&mut record, id, Outcome::Ended);
        }
        assert_eq!((record.rows.len(), record.left_out), (ROWS, 3_000));
        assert!(record.rows.values().all(|row| row.end.is_some()));
    }

    #[test]
    fn the_cut_is_of_those_that_have_something_in_hand() {
        let mut record = Record::default();
        for id in 1..=3 {
            accept(&mut record, id);
        }
        record.note(2 * MS, &Event::Lingering { id: 1 });
        close(&mut record, 2, Outcome::Ended);
        record.note(4 * MS, &Event::Cutting { left: 2 });
        record.note(5 * MS, &Event::Waiting { id: 3 });
        accept(&mut record, 4);
        let doing: Vec<_> = record.rows.values().map(Row::doing).collect();
        assert_eq!(
            doing,
            [Doing::Lingering, Doing::Waiting, Doing::Cut, Doing::Cut]
        );
    }
}
