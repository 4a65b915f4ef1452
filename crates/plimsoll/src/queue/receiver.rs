//! The end that receives: waiting as a thread or as a task, one value or all that wait; and, for a batcher, what it has in hand.
//!
//! There is one; it sleeps until its wish is granted or its time is over, and costs nothing meanwhile.

use std::future::poll_fn;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use super::core::{Loss, Ring, Sleeper, Wish};
use super::lock::Pause;
use super::part::{Part, pour, pour_values};
use super::sender::WAIT_MAX;
use super::shared::{Guard, Monitor, Shared};
use super::{DropReason, RecvError, Stats, Tally};
use crate::clock::{Clock as _, MonotonicClock};

/// Values taken from the overflow at a time: its lock is held meanwhile.
const OVERFLOW_STEP: u64 = 256;

/// Fewer values than this at a time are a small catch.
const SMALL_CATCH: usize = 256;
/// The longest moment after small catches: some microseconds.
const LINGER_SPINS: u32 = 128;

/// The end that receives. There is one; dropping it abandons what is queued.
pub struct Receiver<T> {
    pub(super) shared: Arc<Shared<T>>,
    /// What was last taken all at once: empty between calls (but in a batcher's hand), its room is used again.
    ring: Ring<T>,
    /// What came with it on credit and has to be put into its order: empty between calls.
    parts: Vec<Part<T>>,
    /// How long to leave the senders alone before the next catch, in spins.
    linger_spins: u32,
}

impl<T> Receiver<T> {
    pub(super) fn new(shared: Arc<Shared<T>>) -> Receiver<T> {
        Receiver { shared, ring: Ring::new(), parts: Vec::new(), linger_spins: 0 }
    }

    /// The oldest value; waits for one. `None` when the queue is closed (or its senders gone) and drained.
    pub fn recv(&mut self) -> Option<T> {
        loop {
            if let Some(value) = self.take_settled() {
                return Some(value);
            }
            let (core, _) = wait(&self.shared, Wish::ANY, None, &mut self.parts);
            if let Some(taken) = self.take(core) {
                return taken.ok();
            }
        }
    }

    /// The oldest value; waits for one for at most `timeout` (0: does not wait).
    ///
    /// # Errors
    /// [`RecvError::Timeout`] when nothing came; [`RecvError::Closed`] when nothing can come any more.
    pub fn recv_timeout(&mut self, timeout: Duration) -> Result<T, RecvError> {
        if let Some(value) = self.take_settled() {
            return Ok(value);
        }
        let (core, _) = wait(&self.shared, Wish::ANY, Some(timeout), &mut self.parts);
        self.take(core).unwrap_or(Err(RecvError::Timeout))
    }

    /// The oldest value; the task waits for one. `None` when the queue is closed (or its senders gone) and drained. Runs on any runtime.
    ///
    /// # Cancel safety
    /// Cancel safe: a value leaves the queue only in the poll that returns it.
    ///
    /// # Examples
    /// ```
    /// # tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(async {
    /// use plimsoll::queue::{Limits, WhenFull, bounded};
    ///
    /// let (sender, mut receiver) = bounded(Limits { max_items: 10, max_bytes: 100 }, WhenFull::DropOldest);
    /// let thread = std::thread::spawn(move || sender.send(vec![7u8])); // no runtime needed there
    /// assert_eq!(receiver.recv_async().await, Some(vec![7u8]));
    /// assert_eq!(receiver.recv_async().await, None);
    /// # thread.join().unwrap().unwrap();
    /// # });
    /// ```
    pub async fn recv_async(&mut self) -> Option<T> {
        poll_fn(|context| {
            if let Some(value) = self.take_settled() {
                return Poll::Ready(Some(value));
            }
            let mut core = self.shared.lock();
            loop {
                match self.take(core) {
                    Some(taken) => return Poll::Ready(taken.ok()),
                    None => core = self.shared.lock(),
                }
                if self.falls_asleep(&mut core, context) {
                    return Poll::Pending;
                }
            }
        })
        .await
    }

    /// Everything that waits, behind what is in `out` already; waits for something. Says how many: 0 when the queue is
    /// closed (or its senders gone) and drained. `out` is never cleared or shrunk here.
    pub fn recv_all(&mut self, out: &mut Vec<T>) -> usize {
        self.linger();
        loop {
            let (core, slept) = wait(&self.shared, Wish::ANY, None, &mut self.parts);
            if let Some(taken) = take_all(&self.shared, core, &mut self.ring, &mut self.parts, out) {
                return self.caught(taken.unwrap_or(0), slept);
            }
        }
    }

