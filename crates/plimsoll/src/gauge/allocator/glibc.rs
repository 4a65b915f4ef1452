//! glibc's malloc, through `mallinfo2` (glibc 2.33 and later): exact live bytes at a price that grows with fragmentation.
//!
//! `mallinfo2` walks the free lists of every arena **under its lock**: 49 ms on a fragmented heap of 1 GB, during which every
//! allocation in that arena waits. So it is never polled: a reading is good for 10 s, and then for as long as its share
//! of a core asks for. `malloc_trim` walks all pages of all arenas under the same locks.

use std::time::Duration;

use super::{Allocator, Heap, sys};
use crate::gauge::Unread;

/// How long a reading is good for.
pub const TTL: Duration = Duration::from_secs(10);

/// The malloc of this program's C library.
///
/// # Examples
/// ```
/// use plimsoll::gauge::allocator::{Cached, glibc::Glibc};
/// let glibc = Cached::new(Glibc);
/// let heap = glibc.read().heap;
/// assert!(heap.live_bytes <= heap.active_bytes, "{heap:?}");
/// ```
#[derive(Clone, Copy, Debug, Default)]
pub struct Glibc;

impl Allocator for Glibc {
    fn name(&self) -> &'static str {
        "glibc"
    }

    fn read(&mut self) -> Heap {
        let info = sys::glibc_info();
        // Blocks of their own mappings are handed out whole; the C library counts them apart.
        let (mapped, used, arenas) = (info.hblkhd as u64, info.uordblks as u64, info.arena as u64);
        let untold = Err(Unread::Missing("glibc's resident bytes"));
        Heap { live_bytes: Ok(used + mapped), active_bytes: Ok(arenas + mapped), resident_bytes: untold }
    }

    fn purge(&mut self) -> Result<(), Unread> {
        sys::glibc_trim();
        Ok(())
    }

    fn ttl(&self) -> Duration {
        TTL
    }
}
