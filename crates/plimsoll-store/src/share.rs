//! One source's share of what all sources beside it may keep: the databases in the directories next to its own.
//!
//! Every store cuts itself and nobody else. All that are written now are held to one level, the highest at which their sum fits: a quiet
//! source keeps everything, the loud ones the same. A source that nobody writes any more counts whole, and is not cut; remove its directory
//! to have its space. Costs a look at two files a source; at most [`MOST_SOURCES`] are looked at.

use std::fs::File;
use std::path::Path;

use crate::open::{LOCK_FILE, SPOOL_DIR};
use crate::retain::DATABASE_FILE;
use crate::schema::beside;

/// Sources beyond these are not counted.
pub(crate) const MOST_SOURCES: usize = 10_000;

/// What the database in `dir` may take, of `sum` for all in the directory that `dir` lies in.
pub(crate) fn of(dir: &Path, sum: u64) -> u64 {
    let (mut written, mut left) = (vec![size(dir)], sum);
    let Some(entries) = dir.parent().and_then(|parent| std::fs::read_dir(parent).ok()) else { return sum };
    for entry in entries.filter_map(Result::ok).take(MOST_SOURCES) {
        let other = entry.path();
        if Some(entry.file_name().as_os_str()) == dir.file_name() || !other.join(DATABASE_FILE).exists() {
            continue;
        }
        if is_written(&other) {
            written.push(size(&other));
        } else {
            left = left.saturating_sub(size(&other));
        }
    }
    level(written, left)
}

/// The level that `sizes` are held to for their sum to be at most `sum`.
fn level(mut sizes: Vec<u64>, sum: u64) -> u64 {
    sizes.sort_unstable();
    let mut left = sum;
    for (i, size) in sizes.iter().enumerate() {
        let each = left / (sizes.len() - i) as u64;
        if *size > each {
            return each;
        }
        left -= size;
    }
    u64::MAX
}

fn size(dir: &Path) -> u64 {
    let database = dir.join(DATABASE_FILE);
    let len = |path: &Path| std::fs::metadata(path).map_or(0, |m| m.len());
    len(&database) + len(&beside(&database, "-wal"))
}

/// Whether a writer holds the lock. One that cannot be asked is taken for one that does.
fn is_written(dir: &Path) -> bool {
    use rustix::fs::{FlockOperation, flock};
    let Ok(lock) = File::open(dir.join(SPOOL_DIR).join(LOCK_FILE)) else { return false };
    // Closing the file lets a lock that was had go; an opener waits longer than that takes.
    flock(&lock, FlockOperation::NonBlockingLockShared).is_err()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Place;

    #[test]
    fn the_loud_are_held_to_one_level_and_the_quiet_keep_all() {
        for (sizes, sum, expected) in [
            (vec![10, 20, 30], 100, u64::MAX),
            (vec![10, 20, 70], 100, u64::MAX),
            (vec![10, 20, 90], 100, 70),
            (vec![10, 90, 90], 100, 45),
            (vec![90, 90, 90, 90], 100, 25),
            (vec![5], 4, 4),
            (vec![5], 0, 0),
        ] {
            assert_eq!(level(sizes.clone(), sum), expected, "{sizes:?} of {sum}");
        }
    }

    #[test]
    fn who_is_not_written_any_more_counts_whole() {
        let place = Place::new();
        let (_intake, store, _) = crate::open(place.settings()).expect("opened");
        let (own, other) = (size(&place.path()), place.dir.path().join("other"));
        std::fs::create_dir_all(other.join(SPOOL_DIR)).expect("made");
        assert_eq!(of(&place.path(), own + 100), u64::MAX, "no database, no source");
        std::fs::write(other.join(DATABASE_FILE), [7; 90]).expect("written");
        std::fs::write(other.join(SPOOL_DIR).join(LOCK_FILE), []).expect("written");
        assert_eq!(of(&place.path(), own + 100), u64::MAX);
        assert_eq!(of(&place.path(), own + 80), own - 10, "what the other leaves");
        let held = File::open(other.join(SPOOL_DIR).join(LOCK_FILE)).expect("opened");
        rustix::fs::flock(&held, rustix::fs::FlockOperation::LockExclusive).expect("locked");
        assert_eq!(of(&place.path(), own + 80), own - 10, "smaller than its share");
        assert_eq!(of(&place.path(), 100), 50, "held to the same level");
        drop(store);
    }
}
