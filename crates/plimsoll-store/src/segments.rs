//! The segment files of one spool and what they hold: appended to at the newest, removed at the oldest. The log's spooler writes frames of
//! the ring through it, [`crate::spool`] records of a service; both keep its one rule: **positions never go back**, so a file's name
//! says what it holds, and a retry writes the same bytes to the same place.
//!
//! Bounded by a budget in bytes that its user asks about before it appends. A log's file grows as it is written; a file of records has its
//! room on disk from the start, so that a full disk is met between two records and not in one. A failed write of records is cut away
//! before anything else is written (a shorter record must not leave the end of a longer one behind it).

use std::collections::{BTreeSet, VecDeque};
use std::fs::File;
use std::io;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;

use crate::disk::Disk;
use crate::segment::{self, Content, SEGMENT_BYTES, SEGMENT_HEADER};

/// Free disk that the log's spooler never takes: the sealer needs it to turn spool into (smaller) chunks.
const FLOOR_BYTES: u64 = 64 << 20;
/// The floor of a small filesystem is this part of its size.
const FLOOR_PART: u64 = 8;
/// How often the free disk is looked at, in bytes written: it may sink below the floor by this much.
const LOOK_EVERY_BYTES: u64 = 1 << 20;
/// What is read and written again at a time after a failed sync.
const AGAIN_BYTES: usize = 256 << 10;

/// See the top of the file.
#[derive(Debug)]
pub(crate) struct Segments {
    dir: PathBuf,
    content: Content,
    disk: Box<dyn Disk>,
    budget: u64,
    /// A segment with this many bytes is followed by a new one: 16 MiB, or a quarter of the budget.
    segment_bytes: u64,
    used: AtomicU64,
    /// Room on disk that the newest segment has and does not use yet.
    ahead: AtomicU64,
    /// Bytes that may still be written before the free disk is looked at again.
    unchecked: AtomicU64,
    /// Bytes of damaged segments that were set aside; they go when the budget needs the room.
    aside: AtomicU64,
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
    /// A write of records failed: what stands behind the newest segment's end is to be cut first.
    torn: bool,
    /// A sync failed, after which the kernel takes what it could not write for written: it is written once more first.
    distrusted: bool,
}

impl Segments {
    pub(crate) fn new(
        dir: PathBuf,
        content: Content,
        disk: Box<dyn Disk>,
        budget: u64,
        segments: &[(u64, u64)],
    ) -> Segments {
        let used = segments.iter().map(|(start, end)| end - start + SEGMENT_HEADER).sum();
        let files = Files { segments: segments.iter().copied().collect(), ..Files::default() };
        let segments = Segments {
            dir,
            content,
            disk,
            budget,
            segment_bytes: segment_bytes(budget),
            used: AtomicU64::new(used),
            ahead: AtomicU64::new(0),
            unchecked: AtomicU64::new(0),
            aside: AtomicU64::new(0),
            overdraft: AtomicU64::new(0),
            files: Mutex::new(files),
        };
        if content == Content::Log {
            segments.keep_aside(segment::ASIDE_KEPT);
        }
        segments
    }

    /// Keeps the newest `most` of the damaged segments that were set aside. What cannot be removed now is tried again by the next call.
    fn keep_aside(&self, most: usize) {
        let all = segment::aside(&self.dir).unwrap_or_default();
        let gone = all.len().saturating_sub(most);
        let mut left = 0;
        for (i, (path, bytes)) in all.iter().enumerate() {
            if i >= gone || self.disk.remove(path).is_err() {
                left += bytes;
            }
        }
        self.aside.store(left, Ordering::Relaxed);
    }

    pub(crate) fn segment_bytes(&self) -> u64 {
        self.segment_bytes
    }

    pub(crate) fn dir(&self) -> &std::path::Path {
        &self.dir
    }

    pub(crate) fn disk(&self) -> &dyn Disk {
        &*self.disk
    }

    /// Disk in use, in bytes, with what is reserved.
    pub(crate) fn used(&self) -> u64 {
        self.used.load(Ordering::Relaxed) + self.ahead.load(Ordering::Relaxed)
    }

    /// Start position of the oldest segment.
    pub(crate) fn oldest(&self) -> Option<u64> {
        self.files.lock().segments.front().map(|(start, _)| *start)
    }

