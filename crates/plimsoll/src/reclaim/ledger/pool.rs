//! The atomics under the ledger: a [`Pool`] grants bytes up to a cap, a [`Credit`] keeps a few granted bytes at hand for one core.
//!
//! `granted` of a pool is always at least what its lanes' charges hold, and (unless forced) at most the cap: a byte is granted before it
//! is spent, and returned only after it was put back. Each operation is one compare-and-swap loop; nothing here waits for another thread.
//! A credit's word also counts the leases on its lane, at most 8,388,607 (`sys`).
//! `tests` holds loom models of all of it; run them with `RUSTFLAGS="--cfg loom" cargo test -p plimsoll --release --lib pool`.

#[cfg(loom)]
use loom::sync::atomic::{AtomicBool, AtomicU64, Ordering};
#[cfg(not(loom))]
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// Bytes granted so far, and how many may be.
#[derive(Debug)]
pub(super) struct Pool {
    granted: AtomicU64,
    /// `u64::MAX`: no cap.
    cap: AtomicU64,
    over: Over,
}

/// More is granted than the cap allows, because it was forced or the cap was lowered: nobody keeps credit meanwhile.
/// Read at every release, so it does not share a line with the counters.
#[derive(Debug)]
#[repr(align(128))]
struct Over(AtomicBool);

impl Pool {
    pub(super) fn new(cap_bytes: u64) -> Pool {
        Pool { granted: AtomicU64::new(0), cap: AtomicU64::new(cap_bytes), over: Over(AtomicBool::new(false)) }
    }

    pub(super) fn granted(&self) -> u64 {
        self.granted.load(Ordering::Acquire)
    }

    pub(super) fn cap(&self) -> u64 {
        self.cap.load(Ordering::Relaxed)
    }

    /// Whether more is granted than the cap allows.
    #[inline]
    pub(super) fn is_over(&self) -> bool {
        self.over.0.load(Ordering::Acquire)
    }

    /// The caller empties the credits first, so that what is over is really held.
    pub(super) fn set_cap(&self, bytes: u64) {
        self.cap.store(bytes, Ordering::Release);
        self.over.0.store(self.granted() > bytes, Ordering::Release);
    }

    /// Grants as much as fits between `least` and `most`; `None` if not even `least` does.
    pub(super) fn take(&self, least: u64, most: u64) -> Option<u64> {
        let mut now = self.granted.load(Ordering::Relaxed);
        loop {
            let room = self.cap().saturating_sub(now);
            if room < least {
                return None;
            }
            let take = most.min(room);
            match self.granted.compare_exchange_weak(now, now + take, Ordering::AcqRel, Ordering::Relaxed) {
                Ok(_) => return Some(take),
                Err(newer) => now = newer,
            }
        }
    }

    /// Grants `bytes` whatever the cap says.
    pub(super) fn force(&self, bytes: u64) {
        if self.granted.fetch_add(bytes, Ordering::AcqRel) + bytes > self.cap() {
            self.over.0.store(true, Ordering::Release);
        }
    }

    /// Takes `bytes` back, which were granted before.
    pub(super) fn give(&self, bytes: u64) {
        let before = self.granted.fetch_sub(bytes, Ordering::AcqRel);
        debug_assert!(before >= bytes, "gave {bytes} of {before} granted bytes back");
        if self.is_over() && before - bytes <= self.cap() {
            self.over.0.store(false, Ordering::Release);
        }
    }
}

/// The bytes of a credit's word; a credit never holds more than a few chunks.
const BYTES: u64 = (1 << 40) - 1;
/// One lease in a credit's word, and where its count ends.
const LEASE: u64 = 1 << 40;
const LEASES: u64 = (1 << 63) - LEASE;
/// The account has left.
const ORPHAN: u64 = 1 << 63;
/// Releases of more than this do not go through a credit, so that its bytes stay far below their bound.
pub(super) const MOST_AT_ONCE: u64 = 16 << 20;

/// Granted bytes at hand, on a cache line of their own (two, for the prefetcher), and in the same word the count of [leases](super::sys).
#[derive(Debug)]
#[repr(align(128))]
pub(super) struct Credit(AtomicU64);

impl Credit {
    pub(super) fn empty() -> Credit {
        Credit(AtomicU64::new(0))
    }

    pub(super) fn bytes(&self) -> u64 {
        self.0.load(Ordering::Acquire) & BYTES
    }