    /// As [`Receiver::recv_all`], but waits for at most `timeout` (0: does not wait).
    ///
    /// # Errors
    /// [`RecvError::Timeout`] when nothing came; [`RecvError::Closed`] when nothing can come any more.
    pub fn recv_all_timeout(&mut self, out: &mut Vec<T>, timeout: Duration) -> Result<usize, RecvError> {
        if !timeout.is_zero() {
            self.linger();
        }
        let (core, slept) = wait(&self.shared, Wish::ANY, Some(timeout), &mut self.parts);
        let taken = take_all(&self.shared, core, &mut self.ring, &mut self.parts, out);
        taken.unwrap_or(Err(RecvError::Timeout)).map(|count| self.caught(count, slept))
    }

    /// As [`Receiver::recv_all`], for a task on any runtime.
    ///
    /// # Cancel safety
    /// Cancel safe: values leave the queue only in the poll that returns, and are in `out` then.
    pub async fn recv_all_async(&mut self, out: &mut Vec<T>) -> usize {
        poll_fn(|context| {
            loop {
                let core = self.shared.lock_unordered();
                if let Some(taken) = take_all(&self.shared, core, &mut self.ring, &mut self.parts, out) {
                    return Poll::Ready(taken.unwrap_or(0));
                }
                let mut core = self.shared.lock();
                if self.falls_asleep(&mut core, context) {
                    drop(core);
                    self.parts = Vec::new();
                    return Poll::Pending;
                }
            }
        })
        .await
    }

    /// Ends the queue for every sender: nothing more is taken in, what waits can still be received.
    pub fn close(&self) {
        self.shared.close();
    }

    /// Gauges and counters.
    pub fn stats(&self) -> Stats {
        self.shared.stats()
    }

    /// Something that sees the queue without keeping it open.
    pub fn monitor(&self) -> Monitor<T> {
        Monitor(Arc::clone(&self.shared))
    }

    /// After a small catch, a moment for more to come: who comes back too soon finds little and disturbs the senders.
    fn linger(&self) {
        (0..self.linger_spins).for_each(|_| std::hint::spin_loop());
    }

    /// Lingers longer after a small catch, less after a large one, and not where values are so rare that it slept for them.
    fn caught(&mut self, count: usize, slept: bool) -> usize {
        self.linger_spins = match count {
            _ if slept => 0,
            ..SMALL_CATCH => (self.linger_spins * 2).clamp(16, LINGER_SPINS),
            _ => self.linger_spins / 2,
        };
        count
    }

    /// Whether the task has to be woken for more.
    fn falls_asleep(&self, core: &mut Guard<'_, T>, context: &Context<'_>) -> bool {
        let sleeps = !core.grants(Wish::ANY);
        if sleeps {
            core.sleep(Sleeper::Task(context.waker().clone()), Wish::ANY);
        }
        sleeps
    }

    /// The oldest value, when it is one that nobody's credit has to be called in for.
    fn take_settled(&self) -> Option<T> {
        let mut core = self.shared.lock_settled();
        let value = core.take()?;
        self.shared.vacate(core);
        Some(value)
    }

    /// One value, from here or from the overflow; `None`: there is none now.
    fn take(&self, mut core: Guard<'_, T>) -> Option<Result<T, RecvError>> {
        core.see_whole();
        if let Some(value) = core.take() {
            self.shared.vacate(core);
            return Some(Ok(value));
        }
        if core.is_drained() {
            return Some(Err(RecvError::Closed));
        }
        let kept = core.kept();
        drop(core);
        let mut one = Vec::new();
        if kept > 0 && self.shared.unspill(1, &mut one) == 1 {
            self.shared.settle_overflow(1);
        }
        one.pop().map(Ok)
    }
}

#[cfg(all(test, not(loom)))]
impl<T> Receiver<T> {
    /// Places that it keeps for the next time it takes all.
    pub(super) fn places_kept(&self) -> usize {
        self.ring.room_items() + self.parts.iter().map(Part::places).sum::<usize>()
    }
}

/// For a batcher: what it takes stays queued until it is settled.
impl<T> Receiver<T> {
    /// Sleeps until something comes, is lost, or nothing can come any more.
    pub(super) fn wait_for_anything(&mut self) {
        drop(wait(&self.shared, Wish::ANYTHING, None, &mut self.parts));
    }

    /// Sleeps until this much waits, somebody finds no room, or nothing can come any more; at most `timeout`.
    pub(super) fn wait_for_batch(&mut self, items: usize, bytes: u64, timeout: Duration) {
        let wish = Wish { items, bytes, is_pressing: true, losses: false };
        drop(wait(&self.shared, wish, Some(timeout), &mut self.parts));
    }

