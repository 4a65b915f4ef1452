//! How much to give back: the reclaim law. Pure: no clock, no I/O, no allocation, about 100 ns.
//!
//! What the stores may hold is the fill mark less everything that is not theirs. That part, the *base*, is `protected − held`, with `held`
//! taken as it was when the protected number was measured: the law learns that delay (0 to 2.5 s) by trying which one makes the base move
//! least. What was ordered and is not claimed yet is credited, so nothing is ordered twice; what comes in before an order is carried out
//! is ordered ahead. With a right delay the reading's lateness cancels out, and the loop has nothing to swing with.
//!
//! - Never more than [`MAX_PART`] of what is held in one order; never what the base's short spikes (under 1 s) ask for.
//! - If the base alone leaves no room below the mark, nothing is evicted for it: the law says [`Want::stuck`].
//! - If two orders in a row, carried out, did not show in the protected number, it asks for one purge of the allocator, and after that
//!   is stuck as well, until the stores or the base have moved by a tenth.

use std::time::Duration;

/// Largest part of what is held that one order may take: a quarter.
pub const MAX_PART: u64 = 4;
/// A base that was higher for less than this is a spike: the stores do not pay for it.
pub const SPIKE: Duration = Duration::from_secs(1);
/// The same while the budget itself is passed.
pub const URGENT_SPIKE: Duration = Duration::from_millis(300);
/// Longest delay of a reading that is tried.
pub const MAX_DELAY: Duration = Duration::from_millis(2_500);
/// Delays that are tried, evenly spaced.
const DELAYS: usize = 26;
/// Time between two remembered points, at the least.
const SPACING: Duration = Duration::from_millis(50);
/// Remembered points: more than `MAX_DELAY` of them.
const POINTS: usize = 64;
/// The inflow is followed up in half a second and down in twenty: while the stores are held, nothing comes in that could be measured.
const INFLOW_UP: f64 = 0.5;
const INFLOW_DOWN: f64 = 20.0;
/// Orders whose execution is awaited at the same time.
const ORDERS: usize = 32;
/// An order that is not claimed after this long is not credited any more.
pub const WRITE_OFF: Duration = Duration::from_secs(10);
/// What was learnt about the delay is half forgotten after this.
const LEARN_HALF_LIFE: f64 = 60.0;
/// An effect of less than this part of what was claimed is none.
const EFFECT_PART: f64 = 0.3;
/// Effects are only judged on at least this part of the budget.
const JUDGED_PART: u64 = 50;
/// Orders without effect before the purge, and again before the law is stuck.
const FRUITLESS: u8 = 2;

/// The stores, taken together, at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Supply {
    /// What they hold now, in bytes.
    pub held_bytes: u64,
    /// What they say they have evicted on order since the start, in bytes.
    pub claimed_bytes_total: u64,
    /// What they keep in any case, in bytes.
    pub floor_bytes: u64,
}

/// What the stores are asked for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Want {
    /// Evict so much more than what was ordered before.
    pub evict_bytes: u64,
    /// Hold at most so much until the next word.
    pub hold_bytes: u64,
    /// Ordered and not claimed yet.
    pub in_flight_bytes: u64,
    /// What is not the stores': the base that was reckoned with.
    pub base_bytes: u64,
    /// How late readings are, as learnt.
    pub delay: Duration,
    /// Time from an order to its claim, as measured last.
    pub lag: Duration,
    /// Purge the allocator once.
    pub purge: bool,
    /// Eviction does not help: the next stage is due.
    pub stuck: bool,
}

/// One remembered moment.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Point {
    at: Duration,
    held: f64,
    base: f64,
}

/// What the law remembers; about 3 KiB. Begin with `LawState::default()`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LawState {
    points: [Point; POINTS],
    filled: usize,
    newest: usize,
    /// Sum of squared changes of the base, per delay that is tried.
    errors: [f64; DELAYS],
    delay: usize,
    last_seen: Option<(Duration, f64)>,
    /// Per open order: its time, and the ordered total with it.
    orders: [(Duration, u64); ORDERS],
    first_order: usize,
    open_orders: usize,
    ordered_total: u64,
    lag: Duration,
    inflow: f64,
    last_supply: Option<(Duration, Supply)>,
    judged: Option<Judged>,
    fruitless: u8,
    purged: bool,
    stuck_at: Option<(u64, f64)>,
}

/// An effect that is being waited for.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Judged {
    protected: f64,
    held: f64,
    claimed: u64,
    due: Option<Duration>,
    ordered: u64,
}

