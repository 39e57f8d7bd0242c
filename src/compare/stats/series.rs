//! Samples in their order: drift, and growth with the number of sandboxes.

use super::median;

/// A rank correlation beyond this is a drift that the report warns of.
pub const DRIFT: f64 = 0.3;

/// Spearman's rank correlation of `values` with their order; ties share their mean rank. None with fewer
/// than three values or when all are equal.
pub fn rank_correlation(values: &[f64]) -> Option<f64> {
    if values.len() < 3 {
        return None;
    }
    let order: Vec<f64> = (0..values.len()).map(|place| place as f64).collect();
    correlation(&order, &ranks(values))
}

fn ranks(values: &[f64]) -> Vec<f64> {
    let mut places: Vec<usize> = (0..values.len()).collect();
    places.sort_by(|one, other| values[*one].total_cmp(&values[*other]));
    let mut ranks = vec![0.0; values.len()];
    for run in places.chunk_by(|one, other| values[*one] == values[*other]) {
        let below = values.iter().filter(|value| **value < values[run[0]]).count();
        let mean = below as f64 + (run.len() - 1) as f64 / 2.0;
        run.iter().for_each(|place| ranks[*place] = mean);
    }
    ranks
}

/// Pearson's correlation; None when one side does not vary.
fn correlation(one: &[f64], other: &[f64]) -> Option<f64> {
    let mean = |values: &[f64]| values.iter().sum::<f64>() / values.len() as f64;
    let (middle_one, middle_other) = (mean(one), mean(other));
    let product = |from: &dyn Fn(usize) -> f64| (0..one.len()).map(from).sum::<f64>();
    let both = product(&|i| (one[i] - middle_one) * (other[i] - middle_other));
    let (of_one, of_other) =
        (product(&|i| (one[i] - middle_one).powi(2)), product(&|i| (other[i] - middle_other).powi(2)));
    (of_one > 0.0 && of_other > 0.0).then(|| both / (of_one * of_other).sqrt())
}

/// The Theil-Sen line through points (x, y): slope and intercept, by medians, so that one bad point does not
/// turn it. None without two different x.
pub fn slope(points: &[(f64, f64)]) -> Option<(f64, f64)> {
    let slopes: Vec<f64> = points
        .iter()
        .enumerate()
        .flat_map(|(i, one)| points[i + 1..].iter().map(move |other| (one, other)))
        .filter(|(one, other)| one.0 != other.0)
        .map(|(one, other)| (other.1 - one.1) / (other.0 - one.0))
        .collect();
    let slope = median(&slopes)?;
    let rests: Vec<f64> = points.iter().map(|(x, y)| y - slope * x).collect();
    Some((slope, median(&rests)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rank_correlation_is_that_of_scipy() {
        // scipy.stats.spearmanr(range(6), [1, 3, 2, 5, 4, 6]).statistic
        assert!(
            (rank_correlation(&[1.0, 3.0, 2.0, 5.0, 4.0, 6.0]).unwrap() - 0.885_714_285_714).abs() < 1e-9
        );
        // With ties: scipy.stats.spearmanr(range(5), [2, 2, 1, 3, 3]).statistic
        assert!((rank_correlation(&[2.0, 2.0, 1.0, 3.0, 3.0]).unwrap() - 0.632_455_532_034).abs() < 1e-9);
        assert_eq!(rank_correlation(&[3.0, 3.0, 3.0]), None);
        assert_eq!(rank_correlation(&[1.0, 2.0]), None);
    }

    #[test]
    fn one_bad_point_does_not_turn_the_line() {
        let mut points: Vec<(f64, f64)> = (0..9).map(|x| (f64::from(x), 2.0 * f64::from(x) + 1.0)).collect();
        assert_eq!(slope(&points), Some((2.0, 1.0)));
        points[4].1 = 1000.0;
        assert_eq!(slope(&points), Some((2.0, 1.0)));
        assert_eq!(slope(&[(1.0, 1.0), (1.0, 2.0)]), None);
    }
}
