//! Where values go that find no room: a store of the service's own, usually on disk, joined to the queue by this trait.
//!
//! From the first value that found no room until the store is empty again, every value goes there, so that what came first leaves
//! first. The receiver takes what waits in memory, then what is kept here. The store has its own bound: what it does not take is
//! dropped and counted ([`DropReason::Overflow`](super::DropReason::Overflow)), and told in a gap record.
//!
//! The queue calls it under a lock of its own, never under the queue's: a store that waits for a disk holds up the senders that overflow
//! and nobody else. Sending then costs what a write costs. A store must not send into its own queue: that lock is not re-entrant.

/// A store for what finds no room in memory.
pub trait Overflow<T>: Send {
    /// Keeps a value, behind all that it keeps. Called on the sender's thread, one at a time.
    ///
    /// # Errors
    /// The value, when there is no room for it or it cannot be written. The queue drops and counts it.
    fn keep(&mut self, value: T, producer: &str) -> Result<(), T>;

    /// The oldest value that was not given out yet. Called on the receiver's thread.
    fn next(&mut self) -> Option<T>;

    /// So many of those that were given out, the oldest ones, are where they should be and may be forgotten.
    fn settle(&mut self, count: u64);

    /// How many values it keeps that were not given out; those of an earlier process included.
    fn kept(&self) -> u64;
}
