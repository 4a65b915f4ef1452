//! Credit: room that the queue lends to those who send often, so that most of their values take no common lock.
//!
//! What is lent is room that its producer has a right to: what is free of its share, and a part of what is free of the common part. It counts
//! as used until it is called in, together with what was sent on it. Whoever needs the whole queue calls all in first
//! ([`Credits::call_in`]): then nobody has credit, and the queue is as if everything had been sent under its lock. The receiver that takes
//! everything puts it into its order afterwards, without the lock. While the receiver sleeps no more is lent than it waits for, so
//! that whoever grants its wish does so under the lock.
//!
//! At most [`BORROWERS_MAX`] senders have credit at a time, each for [`CREDIT_ITEMS_MAX`] values before it asks again. Each has two buffers, with room
//! for twice what it had queued at once; they are freed when the receiver goes to sleep and that sender was idle before, at the latest
//! when its credit was called in unused [`IDLE_MAX`] times.

use std::sync::Arc;

use super::buffer::Buffer;
use super::core::Core;
use super::part::{Part, merge};
use super::stats::Tally;

/// Senders that have credit at a time. All others take the lock.
pub(super) const BORROWERS_MAX: usize = 64;
/// The most values on credit, for each sender.
pub(super) const CREDIT_ITEMS_MAX: u64 = 1024;
/// Credit for fewer values is not worth while.
const CREDIT_ITEMS_MIN: u64 = if cfg!(loom) { 1 } else { 16 };
/// A sender is forgotten when its credit was called in so often and it had not used it.
const IDLE_MAX: u32 = 64;

pub(super) struct Credits<T> {
    borrowers: Vec<Borrower<T>>,
    /// Somebody has credit, or what was sent on it is not in its order yet.
    is_out: bool,
}

struct Borrower<T> {
    buffer: Arc<Buffer<T>>,
    producer: usize,
    lent: Tally,
    /// What was called in and is not put into its order yet.
    part: Part<T>,
    /// How often it has not used its credit.
    idle: u32,
}

impl<T> Credits<T> {
    pub(super) const fn new() -> Credits<T> {
        Credits { borrowers: Vec::new(), is_out: false }
    }

    /// Calls all credit in, and puts what was sent on it behind what waits.
    #[inline]
    pub(super) fn call_in(&mut self, core: &mut Core<T>) {
        if self.is_out {
            self.call_in_parts(core);
            let parts = self.borrowers.iter_mut().map(|borrower| {
                borrower.part.give_room_back();
                &mut borrower.part
            });
            merge(parts, |value, note| core.append(note.entry(value)));
            self.is_out = false;
        }
    }

    /// Calls all credit in. What was sent on it is counted, and stays here until it is [taken](Credits::take_parts).
    pub(super) fn call_in_parts(&mut self, core: &mut Core<T>) {
        if !self.is_out {
            return;
        }
        for borrower in &mut self.borrowers {
            let lent = std::mem::take(&mut borrower.lent);
            if lent != Tally::default() {
                let used = lent - borrower.buffer.fetch(&mut borrower.part);
                core.called_in(borrower.producer, lent, used);
                borrower.idle = u32::from(used.items == 0);
            } else if borrower.idle > 0 {
                borrower.idle += 1;
            }
        }
    }

    /// When the oldest came that was called in, in milliseconds; not exactly where several senders' lie there.
    pub(super) fn oldest_ms(&self) -> Option<u32> {
        self.borrowers.iter().find_map(|borrower| borrower.part.first()).map(|note| note.at_ms)
    }

    /// Exchanges what was called in for these empty places.
    pub(super) fn take_parts(&mut self, parts: &mut Vec<Part<T>>) {
        for (place, borrower) in self.borrowers.iter_mut().enumerate() {
            if place == parts.len() {
                parts.push(Part::new());
            }
            std::mem::swap(&mut parts[place], &mut borrower.part);
        }
    }

    /// Lends more to a sender that has too little for a value of `bytes`; whether it has enough now.
    pub(super) fn top_up(&mut self, core: &mut Core<T>, buffer: &Arc<Buffer<T>>, producer: usize, bytes: u64) -> bool {
        let known = self.borrowers.iter().position(|borrower| Arc::ptr_eq(&borrower.buffer, buffer));
        let active = self.borrowers.iter().filter(|borrower| borrower.idle == 0).count() as u64;
        let credit = core.lendable(producer, active.max(1)).min(Tally { items: CREDIT_ITEMS_MAX, ..Tally::MAX });
        if credit.items < CREDIT_ITEMS_MIN || credit.bytes / CREDIT_ITEMS_MIN < bytes {
            return false;
        }
        if known.is_none() && self.borrowers.len() == BORROWERS_MAX {
            return false;
        }
        let place = known.unwrap_or_else(|| {
            let (buffer, lent, part) = (Arc::clone(buffer), Tally::default(), Part::new());
            self.borrowers.push(Borrower { buffer, producer, lent, part, idle: 0 });
            self.borrowers.len() - 1
        });
        self.borrowers[place].idle = 0;
        self.lend(core, place, credit);
        true
    }

    fn lend(&mut self, core: &mut Core<T>, place: usize, credit: Tally) {
        let borrower = &mut self.borrowers[place];
        self.is_out = true;
        core.lent(borrower.producer, credit);
        borrower.lent += credit;
        borrower.buffer.lend(credit);
    }

    /// Lends to those who used what was called in.
    #[inline]
    pub(super) fn lend_again(&mut self, core: &mut Core<T>) {
        if self.borrowers.is_empty() || !core.may_lend(CREDIT_ITEMS_MIN) {
            return;
        }
        if self.borrowers.iter().any(|borrower| borrower.idle > IDLE_MAX) {
            self.forget_idle();
        }
        let mut active = self.borrowers.iter().filter(|borrower| borrower.idle == 0).count() as u64;
        for place in 0..self.borrowers.len() {
            let borrower = &self.borrowers[place];
            if borrower.idle > 0 || borrower.lent != Tally::default() {
                continue;
            }
            let credit = core.lendable(borrower.producer, active).min(Tally { items: CREDIT_ITEMS_MAX, ..Tally::MAX });
            active = active.saturating_sub(1);
            if credit.items >= CREDIT_ITEMS_MIN && credit.bytes > 0 {
                self.lend(core, place, credit);
            }
        }
    }

    /// Frees the buffers of those who did not use their credit when it was last called in. All credit was called in.
    pub(super) fn forget_idle(&mut self) {
        self.borrowers.retain(|borrower| {
            let stays = borrower.idle == 0 || !borrower.part.is_empty();
            if !stays {
                borrower.buffer.free();
            }
            stays
        });
    }

    /// This sender ends; its credit was called in.
    pub(super) fn sender_left(&mut self, buffer: &Arc<Buffer<T>>) {
        self.borrowers.retain(|borrower| !Arc::ptr_eq(&borrower.buffer, buffer));
    }
}

#[cfg(all(test, not(loom)))]
impl<T> Credits<T> {
    pub(super) fn is_any_on_credit(&self) -> bool {
        self.borrowers.iter().any(|borrower| borrower.buffer.len() > 0)
    }

    pub(super) fn places(&self) -> usize {
        self.borrowers.iter().map(|borrower| borrower.part.places() + borrower.buffer.places()).sum()
    }
}
