//! The queue without its lock: what is queued, what it weighs, whose it is, and every counter. Pure; time is passed in.
//!
//! Law: `accepted = delivered + displaced + abandoned + queued`, in items and in bytes, for each producer, at every moment.
//! What is released is what was charged: a value is weighed once, before it gets in.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use super::error::{Refusal, SendError};
use super::{Counters, DropReason, Limits, OTHERS, PRODUCERS_MAX, ProducerStats, Sent, Stats, Tally, WhenFull};

/// A queue that was once longer than this gives room back when it is emptied.
pub(super) const KEPT_ITEMS: usize = 1024;

/// One value that waits.
struct Entry<T> {
    value: T,
    bytes: u64,
    at: Duration,
    producer: usize,
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

/// A run of entries that left the queue together.
pub(super) struct Batch<T>(VecDeque<Entry<T>>);

impl<T> Batch<T> {
    pub(super) const fn new() -> Batch<T> {
        Batch(VecDeque::new())
    }

    /// Moves the values to the end of `out`; keeps its room for the next time.
    pub(super) fn pour(&mut self, out: &mut Vec<T>) {
        let poured = self.0.len();
        out.extend(self.0.drain(..).map(|entry| entry.value));
        give_room_back(&mut self.0, poured);
    }
}

struct Producer {
    name: Arc<str>,
    counters: Counters,
}

pub(super) struct Core<T> {
    entries: VecDeque<Entry<T>>,
    bytes: u64,
    limits: Limits,
    when_full: WhenFull,
    closed: bool,
    senders: usize,
    receiver: bool,
    /// The receiver sleeps: whoever changes something wakes it, once.
    pub(super) asleep: bool,
    producers: Vec<Producer>,
    peak_items: usize,
    peak_bytes: u64,
    /// The most entries since it was last empty.
    burst_items: usize,
}

impl<T> Core<T> {
    /// Empty, with one sender and one receiver.
    pub(super) fn new(limits: Limits, when_full: WhenFull) -> Core<T> {
        Core {
            entries: VecDeque::new(),
            bytes: 0,
            limits,
            when_full,
            closed: false,
            senders: 1,
            receiver: true,
            asleep: false,
            producers: Vec::new(),
            peak_items: 0,
            peak_bytes: 0,
            burst_items: 0,
        }
    }

    /// The place of a producer's counters: its own, or those of all that came too late.
    pub(super) fn producer(&mut self, name: &str) -> usize {
        let known = self.producers.iter().position(|producer| &*producer.name == name);
        known.unwrap_or_else(|| {
            let place = self.producers.len().min(PRODUCERS_MAX - 1);
            if place == self.producers.len() {
                let name = if place == PRODUCERS_MAX - 1 { OTHERS } else { name };
                self.producers.push(Producer { name: name.into(), counters: Counters::default() });
            }
            place
        })
    }

    /// Takes a value in, or says why not. What falls out on the way goes to `fallen`.
    pub(super) fn offer(
        &mut self,
        value: T,
        bytes: u64,
        producer: usize,
        at: Duration,
        fallen: &mut Fallen<T>,
    ) -> Result<Sent, SendError<T>> {
        if !self.is_open() {
            return Err(self.refuse(value, bytes, producer, Refusal::Closed));
        }
        let mut displaced = 0;
        if bytes > self.limits.max_bytes || self.limits.max_items == 0 {
            return match self.when_full {
                WhenFull::Reject => Err(self.refuse(value, bytes, producer, Refusal::TooLarge)),
                WhenFull::DropNewest | WhenFull::DropOldest => {
                    self.count_drop(producer, DropReason::TooLarge, bytes);
                    fallen.push(value);
                    Ok(Sent::Dropped)
                }
            };
        }
        while !self.fits(bytes) {
            match self.when_full {
                WhenFull::Reject => return Err(self.refuse(value, bytes, producer, Refusal::Full)),
                WhenFull::DropNewest => {
                    self.count_drop(producer, DropReason::Full, bytes);
                    fallen.push(value);
                    return Ok(Sent::Dropped);
                }
                WhenFull::DropOldest => {
                    // Never empty: an empty queue has room for what is not too large.
                    let Some(oldest) = self.pop() else { break };
                    self.count_drop(oldest.producer, DropReason::Displaced, oldest.bytes);
                    fallen.push(oldest.value);
                    displaced += 1;
                }
            }
        }
        self.producers[producer].counters.accepted.add_one(bytes);
        self.entries.push_back(Entry { value, bytes, at, producer });
        self.bytes += bytes;
        self.burst_items = self.burst_items.max(self.entries.len());
        self.peak_items = self.peak_items.max(self.entries.len());
        self.peak_bytes = self.peak_bytes.max(self.bytes);
        Ok(if displaced == 0 { Sent::Queued } else { Sent::Displaced(displaced) })
    }

