//! The batcher's thread: waits for a batch, writes it, pauses when the sink fails, says what is to be said. Dull; what a failure means is
//! decided in `flush`.
//!
//! Ends when the queue is closed and drained, or at the deadline that [`Control::end_within`] set. Asleep when there is nothing to do.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::{Condvar, Mutex};

use super::super::core::Loss;
use super::super::{DropReason, Receiver, Tally};
use super::flush::{Flush, Origin, Out, Step};
use super::notice::{Notice, Told};
use super::record::{Gap, Record, Sink};
use super::retry::random_ratio;
use super::{Settings, Stats};
use crate::clock::{self, Clock as _, MonotonicClock};

/// How long after the deadline the thread has to notice it.
const NOTICE_DELAY: Duration = Duration::from_millis(100);

/// What the handle and the thread share.
#[derive(Clone, Debug, Default)]
pub(super) struct Control(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    /// When to stop trying, on the monotonic clock.
    deadline: Option<Duration>,
    ended: bool,
    stats: Stats,
}

impl Control {
    pub(super) fn new() -> Control {
        Control::default()
    }

    /// From now on so long, unless it is to end earlier already.
    pub(super) fn end_within(&self, longest: Duration) {
        let deadline = MonotonicClock.now().saturating_add(longest);
        let mut state = self.0.state.lock();
        state.deadline = Some(state.deadline.map_or(deadline, |earlier| earlier.min(deadline)));
        drop(state);
        self.0.changed.notify_all();
    }

    /// Waits for the thread's end, `longest` and a moment; whether it has ended.
    pub(super) fn wait_ended(&self, longest: Duration) -> bool {
        let mut state = self.0.state.lock();
        self.0.changed.wait_while_for(&mut state, |state| !state.ended, longest.saturating_add(NOTICE_DELAY));
        state.ended
    }

    pub(super) fn stats(&self) -> Stats {
        self.0.state.lock().stats.clone()
    }

    fn deadline(&self) -> Option<Duration> {
        self.0.state.lock().deadline
    }

    /// Sleeps, or until another end is set than the one that is `known`.
    fn pause(&self, known: Option<Duration>, pause: Duration) {
        let mut state = self.0.state.lock();
        self.0.changed.wait_while_for(&mut state, |state| state.deadline == known, pause);
    }
}

/// Says that the thread has ended, however it ends.
struct Ending(Control);

impl Drop for Ending {
    fn drop(&mut self) {
        self.0.0.state.lock().ended = true;
        self.0.0.changed.notify_all();
    }
}

pub(super) struct Run<T, S> {
    receiver: Receiver<T>,
    sink: S,
    settings: Settings,
    control: Control,
    flush: Flush<T>,
    /// Gaps that belong behind what is in the hand.
    behind: Vec<Gap>,
    losses: Vec<Loss>,
    overflow: Vec<T>,
    out: Out,
    sums: Vec<(usize, Tally)>,
    told: Told,
    told_at: Duration,
    /// Since when the sink fails, and how often it has.
    failing: Option<(Duration, u32)>,
}

impl<T, S: Sink<T>> Run<T, S> {
    pub(super) fn new(receiver: Receiver<T>, sink: S, settings: Settings, control: Control) -> Run<T, S> {
        Run {
            receiver,
            sink,
            settings,
            control,
            flush: Flush::new(),
            behind: Vec::new(),
            losses: Vec::new(),
            overflow: Vec::new(),
            out: Out::default(),
            sums: Vec::new(),
            told: Told::default(),
            told_at: Duration::ZERO,
            failing: None,
        }
    }

    pub(super) fn run(mut self) {
        let ending = Ending(self.control.clone());
        if let Some(first) = self.settings.on_thread.take() {
            first();
        }
        while self.flush.len() > 0 || self.fill() {
            if !self.write() {
                break;
            }
        }
        self.say_losses(true);
        // What is left is abandoned, and counted so, before the end is told.
        drop(self);
        drop(ending);
    }

    /// Waits for a batch; false when none will come any more.
    fn fill(&mut self) -> bool {
        loop {
            if self.behind.is_empty() && self.receiver.in_hand().len() == 0 {
                self.receiver.wait_for_anything();
                if !self.receiver.is_ending() && !self.settings.every.is_zero() {
                    let Settings { max_items, max_bytes, every, .. } = self.settings;
                    self.receiver.wait_for_batch(max_items, max_bytes, every);
                }
            }
            self.collect();
            if self.flush.len() > 0 {
                return true;
            }
            if self.receiver.is_drained() {
                return false;
            }
        }
    }