    /// Spends `bytes` of the credit; false if there are fewer.
    #[inline]
    pub(super) fn spend(&self, bytes: u64) -> bool {
        self.change(|word| (word & BYTES >= bytes).then(|| word - bytes))
    }

    /// Spends `bytes` and counts a lease; false if there are fewer bytes, or as many leases as can be counted.
    #[inline]
    pub(super) fn spend_counted(&self, bytes: u64) -> bool {
        self.change(|word| (word & BYTES >= bytes && word & LEASES < LEASES).then(|| word - bytes + LEASE))
    }

    /// Counts a lease; false if there are as many as can be counted.
    pub(super) fn count(&self) -> bool {
        self.change(|word| (word & LEASES < LEASES).then(|| word + LEASE))
    }

    /// As if there were as many leases as can be counted, less `free`. For tests.
    #[cfg(all(test, not(loom)))]
    pub(super) fn count_all_but(&self, free: u64) {
        self.0.fetch_or(LEASES, Ordering::Relaxed);
        self.0.fetch_sub(free * LEASE, Ordering::Relaxed);
    }

    #[inline]
    fn change(&self, to: impl Fn(u64) -> Option<u64>) -> bool {
        let mut now = self.0.load(Ordering::Relaxed);
        while let Some(next) = to(now) {
            match self.0.compare_exchange_weak(now, next, Ordering::AcqRel, Ordering::Relaxed) {
                Ok(_) => return true,
                Err(newer) => now = newer,
            }
        }
        false
    }

    /// Puts bytes back, at most [`MOST_AT_ONCE`]; returns the credit after that.
    #[inline]
    pub(super) fn put(&self, bytes: u64) -> u64 {
        (self.0.fetch_add(bytes, Ordering::AcqRel) & BYTES) + bytes
    }

    /// Puts bytes back, at most [`MOST_AT_ONCE`], and ends a lease. True: it was the last, and the account has left. Nothing else of the lane
    /// may be touched after this.
    #[inline]
    pub(super) fn put_last(&self, bytes: u64) -> bool {
        let before = self.0.fetch_add(bytes.wrapping_sub(LEASE), Ordering::AcqRel);
        debug_assert!(before & LEASES > 0, "a lease ended that was not counted");
        before & (LEASES | ORPHAN) == LEASE | ORPHAN
    }

    /// The account leaves. True: there are leases, and the last one of them will be told.
    pub(super) fn orphan(&self) -> bool {
        self.0.fetch_or(ORPHAN, Ordering::AcqRel) & LEASES > 0
    }

    /// Takes everything beyond `keep` out of the credit.
    pub(super) fn trim(&self, keep: u64) -> u64 {
        let mut now = self.0.load(Ordering::Relaxed);
        loop {
            let excess = (now & BYTES).saturating_sub(keep);
            if excess == 0 {
                return 0;
            }
            match self.0.compare_exchange_weak(now, now - excess, Ordering::AcqRel, Ordering::Relaxed) {
                Ok(_) => return excess,
                Err(newer) => now = newer,
            }
        }
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn a_grant_lies_between_least_and_most_and_never_passes_the_cap() {
        let pool = Pool::new(100);
        assert_eq!(pool.take(10, 60), Some(60));
        assert_eq!(pool.take(10, 60), Some(40));
        assert_eq!(pool.take(1, 60), None);
        pool.give(5);
        assert_eq!(pool.take(6, 6), None);
        assert_eq!(pool.take(0, 6), Some(5));
        pool.force(50);
        assert_eq!(pool.granted(), 150);
        assert_eq!(pool.take(1, 1), None);
    }

    #[test]
    fn a_credit_is_spent_whole_or_not_at_all() {
        let credit = Credit::empty();
        assert_eq!(credit.put(10), 10);
        assert!(!credit.spend(11));
        assert!(credit.spend(4));
        assert_eq!(credit.trim(2), 4);
        assert_eq!(credit.trim(2), 0);
        assert_eq!(credit.bytes(), 2);
    }

    #[test]
    fn leases_are_counted_beside_the_bytes_and_only_the_last_of_an_orphan_is_told() {
        let credit = Credit::empty();
        credit.put(10);
        assert!(!credit.spend_counted(11), "too few bytes: nothing is counted");
        assert!(credit.spend_counted(4) && credit.count());
        assert_eq!((credit.bytes(), credit.trim(5), credit.bytes()), (6, 1, 5));
        assert!(!credit.put_last(4), "another lease is left");
        assert_eq!(credit.put(1), 10);
        assert!(credit.orphan());
        assert!(credit.put_last(3), "the last one of an orphan");
        assert_eq!((credit.bytes(), credit.orphan()), (13, false));
    }

    #[test]
    fn leases_beyond_what_can_be_counted_are_refused() {
        let credit = Credit::empty();
        credit.put(10);
        credit.0.fetch_add(LEASES, Ordering::Relaxed);
        assert!(!credit.spend_counted(1) && !credit.count());
        assert!(credit.spend(1));
        assert!(!credit.put_last(1));
        assert!(credit.spend_counted(1));
        assert_eq!(credit.bytes(), 9);
    }
}

#[cfg(all(test, loom))]
mod tests {
    use super::*;
    use loom::sync::Arc;
    use loom::thread;

