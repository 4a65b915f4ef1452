//! The database on disk: opened or begun, a damaged one set aside, the oldest chunks deleted beyond what is kept, disk given back.
//!
//! | kept at most | counted | looked at |
//! |---|---|---|
//! | `retain_bytes` | pages in use | at every seal |
//! | `retain_lines` | lines in chunks | at every seal |
//! | `retain_age` | from a chunk's newest line, of what is from a time to come since it was seen | at every seal, and when the oldest is due |
//! | `retain_sum_bytes` | the databases beside this one too | every 16 MiB, and when idle |
//! | what leaves `free_disk_bytes` | free blocks of the filesystem | every 16 MiB, and when idle |
//!
//! Whole chunks go, the oldest first, at most 64 MiB in a transaction; so up to a chunk more than allowed is kept; the newest one goes by age only. The
//! write-ahead log (8 MiB while busy) comes on top. While a reader holds an old state the log cannot be emptied: what it has beyond 8 MiB
//! counts as kept, and at an eighth of `retain_bytes` (8 to 32 MiB) nothing is written any more until the reader is gone
//! ([`Opened::log_is_held`]); lines wait in the spool meanwhile. A database set aside is kept as `logs.db.damaged-<unix seconds>`; only the newest such file is kept.

use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use crate::schema::{Database, Deleted, Oldest, beside, is_damage};
use crate::{RetainReason, Settings, StoreError, clock, share};

/// Name of the database in [`Settings::dir`].
pub(crate) const DATABASE_FILE: &str = "logs.db";
const DAMAGED: &str = ".damaged-";
/// Most that one transaction deletes, and that one step gives back.
const STEP_BYTES: u64 = 64 << 20;
/// Least that one step gives back, on a disk that is nearly full.
const LEAST_STEP_BYTES: u64 = 256 << 10;
/// How often what others do to the disk is looked at, in bytes sealed.
const LOOK_EVERY_BYTES: u64 = 16 << 20;
/// `free_disk_bytes` is at most this part of a small filesystem: twice what the spool leaves free, so that old chunks go before the spool
/// has to wait.
const FREE_PART: u64 = 4;
/// However little disk is free, this part of `retain_bytes` stays: the newest lines are worth more than the space.
const STAYS_PART: u64 = 16;

/// What the write-ahead log may have on top of `retain_bytes`, and what it may always have.
const LOG_BYTES: u64 = 8 << 20;
/// What it may have at most, however much is kept …
const LOG_MOST_BYTES: u64 = 32 << 20;
/// … and as a part of `retain_bytes`.
const LOG_PART: u64 = 8;

/// An open database, and which file it is.
#[derive(Debug)]
pub(crate) struct Opened {
    pub(crate) database: Database,
    /// Where a damaged one went.
    pub(crate) set_aside: Option<PathBuf>,
    identity: Option<(u64, u64)>,
    path: PathBuf,
    /// Lines in all chunks.
    lines: u64,
    /// Bytes sealed since others' use of the disk was looked at.
    unlooked: u64,
    /// A chunk from a time to come, and since when it is seen.
    ahead: Option<(i64, u64)>,
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
    let lines = database.lines()?;
    Ok(Opened { database, set_aside, identity: identity(&path), path, lines, unlooked: LOOK_EVERY_BYTES, ahead: None })
}

impl Opened {
    /// Whether the file under its name is still the one that is open.
    pub(crate) fn is_in_place(&self) -> bool {
        self.identity.is_some() && identity(&self.path) == self.identity
    }

    /// Counts what was sealed.
    pub(crate) fn sealed(&mut self, lines: u64, bytes: u64) {
        self.lines += lines;
        self.unlooked = self.unlooked.saturating_add(bytes);
    }

    /// Whether the write-ahead log is as long as it may get and cannot be emptied, since a reader holds an old state; then nothing
    /// more may be written. How long it is.
    pub(crate) fn log_is_held(&self, settings: &Settings) -> Result<Option<u64>, StoreError> {
        let most = (settings.retain_bytes / LOG_PART).clamp(LOG_BYTES, LOG_MOST_BYTES);
        let held = self.database.log_bytes() >= most && !self.database.checkpoint()?;
        Ok(held.then(|| self.database.log_bytes()))
    }

    /// Lines in all chunks.
    pub(crate) fn lines(&self) -> u64 {
        self.lines
    }

