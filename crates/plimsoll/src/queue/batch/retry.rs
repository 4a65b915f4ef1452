//! How long to wait before a failed batch is tried again: doubled each time up to a bound, ± 20 % so that a fleet does not come in step.

use std::hash::{BuildHasher, RandomState};
use std::time::Duration;

/// The first pause and the longest.
#[derive(Clone, Copy, Debug)]
pub(super) struct Retry {
    pub(super) first: Duration,
    pub(super) most: Duration,
}

impl Retry {
    /// The pause after so many failures in a row (at least one); `random` is in 0..=1.
    pub(super) fn pause(&self, failures: u32, random: f64) -> Duration {
        let doubled = self.first.saturating_mul(1_u32.checked_shl(failures.saturating_sub(1)).unwrap_or(u32::MAX));
        doubled.min(self.most).mul_f64(0.8 + 0.4 * random.clamp(0.0, 1.0))
    }
}

/// A fresh random number in 0..=1, from the seed that the standard library has for its tables.
pub(super) fn random_ratio() -> f64 {
    RandomState::new().hash_one(0) as f64 / u64::MAX as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_the_longest_and_vary_by_a_fifth() {
        let retry = Retry { first: Duration::from_millis(50), most: Duration::from_secs(5) };
        for (failures, random, expected_ms) in
            [(1, 0.5, 50), (2, 0.5, 100), (4, 0.5, 400), (7, 0.5, 3200), (8, 0.5, 5000), (1, 0.0, 40), (1, 1.0, 60)]
        {
            assert_eq!(retry.pause(failures, random).as_millis(), expected_ms, "{failures} {random}");
        }
        assert_eq!(retry.pause(u32::MAX, 1.0).as_millis(), 6000);
        let all: Vec<f64> = std::iter::repeat_with(random_ratio).take(100).collect();
        assert!(all.iter().all(|ratio| (0.0..=1.0).contains(ratio)));
        assert!(all.iter().any(|ratio| *ratio < 0.4) && all.iter().any(|ratio| *ratio > 0.6), "{all:?}");
    }
}
