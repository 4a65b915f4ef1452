//! Where a sender puts values without the queue's lock: on credit, out of the room that the queue has.
//!
//! One for each sender, behind a lock of its own that is held for some nanoseconds (longer only while the buffer
//! grows) and that only its queue takes beside it. It holds
//! at most what was [lent](super::credit) to it, in items and in bytes: what lies here was admitted when the room was lent.

use std::time::Duration;

#[cfg(loom)]
use loom::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
#[cfg(not(loom))]
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};

use super::core::milliseconds;
use super::lock::{self, BriefMutex};
use super::part::{Note, Part};
use super::stats::Tally;

/// The order of what lies in several buffers: who finds that another took the last ticket takes the next one. So a run of values that one
/// sender puts in has one ticket, and costs one step of this counter. Notes keep its lower half: only what lies there together is compared.
#[repr(align(128))]
pub(super) struct Tickets(AtomicU64);

impl Tickets {
    pub(super) fn new() -> Tickets {
        // 0 is the last ticket of one who had none.
        Tickets(AtomicU64::new(1))
    }

    /// The ticket for a value of one whose last one this was.
    #[inline]
    fn after(&self, last: u64) -> u64 {
        // A stale number is one that nothing which came before depends on.
        if self.0.load(Ordering::Relaxed) == last { last } else { self.0.fetch_add(1, Ordering::Relaxed) + 1 }
    }
}

/// One sender's; on lines of its own.
#[repr(align(128))]
pub(super) struct Buffer<T> {
    /// The millisecond in which it last found no credit.
    lacked_ms: AtomicU32,
    /// It has been given credit that has not been called in: there is something to look at behind the lock.
    has_credit: AtomicBool,
    state: BriefMutex<State<T>>,
}

struct State<T> {
    /// What may still be put in.
    credit: Tally,
    ticket: u64,
    part: Part<T>,
}

impl<T> Buffer<T> {
    pub(super) fn new() -> Buffer<T> {
        let state = State { credit: Tally::default(), ticket: 0, part: Part::new() };
        Buffer { lacked_ms: AtomicU32::new(0), has_credit: AtomicBool::new(false), state: BriefMutex::new(state) }
    }

    /// Puts a value in, or gives it back when there is no credit for it.
    #[inline]
    pub(super) fn put(&self, value: T, bytes: u64, producer: usize, at: Duration, tickets: &Tickets) -> Result<(), T> {
        if !self.has_credit.load(Ordering::Relaxed) {
            return Err(value);
        }
        let mut state = lock::brief(&self.state);
        if state.credit.items == 0 || state.credit.bytes < bytes {
            return Err(value);
        }
        state.credit -= Tally { items: 1, bytes };
        state.ticket = tickets.after(state.ticket);
        let (at_ms, producer, ticket) = (milliseconds(at), producer as u32, state.ticket as u32);
        state.part.push(value, Note { bytes, at_ms, producer, ticket });
        Ok(())
    }

    /// Whether it lacked credit before in this millisecond: then some is worth while.
    pub(super) fn lacks_often(&self, at: Duration) -> bool {
        let (now_ms, lacked_ms) = (milliseconds(at), self.lacked_ms.load(Ordering::Relaxed));
        self.lacked_ms.store(now_ms, Ordering::Relaxed);
        // In a model time must not decide.
        lacked_ms == now_ms || cfg!(loom)
    }

    /// Lends it so much more.
    pub(super) fn lend(&self, credit: Tally) {
        let mut state = lock::brief(&self.state);
        state.credit += credit;
        self.has_credit.store(true, Ordering::Relaxed);
    }

    /// Takes back what is left of the credit, and moves what lies here behind what lies in `part`.
    pub(super) fn fetch(&self, part: &mut Part<T>) -> Tally {
        let mut state = lock::brief(&self.state);
        self.has_credit.store(false, Ordering::Relaxed);
        part.append(&mut state.part);
        std::mem::take(&mut state.credit)
    }

    /// Gives its places back to the allocator.
    pub(super) fn free(&self) {
        let mut state = lock::brief(&self.state);
        debug_assert!(state.part.is_empty(), "what was sent on credit is called in with it");
        state.part = Part::new();
    }

    #[cfg(all(test, not(loom)))]
    pub(super) fn len(&self) -> usize {
        lock::brief(&self.state).part.len()
    }

    #[cfg(all(test, not(loom)))]
    pub(super) fn places(&self) -> usize {
        lock::brief(&self.state).part.places()
    }
}
