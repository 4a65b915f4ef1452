//! The spooler: writes committed frames from the ring's memory to the newest segment file, then frees them in the ring. It sleeps
//! without a timeout while there is nothing, and writes at most about 200 times a second in a flood (5 ms apart, or 1 MiB at once).
//!
//! Bounded by `spool_bytes` on disk: at the budget it waits until the sealer frees a segment, so the ring fills and drops are counted.
//! A write that fails (disk full, I/O error) is tried again at the same offset after 100 ms, 200 ms … 1 s: what a part of a write left
//! behind is written over.

use std::collections::{BTreeSet, VecDeque};
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;

use crate::clock;
use crate::core::Core;
use crate::frame::{Frame, HEADER_BYTES};
use crate::ring::at;
use crate::segment::{self, SEGMENT_BYTES, SEGMENT_HEADER};

/// Most that one write takes from the ring.
const BATCH_BYTES: u64 = 1 << 20;
/// Time between two writes while frames keep coming, unless a batch is full.
const PACE: Duration = Duration::from_millis(5);
const FIRST_RETRY: Duration = Duration::from_millis(100);
const LAST_RETRY: Duration = Duration::from_secs(1);

/// The segment files and what they hold.
#[derive(Debug)]
pub(crate) struct Spool {
    dir: PathBuf,
    budget: u64,
    /// A segment with this many bytes is followed by a new one: 16 MiB, or a quarter of the budget.
    segment_bytes: u64,
    used: AtomicU64,
    files: Mutex<Files>,
}

#[derive(Debug, Default)]
struct Files {
    /// Start and end position, ascending.
    segments: VecDeque<(u64, u64)>,
    /// The newest segment, open for writing.
    current: Option<File>,
    /// Starts of segments that were written since the last sync.
    unsynced: BTreeSet<u64>,
}

impl Spool {
    pub(crate) fn new(dir: PathBuf, budget: u64, segments: &[(u64, u64)]) -> Spool {
        let used = segments.iter().map(|(start, end)| end - start + SEGMENT_HEADER).sum();
        let files = Files { segments: segments.iter().copied().collect(), ..Files::default() };
        let segment_bytes = SEGMENT_BYTES.min(budget / 4);
        Spool { dir, budget, segment_bytes, used: AtomicU64::new(used), files: Mutex::new(files) }
    }

    pub(crate) fn dir(&self) -> &std::path::Path {
        &self.dir
    }

    /// Disk in use, in bytes.
    pub(crate) fn used(&self) -> u64 {
        self.used.load(Ordering::Relaxed)
    }

    fn has_room(&self, bytes: u64) -> bool {
        self.used() + bytes + SEGMENT_HEADER <= self.budget
    }

    /// Start position of the oldest segment.
    pub(crate) fn oldest(&self) -> Option<u64> {
        self.files.lock().segments.front().map(|(start, _)| *start)
    }

    /// Appends whole frames that begin at `position`. After an error the same call may be made again.
    fn append(&self, position: u64, frames: &[u8]) -> io::Result<()> {
        let mut files = self.files.lock();
        let full =
            files.segments.back().is_none_or(|(start, end)| end - start >= self.segment_bytes || *end != position);
        if full {
            files.current = Some(segment::create(&self.dir, position)?);
            files.segments.push_back((position, position));
            self.used.fetch_add(SEGMENT_HEADER, Ordering::Relaxed);
        }
        let Some((start, _)) = files.segments.back().copied() else { return Ok(()) };
        if files.current.is_none() {
            let path = segment::path(&self.dir, start);
            files.current = Some(File::options().write(true).open(path)?);
        }
        files.unsynced.insert(start);
        if let Some(file) = files.current.as_ref() {
            file.write_all_at(frames, SEGMENT_HEADER + (position - start))?;
        }
        if let Some((_, end)) = files.segments.back_mut() {
            *end = position + frames.len() as u64;
        }
        self.used.fetch_add(frames.len() as u64, Ordering::Relaxed);
        Ok(())
    }

    /// Removes segments that end at or before `position`; the newest one only if `idle`. Returns how many could not be removed.
    pub(crate) fn free_below(&self, position: u64, idle: bool) -> io::Result<()> {
        let mut files = self.files.lock();
        while let Some((start, end)) = files.segments.front().copied() {
            let newest = files.segments.len() == 1;
            if end > position || (newest && !idle && end - start < self.segment_bytes) {
                break;
            }
            match std::fs::remove_file(segment::path(&self.dir, start)) {
                Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
                _ => {}
            }
            files.segments.pop_front();
            files.unsynced.remove(&start);
            if newest {
                files.current = None;
            }
            self.used.fetch_sub(end - start + SEGMENT_HEADER, Ordering::Relaxed);
        }
        Ok(())
    }

    /// Renames a damaged segment aside; the frames in it are no longer read. Returns the position right behind it.
    pub(crate) fn set_aside(&self, start: u64) -> io::Result<Option<u64>> {
        let mut files = self.files.lock();
        let Some(i) = files.segments.iter().position(|(s, _)| *s == start) else { return Ok(None) };
        let from = segment::path(&self.dir, start);
        std::fs::rename(&from, from.with_extension("seg.damaged"))?;
        if i + 1 == files.segments.len() {
            files.current = None;
        }
        files.unsynced.remove(&start);
        let Some((_, end)) = files.segments.remove(i) else { return Ok(None) };
        self.used.fetch_sub(end - start + SEGMENT_HEADER, Ordering::Relaxed);
        Ok(Some(end))
    }

    /// Whether something was written since the last sync.
    pub(crate) fn is_unsynced(&self) -> bool {
        !self.files.lock().unsynced.is_empty()
    }

    /// Makes everything written so far survive a power cut.
    pub(crate) fn sync(&self) -> io::Result<()> {
        let starts = std::mem::take(&mut self.files.lock().unsynced);
        for start in &starts {
            let synced = File::open(segment::path(&self.dir, *start)).and_then(|file| Ok(rustix::fs::fdatasync(file)?));
            match synced {
                Err(e) if e.kind() != io::ErrorKind::NotFound => {
                    self.files.lock().unsynced.extend(&starts);
                    return Err(e);
                }
                _ => {}
            }
        }
        if !starts.is_empty() {
            rustix::fs::fsync(File::open(&self.dir)?)?;
        }
        Ok(())
    }
}

/// The spooler thread's loop; ends when the store closes and everything is written, or when it is told to give up.
pub(crate) fn run(core: &Core) {
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
        if core.ring.used() < BATCH_BYTES && !core.is_closing() && clock::monotonic() < last_write + PACE {
            std::thread::sleep(PACE);
        }
        let tail = core.ring.tail();
        let end = batch_end(core, tail);
        if !core.spool.has_room(end - tail) {
            core.trouble.spool_waits();
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
                core.flush_gaps();
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