    /// What the ledger does for one charge and its release, with a cap that both threads together would pass.
    #[test]
    fn two_threads_never_hold_more_than_the_cap_and_leave_nothing_behind() {
        loom::model(|| {
            let pool = Arc::new(Pool::new(10));
            let credit = Arc::new(Credit::empty());
            let held = Arc::new(AtomicU64::new(0));
            let threads: Vec<_> = (0..2)
                .map(|_| {
                    let (pool, credit, held) = (Arc::clone(&pool), Arc::clone(&credit), Arc::clone(&held));
                    thread::spawn(move || {
                        let got =
                            credit.spend(6) || pool.take(6, 8).inspect(|grant| _ = credit.put(grant - 6)).is_some();
                        if got {
                            assert!(held.fetch_add(6, Ordering::AcqRel) + 6 <= 10, "over the cap");
                            held.fetch_sub(6, Ordering::AcqRel);
                            if credit.put(6) > 8 {
                                pool.give(credit.trim(4));
                            }
                        }
                    })
                })
                .collect();
            for thread in threads {
                thread.join().expect("no panic");
            }
            assert_eq!(pool.granted(), credit.bytes(), "every granted byte is at hand again");
        });
    }

    /// Two leases end while the account leaves: the lane is freed once, by whoever was last, and not before.
    #[test]
    fn a_lane_is_freed_once_by_the_last_that_leaves() {
        loom::model(|| {
            let credit = Arc::new(Credit::empty());
            credit.put(2);
            assert!(credit.spend_counted(1) && credit.spend_counted(1));
            let leases: Vec<_> = (0..2)
                .map(|_| {
                    let credit = Arc::clone(&credit);
                    thread::spawn(move || usize::from(credit.put_last(1)))
                })
                .collect();
            let freed_by_account = usize::from(!credit.orphan());
            let freed_by_leases: usize = leases.into_iter().map(|lease| lease.join().expect("no panic")).sum();
            assert_eq!(freed_by_account + freed_by_leases, 1);
            assert_eq!(credit.bytes(), 2);
        });
    }

    /// A lease that is split while another one ends and the account leaves: the new one keeps the lane.
    #[test]
    fn a_split_lease_keeps_the_lane() {
        loom::model(|| {
            let credit = Arc::new(Credit::empty());
            assert!(credit.count());
            let splitter = {
                let credit = Arc::clone(&credit);
                thread::spawn(move || {
                    assert!(credit.count());
                    usize::from(credit.put_last(0)) + usize::from(credit.put_last(0))
                })
            };
            let freed_by_account = usize::from(!credit.orphan());
            assert_eq!(freed_by_account + splitter.join().expect("no panic"), 1);
        });
    }

    /// A sweep beside a spender: the byte is either swept or spent.
    #[test]
    fn a_sweep_takes_only_what_nobody_spends() {
        loom::model(|| {
            let pool = Arc::new(Pool::new(8));
            let credit = Arc::new(Credit::empty());
            pool.take(8, 8).expect("fits");
            credit.put(8);
            let spender = {
                let credit = Arc::clone(&credit);
                thread::spawn(move || if credit.spend(5) { 5 } else { 0 })
            };
            pool.give(credit.trim(0));
            let spent = spender.join().expect("no panic");
            assert_eq!(pool.granted(), spent + credit.bytes());
        });
    }
}
