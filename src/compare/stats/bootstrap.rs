//! The bootstrap interval of a median, exactly: what ever more resamples tend to, without drawing any.
//!
//! A resample draws as many values as there are samples, with replacement. How often its median is a given
//! value is a sum of binomial terms (Efron, The Jackknife, the Bootstrap and Other Resampling Plans, 1982,
//! chapter 10), so the 2.5 and 97.5 per cent points of all resamples can be computed. The result has no seed, and
//! whoever has the samples gets it to the last digit.

use super::Interval;

/// Fewer samples say nothing of an interval.
const AT_LEAST: usize = 3;
/// What is left out on either side.
const TAIL: f64 = 0.025;

/// The percentile bootstrap interval of the median of `samples`: the least medians that at least 2.5 and at
/// least 97.5 per cent of all resamples do not exceed. None with fewer than three samples.
pub fn interval_of_median(samples: &[f64]) -> Option<Interval> {
    let n = samples.len();
    if n < AT_LEAST {
        return None;
    }
    let mut sorted = samples.to_vec();
    sorted.sort_unstable_by(f64::total_cmp);
    let mut medians = if n.is_multiple_of(2) { of_even(&sorted) } else { of_odd(&sorted) };
    medians.sort_unstable_by(|one, other| one.0.total_cmp(&other.0));
    let end = |share: f64| {
        let mut sum = 0.0;
        let reached = medians.iter().find(|(_, chance)| {
            sum += chance;
            // The chances add up to one but for the last digits.
            sum >= share - 1e-9
        });
        reached.or(medians.last()).map(|(median, _)| *median)
    };
    Some(Interval { low: end(TAIL)?, high: end(1.0 - TAIL)? })
}

/// Medians of an odd number of draws, each with its chance.
fn of_odd(sorted: &[f64]) -> Vec<(f64, f64)> {
    let n = sorted.len();
    let at_most: Vec<f64> =
        (0..=n).map(|rank| chance_of_at_least(n, n.div_ceil(2), rank as f64 / n as f64)).collect();
    sorted.iter().enumerate().map(|(place, value)| (*value, at_most[place + 1] - at_most[place])).collect()
}

/// Medians of an even number of draws: halfway between the two middle ones, which are of ranks `i` and `j`.
fn of_even(sorted: &[f64]) -> Vec<(f64, f64)> {
    let (n, half) = (sorted.len(), sorted.len() / 2);
    let ln_ways = ln_choose(n, half);
    // The chance that `half` draws lie in the ranks up to `rank` and reach it: as a logarithm's two terms.
    let reach = |rank: usize| {
        let power = |rank: usize| (half as f64 * (rank as f64 / n as f64).ln() + ln_ways / 2.0).exp();
        power(rank) - if rank > 1 { power(rank - 1) } else { 0.0 }
    };
    let lower_at_most: Vec<f64> =
        (0..=n).map(|rank| chance_of_at_least(n, half, rank as f64 / n as f64)).collect();
    let reaches: Vec<f64> = (1..=n).map(reach).collect();
    // Middle draws further from the middle than this many ranks do not happen.
    let window = (8.0 * (n as f64).sqrt()) as usize + 10;
    let ranks = half.saturating_sub(window).max(1)..=(half + window).min(n);
    let mut medians = Vec::new();
    for i in ranks.clone() {
        let mut apart = 0.0;
        for j in (i + 1)..=*ranks.end() {
            let chance = reaches[i - 1] * reaches[n - j];
            apart += chance;
            medians.push((f64::midpoint(sorted[i - 1], sorted[j - 1]), chance));
        }
        let both = lower_at_most[i] - lower_at_most[i - 1] - apart;
        medians.push((sorted[i - 1], both.max(0.0)));
    }
    medians
}

