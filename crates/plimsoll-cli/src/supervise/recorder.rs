//! The governor's decision log of one name: what was read and decided, for `plimsoll replay`; at most two files of [`FILE_BYTES`] (1 MiB).
//!
//! While the program runs they lie on tmpfs, beside the log ring: written by the governor's own thread, one `write` of about 150
//! bytes a record, 1 µs, which waits for no disk; so a SIGKILL loses nothing, and the next supervisor goes on in the same file. At the
//! end they are moved to `DIR/NAME`, beside those of the run before. Where shared memory is no tmpfs nothing is recorded. A write that
//! fails is given up, counted, and told at the end; it never keeps the governor from deciding.

use std::fs::{File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use plimsoll::governor::RecordFn;
use plimsoll::governor::log::{LINE_BYTES_MAX, Line, Record};

use super::logs::shared_file;
use crate::layout::Layout;

/// The most that one of the two files holds, in bytes.
pub(crate) const FILE_BYTES: u64 = 1 << 20;

/// Where the decision log of a name is while its program runs.
///
/// # Errors
/// A sentence that says why it cannot be there.
pub(crate) fn live_path(layout: &Layout) -> Result<PathBuf, String> {
    shared_file(layout, "decisions")
}

/// The older one of two files.
pub(crate) fn older(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".1");
    name.into()
}

/// The decision log of one supervisor: where it lies, and what it could not take.
#[derive(Debug)]
pub(crate) struct Recorder {
    path: Result<PathBuf, String>,
    refused_total: Arc<AtomicU64>,
}

impl Recorder {
    /// The log of `layout`. Nothing is opened yet.
    pub(crate) fn new(layout: &Layout) -> Recorder {
        Recorder { path: live_path(layout), refused_total: Arc::default() }
    }

    /// For the governor of one life: goes on at the end of the file. `None` where there can be none.
    pub(crate) fn begin(&self) -> Option<RecordFn> {
        let mut tape = Tape::open(self.path.as_ref().ok()?).ok()?;
        let refused_total = Arc::clone(&self.refused_total);
        Some(Box::new(move |record| {
            if tape.write(record).is_err() {
                refused_total.fetch_add(1, Ordering::Relaxed);
            }
        }))
    }

    /// After the last life: moves it from memory to `DIR/NAME`. What a person should know, if anything.
    pub(crate) fn close(&self, layout: &Layout) -> Option<String> {
        let path = self.path.as_ref().ok()?;
        let refused = self.refused_total.load(Ordering::Relaxed);
        match settle(path, &layout.decision_log()) {
            Err(error) => Some(format!("the decision log stays in {}: {error}", path.display())),
            Ok(()) if refused > 0 => Some(format!("{refused} records of the decision log could not be written")),
            Ok(()) => None,
        }
    }
}

/// Moves both files to disk as one; the one before becomes the older.
fn settle(from: &Path, to: &Path) -> io::Result<()> {
    let parts = [older(from), from.to_owned()];
    if !parts.iter().any(|part| part.exists()) {
        return Ok(());
    }
    let new = to.with_extension("new");
    let mut out = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&new)?;
    for part in &parts {
        match File::open(part) {
            Ok(mut part) => io::copy(&mut part, &mut out).map(drop)?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
    }
    match std::fs::rename(to, older(to)) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        Ok(()) | Err(_) => std::fs::rename(&new, to)?,
    }
    for part in &parts {
        match std::fs::remove_file(part) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            Ok(()) | Err(_) => {}
        }
    }
    Ok(())
}

/// The file that is written, and when the next one is due.
struct Tape {
    path: PathBuf,
    older: PathBuf,
    file: File,
    written_bytes: u64,
    line: Line,
    /// What the next file begins with.
    policy: Option<Record>,
}

impl Tape {
    fn open(path: &Path) -> io::Result<Tape> {
        let file = OpenOptions::new().read(true).append(true).create(true).mode(0o600).open(path)?;
        let written_bytes = cut_torn_end(&file)?;
        let mut tape =
            Tape { path: path.to_owned(), older: older(path), file, written_bytes, line: Line::new(), policy: None };
        if written_bytes == 0 {
            tape.head()?;
        }
        Ok(tape)
    }

    fn head(&mut self) -> io::Result<()> {
        let bytes = self.line.header();
        self.file.write_all(bytes)?;
        self.written_bytes += bytes.len() as u64;
        Ok(())
    }

