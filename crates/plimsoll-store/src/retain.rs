//! The database on disk: opened or begun, a damaged one set aside, the oldest chunks deleted beyond `retain_bytes`, disk given back.
//!
//! What is counted against `retain_bytes` are pages in use; the write-ahead log (8 MiB while busy) and one chunk come on top. A database
//! set aside is kept as `logs.db.damaged-<unix seconds>`; only the newest such file is kept.

use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use crate::schema::{Database, Deleted, beside, is_damage};
use crate::{Settings, StoreError, clock};

/// Name of the database in [`Settings::dir`].
pub(crate) const DATABASE_FILE: &str = "logs.db";
const DAMAGED: &str = ".damaged-";
/// Most that one transaction deletes, and that one step gives back.
const STEP_BYTES: u64 = 64 << 20;

/// An open database, and which file it is.
#[derive(Debug)]
pub(crate) struct Opened {
    pub(crate) database: Database,
    /// Where a damaged one went.
    pub(crate) set_aside: Option<PathBuf>,
    identity: Option<(u64, u64)>,
    path: PathBuf,
}

/// Opens the database of a store, or begins one; a damaged one is set aside.
pub(crate) fn open(settings: &Settings) -> Result<Opened, StoreError> {
    let path = settings.dir.join(DATABASE_FILE);
    if !path.exists() {
        // What a removed database left beside it belongs to none.
        for suffix in ["-wal", "-shm"] {
            remove(&beside(&path, suffix)).map_err(StoreError::io("remove", beside(&path, suffix)))?;
        }
    }
    let try_open = || {
        let database = Database::open(&path, &settings.source, settings.max_line_bytes)?;
        database.sealed_positions()?;
        Ok(database)
    };
    let (database, set_aside) = match try_open() {
        Err(e) if is_damage(&e) => {
            let aside = set_aside(&path).map_err(StoreError::io("set aside", &path))?;
            (try_open()?, Some(aside))
        }
        other => (other?, None),
    };
    Ok(Opened { database, set_aside, identity: identity(&path), path })
}

impl Opened {
    /// Whether the file under its name is still the one that is open.
    pub(crate) fn is_in_place(&self) -> bool {
        self.identity.is_some() && identity(&self.path) == self.identity
    }

    /// Deletes the oldest chunks beyond `retain_bytes`, at most 64 MiB of them at once.
    pub(crate) fn retain(&mut self, retain_bytes: u64) -> Result<Deleted, StoreError> {
        let over = self.database.used_bytes()?.saturating_sub(retain_bytes);
        if over == 0 { Ok(Deleted::default()) } else { self.database.delete_oldest(over.min(STEP_BYTES)) }
    }

    /// When idle: empties the write-ahead log and gives free pages back, until there are none or `stop` says so.
    pub(crate) fn give_back(&mut self, stop: &dyn Fn() -> bool) -> Result<(), StoreError> {
        self.database.checkpoint()?;
        loop {
            let before = self.database.size_bytes();
            self.database.incremental_vacuum(STEP_BYTES)?;
            self.database.checkpoint()?;
            if self.database.size_bytes() >= before || stop() {
                return Ok(());
            }
        }
    }
}

/// Renames the database at `path` and its log, and removes what was set aside before.
pub(crate) fn set_aside(path: &Path) -> io::Result<PathBuf> {
    let prefix = beside(Path::new(path.file_name().unwrap_or_default()), DAMAGED);
    let aside = beside(path, &format!("{DAMAGED}{}", clock::unix_ns() / 1_000_000_000));
    if let Some(dir) = path.parent() {
        for entry in std::fs::read_dir(dir)? {
            let entry = entry?;
            if entry.file_name().as_encoded_bytes().starts_with(prefix.as_os_str().as_encoded_bytes()) {
                remove(&entry.path())?;
            }
        }
    }
    std::fs::rename(path, &aside)?;
    match std::fs::rename(beside(path, "-wal"), beside(&aside, "-wal")) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
        _ => {}
    }
    remove(&beside(path, "-shm"))?;
    Ok(aside)
}

fn remove(path: &Path) -> io::Result<()> {
    match std::fs::remove_file(path) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(e),
        _ => Ok(()),
    }
}

fn identity(path: &Path) -> Option<(u64, u64)> {
    std::fs::metadata(path).ok().map(|m| (m.dev(), m.ino()))
}
