//! What the two ends of an open spool share: which records are where, what is done, and the files. One lock, held for one write.
//!
//! `appended = acknowledged + dropped + waiting`, in records and in bytes, at every moment and across lives: all are differences of
//! [`Mark`]s, and a mark is a position with the records and bytes before it.

use std::collections::VecDeque;
use std::fs::{DirBuilder, File};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use parking_lot::{Condvar, Mutex};

use super::state::{Kept, StateFile};
use super::{AppendError, AtBudget, Options, Receipt, Recovery, SyncPolicy};
use crate::disk::Disk;
use crate::frame::{FLAG_GOES_ON, Frame, Kind, MAX_PAYLOAD_BYTES};
use crate::segment::{self, Checked, Content, SEGMENT_HEADER};
use crate::segments::Segments;
use crate::{StoreError, Stream, clock};

/// A place between two records, and how many lie before it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Mark {
    pub(super) position: u64,
    pub(super) records: u64,
    pub(super) bytes: u64,
}

impl Mark {
    fn after(self, position: u64, record_bytes: u64) -> Mark {
        Mark { position, records: self.records + 1, bytes: self.bytes + record_bytes }
    }
}

/// A moment's figures of an open spool. Those that end in `_total` go on across lives, but for refusals and errors, which are this life's.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Records that were stored since the spool was made.
    pub appended_records_total: u64,
    /// Their bytes.
    pub appended_bytes_total: u64,
    /// Records that were acknowledged.
    pub acknowledged_records_total: u64,
    /// Records that made room for others before they were acknowledged ([`AtBudget::DropOldest`]).
    pub dropped_records_total: u64,
    /// Their bytes.
    pub dropped_bytes_total: u64,
    /// Records that wait to be acknowledged.
    pub waiting_records: u64,
    /// Their bytes.
    pub waiting_bytes: u64,
    /// When the oldest record that was seen waiting was appended, as its `append` said; `None`: nothing waits, or nobody has looked.
    pub oldest_unix_ns: Option<u64>,
    /// Disk in use, with the room that is reserved for the newest segment.
    pub used_bytes: u64,
    /// Disk that may be used.
    pub budget_bytes: u64,
    /// Records refused at the budget, in this life.
    pub refused_records_total: u64,
    /// Their bytes.
    pub refused_bytes_total: u64,
    /// Records refused because they are longer than `max_record_bytes`, in this life.
    pub too_large_records_total: u64,
    /// Writes and syncs that failed, in this life.
    pub errors_total: u64,
    /// Torn ends that were cut since the spool was made: at most one at each open.
    pub torn_ends_total: u64,
}

/// See the top of the file.
#[derive(Debug)]
pub(super) struct Core {
    pub(super) options: Options,
    pub(super) segments: Segments,
    inner: Mutex<Inner>,
    came: Condvar,
    _lock: File,
}

#[derive(Debug)]
struct Inner {
    state: StateFile,
    kept: Kept,
    /// Behind the newest record.
    end: Mark,
    /// Where each segment begins, ascending.
    begins: VecDeque<Mark>,
    /// Time of the record that stands at `kept.done`, as far as the reader has seen it.
    oldest_unix_ns: Option<u64>,
    synced_at: Duration,
    refused_records: u64,
    refused_bytes: u64,
    too_large: u64,
    errors: u64,
    /// The frames of the record that is being written.
    frames: Vec<u8>,
}