    /// Sleeps until nothing can come any more, at most `timeout`.
    pub(super) fn wait_for_end(&mut self, timeout: Duration) {
        drop(wait(&self.shared, Wish::END, Some(timeout), &mut self.parts));
    }

    /// Takes all that waits into the hand, when that is empty; what was lost until then goes to `losses`.
    pub(super) fn fill_hand(&mut self, losses: &mut Vec<Loss>) {
        if self.ring.len() == 0 {
            // What is in hand still counts: no room is made.
            let now = self.shared.clock.now();
            let mut core = self.shared.lock_unordered();
            core.take_in_hand(&mut self.ring, &mut self.parts);
            core.take_losses(now, losses);
            drop(core);
            pour(&mut self.parts, |value, note| self.ring.push(note.entry(value)));
        }
    }

    pub(super) fn in_hand(&mut self) -> &mut Ring<T> {
        &mut self.ring
    }

    /// Up to `most` values from the overflow, behind what is in `out`.
    pub(super) fn take_overflow(&self, most: usize, out: &mut Vec<T>) -> usize {
        let mut count = 0;
        while count < most {
            let step = self.shared.unspill(OVERFLOW_STEP.min((most - count) as u64), out) as usize;
            if step == 0 {
                break;
            }
            count += step;
        }
        count
    }

    /// What was in hand is out of it, per producer, and so many of the overflow's: written, or dropped for a reason.
    pub(super) fn settle(&self, out: &[(usize, Tally)], overflow: u64, dropped: Option<DropReason>) {
        let at = self.shared.clock.now();
        let mut core = self.shared.lock();
        for (producer, tally) in out {
            core.settle(*producer, *tally, dropped, at);
        }
        self.shared.vacate(core);
        self.shared.settle_overflow(overflow);
    }

    /// Nothing is left anywhere and nothing can come any more.
    pub(super) fn is_drained(&self) -> bool {
        self.ring.len() == 0 && self.shared.lock().is_drained()
    }

    /// Nothing can come any more.
    pub(super) fn is_ending(&self) -> bool {
        self.shared.lock().is_ending()
    }

    /// The queue's clock: on which losses are told.
    pub(super) fn now(&self) -> Duration {
        self.shared.clock.now()
    }
}

impl<T> Drop for Receiver<T> {
    fn drop(&mut self) {
        let at = self.shared.clock.now();
        let mut core = self.shared.lock();
        let abandoned = core.receiver_left(at);
        // A task that slept here will not be woken any more.
        let sleeper = core.wait.wake();
        self.shared.settle_all(core);
        drop((abandoned, sleeper));
    }
}

/// Sleeps until the wish is granted, at most `timeout`; not before a few microseconds of pauses did not help, and without the places that it
/// `kept` for the next time. Says whether it slept.
fn wait<'a, T>(
    shared: &'a Shared<T>,
    wish: Wish,
    timeout: Option<Duration>,
    kept: &mut Vec<Part<T>>,
) -> (Guard<'a, T>, bool) {
    let mut core = shared.lock_unordered();
    if core.grants(wish) || timeout.is_some_and(|timeout| timeout.is_zero()) {
        return (core, false);
    }
    let mut slept = false;
    let until = timeout.map(|timeout| MonotonicClock.now().saturating_add(timeout));
    let mut pause = Pause::default();
    while !core.grants(wish) {
        drop(core);
        let goes_on = pause.again();
        core = shared.lock_unordered();
        if goes_on || core.grants(wish) {
            continue;
        }
        let left = until.map(|until| until.saturating_sub(MonotonicClock.now()));
        if left.is_some_and(|left| left.is_zero()) {
            break;
        }
        slept = true;
        *kept = Vec::new();
        core.sleep(Sleeper::Thread, wish);
        core.wait(&shared.arrived, left.map(|left| left.min(WAIT_MAX)));
    }
    core.wait.awake();
    (core, slept)
}

/// All values, from here or some from the overflow; `None`: there are none now.
fn take_all<T>(
    shared: &Shared<T>,
    mut core: Guard<'_, T>,
    ring: &mut Ring<T>,
    parts: &mut Vec<Part<T>>,
    out: &mut Vec<T>,
) -> Option<Result<usize, RecvError>> {
    let count = core.take_all(ring, parts);
    if count > 0 {
        shared.vacate(core);
        ring.pour(out);
        pour_values(parts, out);
        return Some(Ok(count));
    }
    if core.is_drained() {
        return Some(Err(RecvError::Closed));
    }
    let kept = core.kept();
    drop(core);
    let count = if kept > 0 { shared.unspill(OVERFLOW_STEP, out) } else { 0 };
    shared.settle_overflow(count);
    (count > 0).then_some(Ok(count as usize))
}
