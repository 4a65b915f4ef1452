//! Stores under another policy: what they would have held, from what came in, and how late they were, as recorded.
//!
//! The part of the readings that is not the stores' stays as it was. What came into a store is what it grew by and gave back; beyond its
//! bound it is refused; an order is carried out after the lag that was measured last, down to the floor. What a store refused while it
//! was recorded is not in the log, so a policy that lets stores hold more is shown with too little. How well this fits is told: the
//! same model under the policy that held, beside what was read.

use std::collections::VecDeque;
use std::time::Duration;

use super::{Course, Replay};
use crate::event::Supply;
use crate::gauge::Protected;
use crate::governor::{Decision, Reading};
use crate::policy::Policy;

/// How well the model of the stores fits the recording.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
#[non_exhaustive]
pub struct Modelled {
    /// Under the policy that held, the largest distance between a reading and the model's, as a part of the budget.
    pub error_ratio: f64,
    /// What the stores gave back in the model, in bytes.
    pub evicted_bytes: u64,
}

pub(super) struct Run {
    pub(super) decisions: Vec<Decision>,
    pub(super) modelled: Modelled,
}

/// What a store held over time, oldest first.
#[derive(Default)]
struct Held(Vec<(Duration, f64)>);

impl Held {
    /// What was held at `at`, between the two moments around it.
    fn at(&self, at: Duration) -> f64 {
        let next = self.0.partition_point(|(then, _)| *then <= at);
        let before = next.checked_sub(1).and_then(|i| self.0.get(i));
        match (before, self.0.get(next)) {
            (Some((from, low)), Some((to, high))) => {
                let part = (at - *from).as_secs_f64() / (*to - *from).as_secs_f64().max(1e-9);
                low + (high - low) * part
            }
            (Some((_, held)), None) | (None, Some((_, held))) => *held,
            (None, None) => 0.0,
        }
    }
}

#[derive(Default)]
struct Store {
    held: f64,
    claimed: f64,
    withdrawn: f64,
    most: Option<f64>,
    orders: VecDeque<(Duration, f64)>,
    past: Held,
}

impl Store {
    fn advance(&mut self, at: Duration, came: f64, floor: f64) {
        let room = self.most.map_or(f64::INFINITY, |most| (most - self.held).max(0.0));
        self.held += came.min(room);
        while let Some((_, bytes)) = self.orders.front().copied().filter(|(due, _)| *due <= at) {
            self.orders.pop_front();
            let gone = bytes.min((self.held - floor).max(0.0));
            self.held -= gone;
            self.claimed += gone;
            self.withdrawn += bytes - gone;
        }
        self.past.0.push((at, self.held));
    }
}

/// Runs the recording with the stores as they would be under `policy_for` each policy that held.
pub(super) fn run(course: &Course, policy_for: impl Fn(&Policy) -> Policy) -> Run {
    let mut recorded = Held::default();
    let supplies = course.samples().filter_map(|(reading, _)| Some((reading.at, reading.supply?.held_bytes as f64)));
    recorded.0.extend(supplies);
    let (mut replay, mut store) = (Replay::resume(course), Store::default());
    let mut before: Option<Supply> = None;
    let mut run = Run { decisions: Vec::new(), modelled: Modelled::default() };
    course.each(|policy, reading, decision| {
        let other = policy_for(policy);
        let want = decision.want.unwrap_or_default();
        let modelled = match (reading.supply, &reading.confirmed) {
            (Some(supply), Some(Ok(protected))) => {
                let came = match before {
                    Some(before) => {
                        let claimed = supply.claimed_bytes_total.saturating_sub(before.claimed_bytes_total) as f64;
                        (supply.held_bytes as f64 - before.held_bytes as f64 + claimed).max(0.0)
                    }
                    None => supply.held_bytes as f64,
                };
                before = Some(supply);
                store.advance(reading.at, came, supply.floor_bytes as f64);
                let then = reading.at.saturating_sub(want.delay);
                let moved = store.past.at(then) - recorded.at(then);
                if let Some(budget) = policy.budget_bytes {
                    let error = moved.abs() / budget as f64;
                    run.modelled.error_ratio = run.modelled.error_ratio.max(error);
                }
                moved_by(reading, protected, moved, &supply, &store)
            }
            _ => *reading,
        };
        let decided = replay.decide(&other, &modelled);
        if let Some(want) = decided.want {
            if want.evict_bytes > 0 {
                let lag = decision.want.map(|want| want.lag).unwrap_or_default();
                store.orders.push_back((reading.at + lag, want.evict_bytes as f64));
            }
            store.most = Some(want.hold_bytes as f64);
        }
        run.decisions.push(decided);
    });
    run.modelled.evicted_bytes = store.claimed as u64;
    run
}

/// The reading as it would have been with stores that hold `moved` bytes more (or less).
fn moved_by(reading: &Reading, protected: &Protected, moved: f64, supply: &Supply, store: &Store) -> Reading {
    let shift = |bytes: u64| (bytes as f64 + moved).max(0.0) as u64;
    let protected = Protected { program_bytes: shift(protected.program_bytes), ..*protected };
    let supply = Supply {
        held_bytes: store.held as u64,
        claimed_bytes_total: store.claimed as u64,
        withdrawn_bytes_total: store.withdrawn as u64,
        floor_bytes: supply.floor_bytes,
    };
    Reading {
        fast_bytes: reading.fast_bytes.map(shift),
        confirmed: Some(Ok(protected)),
        supply: Some(supply),
        ..*reading
    }
}
