//! Where captures are kept: `DIR/NAME/heap/`, 0700, files 0600, bounded in count (of each format), age and bytes; the newest of each
//! format is exempt.
//!
//! | path | what |
//! |---|---|
//! | `<unix ms>-<trigger>-<pid>.<format>[.zst]` | one capture |
//! | `<the same stem>.digest` | what is kept of it when the file has gone: a few KB |
//! | `tmp/` | where runtimes, digests and packers write; what is still there when a capture begins was never finished, and is removed |
//! | `reports/` | saved trend reports, the newest [`REPORTS_KEPT`] |
//!
//! A file gets its name by rename once it is complete, so a crash in the middle leaves nothing that later counts. A capture's
//! file may go (retention by bytes) before its digest does: digests are kept for as long as ten times the age, ten times the count of
//! each trigger, and their bytes count as nothing beside those of the files.

mod retention;

use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use plimsoll_heap::format::Format;

use super::due::Trigger;
use crate::supervise::files;
use retention::{beyond, rank};

/// Captures of each format kept when nothing else is said.
pub(crate) const KEEP_COUNT: usize = 50;
/// For so long.
pub(crate) const KEEP_AGE: Duration = Duration::from_secs(30 * 24 * 3600);
/// In so many bytes of disk.
pub(crate) const KEEP_BYTES: u64 = 10 << 30;
/// Saved reports kept.
pub(crate) const REPORTS_KEPT: usize = 100;
/// The most entries of the directory that are looked at.
const ENTRIES_MAX: usize = 10_000;

/// How much is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Keep {
    /// At most so many captures of each format.
    pub(crate) count: usize,
    /// None older than this.
    pub(crate) age: Duration,
    /// At most so many bytes.
    pub(crate) bytes: u64,
}

impl Default for Keep {
    fn default() -> Keep {
        Keep { count: KEEP_COUNT, age: KEEP_AGE, bytes: KEEP_BYTES }
    }
}

/// One capture on the shelf.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Item {
    /// Its name without extension: what it is asked for by.
    pub(crate) id: String,
    /// When it was taken, in milliseconds since 1970.
    pub(crate) unix_ms: u64,
    /// Why.
    pub(crate) trigger: Trigger,
    /// Of which process.
    pub(crate) pid: i32,
    /// Its file, where it is still there.
    pub(crate) file: Option<(Format, PathBuf, u64)>,
    /// Its digest, where there is one.
    pub(crate) digest: Option<PathBuf>,
}

/// The directory.
#[derive(Clone, Debug)]
pub(crate) struct Shelf {
    dir: PathBuf,
    keep: Keep,
}

impl Shelf {
    /// In `dir`, which need not be there.
    pub(crate) fn new(dir: PathBuf, keep: Keep) -> Shelf {
        Shelf { dir, keep }
    }

    /// Makes the directories that are missing.
    ///
    /// # Errors
    /// The path and what the system says.
    pub(crate) fn make(&self) -> Result<(), String> {
        for dir in [self.dir.clone(), self.tmp(), self.reports()] {
            files::make_private_dir(&dir).map_err(|error| format!("cannot make {}: {error}", dir.display()))?;
        }
        Ok(())
    }

    /// Removes what was never finished, but nothing of a name that `is_kept`. Says how many files that were.
    ///
    /// # Errors
    /// The path and what the system says.
    pub(crate) fn clean(&self, is_kept: &dyn Fn(&str) -> bool) -> Result<u64, String> {
        // Earlier versions left their parts beside the captures.
        let is_part = |name: &str| parse(name).is_some_and(|(_, rest)| rest == "new" || rest.ends_with(".part"));
        Ok(remove_from(&self.tmp(), &|name| !is_kept(name))? + remove_from(&self.dir, &is_part)?)
    }

    /// Where runtimes write.
    pub(crate) fn tmp(&self) -> PathBuf {
        self.dir.join("tmp")
    }

    /// Where reports are saved.
    pub(crate) fn reports(&self) -> PathBuf {
        self.dir.join("reports")
    }

