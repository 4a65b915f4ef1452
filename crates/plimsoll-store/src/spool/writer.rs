//! The end that appends.

use std::sync::Arc;

use super::core::{Core, Stats};
use crate::StoreError;

/// Why [`Writer::append`] did not do all that it was asked to. The record is the caller's own: it still has it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AppendError {
    /// The spool is at its budget ([`AtBudget::Refuse`](super::AtBudget::Refuse)). Not stored; counted.
    #[error(
        "store a record: {waiting_bytes} bytes wait in the spool, which is at its budget of {budget_bytes} bytes on disk"
    )]
    Full {
        /// Bytes of records that wait.
        waiting_bytes: u64,
        /// The budget.
        budget_bytes: u64,
    },
    /// It is longer than `max_record_bytes`. Not stored; counted.
    #[error("store a record of {bytes} bytes: at most {max_bytes} are allowed")]
    TooLarge {
        /// Its length.
        bytes: u64,
        /// What is allowed.
        max_bytes: u64,
    },
    /// The disk refused. Not stored, not in part either; the same call may be made again.
    #[error(transparent)]
    Io(StoreError),
    /// **It is stored**, and survives the death of the process, but the disk refused to make it survive a power cut: do not append it
    /// again. The next sync writes it once more.
    #[error("sync a record that is stored: {0}")]
    NotSynced(StoreError),
}

/// Appends records to a spool; may be shared by threads. What happens at each limit: see [the module](super).
#[derive(Debug)]
pub struct Writer {
    core: Arc<Core>,
}

impl Writer {
    pub(super) fn new(core: Arc<Core>) -> Writer {
        Writer { core }
    }

    /// Stores `record`, behind all that were stored before; `at_unix_ns` comes back with it. Returns its number, counted from 0 since the
    /// spool was made. Costs one `pwrite(2)`, and what [`SyncPolicy`](super::SyncPolicy) says; may be empty.
    ///
    /// # Errors
    /// [`AppendError`]; with all but [`AppendError::NotSynced`] nothing of it is stored.
    pub fn append(&self, record: &[u8], at_unix_ns: u64) -> Result<u64, AppendError> {
        self.core.append(record, at_unix_ns)
    }

    /// Makes everything that was stored survive a power cut.
    ///
    /// # Errors
    /// [`StoreError::Io`]; what is not synced is written again by the next sync, since after a failed one the kernel takes it for written.
    pub fn sync(&self) -> Result<(), StoreError> {
        self.core.sync()
    }

    /// Syncs if [`SyncPolicy::Every`](super::SyncPolicy::Every) says that it is time: for who appends less often than that.
    ///
    /// # Errors
    /// As [`Writer::sync`].
    pub fn tick(&self) -> Result<(), StoreError> {
        self.core.tick()
    }

    /// The figures of this moment. Waits for at most one write, or sync, of the other end.
    pub fn stats(&self) -> Stats {
        self.core.stats()
    }
}
