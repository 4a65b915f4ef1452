//! Where a sender puts values without the queue's lock: on credit, out of the room that the queue has.
//!
//! One for each sender, behind a lock of its own that is held for some nanoseconds and that only its queue takes beside it. It holds
//! at most what was [lent](super::credit) to it, in items and in bytes: what lies here was admitted when the room was lent.

use std::collections::VecDeque;
use std::time::Duration;

#[cfg(loom)]
use loom::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
#[cfg(not(loom))]
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};

use super::core::{Entry, give_room_back, milliseconds};
use super::lock::{self, BriefMutex};
use super::stats::Tally;

/// The order of what lies in several buffers: who finds that another took the last ticket takes the next one. So a run of values that one
/// sender puts in has one ticket, and costs one step of this counter. Runs keep its lower half: only what lies there together is compared.
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

/// What one sender sent on credit, in its order.
pub(super) struct Part<T> {
    entries: VecDeque<Entry<T>>,
    /// Which of them have which ticket.
    runs: VecDeque<Run>,
}

/// So many entries with one ticket.
struct Run {
    ticket: u32,
    items: u32,
}

impl<T> Part<T> {
    pub(super) const fn new() -> Part<T> {
        Part { entries: VecDeque::new(), runs: VecDeque::new() }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    pub(super) fn oldest(&self) -> Option<&Entry<T>> {
        self.entries.front()
    }

    #[inline]
    fn push(&mut self, entry: Entry<T>, ticket: u32) {
        match self.runs.back_mut() {
            Some(run) if run.ticket == ticket && run.items < u32::MAX => run.items += 1,
            _ => self.runs.push_back(Run { ticket, items: 1 }),
        }
        self.entries.push_back(entry);
    }

    fn append(&mut self, later: &mut Part<T>) {
        self.entries.append(&mut later.entries);
        self.runs.append(&mut later.runs);
    }

    /// The ticket of its first entry.
    fn ticket(&self) -> Option<u32> {
        self.runs.front().map(|run| run.ticket)
    }

    /// Passes its first run on.
    fn pass_run(&mut self, pass: impl FnMut(Entry<T>)) {
        let run = self.runs.pop_front();
        self.entries.drain(..run.map_or(0, |run| run.items as usize)).for_each(pass);
    }

    /// Passes all on.
    fn pass_all(&mut self, pass: impl FnMut(Entry<T>)) {
        self.runs.clear();
        self.entries.drain(..).for_each(pass);
    }

    /// Room for far more than lies here now is given back.
    fn give_room_back(&mut self) {
        let (entries, runs) = (self.entries.len(), self.runs.len());
        give_room_back(&mut self.entries, entries);
        give_room_back(&mut self.runs, runs);
    }

    #[cfg(all(test, not(loom)))]
    pub(super) fn places(&self) -> usize {
        self.entries.capacity()
    }
}

/// Empties these parts, as [`merge`] does; what was room for far more than lay in one is given back.
pub(super) fn pour<T>(parts: &mut [Part<T>], pass: impl FnMut(Entry<T>)) {
    parts.iter_mut().for_each(Part::give_room_back);
    merge(parts.iter_mut(), pass);
}

/// Passes on what lies in these parts in the order in which it was sent: the next is the run with the least ticket.
pub(super) fn merge<'a, T: 'a>(parts: impl Iterator<Item = &'a mut Part<T>>, mut pass: impl FnMut(Entry<T>)) {
    let mut parts = parts.filter(|part| !part.is_empty());
    let Some(first) = parts.next() else { return };
    let Some(second) = parts.next() else { return first.pass_all(pass) };
    let mut parts: Vec<_> = [first, second].into_iter().chain(parts).collect();
    while let [first, _, ..] = &parts[..] {
        // Tickets wrap: they are compared as distances from one of them.
        let base = first.ticket().unwrap_or_default();
        let rank = |part: &Part<T>| part.ticket().map(|ticket| ticket.wrapping_sub(base) as i32);
        let least = (0..parts.len()).min_by_key(|place| rank(parts[*place])).unwrap_or_default();
        parts[least].pass_run(&mut pass);
        if parts[least].is_empty() {
            parts.swap_remove(least);
        }
    }
    parts.into_iter().for_each(|part| part.pass_all(&mut pass));
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
        state.part.push(Entry { value: Some(value), bytes, at_ms, producer }, ticket);
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
        if part.is_empty() {
            std::mem::swap(&mut state.part, part);
        } else {
            part.append(&mut state.part);
        }
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
        lock::brief(&self.state).part.entries.len()
    }

    #[cfg(all(test, not(loom)))]
    pub(super) fn places(&self) -> usize {
        lock::brief(&self.state).part.places()
    }
}
