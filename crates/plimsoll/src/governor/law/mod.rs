//! How much to give back: the reclaim law. Pure: no clock, no I/O, no allocation, about 1 µs.
//!
//! What the stores may hold is the fill mark less everything that is not theirs. That part, the *base*, is `protected − held`, with `held`
//! taken as it was when the protected number was measured. How late that number is, is learnt; as long as several delays are
//! possible, the stores are held by the one that leaves them least and asked by the one that leaves them most. What was ordered and is not
//! claimed yet is credited, so nothing is ordered twice. So neither the reading's lateness nor the stores' makes the loop swing.
//!
//! - Never more than a quarter ([`MAX_PART`]) of what is held in one order; never what spikes of the base under 2 s ask for, 0.3 s while
//!   the budget is passed.
//! - A base that moves is given room: refilling ends below the fill mark by what the base rose, lately, within one reaction.
//! - If the base alone leaves no room below the mark, nothing is evicted for it: [`Want::stuck`].
//! - Orders that were carried out and did not show: one purge of the allocator, one more trial with at most 4 % of the budget, then
//!   stuck, until the stores or the base have moved by a tenth. Until the verdict, what the base rose by is not ordered again.

mod delay;
mod effect;
#[cfg(test)]
mod incident_1;
#[cfg(test)]
mod tests;

use std::time::Duration;

pub use delay::{MAX_DELAY, POINTS};
pub use effect::{ORDERS, WRITE_OFF};

use delay::{History, Point};
use effect::{Orders, SHOW_TIME, Trial, Verdict};

pub use crate::event::{Effect, Supply, Want};

/// Largest part of what is held that one order may take: a quarter.
pub const MAX_PART: u64 = 4;
/// Orders of less than this part of the budget wait until they are worth it.
pub const SMALLEST_PART: u64 = 1_000;
/// A base that was higher for less than this is a spike: the stores do not pay for it.
pub const SPIKE: Duration = Duration::from_secs(2);
/// The same while the budget itself is passed.
pub const URGENT_SPIKE: Duration = Duration::from_millis(300);
/// Rises of the base are half forgotten after this, in seconds.
const SPREAD_HALF_LIFE: f64 = 20.0;
/// The room given to a base that moves, at most: an eighth of the budget.
const SPREAD_PART: f64 = 8.0;
/// Time over which passing the budget is averaged, in seconds: stores shrink by twice that mean.
const EXCESS_TIME: f64 = 60.0;
/// What comes in is averaged over so long, in seconds; what came in while nothing was evicted is forgotten in twenty.
const INFLOW_TIME: f64 = 2.0;
const INFLOW_DOWN: f64 = 20.0;
/// A base that grew in each of two such times is expected to go on.
const DRIFT_TIME: Duration = Duration::from_secs(1);
/// The most that the last trial before stuck may cost, as a part of the budget: 4 %.
const CHANCE_PART: u64 = 25;
/// A change of stores or base by this part ends being stuck.
const MOVED_PART: f64 = 0.1;

/// What the law remembers; about 6 KiB. Begin with `LawState::default()`.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct LawState {
    history: History,
    orders: Orders,
    trial: Option<Trial>,
    last: Option<Last>,
    /// What comes in beyond the bound that was set, and what comes in while nothing is evicted; bytes a second.
    leaking: f64,
    inflow: f64,
    /// How far the base rose within one reaction, lately.
    spread: f64,
    /// The mean by which the budget was passed.
    excess: f64,
    /// Orders did not help, the allocator was purged: the next trial decides. No orders before the purge can have shown.
    last_chance: bool,
    pause_until: Duration,
    /// What was held, and the base, when it became stuck.
    stuck_at: Option<(f64, f64)>,
}

/// The call before.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Last {
    at: Duration,
    supply: Supply,
    hold: f64,
}