impl Default for LawState {
    fn default() -> LawState {
        LawState {
            points: [Point::default(); POINTS],
            filled: 0,
            newest: 0,
            errors: [0.0; DELAYS],
            delay: 0,
            last_seen: None,
            orders: [(Duration::ZERO, 0); ORDERS],
            first_order: 0,
            open_orders: 0,
            ordered_total: 0,
            lag: Duration::ZERO,
            inflow: 0.0,
            last_supply: None,
            judged: None,
            fruitless: 0,
            purged: false,
            stuck_at: None,
        }
    }
}

/// Decides how much the stores give back. `fill_bytes` is the mark up to which they may fill the budget.
///
/// # Examples
/// ```
/// use std::time::Duration;
/// use plimsoll::governor::law::{LawState, Supply, law};
///
/// let supply = Supply { held_bytes: 700, claimed_bytes_total: 0, floor_bytes: 0 };
/// let (state, want) = law(LawState::default(), Duration::ZERO, 1_000, 880, 1_000, supply);
/// assert_eq!((want.evict_bytes, want.hold_bytes), (0, 580), "300 are not the store's; whether they stay is not known yet");
/// let (_, want) = law(state, Duration::from_secs(1), 1_000, 880, 1_000, supply);
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
    state.follow(at, supply);
    state.learn(at, protected);
    let base = (protected - state.held_at(at.saturating_sub(state.delay_time()), held)).max(0.0);
    state.remember(Point { at, held, base });
    let in_flight = state.ordered_total.saturating_sub(supply.claimed_bytes_total);
    let over_budget = base + held > budget_bytes as f64;
    let calm = state.lowest_base(at, if over_budget { URGENT_SPIKE } else { SPIKE });
    let purge = state.judge(at, protected, held, budget_bytes, supply);
    let fill = fill_bytes as f64;
    let no_room = calm.is_some_and(|calm| calm + supply.floor_bytes as f64 >= fill);
    let released = state
        .stuck_at
        .is_some_and(|(then, base_then)| held > then as f64 * 1.1 || (base - base_then).abs() > 0.1 * base_then);
    if released {
        state.stuck_at = None;
        state.fruitless = 0;
        state.purged = false;
    }
    let stuck = no_room || state.stuck_at.is_some();
    let ahead = state.inflow * (state.lag.as_secs_f64() + 0.1);
    let evict = match calm {
        Some(calm) if !stuck => (held + ahead - in_flight as f64 - (fill - calm)).max(0.0),
        _ => 0.0,
    };
    let spare = supply.held_bytes.saturating_sub(supply.floor_bytes).saturating_sub(in_flight);
    let evict_bytes = (evict as u64).min(supply.held_bytes / MAX_PART).min(spare);
    state.order(at, evict_bytes, protected, held, supply);
    let hold_bytes = if no_room { supply.held_bytes } else { (fill - base).max(supply.floor_bytes as f64) as u64 };
    let want = Want {
        evict_bytes,
        hold_bytes,
        in_flight_bytes: in_flight,
        base_bytes: base as u64,
        delay: state.delay_time(),
        lag: state.lag,
        purge,
        stuck,
    };
    (state, want)
}

impl LawState {
    /// The delay of least error: the bottom of the parabola through the best of those tried and its neighbours.
    fn delay_time(&self) -> Duration {
        let i = self.delay;
        let mut place = i as f64;
        if i > 0 && i + 1 < DELAYS {
            let (left, middle, right) = (self.errors[i - 1], self.errors[i], self.errors[i + 1]);
            let bend = left - 2.0 * middle + right;
            if bend > 0.0 {
                place += (0.5 * (left - right) / bend).clamp(-0.5, 0.5);
            }
        }
        MAX_DELAY.mul_f64(place / (DELAYS as f64 - 1.0))
    }

    /// Inflow, and what became of open orders.
    fn follow(&mut self, at: Duration, supply: Supply) {
        if let Some((then, before)) = self.last_supply {
            let seconds = at.saturating_sub(then).as_secs_f64();
            if seconds > 0.0 {
                let claimed = supply.claimed_bytes_total.saturating_sub(before.claimed_bytes_total) as f64;
                let came = (supply.held_bytes as f64 - before.held_bytes as f64 + claimed).max(0.0);
                let rate = came / seconds;
                let weight = seconds / if rate > self.inflow { INFLOW_UP } else { INFLOW_DOWN };
                self.inflow += (rate - self.inflow) * weight.min(1.0);
            }
        }
        self.last_supply = Some((at, supply));
        while self.open_orders > 0 {
            let (ordered_at, total) = self.orders[self.first_order];
            if total > supply.claimed_bytes_total {
                if at.saturating_sub(ordered_at) > WRITE_OFF {
                    self.ordered_total = supply.claimed_bytes_total;
                    self.open_orders = 0;
                }
                break;
            }
            self.lag = at.saturating_sub(ordered_at);
            self.first_order = (self.first_order + 1) % ORDERS;
            self.open_orders -= 1;
        }
    }

