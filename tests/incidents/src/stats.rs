//! Order statistics of a handful of measurements.

use std::fmt;

/// Minimum, median, 95th percentile (nearest rank) and maximum of a set of measurements.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Spread {
    /// How many measurements.
    pub count: usize,
    /// The smallest.
    pub min: f64,
    /// The middle one; the mean of the middle two when the count is even.
    pub median: f64,
    /// The smallest that at least 95 % of the measurements do not exceed.
    pub p95: f64,
    /// The largest.
    pub max: f64,
}

/// Sorts a copy and takes the four figures; `None` for no measurements.
pub fn spread(values: &[f64]) -> Option<Spread> {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let count = sorted.len();
    let (&min, &max) = (sorted.first()?, sorted.last()?);
    let median = (sorted[(count - 1) / 2] + sorted[count / 2]) / 2.0;
    let p95 = sorted[(count * 95).div_ceil(100) - 1];
    Some(Spread { count, min, median, p95, max })
}

impl fmt::Display for Spread {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{:.2} / {:.2} / {:.2} / {:.2}", self.min, self.median, self.p95, self.max)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spread_of_known_sets() {
        assert_eq!(spread(&[]), None);
        let one = spread(&[4.0]).unwrap();
        assert_eq!((one.min, one.median, one.p95, one.max), (4.0, 4.0, 4.0, 4.0));
        let ten: Vec<f64> = (1..=10).rev().map(f64::from).collect();
        let ten = spread(&ten).unwrap();
        assert_eq!((ten.min, ten.median, ten.p95, ten.max), (1.0, 5.5, 10.0, 10.0));
        let thirty: Vec<f64> = (1..=30).map(f64::from).collect();
        assert_eq!(spread(&thirty).unwrap().p95, 29.0);
    }
}