impl Core {
    pub(super) fn open(options: Options, disk: Box<dyn Disk>) -> Result<(Core, Recovery), StoreError> {
        let dir = &options.dir;
        DirBuilder::new().recursive(true).mode(0o700).create(dir).map_err(StoreError::io("make", dir))?;
        let lock = crate::open::lock(&dir.join("lock"))?;
        let (mut state, mut kept) = StateFile::open(dir, &*disk)?;
        let starts = segment::list(dir).map_err(StoreError::io("list", dir))?;
        let mut found = Found::new(starts, kept.done.position);
        let mut checked = segment::check(Content::Records, dir, kept.synced, &mut |frame| found.frame(frame))?;
        if let Some((start, end)) = checked.segments.last().copied() {
            let path = segment::path(dir, start);
            if start == end {
                disk.remove(&path).map_err(StoreError::io("remove", &path))?;
                checked.segments.pop();
            } else {
                // Room that a dead writer had reserved.
                let file = File::options().write(true).open(&path).map_err(StoreError::io("open", &path))?;
                disk.cut(&file, SEGMENT_HEADER + (end - start)).map_err(StoreError::io("cut", &path))?;
            }
        }
        let (begins, end) = found.place(dir, &checked, kept.done)?;
        let segments = Segments::new(dir.clone(), Content::Records, disk, options.budget_bytes, &checked.segments);
        if checked.torn_bytes > 0 {
            kept.torn_ends += 1;
            state.write(segments.disk(), &kept)?;
        }
        let inner = Inner {
            state,
            kept,
            end,
            begins,
            oldest_unix_ns: None,
            synced_at: clock::monotonic(),
            refused_records: 0,
            refused_bytes: 0,
            too_large: 0,
            errors: 0,
            frames: Vec::new(),
        };
        let core = Core { options, segments, inner: Mutex::new(inner), came: Condvar::new(), _lock: lock };
        core.free(&mut core.inner.lock(), end == kept.done)?;
        let recovery = Recovery {
            waiting_records: end.records - kept.done.records,
            waiting_bytes: end.bytes - kept.done.bytes,
            torn_bytes: checked.torn_bytes,
        };
        Ok((core, recovery))
    }

    /// Stores one record; returns the number of records before it.
    pub(super) fn append(&self, record: &[u8], at_unix_ns: u64) -> Result<u64, AppendError> {
        let bytes = record.len() as u64;
        let mut guard = self.inner.lock();
        let inner = &mut *guard;
        if record.len() > self.options.max_record_bytes {
            inner.too_large += 1;
            return Err(AppendError::TooLarge { bytes, max_bytes: self.options.max_record_bytes as u64 });
        }
        let position = inner.end.position;
        frames(&mut inner.frames, record, position, at_unix_ns);
        let length = inner.frames.len() as u64;
        let roll = self.segments.would_roll(length);
        if roll {
            self.make_room(inner, bytes)?;
        }
        self.segments.append_record(position, &inner.frames, roll).map_err(|e| {
            inner.errors += 1;
            AppendError::Io(StoreError::io("write a record to", &self.options.dir)(e))
        })?;
        if self.segments.newest() == Some(position) {
            inner.begins.push_back(inner.end);
        }
        let number = inner.end.records;
        inner.end = inner.end.after(position + length, bytes);
        // One long record is no reason to stay large.
        inner.frames.shrink_to(2 * MAX_PAYLOAD_BYTES);
        let synced = self.sync_if_due(inner);
        drop(guard);
        self.came.notify_one();
        synced.map_err(AppendError::NotSynced)?;
        Ok(number)
    }

    /// Sees that the budget has room for one more segment.
    fn make_room(&self, inner: &mut Inner, bytes: u64) -> Result<(), AppendError> {
        while !self.segments.has_room_for_segment() {
            let refuse = self.options.at_budget == AtBudget::Refuse && inner.kept.done != inner.end;
            if refuse || inner.begins.is_empty() {
                inner.refused_records += 1;
                inner.refused_bytes += bytes;
                let waiting_bytes = inner.end.bytes - inner.kept.done.bytes;
                return Err(AppendError::Full { waiting_bytes, budget_bytes: self.options.budget_bytes });
            }
            let to = inner.begins.get(1).copied().unwrap_or(inner.end);
            self.drop_until(inner, to).map_err(AppendError::Io)?;
        }
        Ok(())
    }

    /// Gives up what lies before `to`: what of it was not acknowledged is dropped, and that is written down before a file goes.
    fn drop_until(&self, inner: &mut Inner, to: Mark) -> Result<(), StoreError> {
        let done = inner.kept.done;
        if to.records > done.records {
            let mut kept = inner.kept;
            kept.dropped_records += to.records - done.records;
            kept.dropped_bytes += to.bytes - done.bytes;
            kept.done = to;
            self.keep(inner, kept)?;
            inner.oldest_unix_ns = None;
        }
        self.free(inner, to == inner.end)
    }

    fn keep(&self, inner: &mut Inner, kept: Kept) -> Result<(), StoreError> {
        inner.state.write(self.segments.disk(), &kept).inspect_err(|_| inner.errors += 1)?;
        inner.kept = kept;
        Ok(())
    }