    /// Puts a finished file into its place, 0600; one of another filesystem is copied into `tmp/` first. Returns what it is now.
    ///
    /// # Errors
    /// The path and what the system says; an empty file is an error, too: no runtime has a heap of nothing. The file is where it was.
    pub(crate) fn put(
        &self,
        finished: &Path,
        format: Format,
        unix_ms: u64,
        trigger: Trigger,
        pid: i32,
    ) -> Result<Item, String> {
        use std::os::unix::fs::PermissionsExt as _;
        let bytes = std::fs::metadata(finished).map_err(|e| format!("{}: {e}", finished.display()))?.len();
        if bytes == 0 {
            return Err(format!("{} is empty", finished.display()));
        }
        let id = format!("{unix_ms}-{}-{pid}", trigger.as_str());
        let path = self.dir.join(format!("{id}.{}", format.extension()));
        let private = std::fs::Permissions::from_mode(0o600);
        std::fs::set_permissions(finished, private).map_err(|e| format!("{}: {e}", finished.display()))?;
        match std::fs::rename(finished, &path) {
            Err(error) if error.kind() == io::ErrorKind::CrossesDevices => {
                self.fetch(finished, &path)
                    .map_err(|e| format!("cannot copy {} to {}: {e}", finished.display(), path.display()))?;
            }
            renamed => renamed.map_err(|e| format!("cannot rename to {}: {e}", path.display()))?,
        }
        Ok(Item { id, unix_ms, trigger, pid, file: Some((format, path, bytes)), digest: None })
    }

    /// What a rename does, from another filesystem: whole under `path`, or not there.
    fn fetch(&self, finished: &Path, path: &Path) -> io::Result<()> {
        let mut from = std::fs::File::open(finished)?;
        files::replace_through(&self.tmp(), path, |to| io::copy(&mut from, to).map(drop))?;
        std::fs::remove_file(finished)
    }

