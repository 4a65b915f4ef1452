//! A lease: an owned charge's hold on its lane, without a reference count of its own. The only unsafe code of the ledger.
//!
//! Counting references by `Arc` costs two more atomic operations a charge (10 ns of 22). The lane's credit word has room for a count of leases
//! beside the bytes, so that one operation does both. The lane is freed by the last one that leaves: its account, or a lease.
//!
//! The rule that makes this sound, and that `pool`'s loom model checks: a lease is counted from before it exists until it ends; the account
//! forgets its `Arc` of the lane exactly when it leaves while leases are counted ([`orphan`]), and then exactly one lease is told that
//! it is the last. So the lane lives while a lease does.

#![allow(
    unsafe_code,
    reason = "the lane outlives its leases by a count that no safe type of std keeps in the same word"
)]

use std::ptr::NonNull;
use std::sync::Arc;

use super::account::Lane;

/// Bytes on a lane, released when it is dropped.
pub(super) struct Lease {
    lane: NonNull<Lane>,
    pub(super) bytes: u64,
}

// SAFETY: a lease gives out `&Lane` only, and `Lane` is `Sync`; the one that frees it may be on any thread, and `Lane` is `Send`.
unsafe impl Send for Lease {}
// SAFETY: as above.
unsafe impl Sync for Lease {}

const _: () = {
    const fn both<T: Send + Sync>() {}
    both::<Lane>();
};

impl Lease {
    /// Spends `bytes` of the lane's credit; `None` if there are fewer, or too many leases.
    #[inline]
    pub(super) fn spend(lane: &Arc<Lane>, bytes: u64) -> Option<Lease> {
        lane.credit().spend_counted(bytes).then(|| Lease::counted(lane, bytes))
    }

    /// For bytes that were acquired; `None` if there are too many leases.
    pub(super) fn of(lane: &Arc<Lane>, bytes: u64) -> Option<Lease> {
        lane.credit().count().then(|| Lease::counted(lane, bytes))
    }

    /// The count must have been taken.
    #[inline]
    fn counted(lane: &Arc<Lane>, bytes: u64) -> Lease {
        Lease { lane: NonNull::from(&**lane), bytes }
    }

    /// Moves bytes, at most what it holds, into a lease of their own; `None` if there are too many.
    pub(super) fn split(&mut self, bytes: u64) -> Option<Lease> {
        let moved = bytes.min(self.bytes);
        self.lane().credit().count().then(|| {
            self.bytes -= moved;
            Lease { lane: self.lane, bytes: moved }
        })
    }

    /// The lane by an `Arc` of its own.
    pub(super) fn share(&self) -> Arc<Lane> {
        let lane = self.lane.as_ptr().cast_const();
        // SAFETY: the pointer came from this allocation's `Arc`, and while this lease is counted one strong reference of it is there.
        unsafe { Arc::increment_strong_count(lane) };
        // SAFETY: takes up the reference that was just counted.
        unsafe { Arc::from_raw(lane) }
    }

    #[inline]
    pub(super) fn lane(&self) -> &Lane {
        // SAFETY: this lease is counted until it is dropped, and while one is, the lane is not freed: either its account still has
        // its `Arc`, or forgot it because of the count.
        unsafe { self.lane.as_ref() }
    }
}

impl Drop for Lease {
    #[inline]
    fn drop(&mut self) {
        if self.lane().end_lease(self.bytes) {
            // SAFETY: told to be the last lease of a lane whose account has left, so `orphan` forgot one `Arc` of it, which nobody else
            // takes up: that is dropped here. The pointer came from that allocation's `Arc`.
            drop(unsafe { Arc::from_raw(self.lane.as_ptr().cast_const()) });
        }
    }
}

/// The account leaves: its lane stays for as long as leases of it do.
pub(super) fn orphan(lane: Arc<Lane>) {
    if lane.credit().orphan() {
        std::mem::forget(lane);
    }
}