    /// Removes segments in which everything is done; the newest one only if it is full, or `idle`.
    fn free(&self, inner: &mut Inner, idle: bool) -> Result<(), StoreError> {
        let done = inner.kept.done.position;
        if !self.segments.has_free(done, idle) {
            return Ok(());
        }
        // After a power cut a missing segment must be one that is known to be done.
        inner.state.sync(self.segments.disk()).inspect_err(|_| inner.errors += 1)?;
        let freed =
            self.segments.free_below(done, idle).map_err(StoreError::io("remove a segment of", &self.options.dir));
        let oldest = self.segments.oldest();
        while inner.begins.front().is_some_and(|begin| oldest.is_none_or(|oldest| begin.position < oldest)) {
            inner.begins.pop_front();
        }
        freed
    }

    /// Everything before `receipt` is done.
    pub(super) fn ack(&self, receipt: Receipt) -> Result<(), StoreError> {
        let mut guard = self.inner.lock();
        let inner = &mut *guard;
        if receipt.0.records <= inner.kept.done.records {
            // Done already, or dropped meanwhile.
            return Ok(());
        }
        let mut kept = inner.kept;
        kept.done = receipt.0;
        self.keep(inner, kept)?;
        inner.oldest_unix_ns = None;
        self.free(inner, false)
    }

    fn sync_if_due(&self, inner: &mut Inner) -> Result<(), StoreError> {
        let due = match self.options.sync {
            SyncPolicy::Never => false,
            SyncPolicy::Always => true,
            SyncPolicy::Every(interval) => clock::monotonic().saturating_sub(inner.synced_at) >= interval,
        };
        if due { self.sync_now(inner) } else { Ok(()) }
    }

    fn sync_now(&self, inner: &mut Inner) -> Result<(), StoreError> {
        inner.synced_at = clock::monotonic();
        if inner.kept.synced == inner.end.position {
            return Ok(());
        }
        let synced = self.segments.sync().map_err(StoreError::io("sync", &self.options.dir));
        synced.inspect_err(|_| inner.errors += 1)?;
        let kept = Kept { synced: inner.end.position, ..inner.kept };
        self.keep(inner, kept)
    }

    pub(super) fn sync(&self) -> Result<(), StoreError> {
        self.sync_now(&mut self.inner.lock())
    }

    pub(super) fn tick(&self) -> Result<(), StoreError> {
        self.sync_if_due(&mut self.inner.lock())
    }

    /// Where everything is done, and where everything ends.
    pub(super) fn bounds(&self) -> (Mark, Mark) {
        let inner = self.inner.lock();
        (inner.kept.done, inner.end)
    }

    /// The reader stands before a record of this time, and nothing before it waits.
    pub(super) fn saw_oldest(&self, at: Mark, at_unix_ns: u64) {
        let mut inner = self.inner.lock();
        if inner.kept.done == at {
            inner.oldest_unix_ns = Some(at_unix_ns);
        }
    }

    /// Waits until there is something behind `mark`, at most so long.
    pub(super) fn wait(&self, mark: Mark, limit: Duration) -> bool {
        let until = clock::monotonic().saturating_add(limit);
        let mut inner = self.inner.lock();
        while inner.end.records <= mark.records {
            let left = until.saturating_sub(clock::monotonic());
            if left.is_zero() {
                return false;
            }
            self.came.wait_for(&mut inner, left);
        }
        true
    }

    pub(super) fn stats(&self) -> Stats {
        let inner = self.inner.lock();
        let Inner { kept, end, .. } = &*inner;
        Stats {
            appended_records_total: end.records,
            appended_bytes_total: end.bytes,
            acknowledged_records_total: kept.done.records - kept.dropped_records,
            dropped_records_total: kept.dropped_records,
            dropped_bytes_total: kept.dropped_bytes,
            waiting_records: end.records - kept.done.records,
            waiting_bytes: end.bytes - kept.done.bytes,
            oldest_unix_ns: inner.oldest_unix_ns,
            used_bytes: self.segments.used(),
            budget_bytes: self.options.budget_bytes,
            refused_records_total: inner.refused_records,
            refused_bytes_total: inner.refused_bytes,
            too_large_records_total: inner.too_large,
            errors_total: inner.errors,
            torn_ends_total: kept.torn_ends,
        }
    }
}