    /// Deletes what is too much, by each bound in turn. `idle`: there is time to look at the disk.
    pub(crate) fn retain(
        &mut self,
        settings: &Settings,
        now_unix_ns: u64,
        idle: bool,
        tell: &mut dyn FnMut(RetainReason, Deleted),
    ) -> Result<(), StoreError> {
        let beyond = self.database.log_bytes().saturating_sub(LOG_BYTES);
        let over = (self.database.used_bytes()? + beyond).saturating_sub(settings.retain_bytes);
        self.delete(RetainReason::Bytes, over, tell)?;
        if let Some(most) = settings.retain_lines {
            let over = self.lines.saturating_sub(most);
            // A chunk that is only partly too much stays.
            let more = |oldest: Oldest, deleted: Deleted| !oldest.is_only && deleted.lines + oldest.lines <= over;
            self.delete_while(RetainReason::Lines, more, tell)?;
        }
        if let Some(age) = settings.retain_age {
            let before = now_unix_ns.saturating_sub(u64::try_from(age.as_nanos()).unwrap_or(u64::MAX));
            let [old, ahead] = self.database.newest_before_and_after(before, now_unix_ns)?;
            let ahead = self.ahead_long(ahead, before, now_unix_ns);
            // What was sealed before it is older, whatever its clock said.
            if let Some(newest) = old.max(ahead) {
                self.delete_while(RetainReason::Age, |oldest, _| oldest.id <= newest, tell)?;
            }
        }
        if !idle && self.unlooked < LOOK_EVERY_BYTES {
            return Ok(());
        }
        self.unlooked = 0;
        if let Some(sum) = settings.retain_sum_bytes {
            let over = self.database.used_bytes()?.saturating_sub(share::of(&settings.dir, sum));
            if self.delete(RetainReason::Sum, over, tell)? {
                self.shrink(over, &|| false)?;
            }
        }
        let missing = missing_bytes(&settings.dir, settings.free_disk_bytes);
        let spare = self.database.used_bytes()?.saturating_sub(settings.retain_bytes / STAYS_PART);
        if self.delete(RetainReason::Disk, missing.min(spare), tell)? {
            self.shrink(missing, &|| false)?;
        }
        Ok(())
    }

    /// Of a chunk that is from a time to come (the clock was set back) only how long it has been seen is known: the chunk that was first
    /// seen before `before`, if it is that long.
    fn ahead_long(&mut self, ahead: Option<i64>, before: u64, now_unix_ns: u64) -> Option<i64> {
        let seen = match (self.ahead, ahead) {
            (Some((id, _)), Some(newest)) if id <= newest => self.ahead,
            (_, newest) => newest.map(|id| (id, now_unix_ns)),
        };
        let long = seen.filter(|(_, since)| *since < before).map(|(id, _)| id);
        self.ahead = seen.filter(|_| long.is_none());
        long
    }

    /// When the oldest chunk is too old; `None`: never, or there is none.
    pub(crate) fn too_old_at_unix_ns(&self, settings: &Settings) -> Result<Option<u64>, StoreError> {
        let Some(age) = settings.retain_age else { return Ok(None) };
        let oldest = self.database.oldest_unix_ns()?;
        // From a time to come: since it was seen.
        let oldest = oldest.map(|at| self.ahead.map_or(at, |(_, seen)| at.min(seen)));
        Ok(oldest.map(|at| at.saturating_add(u64::try_from(age.as_nanos()).unwrap_or(u64::MAX))))
    }

    /// Deletes `bytes` or a little more, at most [`STEP_BYTES`]; whether it deleted something.
    fn delete(
        &mut self,
        reason: RetainReason,
        bytes: u64,
        tell: &mut dyn FnMut(RetainReason, Deleted),
    ) -> Result<bool, StoreError> {
        if bytes == 0 {
            return Ok(false);
        }
        self.delete_while(reason, |oldest, deleted| !oldest.is_only && deleted.bytes < bytes, tell)
    }

    fn delete_while(
        &mut self,
        reason: RetainReason,
        more: impl Fn(Oldest, Deleted) -> bool,
        tell: &mut dyn FnMut(RetainReason, Deleted),
    ) -> Result<bool, StoreError> {
        let deleted =
            self.database.delete_oldest(&mut |oldest, deleted| deleted.bytes < STEP_BYTES && more(oldest, deleted))?;
        if deleted.chunks == 0 {
            return Ok(false);
        }
        self.lines = self.lines.saturating_sub(deleted.lines);
        tell(reason, deleted);
        Ok(true)
    }

    /// When idle: empties the write-ahead log and gives free pages back, until there are none or `stop` says so.
    pub(crate) fn give_back(&mut self, stop: &dyn Fn() -> bool) -> Result<(), StoreError> {
        self.shrink(u64::MAX, stop)
    }

    /// Empties the write-ahead log and gives free pages back, about `bytes` of them, in steps that the disk has room for: what is moved
    /// stands in the log until the step is over.
    fn shrink(&mut self, bytes: u64, stop: &dyn Fn() -> bool) -> Result<(), StoreError> {
        if !self.database.checkpoint()? {
            // What would be moved would only make the log longer.
            return Ok(());
        }
        let began = self.database.size_bytes();
        loop {
            let step = (free_bytes(&self.path) / 8).clamp(LEAST_STEP_BYTES, STEP_BYTES);
            let before = self.database.size_bytes();
            self.database.incremental_vacuum(step)?;
            let emptied = self.database.checkpoint()?;
            let now = self.database.size_bytes();
            if !emptied || now >= before || began - now >= bytes || stop() {
                return Ok(());
            }
        }
    }
}

/// Free bytes of the filesystem that a file is on; one that cannot be asked has enough.
fn free_bytes(path: &Path) -> u64 {
    rustix::fs::statvfs(path).map_or(u64::MAX, |disk| disk.f_bavail * disk.f_frsize)
}

/// What is missing to the free disk that is wanted. A filesystem that cannot be asked has enough.
fn missing_bytes(dir: &Path, wanted: u64) -> u64 {
    let Ok(disk) = rustix::fs::statvfs(dir) else { return 0 };
    wanted.min(disk.f_blocks * disk.f_frsize / FREE_PART).saturating_sub(disk.f_bavail * disk.f_frsize)
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
