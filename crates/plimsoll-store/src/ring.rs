//! The ring: a fixed file on tmpfs that survives the death of the process. 4 KiB header, 64 KiB scratch, then the data
//! (default 8 MiB). One writer, in one process; the spooler and any other process only read.
//!
//! Memory that is never touched costs nothing: whenever everything is spooled, writing starts again at the ring's first byte
//! (`origin` moves up to `head`), so a quiet source lives in the first 256 KiB. Pages are reserved with `fallocate` before they
//! are written, so a full tmpfs is a full ring (counted), not a SIGBUS.
//!
//! | header word | meaning |
//! |---|---|
//! | 0, 8 | magic `PLIMRING`, version 1 |
//! | 16, 24, 32 | capacity in bytes, boot id (128 bit) |
//! | 64, 72 | head: position behind the last committed frame; origin: the position that lies at data offset 0 |
//! | 128 | tail: everything before it is in the spool |
//! | 192 | heartbeat: CLOCK_MONOTONIC ns, kept by the supervisor |
//! | 256.. | intent: what the read in flight was going to do (see `writer.rs`) |
//! | 512 + 256 n.. | stream n (1..=3): counters, gap epochs and two gap slots |

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use rustix::fs::{FallocateFlags, fallocate};

use crate::frame::{GapNote, MAX_PAYLOAD_BYTES};
use crate::sys::Mapping;
use crate::{GapReason, Stream};

/// Length of the header.
pub(crate) const HEADER: usize = 4096;
/// Where data that finds no room is read to, so that it can be counted.
pub(crate) const SCRATCH_AT: usize = HEADER;
/// Where the ring's data begins in the file.
pub(crate) const DATA_AT: usize = SCRATCH_AT + MAX_PAYLOAD_BYTES;
/// Smallest capacity: room for a few whole frames beside the reserve.
pub(crate) const MIN_CAPACITY: u64 = 256 * 1024;
/// Largest capacity: it counts in the supervisor's memory.
pub(crate) const MAX_CAPACITY: u64 = 1 << 30;
/// Bytes of the ring's beginning that appear again behind its end: the longest frame, in whole pages.
const MIRROR: usize = 2 * MAX_PAYLOAD_BYTES;
const MAGIC: u64 = u64::from_le_bytes(*b"PLIMRING");
const VERSION: u64 = 1;

/// Byte offsets of the header's words.
pub(crate) mod at {
    pub(crate) const MAGIC: usize = 0;
    pub(crate) const VERSION: usize = 8;
    pub(crate) const CAPACITY: usize = 16;
    pub(crate) const BOOT: usize = 24;
    pub(crate) const HEAD: usize = 64;
    pub(crate) const ORIGIN: usize = 72;
    pub(crate) const TAIL: usize = 128;
    pub(crate) const HEARTBEAT: usize = 192;
    pub(crate) const INTENT_MODE: usize = 256;
    pub(crate) const INTENT_STREAM: usize = 264;
    pub(crate) const INTENT_HEAD: usize = 272;
    pub(crate) const INTENT_LEN: usize = 280;
    pub(crate) const INTENT_TIME: usize = 288;
    pub(crate) const INTENT_EPOCH: usize = 296;
    pub(crate) const INTENT_SENTINEL: usize = 304;
    pub(crate) const INTENT_LINES: usize = 320;
    pub(crate) const INTENT_BYTES: usize = 328;
    /// Of a read that is dropped: why. 0, as in rings of older programs, is a full ring.
    pub(crate) const INTENT_REASON: usize = 336;
    const STREAM: usize = 512;
    pub(crate) const LINES_IN: usize = 0;
    pub(crate) const BYTES_IN: usize = 8;
    pub(crate) const LIMITED_LINES: usize = 16;
    pub(crate) const LIMITED_BYTES: usize = 24;
    pub(crate) const GAP_EPOCH: usize = 32;
    pub(crate) const GAP_WRITTEN: usize = 40;
    pub(crate) const GAP_SLOTS: usize = 64;
    pub(crate) const GAP_SLOT: usize = 64;

    /// Where a stream's part of the header begins.
    pub(crate) const fn stream(number: u8) -> usize {
        STREAM + 256 * number as usize
    }
}

/// A mapped ring.
#[derive(Debug)]
pub(crate) struct Ring {
    map: Mapping,
    file: File,
    capacity: u64,
    path: PathBuf,
}

impl std::fmt::Debug for Mapping {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Mapping")
    }
}

