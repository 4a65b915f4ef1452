//! Where captures are kept: `DIR/NAME/heap/`, 0700, files 0600, bounded in count, age and bytes; the newest is exempt.
//!
//! | path | what |
//! |---|---|
//! | `<unix ms>-<trigger>-<pid>.<format>[.zst]` | one capture |
//! | `<the same stem>.digest` | what is kept of it when the file has gone: a few KB |
//! | `tmp/` | where runtimes write; what is still there when a capture begins was never finished, and is removed |
//! | `reports/` | saved trend reports, the newest [`REPORTS_KEPT`] |
//!
//! A file gets its name by rename once it is complete, so a crash in the middle leaves nothing that later counts. A capture's
//! file may go (retention by bytes) before its digest does: digests are kept for as long as ten times the age, and count as
//! nothing beside the files.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use plimsoll_heap::format::Format;

use super::due::Trigger;
use crate::supervise::files;

/// Captures kept when nothing else is said.
pub(crate) const KEEP_COUNT: usize = 50;
/// For so long.
pub(crate) const KEEP_AGE: Duration = Duration::from_secs(30 * 24 * 3600);
/// In so many bytes of disk.
pub(crate) const KEEP_BYTES: u64 = 10 << 30;
/// Saved reports kept.
pub(crate) const REPORTS_KEPT: usize = 100;
/// Digests outlive their files by this factor, in age and in count.
const DIGEST_FACTOR: u32 = 10;
/// The most entries of the directory that are looked at.
const ENTRIES_MAX: usize = 10_000;

