//! Two series that have no blocks in common: two hosts, two versions.

use serde::Serialize;

use super::estimate::median_in_place;
use super::{Interval, RESAMPLES, Random, median};

/// The ratio of two medians.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Unpaired {
    /// The second median over the first.
    pub ratio: f64,
    /// Its interval, both series resampled on their own; absent when one has fewer than three samples.
    pub interval: Option<Interval>,
}

impl Unpaired {
    /// How `after` stands to `before`; None when one is empty or its median is not above zero.
    pub fn of(before: &[f64], after: &[f64], random: &mut Random) -> Option<Unpaired> {
        let (under, over) = (median(before)?, median(after)?);
        if under <= 0.0 || over <= 0.0 {
            return None;
        }
        let enough = before.len() >= 3 && after.len() >= 3;
        Some(Unpaired { ratio: over / under, interval: enough.then(|| interval(before, after, random)) })
    }
}

fn interval(before: &[f64], after: &[f64], random: &mut Random) -> Interval {
    let mut drawn = (vec![0.0; before.len()], vec![0.0; after.len()]);
    let mut ratios: Vec<f64> = (0..RESAMPLES)
        .map(|_| {
            drawn.0.fill_with(|| before[random.below(before.len())]);
            drawn.1.fill_with(|| after[random.below(after.len())]);
            median_in_place(&mut drawn.1) / median_in_place(&mut drawn.0)
        })
        .collect();
    ratios.sort_unstable_by(f64::total_cmp);
    Interval { low: ratios[RESAMPLES / 40 - 1], high: ratios[RESAMPLES - RESAMPLES / 40 - 1] }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn twice_as_much_is_seen_and_the_same_is_not() {
        let mut random = Random::new(1, "series");
        let mut series =
            |middle: f64| -> Vec<f64> { (0..40).map(|_| middle * (0.1 * random.normal()).exp()).collect() };
        let (one, same, twice) = (series(5.0), series(5.0), series(10.0));
        let ends = |other: &[f64]| {
            Unpaired::of(&one, other, &mut Random::new(2, "ratio")).unwrap().interval.unwrap()
        };
        assert!(ends(&same).low < 1.0 && 1.0 < ends(&same).high, "{:?}", ends(&same));
        assert!(ends(&twice).low > 1.7 && ends(&twice).high < 2.4, "{:?}", ends(&twice));
    }

    #[test]
    fn too_little_gives_no_interval() {
        let of = |before: &[f64], after: &[f64]| Unpaired::of(before, after, &mut Random::new(2, "ratio"));
        assert_eq!(of(&[1.0, 1.0], &[2.0, 2.0, 2.0]), Some(Unpaired { ratio: 2.0, interval: None }));
        assert_eq!(of(&[], &[1.0]), None);
        assert_eq!(of(&[0.0], &[1.0]), None);
    }
}
