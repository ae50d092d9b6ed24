//! Round-trip times in bounded memory.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

/// Buckets to each doubling: a time is known to 1/64 of itself, 1.6 %.
const FINE_BITS: u32 = 6;
const FINE: usize = 1 << FINE_BITS;
/// Up to 64 ns a bucket for each, then 64 for each doubling up to 2^64.
const BUCKETS: usize = FINE * (1 + 64 - FINE_BITS as usize);
/// The longest bar of [`fmt::Display`].
const BAR: u64 = 40;

/// Counts times in nanoseconds, from any thread, in 30 KiB however many come.
///
/// The least and the greatest are exact. What lies between is told as the upper
/// bound of its bucket: never too small, and too large by 1.6 % at most.
pub(crate) struct Histogram {
    buckets: Vec<AtomicU64>,
    least: AtomicU64,
    greatest: AtomicU64,
}

// Relaxed throughout: counts of their own, read when all threads have ended.
impl Histogram {
    pub(crate) fn record(&self, time: Duration) {
        let nanos = u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        self.buckets[bucket(nanos)].fetch_add(1, Relaxed);
        self.least.fetch_min(nanos, Relaxed);
        self.greatest.fetch_max(nanos, Relaxed);
    }

    pub(crate) fn least(&self) -> Duration {
        Duration::from_nanos(self.least.load(Relaxed))
    }

    pub(crate) fn greatest(&self) -> Duration {
        Duration::from_nanos(self.greatest.load(Relaxed))
    }

    /// The time that `percent` of all did not exceed.
    pub(crate) fn percentile(&self, percent: u64) -> Duration {
        let counts = self.buckets.iter().map(|count| count.load(Relaxed));
        let rank = (self.total() * percent).div_ceil(100).max(1);
        let mut seen = 0;
        let found = counts.enumerate().find(|(_, count)| {
            seen += count;
            seen >= rank
        });
        let upper = found.map_or(u64::MAX, |(bucket, _)| upper(bucket));
        Duration::from_nanos(upper).clamp(self.least(), self.greatest())
    }

    fn total(&self) -> u64 {
        self.buckets.iter().map(|count| count.load(Relaxed)).sum()
    }
}

impl Default for Histogram {
    fn default() -> Self {
        Self {
            buckets: (0..BUCKETS).map(|_| AtomicU64::new(0)).collect(),
            least: AtomicU64::new(u64::MAX),
            greatest: AtomicU64::new(0),
        }
    }
}

/// Where a number is counted: its highest bit says which doubling, the six
/// below that say where in it.
fn bucket(nanos: u64) -> usize {
    let shift = (u64::BITS - nanos.leading_zeros()).saturating_sub(FINE_BITS + 1);
    // At most 127, so the cast is whole.
    #[allow(clippy::cast_possible_truncation)]
    let fine = (nanos >> shift) as usize;
    shift as usize * FINE + fine
}

/// The largest number that is counted there.
fn upper(bucket: usize) -> u64 {
    let doubling = (bucket / FINE).saturating_sub(1);
    let fine = (bucket - doubling * FINE) as u128;
    let next = (fine + 1) << doubling;
    u64::try_from(next - 1).unwrap_or(u64::MAX)
}

impl fmt::Display for Histogram {
    /// A row for each doubling from the least to the greatest.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let rows = self.buckets.chunks(FINE).map(|row| {
            let counts = row.iter().map(|count| count.load(Relaxed));
            counts.sum::<u64>()
        });
        let rows: Vec<_> = rows.collect();
        let most = rows.iter().copied().max().unwrap_or(0).max(1);
        let is_used = |row: &u64| *row > 0;
        let first = rows.iter().position(is_used).unwrap_or(0);
        let last = rows.iter().rposition(is_used).unwrap_or(0);
        for (row, &count) in rows.iter().enumerate().take(last + 1).skip(first) {
            let from = row.checked_sub(1).map_or(0, |_| upper(row * FINE - 1) + 1);
            let to = upper((row + 1) * FINE - 1);
            // A row that has any shows it.
            let bar = (count.saturating_mul(BAR)).div_ceil(most);
            let bar = "#".repeat(usize::try_from(bar).unwrap_or(0));
            let row = format!(
                "{:>10.3} to {:>10.3} ms {count:>9} {bar}",
                millis(Duration::from_nanos(from)),
                millis(Duration::from_nanos(to))
            );
            writeln!(f, "{}", row.trim_end())?;
        }
        Ok(())
    }
}

/// A time as ping(8) writes it.
pub(crate) fn millis(time: Duration) -> f64 {
    time.as_secs_f64() * 1000.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_number_has_a_bucket_that_is_close() {
        let numbers = (0..64).flat_map(|bit| {
            let power = 1u64 << bit;
            [power - 1, power, power + power / 3, power + (power - 1)]
        });
        for number in numbers.chain([u64::MAX]) {
            let bucket = bucket(number);
            let (upper, error) = (upper(bucket), upper(bucket) - number);
            assert!(bucket < BUCKETS && upper >= number, "{number}");
            assert!(error <= number / 64, "{number} is told as {upper}");
            let below = bucket.checked_sub(1).map(super::upper);
            assert!(below.is_none_or(|below| below < number), "{number}");
        }
    }

    #[test]
    fn percentiles_are_the_least_time_that_so_many_did_not_exceed() {
        let histogram = Histogram::default();
        for micros in (1..=100).rev() {
            histogram.record(Duration::from_micros(micros));
        }
        let close = |percent, micros| {
            let (told, time) = (histogram.percentile(percent), Duration::from_micros(micros));
            told >= time && told <= time + time / 64
        };
        assert!(close(50, 50) && close(99, 99) && close(1, 1) && close(100, 100));
        assert_eq!(histogram.least(), Duration::from_micros(1));
        assert_eq!(histogram.greatest(), Duration::from_micros(100));
        assert_eq!(histogram.percentile(100), histogram.greatest());
    }

    #[test]
    fn a_row_for_each_doubling_and_a_bar_for_each_row_that_has_any() {
        let histogram = Histogram::default();
        for _ in 0..80 {
            histogram.record(Duration::from_nanos(1 << 20));
        }
        histogram.record(Duration::from_nanos(1 << 22));
        let text = histogram.to_string();
        let rows: Vec<_> = text.lines().map(str::trim).collect();
        let full = "#".repeat(40);
        assert_eq!(rows[0], format!("1.049 to      2.097 ms        80 {full}"));
        assert_eq!(rows[1], "2.097 to      4.194 ms         0");
        assert_eq!(rows[2], "4.194 to      8.389 ms         1 #");
        assert_eq!(rows.len(), 3);
    }
}