    /// Start position of the newest segment.
    pub(crate) fn newest(&self) -> Option<u64> {
        self.files.lock().segments.back().map(|(start, _)| *start)
    }

    pub(crate) fn set_overdraft(&self, bytes: u64) {
        self.overdraft.store(bytes, Ordering::Relaxed);
    }

    /// Why `bytes` more must wait; `None` if they need not.
    pub(crate) fn full(&self, bytes: u64) -> Option<&'static str> {
        let budget = self.budget.saturating_add(self.overdraft.load(Ordering::Relaxed));
        let over = |aside: &AtomicU64| self.used() + aside.load(Ordering::Relaxed) + bytes + SEGMENT_HEADER > budget;
        if over(&self.aside) && self.aside.load(Ordering::Relaxed) > 0 {
            self.keep_aside(0);
        }
        if over(&self.aside) {
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

    /// Whether `bytes` more of records begin a new segment: none is split between two.
    pub(crate) fn would_roll(&self, bytes: u64) -> bool {
        let files = self.files.lock();
        files.current.is_none()
            || files.segments.back().is_none_or(|(start, end)| end - start + bytes > self.segment_bytes)
    }

    /// Whether a new segment of records fits into the budget.
    pub(crate) fn has_room_for_segment(&self) -> bool {
        // The newest one's room that is not used goes when it is followed by another.
        self.used.load(Ordering::Relaxed) + SEGMENT_HEADER + self.segment_bytes <= self.budget
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

    /// Appends whole frames that begin at `position`; frames of the log, after which a segment may be too long, not before. After an
    /// error the same call may be made again.
    pub(crate) fn append(&self, position: u64, frames: &[u8]) -> io::Result<()> {
        let mut files = self.files.lock();
        let full =
            files.segments.back().is_none_or(|(start, end)| end - start >= self.segment_bytes || *end != position);
        self.write(&mut files, full, position, frames)
    }

    /// Appends one record's frames to the newest segment, or to a new one if `roll`.
    pub(crate) fn append_record(&self, position: u64, frames: &[u8], roll: bool) -> io::Result<()> {
        let mut files = self.files.lock();
        if files.torn && !roll {
            self.cut_back(&mut files)?;
        }
        let written = self.write(&mut files, roll, position, frames);
        if written.is_err() && files.segments.back().is_some_and(|(_, end)| *end == position) {
            files.torn = true;
            // Again before the next write, if the disk does not let it now.
            self.cut_back(&mut files).unwrap_or_default();
        }
        written
    }

    /// Cuts what a failed write left behind the newest segment's end.
    fn cut_back(&self, files: &mut Files) -> io::Result<()> {
        if let (Some(file), Some((start, end))) = (files.current.as_ref(), files.segments.back()) {
            self.disk.cut(file, SEGMENT_HEADER + (end - start))?;
            self.ahead.store(0, Ordering::Relaxed);
        }
        files.torn = false;
        Ok(())
    }

    fn write(&self, files: &mut Files, roll: bool, position: u64, frames: &[u8]) -> io::Result<()> {
        if roll {
            self.begin(files, position)?;
        }
        let Some((start, _)) = files.segments.back().copied() else { return Ok(()) };
        if files.current.is_none() {
            let path = segment::path(&self.dir, start);
            files.current = Some(File::options().read(true).write(true).open(path)?);
        }
        files.unsynced.insert(start);
        if let Some(file) = files.current.as_ref() {
            self.disk.write_all_at(file, frames, SEGMENT_HEADER + (position - start))?;
        }
        if let Some((_, end)) = files.segments.back_mut() {
            *end = position + frames.len() as u64;
        }
        let bytes = frames.len() as u64;
        self.used.fetch_add(bytes, Ordering::Relaxed);
        let ahead = self.ahead.load(Ordering::Relaxed);
        self.ahead.store(ahead.saturating_sub(bytes), Ordering::Relaxed);
        Ok(())
    }

    /// Makes the segment that starts at `position` the newest.
    fn begin(&self, files: &mut Files, position: u64) -> io::Result<()> {
        if self.content == Content::Records {
            // Room that was reserved and not used, or what a failed write left, is given back with the file's exact length.
            self.cut_back(files)?;
            // After a power cut only the newest may be torn.
            self.sync_newest(files)?;
        }
        let path = segment::path(&self.dir, position);
        let room = (self.content == Content::Records).then_some(self.segment_bytes);
        let file = segment::create(&*self.disk, &path, self.content, position, room).inspect_err(|_| {
            // A file without a whole header says nothing; the next try makes it anew.
            self.disk.remove(&path).unwrap_or_default();
        })?;
        files.current = Some(file);
        files.segments.push_back((position, position));
        self.used.fetch_add(SEGMENT_HEADER, Ordering::Relaxed);
        self.ahead.store(room.unwrap_or(0), Ordering::Relaxed);
        Ok(())
    }

    fn sync_newest(&self, files: &mut Files) -> io::Result<()> {
        let Some((start, end)) = files.segments.back().copied() else { return Ok(()) };
        let Some(file) = files.current.as_ref().filter(|_| files.unsynced.contains(&start)) else { return Ok(()) };
        let again = if files.distrusted { self.write_again(file, end - start) } else { Ok(()) };
        match again.and_then(|()| self.disk.sync(file)) {
            Ok(()) => files.unsynced.remove(&start),
            Err(e) => {
                files.distrusted = true;
                return Err(e);
            }
        };
        Ok(())
    }

    /// Removes segments that end at or before `position`; the newest one only if it is full, or `idle`.
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
                self.disk.remove(&path)?;
                files.current = None;
                files.torn = false;
                self.ahead.store(0, Ordering::Relaxed);
            } else {
                // Removing 16 MiB may take as long as the ring lasts in a flood; the spooler needs only the newest segment.
                drop(files);
                self.disk.remove(&path)?;
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
        segment::set_aside(&segment::path(&self.dir, start))?;
        self.keep_aside(segment::ASIDE_KEPT);
        if i + 1 == files.segments.len() {
            files.current = None;
        }
        files.unsynced.remove(&start);
        let Some((_, end)) = files.segments.remove(i) else { return Ok(None) };
        self.used.fetch_sub(end - start + SEGMENT_HEADER, Ordering::Relaxed);
        Ok(Some(end))
    }

    /// Gives back room on disk that the newest segment has and does not need: nothing more will be written.
    pub(crate) fn finish(&self) -> io::Result<()> {
        let mut files = self.files.lock();
        self.cut_back(&mut files)
    }

    /// Whether something was written since the last sync.
    pub(crate) fn is_unsynced(&self) -> bool {
        !self.files.lock().unsynced.is_empty()
    }

    /// Makes everything written so far survive a power cut.
    pub(crate) fn sync(&self) -> io::Result<()> {
        let (starts, distrusted) = {
            let mut files = self.files.lock();
            (std::mem::take(&mut files.unsynced), std::mem::take(&mut files.distrusted))
        };
        let sync = |start: u64| {
            let path = segment::path(&self.dir, start);
            let file = File::options().read(true).write(true).open(path)?;
            if distrusted {
                let files = self.files.lock();
                let length = files.segments.iter().find(|(s, _)| *s == start).map_or(0, |(start, end)| end - start);
                drop(files);
                self.write_again(&file, length)?;
            }
            self.disk.sync(&file)
        };
        for start in &starts {
            match sync(*start) {
                Err(e) if e.kind() != io::ErrorKind::NotFound => {
                    let mut files = self.files.lock();
                    files.unsynced.extend(&starts);
                    files.distrusted = true;
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

    /// After a failed `fdatasync` Linux takes the pages that it could not write for clean: a second one would say that all is well. The
    /// page cache still has them; written again they are dirty again.
    fn write_again(&self, file: &File, length: u64) -> io::Result<()> {
        let mut block = vec![0; AGAIN_BYTES];
        let (mut at, end) = (0, SEGMENT_HEADER + length);
        while at < end {
            let want = usize::try_from(end - at).unwrap_or(AGAIN_BYTES).min(AGAIN_BYTES);
            std::os::unix::fs::FileExt::read_exact_at(file, &mut block[..want], at)?;
            self.disk.write_all_at(file, &block[..want], at)?;
            at += want as u64;
        }
        Ok(())
    }
}

/// The length of a segment in a spool with this budget.
pub(crate) fn segment_bytes(budget: u64) -> u64 {
    SEGMENT_BYTES.min(budget / 4)
}
