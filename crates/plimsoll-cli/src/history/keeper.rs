//! The thread that writes and reads a history, so that a disk that stands still holds up neither the supervise loop nor who asks.
//!
//! At most [`WAITING`] (64) lines wait for the disk, an hour of them; what has no room is counted as unwritten. Verdicts are made when
//! somebody asks, are good for [`KEEP`] (60 s), and are waited for at most [`PATIENCE`] (250 ms): then those of before are told. Asleep
//! otherwise. At the end a thread that sits in a stalled write is left behind after [`LEAVE`] (1 s); the process ends with it.

use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use parking_lot::{Condvar, Mutex};
use plimsoll::clock::{Clock as _, MonotonicClock, wall};

use super::judge::{self, KEEP};
use super::{History, Record};
use crate::snapshot::VerdictView;

/// Lines that wait for the disk.
pub(crate) const WAITING: usize = 64;
/// How long verdicts are waited for.
const PATIENCE: Duration = Duration::from_millis(250);
/// How long the end waits for the thread.
pub(crate) const LEAVE: Duration = Duration::from_secs(1);

#[derive(Default)]
struct Inner {
    waiting: VecDeque<Record>,
    unwritten_total: u64,
    /// Somebody waits for verdicts, against this budget.
    wanted: Option<Option<u64>>,
    judged: Option<(Duration, Vec<VerdictView>)>,
    stop: bool,
}

#[derive(Default)]
struct Shared {
    inner: Mutex<Inner>,
    asked: Condvar,
    answered: Condvar,
}

/// A history and its thread.
pub(crate) struct Keeper {
    shared: Arc<Shared>,
    /// `None`: no thread could be had, so nothing is remembered.
    thread: Option<JoinHandle<()>>,
}

impl Keeper {
    /// Continues the file at `path`.
    pub(crate) fn start(path: PathBuf) -> Keeper {
        let shared = Arc::new(Shared::default());
        let own = Arc::clone(&shared);
        let thread = std::thread::Builder::new().name("history".into()).stack_size(512 << 10);
        let thread = thread.spawn(move || own.work(&path)).ok();
        Keeper { shared, thread }
    }

    /// Hands over a line. Never waits for the disk.
    pub(crate) fn add(&self, record: Record) {
        let mut inner = self.shared.inner.lock();
        if inner.waiting.len() == WAITING || self.thread.is_none() {
            inner.unwritten_total += 1;
            return;
        }
        inner.waiting.push_back(record);
        drop(inner);
        self.shared.asked.notify_one();
    }

    /// Lines that the disk refused, or that had no room.
    pub(crate) fn unwritten_total(&self) -> u64 {
        self.shared.inner.lock().unwritten_total
    }

    /// The verdicts, memory against `budget_bytes`.
    pub(crate) fn verdicts(&self, budget_bytes: Option<u64>) -> Vec<VerdictView> {
        let fresh = |inner: &Inner| {
            inner.judged.as_ref().is_some_and(|(at, _)| MonotonicClock.now().saturating_sub(*at) < KEEP)
        };
        let mut inner = self.shared.inner.lock();
        if !fresh(&inner) && self.thread.is_some() {
            inner.wanted = Some(budget_bytes);
            self.shared.asked.notify_one();
            self.shared.answered.wait_while_for(&mut inner, |inner| !fresh(inner), PATIENCE);
        }
        inner.judged.as_ref().map(|(_, verdicts)| verdicts.clone()).unwrap_or_default()
    }
}

impl Shared {
    fn work(&self, path: &Path) {
        let mut history = History::new(path.to_owned());
        let mut inner = self.inner.lock();
        loop {
            if let Some(record) = inner.waiting.pop_front() {
                parking_lot::MutexGuard::unlocked(&mut inner, || history.add(&record));
                inner.unwritten_total += std::mem::take(&mut history.unwritten_total);
            } else if let Some(budget) = inner.wanted.take() {
                let verdicts = parking_lot::MutexGuard::unlocked(&mut inner, || judge::of_file(path, budget, wall()));
                inner.judged = Some((MonotonicClock.now(), verdicts));
                self.answered.notify_all();
            } else if inner.stop {
                return;
            } else {
                self.asked.wait(&mut inner);
            }
        }
    }
}

impl Drop for Keeper {
    fn drop(&mut self) {
        self.shared.inner.lock().stop = true;
        self.shared.asked.notify_one();
        if let Some(thread) = self.thread.take() {
            join_within(thread, LEAVE);
        }
    }
}

/// Joins a thread that may sit in a write to a disk that stands still: after `patience` it is left behind. True: it was joined.
pub(crate) fn join_within(thread: JoinHandle<()>, patience: Duration) -> bool {
    let until = MonotonicClock.now() + patience;
    while !thread.is_finished() {
        if MonotonicClock.now() > until {
            return false;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    thread.join().is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::history::{FIGURES, load};

    fn record(at: u64) -> Record {
        Record { unix_seconds: at, life: 7, figures: [Some(at); FIGURES], named: Vec::new() }
    }

    #[test]
    fn lines_reach_the_file_and_verdicts_come_from_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("history.log");
        let keeper = Keeper::start(path.clone());
        (1..=3).for_each(|at| keeper.add(record(at)));
        // What was handed over before is written before it is judged.
        let verdicts = keeper.verdicts(None);
        assert!(verdicts.iter().any(|verdict| verdict.key == "memory"), "{verdicts:?}");
        drop(keeper);
        assert_eq!(load(&path).records, [record(1), record(2), record(3)]);
    }

    #[test]
    fn a_disk_that_refuses_is_counted_and_a_thread_that_hangs_is_left() {
        let dir = tempfile::tempdir().unwrap();
        let keeper = Keeper::start(dir.path().join("missing/history.log"));
        keeper.add(record(1));
        keeper.verdicts(None);
        assert_eq!(keeper.unwritten_total(), 1);
        let (hold, held) = std::sync::mpsc::sync_channel::<()>(0);
        let hangs = std::thread::spawn(move || {
            // Nobody receives: it hangs until the other end goes.
            hold.send(()).ok();
        });
        assert!(!join_within(hangs, Duration::from_millis(30)));
        drop(held);
    }
}