/// Decides how much the stores give back. `fill_bytes` is the mark up to which they may fill the budget while the base is calm.
///
/// # Examples
/// ```
/// use std::time::Duration;
/// use plimsoll::governor::law::{LawState, Supply, law};
///
/// let supply = Supply { held_bytes: 700, ..Supply::default() };
/// let (state, want) = law(LawState::default(), Duration::ZERO, 1_000, 880, 1_100, supply);
/// assert_eq!((want.evict_bytes, want.hold_bytes), (0, 580), "300 are not the store's; whether they stay is not known yet");
/// let (_, want) = law(state, Duration::from_secs(2), 1_000, 880, 1_100, supply);
/// assert_eq!((want.evict_bytes, want.stuck), (120, false));
/// ```
pub fn law(
    mut state: LawState,
    at: Duration,
    protected_bytes: u64,
    fill_bytes: u64,
    budget_bytes: u64,
    supply: Supply,
) -> (LawState, Want) {
    let (protected, held) = (protected_bytes as f64, supply.held_bytes as f64);
    let (fill, budget, floor) = (fill_bytes as f64, budget_bytes as f64, supply.floor_bytes as f64);
    state.follow(at, &supply);
    let due = state.history.is_due(at);
    if due {
        state.history.learn(at, protected, held, budget);
    }
    let (least_held, most_held) = state.history.held_then(at, held);
    let base = ((protected - most_held).max(0.0), (protected - least_held).max(0.0));
    if due {
        state.history.remember(Point { at, held, protected, base });
    }
    state.watch(at, base.0, protected, held, budget);
    let mut purge = false;
    let verdict =
        state.trial.as_mut().map(|trial| trial.judge(at, protected, state.history.longest(), budget, &supply));
    match verdict {
        Some(Verdict::Helped) => (state.trial, state.last_chance) = (None, false),
        Some(Verdict::Fruitless) if state.last_chance => {
            (state.trial, state.last_chance) = (None, false);
            state.stuck_at = Some((held, base.0));
        }
        Some(Verdict::Fruitless) => {
            purge = true;
            (state.trial, state.last_chance) = (None, true);
            state.pause_until = at + state.history.longest() + SHOW_TIME;
        }
        Some(Verdict::Open) | None => {}
    }
    // Too little was claimed to judge by, and no more comes.
    state.trial = state.trial.filter(|trial| !trial.is_stale(at));
    let moved = |now: f64, then: f64| (now - then).abs() > MOVED_PART * then;
    state.stuck_at = state.stuck_at.filter(|(then, base_then)| !moved(held, *then) && !moved(base.0, *base_then));
    let urgent = base.0 + held > budget;
    // What is evicted during a trial moves the base if the allocator keeps it: that is no drift.
    let drift = state.trial.map_or_else(|| state.drift(at, protected, held), |trial| trial.drift);
    let calm = state.lowest_base(at, if urgent { URGENT_SPIKE } else { SPIKE }, drift);
    let no_room = calm.is_some_and(|calm| calm + floor >= fill);
    let stuck = no_room || state.stuck_at.is_some();
    let in_flight = state.orders.in_flight(&supply);
    let evict = match calm {
        // What is no room now need not be evicted for now: it is a spike, or will be stuck in a moment.
        Some(calm) if !stuck && base.0 + floor < fill => {
            // Until the trial's verdict, what was claimed and is not gone is not ordered again.
            let kept = state.trial.map_or(0.0, |trial| trial.not_gone(at, calm, &supply));
            let reaction = state.orders.lag.as_secs_f64() + 0.1;
            let ahead = state.leaking.max(0.0) * reaction + drift * (reaction + state.history.delay().as_secs_f64());
            let most = (fill - 2.0 * state.excess - (calm - kept)).max(0.0);
            (held + ahead - in_flight as f64 - most).max(0.0)
        }
        _ => 0.0,
    };
    let spare = supply.held_bytes.saturating_sub(supply.floor_bytes).saturating_sub(in_flight);
    if evict == 0.0 && !stuck && state.trial.is_none() && at >= state.pause_until {
        // The purge helped, or what was too much has gone.
        state.last_chance = false;
    }
    let chance = if state.last_chance {
        let tried = state.trial.map_or(0.0, |trial| trial.claimed(&supply)) as u64 + in_flight;
        (budget_bytes / CHANCE_PART).saturating_sub(tried)
    } else {
        u64::MAX
    };
    let chance = if at < state.pause_until { 0 } else { chance };
    let evict_bytes = (evict as u64).min(supply.held_bytes / MAX_PART).min(spare).min(chance);
    let evict_bytes = if evict_bytes >= budget_bytes / SMALLEST_PART { evict_bytes } else { 0 };
    if evict_bytes > 0 {
        state.orders.add(at, evict_bytes, &supply);
        if state.trial.is_none() {
            state.trial = Some(Trial::begin(at, protected, base.0, &supply, drift, state.inflow.max(0.0)));
        }
    }
    let room = (fill - state.spread - 2.0 * state.excess - base.1).max(floor);
    let hold = if stuck { held } else { room };
    state.last = Some(Last { at, supply, hold });
    let want = Want {
        evict_bytes,
        ordered_bytes_total: state.orders.total,
        hold_bytes: hold as u64,
        in_flight_bytes: in_flight,
        base_bytes: base.0 as u64,
        spread_bytes: state.spread as u64,
        delay: state.history.delay(),
        lag: state.orders.lag,
        effect: match verdict {
            Some(Verdict::Helped) => Effect::Helped,
            Some(Verdict::Fruitless) => Effect::Fruitless,
            Some(Verdict::Open) | None => Effect::Open,
        },
        purge,
        stuck,
    };
    (state, want)
}

