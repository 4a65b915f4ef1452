//! How late the protected number is, learnt from what the stores did: 0 to 2.5 s, in steps of 0.1 s, over the last [`POINTS`] moments.
//!
//! With the right delay, what is not the stores' moves least. Every delay is tried; those whose error is near the least are all held
//! possible, so before anything has happened that could tell (a *kink*: the stores began or ceased to grow), all of them are. Learning is
//! done at most every 50 ms and takes one walk over the remembered moments.

use std::time::Duration;

/// Longest delay of a reading that is tried.
pub const MAX_DELAY: Duration = Duration::from_millis(2_500);
/// Moments that are remembered: [`MAX_DELAY`] and two seconds more.
pub const POINTS: usize = 96;
/// Time between two remembered moments, at the least.
const SPACING: Duration = Duration::from_millis(50);
/// Delays that are tried, evenly spaced.
const DELAYS: usize = 26;
/// A delay is possible while its error is at most this many times the least one, plus the square of this part of the budget.
const POSSIBLE: f64 = 3.0;
const NOISE_PART: f64 = 2_000.0;
/// What was learnt is half forgotten after this, in seconds.
const HALF_LIFE: f64 = 60.0;

/// One remembered moment, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Point {
    pub(super) at: Duration,
    pub(super) held: f64,
    pub(super) protected: f64,
    /// The least and the most that was not the stores', as far as was known then.
    pub(super) base: (f64, f64),
}

/// The last moments and what they say about the delay.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct History {
    points: [Point; POINTS],
    filled: usize,
    newest: usize,
    /// Per delay, the sum of squared moves that it leaves unexplained.
    errors: [f64; DELAYS],
    best: usize,
    /// The possible delays, first and last.
    possible: (usize, usize),
}

impl Default for History {
    fn default() -> History {
        History {
            points: [Point::default(); POINTS],
            filled: 0,
            newest: 0,
            errors: [0.0; DELAYS],
            best: 0,
            possible: (0, DELAYS - 1),
        }
    }
}

impl History {
    /// Whether the moment `at` is to be remembered: the last one is 50 ms ago.
    pub(super) fn is_due(&self, at: Duration) -> bool {
        self.filled == 0 || at.saturating_sub(self.points[self.newest].at) >= SPACING
    }

    pub(super) fn remember(&mut self, point: Point) {
        self.newest = (self.newest + 1) % POINTS;
        self.points[self.newest] = point;
        self.filled = (self.filled + 1).min(POINTS);
    }

    /// The remembered moments, newest first.
    pub(super) fn newest_first(&self) -> impl Iterator<Item = &Point> {
        (0..self.filled).map(|i| &self.points[(self.newest + POINTS - i) % POINTS])
    }

    /// Tries every delay on the move since the last remembered moment.
    pub(super) fn learn(&mut self, at: Duration, protected: f64, held: f64, budget: f64) {
        let Some(last) = self.newest_first().next().copied() else { return };
        let keep = 0.5_f64.powf(at.saturating_sub(last.at).as_secs_f64() / HALF_LIFE);
        let moved = protected - last.protected;
        let mut errors = self.errors;
        let (mut now, mut then) = (self.walk(at, held), self.walk(at, held));
        for (i, error) in errors.iter_mut().enumerate() {
            let delay = nth(i);
            let left = moved - (now.back_to(at.saturating_sub(delay)) - then.back_to(last.at.saturating_sub(delay)));
            *error = *error * keep + left * left;
        }
        self.errors = errors;
        let least = errors.iter().copied().fold(f64::INFINITY, f64::min);
        let bound = POSSIBLE * least + (budget / NOISE_PART).powi(2);
        if errors[self.best] > 1.25 * least {
            self.best = errors.iter().position(|error| *error <= least).unwrap_or(self.best);
        }
        let is_possible = |error: &f64| *error <= bound;
        let first = errors.iter().position(is_possible).unwrap_or(0);
        let last = errors.iter().rposition(is_possible).unwrap_or(DELAYS - 1);
        self.possible = (first, last);
    }

    /// The delay of least error: the bottom of the parabola through the best of those tried and its neighbours.
    pub(super) fn delay(&self) -> Duration {
        let i = self.best;
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

    /// A walk back over what was held, from now.
    pub(super) fn walk(&self, at: Duration, held: f64) -> Walk<'_> {
        Walk { history: self, next: 0, later: (at, held) }
    }

    /// The longest delay that is possible.
    pub(super) fn longest(&self) -> Duration {
        nth(self.possible.1)
    }

    /// The least and the most that was held when the number that is read now was measured.
    pub(super) fn held_then(&self, at: Duration, held: f64) -> (f64, f64) {
        let half_step = nth(1) / 2;
        // One that is at the first of them may be no delay at all.
        let latest = at.saturating_sub(nth(self.possible.0).saturating_sub(half_step));
        let earliest = at.saturating_sub(nth(self.possible.1) + half_step);
        let first = self.walk(at, held).back_to(latest);
        let last = self.walk(at, held).back_to(earliest);
        let (mut least, mut most) = (first.min(last), first.max(last));
        for point in self.newest_first() {
            if point.at < earliest {
                break;
            }
            if point.at <= latest {
                least = least.min(point.held);
                most = most.max(point.held);
            }
        }
        (least, most)
    }
}

fn nth(i: usize) -> Duration {
    MAX_DELAY * i as u32 / (DELAYS as u32 - 1)
}

/// A walk back in time over what was held, for moments that never get later.
pub(super) struct Walk<'a> {
    history: &'a History,
    next: usize,
    later: (Duration, f64),
}

impl Walk<'_> {
    /// What was held at `moment`, between the points; before the first of them, what that one says.
    pub(super) fn back_to(&mut self, moment: Duration) -> f64 {
        while self.next < self.history.filled {
            let point = &self.history.points[(self.history.newest + POINTS - self.next) % POINTS];
            if point.at <= moment {
                let apart = (self.later.0.saturating_sub(point.at)).as_secs_f64();
                let part = if apart > 0.0 { (moment - point.at).as_secs_f64() / apart } else { 1.0 };
                return point.held + (self.later.1 - point.held) * part.min(1.0);
            }
            self.later = (point.at, point.held);
            self.next += 1;
        }
        self.later.1
    }
}
