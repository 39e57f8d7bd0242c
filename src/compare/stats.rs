//! What a handful of samples says: median and range, and ratios pair by pair.

use serde::Serialize;

/// Median and range of some samples.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Summary {
    /// How many samples.
    pub n: usize,
    /// The smallest.
    pub min: f64,
    /// The middle one; with an even number, halfway between the two middle ones.
    pub median: f64,
    /// The largest.
    pub max: f64,
}

impl Summary {
    /// Summary of `samples`; None when there are none.
    pub fn of(samples: impl IntoIterator<Item = f64>) -> Option<Summary> {
        let mut sorted: Vec<f64> = samples.into_iter().collect();
        sorted.sort_by(f64::total_cmp);
        let (min, max) = (*sorted.first()?, *sorted.last()?);
        let middle = sorted.len() / 2;
        let median = if sorted.len().is_multiple_of(2) {
            f64::midpoint(sorted[middle - 1], sorted[middle])
        } else {
            sorted[middle]
        };
        Some(Summary { n: sorted.len(), min, median, max })
    }
}

/// The median of `over / under`, block by block: drift that hits a whole block cancels out.
/// Blocks where either is missing, or `under` is zero, do not count.
pub fn paired_ratio(pairs: impl IntoIterator<Item = (Option<f64>, Option<f64>)>) -> Option<f64> {
    let ratios = pairs.into_iter().filter_map(|(over, under)| match (over, under) {
        (Some(over), Some(under)) if under > 0.0 => Some(over / under),
        _ => None,
    });
    Summary::of(ratios).map(|summary| summary.median)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn median_of_odd_and_even() {
        assert_eq!(Summary::of([3.0, 1.0, 2.0]).unwrap().median, 2.0);
        let even = Summary::of([4.0, 1.0, 2.0, 3.0]).unwrap();
        assert_eq!((even.n, even.min, even.median, even.max), (4, 1.0, 2.5, 4.0));
        assert_eq!(Summary::of([]), None);
    }

    #[test]
    fn ratio_is_paired_and_skips_gaps() {
        // The machine is twice as slow in the second block: the ratio does not notice.
        let pairs =
            [(Some(30.0), Some(10.0)), (Some(60.0), Some(20.0)), (None, Some(1.0)), (Some(1.0), Some(0.0))];
        assert_eq!(paired_ratio(pairs), Some(3.0));
        assert_eq!(paired_ratio([(None, None)]), None);
    }
}
