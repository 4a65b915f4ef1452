//! The spooler: writes committed frames from the ring's memory to the newest segment file, then frees them in the ring. It sleeps
//! without a timeout while there is nothing, and writes 5 ms apart, or 256 KiB to 1 MiB at once.
//!
//! Bounded by `spool_bytes` on disk, and by a floor of free disk that is left for the sealer (an eighth of the filesystem, at most
//! 64 MiB): at either it waits until the sealer frees a segment, so the ring fills and drops are counted.
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
/// With less than this in the ring, two writes are `PACE` apart.
const PACE_BYTES: u64 = 256 << 10;
/// Time between two writes while frames trickle.
const PACE: Duration = Duration::from_millis(5);
/// Where that is allowed, the spooler goes before the flood that it must keep up with: on a busy machine (2 cores, 9 to run) it otherwise
/// waits 20 to 45 ms for a turn, which is what the ring holds. It needs about 0.1 us a line.
const NICE: i32 = -10;
const FIRST_RETRY: Duration = Duration::from_millis(100);
const LAST_RETRY: Duration = Duration::from_secs(1);
/// Free disk that the spooler never takes: the sealer needs it to turn spool into (smaller) chunks.
const FLOOR_BYTES: u64 = 64 << 20;
/// The floor of a small filesystem is this part of its size.
const FLOOR_PART: u64 = 8;
/// How often the free disk is looked at, in bytes written: it may sink below the floor by this much.
const LOOK_EVERY_BYTES: u64 = 1 << 20;

/// The segment files and what they hold.
#[derive(Debug)]
pub(crate) struct Spool {
    dir: PathBuf,
    budget: u64,
    /// A segment with this many bytes is followed by a new one: 16 MiB, or a quarter of the budget.
    segment_bytes: u64,
    used: AtomicU64,
    /// Bytes that may still be written before the free disk is looked at again.
    unchecked: AtomicU64,
    /// What the budget may be exceeded by, so that a break can be spooled which lets segments go.
    overdraft: AtomicU64,
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
        let (unchecked, overdraft) = (AtomicU64::new(0), AtomicU64::new(0));
        Spool { dir, budget, segment_bytes, used: AtomicU64::new(used), unchecked, overdraft, files: Mutex::new(files) }
    }

    pub(crate) fn segment_bytes(&self) -> u64 {
        self.segment_bytes
    }

    pub(crate) fn dir(&self) -> &std::path::Path {
        &self.dir
    }

    /// Disk in use, in bytes.
    pub(crate) fn used(&self) -> u64 {
        self.used.load(Ordering::Relaxed)
    }

    /// Start position of the oldest segment.
    pub(crate) fn oldest(&self) -> Option<u64> {
        self.files.lock().segments.front().map(|(start, _)| *start)
    }

    pub(crate) fn set_overdraft(&self, bytes: u64) {
        self.overdraft.store(bytes, Ordering::Relaxed);
    }

    /// Why `bytes` more must wait; `None` if they need not.
    fn full(&self, bytes: u64) -> Option<&'static str> {
        if self.used() + bytes + SEGMENT_HEADER > self.budget.saturating_add(self.overdraft.load(Ordering::Relaxed)) {
            return Some("the log spool is at its budget and waits for the database");
        }
        let left = self.unchecked.load(Ordering::Relaxed);
        if left >= bytes {
            self.unchecked.store(left - bytes, Ordering::Relaxed);
            return None;
        }
        // What cannot be asked is not full: the write itself will say.
        let Ok(disk) = rustix::fs::statvfs(&self.dir) else { return None };
        let floor = FLOOR_BYTES.min(disk.f_blocks * disk.f_frsize / FLOOR_PART);
        if disk.f_bavail * disk.f_frsize < floor + bytes {
            return Some("the disk is nearly full: the log spool waits");
        }
        self.unchecked.store(LOOK_EVERY_BYTES.saturating_sub(bytes), Ordering::Relaxed);
        None
    }

    /// Start of the first segment that begins behind `position`.
    pub(crate) fn next_after(&self, position: u64) -> Option<u64> {
        self.files.lock().segments.iter().map(|(start, _)| *start).find(|start| *start > position)
    }

    /// Whether `free_below` would remove anything.
    pub(crate) fn has_free(&self, position: u64, idle: bool) -> bool {
        let files = self.files.lock();
        files.segments.front().is_some_and(|s| self.is_free(*s, files.segments.len() == 1, position, idle))
    }

    fn is_free(&self, (start, end): (u64, u64), newest: bool, position: u64, idle: bool) -> bool {
        end <= position && (!newest || idle || end - start >= self.segment_bytes)
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

    /// Removes segments that end at or before `position`; the newest one only if it is full, or `idle`. Only the sealer calls this.
    pub(crate) fn free_below(&self, position: u64, idle: bool) -> io::Result<()> {
        loop {
            let mut files = self.files.lock();
            let Some((start, end)) = files.segments.front().copied() else { return Ok(()) };
            let newest = files.segments.len() == 1;
            if !self.is_free((start, end), newest, position, idle) {
                return Ok(());
            }
            let path = segment::path(&self.dir, start);
            if newest {
                remove(&path)?;
                files.current = None;
            } else {
                // Removing 16 MiB may take as long as the ring lasts in a flood; the spooler needs only the newest segment.
                drop(files);
                remove(&path)?;
                files = self.files.lock();
            }
            files.segments.pop_front();
            files.unsynced.remove(&start);
            self.used.fetch_sub(end - start + SEGMENT_HEADER, Ordering::Relaxed);
        }
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

fn remove(path: &std::path::Path) -> io::Result<()> {
    match std::fs::remove_file(path) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(e),
        _ => Ok(()),
    }
}

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
