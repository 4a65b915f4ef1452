//! The queue without its lock: what is queued, what it weighs, whose it is, and every counter. Pure; time is passed in.
//!
//! Law: `accepted = delivered + displaced + abandoned + refused by the sink + queued`, in items and in bytes, for each producer, at
//! every moment. What is released is what was charged: a value is weighed once, before it gets in. Queued is what waits here
//! **and** what a batcher has in hand until it is written: both count against the limits.

mod lane;
mod lend;
mod ring;
mod share;
mod spill;
mod sum;
mod wait;

use std::sync::Arc;
use std::time::Duration;

use super::error::{Refusal, SendError};
use super::stats::{Counters, DropReason, Missing, ProducerStats, Stats, Tally};
use super::{Builder, Limits, OTHERS, PRODUCERS_MAX, Sent};
#[cfg(all(test, not(loom)))]
pub(super) mod testing {
    pub(in crate::queue) use super::ring::{Cursors, KEPT_ITEMS, Ring};
}
pub(super) use lane::Lane;
use ring::Cursor;
pub(super) use ring::{Entry, KEPT_ITEMS, Ring};
pub use share::GUARANTEED_RATIO;
use share::{Flow, Shares};
use spill::Spill;
use sum::Sum;
pub(super) use wait::{RoomMade, Sleeper, Wish};

/// What is done with a value that finds no room.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Policy {
    DropNewest,
    DropOldest,
    Reject,
    Wait,
    Overflow,
}

/// What the core says to a value.
pub(super) enum Offer<T> {
    /// It was taken, dropped or refused.
    Done(Result<Sent, SendError<T>>),
    /// There is no room now; its sender may wait for some.
    NoRoom(T),
    /// It goes to the overflow; its sender says afterwards what came of it ([`Core::spilled`]).
    Spill(T),
}

/// Values that fell out of the queue: dropped by whoever holds this, after the lock is released.
pub(super) struct Fallen<T>(Option<T>, Vec<T>);

impl<T> Default for Fallen<T> {
    fn default() -> Self {
        Fallen(None, Vec::new())
    }
}

impl<T> Fallen<T> {
    fn push(&mut self, value: T) {
        match &mut self.0 {
            empty @ None => *empty = Some(value),
            Some(_) => self.1.push(value),
        }
    }
}

/// What one producer lost since it was last asked, for one reason.
pub(super) struct Loss {
    pub(super) producer: Arc<str>,
    pub(super) reason: DropReason,
    pub(super) missing: Missing,
}

struct Producer {
    name: Arc<str>,
    lane: Arc<Lane>,
    /// Senders that count as this one.
    handles: usize,
    oldest: Cursor,
    dropped: [Tally; DropReason::COUNT],
    refused: [Tally; Refusal::COUNT],
    /// What was dropped and not yet told in a gap record.
    untold: [Missing; DropReason::COUNT],
}

/// What every send writes comes first and together: each time the lock passes from one processor to another, those lines follow it.
#[repr(C)]
pub(super) struct Core<T> {
    used: Tally,
    ring: Ring<T>,
    /// Of that, what the receiver has in hand.
    in_hand: Tally,
    shares: Shares,
    limits: Limits,
    policy: Policy,
    sum: Option<Sum>,
    closed: bool,
    senders: usize,
    receiver: bool,
    flows: Vec<Flow>,
    producers: Vec<Producer>,
    peak: Tally,
    spill: Spill,
    /// Somebody found no room since the receiver last took everything.
    pressed: bool,
    /// Some lane says that nothing gets in.
    is_any_full: bool,
    /// Some producer has no sender any more and something queued: its share ends with that.
    is_any_leaving: bool,
    /// Something was dropped that no gap record tells yet.
    untold: bool,
    /// Since when the oldest value in the receiver's hand waits, in milliseconds.
    hand_since_ms: u32,
    pub(super) wait: wait::Waiting,
}

