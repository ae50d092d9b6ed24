//! What was sent and what came of it.

use crate::histogram::{Histogram, millis};
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

/// Echoes came, and with a count all of them.
pub(crate) const ALL_WELL: u8 = 0;
/// No echo came, or fewer than were asked for.
pub(crate) const TOO_FEW: u8 = 1;
/// Something else, a wrong echo above all.
pub(crate) const WRONG: u8 = 2;

/// The sums over all connections. Relaxed, because each is a number of its
/// own, read when all threads have ended.
#[derive(Default)]
pub(crate) struct Tally {
    /// Messages of which the kernel took a byte at least.
    pub(crate) sent: AtomicU64,
    /// Messages that came back as they were.
    pub(crate) echoed: AtomicU64,
    /// Echoes with a wrong byte, and times that bytes came unasked.
    pub(crate) mismatched: AtomicU64,
    /// Messages whose echo did not come, or not all of it.
    pub(crate) lost: AtomicU64,
    /// Of these, those of which no byte came before an orderly end of file:
    /// they may have crossed it on their way, and then nobody had read them.
    pub(crate) crossed: AtomicU64,
    /// Connections made in place of others.
    pub(crate) reconnected: AtomicU64,
    /// Connections that could not be had.
    pub(crate) unreachable: AtomicU64,
    pub(crate) times: Histogram,
}

/// Returns a number of bytes in words.
pub(crate) fn bytes(count: usize) -> String {
    match count {
        1 => "1 byte".to_owned(),
        _ => format!("{count} bytes"),
    }
}

pub(crate) fn one_more(count: &AtomicU64) {
    count.fetch_add(1, Relaxed);
}

impl Tally {
    /// The exit status, where so many echoes were asked for.
    pub(crate) fn status(&self, asked: Option<u64>) -> u8 {
        let echoed = self.echoed.load(Relaxed);
        if self.mismatched.load(Relaxed) > 0 {
            WRONG
        } else if echoed < asked.unwrap_or(1) || self.unreachable.load(Relaxed) > 0 {
            TOO_FEW
        } else {
            ALL_WELL
        }
    }

    /// The last lines, as ping(8) has them.
    pub(crate) fn summary(&self, target: &impl fmt::Display, took: Duration) -> String {
        let [
            sent,
            echoed,
            mismatched,
            lost,
            crossed,
            reconnected,
            unreachable,
        ] = [
            &self.sent,
            &self.echoed,
            &self.mismatched,
            &self.lost,
            &self.crossed,
            &self.reconnected,
            &self.unreachable,
        ]
        .map(|count| count.load(Relaxed));
        let mut text = format!(
            "--- {target} echo statistics ---\n\
             sent {sent}, echoed {echoed}, mismatched {mismatched}, lost {lost} ({crossed} crossed), \
             reconnected {reconnected}, unreachable {unreachable}, time {:.0} ms",
            millis(took)
        );
        if echoed > 0 {
            let [min, median, p99, max] = [
                self.times.least(),
                self.times.percentile(50),
                self.times.percentile(99),
                self.times.greatest(),
            ]
            .map(millis);
            text +=
                &format!("\nrtt min/median/p99/max = {min:.3}/{median:.3}/{p99:.3}/{max:.3} ms");
        }
        if echoed > 1 {
            text += &format!("\n{}", self.times.to_string().trim_end_matches('\n'));
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tally(echoed: u64, mismatched: u64, unreachable: u64) -> Tally {
        let tally = Tally::default();
        tally.echoed.store(echoed, Relaxed);
        tally.mismatched.store(mismatched, Relaxed);
        tally.unreachable.store(unreachable, Relaxed);
        tally
    }

    #[test]
    fn the_status_is_pings_and_a_wrong_echo_is_the_worst() {
        assert_eq!(tally(1, 0, 0).status(None), ALL_WELL);
        assert_eq!(tally(0, 0, 0).status(None), TOO_FEW);
        assert_eq!(tally(3, 0, 0).status(Some(3)), ALL_WELL);
        assert_eq!(tally(2, 0, 0).status(Some(3)), TOO_FEW);
        assert_eq!(tally(9, 0, 1).status(None), TOO_FEW);
        assert_eq!(tally(0, 1, 0).status(None), WRONG);
        assert_eq!(tally(3, 1, 1).status(Some(3)), WRONG);
    }

    #[test]
    fn without_an_echo_there_are_no_times() {
        let text = tally(0, 0, 1).summary(&"there", Duration::from_millis(7));
        assert_eq!(
            text,
            "--- there echo statistics ---\nsent 0, echoed 0, mismatched 0, lost 0 (0 crossed), \
             reconnected 0, unreachable 1, time 7 ms"
        );
    }
}
