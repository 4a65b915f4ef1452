//! Memory kept for the drain: mapped and touched at the start, given back when the drain begins.
//!
//! A service that leaves because memory is short needs memory to leave: buffers to flush, a log line, a connection to close.
//! A [`Reserve`] is that many bytes of private anonymous memory, 4 KiB pages, each written to, so that releasing it makes
//! `RssAnon` fall by exactly its size at once (2 ms per 16 MiB). Never huge pages, not inherited by `fork`, locked where
//! `RLIMIT_MEMLOCK` allows it, so that it is not swapped out instead. It counts as memory of the service until then: a
//! threshold of 300 MiB with a reserve of 8 MiB leaves 292 MiB for everything else.

use std::io;

use parking_lot::Mutex;

use crate::sys::Mapping;

/// Largest default reserve.
pub const DEFAULT_BYTES_MAX: u64 = 16 << 20;
/// The default reserve is this part of the threshold, at most [`DEFAULT_BYTES_MAX`].
pub const DEFAULT_PART: u64 = 32;

/// The default reserve for a threshold: a 32nd of it, at most 16 MiB.
pub fn default_bytes(threshold_bytes: u64) -> u64 {
    (threshold_bytes / DEFAULT_PART).min(DEFAULT_BYTES_MAX)
}

/// Memory that is really there until it is released, once.
///
/// # Examples
/// ```
/// use plimsoll::reserve::Reserve;
///
/// let reserve = Reserve::map(4 << 20)?;
/// assert_eq!(reserve.held_bytes(), 4 << 20);
/// assert_eq!(reserve.release(), 4 << 20);
/// assert_eq!(reserve.release(), 0, "it is given back once");
/// # Ok::<(), std::io::Error>(())
/// ```
#[derive(Debug)]
pub struct Reserve {
    mapping: Mutex<Option<Mapping>>,
    locked: bool,
}

impl Reserve {
    /// Maps and touches `bytes`, rounded up to whole pages; 0 is no reserve at all. Takes about 13 ms per 16 MiB.
    ///
    /// Where a cgroup's limit has no room for it, the kernel may kill for it, as for any memory that is touched: keep it
    /// well below the headroom.
    ///
    /// # Errors
    /// `InvalidInput` when it does not fit an address; what the kernel says when it gives no memory.
    pub fn map(bytes: u64) -> io::Result<Reserve> {
        let mapping = match usize::try_from(bytes) {
            Ok(0) => None,
            Ok(bytes) => Some(Mapping::touched(bytes)?),
            Err(_) => return Err(io::ErrorKind::InvalidInput.into()),
        };
        let locked = mapping.as_ref().is_some_and(Mapping::is_locked);
        Ok(Reserve { mapping: Mutex::new(mapping), locked })
    }

    /// Gives the memory back and returns how many bytes that were; 0 when it was released before. Allocates nothing.
    pub fn release(&self) -> u64 {
        // The lock is not held while the kernel works.
        let mapping = self.mapping.lock().take();
        mapping.map_or(0, |mapping| mapping.bytes() as u64)
    }

    /// What it still holds.
    pub fn held_bytes(&self) -> u64 {
        self.mapping.lock().as_ref().map_or(0, |mapping| mapping.bytes() as u64)
    }

    /// Whether the kernel promised not to swap it out.
    pub fn is_locked(&self) -> bool {
        self.locked
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn none_is_free_and_too_much_is_an_error() {
        let none = Reserve::map(0).unwrap();
        assert_eq!((none.held_bytes(), none.release(), none.is_locked()), (0, 0, false));
        assert!(Reserve::map(u64::MAX).is_err());
        assert!(Reserve::map(1 << 56).is_err(), "more than an address space has");
    }

    #[test]
    fn pages_are_whole_and_released_once_by_whoever_is_first() {
        let reserve = Reserve::map(5000).unwrap();
        assert_eq!(reserve.held_bytes(), 8192);
        let released: u64 = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..8).map(|_| scope.spawn(|| reserve.release())).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).sum()
        });
        assert_eq!((released, reserve.held_bytes()), (8192, 0));
    }

    #[test]
    fn the_default_is_a_part_of_the_threshold_with_a_cap() {
        assert_eq!(default_bytes(64 << 20), 2 << 20);
        assert_eq!(default_bytes(8 << 30), DEFAULT_BYTES_MAX);
    }
}