impl<T> Core<T> {
    /// Empty, with no sender yet and one receiver.
    pub(super) fn new(setup: &mut Builder<T>, policy: Policy, kept: u64) -> Core<T> {
        let limits = setup.limits;
        Core {
            ring: Ring::new(),
            used: Tally::default(),
            in_hand: Tally::default(),
            shares: Shares::new(limits, setup.guaranteed_ratio),
            limits,
            policy,
            sum: setup.account.take().map(|account| Sum::new(account, limits.max_bytes)),
            closed: false,
            senders: 0,
            receiver: true,
            flows: Vec::new(),
            producers: Vec::new(),
            peak: Tally::default(),
            spill: Spill { active: kept > 0, kept, ..Spill::default() },
            pressed: false,
            is_any_full: false,
            is_any_leaving: false,
            untold: false,
            hand_since_ms: 0,
            wait: wait::Waiting::default(),
        }
    }

    /// One sender more, with the counters of this name: its own, or those of all that came too late.
    pub(super) fn sender_named(&mut self, name: &str) -> usize {
        let known = self.producers.iter().position(|producer| &*producer.name == name);
        let place = known.unwrap_or_else(|| {
            let place = self.producers.len().min(PRODUCERS_MAX - 1);
            if place == self.producers.len() {
                let name = if place == PRODUCERS_MAX - 1 { OTHERS } else { name };
                self.flows.push(Flow::default());
                self.producers.push(Producer {
                    name: name.into(),
                    lane: Arc::default(),
                    handles: 0,
                    oldest: Cursor::default(),
                    dropped: Default::default(),
                    refused: Default::default(),
                    untold: Default::default(),
                });
            }
            place
        });
        self.sender_came(place);
        place
    }

    pub(super) fn sender_came(&mut self, producer: usize) {
        self.senders += 1;
        self.producers[producer].handles += 1;
        self.divide();
    }

    pub(super) fn sender_left(&mut self, producer: usize) {
        self.senders -= 1;
        self.producers[producer].handles -= 1;
        self.divide();
    }

    fn divide(&mut self) {
        let mut live = 0;
        self.is_any_leaving = false;
        for (flow, producer) in self.flows.iter_mut().zip(&self.producers) {
            let is_gone = producer.handles == 0;
            flow.is_live = !is_gone || flow.queued().items > 0;
            live += u64::from(flow.is_live);
            self.is_any_leaving |= is_gone && flow.is_live;
        }
        self.shares.divide(live);
        self.note_room();
    }

    pub(super) fn lane(&self, producer: usize) -> Arc<Lane> {
        Arc::clone(&self.producers[producer].lane)
    }

    /// When not even a value without weight would get in, its senders may turn away by themselves; whether that is so.
    pub(super) fn note_full(&mut self, producer: usize) -> bool {
        // With this policy what lies on another's share makes room for a value within its own.
        let makes_room = self.policy == Policy::DropNewest && self.shares.is_within(&self.flows, producer, 0);
        let is_full = !makes_room && !self.shares.admits(&self.flows, self.used, producer, 0);
        if is_full {
            self.producers[producer].lane.turn_away(self.shares.largest_bytes().saturating_add(1));
            self.is_any_full = true;
        }
        is_full
    }

    /// Something has changed: everybody may try again.
    fn note_room(&mut self) {
        if std::mem::take(&mut self.is_any_full) {
            self.producers.iter().for_each(|producer| producer.lane.turn_away(0));
        }
    }

    /// Counts what senders turned away by themselves.
    fn fetch_turned_away(&mut self, now: Duration) {
        for producer in 0..self.producers.len() {
            let turned_away = self.producers[producer].lane.fetch();
            if turned_away == Tally::default() {
            } else if matches!(self.policy, Policy::Reject | Policy::Wait) {
                self.producers[producer].refused[Refusal::Full as usize] += turned_away;
            } else {
                self.note_drop(producer, DropReason::Full, turned_away, now);
            }
        }
    }

    pub(super) fn name(&self, producer: usize) -> Arc<str> {
        Arc::clone(&self.producers[producer].name)
    }

    /// Takes a value in, or says why not. What falls out on the way goes to `fallen`. A `patient` sender may be told to wait.
    #[inline]
    pub(super) fn offer(
        &mut self,
        value: T,
        bytes: u64,
        producer: usize,
        at: Duration,
        patient: bool,
        fallen: &mut Fallen<T>,
    ) -> Offer<T> {
        let room = self.is_open() && !self.spill.active && self.shares.admits(&self.flows, self.used, producer, bytes);
        if room && self.is_covered(bytes) {
            self.push(value, bytes, producer, at);
            return Offer::Done(Ok(Sent::Queued));
        }
        self.offer_otherwise(value, bytes, producer, at, patient, fallen)
    }