    fn fits(&self, bytes: u64) -> bool {
        self.entries.len() < self.limits.max_items && bytes <= self.limits.max_bytes.saturating_sub(self.bytes)
    }

    fn refuse(&mut self, value: T, bytes: u64, producer: usize, refusal: Refusal) -> SendError<T> {
        self.producers[producer].counters.refused[refusal as usize].add_one(bytes);
        SendError { value, refusal }
    }

    fn count_drop(&mut self, producer: usize, reason: DropReason, bytes: u64) {
        self.producers[producer].counters.dropped[reason as usize].add_one(bytes);
    }

    fn pop(&mut self) -> Option<Entry<T>> {
        let entry = self.entries.pop_front()?;
        self.bytes -= entry.bytes;
        Some(entry)
    }

    /// The oldest value.
    pub(super) fn take(&mut self) -> Option<T> {
        let entry = self.pop()?;
        self.producers[entry.producer].counters.delivered.add_one(entry.bytes);
        if self.entries.is_empty() {
            let burst = std::mem::take(&mut self.burst_items);
            give_room_back(&mut self.entries, burst);
        }
        Some(entry.value)
    }

    /// Everything, in exchange for an empty batch, whose room is used again. Says how many.
    pub(super) fn take_all(&mut self, batch: &mut Batch<T>) -> usize {
        debug_assert!(batch.0.is_empty(), "a batch is poured before it is used again");
        for entry in &self.entries {
            self.producers[entry.producer].counters.delivered.add_one(entry.bytes);
        }
        std::mem::swap(&mut self.entries, &mut batch.0);
        self.bytes = 0;
        self.burst_items = 0;
        batch.0.len()
    }

    pub(super) fn is_open(&self) -> bool {
        !self.closed && self.receiver
    }

    /// Whether there is something to receive, or will never be.
    pub(super) fn is_settled(&self) -> bool {
        !self.entries.is_empty() || self.closed || self.senders == 0
    }

    /// Takes nothing more; what is queued can still be received.
    pub(super) fn close(&mut self) {
        self.closed = true;
    }

    pub(super) fn sender_came(&mut self) {
        self.senders += 1;
    }

    pub(super) fn sender_left(&mut self) {
        self.senders -= 1;
    }

    /// The receiver is gone: what is queued was accepted in vain. It is given out to be dropped.
    pub(super) fn receiver_left(&mut self) -> Batch<T> {
        self.receiver = false;
        for entry in &self.entries {
            self.producers[entry.producer].counters.dropped[DropReason::Abandoned as usize].add_one(entry.bytes);
        }
        self.bytes = 0;
        Batch(std::mem::take(&mut self.entries))
    }

    /// Everything but the producers, for whom there is room in `stats` already.
    pub(super) fn stats(&self, now: Duration, stats: &mut Stats) {
        stats.queued = Tally { items: self.entries.len() as u64, bytes: self.bytes };
        stats.peak_items = self.peak_items as u64;
        stats.peak_bytes = self.peak_bytes;
        stats.oldest_age = self.entries.front().map(|entry| now.saturating_sub(entry.at));
        stats.closed = !self.is_open();
        stats.limits = self.limits;
        stats.producers.extend(
            self.producers
                .iter()
                .map(|producer| ProducerStats { name: Arc::clone(&producer.name), counters: producer.counters }),
        );
    }

    #[cfg(test)]
    pub(super) fn room_items(&self) -> usize {
        self.entries.capacity()
    }
}

/// After a burst that is over: room for four times what was used is too much.
fn give_room_back<T>(empty: &mut VecDeque<T>, used: usize) {
    if empty.capacity() > KEPT_ITEMS && used < empty.capacity() / 4 {
        empty.shrink_to(used.max(KEPT_ITEMS));
    }
}
