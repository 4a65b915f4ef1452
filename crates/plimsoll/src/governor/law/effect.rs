//! What became of the orders: which are in flight (at most [`ORDERS`] are told apart), how long they take, and whether they helped.
//!
//! A *trial* begins with an order. When at least 2 % of the budget were claimed and had the time to show in the protected number, the number
//! must have fallen by 30 % of it, or be explained by what came in and by how fast the base grew before. If it did not, the allocator is
//! purged once, and when that had its time as well, one more trial decides, with at most 4 % of the budget: a base that jumped during the first
//! one hides no effect from the second.

use std::time::Duration;

use super::Supply;

/// Orders whose execution is awaited at the same time; beyond that, several are followed as one.
pub const ORDERS: usize = 32;
/// An order that is neither claimed nor withdrawn after this long is not credited any more.
pub const WRITE_OFF: Duration = Duration::from_secs(10);
/// An effect of less than this part of what was claimed is none.
const EFFECT_PART: f64 = 0.3;
/// Effects are judged on at least this part of the budget.
const JUDGED_PART: f64 = 50.0;
/// Time beside the delay that an effect may take to show.
pub(super) const SHOW_TIME: Duration = Duration::from_millis(200);

/// Orders that are open.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Orders {
    /// Per open order: its time, and the ordered total with it.
    open: [(Duration, u64); ORDERS],
    first: usize,
    count: usize,
    pub(super) total: u64,
    /// From an order to its end, as measured last.
    pub(super) lag: Duration,
}

impl Default for Orders {
    fn default() -> Orders {
        Orders { open: [(Duration::ZERO, 0); ORDERS], first: 0, count: 0, total: 0, lag: Duration::ZERO }
    }
}

impl Orders {
    /// Takes note of what was claimed and withdrawn. True: an order was written off.
    pub(super) fn follow(&mut self, at: Duration, supply: &Supply) -> bool {
        let done = supply.done_bytes();
        while self.count > 0 {
            let (ordered_at, total) = self.open[self.first];
            if total > done {
                if at.saturating_sub(ordered_at) <= WRITE_OFF {
                    return false;
                }
                self.count = 0;
                self.total = done;
                return true;
            }
            self.lag = at.saturating_sub(ordered_at);
            self.first = (self.first + 1) % ORDERS;
            self.count -= 1;
        }
        false
    }

    pub(super) fn in_flight(&self, supply: &Supply) -> u64 {
        self.total.saturating_sub(supply.done_bytes())
    }

    pub(super) fn add(&mut self, at: Duration, bytes: u64, supply: &Supply) {
        self.total = self.total.max(supply.done_bytes()).saturating_add(bytes);
        if self.count < ORDERS {
            self.open[(self.first + self.count) % ORDERS] = (at, self.total);
            self.count += 1;
        } else {
            self.open[(self.first + ORDERS - 1) % ORDERS].1 = self.total;
        }
    }
}

/// What a trial found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Nothing yet.
    Open,
    /// The orders helped.
    Helped,
    /// They did not.
    Fruitless,
}

/// An effect that is waited for.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Trial {
    began: Duration,
    protected: f64,
    held: f64,
    /// What was not the stores' when it began.
    base: f64,
    claimed: u64,
    /// How fast the base grew before, and what came into the stores; bytes a second.
    pub(super) drift: f64,
    inflow: f64,
    /// When the effect must show, and what was claimed by then.
    due: Option<(Duration, u64)>,
}

impl Trial {
    pub(super) fn begin(at: Duration, protected: f64, base: f64, supply: &Supply, drift: f64, inflow: f64) -> Trial {
        let (held, claimed) = (supply.held_bytes as f64, supply.claimed_bytes_total);
        Trial { began: at, protected, held, base, claimed, drift, inflow, due: None }
    }

    /// Whether it can still be judged.
    pub(super) fn is_stale(&self, at: Duration) -> bool {
        self.due.is_none() && at.saturating_sub(self.began) > 2 * WRITE_OFF
    }

    /// Claimed since it began.
    pub(super) fn claimed(&self, supply: &Supply) -> f64 {
        supply.claimed_bytes_total.saturating_sub(self.claimed) as f64
    }

    /// What came into the stores since it began. That something came is only believed as far as it came before.
    fn came(&self, at: Duration, supply: &Supply) -> f64 {
        let most = 1.5 * self.inflow * at.saturating_sub(self.began).as_secs_f64();
        (supply.held_bytes as f64 - self.held + self.claimed(supply)).clamp(0.0, most)
    }

    /// Of what was claimed, how much is still there: kept by the allocator, or by a store that lies.
    pub(super) fn not_gone(&self, at: Duration, base: f64, supply: &Supply) -> f64 {
        let claimed = self.claimed(supply);
        let grown = self.drift * at.saturating_sub(self.began).as_secs_f64();
        let expected = self.base + self.held - claimed + self.came(at, supply) + grown;
        (base + supply.held_bytes as f64 - expected).clamp(0.0, claimed)
    }

    pub(super) fn judge(
        &mut self,
        at: Duration,
        protected: f64,
        delay: Duration,
        budget: f64,
        supply: &Supply,
    ) -> Verdict {
        let Some((due, claimed_total)) = self.due else {
            if self.claimed(supply) * JUDGED_PART >= budget {
                self.due = Some((at + delay + SHOW_TIME, supply.claimed_bytes_total));
            }
            return Verdict::Open;
        };
        if at < due {
            return Verdict::Open;
        }
        let claimed = claimed_total.saturating_sub(self.claimed) as f64;
        let seconds = at.saturating_sub(self.began).as_secs_f64();
        // What came in meanwhile, and a base that goes on growing, hide as much of the effect.
        let effect = self.protected - protected + self.came(at, supply) + self.drift * seconds;
        if effect >= claimed * EFFECT_PART {
            return Verdict::Helped;
        }
        Verdict::Fruitless
    }
}
