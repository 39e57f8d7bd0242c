//! Two kinds, block by block: what drifts on the host hits both samples of a block and cancels out.

use serde::{Deserialize, Serialize};

use super::{Interval, Random, interval_of_median, median};

/// An effect smaller than this is not called a difference, however sure it is.
pub const PRACTICAL: f64 = 0.05;
/// Random signs tried by the permutation test.
const PERMUTATIONS: usize = 9_999;

/// How one kind stands to another.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Paired {
    /// Blocks in which both were measured.
    pub n: usize,
    /// The median of the ratios.
    pub ratio: f64,
    /// Its interval; absent with fewer than three blocks.
    pub interval: Option<Interval>,
    /// How much more it is: the Hodges-Lehmann estimate of the differences, in the figure's unit.
    pub shift: f64,
    /// Chance of so large a ratio if the two were the same: the signs of the logarithms flipped at random.
    pub p: f64,
}

impl Paired {
    /// Compares pairs of (this, the other). Pairs with a gap or with a value that is not above zero do not
    /// count; None when no pair does.
    pub fn of(pairs: &[(Option<f64>, Option<f64>)], random: &mut Random) -> Option<Paired> {
        let known: Vec<(f64, f64)> = pairs
            .iter()
            .filter_map(|(over, under)| Some(((*over)?, (*under)?)))
            .filter(|(over, under)| *over > 0.0 && *under > 0.0)
            .collect();
        let logs: Vec<f64> = known.iter().map(|(over, under)| (over / under).ln()).collect();
        let differences: Vec<f64> = known.iter().map(|(over, under)| over - under).collect();
        let log = median(&logs)?;
        let interval = interval_of_median(&logs);
        Some(Paired {
            n: known.len(),
            ratio: log.exp(),
            interval: interval.map(|ends| Interval { low: ends.low.exp(), high: ends.high.exp() }),
            shift: hodges_lehmann(&differences)?,
            p: permutation(&logs, random),
        })
    }
}

/// The median of the means of all pairs of values, each with itself too (Hodges and Lehmann 1963).
fn hodges_lehmann(values: &[f64]) -> Option<f64> {
    let means = values
        .iter()
        .enumerate()
        .flat_map(|(i, one)| values[i..].iter().map(move |other| f64::midpoint(*one, *other)));
    median(&means.collect::<Vec<f64>>())
}

/// The share of random sign flips whose mean is as far from zero as the one seen (two-sided).
fn permutation(logs: &[f64], random: &mut Random) -> f64 {
    let seen = logs.iter().sum::<f64>().abs();
    let as_far = (0..PERMUTATIONS)
        .filter(|_| {
            let signs = |chunk: &[f64], bits: u64| -> f64 {
                chunk.iter().enumerate().map(|(i, log)| if bits >> i & 1 == 0 { *log } else { -log }).sum()
            };
            let flipped: f64 = logs.chunks(64).map(|chunk| signs(chunk, random.bits())).sum();
            flipped.abs() >= seen * (1.0 - 1e-12)
        })
        .count();
    (as_far + 1) as f64 / (PERMUTATIONS + 1) as f64
}

/// What this machine cannot tell apart today, as a share: the far end of the interval of the ratio of two
/// launches of the same kind (an A/A comparison).
pub fn noise_floor(same: &Paired) -> Option<f64> {
    let Interval { low, high } = same.interval?;
    Some(f64::max(high, 1.0 / low) - 1.0)
}

/// True when the interval excludes 1 and the ratio is further from 1 than both [`PRACTICAL`] and `floor`.
pub fn differs(ratio: f64, interval: Option<Interval>, floor: f64) -> bool {
    let distance = f64::max(ratio, 1.0 / ratio) - 1.0;
    interval.is_some_and(|ends| ends.low > 1.0 || ends.high < 1.0) && distance > f64::max(PRACTICAL, floor)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn paired(pairs: &[(f64, f64)]) -> Paired {
        let pairs: Vec<_> = pairs.iter().map(|(one, other)| (Some(*one), Some(*other))).collect();
        Paired::of(&pairs, &mut Random::new(2, "test")).unwrap()
    }

    #[test]
    fn ratio_is_paired_and_skips_gaps() {
        // The machine is twice as slow in the second block: the ratio does not notice.
        let pairs =
            [(Some(30.0), Some(10.0)), (Some(60.0), Some(20.0)), (None, Some(1.0)), (Some(1.0), Some(0.0))];
        let paired = Paired::of(&pairs, &mut Random::new(2, "test")).unwrap();
        assert_eq!((paired.n, paired.interval), (2, None));
        assert!((paired.ratio - 3.0).abs() < 1e-12);
        assert_eq!(Paired::of(&[(None, None)], &mut Random::new(2, "test")), None);
    }

    #[test]
    fn shift_is_that_of_r() {
        // R: wilcox.test(c(1.1, 2.2, 2.9, 4.2, 10), mu = 0, conf.int = TRUE) has the pseudomedian 3.2 exactly
        // as the median of the 15 Walsh averages.
        assert_eq!(hodges_lehmann(&[1.1, 2.2, 2.9, 4.2, 10.0]), Some(3.2));
        assert_eq!(hodges_lehmann(&[]), None);
    }

    #[test]
    fn the_same_does_not_differ_and_twice_as_much_does() {
        let mut random = Random::new(4, "noise");
        let mut pairs = |factor: f64| -> Vec<(f64, f64)> {
            (0..40).map(|_| (factor * (0.1 * random.normal()).exp(), (0.1 * random.normal()).exp())).collect()
        };
        let same = paired(&pairs(1.0));
        let floor = noise_floor(&same).unwrap();
        assert!((0.005..0.2).contains(&floor), "{floor}");
        assert!(!differs(same.ratio, same.interval, floor) && same.p > 0.05, "{same:?}");
        let twice = paired(&pairs(2.0));
        assert!(differs(twice.ratio, twice.interval, floor) && twice.p < 0.001, "{twice:?}");
        assert!(twice.interval.unwrap().low < 2.0 && 2.0 < twice.interval.unwrap().high, "{twice:?}");
    }

    #[test]
    fn a_sure_but_small_effect_is_no_difference() {
        let sure = Some(Interval { low: 1.02, high: 1.04 });
        assert!(!differs(1.03, sure, 0.01));
        assert!(!differs(1.2, Some(Interval { low: 1.1, high: 1.3 }), 0.25));
        assert!(!differs(1.2, None, 0.0));
        assert!(differs(0.8, Some(Interval { low: 0.7, high: 0.9 }), 0.1));
    }
}
