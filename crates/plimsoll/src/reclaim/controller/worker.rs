//! One store and the thread that runs its code: takes one ask at a time, answers when it can. A store that panics has given nothing.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::Thread;
use std::time::Duration;

use parking_lot::{Condvar, Mutex};

use crate::clock::Clock;
use crate::event::{Ask, Outcome, Profile};
use crate::reclaim::Reclaim;
use crate::reclaim::ledger::Account;

/// What is passed between the controller and a worker.
#[derive(Default)]
struct Slot {
    ask: Option<Ask>,
    look: bool,
    /// A bound that the store was not told yet, and the one that it was.
    hold: Option<Option<u64>>,
    told_hold: Option<u64>,
    busy: bool,
    answer: Option<Answer>,
    profile: Profile,
    stop: bool,
    ended: bool,
}

/// What a store answered.
#[derive(Clone, Copy)]
pub(super) struct Answer {
    pub(super) outcome: Outcome,
    pub(super) took: Duration,
    pub(super) panicked: bool,
}

/// One registered store.
pub(super) struct Store {
    pub(super) name: Arc<str>,
    pub(super) account: Option<Account>,
    reclaim: Arc<dyn Reclaim>,
    held: AtomicU64,
    floor: AtomicU64,
    slot: Mutex<Slot>,
    given: Condvar,
    ended: Condvar,
}

impl Store {
    /// Asks the store what it holds and is like, on the caller's thread.
    pub(super) fn new(name: &str, reclaim: Arc<dyn Reclaim>, account: Option<Account>) -> Store {
        let profile = reclaim.profile();
        let held = AtomicU64::new(reclaim.held_bytes());
        let slot = Mutex::new(Slot { profile, ..Slot::default() });
        let floor = AtomicU64::new(profile.floor_bytes);
        let (given, ended) = (Condvar::new(), Condvar::new());
        Store { name: name.into(), account, reclaim, held, floor, slot, given, ended }
    }

    /// What it holds, in bytes: by its account, else as it said last. Takes no lock.
    pub(super) fn held_bytes(&self) -> u64 {
        self.account.as_ref().map_or_else(|| self.held.load(Ordering::Relaxed), Account::held_bytes)
    }

    /// What it keeps in any case. Takes no lock.
    pub(super) fn floor_bytes(&self) -> u64 {
        self.floor.load(Ordering::Relaxed)
    }

    pub(super) fn profile(&self) -> Profile {
        self.slot.lock().profile
    }

    /// Whether it is at an ask, or has an answer that nobody took.
    pub(super) fn is_busy(&self) -> bool {
        let slot = self.slot.lock();
        slot.busy || slot.ask.is_some() || slot.answer.is_some()
    }

    pub(super) fn give(&self, ask: Ask) {
        self.slot.lock().ask = Some(ask);
        self.given.notify_one();
    }

    /// Has it say what it holds, if it has no account that knows.
    pub(super) fn look(&self) {
        if self.account.is_none() {
            self.slot.lock().look = true;
            self.given.notify_one();
        }
    }

    /// Has it told what it may hold, if that is another bound than before.
    pub(super) fn hold(&self, bytes: Option<u64>) {
        let mut slot = self.slot.lock();
        let same = match (slot.told_hold, bytes) {
            (Some(before), Some(now)) => before.abs_diff(now) <= before / 100,
            (before, now) => before == now,
        };
        if !same {
            slot.told_hold = bytes;
            slot.hold = Some(bytes);
            self.given.notify_one();
        }
    }

    pub(super) fn take_answer(&self) -> Option<Answer> {
        self.slot.lock().answer.take()
    }

    pub(super) fn stop(&self) {
        self.slot.lock().stop = true;
        self.given.notify_one();
    }

    /// Waits until its thread has ended, or `time` is up. True: ended.
    pub(super) fn wait_for_end(&self, time: Duration) -> bool {
        let mut slot = self.slot.lock();
        if !slot.ended {
            self.ended.wait_for(&mut slot, time);
        }
        slot.ended
    }

    /// The thread's life.
    pub(super) fn work(&self, clock: &dyn Clock, controller: &Thread) {
        loop {
            let (ask, hold) = {
                let mut slot = self.slot.lock();
                while slot.ask.is_none() && !slot.look && slot.hold.is_none() && !slot.stop {
                    self.given.wait(&mut slot);
                }
                if slot.stop {
                    let bound = slot.told_hold.take();
                    drop(slot);
                    if bound.is_some() {
                        catch_unwind(AssertUnwindSafe(|| self.reclaim.hold(None))).ok();
                    }
                    let mut slot = self.slot.lock();
                    slot.ended = true;
                    self.ended.notify_all();
                    return;
                }
                slot.look = false;
                slot.busy = slot.ask.is_some();
                (slot.ask.take(), slot.hold.take())
            };
            let held = hold.map(|bytes| catch_unwind(AssertUnwindSafe(|| self.reclaim.hold(bytes))));
            let before = clock.now();
            let outcome = ask.map(|ask| catch_unwind(AssertUnwindSafe(|| self.reclaim.reclaim(ask))));
            let took = clock.now().saturating_sub(before);
            let looked = catch_unwind(AssertUnwindSafe(|| (self.reclaim.held_bytes(), self.reclaim.profile())));
            if let Ok((held, profile)) = looked {
                self.held.store(held, Ordering::Relaxed);
                self.floor.store(profile.floor_bytes, Ordering::Relaxed);
                self.slot.lock().profile = profile;
            }
            let Some(outcome) = outcome else { continue };
            let panicked = outcome.is_err() || looked.is_err() || held.is_some_and(|held| held.is_err());
            let outcome = outcome.unwrap_or_default();
            {
                let mut slot = self.slot.lock();
                slot.busy = false;
                slot.answer = Some(Answer { outcome, took, panicked });
            }
            controller.unpark();
        }
    }
}