    fn write(&mut self, record: &Record) -> io::Result<()> {
        if self.written_bytes + LINE_BYTES_MAX as u64 > FILE_BYTES {
            self.turn()?;
        }
        match record {
            Record::Policy { .. } => self.policy = Some(*record),
            Record::Start { .. } => self.policy = None,
            Record::Sample { .. } | Record::Gap { .. } => {}
        }
        let bytes = self.line.encode(record);
        // A line that is not whole would damage the log: tmpfs takes all of it, or nothing for want of memory.
        let before = self.written_bytes;
        let result = self.file.write_all(bytes);
        self.written_bytes += bytes.len() as u64;
        if result.is_err() {
            self.file.set_len(before)?;
            self.written_bytes = before;
        }
        result
    }

    /// The full file becomes the older one; the new one begins with the policy that holds.
    fn turn(&mut self) -> io::Result<()> {
        std::fs::rename(&self.path, &self.older)?;
        self.file = OpenOptions::new().append(true).create(true).mode(0o600).open(&self.path)?;
        self.written_bytes = 0;
        self.head()?;
        if let Some(policy) = self.policy {
            let bytes = self.line.encode(&policy);
            self.file.write_all(bytes)?;
            self.written_bytes += bytes.len() as u64;
        }
        Ok(())
    }
}

/// Cuts off a last line that has no end; returns the length that is left.
fn cut_torn_end(file: &File) -> io::Result<u64> {
    let length = file.metadata()?.len();
    let from = length.saturating_sub(LINE_BYTES_MAX as u64);
    let mut end = [0; LINE_BYTES_MAX];
    let read = file.read_at(&mut end, from)?;
    let whole = end[..read].iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at as u64 + 1);
    if from + whole < length {
        file.set_len(from + whole)?;
    }
    Ok(from + whole)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use plimsoll::governor::log::parse;
    use plimsoll::governor::{Reading, State, step};
    use plimsoll::policy::Policy;

    use super::*;

    fn sample(second: u64) -> Record {
        let reading = Reading { at: Duration::from_secs(second), ..Reading::default() };
        let (_, decision) = step(&Policy::observe(), State::default(), &reading);
        Record::Sample { reading, decision }
    }

    fn read(path: &Path) -> Vec<Record> {
        parse(&super::super::files::read_whole(path, 4 << 20).unwrap()).unwrap().records
    }

    #[test]
    fn two_files_bound_it_and_the_newer_begins_with_the_policy_that_holds() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("web.decisions");
        let mut tape = Tape::open(&path).unwrap();
        let policy = Record::Policy { at: Duration::ZERO, policy: Policy::observe() };
        tape.write(&Record::Start { at: Duration::ZERO, at_unix: Duration::ZERO }).unwrap();
        tape.write(&policy).unwrap();
        let records = 40_000;
        for second in 0..records {
            tape.write(&sample(second)).unwrap();
        }
        let size = |path: &Path| std::fs::metadata(path).unwrap().len();
        assert!(size(&path) <= FILE_BYTES && size(&older(&path)) <= FILE_BYTES);
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 2);
        let (old, new) = (read(&older(&path)), read(&path));
        assert_eq!((old[0], new[0]), (policy, policy));
        assert_eq!(new[new.len() - 1], sample(records - 1));
        assert_eq!(old[old.len() - 1], sample(records - new.len() as u64), "nothing between the two files");
    }

    #[test]
    fn the_next_one_goes_on_after_the_last_whole_line() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("web.decisions");
        Tape::open(&path).unwrap().write(&Record::Gap { samples: 1 }).unwrap();
        OpenOptions::new().append(true).open(&path).unwrap().write_all(b"gap sam").unwrap();
        Tape::open(&path).unwrap().write(&Record::Gap { samples: 2 }).unwrap();
        assert_eq!(read(&path), [Record::Gap { samples: 1 }, Record::Gap { samples: 2 }]);
    }

    #[test]
    fn at_the_end_it_moves_to_disk_and_the_one_before_is_kept() {
        let (memory, disk) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let (from, to) = (memory.path().join("web.decisions"), disk.path().join("decisions.log"));
        settle(&from, &to).unwrap();
        assert!(!to.exists(), "nothing was recorded");
        for samples in 1..4 {
            std::fs::rename(&from, older(&from)).ok();
            Tape::open(&from).unwrap().write(&Record::Gap { samples: 10 * samples }).unwrap();
            std::fs::rename(&from, older(&from)).unwrap();
            Tape::open(&from).unwrap().write(&Record::Gap { samples }).unwrap();
            settle(&from, &to).unwrap();
            assert_eq!(std::fs::read_dir(memory.path()).unwrap().count(), 0);
        }
        assert_eq!(read(&to), [Record::Gap { samples: 30 }, Record::Gap { samples: 3 }]);
        assert_eq!(read(&older(&to)), [Record::Gap { samples: 20 }, Record::Gap { samples: 2 }]);
        assert_eq!(std::fs::read_dir(disk.path()).unwrap().count(), 2);
    }
}
