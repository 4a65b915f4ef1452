//! The calls into allocators that no safe wrapper offers, and the counting allocator's own trait.
#![allow(unsafe_code, reason = "GlobalAlloc is unsafe by its trait, and allocators are controlled through C")]

use std::alloc::{GlobalAlloc, Layout};

use super::Counted;

// SAFETY: every call is forwarded to the inner allocator with the caller's own arguments; counting changes nothing of it.
unsafe impl<A: GlobalAlloc> GlobalAlloc for Counted<A> {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller's layout, as the trait demands.
        let ptr = unsafe { self.inner.alloc(layout) };
        if !ptr.is_null() {
            self.add(layout.size());
        }
        ptr
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller's layout, as the trait demands.
        let ptr = unsafe { self.inner.alloc_zeroed(layout) };
        if !ptr.is_null() {
            self.add(layout.size());
        }
        ptr
    }

    unsafe fn dealloc(&self, ptr: *mut u8, layout: Layout) {
        // SAFETY: `ptr` came from the inner allocator with this layout, through one of these methods.
        unsafe { self.inner.dealloc(ptr, layout) };
        self.sub(layout.size());
    }

    unsafe fn realloc(&self, ptr: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        // SAFETY: as for `dealloc`; the new size is the caller's.
        let new = unsafe { self.inner.realloc(ptr, layout, new_size) };
        // Where it fails, the old block stays.
        if !new.is_null() {
            self.add(new_size);
            self.sub(layout.size());
        }
        new
    }
}

/// Gives back all unused dirty pages of all arenas, at once.
#[cfg(feature = "jemalloc")]
pub(super) fn jemalloc_purge() -> Result<(), i32> {
    // 4096 is MALLCTL_ARENAS_ALL.
    let name = c"arena.4096.purge";
    let null = std::ptr::null_mut();
    // SAFETY: the name ends with a zero byte; this control reads and writes nothing, which the four nulls say.
    match unsafe { tikv_jemalloc_sys::mallctl(name.as_ptr(), null, null.cast(), null, 0) } {
        0 => Ok(()),
        errno => Err(errno),
    }
}

/// What mimalloc has committed: readable and writable memory that it got from the system.
#[cfg(feature = "mimalloc")]
pub(super) fn mimalloc_committed_bytes() -> u64 {
    let mut committed = 0usize;
    let null = std::ptr::null_mut();
    // SAFETY: every result is optional: null is skipped, the one pointer is valid for a write during the call.
    unsafe {
        libmimalloc_sys::mi_process_info(null, null, null, null, null, &raw mut committed, null, null);
    }
    committed as u64
}

/// Frees what threads left behind and gives unused pages back.
#[cfg(feature = "mimalloc")]
pub(super) fn mimalloc_collect() {
    // SAFETY: may be called at any time from any thread.
    unsafe { libmimalloc_sys::mi_collect(true) };
}

/// The figures of all arenas.
#[cfg(all(feature = "glibc", target_env = "gnu"))]
pub(super) fn glibc_info() -> libc::mallinfo2 {
    // SAFETY: takes the arenas' locks by itself and returns plain numbers.
    unsafe { libc::mallinfo2() }
}

/// Gives back whole free pages of all arenas, and leaves nothing at the top.
#[cfg(all(feature = "glibc", target_env = "gnu"))]
pub(super) fn glibc_trim() {
    // SAFETY: takes the arenas' locks by itself.
    unsafe { libc::malloc_trim(0) };
}

/// Blocks of allocators that are not the global one, for tests.
#[cfg(all(test, not(loom)))]
pub(super) mod blocks {
    use super::*;

    type Free = Box<dyn FnOnce() + Send>;

    /// A block that was written to and that is freed when dropped, by whatever thread.
    pub(in super::super) struct Block(Option<Free>);

    impl Block {
        pub(in super::super) fn counted(counted: &'static Counted<std::alloc::System>, bytes: usize) -> Block {
            let layout = Layout::from_size_align(bytes, 8).expect("a small size");
            // SAFETY: the size is not 0.
            let address = written(unsafe { counted.alloc(layout) }, bytes);
            Block(Some(Box::new(move || {
                // SAFETY: allocated above with this layout, freed once.
                unsafe { counted.dealloc(address as *mut u8, layout) };
            })))
        }

        /// Grows a counted block to `bytes` and frees it.
        pub(in super::super) fn grow_counted(
            counted: &'static Counted<std::alloc::System>,
            from: usize,
            to: usize,
        ) -> Block {
            let (layout, grown) = (Layout::from_size_align(from, 8), Layout::from_size_align(to, 8));
            let (layout, grown) = (layout.expect("a small size"), grown.expect("a small size"));
            // SAFETY: the size is not 0.
            let ptr = unsafe { counted.alloc_zeroed(layout) };
            // SAFETY: allocated above with this layout; the new size is not 0.
            let address = written(unsafe { counted.realloc(ptr, layout, to) }, to);
            Block(Some(Box::new(move || {
                // SAFETY: the grown block, freed once, with the layout it has by now.
                unsafe { counted.dealloc(address as *mut u8, grown) };
            })))
        }

        #[cfg(feature = "jemalloc")]
        pub(in super::super) fn jemalloc(bytes: usize) -> Block {
            // SAFETY: any size may be asked for.
            let address = written(unsafe { tikv_jemalloc_sys::malloc(bytes) }.cast(), bytes);
            Block(Some(Box::new(move || {
                // SAFETY: allocated above by the same library, freed once.
                unsafe { tikv_jemalloc_sys::free(address as *mut _) };
            })))
        }

        #[cfg(feature = "mimalloc")]
        pub(in super::super) fn mimalloc(bytes: usize) -> Block {
            // SAFETY: any size may be asked for.
            let address = written(unsafe { libmimalloc_sys::mi_malloc(bytes) }.cast(), bytes);
            Block(Some(Box::new(move || {
                // SAFETY: allocated above by the same library, freed once.
                unsafe { libmimalloc_sys::mi_free(address as *mut _) };
            })))
        }
    }

    fn written(ptr: *mut u8, bytes: usize) -> usize {
        assert!(!ptr.is_null(), "{bytes} bytes");
        // SAFETY: `ptr` is valid for writes of that many bytes: it was just allocated.
        unsafe { ptr.write_bytes(1, bytes) };
        ptr as usize
    }

    impl Drop for Block {
        fn drop(&mut self) {
            self.0.take().into_iter().for_each(|free| free());
        }
    }
}