impl Drop for Core {
    /// What is reserved and not used goes, and so does a segment in which everything is done. What fails here is done by the next open.
    fn drop(&mut self) {
        let mut inner = self.inner.lock();
        if self.options.sync != SyncPolicy::Never {
            self.sync_now(&mut inner).unwrap_or_default();
        }
        self.segments.finish().unwrap_or_default();
        let idle = inner.kept.done == inner.end;
        self.free(&mut inner, idle).unwrap_or_default();
    }
}

/// Writes the frames of `record` into `into`.
fn frames(into: &mut Vec<u8>, record: &[u8], position: u64, at_unix_ns: u64) {
    into.clear();
    into.reserve(super::record_bytes(record.len()));
    let mut rest = record;
    loop {
        let (payload, more) = rest.split_at(rest.len().min(MAX_PAYLOAD_BYTES));
        rest = more;
        let frame = Frame {
            kind: Kind::Data,
            stream: Stream::Stdout,
            flags: if rest.is_empty() { 0 } else { FLAG_GOES_ON },
            len: payload.len(),
            position: position + into.len() as u64,
            at_unix_ns,
        };
        into.extend_from_slice(&frame.header(payload));
        into.extend_from_slice(payload);
        into.resize(into.len().next_multiple_of(8), 0);
        if rest.is_empty() {
            return;
        }
    }
}

/// What the check of the segments finds, counted from the first record there is.
#[derive(Debug)]
struct Found {
    /// Where segments begin that were not reached yet.
    starts: VecDeque<u64>,
    /// Where everything is done.
    done: u64,
    /// Behind the last whole record.
    at: Mark,
    /// Bytes of the record so far.
    record: u64,
    begins: VecDeque<Mark>,
    done_mark: Option<Mark>,
}

impl Found {
    fn new(starts: Vec<u64>, done: u64) -> Found {
        let at = Mark { position: starts.first().copied().unwrap_or(done), ..Mark::default() };
        let done_mark = (at.position == done).then_some(at);
        Found { starts: starts.into(), done, at, record: 0, begins: VecDeque::new(), done_mark }
    }

    fn frame(&mut self, frame: &Frame) {
        if self.starts.front() == Some(&frame.position) {
            self.starts.pop_front();
            self.at.position = frame.position;
            self.begins.push_back(self.at);
        }
        self.record += frame.len as u64;
        if frame.flags & FLAG_GOES_ON == 0 {
            self.at = self.at.after(frame.end(), self.record);
            self.record = 0;
            if frame.end() == self.done {
                self.done_mark = Some(self.at);
            }
        }
    }

    /// Where each segment begins, and where everything ends, counted as `done` counts.
    fn place(self, dir: &Path, checked: &Checked, done: Mark) -> Result<(VecDeque<Mark>, Mark), StoreError> {
        let damaged = |path: PathBuf, what: String| Err(StoreError::Damaged { path, offset: 0, what });
        for pair in checked.segments.windows(2) {
            if pair[0].1 != pair[1].0 {
                let what =
                    format!("the records of positions {:#x} to {:#x} are missing before it", pair[0].1, pair[1].0);
                return damaged(segment::path(dir, pair[1].0), what);
            }
        }
        let Some((first, _)) = checked.segments.first() else { return Ok((VecDeque::new(), done)) };
        if done.position > self.at.position {
            // A power cut took records that were done.
            return Ok((VecDeque::new(), done));
        }
        if done.position < *first {
            let what = format!("the records of positions {:#x} to {first:#x} are missing before it", done.position);
            return damaged(segment::path(dir, *first), what);
        }
        let behind = self.done_mark.filter(|mark| mark.records <= done.records && mark.bytes <= done.bytes);
        let Some(behind) = behind else {
            let what = format!("no record of the spool ends at {:#x}, where it says that all is done", done.position);
            return damaged(dir.join("state"), what);
        };
        let count = |mark: Mark| Mark {
            position: mark.position,
            records: mark.records + (done.records - behind.records),
            bytes: mark.bytes + (done.bytes - behind.bytes),
        };
        Ok((self.begins.into_iter().map(count).collect(), count(self.at)))
    }
}
