//! Stores made of what a service has: a time-ordered one ([`TimeOrdered`]), an LRU cache (`Lru`, feature `quick_cache`), any
//! closure ([`Closure`]); and [`spare`] for those that write their own.
//!
//! Each works in slices: at most [`SLICE`] (1 ms) under the service's lock, then it is free for others; and gives capacity back, not only
//! length.

mod closure;
#[cfg(feature = "quick_cache")]
mod lru;
pub mod spare;
mod time_ordered;

use std::time::Duration;

pub use closure::Closure;
#[cfg(feature = "quick_cache")]
pub use lru::Lru;
pub use time_ordered::{BATCH, BLOCK, Ordered, Segmented, TimeOrdered};

/// The longest time that an adaptor holds the service's lock for one slice. 1 ms.
pub const SLICE: Duration = Duration::from_millis(1);
