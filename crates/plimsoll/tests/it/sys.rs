//! The only unsafe code of these tests: `fork`, and a global allocator that counts, per thread, so that parallel tests do
//! not disturb each other.

#![allow(unsafe_code, reason = "a global allocator is unsafe by its trait, and fork has no safe wrapper")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

thread_local! {
    // Const and without a destructor: reading it allocates nothing, also while a thread ends.
    static ALLOCATIONS: Cell<u64> = const { Cell::new(0) };
}

/// How often this thread has allocated.
pub(crate) fn allocations() -> u64 {
    ALLOCATIONS.get()
}

struct Counting;

#[global_allocator]
static COUNTING: Counting = Counting;

fn count() {
    ALLOCATIONS.set(ALLOCATIONS.get() + 1);
}

// SAFETY: every call is forwarded to the system's allocator with the caller's own arguments.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count();
        // SAFETY: the caller's layout, as the trait demands.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, ptr: *mut u8, layout: Layout) {
        // SAFETY: `ptr` came from `System` through `alloc` or `realloc` above, with this layout.
        unsafe { System.dealloc(ptr, layout) }
    }

    unsafe fn realloc(&self, ptr: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        count();
        // SAFETY: as for `dealloc`; the new size is the caller's.
        unsafe { System.realloc(ptr, layout, new_size) }
    }
}

/// Forks. The child lives `life` and ends without unwinding into the test harness and without running exit handlers.
///
/// Only for a process with one thread: see `stage`, which makes one for each player.
pub(crate) fn fork(life: impl FnOnce()) -> i32 {
    // SAFETY: the caller's process has one thread that holds locks, this one, so that the child finds none taken.
    match unsafe { libc::fork() } {
        0 => {
            let lived = std::panic::catch_unwind(std::panic::AssertUnwindSafe(life));
            // SAFETY: ends this process and returns never.
            unsafe { libc::_exit(if lived.is_ok() { 0 } else { 101 }) }
        }
        -1 => panic!("fork: {}", std::io::Error::last_os_error()),
        pid => pid,
    }
}

/// Allocates and writes this many blocks with mimalloc, calls `between`, and frees them all.
#[cfg(feature = "mimalloc")]
pub(crate) fn with_mimalloc_blocks(count: usize, bytes: usize, between: impl FnOnce()) {
    let block = || {
        // SAFETY: any size may be asked for.
        let ptr: *mut u8 = unsafe { libmimalloc_sys::mi_malloc(bytes) }.cast();
        assert!(!ptr.is_null());
        // SAFETY: just allocated, so valid for writes of that many bytes.
        unsafe { ptr.write_bytes(1, bytes) };
        ptr
    };
    let blocks: Vec<_> = (0..count).map(|_| block()).collect();
    between();
    for ptr in blocks {
        // SAFETY: allocated above, freed once.
        unsafe { libmimalloc_sys::mi_free(ptr.cast()) };
    }
}
