//! The only unsafe code of the crate: memory maps of the ring file. Two kinds: the supervisor's own, writable and with a
//! mirror of the first bytes of the ring behind its end (so a frame that wraps is one slice), and a reader's map of the
//! header page alone. A map never outlives its size: the file is grown before it is mapped and never cut.
#![allow(unsafe_code)] // mmap and views of shared memory cannot be written without it; each block says why it is sound

use std::ffi::c_void;
use std::fs::File;
use std::io;
use std::ptr::NonNull;
use std::sync::atomic::AtomicU64;

use rustix::mm::{Advice, MapFlags, ProtFlags, madvise, mmap, mmap_anonymous, munmap};

/// A map of `front` bytes (header and scratch), `ring` bytes of data, and `mirror` bytes that are the ring's first bytes again.
pub(crate) struct Mapping {
    base: NonNull<u8>,
    len: usize,
    front: usize,
}

// SAFETY: the map is plain shared memory that belongs to no thread. Words are reached as atomics only; bytes through `view` and
// `view_mut`, whose callers keep the ring's protocol: only the one writer (behind its mutex) touches bytes that are not committed,
// and nobody writes bytes between tail and head.
unsafe impl Send for Mapping {}
// SAFETY: as for `Send`.
unsafe impl Sync for Mapping {}

impl Mapping {
    /// Maps `file`, whose length must be at least `front + ring`. All sizes are multiples of the page size.
    pub(crate) fn writable(file: &File, front: usize, ring: usize, mirror: usize) -> io::Result<Mapping> {
        let len = front + ring + mirror;
        let access = ProtFlags::READ | ProtFlags::WRITE;
        // SAFETY: a fresh anonymous reservation at an address of the kernel's choice; it overlaps nothing.
        let base = unsafe { mmap_anonymous(std::ptr::null_mut(), len, ProtFlags::empty(), MapFlags::PRIVATE) }?;
        let base = NonNull::new(base.cast::<u8>()).ok_or_else(|| io::Error::other("the kernel mapped address 0"))?;
        let mapping = Mapping { base, len, front };
        let fixed = MapFlags::SHARED | MapFlags::FIXED;
        let first: *mut c_void = base.as_ptr().cast();
        // SAFETY: replaces the first part of our own reservation, which nothing refers to yet.
        unsafe { mmap(first, front + ring, access, fixed, file, 0) }?;
        if mirror > 0 {
            // SAFETY: the offset lies inside the reservation of `len` bytes.
            let second: *mut c_void = unsafe { base.as_ptr().add(front + ring) }.cast();
            // SAFETY: replaces the last part of our own reservation, which nothing refers to yet.
            unsafe { mmap(second, mirror, access, fixed, file, front as u64) }?;
        }
        Ok(mapping)
    }

    /// Maps the first `front` bytes of `file` for reading; the caller has checked that the file is that long.
    pub(crate) fn read_only(file: &File, front: usize) -> io::Result<Mapping> {
        // SAFETY: a fresh shared map at an address of the kernel's choice; it overlaps nothing.
        let base = unsafe { mmap(std::ptr::null_mut(), front, ProtFlags::READ, MapFlags::SHARED, file, 0) }?;
        let base = NonNull::new(base.cast::<u8>()).ok_or_else(|| io::Error::other("the kernel mapped address 0"))?;
        Ok(Mapping { base, len: front, front })
    }

    /// The 64-bit word at byte `at` of the front part. Through a read-only map it may only be loaded.
    pub(crate) fn word(&self, at: usize) -> &AtomicU64 {
        assert!(at.is_multiple_of(8) && at + 8 <= self.front, "word {at} lies outside the ring's header");
        // SAFETY: inside the map (asserted), and the map starts at a page.
        let place = unsafe { self.base.as_ptr().add(at) };
        // SAFETY: aligned to 8 (asserted; the base is page-aligned), alive as long as `self`, and only reached atomically.
        unsafe { AtomicU64::from_ptr(place.cast()) }
    }

    /// Bytes `at..at + len`. The caller keeps the protocol: nobody writes them while the slice lives.
    pub(crate) fn view(&self, at: usize, len: usize) -> &[u8] {
        assert!(at <= self.len && len <= self.len - at, "bytes {at}+{len} lie outside the ring");
        // SAFETY: inside the map (asserted).
        let place = unsafe { self.base.as_ptr().add(at) };
        // SAFETY: inside the map, initialised by the kernel, not written meanwhile (the caller's part, see above).
        unsafe { std::slice::from_raw_parts(place, len) }
    }

    /// Bytes `at..at + len` to write. Only the ring's one writer, only bytes that are not committed.
    #[allow(clippy::mut_from_ref)] // the bytes belong to the writer that holds the mutex, not to the map
    pub(crate) fn view_mut(&self, at: usize, len: usize) -> &mut [u8] {
        assert!(at <= self.len && len <= self.len - at, "bytes {at}+{len} lie outside the ring");
        // SAFETY: inside the map (asserted).
        let place = unsafe { self.base.as_ptr().add(at) };
        // SAFETY: inside the map; the writer's mutex makes this the only reference to uncommitted bytes.
        unsafe { std::slice::from_raw_parts_mut(place, len) }
    }

    /// Gives whole pages back to the filesystem; they read as zeros afterwards.
    pub(crate) fn give_back(&self, at: usize, len: usize) -> io::Result<()> {
        assert!(at <= self.len && len <= self.len - at, "bytes {at}+{len} lie outside the ring");
        // SAFETY: inside the map (asserted).
        let place = unsafe { self.base.as_ptr().add(at) };
        // SAFETY: the caller (the writer, with the ring empty) has no reference to these bytes.
        unsafe { madvise(place.cast(), len, Advice::LinuxRemove) }?;
        Ok(())
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: exactly the range that this value mapped; no view outlives `self`.
        let unmapped = unsafe { munmap(self.base.as_ptr().cast(), self.len) };
        debug_assert!(unmapped.is_ok(), "munmap of our own range failed");
    }
}
