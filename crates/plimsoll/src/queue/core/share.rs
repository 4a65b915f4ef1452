//! Fair shares: who may still put something in, and who has to make room. Pure arithmetic over what each producer has queued.
//!
//! A part of the queue ([`GUARANTEED_RATIO`], one half) is divided equally among the producers that have a handle or something queued: each
//! one's **share** is its own, the rest is **common**, first come, first served. What a producer has queued beyond its share
//! lies in the common part. So a value is admitted when the queue has room for it and its producer stays within its share, or
//! the common part has room for what goes beyond it: in items, and in bytes. With one producer that is the whole queue.
//!
//! Hence: **a producer within its share always finds room, whatever the others do**, because n shares and the common part are
//! together the queue. A producer that comes, or goes, changes the shares; what was queued before may then exceed the common part
//! until it has left. A producer whose handles are gone keeps its share until what it queued has left.

use super::super::Limits;
use super::super::stats::Tally;

/// The part of a queue that is divided among its producers, unless set otherwise: one half.
pub const GUARANTEED_RATIO: f64 = 0.5;

/// What one producer has put in and what has left, since the queue began. The difference is what it has queued. On a cache line of its
/// own: producers on two processors write in turn.
#[derive(Clone, Copy, Debug, Default)]
#[repr(align(64))]
pub(super) struct Flow {
    pub(super) accepted: Tally,
    pub(super) left: Tally,
    /// What it may send on [credit](super::super::credit), and may have sent. None while the whole queue is looked at.
    pub(super) lent: Tally,
    /// It has a sender or something queued, and so a share.
    pub(super) is_live: bool,
    /// Of what is queued, what the receiver has in hand.
    pub(super) hand: Tally,
}

impl Flow {
    #[inline]
    pub(super) fn queued(&self) -> Tally {
        self.accepted - self.left
    }

    /// What waits and can be taken out.
    pub(super) fn waiting(&self) -> Tally {
        self.queued() - self.hand
    }
}

/// The division of a queue at one moment.
#[derive(Clone, Copy, Debug)]
pub(super) struct Shares {
    limits: Limits,
    guaranteed: Tally,
    /// What each producer has for itself.
    pub(super) share: Tally,
    /// What is there for all.
    pub(super) common: Tally,
}

impl Shares {
    pub(super) fn new(limits: Limits, ratio: f64) -> Shares {
        let part = |of: u64| ((of as f64) * ratio.clamp(0.0, 1.0)) as u64;
        let guaranteed = Tally { items: part(limits.max_items as u64), bytes: part(limits.max_bytes) };
        let mut shares = Shares { limits, guaranteed, share: Tally::default(), common: Tally::default() };
        shares.divide(1);
        shares
    }

    /// Divides among so many producers.
    pub(super) fn divide(&mut self, producers: u64) {
        let n = producers.max(1);
        self.share = Tally { items: self.guaranteed.items / n, bytes: self.guaranteed.bytes / n };
        self.common = Tally {
            items: self.limits.max_items as u64 - self.share.items * n,
            bytes: self.limits.max_bytes - self.share.bytes * n,
        };
    }

    /// Whether no producer could ever have so much queued.
    #[inline]
    pub(super) fn is_too_large(&self, bytes: u64) -> bool {
        bytes > self.largest_bytes() || self.limits.max_items == 0
    }

    /// The most that one value may weigh.
    pub(super) fn largest_bytes(&self) -> u64 {
        self.common.bytes.saturating_add(self.share.bytes)
    }

    /// Whether the whole has room, shares aside.
    #[inline]
    pub(super) fn has_room(&self, used: Tally, bytes: u64) -> bool {
        used.items < self.limits.max_items as u64 && used.bytes.saturating_add(bytes) <= self.limits.max_bytes
    }

    /// Whether `producer` may put in a value of `bytes`; `used` is the sum of `flows`.
    #[inline]
    pub(super) fn admits(&self, flows: &[Flow], used: Tally, producer: usize, bytes: u64) -> bool {
        // As long as everything would fit the common part there is nothing to divide.
        let fits_common = used.items < self.common.items && used.bytes.saturating_add(bytes) <= self.common.bytes;
        fits_common || (self.has_room(used, bytes) && self.has_right(flows, producer, bytes))
    }

    /// Whether it stays within its share, or the common part has room for what goes beyond.
    fn has_right(&self, flows: &[Flow], producer: usize, bytes: u64) -> bool {
        let own = self.beyond(&flows[producer], Tally { items: 1, bytes });
        let others = flows.iter().enumerate().filter(|(i, _)| *i != producer);
        own == Tally::default() || {
            let beyond = others.fold(own, |sum, (_, flow)| sum + self.beyond(flow, Tally::default()));
            // Of what it takes nothing it need not find anything, though others have overdrawn it.
            (own.items == 0 || beyond.items <= self.common.items)
                && (own.bytes == 0 || beyond.bytes <= self.common.bytes)
        }
    }

    /// Whether a value of `bytes` would leave `producer` within its share.
    pub(super) fn is_within(&self, flows: &[Flow], producer: usize, bytes: u64) -> bool {
        self.beyond(&flows[producer], Tally { items: 1, bytes }) == Tally::default()
    }

    /// What a producer would have queued beyond its share with `more`.
    fn beyond(&self, flow: &Flow, more: Tally) -> Tally {
        let share = if flow.is_live { self.share } else { Tally::default() };
        flow.queued() + more - share
    }

    /// What is free of the common part.
    pub(super) fn common_free(&self, flows: &[Flow]) -> Tally {
        flows.iter().fold(self.common, |free, flow| free - self.beyond(flow, flow.lent))
    }

    /// What is free of its share.
    pub(super) fn share_free(&self, flow: &Flow) -> Tally {
        if flow.is_live { self.share - flow.queued() - flow.lent } else { Tally::default() }
    }

    /// Who has to make room for a value of `bytes` from `producer`: the one that would be furthest beyond its share, by the larger
    /// of its parts of the queue in items and in bytes. One that has nothing waiting to be taken out is passed over, but for
    /// `producer` itself: then the new value has to go. `None`: nobody is beyond its share.
    pub(super) fn furthest(&self, flows: &[Flow], producer: usize, bytes: u64) -> Option<usize> {
        let part = |of: u64, whole: u64| if of == 0 { 0.0 } else { of as f64 / whole.max(1) as f64 };
        let mut furthest = (0.0, None);
        for (i, flow) in flows.iter().enumerate() {
            let new = if i == producer { Tally { items: 1, bytes } } else { Tally::default() };
            if i != producer && flow.waiting().items == 0 {
                continue;
            }
            let beyond = self.beyond(flow, new);
            let by = part(beyond.items, self.limits.max_items as u64).max(part(beyond.bytes, self.limits.max_bytes));
            // Of two that are equally far, the one that was there before.
            if by > furthest.0 || (by > 0.0 && by == furthest.0 && furthest.1 == Some(producer)) {
                furthest = (by, Some(i));
            }
        }
        furthest.1
    }
}
