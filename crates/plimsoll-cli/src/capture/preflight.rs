//! Whether a V8 heap snapshot is safe now. Pure: figures in, verdict out.
//!
//! A snapshot is made inside the program, which stands still meanwhile and grows: measured on Node 20 with seven shapes of heap
//! (`bench/heap/cost`), by up to 920 bytes for each object of the heap, and up to 100 MB whatever the heap. So what counts is
//! the number of objects, not bytes. It is told by the program itself (an upper bound, see `agent.cjs`), else reckoned from
//! an earlier snapshot of the same life, else taken as the worst case: memory full of the smallest objects.

use std::fmt;

use plimsoll::units;

/// What a snapshot needs beside what it needs for each object, in bytes.
pub(crate) const FIXED_BYTES: u64 = 96 << 20;
/// What a snapshot needs for each object, in bytes: above all that was measured (920).
pub(crate) const OBJECT_BYTES: u64 = 1000;
/// The smallest average size of a heap's objects that was measured, in bytes (31), rounded down.
pub(crate) const SMALLEST_OBJECT_BYTES: u64 = 30;
/// Objects of a runtime that has loaded nothing yet: 40,000 in Node 20, 50,000 in later ones; none of them is sampled.
pub(crate) const BASE_OBJECTS: u64 = 60_000;
/// Room that is left to the program itself while it stands still: a 25th of the limit, at least this, in bytes.
pub(crate) const MARGIN_BYTES: u64 = 16 << 20;
/// What a snapshot file takes for each object, in bytes, beside the texts that the heap holds: 63 to 101 were measured.
pub(crate) const FILE_BYTES_PER_OBJECT: u64 = 130;
/// Disk that is left to everybody else, in bytes.
pub(crate) const DISK_FLOOR_BYTES: u64 = 256 << 20;
/// How long the program stands still for each object: 2 to 9 µs were measured on a quiet machine.
const STALL_MICROSECONDS_PER_OBJECT: u64 = 10;

/// How many objects the heap holds at most, and who says so.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Objects {
    /// The program's own upper bound, from its sampling profile.
    Told(u64),
    /// From an earlier snapshot: its objects, half as many again, and the growth since then as the smallest ones.
    Learnt(u64),
    /// All anonymous memory taken as the smallest objects.
    Worst(u64),
}

impl Objects {
    /// From a sampling profile's upper bound.
    pub(crate) fn told(sampled: u64) -> Objects {
        Objects::Told(sampled.saturating_add(BASE_OBJECTS))
    }

    /// From `then`, the objects of a snapshot that was taken when the process held `then_bytes`.
    pub(crate) fn learnt(then: u64, then_bytes: u64, now_bytes: u64) -> Objects {
        let grown = now_bytes.saturating_sub(then_bytes) / SMALLEST_OBJECT_BYTES;
        Objects::Learnt(then.saturating_add(then / 2).saturating_add(grown))
    }

    /// From the process's anonymous memory alone.
    pub(crate) fn worst(anon_bytes: u64) -> Objects {
        Objects::Worst(anon_bytes / SMALLEST_OBJECT_BYTES)
    }

    /// The number.
    pub(crate) fn count(self) -> u64 {
        match self {
            Objects::Told(count) | Objects::Learnt(count) | Objects::Worst(count) => count,
        }
    }
}

impl fmt::Display for Objects {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let how = match self {
            Objects::Told(_) => "as the program tells",
            Objects::Learnt(_) => "reckoned from the last snapshot",
            Objects::Worst(_) => "at worst; with --heap=profile or full the program tells how many",
        };
        write!(f, "{} objects, {how}", self.count())
    }
}

/// What there is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Room {
    /// The least headroom to a limit at which the kernel kills, in bytes; without one, the machine's available memory.
    pub(crate) headroom_bytes: u64,
    /// That limit, in bytes.
    pub(crate) limit_bytes: u64,
    /// What stays free in any case, in bytes: from there on the governor would stop the program.
    pub(crate) kept_bytes: u64,
    /// Free disk where the snapshot is written, in bytes.
    pub(crate) disk_bytes: u64,
}

/// A snapshot that may be taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Cleared {
    /// What it may need, in bytes: so much growth is the snapshot's, not the program's.
    pub(crate) need_bytes: u64,
    /// How long the program may stand still, in milliseconds.
    pub(crate) stall_ms: u64,
}