    /// Takes a capture off the shelf, its digest with it.
    ///
    /// # Errors
    /// The path and what the system says; what is not there is no error.
    pub(crate) fn remove(&self, item: &Item) -> Result<(), String> {
        let file = item.file.iter().map(|(_, path, _)| path.clone());
        for path in file.chain([self.digest_path(item)]) {
            match std::fs::remove_file(&path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    return Err(format!("cannot remove {}: {error}", path.display()));
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// Saves a report, and removes the oldest beyond [`REPORTS_KEPT`], never this one. Returns its path.
    ///
    /// # Errors
    /// The path and what the system says.
    pub(crate) fn save_report(&self, text: &str) -> Result<PathBuf, String> {
        self.make()?;
        let unix_ms = u64::try_from(plimsoll::clock::wall().as_millis()).unwrap_or(u64::MAX);
        let path = self.reports().join(format!("trend-{unix_ms}.md"));
        let failed = |path: &Path, error: io::Error| format!("{}: {error}", path.display());
        let written = files::replace_through(&self.tmp(), &path, |file| file.write_all(text.as_bytes()));
        written.map_err(|error| failed(&path, error))?;
        let mut others: Vec<(u64, PathBuf)> = std::fs::read_dir(self.reports())
            .map_err(|error| failed(&self.reports(), error))?
            .take(ENTRIES_MAX)
            .filter_map(|entry| {
                let other = entry.ok()?.path();
                let taken = other.file_name()?.to_str()?.strip_prefix("trend-")?.strip_suffix(".md")?.parse().ok()?;
                (other != path).then_some((taken, other))
            })
            .collect();
        others.sort_by_key(|(taken, _)| std::cmp::Reverse(rank(*taken, unix_ms)));
        for (_, old) in others.iter().skip(REPORTS_KEPT - 1) {
            std::fs::remove_file(old).map_err(|error| failed(old, error))?;
        }
        Ok(path)
    }

    /// Where the digest of `item` stands.
    pub(crate) fn digest_path(&self, item: &Item) -> PathBuf {
        self.dir.join(format!("{}.digest", item.id))
    }

    /// Everything on the shelf, oldest first. What has no name of ours is nobody's business here.
    ///
    /// # Errors
    /// The path and what the system says; a directory that is not there is an empty shelf.
    pub(crate) fn items(&self) -> Result<Vec<Item>, String> {
        let failed = |error: io::Error| format!("cannot read {}: {error}", self.dir.display());
        let entries = match std::fs::read_dir(&self.dir) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            entries => entries.map_err(failed)?,
        };
        let mut items: Vec<Item> = Vec::new();
        for entry in entries.take(ENTRIES_MAX) {
            let entry = entry.map_err(failed)?;
            let name = entry.file_name();
            let Some((mut found, rest)) = name.to_str().and_then(parse) else { continue };
            if rest == "digest" {
                found.digest = Some(entry.path());
            } else if let Some(format) = format_of(rest) {
                // It may be removed while it is looked at.
                let Ok(meta) = entry.metadata() else { continue };
                found.file = Some((format, entry.path(), meta.len()));
            } else {
                continue;
            }
            match items.iter_mut().find(|item| item.id == found.id) {
                Some(item) => {
                    item.file = item.file.take().or(found.file);
                    item.digest = item.digest.take().or(found.digest);
                }
                None => items.push(found),
            }
        }
        items.sort_by(|a, b| (a.unix_ms, &a.id).cmp(&(b.unix_ms, &b.id)));
        Ok(items)
    }

    /// Removes what is beyond the bounds, oldest first, but nothing of the capture `taken` just now. Returns files and bytes removed.
    ///
    /// # Errors
    /// The path and what the system says; what was removed before stays removed.
    pub(crate) fn retain(&self, now_unix_ms: u64, taken: &str) -> Result<(u64, u64), String> {
        let (mut files, mut bytes) = (0, 0);
        for path in beyond(&self.items()?, self.keep, now_unix_ms, taken) {
            let size = std::fs::metadata(&path).map_or(0, |meta| meta.len());
            match std::fs::remove_file(&path) {
                Ok(()) => (files, bytes) = (files + 1, bytes + size),
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(format!("cannot remove {}: {error}", path.display())),
            }
        }
        Ok((files, bytes))
    }
}

/// `1700000000000-periodic-4711.heapsnapshot.zst` → the item it belongs to, and what follows the stem.
fn parse(name: &str) -> Option<(Item, &str)> {
    let (id, rest) = name.split_once('.')?;
    let (unix_ms, other) = id.split_once('-')?;
    let (trigger, pid) = other.rsplit_once('-')?;
    let item = Item {
        id: id.to_owned(),
        unix_ms: unix_ms.parse().ok()?,
        trigger: Trigger::from_name(trigger)?,
        pid: pid.parse().ok()?,
        file: None,
        digest: None,
    };
    Some((item, rest))
}

/// Removes the files of `dir` whose names `goes` holds for. Says how many.
fn remove_from(dir: &Path, goes: &dyn Fn(&str) -> bool) -> Result<u64, String> {
    let mut removed = 0;
    let failed = |error| format!("cannot read {}: {error}", dir.display());
    for entry in std::fs::read_dir(dir).map_err(failed)?.take(ENTRIES_MAX) {
        let entry = entry.map_err(failed)?;
        if goes(&entry.file_name().to_string_lossy()) && entry.file_type().is_ok_and(|kind| kind.is_file()) {
            let path = entry.path();
            std::fs::remove_file(&path).map_err(|error| format!("cannot remove {}: {error}", path.display()))?;
            removed += 1;
        }
    }
    Ok(removed)
}

fn format_of(rest: &str) -> Option<Format> {
    let plain = rest.strip_suffix(".zst").unwrap_or(rest);
    Format::from_extension(plain)
}

/// Free bytes of the disk that `dir` is on, for those without privileges.
pub(crate) fn free_bytes(dir: &Path) -> io::Result<u64> {
    let stat = rustix::fs::statvfs(dir)?;
    Ok(stat.f_bavail.saturating_mul(stat.f_frsize))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_that_is_saved_is_there_whatever_the_clock_was_before() {
        let dir = tempfile::tempdir().unwrap();
        let shelf = Shelf::new(dir.path().join("heap"), Keep::default());
        shelf.make().unwrap();
        let ahead = |n: usize| shelf.reports().join(format!("trend-99999999999{n:03}.md"));
        (0..REPORTS_KEPT).for_each(|n| std::fs::write(ahead(n), "ahead").unwrap());
        std::fs::write(shelf.reports().join("notes.md"), "not ours").unwrap();
        let saved = shelf.save_report("now").unwrap();
        assert!(saved.exists());
        assert!(!ahead(0).exists() && ahead(1).exists(), "one of them made room");
        assert!(shelf.reports().join("notes.md").exists());
    }

    #[test]
    fn what_is_put_is_found_again_private_and_whole_and_the_unfinished_goes() {
        use std::os::unix::fs::PermissionsExt as _;
        let dir = tempfile::tempdir().unwrap();
        let shelf = Shelf::new(dir.path().join("heap"), Keep::default());
        assert_eq!(shelf.items().unwrap(), [], "no directory is an empty shelf");
        shelf.make().unwrap();
        assert_eq!(shelf.clean(&|_| false).unwrap(), 0);
        std::fs::write(shelf.tmp().join("half.heapsnapshot"), "{\"snapshot\":").unwrap();
        for part in ["12-asked-7.heapsnapshot.zst.part", "12-asked-7.new"] {
            std::fs::write(dir.path().join("heap").join(part), "half").unwrap();
        }
        std::fs::write(shelf.tmp().join("kept"), "").unwrap();
        assert_eq!(shelf.clean(&|name| name == "kept").unwrap(), 3, "also what earlier versions left on the shelf");
        let finished = shelf.tmp().join("x");
        std::fs::write(&finished, "whole").unwrap();
        let put = shelf.put(&finished, Format::Smaps, 1_700_000_000_000, Trigger::HighWater, 4711).unwrap();
        std::fs::write(shelf.digest_path(&put), "d").unwrap();
        std::fs::write(dir.path().join("heap/notes.txt"), "not ours").unwrap();
        let items = shelf.items().unwrap();
        assert_eq!(items.len(), 1);
        assert_eq!((items[0].trigger, items[0].pid, items[0].unix_ms), (Trigger::HighWater, 4711, 1_700_000_000_000));
        assert!(items[0].digest.is_some());
        let (format, path, bytes) = items[0].file.clone().unwrap();
        assert_eq!((format, bytes), (Format::Smaps, 5));
        assert_eq!(std::fs::metadata(path).unwrap().permissions().mode() & 0o777, 0o600);
        std::fs::write(&finished, "").unwrap();
        assert!(shelf.put(&finished, Format::Smaps, 1, Trigger::Asked, 1).unwrap_err().contains("empty"));
    }

    #[test]
    fn a_file_of_another_filesystem_is_put_whole_and_moved_as_one_of_the_same() {
        use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
        let (dir, Ok(other)) = (tempfile::tempdir().unwrap(), tempfile::tempdir_in("/dev/shm")) else {
            eprintln!("skipped: no /dev/shm here");
            return;
        };
        let device = |path: &Path| std::fs::metadata(path).unwrap().dev();
        if device(dir.path()) == device(other.path()) {
            eprintln!("skipped: /dev/shm is where temporary files are");
            return;
        }
        let shelf = Shelf::new(dir.path().join("heap"), Keep::default());
        shelf.make().unwrap();
        let finished = other.path().join("Heap.1.2.7.0.001.heapsnapshot");
        std::fs::write(&finished, "{}").unwrap();
        let put = shelf.put(&finished, Format::V8Snapshot, 1_700_000_000_000, Trigger::Asked, 7).unwrap();
        let (_, path, bytes) = put.file.clone().unwrap();
        assert_eq!((bytes, std::fs::metadata(&path).unwrap().permissions().mode() & 0o777), (2, 0o600));
        assert!(!finished.exists(), "nothing stays where the operator has it written to");
        assert_eq!(std::fs::read_dir(shelf.tmp()).unwrap().count(), 0);
        std::fs::write(shelf.digest_path(&put), "d").unwrap();
        shelf.remove(&put).unwrap();
        shelf.remove(&put).unwrap();
        assert_eq!(shelf.items().unwrap(), []);
    }

    #[test]
    fn names_of_every_format_are_read_back() {
        for format in Format::CAPTURED {
            let name = format!("12-high-water-9.{}", format.extension());
            let (item, rest) = parse(&name).unwrap();
            assert_eq!((item.id.as_str(), format_of(rest)), ("12-high-water-9", Some(format)), "{name}");
            assert_eq!(format_of(&format!("{rest}.zst")), Some(format));
        }
        for foreign in ["", "x", "a-b-c.heap", "12-never-9.heap", "12-periodic-x.heap", "tmp", "12.heap"] {
            assert!(parse(foreign).is_none(), "{foreign}");
        }
        assert_eq!(format_of("exe"), None);
    }
}