/// What stands at the ring's place.
pub(crate) enum Found {
    /// A ring of this boot.
    Alive(Ring),
    /// No ring, or one of an earlier boot, whose memory is gone.
    Lost,
    /// Something else; the text says what.
    Foreign(&'static str),
}

impl Ring {
    /// Makes a new, empty ring whose first byte has `position`. It appears under `path` only when it is whole.
    pub(crate) fn create(path: &Path, capacity: u64, position: u64) -> io::Result<Ring> {
        let capacity = capacity.clamp(MIN_CAPACITY, MAX_CAPACITY).next_multiple_of(HEADER as u64);
        let new = path.with_extension("ring-new");
        let file = OpenOptions::new().read(true).write(true).create(true).truncate(true).mode(0o600).open(&new)?;
        file.set_len(DATA_AT as u64 + capacity)?;
        fallocate(&file, FallocateFlags::empty(), 0, DATA_AT as u64)?;
        let ring = Ring::map(file, capacity, path)?;
        for (at, value) in [(at::VERSION, VERSION), (at::CAPACITY, capacity), (at::HEAD, position)] {
            ring.set(at, value);
        }
        ring.set(at::ORIGIN, position);
        ring.set(at::TAIL, position);
        let boot = boot_id()?;
        ring.set(at::BOOT, boot.0);
        ring.set(at::BOOT + 8, boot.1);
        ring.set(at::MAGIC, MAGIC);
        std::fs::rename(&new, path)?;
        Ok(ring)
    }

    /// Looks for a ring at `path`.
    pub(crate) fn find(path: &Path) -> io::Result<Found> {
        let file = match OpenOptions::new().read(true).write(true).open(path) {
            Ok(file) => file,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Found::Lost),
            Err(e) => return Err(e),
        };
        let capacity = match identify(&file)? {
            Ok(capacity) => capacity,
            Err(None) => return Ok(Found::Lost),
            Err(Some(what)) => return Ok(Found::Foreign(what)),
        };
        Ok(Found::Alive(Ring::map(file, capacity, path)?))
    }

    fn map(file: File, capacity: u64, path: &Path) -> io::Result<Ring> {
        let bytes = usize::try_from(capacity).map_err(io::Error::other)?;
        let map = Mapping::writable(&file, DATA_AT, bytes, MIRROR)?;
        Ok(Ring { map, file, capacity, path: path.to_path_buf() })
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    pub(crate) fn capacity(&self) -> u64 {
        self.capacity
    }

    fn word(&self, at: usize) -> &AtomicU64 {
        self.map.word(at)
    }

    pub(crate) fn get(&self, at: usize) -> u64 {
        self.word(at).load(Ordering::Acquire)
    }

    /// One header store. Stores appear in program order to whoever looks after a kill: each is a release.
    pub(crate) fn set(&self, at: usize, value: u64) {
        self.word(at).store(value, Ordering::Release);
    }

    pub(crate) fn head(&self) -> u64 {
        self.get(at::HEAD)
    }

    pub(crate) fn tail(&self) -> u64 {
        self.get(at::TAIL)
    }

    /// Committed bytes that are not in the spool yet.
    pub(crate) fn used(&self) -> u64 {
        self.head().saturating_sub(self.tail())
    }

    /// Offset in the file of the byte with `position`.
    pub(crate) fn offset(&self, position: u64) -> usize {
        let data = position.wrapping_sub(self.get(at::ORIGIN)) % self.capacity;
        DATA_AT + usize::try_from(data).unwrap_or(usize::MAX / 2)
    }

    /// Bytes from `position` to the ring's end, where the data wraps.
    pub(crate) fn until_wrap(&self, position: u64) -> u64 {
        self.capacity - position.wrapping_sub(self.get(at::ORIGIN)) % self.capacity
    }

    /// Committed bytes; they may run past the ring's end by at most one frame.
    pub(crate) fn bytes(&self, position: u64, len: usize) -> &[u8] {
        self.map.view(self.offset(position), len)
    }

    /// Bytes at a file offset, for the writer to fill before it commits them.
    pub(crate) fn fill(&self, offset: usize, len: usize) -> &mut [u8] {
        self.map.view_mut(offset, len)
    }

    /// Bytes at a file offset.
    pub(crate) fn look(&self, offset: usize, len: usize) -> &[u8] {
        self.map.view(offset, len)
    }

    /// Makes sure that the ring's first `data` bytes have memory behind them.
    pub(crate) fn reserve(&self, from: u64, to: u64) -> io::Result<()> {
        Ok(fallocate(&self.file, FallocateFlags::empty(), DATA_AT as u64 + from, to - from)?)
    }

    /// Gives the memory of data bytes `from..to` (whole pages) back. Only with the ring empty.
    pub(crate) fn give_back(&self, from: u64, to: u64) -> io::Result<()> {
        let at = DATA_AT + usize::try_from(from).map_err(io::Error::other)?;
        self.map.give_back(at, usize::try_from(to - from).map_err(io::Error::other)?)
    }

    /// The gap of `stream` that is counted but not yet written as a frame.
    pub(crate) fn pending_gap(&self, stream: Stream) -> Option<GapNote> {
        pending_gap(&|at| self.get(at), stream)
    }

    /// One of a stream's counters.
    pub(crate) fn counter(&self, stream: Stream, counter: usize) -> u64 {
        self.get(at::stream(stream.number()) + counter)
    }

    /// Line ends and bytes of `stream` that found no room since the ring was made.
    pub(crate) fn dropped(&self, stream: Stream) -> (u64, u64) {
        let slot = slot(stream, self.counter(stream, at::GAP_EPOCH));
        (self.get(slot + 40), self.get(slot + 48))
    }
}

/// Reads the pending gap of a stream through any view of the header.
pub(crate) fn pending_gap(get: &dyn Fn(usize) -> u64, stream: Stream) -> Option<GapNote> {
    let base = at::stream(stream.number());
    loop {
        let epoch = get(base + at::GAP_EPOCH);
        if epoch == get(base + at::GAP_WRITTEN) {
            return None;
        }
        let slot = slot(stream, epoch);
        let meta = get(slot + 32);
        let note = GapNote {
            newlines: get(slot),
            bytes: get(slot + 8),
            from_unix_ns: get(slot + 16),
            to_unix_ns: get(slot + 24),
            open: meta & 1 != 0,
            reason: GapReason::from_number(u8::try_from(meta >> 8 & 0xff).unwrap_or(0)).unwrap_or(GapReason::RingFull),
        };
        if get(base + at::GAP_EPOCH) == epoch {
            return Some(note);
        }
    }
}

/// Offset of the slot that belongs to a gap epoch.
pub(crate) fn slot(stream: Stream, epoch: u64) -> usize {
    at::stream(stream.number()) + at::GAP_SLOTS + if epoch & 1 == 0 { 0 } else { at::GAP_SLOT }
}

/// Capacity of the ring in `file`; or nothing there of this boot; or what else it is.
fn identify(file: &File) -> io::Result<Result<u64, Option<&'static str>>> {
    let mut head = [0u8; 64];
    let len = file.metadata()?.len();
    if len < DATA_AT as u64 {
        return Ok(Err(Some("too short for a ring")));
    }
    file.read_exact_at(&mut head, 0)?;
    let word = |at: usize| crate::frame::word(&head, at);
    if word(at::MAGIC) != MAGIC {
        return Ok(Err(Some("not a ring")));
    }
    if word(at::VERSION) != VERSION {
        return Ok(Err(Some("a ring of another version")));
    }
    if (word(at::BOOT), word(at::BOOT + 8)) != boot_id()? {
        return Ok(Err(None));
    }
    let capacity = word(at::CAPACITY);
    let plausible = (MIN_CAPACITY..=MAX_CAPACITY).contains(&capacity) && capacity.is_multiple_of(HEADER as u64);
    if !plausible || len != DATA_AT as u64 + capacity {
        return Ok(Err(Some("a ring of another length than its header says")));
    }
    Ok(Ok(capacity))
}