    /// Makes a batch of what is there.
    fn collect(&mut self) {
        self.receiver.fill_hand(&mut self.losses);
        let mut taken = Tally::default();
        let (now, wall) = (self.receiver.now(), clock::wall());
        for loss in self.losses.drain(..) {
            let gap = Gap::of(&loss, now, wall);
            if loss.reason == DropReason::Displaced {
                self.flush.push(Record::Gap(gap), Origin::Own);
            } else {
                self.behind.push(gap);
            }
        }
        let hand = self.receiver.in_hand();
        // At least one, however heavy.
        while taken.items == 0 || self.flush.len() < self.settings.max_items && taken.bytes < self.settings.max_bytes {
            let Some((value, bytes, producer)) = hand.pop() else { break };
            taken.add_one(bytes);
            self.flush.push(Record::Value(value), Origin::Queue { producer, bytes });
        }
        if hand.len() > 0 {
            return;
        }
        let room = self.settings.max_items.saturating_sub(self.flush.len());
        self.receiver.take_overflow(room, &mut self.overflow);
        self.overflow.drain(..).for_each(|value| self.flush.push(Record::Value(value), Origin::Overflow));
        self.behind.drain(..).for_each(|gap| self.flush.push(Record::Gap(gap), Origin::Own));
    }

    /// One step into the sink; false when it is time to give up.
    fn write(&mut self) -> bool {
        let calls = self.flush.calls;
        let step = self.flush.step(&mut self.sink, &mut self.out);
        let calls = self.flush.calls - calls;
        self.settle(calls, &step);
        match step {
            Step::Went => {
                if let Some((since, failures)) = self.failing.take() {
                    self.say(&Notice::Recovered { failures, after: MonotonicClock.now().saturating_sub(since) });
                }
            }
            Step::Halved(_) => {}
            Step::GaveUp(error) => self.say(&Notice::Poison { error: error.to_string() }),
            Step::Failed(error) => {
                let (_, failures) = self.failing.get_or_insert_with(|| (MonotonicClock.now(), 0));
                *failures += 1;
                if *failures == 1 {
                    self.say(&Notice::Failing { error: error.to_string() });
                }
                self.pause();
            }
        }
        self.say_losses(false);
        !self.is_late()
    }

    /// Keeps the accounts of what left the batch.
    fn settle(&mut self, calls: u64, step: &Step) {
        let (overflow, gaps) = self.out.sums(&mut self.sums);
        if !self.out.written.is_empty() {
            self.receiver.settle(&self.sums, overflow, None);
        }
        let (mut poison, mut gaps_refused) = (Tally::default(), 0);
        match self.out.given_up.take() {
            Some(Origin::Queue { producer, bytes }) => {
                poison = Tally { items: 1, bytes };
                self.receiver.settle(&[(producer, poison)], 0, Some(DropReason::Sink));
            }
            Some(Origin::Overflow) => {
                poison.items = 1;
                self.receiver.settle(&[], 1, None);
                self.behind.push(Gap::of_the_overflow(clock::wall()));
            }
            Some(Origin::Own) => gaps_refused = 1,
            None => {}
        }
        let error = match step {
            Step::Went => None,
            Step::Halved(error) | Step::GaveUp(error) | Step::Failed(error) => Some(error),
        };
        let written = self.sums.drain(..).fold(Tally::default(), |sum, (_, tally)| sum + tally);
        let mut state = self.control.0.state.lock();
        let stats = &mut state.stats;
        stats.written_total += written + Tally { items: overflow, bytes: 0 };
        stats.gaps_total += gaps;
        stats.gaps_refused_total += gaps_refused;
        stats.poison_total += poison;
        match error {
            None => {
                stats.batches_total += calls;
                stats.failures_in_a_row = 0;
            }
            Some(error) => {
                stats.failures_total += 1;
                stats.failures_in_a_row += 1;
                stats.last_error = Some(error.to_string());
            }
        }
        self.out.written.clear();
    }

    /// Waits before the next try.
    fn pause(&mut self) {
        self.say_losses(false);
        let pause = self.settings.retry.pause(self.flush.failures(), random_ratio());
        match self.control.deadline() {
            Some(deadline) => {
                self.control.pause(Some(deadline), pause.min(deadline.saturating_sub(MonotonicClock.now())));
            }
            None if self.receiver.is_ending() => self.control.pause(None, pause),
            // The end of the queue ends the pause: what is to be written before a deadline is tried at once.
            None => self.receiver.wait_for_end(pause),
        }
    }

    fn is_late(&self) -> bool {
        self.control.deadline().is_some_and(|deadline| MonotonicClock.now() >= deadline)
    }

    /// Says what was lost: at most once a tick, unless it is the last word.
    fn say_losses(&mut self, last: bool) {
        let now = MonotonicClock.now();
        if self.settings.on_notice.is_some() && (last || now >= self.told_at.saturating_add(self.settings.every)) {
            self.told_at = now;
            if let Some(notice) = self.told.losses(&self.receiver.stats()) {
                self.say(&notice);
            }
        }
    }

    fn say(&mut self, notice: &Notice) {
        if let Some(hear) = &mut self.settings.on_notice {
            hear(notice);
        }
    }
}
