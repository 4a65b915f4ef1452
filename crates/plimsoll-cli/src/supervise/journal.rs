//! The decision log: what was decided and done, with reason, figures and time. The newest [`KEPT`] (256) entries in
//! memory, and `decisions.jsonl` on disk, one JSON object a line, at most two files of [`FILE_BYTES`] (256 KiB).
//!
//! Written by the supervise loop only, never by the governor's thread. A disk that refuses is counted, never waited for
//! twice: an entry that cannot be written is only in memory.

use std::collections::VecDeque;
use std::fs::{File, OpenOptions};
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::PathBuf;

use parking_lot::Mutex;

use crate::snapshot::DecisionView;

/// Entries kept in memory.
pub(crate) const KEPT: usize = 256;
/// The most that one of the two files holds, in bytes.
pub(crate) const FILE_BYTES: u64 = 256 << 10;

/// The decision log of one supervisor.
#[derive(Debug)]
pub(crate) struct Journal {
    path: PathBuf,
    inner: Mutex<Inner>,
}

#[derive(Debug)]
struct Inner {
    newest: VecDeque<DecisionView>,
    file: Option<File>,
    written_bytes: u64,
    unwritten_total: u64,
}

impl Journal {
    /// Continues the file at `path`.
    pub(crate) fn open(path: PathBuf) -> Journal {
        let file = OpenOptions::new().append(true).create(true).mode(0o600).open(&path).ok();
        let written_bytes = file.as_ref().and_then(|f| f.metadata().ok()).map_or(0, |m| m.len());
        let inner = Inner { newest: VecDeque::with_capacity(KEPT), file, written_bytes, unwritten_total: 0 };
        Journal { path, inner: Mutex::new(inner) }
    }

    /// Adds one entry.
    pub(crate) fn add(&self, entry: DecisionView) {
        let mut inner = self.inner.lock();
        let line = serde_json::to_vec(&entry).unwrap_or_default();
        if inner.newest.len() == KEPT {
            inner.newest.pop_front();
        }
        inner.newest.push_back(entry);
        if self.write(&mut inner, line).is_err() {
            inner.unwritten_total += 1;
        }
    }

    fn write(&self, inner: &mut Inner, mut line: Vec<u8>) -> std::io::Result<()> {
        line.push(b'\n');
        let length = line.len() as u64;
        if inner.file.is_none() || inner.written_bytes + length > FILE_BYTES {
            if inner.written_bytes > 0 {
                std::fs::rename(&self.path, self.path.with_extension("jsonl.1"))?;
            }
            inner.file = Some(OpenOptions::new().append(true).create(true).mode(0o600).open(&self.path)?);
            inner.written_bytes = 0;
        }
        if let Some(file) = &mut inner.file {
            file.write_all(&line)?;
            inner.written_bytes += length;
        }
        Ok(())
    }

    /// The newest `max` entries, oldest first.
    pub(crate) fn newest(&self, max: usize) -> Vec<DecisionView> {
        let inner = self.inner.lock();
        inner.newest.iter().skip(inner.newest.len().saturating_sub(max)).cloned().collect()
    }

    /// Entries that the disk refused.
    pub(crate) fn unwritten_total(&self) -> u64 {
        self.inner.lock().unwritten_total
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(n: usize) -> DecisionView {
        DecisionView { text: format!("entry {n:06} {}", "x".repeat(500)), ..DecisionView::default() }
    }

    #[test]
    fn memory_and_disk_are_bounded_and_the_newest_are_there() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("decisions.jsonl");
        let journal = Journal::open(path.clone());
        for n in 0..2000 {
            journal.add(entry(n));
        }
        let newest = journal.newest(10_000);
        assert_eq!(newest.len(), KEPT);
        assert!(newest[KEPT - 1].text.starts_with("entry 001999"));
        assert!(journal.newest(1)[0].text.starts_with("entry 001999"));
        let total: u64 = std::fs::read_dir(dir.path()).unwrap().map(|f| f.unwrap().metadata().unwrap().len()).sum();
        assert!(total <= 2 * FILE_BYTES, "{total}");
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 2);
        assert_eq!(journal.unwritten_total(), 0);
    }

    #[test]
    fn the_file_is_continued_by_the_next_supervisor() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("decisions.jsonl");
        Journal::open(path.clone()).add(entry(1));
        Journal::open(path.clone()).add(entry(2));
        let lines = super::super::files::read_bounded(&path).unwrap().iter().filter(|b| **b == b'\n').count();
        assert_eq!(lines, 2);
    }

    #[test]
    fn a_refusing_disk_is_counted_and_memory_still_has_the_entry() {
        let journal = Journal::open("/nonexistent/decisions.jsonl".into());
        journal.add(entry(1));
        assert_eq!((journal.unwritten_total(), journal.newest(9).len()), (1, 1));
    }
}