impl LawState {
    /// What came in, and what became of open orders.
    fn follow(&mut self, at: Duration, supply: &Supply) {
        if let Some(last) = &self.last {
            let seconds = at.saturating_sub(last.at).as_secs_f64();
            if seconds > 0.0 {
                let claimed = supply.claimed_bytes_total.saturating_sub(last.supply.claimed_bytes_total) as f64;
                let (held, before) = (supply.held_bytes as f64, last.supply.held_bytes as f64);
                // What grows beyond the bound, net: stores whose tables come and go are not fed by that. Up to the bound it may be refilled.
                // Beside a claim, which may be a lie, more than before is not believed.
                let most = if claimed > 0.0 { 1.5 * self.inflow.max(0.0) } else { f64::INFINITY };
                let beyond = held - last.hold.max(before - claimed);
                let beyond = if held.max(before) > last.hold { beyond } else { 0.0 };
                follow_rate(&mut self.leaking, (beyond / seconds).min(most), seconds, INFLOW_TIME);
                if claimed == 0.0 {
                    let rate = (held - before) / seconds;
                    let time = if rate > self.inflow { INFLOW_TIME } else { INFLOW_DOWN };
                    follow_rate(&mut self.inflow, rate, seconds, time);
                }
            }
        }
        if self.orders.follow(at, supply) {
            self.trial = None;
        }
    }

    /// How much the base moves: only what is certain, so that a delay not known yet does not pass for it, and only as far as the protected
    /// number rose with it: else it is memory that stores let go and the allocator kept.
    fn watch(&mut self, at: Duration, base: f64, protected: f64, held: f64, budget: f64) {
        let seconds = self.last.map_or(0.0, |last| at.saturating_sub(last.at).as_secs_f64());
        self.spread *= 0.5_f64.powf(seconds / SPREAD_HALF_LIFE);
        if self.trial.is_some() || self.stuck_at.is_some() {
            return;
        }
        let over = (base + held - budget).max(0.0);
        self.excess += (over - self.excess) * (seconds / EXCESS_TIME).min(1.0);
        let reaction = self.history.delay() + self.orders.lag + Duration::from_millis(200);
        let recent = self.history.newest_first().take_while(|point| at.saturating_sub(point.at) <= reaction);
        let lowest = recent.fold((base, protected), |low, point| (low.0.min(point.base.1), low.1.min(point.protected)));
        let rise = (base - lowest.0).min(protected - lowest.1);
        self.spread = self.spread.max(rise.min(budget / SPREAD_PART));
    }

    /// The lowest base of the last `window`, each grown by `drift` since; `None` while less than that is remembered.
    fn lowest_base(&self, at: Duration, window: Duration, drift: f64) -> Option<f64> {
        let mut lowest = f64::INFINITY;
        for point in self.history.newest_first() {
            let age = at.saturating_sub(point.at);
            lowest = lowest.min(point.base.0 + drift * age.as_secs_f64());
            if age >= window {
                return Some(lowest);
            }
        }
        None
    }

    /// How fast the base grows, bytes a second, by the likeliest delay; 0 if it does not. Only what it grew by in the last second *and* in
    /// the one before: a jump is no drift.
    fn drift(&self, at: Duration, protected: f64, held: f64) -> f64 {
        let delay = self.history.delay();
        let mut walk = self.history.walk(at, held);
        let mut later = (at, protected - walk.back_to(at.saturating_sub(delay)));
        let mut least = f64::INFINITY;
        for seconds in 1..=2 {
            let past = |point: &&Point| at.saturating_sub(point.at) >= DRIFT_TIME * seconds;
            let Some(point) = self.history.newest_first().find(past) else { return 0.0 };
            let base = point.protected - walk.back_to(point.at.saturating_sub(delay));
            least = least.min((later.1 - base) / later.0.saturating_sub(point.at).as_secs_f64().max(0.1));
            later = (point.at, base);
        }
        least.max(0.0)
    }
}

fn follow_rate(mean: &mut f64, rate: f64, seconds: f64, time: f64) {
    *mean += (rate - *mean) * (seconds / time).min(1.0);
}
