//! What can go wrong when a store is opened or read. While it runs, trouble is counted and shown in `Stats`, never returned.

use std::io;
use std::path::PathBuf;

/// Why a store could not be opened or read. Each text fits after "failed to …".
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// Values out of range; all of them.
    #[error("use these settings: {problems}")]
    Settings {
        /// Each problem with its value and allowed range.
        problems: String,
    },
    /// A file operation failed.
    #[error("{action} {path}: {source}", path = path.display())]
    Io {
        /// What was tried, such as "open".
        action: &'static str,
        /// On which file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Another process has this store open for writing.
    #[error("open {path}: another process has it open for writing", path = path.display())]
    InUse {
        /// The lock file.
        path: PathBuf,
    },
    /// A file is damaged in a way that no crash explains. It was not changed.
    #[error("read {path} at byte {offset}: {what}; move the file away to go on without it", path = path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// Where in it.
        offset: u64,
        /// What is wrong there.
        what: String,
    },
    /// SQLite refused.
    #[error("use the log database {path}: {source}", path = path.display())]
    Database {
        /// The database.
        path: PathBuf,
        /// What SQLite said.
        source: rusqlite::Error,
    },
    /// The database was written by another version.
    #[error("use the log database {path}: it has format {found}, this program knows {known}", path = path.display())]
    Version {
        /// The database.
        path: PathBuf,
        /// Its format.
        found: i64,
        /// The format known here.
        known: i64,
    },
}

impl StoreError {
    /// What to do about it, where that is not plain from the error: a whole sentence without its period.
    pub fn hint(&self) -> Option<&'static str> {
        use rusqlite::ErrorCode::{
            CannotOpen, DatabaseBusy, DatabaseCorrupt, DatabaseLocked, NotADatabase, PermissionDenied,
        };
        let StoreError::Database { source, .. } = self else { return None };
        Some(match source.sqlite_error_code()? {
            DatabaseBusy | DatabaseLocked => "another program holds a lock on it; see which with fuser, or try again",
            DatabaseCorrupt | NotADatabase => {
                "the next start of its supervisor sets it aside and begins a new one; sqlite3 with .recover may save its lines"
            }
            CannotOpen | PermissionDenied => {
                "this user must be able to read it, and to write its directory if there is a logs.db-wal without a logs.db-shm"
            }
            _ => return None,
        })
    }

    pub(crate) fn io(action: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> StoreError {
        let path = path.into();
        move |source| StoreError::Io { action, path, source }
    }
}
