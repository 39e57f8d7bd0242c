//! What samples say (pure): medians with intervals, ratios pair by pair, outliers, drift.
//!
//! Latencies are skewed, come in blocks and drift, so nothing here takes means or assumes a distribution.
//! Intervals of medians are exact ([`interval_of_median`]); what has to be drawn is drawn by a generator of a few
//! lines ([`Random`]), seeded from the report and the name of the figure. Whoever has the samples can compute all of
//! it again in another language.
//!
//! - [`Estimate`]: median, percentile bootstrap interval, range, outliers of one figure of one kind;
//! - [`Paired`]: ratio, shift and a permutation test of two kinds, block by block;
//! - [`Unpaired`]: two series without common blocks;
//! - [`differs`], [`noise_floor`]: when two things may be called different;
//! - [`rank_correlation`]: whether a figure drifted while it was measured.

mod bootstrap;
mod estimate;
mod paired;
mod random;
mod series;
mod unpaired;

pub use bootstrap::interval_of_median;
pub use estimate::{Estimate, median, quantile_if_known};
pub use paired::{PRACTICAL, Paired, differs, noise_floor};
pub use random::Random;
pub use series::{DRIFT, rank_correlation, slope};
pub use unpaired::Unpaired;

use serde::{Deserialize, Serialize};

/// Resamples behind the interval of two unpaired series.
pub const RESAMPLES: usize = 10_000;

/// A 95 per cent interval.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Interval {
    /// The lower end.
    pub low: f64,
    /// The upper end.
    pub high: f64,
}
