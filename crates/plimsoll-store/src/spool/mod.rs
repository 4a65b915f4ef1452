//! A bounded spool of records on disk: what a service takes in while the place where it belongs does not take it, in order, across its
//! own death. As a write-ahead log, or as the overflow of a queue.
//!
//! ```text
//!  Writer::append --one pwrite--> newest segment ... oldest segment --> Reader::next --> your sink --> Reader::ack
//!                                 (<= budget_bytes on disk)                                            (state file)
//! ```
//!
//! | | what happens |
//! |---|---|
//! | **full** (`budget_bytes`, default 256 MiB) | [`AtBudget`] decides: the record is refused and counted (you still have it), or the oldest segment is dropped and its records are counted |
//! | **too large** (`max_record_bytes`, default 1 MiB) | refused and counted |
//! | **late** | nothing expires; [`Stats::oldest_unix_ns`] says since when the oldest record waits |
//! | **disk full or broken** | [`AppendError::Io`]; nothing of the record stays, the next call tries again |
//! | **killed** (`SIGKILL`, at any instruction) | what `append` said is stored is there; what `ack` said is done is not handed out again |
//! | **power cut** | lost: at most what [`SyncPolicy`] says. Handed out again: what was acknowledged since the last sync |
//! | **torn end** | of the newest segment, behind what was synced: cut once at open, said in [`Recovery`], counted |
//! | **any other damage** | [`StoreError::Damaged`] with file and offset; nothing is changed, nothing is cut |
//!
//! Disk: at most `budget_bytes`, of which the newest segment (a quarter of the budget, at most 16 MiB) is reserved when it is begun, and
//! 4 KiB for `state`. Memory: one record in the writer, 256 KiB and one record in the reader, none of what waits. One process has a
//! spool at a time; each end may live in a thread of its own, and there is none besides. It is synchronous: nothing here waits, but
//! for the disk, and [`Reader::wait`], which says for how long.
//!
//! It is the log's own spool under another roof: the same frames, segments and rules (`docs/log-format.md`, `docs/spool.md`).
//!
//! # Examples
//! ```
//! use plimsoll_store::spool::{self, Options};
//!
//! let dir = tempfile::tempdir()?;
//! let (mut writer, mut reader, recovery) = spool::open(Options::new(dir.path().join("orders")))?;
//! assert_eq!(recovery.waiting_records, 0);
//! writer.append(b"order 1", 1_700_000_000_000_000_000)?;
//! writer.append(b"order 2", 1_700_000_000_000_000_000)?;
//! drop((writer, reader)); // or a SIGKILL
//!
//! let (_writer, mut reader, recovery) = spool::open(Options::new(dir.path().join("orders")))?;
//! assert_eq!(recovery.waiting_records, 2);
//! while let Some(record) = reader.next()? {
//!     // … give `record.data` to the sink; when it has it:
//!     let receipt = record.receipt;
//!     reader.ack(receipt)?;
//! }
//! assert_eq!(reader.stats().waiting_records, 0);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod core;
mod reader;
mod state;
#[cfg(test)]
mod tests;
mod writer;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

pub use self::core::Stats;
pub use self::reader::{Reader, Receipt, Record};
pub use self::writer::{AppendError, Writer};

use self::core::Core;
use crate::StoreError;
use crate::disk::{Disk, RealDisk};
use crate::frame::{HEADER_BYTES, MAX_PAYLOAD_BYTES, frame_bytes};
use crate::segments::segment_bytes;

/// Default of [`Options::budget_bytes`]: 256 MiB.
pub const DEFAULT_BUDGET_BYTES: u64 = 256 << 20;
/// The least that [`Options::budget_bytes`] may be: 64 KiB.
pub const MIN_BUDGET_BYTES: u64 = 64 << 10;
/// Default of [`Options::max_record_bytes`]: 1 MiB, or what a segment of a small budget holds.
pub const DEFAULT_MAX_RECORD_BYTES: usize = 1 << 20;
/// Default of [`Options::sync`]: every second.
pub const DEFAULT_SYNC: SyncPolicy = SyncPolicy::Every(Duration::from_secs(1));

/// What happens to a record for which the budget has no room.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum AtBudget {
    /// It is refused and counted: what waits is older and stays. Its sender still has it.
    Refuse,
    /// The oldest segment makes room for it; every record in it that was not acknowledged is counted as dropped.
    DropOldest,
}

/// When what was written is made to survive a power cut, and so what one can lose. The death of the process alone loses nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SyncPolicy {
    /// Never but by [`Writer::sync`], and of a full segment before the next one begins: a power cut can lose everything that the kernel has not written by itself (30 s and more).
    Never,
    /// By the first `append` or [`Writer::tick`] so long after the last sync: a power cut can lose what was appended in that time, if
    /// one of the two is called that often.
    Every(Duration),
    /// Before each `append` returns: a power cut loses nothing that was said to be stored. A disk does some hundred of these a second.
    Always,
}

