//! What of the queue's room may be lent, and what was sent on it. What is lent counts as used until it is called in.

use super::super::stats::Tally;
use super::ring::Entry;
use super::sum::Sum;
use super::{Core, Wish};

impl<T> Core<T> {
    /// What may still be lent to a producer, at most: what is free of its share, and its part of what is free of the common part,
    /// when so many divide that; never more than is free in all, than the account covers, or than the receiver sleeps for.
    pub(in crate::queue) fn lendable(&self, producer: usize, borrowers: u64) -> Tally {
        if !self.is_open() || self.spill.active || self.is_any_leaving {
            return Tally::default();
        }
        let covered_bytes = self.sum.as_ref().map_or(u64::MAX, Sum::covered_bytes);
        let whole = Tally { items: self.limits.max_items as u64, bytes: self.limits.max_bytes.min(covered_bytes) };
        let room = (whole - self.used).min(self.wait.wish().map_or(Tally::MAX, |wish| self.lack(wish)));
        if room.items == 0 {
            return room;
        }
        let lent = self.flows.iter().fold(Tally::default(), |sum, flow| sum + flow.lent);
        let common = self.shares.common_free(&self.flows);
        let part = Tally { items: common.items / borrowers.max(1), bytes: common.bytes / borrowers.max(1) };
        let most = self.shares.share_free(&self.flows[producer]) + part;
        most.min(room - lent)
    }

    /// Whether so many places may be free to lend, at a glance.
    pub(in crate::queue) fn may_lend(&self, items: u64) -> bool {
        self.used.items.saturating_add(items) <= self.limits.max_items as u64 && !self.spill.active
    }

    /// The most that does not grant a wish that is not granted yet.
    fn lack(&self, wish: Wish) -> Tally {
        let items = if wish.is_pressing && self.pressed { 1 } else { wish.items as u64 };
        Tally { items, bytes: wish.bytes } - self.waiting() - Tally { items: 1, bytes: 1 }
    }

    pub(in crate::queue) fn lent(&mut self, producer: usize, credit: Tally) {
        self.flows[producer].lent += credit;
    }

    /// Credit is called in: so much of it was used.
    pub(in crate::queue) fn called_in(&mut self, producer: usize, credit: Tally, used: Tally) {
        let flow = &mut self.flows[producer];
        flow.lent -= credit;
        flow.accepted += used;
        self.used += used;
    }

    /// This one was sent on credit that is [called in](Core::called_in); it comes behind what waits.
    pub(in crate::queue) fn append(&mut self, entry: Entry<T>) {
        self.ring.push(entry);
    }
}
