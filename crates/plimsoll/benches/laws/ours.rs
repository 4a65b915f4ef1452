//! Plimsoll's own law, as the bench calls it.

use plimsoll::governor::law::{LawState, Supply, law};
use plimsoll::testkit::Seen;

use crate::rivals::{Act, Law};

/// Where the stores stop filling, in parts of the limit.
const FILL: f64 = 0.985;

/// The law with its state.
#[derive(Default)]
pub(crate) struct Plimsoll(LawState);

impl Law for Plimsoll {
    fn tick(&mut self, seen: &Seen, limit: u64) -> Act {
        let supply = Supply {
            held_bytes: seen.held_bytes[0],
            claimed_bytes_total: seen.claimed_bytes_total[0],
            ..Supply::default()
        };
        let fill = (limit as f64 * FILL) as u64;
        let (state, want) = law(self.0, seen.at, seen.protected_bytes, fill, limit, supply);
        self.0 = state;
        Act { evict_bytes: want.evict_bytes, clamp_bytes: Some(want.hold_bytes), purge: want.purge }
    }
}