/// What a spool is opened with. [`Options::new`] fills in the defaults.
#[derive(Clone, Debug)]
pub struct Options {
    /// The spool's own directory; made (0700) if it is missing.
    pub dir: PathBuf,
    /// Disk that it may take, at least [`MIN_BUDGET_BYTES`]; default [`DEFAULT_BUDGET_BYTES`].
    pub budget_bytes: u64,
    /// What happens there; default [`AtBudget::Refuse`].
    pub at_budget: AtBudget,
    /// Longest record, at least 1 byte; default [`DEFAULT_MAX_RECORD_BYTES`]. With its frames it must fit a segment: a quarter of the
    /// budget, at most 16 MiB.
    pub max_record_bytes: usize,
    /// When it is synced; default [`DEFAULT_SYNC`].
    pub sync: SyncPolicy,
}

impl Options {
    /// All defaults.
    pub fn new(dir: impl AsRef<Path>) -> Options {
        Options {
            dir: dir.as_ref().to_path_buf(),
            budget_bytes: DEFAULT_BUDGET_BYTES,
            at_budget: AtBudget::Refuse,
            max_record_bytes: DEFAULT_MAX_RECORD_BYTES,
            sync: DEFAULT_SYNC,
        }
    }

    /// The same with another budget; `max_record_bytes` becomes what fits it, where the default does not.
    pub fn budget(mut self, bytes: u64) -> Options {
        self.budget_bytes = bytes;
        self.max_record_bytes = self.max_record_bytes.min(longest_record(bytes));
        self
    }

    /// Checks every value.
    ///
    /// # Errors
    /// [`StoreError::Settings`] lists all problems at once, each with its value and the allowed range.
    pub fn validate(&self) -> Result<(), StoreError> {
        let mut problems = Vec::new();
        let Options { budget_bytes, max_record_bytes, .. } = self;
        if *budget_bytes < MIN_BUDGET_BYTES {
            problems.push(format!("budget_bytes is {budget_bytes}, allowed are {MIN_BUDGET_BYTES} and more"));
        } else if !(1..=longest_record(*budget_bytes)).contains(max_record_bytes) {
            let most = longest_record(*budget_bytes);
            problems.push(format!("max_record_bytes is {max_record_bytes}, allowed are 1 to {most} with this budget"));
        }
        if self.sync == SyncPolicy::Every(Duration::ZERO) {
            problems.push("sync is every 0 s; SyncPolicy::Always is meant".into());
        }
        if problems.is_empty() { Ok(()) } else { Err(StoreError::Settings { problems: problems.join("; ") }) }
    }
}

/// Length of the frames of a record with `bytes` bytes.
fn record_bytes(bytes: usize) -> usize {
    let (whole, rest) = (bytes / MAX_PAYLOAD_BYTES, bytes % MAX_PAYLOAD_BYTES);
    let last = if rest > 0 || bytes == 0 { frame_bytes(rest) } else { 0 };
    whole * frame_bytes(MAX_PAYLOAD_BYTES) + last
}

/// The longest record whose frames fit a segment of a spool with this budget.
fn longest_record(budget: u64) -> usize {
    let room = usize::try_from(segment_bytes(budget)).unwrap_or(usize::MAX);
    let frames = room.div_ceil(frame_bytes(MAX_PAYLOAD_BYTES));
    room.saturating_sub(frames * (HEADER_BYTES + 8))
}

/// What [`open`] found and did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Recovery {
    /// Records that wait for the reader.
    pub waiting_records: u64,
    /// Their bytes.
    pub waiting_bytes: u64,
    /// Bytes cut from the torn end of the newest segment: an `append` that a kill or a power cut interrupted. 0: nothing was torn.
    pub torn_bytes: u64,
}

impl Recovery {
    /// What is worth telling, one sentence each; empty for a first or clean start.
    pub fn notes(&self) -> Vec<String> {
        let mut notes = Vec::new();
        if self.torn_bytes > 0 {
            notes.push(format!("cut {} bytes from the torn end of the spool", self.torn_bytes));
        }
        if self.waiting_records > 0 {
            notes.push(format!("{} records of {} bytes wait in the spool", self.waiting_records, self.waiting_bytes));
        }
        notes
    }
}

/// Opens the spool in `options.dir`, or makes it, and checks every frame of it (about 1 GB/s).
///
/// # Errors
/// [`StoreError::Settings`] for values out of range; [`StoreError::InUse`] if this or another process has it open;
/// [`StoreError::Damaged`] for damage that no interrupted `append` explains, with the file and the offset; [`StoreError::Io`].
pub fn open(options: Options) -> Result<(Writer, Reader, Recovery), StoreError> {
    open_on(options, Box::new(RealDisk))
}

fn open_on(options: Options, disk: Box<dyn Disk>) -> Result<(Writer, Reader, Recovery), StoreError> {
    options.validate()?;
    let (core, recovery) = Core::open(options, disk)?;
    let core = Arc::new(core);
    Ok((Writer::new(core.clone()), Reader::new(core), recovery))
}