    #[inline]
    fn is_covered(&self, bytes: u64) -> bool {
        self.sum.as_ref().is_none_or(|sum| self.used.bytes + bytes <= sum.covered_bytes())
    }

    fn cover(&mut self, bytes: u64, at: Duration) -> bool {
        let used = self.used.bytes.saturating_add(bytes);
        self.sum.as_mut().is_none_or(|sum| used <= sum.covered_bytes() || sum.cover(used, at))
    }

    #[inline]
    fn push(&mut self, value: T, bytes: u64, producer: usize, at: Duration) {
        self.flows[producer].accepted.add_one(bytes);
        self.used.add_one(bytes);
        self.ring.push(Entry { value: Some(value), bytes, at_ms: milliseconds(at), producer: producer as u32 });
    }

    fn offer_otherwise(
        &mut self,
        value: T,
        bytes: u64,
        producer: usize,
        at: Duration,
        patient: bool,
        fallen: &mut Fallen<T>,
    ) -> Offer<T> {
        let gives_back = matches!(self.policy, Policy::Reject | Policy::Wait);
        if !self.is_open() {
            return self.refuse(value, bytes, producer, Refusal::Closed);
        }
        if self.shares.is_too_large(bytes) {
            return if gives_back {
                self.refuse(value, bytes, producer, Refusal::TooLarge)
            } else {
                self.drop_new(value, bytes, producer, DropReason::TooLarge, at, fallen)
            };
        }
        if self.spill.active {
            return self.begin_spill(value);
        }
        let mut displaced = 0;
        loop {
            let admitted = self.shares.admits(&self.flows, self.used, producer, bytes);
            if admitted && self.cover(bytes, at) {
                self.push(value, bytes, producer, at);
                return Offer::Done(Ok(if displaced == 0 { Sent::Queued } else { Sent::Displaced(displaced) }));
            }
            self.pressed = true;
            match self.policy {
                // Nothing that leaves this queue would help: do not wait for it.
                Policy::Reject | Policy::Wait if admitted && (!patient || self.used.items == 0) => {
                    return self.refuse(value, bytes, producer, Refusal::SumFull);
                }
                Policy::Reject | Policy::Wait if patient => return Offer::NoRoom(value),
                Policy::Reject | Policy::Wait => {
                    if self.policy == Policy::Reject {
                        self.note_full(producer);
                    }
                    return self.refuse(value, bytes, producer, Refusal::Full);
                }
                Policy::Overflow => return self.begin_spill(value),
                Policy::DropNewest | Policy::DropOldest => {
                    let victim = self.victim(admitted, producer, bytes);
                    let Some(fell) = victim.and_then(|victim| self.displace(victim, at)) else {
                        let reason = if admitted { DropReason::SumFull } else { DropReason::Full };
                        if self.policy == Policy::DropNewest {
                            self.note_full(producer);
                        }
                        return self.drop_new(value, bytes, producer, reason, at, fallen);
                    };
                    fallen.push(fell);
                    displaced += 1;
                }
            }
        }
    }

    /// Whose value makes room for a new one; `None`: the new one has to go. Nothing is displaced for a value that would not get in
    /// even then.
    fn victim(&mut self, admitted: bool, producer: usize, bytes: u64) -> Option<usize> {
        if !self.shares.has_room(self.in_hand, bytes) {
            return None;
        }
        match self.policy {
            // The room is there and the sum's is not: everybody for himself.
            Policy::DropOldest if admitted => {
                let others = self.used.bytes - self.flows[producer].waiting().bytes;
                let sum = self.sum.as_mut()?;
                sum.cover_after_all(others.saturating_add(bytes)).then_some(producer)
            }
            Policy::DropOldest => self.shares.furthest(&self.flows, producer, bytes),
            // What waits is older and stays, unless it lies on the share of the one that comes.
            Policy::DropNewest if !admitted && self.shares.is_within(&self.flows, producer, bytes) => {
                self.shares.furthest(&self.flows, producer, bytes)
            }
            _ => None,
        }
    }

