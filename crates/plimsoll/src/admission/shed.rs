//! Refusing by level: from a mark on with a probability that rises to 1 at the next one, the less important classes first.
//!
//! A step at one mark refuses everything, then nothing, then everything; a ramp finds the share at which memory stays where it is
//! (Envoy's overload manager has such "scaled triggers"). The level comes in as a plain value.

use std::sync::atomic::{AtomicU64, Ordering};

use super::class::Class;
use crate::policy::ENTER_RATIO;

/// Where the probability of a refusal begins to rise and where it is 1, as parts of the budget (0..=1 and a little more).
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Ramp {
    /// Below it nothing is refused.
    pub from_ratio: f64,
    /// From it on everything is.
    pub to_ratio: f64,
}

impl Ramp {
    /// The probability of a refusal when this part of the budget is used.
    pub fn probability(self, used_ratio: f64) -> f64 {
        if used_ratio >= self.to_ratio {
            return 1.0;
        }
        ((used_ratio - self.from_ratio) / (self.to_ratio - self.from_ratio)).max(0.0)
    }
}

/// A ramp for each class but the exempt one. By default a class fills the space between two marks of the governor.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Ramps {
    /// Default 95 to 105 % of the budget.
    pub important: Ramp,
    /// Default 88 to 100 %.
    pub ordinary: Ramp,
    /// Default 75 to 88 %.
    pub background: Ramp,
}

impl Default for Ramps {
    fn default() -> Ramps {
        let [elevated, high, critical] = ENTER_RATIO;
        let ramp = |from_ratio, to_ratio| Ramp { from_ratio, to_ratio };
        Ramps { important: ramp(0.95, 1.05), ordinary: ramp(high, critical), background: ramp(elevated, high) }
    }
}

impl Ramps {
    pub(super) fn probability(&self, class: Class, used_ratio: f64) -> f64 {
        match class {
            Class::Exempt => 0.0,
            Class::Important => self.important.probability(used_ratio),
            Class::Ordinary => self.ordinary.probability(used_ratio),
            Class::Background => self.background.probability(used_ratio),
        }
    }
}

/// Numbers between 0 and 1 that look random (splitmix64 of a counter): for dice, never for secrets.
#[derive(Debug)]
pub(super) struct Dice(AtomicU64);

impl Dice {
    pub(super) fn new(seed: u64) -> Dice {
        Dice(AtomicU64::new(seed))
    }

    pub(super) fn roll(&self) -> f64 {
        let mut z = self.0.fetch_add(0x9e37_79b9_7f4a_7c15, Ordering::Relaxed);
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) >> 11) as f64 / (1u64 << 53) as f64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_probability_rises_between_the_marks_and_the_least_important_go_first() {
        let ramps = Ramps::default();
        let at = |used: f64| Class::ALL.map(|class| (ramps.probability(class, used) * 100.0).round() as i64);
        for (used, expected) in [
            (0.0, [0, 0, 0, 0]),
            (0.75, [0, 0, 0, 0]),
            (0.815, [0, 0, 0, 50]),
            (0.88, [0, 0, 0, 100]),
            (0.94, [0, 0, 50, 100]),
            (1.0, [0, 50, 100, 100]),
            (1.2, [0, 100, 100, 100]),
        ] {
            assert_eq!(at(used), expected, "{used}");
        }
        let step = Ramp { from_ratio: 0.9, to_ratio: 0.9 };
        assert_eq!((step.probability(0.899), step.probability(0.9)), (0.0, 1.0));
    }

    #[test]
    fn dice_are_even() {
        let dice = Dice::new(1);
        let below = (0..100_000).filter(|_| dice.roll() < 0.3).count();
        assert!((29_000..31_000).contains(&below), "{below}");
    }
}
