//! The time axis: where a moment is, and which moments are marked.

use std::time::Duration;

/// Seconds between two ticks, of which the first that fits is taken.
const STEPS: [f64; 22] = [
    0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0, 120.0,
    300.0, 600.0, 1800.0, 3600.0, 7200.0, 21_600.0,
];
const MOST_TICKS: f64 = 10.0;

/// Which time is where, from left to right.
pub(super) struct Axis {
    begin: f64,
    end: f64,
    left: f64,
    width: f64,
}

impl Axis {
    pub(super) fn new((begin, end): (Duration, Duration), left: f64, width: f64) -> Self {
        let (begin, end) = (begin.as_secs_f64(), end.as_secs_f64());
        Self {
            begin,
            end: end.max(begin + 0.001),
            left,
            width,
        }
    }

    pub(super) fn x(&self, time: Duration) -> f64 {
        let share = (time.as_secs_f64() - self.begin) / (self.end - self.begin);
        self.left + self.width * share.clamp(0.0, 1.0)
    }

    pub(super) fn shows(&self, time: Duration) -> bool {
        time.as_secs_f64() <= self.end
    }

    /// The time that a unit of length takes.
    pub(super) fn grain(&self) -> Duration {
        Duration::from_secs_f64((self.end - self.begin) / self.width)
    }

    /// Where the ticks are, and what they say.
    pub(super) fn ticks(&self) -> Vec<(f64, String)> {
        let fits = |step: &f64| (self.end - self.begin) / step <= MOST_TICKS;
        let mut steps = STEPS.iter().copied();
        // Days and years are the longest step, doubled.
        let step = steps.find(fits).unwrap_or_else(|| {
            let mut step = STEPS[STEPS.len() - 1];
            while !fits(&step) {
                step *= 2.0;
            }
            step
        });
        let mut ticks = Vec::new();
        let mut number = (self.begin / step).ceil();
        while number * step <= self.end {
            let at = Duration::from_secs_f64(number * step);
            ticks.push((self.x(at), label(number * step, step)));
            number += 1.0;
        }
        ticks
    }
}

fn label(seconds: f64, step: f64) -> String {
    match step {
        _ if step >= 3600.0 => format!("{:.0} h", seconds / 3600.0),
        _ if step >= 60.0 => format!("{:.0} min", seconds / 60.0),
        _ if step >= 1.0 => format!("{seconds:.0} s"),
        _ if step >= 0.1 => format!("{seconds:.1} s"),
        _ => format!("{:.0} ms", seconds * 1000.0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ticks(begin: f64, end: f64) -> Vec<String> {
        let times = (Duration::from_secs_f64(begin), Duration::from_secs_f64(end));
        let ticks = Axis::new(times, 0.0, 100.0).ticks();
        ticks.into_iter().map(|(_, label)| label).collect()
    }

    #[test]
    fn ticks_are_round_and_not_too_many() {
        assert_eq!(
            ticks(0.9, 4.1),
            [
                "1.0 s", "1.5 s", "2.0 s", "2.5 s", "3.0 s", "3.5 s", "4.0 s"
            ]
        );
        assert_eq!(ticks(0.0, 0.003), ["0 ms", "1 ms", "2 ms", "3 ms"]);
        assert_eq!(ticks(3_000.0, 3_300.0).len(), 11);
        assert_eq!(ticks(0.0, 10_800.0)[..3], ["0 min", "30 min", "60 min"]);
        assert!(ticks(0.0, 1e9).len() > 3);
        assert!(ticks(5.0, 5.0).len() < 12);
    }

    #[test]
    fn a_moment_has_its_place() {
        let times = (Duration::from_secs(2), Duration::from_secs(4));
        let axis = Axis::new(times, 100.0, 50.0);
        assert_eq!(axis.x(Duration::from_secs(3)), 125.0);
        assert_eq!(axis.x(Duration::from_secs(9)), 150.0);
        assert_eq!(axis.x(Duration::ZERO), 100.0);
    }
}
