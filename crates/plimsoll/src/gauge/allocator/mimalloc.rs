//! mimalloc: committed bytes and a purge. It tells no live bytes of the whole process: its statistics are left out of release
//! builds and kept per thread, and its heaps may not be walked while other threads allocate. Wrap it in
//! [`Counted`](super::Counted) and hand that figure in.

use super::{Allocator, Heap, sys};
use crate::gauge::Unread;

/// The mimalloc of this program.
///
/// # Examples
/// ```
/// use plimsoll::gauge::allocator::{Allocator, Counted, mimalloc::Mimalloc};
///
/// // With mimalloc::MiMalloc inside, and #[global_allocator] above.
/// static ALLOCATOR: Counted<std::alloc::System> = Counted::new(std::alloc::System);
/// let mut mimalloc = Mimalloc::new().live(|| ALLOCATOR.live_bytes());
/// assert_eq!(mimalloc.read().live_bytes, Ok(0));
/// assert!(Mimalloc::new().read().live_bytes.is_err(), "what it does not tell is not guessed");
/// ```
#[derive(Clone, Copy, Debug, Default)]
pub struct Mimalloc {
    live: Option<fn() -> u64>,
}

impl Mimalloc {
    /// Without live bytes.
    pub fn new() -> Mimalloc {
        Mimalloc::default()
    }

    /// Live bytes from a counter of one's own.
    #[must_use]
    pub fn live(self, live_bytes: fn() -> u64) -> Mimalloc {
        Mimalloc { live: Some(live_bytes) }
    }
}

impl Allocator for Mimalloc {
    fn name(&self) -> &'static str {
        "mimalloc"
    }

    fn read(&mut self) -> Heap {
        let live = self.live.map(|live| live()).ok_or(Unread::Missing("mimalloc's live bytes (see Counted)"));
        // Committed is what it may write to: of it, what was touched is resident, and it does not know which.
        Heap { active_bytes: Ok(sys::mimalloc_committed_bytes()), ..Heap::live(live) }
    }

    fn purge(&mut self) -> Result<(), Unread> {
        sys::mimalloc_collect();
        Ok(())
    }
}
