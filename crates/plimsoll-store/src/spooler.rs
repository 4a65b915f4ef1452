//! The spooler: writes committed frames from the ring's memory to the newest segment file, then frees them in the ring. It sleeps
//! without a timeout while there is nothing, and writes 5 ms apart, or 256 KiB to 1 MiB at once.
//!
//! Bounded by `spool_bytes` on disk, and by a floor of free disk that is left for the sealer (an eighth of the filesystem, at most
//! 64 MiB): at either it waits until the sealer frees a segment, so the ring fills and drops are counted.
//! A write that fails (disk full, I/O error) is tried again at the same offset after 100 ms, 200 ms … 1 s: what a part of a write left
//! behind is written over.

use std::sync::atomic::Ordering;
use std::time::Duration;

use crate::clock;
use crate::core::Core;
use crate::frame::{Frame, HEADER_BYTES};
use crate::ring::at;

/// Most that one write takes from the ring.
const BATCH_BYTES: u64 = 1 << 20;
/// With less than this in the ring, two writes are `PACE` apart.
const PACE_BYTES: u64 = 256 << 10;
/// Time between two writes while frames trickle.
const PACE: Duration = Duration::from_millis(5);
/// Where that is allowed, the spooler goes before the flood that it must keep up with: on a busy machine (2 cores, 9 to run) it otherwise
/// waits 20 to 45 ms for a turn, which is what the ring holds. It needs about 0.1 us a line.
const NICE: i32 = -10;
const FIRST_RETRY: Duration = Duration::from_millis(100);
const LAST_RETRY: Duration = Duration::from_secs(1);

/// The spooler thread's loop; ends when the store closes and everything is written, or when it is told to give up.
pub(crate) fn run(core: &Core) {
    // Without the right to it, it is an ordinary thread.
    rustix::process::setpriority_process(None, NICE).unwrap_or_default();
    let mut retry = FIRST_RETRY;
    let mut last_write = Duration::ZERO;
    loop {
        if core.gives_up() {
            return;
        }
        if core.ring.used() == 0 {
            if !core.flush_gaps() {
                if core.is_closing() {
                    return;
                }
                std::thread::park();
            }
            continue;
        }
        if core.ring.used() < PACE_BYTES && !core.is_closing() && clock::monotonic() < last_write + PACE {
            std::thread::sleep(PACE);
        }
        if core.ring_path_owed.load(Ordering::Relaxed)
            && crate::open::write_ring_path(&core.settings.dir, core.ring.path()).is_ok()
        {
            core.ring_path_owed.store(false, Ordering::Relaxed);
        }
        let tail = core.ring.tail();
        let end = batch_end(core, tail);
        if let Some(why) = core.spool.full(end - tail) {
            core.trouble.spool_waits(why);
            core.pressed.store(true, Ordering::Release);
            core.wake_sealer();
            std::thread::park_timeout(LAST_RETRY);
            continue;
        }
        let frames = core.ring.bytes(tail, usize::try_from(end - tail).unwrap_or(usize::MAX));
        match core.spool.append(tail, frames) {
            Ok(()) => {
                core.ring.set(at::TAIL, end);
                last_write = clock::monotonic();
                retry = FIRST_RETRY;
                core.trouble.spool_well();
                core.spooled(end);
                core.flush_gaps_if_free();
            }
            Err(e) => {
                core.trouble.spool_failed(&e);
                std::thread::park_timeout(retry);
                retry = (retry * 2).min(LAST_RETRY);
            }
        }
    }
}

/// End of the whole frames from `tail` on that make one write: at most `BATCH_BYTES`, and no further than the first frame that begins
/// at or behind the ring's wrap, nor than the segment may hold.
fn batch_end(core: &Core, tail: u64) -> u64 {
    let ring = &core.ring;
    let head = ring.head();
    let stop = head.min(tail + BATCH_BYTES.min(ring.until_wrap(tail)));
    let mut end = tail;
    while end < stop {
        match Frame::peek(ring.bytes(end, HEADER_BYTES), end) {
            Ok(frame) => end = frame.end(),
            // Cannot be: the writer commits whole frames. Written as it is; whoever reads it will name the place.
            Err(_) => return stop,
        }
    }
    end
}