    fn displace(&mut self, victim: usize, at: Duration) -> Option<T> {
        let (value, bytes) = if self.policy == Policy::DropOldest {
            self.ring.take_oldest(victim as u32, &mut self.producers[victim].oldest)?
        } else {
            self.ring.take_newest(victim as u32)?
        };
        if self.ring.is_sparse() {
            self.ring.pack();
            self.producers.iter_mut().for_each(|producer| producer.oldest = Cursor::default());
        }
        let one = Tally { items: 1, bytes };
        self.flows[victim].left += one;
        self.released(one);
        self.note_drop(victim, DropReason::Displaced, one, at);
        Some(value)
    }

    fn refuse(&mut self, value: T, bytes: u64, producer: usize, refusal: Refusal) -> Offer<T> {
        Offer::Done(Err(self.give_back(value, bytes, producer, refusal)))
    }

    /// Counts a value that its sender gets back.
    pub(super) fn give_back(&mut self, value: T, bytes: u64, producer: usize, refusal: Refusal) -> SendError<T> {
        self.producers[producer].refused[refusal as usize].add_one(bytes);
        SendError { value, refusal }
    }

    fn drop_new(
        &mut self,
        value: T,
        bytes: u64,
        producer: usize,
        reason: DropReason,
        at: Duration,
        fallen: &mut Fallen<T>,
    ) -> Offer<T> {
        self.pressed = true;
        self.note_drop(producer, reason, Tally { items: 1, bytes }, at);
        fallen.push(value);
        Offer::Done(Ok(Sent::Dropped))
    }

    /// Counts what a producer lost, and remembers it for a gap record.
    pub(super) fn note_drop(&mut self, producer: usize, reason: DropReason, lost: Tally, at: Duration) {
        let producer = &mut self.producers[producer];
        producer.dropped[reason as usize] += lost;
        producer.untold[reason as usize].add(lost, at);
        self.untold = true;
    }

    /// The oldest value: delivered.
    pub(super) fn take(&mut self) -> Option<T> {
        let (value, bytes, producer) = self.ring.pop()?;
        let one = Tally { items: 1, bytes };
        self.flows[producer].left += one;
        self.released(one);
        Some(value)
    }

    /// Everything that waits, in exchange for an empty ring: delivered. Says how many.
    pub(super) fn take_all(&mut self, ring: &mut Ring<T>) -> usize {
        let mut taken = Tally::default();
        for flow in &mut self.flows {
            let waiting = flow.waiting();
            flow.left += waiting;
            taken += waiting;
        }
        self.ring.swap(ring);
        self.pressed = false;
        self.released(taken);
        taken.items as usize
    }

    /// Everything that waits, into the hand of a batcher: it stays queued until it is [settled](Core::settle).
    pub(super) fn take_in_hand(&mut self, ring: &mut Ring<T>, oldest_lent_ms: Option<u32>) {
        self.hand_since_ms = self.ring.oldest().map(|oldest| oldest.at_ms).or(oldest_lent_ms).unwrap_or_default();
        for flow in &mut self.flows {
            flow.hand = flow.queued();
        }
        self.in_hand = self.used;
        self.ring.swap(ring);
        self.pressed = false;
    }

    /// What was in hand is out of it: delivered, or dropped for a reason.
    pub(super) fn settle(&mut self, producer: usize, out: Tally, dropped: Option<DropReason>, at: Duration) {
        let flow = &mut self.flows[producer];
        flow.hand -= out;
        flow.left += out;
        self.in_hand -= out;
        if self.is_any_full {
            // Told while they are fresh: the batcher goes to sleep next, unless there is a loss to tell.
            self.fetch_turned_away(at);
        }
        self.released(out);
        if let Some(reason) = dropped {
            self.note_drop(producer, reason, out, at);
        }
    }

    fn released(&mut self, out: Tally) {
        self.peak = self.peak_now();
        self.note_room();
        self.used -= out;
        if self.is_any_leaving {
            self.divide();
        }
        if let Some(sum) = &mut self.sum {
            let lent = self.flows.iter().fold(Tally::default(), |sum, flow| sum + flow.lent);
            sum.uncover((self.used + lent).bytes);
        }
    }

    /// Between two releases it only grows, so sends need not keep it.
    fn peak_now(&self) -> Tally {
        Tally { items: self.peak.items.max(self.used.items), bytes: self.peak.bytes.max(self.used.bytes) }
    }