/// Judges a snapshot of so many objects, of a process with so much anonymous memory, in so much room.
///
/// # Errors
/// A sentence with every figure that decided.
pub(crate) fn judge(objects: Objects, anon_bytes: u64, room: Room) -> Result<Cleared, String> {
    let need_bytes = FIXED_BYTES.saturating_add(objects.count().saturating_mul(OBJECT_BYTES));
    let margin = MARGIN_BYTES.max(room.limit_bytes / 25).max(room.kept_bytes);
    let usable = room.headroom_bytes.saturating_sub(margin);
    if need_bytes > usable {
        return Err(format!(
            "a full snapshot may need {} ({objects}), and {} of {} are free, less {} kept for the program",
            units::size(need_bytes),
            units::size(room.headroom_bytes),
            units::size(room.limit_bytes),
            units::size(margin)
        ));
    }
    let file = objects.count().saturating_mul(FILE_BYTES_PER_OBJECT).saturating_add(anon_bytes);
    if file.saturating_add(DISK_FLOOR_BYTES) > room.disk_bytes {
        return Err(format!(
            "a full snapshot may take {} of disk ({objects}), and {} are free, less {} kept for others",
            units::size(file),
            units::size(room.disk_bytes),
            units::size(DISK_FLOOR_BYTES)
        ));
    }
    Ok(Cleared { need_bytes, stall_ms: objects.count().saturating_mul(STALL_MICROSECONDS_PER_OBJECT) / 1000 })
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    fn room(limit: u64, used: u64) -> Room {
        Room { headroom_bytes: (limit - used) * MIB, limit_bytes: limit * MIB, kept_bytes: 0, disk_bytes: 50 << 30 }
    }

    #[test]
    fn a_table_of_heaps_and_limits() {
        // (objects, limit MiB, used MiB, may be taken)
        let table = [
            (Objects::told(0), 1024, 60, true),
            // 100 MB of 2 KB documents: 50,000 objects, told with up to four times as many.
            (Objects::told(200_000), 1024, 180, true),
            // 100 MB of the smallest objects needs 1.3 to 1.7 GB.
            (Objects::worst(180 * MIB), 1024, 180, false),
            (Objects::told(100_000), 400, 350, false),
            (Objects::told(0), 400, 260, false),
            (Objects::told(0), 400, 200, true),
            (Objects::learnt(50_000, 60 * MIB, 61 * MIB), 512, 61, true),
            (Objects::learnt(50_000, 60 * MIB, 160 * MIB), 512, 160, false),
        ];
        for (objects, limit, used, may) in table {
            let verdict = judge(objects, used * MIB, room(limit, used));
            assert_eq!(verdict.is_ok(), may, "{objects} in {limit} MiB with {used} used: {verdict:?}");
        }
    }

    #[test]
    fn the_measured_shapes_are_all_covered() {
        // Objects and growth in bytes, Node 20 (bench/heap/cost).
        for (objects, grew) in [
            (1_848_272_u64, 1_706_000_000_u64),
            (4_548_388, 1_499_000_000),
            (2_448_481, 1_236_000_000),
            (94_572, 172_000_000),
            (244_600, 234_000_000),
            (40_829, 33_000_000),
            (48_067, 83_000_000),
        ] {
            assert!(FIXED_BYTES + objects * OBJECT_BYTES > grew, "{objects} objects grew by {grew}");
        }
    }

    #[test]
    fn a_refusal_tells_its_figures() {
        let said = judge(Objects::worst(300 * MIB), 300 * MIB, room(400, 340)).unwrap_err();
        let need = units::size(FIXED_BYTES + 10_485_760 * OBJECT_BYTES).to_string();
        for figure in [need.as_str(), "10485760 objects", "at worst", "60.0 MiB", "400.0 MiB", "16.0 MiB"] {
            assert!(said.contains(figure), "{said:?} lacks {figure}");
        }
    }

    #[test]
    fn a_full_disk_refuses_before_anything_is_written() {
        let full = Room { disk_bytes: DISK_FLOOR_BYTES + 100 * MIB, ..room(4096, 100) };
        assert!(judge(Objects::told(0), 100 * MIB, full).unwrap_err().contains("disk"));
        assert!(judge(Objects::told(0), 90 * MIB, full).is_ok());
    }

    #[test]
    fn nothing_overflows() {
        let none = Room { headroom_bytes: 0, limit_bytes: 0, kept_bytes: 0, disk_bytes: 0 };
        assert!(judge(Objects::told(u64::MAX), u64::MAX, none).is_err());
        assert!(judge(Objects::learnt(u64::MAX, 0, u64::MAX), 0, Room { headroom_bytes: u64::MAX, ..none }).is_err());
    }
}
