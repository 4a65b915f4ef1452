//! One word: whether the drain began, and how many holds are left. Two operations meet in it, and exactly one of them is the last.
//!
//! Bit 0 says that the drain began; the rest counts holds. Every operation is one compare-and-swap or one addition; nothing
//! waits. Loom models below: `RUSTFLAGS="--cfg loom" cargo test -p plimsoll --release --lib drain::count`.

#[cfg(loom)]
use loom::sync::atomic::{AtomicUsize, Ordering};
#[cfg(not(loom))]
use std::sync::atomic::{AtomicUsize, Ordering};

const BEGUN: usize = 1;
const HOLD: usize = 2;

/// Starts as: not begun, no holds.
#[derive(Debug)]
pub(super) struct Count(AtomicUsize);

/// What [`Count::begin`] found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Began {
    /// It is the first to begin; there is nothing to wait for.
    Finished,
    /// It is the first to begin; whoever returns the last hold finishes.
    Waiting,
    /// Somebody began before.
    Before,
}

impl Count {
    pub(super) fn new() -> Count {
        Count(AtomicUsize::new(0))
    }

    pub(super) fn begun(&self) -> bool {
        self.0.load(Ordering::Acquire) & BEGUN != 0
    }

    pub(super) fn holds(&self) -> usize {
        self.0.load(Ordering::Acquire) / HOLD
    }

    /// One hold more, unless the drain began.
    pub(super) fn take(&self) -> bool {
        self.0.fetch_update(Ordering::AcqRel, Ordering::Acquire, |now| (now & BEGUN == 0).then(|| now + HOLD)).is_ok()
    }

    /// One hold more for who has one already; also during the drain.
    pub(super) fn take_another(&self) {
        self.0.fetch_add(HOLD, Ordering::AcqRel);
    }

    /// One hold less; true for the one that finishes a drain.
    pub(super) fn give(&self) -> bool {
        self.0.fetch_sub(HOLD, Ordering::AcqRel) == BEGUN + HOLD
    }

    pub(super) fn begin(&self) -> Began {
        match self.0.fetch_or(BEGUN, Ordering::AcqRel) {
            0 => Began::Finished,
            now if now & BEGUN != 0 => Began::Before,
            _ => Began::Waiting,
        }
    }
}

#[cfg(all(test, loom))]
mod tests {
    use super::*;
    use loom::sync::Arc;
    use loom::thread;

    /// A worker that takes and returns a hold, beside two that begin: one of the three finishes, once.
    #[test]
    fn exactly_one_finishes_and_nothing_is_taken_afterwards() {
        loom::model(|| {
            let count = Arc::new(Count::new());
            let finished = Arc::new(AtomicUsize::new(0));
            let worker = {
                let (count, finished) = (Arc::clone(&count), Arc::clone(&finished));
                thread::spawn(move || {
                    if count.take() {
                        assert_eq!(finished.load(Ordering::Acquire), 0, "finished with a hold out");
                        if count.give() {
                            finished.fetch_add(1, Ordering::AcqRel);
                        }
                    }
                })
            };
            let other = {
                let (count, finished) = (Arc::clone(&count), Arc::clone(&finished));
                thread::spawn(move || {
                    if count.begin() == Began::Finished {
                        finished.fetch_add(1, Ordering::AcqRel);
                    }
                })
            };
            if count.begin() == Began::Finished {
                finished.fetch_add(1, Ordering::AcqRel);
            }
            assert!(!count.take(), "taken after the drain began");
            worker.join().expect("no panic");
            other.join().expect("no panic");
            assert_eq!((finished.load(Ordering::Acquire), count.holds(), count.begun()), (1, 0, true));
        });
    }
}
