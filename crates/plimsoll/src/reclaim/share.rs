//! Who gives how much of what is wanted back: pure, for one pass.
//!
//! In proportion to held bytes and inverse to cost, only from those who offer this pass; never below a floor, never more than a store's largest
//! part (a quarter by default). What one cannot give, the others are asked for. At most as many rounds as there are stores.

use crate::event::{Pass, Profile};

/// One store, as the controller sees it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Component {
    /// What it holds, in bytes.
    pub held_bytes: u64,
    /// What it is like.
    pub profile: Profile,
}

impl Component {
    /// The most that it is asked for in `pass`.
    fn most(&self, pass: Pass) -> f64 {
        if !self.profile.offers(pass) {
            return 0.0;
        }
        let above_floor = self.held_bytes.saturating_sub(self.profile.floor_bytes) as f64;
        above_floor.min(self.held_bytes as f64 * self.profile.max_part_ratio.clamp(0.0, 1.0))
    }

    fn weight(&self) -> f64 {
        self.held_bytes as f64 / self.profile.cost_ratio.max(1e-9)
    }
}

/// How much each of `components` is asked for in `pass`, in their order, in bytes; the sum is `want_bytes` if they can give it.
///
/// # Examples
/// ```
/// use plimsoll::event::{Pass, Profile};
/// use plimsoll::reclaim::share::{Component, share};
///
/// let cheap = Component { held_bytes: 800, profile: Profile::default() };
/// let dear = Component { held_bytes: 800, profile: Profile::default().cost(3.0) };
/// assert_eq!(share(100, Pass::Benign, &[cheap, dear]), [75, 25]);
/// ```
pub fn share(want_bytes: u64, pass: Pass, components: &[Component]) -> Vec<u64> {
    let mut asked = vec![0.0_f64; components.len()];
    let mut left = want_bytes as f64;
    for _ in 0..components.len() {
        let open = |i: &usize| asked[*i] + 0.5 < components[*i].most(pass);
        let open: Vec<usize> = (0..components.len()).filter(open).collect();
        let weights: f64 = open.iter().map(|i| components[*i].weight()).sum();
        if left < 1.0 || weights <= 0.0 {
            break;
        }
        let round = left;
        for i in open {
            let part = round * components[i].weight() / weights;
            let given = part.min(components[i].most(pass) - asked[i]);
            asked[i] += given;
            left -= given;
        }
    }
    let mut whole: Vec<u64> = asked.iter().map(|bytes| *bytes as u64).collect();
    // What rounding left over, at most a byte per store.
    let mut missing = want_bytes.min(asked.iter().sum::<f64>().round() as u64) - whole.iter().sum::<u64>();
    for (bytes, component) in whole.iter_mut().zip(components) {
        if missing > 0 && (*bytes as f64) + 1.0 <= component.most(pass) {
            *bytes += 1;
            missing -= 1;
        }
    }
    whole
}

/// How much each may hold when together they may hold `hold_bytes`: what it holds and an equal part of the room; if there is no room, the same
/// part less of each.
pub fn bounds(hold_bytes: u64, held_bytes: &[u64]) -> Vec<u64> {
    let sum: u64 = held_bytes.iter().sum();
    match hold_bytes.checked_sub(sum) {
        Some(room) => held_bytes.iter().map(|held| held + room / held_bytes.len().max(1) as u64).collect(),
        None => held_bytes
            .iter()
            .map(|held| (u128::from(*held) * u128::from(hold_bytes) / u128::from(sum)) as u64)
            .collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn component(held_bytes: u64, profile: Profile) -> Component {
        Component { held_bytes, profile }
    }

    #[test]
    fn in_proportion_to_what_is_held_and_inverse_to_cost() {
        let plain = Profile::default();
        let cases: [(u64, &[Component], &[u64]); 5] = [
            (100, &[component(1_000, plain), component(3_000, plain)], &[25, 75]),
            (100, &[component(1_000, plain), component(1_000, plain.cost(4.0))], &[80, 20]),
            // Not more than a quarter; the other makes up for it.
            (300, &[component(400, plain), component(4_000, plain.cost(100.0))], &[100, 200]),
            (900, &[component(400, plain), component(400, plain)], &[100, 100]),
            (100, &[component(400, plain.floor(390)), component(400, plain)], &[10, 90]),
        ];
        for (want, components, expected) in cases {
            assert_eq!(share(want, Pass::Idle, components), expected, "{want} of {components:?}");
        }
    }

    #[test]
    fn only_who_offers_the_pass_and_holds_something_is_asked() {
        let compact = Profile::default().only(&[Pass::Compact]);
        let components =
            [component(1_000, compact), component(0, Profile::default()), component(1_000, Profile::default())];
        assert_eq!(share(100, Pass::Compact, &components), [50, 0, 50]);
        assert_eq!(share(100, Pass::Destructive, &components), [0, 0, 100]);
        assert_eq!(share(100, Pass::Destructive, &[]), Vec::<u64>::new());
    }

    #[test]
    fn bounds_share_the_room_and_the_lack_of_it() {
        assert_eq!(bounds(100, &[30, 50]), [40, 60]);
        assert_eq!(bounds(40, &[30, 50]), [15, 25]);
        assert_eq!(bounds(u64::MAX, &[]), Vec::<u64>::new());
        assert_eq!(bounds(100, &[0, 0]), [50, 50]);
    }

    proptest! {
        #[test]
        fn nobody_is_asked_for_more_than_he_may_give_and_all_together_for_what_is_wanted(
            want in 0..10_000_000_u64,
            stores in prop::collection::vec((0..4_000_000_u64, 0.1..50.0_f64, 0..1_000_000_u64), 0..12),
        ) {
            let components: Vec<Component> = stores
                .iter()
                .map(|(held, cost, floor)| component(*held, Profile::default().cost(*cost).floor(*floor)))
                .collect();
            let asked = share(want, Pass::Benign, &components);
            let most: Vec<f64> = components.iter().map(|component| component.most(Pass::Benign)).collect();
            for (asked, most) in asked.iter().zip(&most) {
                prop_assert!(*asked as f64 <= *most);
            }
            let sum: u64 = asked.iter().sum();
            let possible = most.iter().sum::<f64>().min(want as f64);
            prop_assert!(sum <= want);
            prop_assert!(sum as f64 >= possible - 2.0 * components.len() as f64, "{sum} of {possible}");
        }
    }
}