    /// Tries every delay: with the right one, what is not the stores' moves least.
    fn learn(&mut self, at: Duration, protected: f64) {
        let Some((then, before)) = self.last_seen.replace((at, protected)) else { return };
        if self.filled == 0 || at <= then {
            return;
        }
        let keep = 0.5_f64.powf((at - then).as_secs_f64() / LEARN_HALF_LIFE);
        let moved = protected - before;
        let mut best = self.delay;
        for i in 0..DELAYS {
            let delay = MAX_DELAY * i as u32 / (DELAYS as u32 - 1);
            let held = |moment: Duration| self.held_at(moment.saturating_sub(delay), f64::NAN);
            let newest = self.last_supply.map_or(f64::NAN, |(_, supply)| supply.held_bytes as f64);
            let now = if i == 0 { newest } else { held(at) };
            let error = moved - (now - held(then));
            if error.is_finite() {
                self.errors[i] = self.errors[i] * keep + error * error;
            }
        }
        for i in 0..DELAYS {
            if self.errors[i] < self.errors[best] * 0.8 {
                best = i;
            }
        }
        self.delay = best;
    }

    /// What was held at `moment`, between the points; before the first of them, what that one says.
    fn held_at(&self, moment: Duration, unknown: f64) -> f64 {
        let mut later: Option<Point> = None;
        for i in 0..self.filled {
            let point = self.points[(self.newest + POINTS - i) % POINTS];
            if point.at <= moment {
                let Some(after) = later else {
                    return if i == 0 && unknown.is_finite() { unknown } else { point.held };
                };
                let part = (moment - point.at).as_secs_f64() / (after.at - point.at).as_secs_f64().max(1e-9);
                return point.held + (after.held - point.held) * part;
            }
            later = Some(point);
        }
        later.map_or(unknown, |oldest| oldest.held)
    }

    fn remember(&mut self, point: Point) {
        let last = self.points[self.newest];
        if self.filled > 0 && point.at.saturating_sub(last.at) < SPACING {
            return;
        }
        self.newest = (self.newest + 1) % POINTS;
        self.points[self.newest] = point;
        self.filled = (self.filled + 1).min(POINTS);
    }

    /// The lowest base of the last `window`; `None` while less than that is remembered.
    fn lowest_base(&self, at: Duration, window: Duration) -> Option<f64> {
        let mut lowest = f64::INFINITY;
        for i in 0..self.filled {
            let point = self.points[(self.newest + POINTS - i) % POINTS];
            lowest = lowest.min(point.base);
            if at.saturating_sub(point.at) >= window {
                return Some(lowest);
            }
        }
        None
    }

    /// Whether the last order that was carried out showed in the protected number. True: purge now.
    fn judge(&mut self, at: Duration, protected: f64, held: f64, budget: u64, supply: Supply) -> bool {
        let Some(mut judged) = self.judged else { return false };
        if judged.due.is_none() && supply.claimed_bytes_total >= judged.claimed + judged.ordered {
            judged.due = Some(at + self.delay_time() + Duration::from_millis(200));
            self.judged = Some(judged);
        }
        if judged.due.is_none_or(|due| at < due) {
            return false;
        }
        self.judged = None;
        let claimed = supply.claimed_bytes_total.saturating_sub(judged.claimed) as f64;
        if claimed * (JUDGED_PART as f64) < budget as f64 {
            return false;
        }
        // What came in meanwhile hides as much of the effect.
        let came = (held - judged.held + claimed).max(0.0);
        let effect = judged.protected - protected + came;
        if effect >= claimed * EFFECT_PART {
            self.fruitless = 0;
            self.purged = false;
            return false;
        }
        self.fruitless = (self.fruitless + 1).min(FRUITLESS);
        if self.fruitless < FRUITLESS {
            return false;
        }
        if self.purged {
            self.stuck_at = Some((supply.held_bytes, (protected - held).max(0.0)));
            return false;
        }
        self.purged = true;
        self.fruitless = 0;
        true
    }

    fn order(&mut self, at: Duration, bytes: u64, protected: f64, held: f64, supply: Supply) {
        if bytes == 0 {
            return;
        }
        self.ordered_total = self.ordered_total.max(supply.claimed_bytes_total) + bytes;
        if self.open_orders < ORDERS {
            self.orders[(self.first_order + self.open_orders) % ORDERS] = (at, self.ordered_total);
            self.open_orders += 1;
        }
        if self.judged.is_none() {
            let claimed = supply.claimed_bytes_total;
            self.judged = Some(Judged { protected, held, claimed, due: None, ordered: self.ordered_total - claimed });
        }
    }
}
