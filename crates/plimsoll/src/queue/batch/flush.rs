//! One batch on its way into the sink: what is written next, and what a failure means. No clock, no lock, no thread.
//!
//! Usually the whole batch is written at once. A sink that refuses has the batch halved until the value at fault stands alone and is
//! given up. A sink that only fails is asked for the whole batch again, [`SUSPECT_AFTER`] times; then the batch is halved as well,
//! and a value that stands alone is given up only when another goes through and it then fails, [`POISON_STRIKES`] times.
//! After a success the part doubles. So a poisonous value among n costs 2·log₂ n calls, and an outage costs nothing but patience.

use std::panic::{AssertUnwindSafe, catch_unwind};

use super::super::Tally;
use super::record::{Record, Sink};
use super::{POISON_STRIKES, SUSPECT_AFTER, SinkError, SinkErrorKind};

/// Where a record came from, for its accounts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Origin {
    /// The queue: this producer's, of this weight.
    Queue { producer: usize, bytes: u64 },
    /// The overflow.
    Overflow,
    /// The batcher itself: a gap.
    Own,
}

/// What left the batch in one step.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Out {
    pub(super) written: Vec<Origin>,
    pub(super) given_up: Option<Origin>,
}

/// What became of one step.
#[derive(Debug)]
pub(super) enum Step {
    /// Something left the batch; the next step may follow at once.
    Went,
    /// The batch was refused and halved; the next step may follow at once.
    Halved(SinkError),
    /// A value was given up; the next step may follow at once.
    GaveUp(SinkError),
    /// The sink fails: a pause is due.
    Failed(SinkError),
}

#[derive(Debug)]
pub(super) struct Flush<T> {
    records: Vec<Record<T>>,
    origins: Vec<Origin>,
    /// So many at the front are out already.
    done: usize,
    /// So many are written next.
    part: usize,
    /// Failures in a row.
    failures: u32,
    pub(super) calls: u64,
}

impl<T> Flush<T> {
    pub(super) fn new() -> Flush<T> {
        Flush { records: Vec::new(), origins: Vec::new(), done: 0, part: usize::MAX, failures: 0, calls: 0 }
    }

    pub(super) fn push(&mut self, record: Record<T>, origin: Origin) {
        self.records.push(record);
        self.origins.push(origin);
    }

    /// How many are not out yet.
    pub(super) fn len(&self) -> usize {
        self.records.len() - self.done
    }

    pub(super) fn failures(&self) -> u32 {
        self.failures
    }

    /// Asks the sink once (or a few times, to judge a value that stands alone). Not to be called when empty.
    pub(super) fn step(&mut self, sink: &mut impl Sink<T>, out: &mut Out) -> Step {
        let part = self.part.min(self.len());
        let error = match self.write(sink, self.done, part) {
            Ok(()) => {
                self.leave(part, out);
                self.part = self.part.saturating_mul(2);
                self.failures = 0;
                return Step::Went;
            }
            Err(error) => error,
        };
        self.failures = self.failures.saturating_add(1);
        let is_refused = error.kind() == SinkErrorKind::Refused;
        if part > 1 && (is_refused || self.failures > SUSPECT_AFTER) {
            self.part = part.div_ceil(2);
            return if is_refused { Step::Halved(error) } else { Step::Failed(error) };
        }
        if part == 1 && (is_refused || self.failures > SUSPECT_AFTER && self.is_poison(sink, out)) {
            out.given_up = Some(self.origins[self.done]);
            self.done += 1;
            self.tidy();
            self.failures = 0;
            return Step::GaveUp(error);
        }
        // It went through after all, while it was judged.
        if self.failures == 0 { Step::Went } else { Step::Failed(error) }
    }

    /// Whether the first value fails while others go through.
    fn is_poison(&mut self, sink: &mut impl Sink<T>, out: &mut Out) -> bool {
        for _ in 0..POISON_STRIKES {
            // Without another one there is nothing to compare it with.
            if self.len() < 2 || self.write(sink, self.done + 1, 1).is_err() {
                return false;
            }
            self.records.swap(self.done, self.done + 1);
            self.origins.swap(self.done, self.done + 1);
            self.leave(1, out);
            if self.write(sink, self.done, 1).is_ok() {
                self.failures = 0;
                self.leave(1, out);
                return false;
            }
        }
        true
    }

    fn write(&mut self, sink: &mut impl Sink<T>, from: usize, count: usize) -> Result<(), SinkError> {
        self.calls += 1;
        let records = &self.records[from..from + count];
        // A sink that panics loses its turn, not the stream.
        catch_unwind(AssertUnwindSafe(|| sink.write(records)))
            .unwrap_or_else(|panic| Err(SinkError::refused(format!("the sink panicked: {}", text_of(&*panic)))))
    }

    fn leave(&mut self, count: usize, out: &mut Out) {
        out.written.extend_from_slice(&self.origins[self.done..self.done + count]);
        self.done += count;
        self.tidy();
    }

    /// What is out is freed once all of it is, and room for far more than was used with it.
    fn tidy(&mut self) {
        if self.len() == 0 {
            let used = self.records.len();
            self.records.clear();
            self.origins.clear();
            if self.records.capacity() / 4 > used.max(1024) {
                self.records.shrink_to(used);
                self.origins.shrink_to(used);
            }
            self.done = 0;
        }
    }
}

impl Out {
    /// Written values of each producer, summed into `sums` (in the order of their first), how many of the overflow's, and how many gaps.
    pub(super) fn sums(&self, sums: &mut Vec<(usize, Tally)>) -> (u64, u64) {
        let (mut overflow, mut own) = (0, 0);
        for origin in &self.written {
            match *origin {
                Origin::Queue { producer, bytes } => {
                    // Runs of one producer are long, and there are at most 64.
                    let known = sums.iter_mut().rev().find(|(known, _)| *known == producer);
                    match known {
                        Some((_, tally)) => tally.add_one(bytes),
                        None => sums.push((producer, Tally { items: 1, bytes })),
                    }
                }
                Origin::Overflow => overflow += 1,
                Origin::Own => own += 1,
            }
        }
        (overflow, own)
    }
}

fn text_of(panic: &(dyn std::any::Any + Send)) -> &str {
    let text = panic.downcast_ref::<&str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("no message")
}
