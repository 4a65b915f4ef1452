//! What goes to keep the shelf within its bounds. Pure: what is there and the time in, paths out.

use std::collections::HashMap;
use std::path::PathBuf;
use std::time::Duration;

use plimsoll_heap::format::Format;

use super::{Item, Keep, Trigger};

/// Digests outlive their files by this factor, in age and in count.
const DIGEST_FACTOR: u32 = 10;

/// What orders by age, the newest highest. What lies in the future was taken while the clock was wrong: nobody knows when, so it
/// counts as the oldest, and what is taken from now on as newer.
pub(super) fn rank(unix_ms: u64, now_unix_ms: u64) -> (bool, u64) {
    (unix_ms <= now_unix_ms, unix_ms)
}

/// The paths that go, oldest first. Pure.
///
/// Each format is counted by itself, and its newest is exempt: figures that are taken every half hour push no snapshot out that a person
/// asked for. A digest stays with its file; without one it is counted with those of its trigger.
pub(super) fn beyond(items: &[Item], keep: Keep, now_unix_ms: u64, taken: &str) -> Vec<PathBuf> {
    let mut gone = Vec::new();
    let age = |item: &Item| Duration::from_millis(now_unix_ms.saturating_sub(item.unix_ms));
    let mut newest_first: Vec<&Item> = items.iter().collect();
    newest_first.sort_by_key(|item| std::cmp::Reverse((item.id == taken, rank(item.unix_ms, now_unix_ms))));
    let (mut files, mut digests): (HashMap<Format, usize>, HashMap<Trigger, usize>) = (HashMap::new(), HashMap::new());
    let mut bytes = 0_u64;
    for item in newest_first {
        let mut has_file = false;
        if let Some((format, path, size)) = &item.file {
            let count = files.entry(*format).or_default();
            *count += 1;
            let sum = bytes.saturating_add(*size);
            has_file =
                *count == 1 || item.id == taken || *count <= keep.count && sum <= keep.bytes && age(item) <= keep.age;
            if has_file {
                bytes = sum;
            } else {
                gone.push(path.clone());
            }
        }
        if let Some(path) = &item.digest {
            let count = digests.entry(item.trigger).or_default();
            *count += 1;
            let is_old = age(item) > keep.age * DIGEST_FACTOR || *count > keep.count * DIGEST_FACTOR as usize;
            if is_old && *count > 1 && !has_file {
                gone.push(path.clone());
            }
        }
    }
    gone.reverse();
    gone
}

#[cfg(test)]
mod tests {
    use super::super::KEEP_COUNT;
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
            names(&beyond(&five, keep, days(25), "")),
            [20, 21].map(|day| format!("{}-periodic-7.heapsnapshot", days(day)))
        );
        // By bytes: a large one in the middle goes, smaller ones before it may stay.
        let large = [item(days(22), Some(10), false), item(days(23), Some(95), false), item(days(24), Some(10), false)];
        assert_eq!(names(&beyond(&large, keep, days(25), "")), [format!("{}-periodic-7.heapsnapshot", days(23))]);
        // By age, but not the newest.
        let old = [item(days(1), Some(10), false), item(days(2), Some(999), false)];
        assert_eq!(names(&beyond(&old, keep, days(40), "")), [format!("{}-periodic-7.heapsnapshot", days(1))]);
        assert!(beyond(&[], keep, 0, "").is_empty());
    }

    #[test]
    fn figures_on_schedule_push_out_no_snapshot_that_somebody_asked_for() {
        let hours = |hour: u64| hour * 3600 * 1000;
        let asked = Item { id: "0-asked-7".into(), trigger: Trigger::Asked, ..item(hours(0), Some(10 << 20), true) };
        let figures = |half: u64| {
            let taken = item(hours(24) + half * hours(1) / 2, Some(4096), true);
            let file = Some((Format::Smaps, PathBuf::from(format!("{}.smaps", taken.id)), 4096));
            Item { file, ..taken }
        };
        // The default: figures every half hour, a month long; two full snapshots of its first day.
        let mut all: Vec<Item> = vec![asked, item(hours(1), Some(10 << 20), true)];
        all.extend((0..29 * 48).map(figures));
        let gone = beyond(&all, Keep::default(), hours(30 * 24), "");
        assert!(!names(&gone).iter().any(|name| name.contains("asked") || name.ends_with(".heapsnapshot")), "{gone:?}");
        let files = gone.iter().filter(|path| path.extension().is_some_and(|ending| ending == "smaps")).count();
        assert_eq!(files, 29 * 48 - KEEP_COUNT, "each format has its own bound");
        // And its digest is there while it is.
        all[0].file = None;
        assert!(!names(&beyond(&all, Keep::default(), hours(30 * 24), "")).iter().any(|name| name.contains("asked")));
    }

    #[test]
    fn what_was_taken_while_the_clock_was_ahead_makes_room_for_what_is_taken_now() {
        let keep = Keep { count: 3, ..Keep::default() };
        let ahead = (0..3).map(|n| item(900 * DAY_MS + n, Some(10), true));
        let mut all: Vec<Item> = [item(DAY_MS, Some(10), true)].into_iter().chain(ahead).collect();
        let first = [format!("{}-periodic-7.heapsnapshot", 900 * DAY_MS)];
        assert_eq!(names(&beyond(&all, keep, 2 * DAY_MS, "")), first, "what was taken just now stays");
        // The clock is set back while a capture is taken: by its name it lies in the future, too.
        all[0] = item(2 * DAY_MS + 5, Some(10), true);
        let taken = all[0].id.clone();
        assert_eq!(names(&beyond(&all, keep, 2 * DAY_MS, &taken)), first);
    }

    #[test]
    fn digests_outlive_their_files_and_are_bounded_themselves() {
        let keep = Keep { count: 2, age: Duration::from_secs(24 * 3600), bytes: 100 };
        let items: Vec<Item> = (0..30).map(|n| item(n * 1000, (n > 27).then_some(1), true)).collect();
        let gone = beyond(&items, keep, 30_000, "");
        assert_eq!(gone.len(), 10, "20 digests are kept: {gone:?}");
        assert_eq!(names(&gone[..1]), ["0-periodic-7.digest"]);
        let old = [item(0, None, true), item(1, None, true)];
        assert_eq!(names(&beyond(&old, keep, 11 * DAY_MS, "")), ["0-periodic-7.digest"]);
    }
}
