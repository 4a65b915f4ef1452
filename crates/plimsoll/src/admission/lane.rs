//! One lane: slots, and a bounded line of those who wait for one, first come first served. Pure; time is passed in.
//!
//! A slot that becomes free goes to the first in the line whose time is not over; whoever's is over is refused, not run.

use std::collections::VecDeque;
use std::sync::Arc;
use std::task::Waker;
use std::time::Duration;

use super::adapt::{Adapt, Finder};
use super::permit::{Outcome, Seat};
use super::stats::LaneStats;

/// How many may be in a lane at one time.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub enum Slots {
    /// As many as come.
    Unlimited,
    /// So many.
    Fixed(usize),
    /// As many as keep latency near the unloaded one.
    Adaptive(Adapt),
}

/// The settings of a lane.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Lane {
    /// How many are worked on at one time.
    pub slots: Slots,
    /// How many may wait for a slot; 0: who finds none is refused at once.
    pub waiting: usize,
    /// How long one may wait.
    pub wait: Duration,
}

#[derive(Debug)]
pub(super) struct LaneCore {
    settings: Lane,
    finder: Option<Finder>,
    line: VecDeque<Arc<Seat>>,
    stats: LaneStats,
}

/// How a slot was used.
#[derive(Clone, Copy, Debug)]
pub(super) enum Ended {
    Finished {
        began: Duration,
    },
    /// The asker went away while it was worked on.
    WentAway {
        began: Duration,
    },
    /// It was never worked on.
    Unused,
}

/// What a lane says to a request.
pub(super) enum Said {
    Slot,
    Wait,
    Busy,
}

impl LaneCore {
    pub(super) fn new(settings: Lane) -> LaneCore {
        let finder = match settings.slots {
            Slots::Adaptive(adapt) => Some(Finder::new(adapt)),
            Slots::Unlimited | Slots::Fixed(_) => None,
        };
        LaneCore { settings, finder, line: VecDeque::new(), stats: LaneStats::default() }
    }

    fn slots(&self) -> u64 {
        match (self.settings.slots, &self.finder) {
            (_, Some(finder)) => finder.limit() as u64,
            (Slots::Fixed(slots), _) => slots as u64,
            (Slots::Unlimited | Slots::Adaptive(_), None) => u64::MAX,
        }
    }

    fn take_slot(&mut self) {
        self.stats.in_flight += 1;
        self.stats.peak_in_flight = self.stats.peak_in_flight.max(self.stats.in_flight);
    }

    /// Asks for a slot.
    pub(super) fn ask(&mut self) -> Said {
        if self.line.is_empty() && self.stats.in_flight < self.slots() {
            self.take_slot();
            return Said::Slot;
        }
        if let Some(finder) = &mut self.finder {
            finder.reached();
        }
        if self.line.len() < self.settings.waiting && !self.settings.wait.is_zero() { Said::Wait } else { Said::Busy }
    }

    /// How long one may wait.
    pub(super) fn wait(&self) -> Duration {
        self.settings.wait
    }

    pub(super) fn sit(&mut self, seat: Arc<Seat>) {
        self.line.push_back(seat);
    }

    /// One that waited goes away.
    pub(super) fn leave_line(&mut self, seat: &Arc<Seat>) {
        if let Some(at) = self.line.iter().position(|other| Arc::ptr_eq(other, seat)) {
            self.line.remove(at);
            self.give_room_back();
        }
    }

    /// A slot is free again.
    pub(super) fn release(&mut self, now: Duration, ended: Ended) {
        self.stats.in_flight -= 1;
        match (&mut self.finder, ended) {
            (Some(finder), Ended::Finished { began }) => finder.sample(now, now.saturating_sub(began)),
            (Some(finder), Ended::WentAway { began }) => finder.went_away(now, now.saturating_sub(began)),
            (_, Ended::Unused) | (None, _) => {}
        }
    }

    /// Gives free slots to those in the line, and refuses those at its head whose time is over; whom to wake goes to `wakers`.
    pub(super) fn settle(&mut self, now: Duration, wakers: &mut Vec<Waker>) {
        while let Some(seat) = self.line.front() {
            let outcome = if now >= seat.deadline {
                Outcome::Expired
            } else if self.stats.in_flight < self.slots() {
                Outcome::Granted
            } else {
                break;
            };
            let Some(waker) = self.line.pop_front().and_then(|seat| seat.settle(outcome).map(|waker| (seat, waker)))
            else {
                continue;
            };
            if outcome == Outcome::Granted {
                self.take_slot();
                self.stats.waited_total += 1;
                self.stats.waited += now.saturating_sub(waker.0.came);
            }
            wakers.extend(waker.1);
        }
        self.give_room_back();
    }

    /// Refuses everybody whose time is over, wherever in the line: own deadlines are in no order.
    pub(super) fn expire(&mut self, now: Duration, wakers: &mut Vec<Waker>) {
        self.line.retain(|seat| {
            let over = now >= seat.deadline;
            if over {
                wakers.extend(seat.settle(Outcome::Expired).flatten());
            }
            !over
        });
        self.give_room_back();
    }

    /// Refuses those who wait but, unless `all`, what is part of work that has begun.
    pub(super) fn close(&mut self, all: bool, wakers: &mut Vec<Waker>) {
        self.line.retain(|seat| {
            let stays = seat.is_nested && !all;
            if !stays {
                wakers.extend(seat.settle(Outcome::Closed).flatten());
            }
            stays
        });
        self.give_room_back();
    }

    /// When the first in the line has waited long enough. Own deadlines may come before it.
    pub(super) fn next_deadline(&self) -> Option<Duration> {
        self.line.iter().map(|seat| seat.deadline).min()
    }

    fn give_room_back(&mut self) {
        if self.line.is_empty() {
            self.line.shrink_to(64);
        }
    }

    pub(super) fn stats(&self) -> LaneStats {
        LaneStats {
            slots: self.slots(),
            waiting: self.line.len() as u64,
            base_latency: self.finder.as_ref().and_then(Finder::base),
            ..self.stats
        }
    }
}
