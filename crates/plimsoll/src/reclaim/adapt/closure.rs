//! Any two closures as a store: one that says what is held, one that gives back.

use crate::event::{Ask, Outcome, Profile};
use crate::reclaim::Reclaim;

/// A store of two closures. The bounds and slices are theirs.
///
/// # Examples
/// ```
/// use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
/// use std::sync::Arc;
/// use plimsoll::event::{Ask, Outcome, Pass, Profile};
/// use plimsoll::reclaim::{Reclaim as _, adapt::Closure};
///
/// let held = Arc::new(AtomicU64::new(1_000));
/// let of = Arc::clone(&held);
/// let give = move |ask: Ask| {
///     let given = ask.bytes.min(held.load(Relaxed));
///     Outcome::new(given, held.fetch_sub(given, Relaxed) > given)
/// };
/// let store = Closure::new(move || of.load(Relaxed), give).with_profile(Profile::default().only(&[Pass::Idle]));
/// assert_eq!(store.reclaim(Ask::new(400, Pass::Idle)), Outcome::new(400, true));
/// assert_eq!(store.held_bytes(), 600);
/// ```
pub struct Closure<H, G> {
    held: H,
    give: G,
    profile: Profile,
}

impl<H: Fn() -> u64 + Send + Sync, G: Fn(Ask) -> Outcome + Send + Sync> Closure<H, G> {
    /// `held` says how many bytes there are, `give` gives back.
    pub fn new(held: H, give: G) -> Closure<H, G> {
        Closure { held, give, profile: Profile::default() }
    }
}

impl<H, G> Closure<H, G> {
    /// With another profile than the default.
    #[must_use]
    pub fn with_profile(self, profile: Profile) -> Closure<H, G> {
        Closure { profile, ..self }
    }
}

impl<H: Fn() -> u64 + Send + Sync, G: Fn(Ask) -> Outcome + Send + Sync> Reclaim for Closure<H, G> {
    fn held_bytes(&self) -> u64 {
        (self.held)()
    }

    fn profile(&self) -> Profile {
        self.profile
    }

    fn reclaim(&self, ask: Ask) -> Outcome {
        (self.give)(ask)
    }
}

impl<H, G> std::fmt::Debug for Closure<H, G> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Closure").field("profile", &self.profile).finish_non_exhaustive()
    }
}
