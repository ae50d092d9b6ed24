//! What several runs of the same measurement come to.

/// The middle of several values, and how far they spread.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Summary {
    pub(crate) median: f64,
    pub(crate) min: f64,
    pub(crate) max: f64,
}

impl Summary {
    /// `None` of no values.
    pub(crate) fn of(values: impl IntoIterator<Item = f64>) -> Option<Self> {
        let mut values: Vec<f64> = values.into_iter().collect();
        values.sort_by(f64::total_cmp);
        let (min, max) = (*values.first()?, *values.last()?);
        let (below, above) = (values[(values.len() - 1) / 2], values[values.len() / 2]);
        let median = f64::midpoint(below, above);
        Some(Self { median, min, max })
    }
}

/// How many times `ours` is of `theirs`.
pub(crate) fn ratio(ours: f64, theirs: f64) -> Option<f64> {
    (theirs > 0.0).then(|| ours / theirs)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_does_not_heed_the_outlier() {
        let summary = Summary::of([5.0, 1.0, 100.0, 4.0, 6.0]).unwrap();
        assert_eq!(
            (summary.median, summary.min, summary.max),
            (5.0, 1.0, 100.0)
        );
        assert_eq!(Summary::of([4.0, 1.0]).unwrap().median, 2.5);
        assert_eq!(Summary::of([7.0]).unwrap().median, 7.0);
        assert_eq!(Summary::of([]), None);
    }

    #[test]
    fn nothing_is_no_measure() {
        assert_eq!(ratio(3.0, 2.0), Some(1.5));
        assert_eq!(ratio(3.0, 0.0), None);
    }
}