/// The chance that at least `least` of `n` draws succeed, each with chance `p`.
fn chance_of_at_least(n: usize, least: usize, p: f64) -> f64 {
    if p <= 0.0 || p >= 1.0 {
        return if p >= 1.0 || least == 0 { 1.0 } else { 0.0 };
    }
    let term = |k: usize| (ln_choose(n, k) + k as f64 * p.ln() + (n - k) as f64 * (1.0 - p).ln()).exp();
    // From the largest term outwards, each next one is a ratio away.
    let mut sum = 0.0;
    let mut value = term(least);
    for k in least..=n {
        sum += value;
        value *= (n - k) as f64 / (k + 1) as f64 * p / (1.0 - p);
    }
    sum.min(1.0)
}

/// The logarithm of the number of ways to choose `k` of `n`.
fn ln_choose(n: usize, k: usize) -> f64 {
    (1..=k).map(|i| ((n - k + i) as f64 / i as f64).ln()).sum()
}

#[cfg(test)]
mod tests {
    use super::super::{Random, median};
    use super::*;

    /// The same by drawing, as a textbook does it.
    fn drawn(samples: &[f64], resamples: usize) -> Interval {
        let mut random = Random::new(3, "drawn");
        let mut medians: Vec<f64> = (0..resamples)
            .map(|_| {
                median(&(0..samples.len()).map(|_| samples[random.below(samples.len())]).collect::<Vec<_>>())
                    .unwrap()
            })
            .collect();
        medians.sort_by(f64::total_cmp);
        Interval { low: medians[resamples / 40 - 1], high: medians[resamples - resamples / 40 - 1] }
    }

    #[test]
    fn chances_add_up_to_one() {
        for n in [3, 4, 10, 25, 40, 101, 500] {
            let sorted: Vec<f64> = (0..n).map(f64::from).collect();
            let medians = if n % 2 == 0 { of_even(&sorted) } else { of_odd(&sorted) };
            let sum: f64 = medians.iter().map(|(_, chance)| chance).sum();
            assert!((sum - 1.0).abs() < 1e-6, "{n}: {sum}");
        }
    }

    #[test]
    fn drawing_gives_the_same() {
        let mut random = Random::new(1, "samples");
        for n in [5, 10, 20, 33, 40] {
            let samples: Vec<f64> = (0..n).map(|_| random.normal().exp()).collect();
            let (exact, drawn) = (interval_of_median(&samples).unwrap(), drawn(&samples, 20_000));
            let close = |one: f64, other: f64| (one / other - 1.0).abs() < 0.08;
            assert!(close(exact.low, drawn.low) && close(exact.high, drawn.high), "{n}: {exact:?} {drawn:?}");
        }
    }

    #[test]
    fn an_interval_covers_the_median_as_often_as_it_says() {
        // Log-normal samples, as latencies are; the median of exp(normal) is 1.
        let trials = 2000;
        let mut random = Random::new(1, "coverage");
        for n in [10, 25, 40] {
            let holds = (0..trials).filter(|_| {
                let samples: Vec<f64> = (0..n).map(|_| random.normal().exp()).collect();
                let interval = interval_of_median(&samples).unwrap();
                interval.low <= 1.0 && 1.0 <= interval.high
            });
            let share = holds.count() as f64 / f64::from(trials);
            assert!(
                (0.92..=0.98).contains(&share),
                "{share} of the intervals of {n} samples hold the median"
            );
        }
    }

    #[test]
    fn small_cases_are_known() {
        // Of 27 resamples of {1, 2, 3}, 7 have the median 1 and 7 have 3: both ends are the range.
        assert_eq!(interval_of_median(&[3.0, 1.0, 2.0]), Some(Interval { low: 1.0, high: 3.0 }));
        assert_eq!(interval_of_median(&[1.0, 2.0]), None);
        assert_eq!(interval_of_median(&[5.0; 40]), Some(Interval { low: 5.0, high: 5.0 }));
        // scipy.stats.binom: the order statistics that hold the median of 40 are the 14th and the 27th.
        let samples: Vec<f64> = (1..=40).map(f64::from).collect();
        let Interval { low, high } = interval_of_median(&samples).unwrap();
        assert!((13.5..=15.0).contains(&low) && (26.0..=27.5).contains(&high), "{low} {high}");
    }
}
