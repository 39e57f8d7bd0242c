//! One figure of one kind.

use serde::{Deserialize, Serialize};

use super::{Interval, interval_of_median};

/// A sample further from the median than so many median absolute deviations is flagged, never dropped:
/// ten standard deviations of a normal distribution, 10 x 1.4826 (the bound that hyperfine uses).
const OUTLIER: f64 = 14.826;

/// What the samples of one figure say.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Estimate {
    /// How many samples.
    pub n: usize,
    /// The middle one; with an even number, halfway between the two middle ones.
    pub median: f64,
    /// The interval of the median; absent with fewer than three samples.
    pub interval: Option<Interval>,
    /// The smallest: what it costs when nothing disturbs it.
    pub min: f64,
    /// The largest.
    pub max: f64,
    /// Samples that lie far out.
    pub flagged: usize,
}

impl Estimate {
    /// What `samples` say; None when there are none.
    pub fn of(samples: &[f64]) -> Option<Estimate> {
        let median = median(samples)?;
        let ends = samples.iter().fold((f64::MAX, f64::MIN), |(min, max), x| (min.min(*x), max.max(*x)));
        Some(Estimate {
            n: samples.len(),
            median,
            interval: interval_of_median(samples),
            min: ends.0,
            max: ends.1,
            flagged: flagged(samples, median),
        })
    }
}

fn flagged(samples: &[f64], middle: f64) -> usize {
    let distances: Vec<f64> = samples.iter().map(|sample| (sample - middle).abs()).collect();
    let bound = median(&distances).unwrap_or(0.0) * OUTLIER;
    // Where most samples are equal, any other would lie infinitely far out.
    if bound == 0.0 { 0 } else { distances.iter().filter(|distance| **distance > bound).count() }
}

/// The median of `samples`; None when there are none.
pub fn median(samples: &[f64]) -> Option<f64> {
    (!samples.is_empty()).then(|| median_in_place(&mut samples.to_vec()))
}

/// The median of at least one sample, which it reorders.
pub(super) fn median_in_place(samples: &mut [f64]) -> f64 {
    let middle = samples.len() / 2;
    let even = samples.len().is_multiple_of(2);
    let (below, upper, _) = samples.select_nth_unstable_by(middle, f64::total_cmp);
    let lower = || below.iter().copied().fold(f64::MIN, f64::max);
    if even { f64::midpoint(lower(), *upper) } else { *upper }
}

/// The quantile `q` (nearest rank) when there are at least ten samples beyond it: the 95th percentile needs
/// 200, the 99th 1,000.
pub fn quantile_if_known(samples: &[f64], q: f64) -> Option<f64> {
    let beyond = (samples.len() as f64 * (1.0 - q)).round() as usize;
    if beyond < 10 {
        return None;
    }
    let mut sorted = samples.to_vec();
    sorted.sort_unstable_by(f64::total_cmp);
    let rank = (q * sorted.len() as f64).ceil() as usize;
    sorted.get(rank.max(1) - 1).copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn median_of_odd_and_even() {
        assert_eq!(Estimate::of(&[3.0, 1.0, 2.0]).unwrap().median, 2.0);
        let even = Estimate::of(&[4.0, 1.0, 2.0, 3.0]).unwrap();
        assert_eq!((even.n, even.min, even.median, even.max), (4, 1.0, 2.5, 4.0));
        assert_eq!(Estimate::of(&[]), None);
        assert_eq!(median(&[-2.0, -1.0]), Some(-1.5));
    }

    #[test]
    fn what_lies_far_out_is_flagged_and_kept() {
        let mut samples: Vec<f64> = (0..20).map(|i| 100.0 + f64::from(i % 5)).collect();
        samples.push(1000.0);
        let estimate = Estimate::of(&samples).unwrap();
        assert_eq!((estimate.flagged, estimate.n, estimate.max), (1, 21, 1000.0));
        assert_eq!(Estimate::of(&[7.0, 7.0, 7.0, 9.0]).unwrap().flagged, 0);
    }

    #[test]
    fn far_quantiles_need_many_samples() {
        let samples: Vec<f64> = (1..=200).map(f64::from).collect();
        assert_eq!(quantile_if_known(&samples, 0.95), Some(190.0));
        assert_eq!(quantile_if_known(&samples, 0.99), None);
        assert_eq!(quantile_if_known(&samples[..199], 0.95), Some(190.0));
        assert_eq!(quantile_if_known(&samples[..100], 0.95), None);
    }
}