/// How much is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Keep {
    /// At most so many captures.
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

    /// Removes what was never finished. Says how many files that were.
    ///
    /// # Errors
    /// The path and what the system says.
    pub(crate) fn clean(&self) -> Result<u64, String> {
        let mut removed = 0;
        let failed = |error| format!("cannot read {}: {error}", self.tmp().display());
        for entry in std::fs::read_dir(self.tmp()).map_err(failed)?.take(ENTRIES_MAX) {
            let entry = entry.map_err(failed)?;
            if entry.file_type().is_ok_and(|kind| kind.is_file()) {
                let path = entry.path();
                std::fs::remove_file(&path).map_err(|error| format!("cannot remove {}: {error}", path.display()))?;
                removed += 1;
            }
        }
        Ok(removed)
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
        use std::os::unix::fs::OpenOptionsExt as _;
        let part = self.tmp().join("fetched.part");
        let copied = || {
            let mut from = std::fs::File::open(finished)?;
            let mut to = std::fs::File::options().write(true).create(true).truncate(true).mode(0o600).open(&part)?;
            io::copy(&mut from, &mut to)?;
            to.sync_all()?;
            std::fs::rename(&part, path)?;
            std::fs::remove_file(finished)
        };
        copied().inspect_err(|_| {
            std::fs::remove_file(&part).ok();
        })
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

    /// Saves a report, and removes the oldest beyond [`REPORTS_KEPT`]. Returns its path.
    ///
    /// # Errors
    /// The path and what the system says.
    pub(crate) fn save_report(&self, text: &str) -> Result<PathBuf, String> {
        self.make()?;
        let unix_ms = plimsoll::clock::wall().as_millis();
        let path = self.reports().join(format!("trend-{unix_ms}.md"));
        let failed = |path: &Path, error: io::Error| format!("{}: {error}", path.display());
        files::replace(&path, text.as_bytes()).map_err(|error| failed(&path, error))?;
        let mut all: Vec<PathBuf> = std::fs::read_dir(self.reports())
            .map_err(|error| failed(&self.reports(), error))?
            .take(ENTRIES_MAX)
            .filter_map(|entry| Some(entry.ok()?.path()))
            .filter(|path| path.extension().is_some_and(|extension| extension == "md"))
            .collect();
        all.sort();
        for old in all.iter().rev().skip(REPORTS_KEPT) {
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

    /// Removes what is beyond the bounds, oldest first. Returns files and bytes removed.
    ///
    /// # Errors
    /// The path and what the system says; what was removed before stays removed.
    pub(crate) fn retain(&self, now_unix_ms: u64) -> Result<(u64, u64), String> {
        let (mut files, mut bytes) = (0, 0);
        for path in beyond(&self.items()?, self.keep, now_unix_ms) {
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

/// The paths that go, oldest first. Pure.
fn beyond(items: &[Item], keep: Keep, now_unix_ms: u64) -> Vec<PathBuf> {
    let mut gone = Vec::new();
    let age = |item: &Item| Duration::from_millis(now_unix_ms.saturating_sub(item.unix_ms));
    let (mut count, mut bytes) = (0, 0_u64);
    let mut newest = true;
    for item in items.iter().rev() {
        let Some((_, path, size)) = &item.file else { continue };
        count += 1;
        bytes = bytes.saturating_add(*size);
        let kept = newest || count <= keep.count && bytes <= keep.bytes && age(item) <= keep.age;
        newest = false;
        if !kept {
            bytes -= size;
            gone.push(path.clone());
        }
    }
    let factor = DIGEST_FACTOR as usize;
    for (position, item) in items.iter().rev().filter(|item| item.digest.is_some()).enumerate() {
        let kept = position == 0 || position < keep.count * factor && age(item) <= keep.age * DIGEST_FACTOR;
        if !kept {
            gone.extend(item.digest.clone());
        }
    }
    gone.reverse();
    gone
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

    const DAY_MS: u64 = 24 * 3600 * 1000;

    fn item(unix_ms: u64, bytes: Option<u64>, digest: bool) -> Item {
        let id = format!("{unix_ms}-periodic-7");
        Item {
            unix_ms,
            trigger: Trigger::Periodic,
            pid: 7,
            file: bytes.map(|bytes| (Format::V8Snapshot, PathBuf::from(format!("{id}.heapsnapshot")), bytes)),
            digest: digest.then(|| PathBuf::from(format!("{id}.digest"))),
            id,
        }
    }

    fn names(paths: &[PathBuf]) -> Vec<String> {
        paths.iter().map(|path| path.display().to_string()).collect()
    }

    #[test]
    fn count_age_and_bytes_each_bound_the_files_and_the_newest_is_exempt() {
        let keep = Keep { count: 3, age: Duration::from_secs(10 * 24 * 3600), bytes: 100 };
        let days = |day: u64| day * DAY_MS;
        // By count: the two oldest of five go.
        let five: Vec<Item> = (20..25).map(|day| item(days(day), Some(10), false)).collect();
        assert_eq!(
            names(&beyond(&five, keep, days(25))),
            [20, 21].map(|day| format!("{}-periodic-7.heapsnapshot", days(day)))
        );
        // By bytes: a large one in the middle goes, smaller ones before it may stay.
        let large = [item(days(22), Some(10), false), item(days(23), Some(95), false), item(days(24), Some(10), false)];
        assert_eq!(names(&beyond(&large, keep, days(25))), [format!("{}-periodic-7.heapsnapshot", days(23))]);
        // By age, but not the newest.
        let old = [item(days(1), Some(10), false), item(days(2), Some(999), false)];
        assert_eq!(names(&beyond(&old, keep, days(40))), [format!("{}-periodic-7.heapsnapshot", days(1))]);
        assert!(beyond(&[], keep, 0).is_empty());
    }

    #[test]
    fn digests_outlive_their_files_and_are_bounded_themselves() {
        let keep = Keep { count: 2, age: Duration::from_secs(24 * 3600), bytes: 100 };
        let items: Vec<Item> = (0..30).map(|n| item(n * 1000, (n > 27).then_some(1), true)).collect();
        let gone = beyond(&items, keep, 30_000);
        assert_eq!(gone.len(), 10, "20 digests are kept: {gone:?}");
        assert_eq!(names(&gone[..1]), ["0-periodic-7.digest"]);
        let old = [item(0, None, true), item(1, None, true)];
        assert_eq!(names(&beyond(&old, keep, 11 * DAY_MS)), ["0-periodic-7.digest"]);
    }

    #[test]
    fn what_is_put_is_found_again_private_and_whole_and_the_unfinished_goes() {
        use std::os::unix::fs::PermissionsExt as _;
        let dir = tempfile::tempdir().unwrap();
        let shelf = Shelf::new(dir.path().join("heap"), Keep::default());
        assert_eq!(shelf.items().unwrap(), [], "no directory is an empty shelf");
        shelf.make().unwrap();
        assert_eq!(shelf.clean().unwrap(), 0);
        std::fs::write(shelf.tmp().join("half.heapsnapshot"), "{\"snapshot\":").unwrap();
        assert_eq!(shelf.clean().unwrap(), 1);
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