    /// What was lost since the last call, for gap records.
    pub(super) fn take_losses(&mut self, now: Duration, into: &mut Vec<Loss>) {
        self.fetch_turned_away(now);
        if !std::mem::take(&mut self.untold) {
            return;
        }
        for producer in &mut self.producers {
            for reason in DropReason::ALL {
                let missing = std::mem::take(&mut producer.untold[reason as usize]);
                if missing.lost.items > 0 {
                    into.push(Loss { producer: Arc::clone(&producer.name), reason, missing });
                }
            }
        }
    }

    #[inline]
    pub(super) fn is_open(&self) -> bool {
        !self.closed && self.receiver
    }

    /// Nothing waits, here or in the overflow, and nothing can come any more.
    pub(super) fn is_drained(&self) -> bool {
        self.waiting().items == 0 && self.is_ending() && self.spill.kept == 0 && self.spill.in_flight == 0
    }

    /// Nothing can come any more.
    pub(super) fn is_ending(&self) -> bool {
        self.closed || self.senders == 0
    }

    /// Whether the receiver has what it waits for, or never will.
    #[inline]
    pub(super) fn grants(&self, wish: Wish) -> bool {
        let waiting = self.waiting();
        waiting.items >= wish.items as u64
            || (waiting.items > 0 && (wish.is_pressing && self.pressed || waiting.bytes >= wish.bytes))
            || (wish.losses && self.untold)
            || (self.spill.kept > 0 && wish.items != usize::MAX)
            || (self.is_ending() && self.spill.in_flight == 0)
    }

    /// What waits and is in nobody's hand.
    #[inline]
    pub(super) fn waiting(&self) -> Tally {
        self.used - self.in_hand
    }

    /// Takes nothing more; what is queued can still be received.
    pub(super) fn close(&mut self) {
        self.note_room();
        self.closed = true;
    }

    /// The receiver is gone: what is queued was accepted in vain. What waits is given out to be dropped.
    pub(super) fn receiver_left(&mut self, at: Duration) -> Ring<T> {
        self.receiver = false;
        for producer in 0..self.flows.len() {
            let queued = self.flows[producer].queued();
            self.flows[producer].hand = Tally::default();
            self.flows[producer].left += queued;
            if queued.items > 0 {
                self.note_drop(producer, DropReason::Abandoned, queued, at);
            }
        }
        self.in_hand = Tally::default();
        self.released(self.used);
        std::mem::replace(&mut self.ring, Ring::new())
    }

    /// Everything but the producers, for whom there is room in `stats` already.
    pub(super) fn stats(&mut self, now: Duration, stats: &mut Stats) {
        self.fetch_turned_away(now);
        stats.queued = self.used;
        let peak = self.peak_now();
        (stats.peak_items, stats.peak_bytes) = (peak.items, peak.bytes);
        let age = |since_ms: u32| Duration::from_millis(u64::from(milliseconds(now).wrapping_sub(since_ms)));
        let in_hand = (self.in_hand.items > 0).then_some(self.hand_since_ms);
        stats.oldest_age = in_hand.or_else(|| self.ring.oldest().map(|entry| entry.at_ms)).map(age);
        stats.closed = !self.is_open();
        stats.limits = self.limits;
        stats.share = self.shares.share;
        stats.overflow.kept_items = self.spill.kept;
        stats.overflow.taken_total = self.spill.total;
        stats.overflow.returned_items_total = self.spill.returned;
        stats.overflow.lost_items_total = self.spill.lost;
        stats.producers.extend(self.producers.iter().zip(&self.flows).map(|(producer, flow)| ProducerStats {
            name: Arc::clone(&producer.name),
            queued: flow.queued(),
            counters: producer.counters(flow),
        }));
    }

    #[cfg(all(test, not(loom)))]
    pub(super) fn room_items(&self) -> usize {
        self.ring.room_items()
    }
}

impl Producer {
    fn counters(&self, flow: &Flow) -> Counters {
        let in_vain = DropReason::AFTER_ACCEPTED.into_iter().map(|reason| self.dropped[reason as usize]);
        Counters {
            accepted: flow.accepted,
            delivered: in_vain.fold(flow.left, |left, dropped| left - dropped),
            dropped: self.dropped,
            refused: self.refused,
        }
    }
}

/// For ages: wraps after 49 days.
#[inline]
pub(super) fn milliseconds(at: Duration) -> u32 {
    (at.as_secs() as u32).wrapping_mul(1000).wrapping_add(at.subsec_millis())
}