fn boot_id() -> io::Result<(u64, u64)> {
    let mut text = [0u8; 64];
    let n = File::open("/proc/sys/kernel/random/boot_id")?.read_at(&mut text, 0)?;
    let mut id = 0u128;
    for digit in text[..n].iter().filter_map(|b| char::from(*b).to_digit(16)) {
        id = id << 4 | u128::from(digit);
    }
    Ok(((id >> 64) as u64, id as u64))
}

/// Another process's view of a ring: the header mapped for reading, the data by `pread`.
pub(crate) struct RingView {
    map: Mapping,
    file: File,
    capacity: u64,
}

impl RingView {
    /// The ring at `path`, if there is one of this boot.
    pub(crate) fn open(path: &Path) -> io::Result<Option<RingView>> {
        let file = match File::open(path) {
            Ok(file) => file,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(e) => return Err(e),
        };
        let Ok(capacity) = identify(&file)? else { return Ok(None) };
        let map = Mapping::read_only(&file, HEADER)?;
        Ok(Some(RingView { map, file, capacity }))
    }

    pub(crate) fn get(&self, at: usize) -> u64 {
        self.map.word(at).load(Ordering::Acquire)
    }

    /// Copies `[from, head)`, at most `max` bytes, if none of it was spooled (and so perhaps overwritten) meanwhile.
    pub(crate) fn copy(&self, from: u64, max: usize, into: &mut Vec<u8>) -> io::Result<bool> {
        into.clear();
        let head = self.get(at::HEAD);
        let origin = self.get(at::ORIGIN);
        if self.get(at::TAIL) > from || head < from || origin > from {
            return Ok(false);
        }
        let len = usize::try_from(head - from).unwrap_or(usize::MAX).min(max);
        into.resize(len, 0);
        let start = (from - origin) % self.capacity;
        let first = len.min(usize::try_from(self.capacity - start).unwrap_or(usize::MAX));
        self.file.read_exact_at(&mut into[..first], DATA_AT as u64 + start)?;
        self.file.read_exact_at(&mut into[first..], DATA_AT as u64)?;
        Ok(self.get(at::TAIL) <= from)
    }

    /// Whether the file at `path` is still this ring.
    pub(crate) fn is_still(&self, path: &Path) -> bool {
        use std::os::unix::fs::MetadataExt;
        let here = self.file.metadata();
        let there = std::fs::metadata(path);
        matches!((here, there), (Ok(a), Ok(b)) if a.ino() == b.ino() && a.dev() == b.dev())
    }
}
