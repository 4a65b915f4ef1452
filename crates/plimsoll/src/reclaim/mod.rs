//! Giving memory back: who holds how much ([`ledger`]), who is asked for how much ([`share`]), and the threads that ask ([`Controller`]).
//!
//! The governor decides how much is wanted back ([`Want`](crate::event::Want)) and never runs a store's code; the controller
//! asks stores that implement [`Reclaim`], each on a thread of its own, at most [`MAX_STORES`]. [`adapt`] makes a store of what a service has.

pub mod adapt;
#[cfg(not(loom))]
mod controller;
pub mod ledger;
pub mod share;

#[cfg(not(loom))]
pub use controller::{
    Controller, Figures, MAX_STORES, PURGE_INTERVAL, RegisterError, STUCK_DWELL, Settings, StoreFigures,
};

use crate::event::{Ask, Outcome, Profile};

/// A store that can give memory back.
///
/// All three are called on a thread of this store's own, never on the governor's; one that sleeps or waits for a lock delays nobody else, and
/// is named as late after the ask's deadline (1 s). They should hold the service's locks for at most [`adapt::SLICE`] (1 ms) at a time.
///
/// # Examples
/// ```
/// use parking_lot::Mutex;
/// use plimsoll::event::{Ask, Outcome, Pass, Profile};
/// use plimsoll::reclaim::Reclaim;
///
/// struct Lines(Mutex<Vec<[u8; 100]>>);
/// impl Reclaim for Lines {
///     fn held_bytes(&self) -> u64 {
///         self.0.lock().capacity() as u64 * 100
///     }
///     fn profile(&self) -> Profile {
///         Profile::default().only(&[Pass::Destructive])
///     }
///     fn reclaim(&self, ask: Ask) -> Outcome {
///         let mut lines = self.0.lock();
///         let before = lines.capacity();
///         let keep = lines.len().saturating_sub(ask.bytes.div_ceil(100) as usize);
///         lines.truncate(keep);
///         lines.shrink_to_fit();
///         Outcome::new((before - lines.capacity()) as u64 * 100, !lines.is_empty())
///     }
/// }
/// let lines = Lines(Mutex::new(vec![[0; 100]; 1_000]));
/// assert_eq!(lines.reclaim(Ask::new(25_000, Pass::Destructive)), Outcome::new(25_000, true));
/// assert_eq!(lines.held_bytes(), 75_000);
/// ```
pub trait Reclaim: Send + Sync {
    /// What it holds now, in bytes.
    fn held_bytes(&self) -> u64;

    /// What it is like. Asked for when it is registered and after each ask.
    fn profile(&self) -> Profile {
        Profile::default()
    }

    /// Gives back up to `ask.bytes`, or a little more, by cutting no deeper than `ask.pass`; says what it gave.
    fn reclaim(&self, ask: Ask) -> Outcome;

    /// From now on it should hold at most `bytes`; `None`: as it likes. A bound, not an order: nothing is to be evicted for it. Told when it
    /// changed by a hundredth. Stores that charge an account are held by its clamp and need not listen.
    fn hold(&self, bytes: Option<u64>) {
        let _unused = bytes;
    }
}
