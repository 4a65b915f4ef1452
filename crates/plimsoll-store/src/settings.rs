//! The values that every part shares: streams, reasons of a gap, and what a store is opened with.

use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::{RateLimit, StoreError};

/// Default of [`Settings::ring_bytes`]: 8 MiB, about 40 ms of a program that prints 200 MB/s.
pub const DEFAULT_RING_BYTES: u64 = 8 << 20;
/// Default of [`Settings::spool_bytes`]: 512 MiB.
pub const DEFAULT_SPOOL_BYTES: u64 = 512 << 20;
/// Default of [`Settings::retain_bytes`]: 1 GiB.
pub const DEFAULT_RETAIN_BYTES: u64 = 1 << 30;
/// Default of [`Settings::max_line_bytes`]: 64 KiB.
pub const DEFAULT_MAX_LINE_BYTES: u32 = 64 << 10;
/// Default of [`Settings::seal_after`]: 30 s.
pub const DEFAULT_SEAL_AFTER: Duration = Duration::from_secs(30);

/// Where a line came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Stream {
    /// The program's standard output.
    Stdout = 1,
    /// The program's standard error.
    Stderr = 2,
    /// The supervisor's own notes about the program.
    Plimsoll = 3,
}

impl Stream {
    /// All streams, in the order of their numbers.
    pub const ALL: [Stream; 3] = [Stream::Stdout, Stream::Stderr, Stream::Plimsoll];

    /// The number that stands in frames and chunks.
    pub const fn number(self) -> u8 {
        self as u8
    }

    /// The stream with this number.
    pub fn from_number(number: u8) -> Option<Stream> {
        Stream::ALL.into_iter().find(|s| s.number() == number)
    }

    /// `stdout`, `stderr` or `plimsoll`.
    pub fn name(self) -> &'static str {
        match self {
            Stream::Stdout => "stdout",
            Stream::Stderr => "stderr",
            Stream::Plimsoll => "plimsoll",
        }
    }

    pub(crate) fn index(self) -> usize {
        usize::from(self.number() - 1)
    }
}

impl std::fmt::Display for Stream {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

/// Why lines are missing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum GapReason {
    /// The ring was full, because the disk was too slow, full, or the spool at its budget; or there was none, because the store could
    /// not be opened ([`crate::Intake::missed`]). The count is exact.
    RingFull = 1,
    /// A kill fell into a read of something that is not a pipe; at most its last few bytes are missing. Not countable.
    Interrupted = 2,
    /// The machine restarted, or somebody removed the ring, before it was spooled. Not countable.
    RingLost = 3,
    /// A part of the spool was damaged while the store ran; the file was set aside. Not countable.
    SpoolDamaged = 4,
    /// The database of older lines was damaged and set aside, or removed. Not countable.
    DatabaseLost = 5,
    /// The stream printed more than [`Settings::rate_limit`] allows. The count is exact.
    RateLimited = 6,
}

impl GapReason {
    const ALL: [GapReason; 6] = [
        GapReason::RingFull,
        GapReason::Interrupted,
        GapReason::RingLost,
        GapReason::SpoolDamaged,
        GapReason::DatabaseLost,
        GapReason::RateLimited,
    ];

    pub(crate) const fn number(self) -> u8 {
        self as u8
    }

    pub(crate) fn from_number(number: u8) -> Option<GapReason> {
        GapReason::ALL.into_iter().find(|r| r.number() == number)
    }

    /// Whether the gap's count of lines is exact; else it is unknown.
    pub fn is_exact(self) -> bool {
        matches!(self, GapReason::RingFull | GapReason::RateLimited)
    }

    /// A word for output: `ring-full`, `interrupted`, `ring-lost`, `spool-damaged`, `database-lost` or `rate-limited`.
    pub fn name(self) -> &'static str {
        match self {
            GapReason::RingFull => "ring-full",
            GapReason::Interrupted => "interrupted",
            GapReason::RingLost => "ring-lost",
            GapReason::SpoolDamaged => "spool-damaged",
            GapReason::DatabaseLost => "database-lost",
            GapReason::RateLimited => "rate-limited",
        }
    }
}

impl std::fmt::Display for GapReason {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

/// Why sealed chunks were deleted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum RetainReason {
    /// More than [`Settings::retain_bytes`].
    Bytes,
    /// More than [`Settings::retain_lines`].
    Lines,
    /// Older than [`Settings::retain_age`].
    Age,
    /// More than this source's share of [`Settings::retain_sum_bytes`].
    Sum,
    /// Less free disk than [`Settings::free_disk_bytes`].
    Disk,
}

impl RetainReason {
    /// All reasons, in the order in which they are looked at.
    pub const ALL: [RetainReason; 5] =
        [RetainReason::Bytes, RetainReason::Lines, RetainReason::Age, RetainReason::Sum, RetainReason::Disk];

    /// A word for output: `bytes`, `lines`, `age`, `sum` or `disk`.
    pub fn name(self) -> &'static str {
        match self {
            RetainReason::Bytes => "bytes",
            RetainReason::Lines => "lines",
            RetainReason::Age => "age",
            RetainReason::Sum => "sum",
            RetainReason::Disk => "disk",
        }
    }
}

/// What a store is opened with. `Settings::new` fills in the defaults.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Directory of this one source; made (0700) if it is missing. Holds `logs.db`, `spool/` and `ring.path`.
    pub dir: PathBuf,
    /// The ring's file, best on tmpfs; its directory must exist.
    pub ring_path: PathBuf,
    /// Capacity of the ring, 256 KiB to 1 GiB; default [`DEFAULT_RING_BYTES`]. An adopted ring keeps its own.
    pub ring_bytes: u64,
    /// Disk that unsealed frames may take, at least 4 MiB; default [`DEFAULT_SPOOL_BYTES`].
    pub spool_bytes: u64,
    /// Disk that sealed chunks may take, at least 1 MiB; default [`DEFAULT_RETAIN_BYTES`]. The oldest chunks go first.
    pub retain_bytes: u64,
    /// Lines that sealed chunks may have, at least 1; `None`, the default: as many as fit. The oldest chunks go first, whole.
    pub retain_lines: Option<u64>,
    /// How old a line may get; `None`, the default: as old as it likes. A chunk goes when its newest line is older, at least 1 s.
    pub retain_age: Option<Duration>,
    /// Disk that the sealed chunks of all sources beside this one may take with it, at least 1 MiB; `None`, the default: no bound. Sources
    /// are the directories that lie where `dir` lies. Each store cuts itself: the quiet keep all, the loud the same; what nobody writes any
    /// more counts and is not cut.
    pub retain_sum_bytes: Option<u64>,
    /// Free disk to leave to others: with less, the oldest chunks go, down to a sixteenth of `retain_bytes`. At most a quarter of
    /// the filesystem. With 0, the default, old chunks stay and new lines wait.
    pub free_disk_bytes: u64,
    /// Longest line stored in one piece, 1 byte to 1 MiB; default [`DEFAULT_MAX_LINE_BYTES`].
    pub max_line_bytes: u32,
    /// Longest time a complete line waits in the spool before it is sealed; default [`DEFAULT_SEAL_AFTER`].
    pub seal_after: Duration,
    /// What each of the program's streams may print; what is above is read, counted and not stored. Default: no limit.
    pub rate_limit: RateLimit,
    /// Name of the source, stored once in the database.
    pub source: String,
}

impl Settings {
    /// Settings with all defaults.
    pub fn new(dir: impl AsRef<Path>, ring_path: impl AsRef<Path>, source: impl Into<String>) -> Settings {
        Settings {
            dir: dir.as_ref().to_path_buf(),
            ring_path: ring_path.as_ref().to_path_buf(),
            ring_bytes: DEFAULT_RING_BYTES,
            spool_bytes: DEFAULT_SPOOL_BYTES,
            retain_bytes: DEFAULT_RETAIN_BYTES,
            retain_lines: None,
            retain_age: None,
            retain_sum_bytes: None,
            free_disk_bytes: 0,
            max_line_bytes: DEFAULT_MAX_LINE_BYTES,
            seal_after: DEFAULT_SEAL_AFTER,
            rate_limit: RateLimit::default(),
            source: source.into(),
        }
    }

    /// Checks every value.
    ///
    /// # Errors
    /// [`StoreError::Settings`] lists all problems at once, each with its value and the allowed range.
    pub fn validate(&self) -> Result<(), StoreError> {
        let ranges: [(&str, u64, u64, u64); 4] = [
            ("ring_bytes", self.ring_bytes, crate::ring::MIN_CAPACITY, crate::ring::MAX_CAPACITY),
            ("spool_bytes", self.spool_bytes, 4 << 20, u64::MAX),
            ("retain_bytes", self.retain_bytes, 1 << 20, u64::MAX),
            ("max_line_bytes", self.max_line_bytes.into(), 1, 1 << 20),
        ];
        let mut problems: Vec<String> = ranges
            .into_iter()
            .filter(|(_, value, low, high)| !(low..=high).contains(&value))
            .map(|(name, value, low, high)| format!("{name} is {value}, allowed are {low} to {high} bytes"))
            .collect();
        problems.extend(self.rate_limit.problems());
        if self.retain_lines == Some(0) {
            problems.push("retain_lines is 0, allowed are 1 or more".into());
        }
        if let Some(age) = self.retain_age.filter(|age| age.as_secs() == 0) {
            problems.push(format!("retain_age is {age:?}, allowed are 1 s or more"));
        }
        if let Some(sum) = self.retain_sum_bytes.filter(|sum| *sum < 1 << 20) {
            problems.push(format!("retain_sum_bytes is {sum}, allowed are 1048576 or more bytes"));
        }
        if self.source.is_empty() {
            problems.push("source is empty".into());
        }
        if problems.is_empty() { Ok(()) } else { Err(StoreError::Settings { problems: problems.join("; ") }) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_problems_are_reported_at_once() {
        let mut settings = Settings::new("/d", "/r", "");
        settings.ring_bytes = 1;
        settings.max_line_bytes = 0;
        settings.retain_lines = Some(0);
        settings.retain_age = Some(Duration::from_millis(999));
        settings.retain_sum_bytes = Some(1000);
        let said = settings.validate().expect_err("six values are wrong").to_string();
        for part in [
            "ring_bytes is 1",
            "max_line_bytes is 0",
            "source is empty",
            "retain_lines is 0",
            "retain_age is 999ms",
            "retain_sum_bytes is 1000",
        ] {
            assert!(said.contains(part), "{part:?} is missing in {said:?}");
        }
        assert!(Settings::new("/d", "/r", "web").validate().is_ok());
    }

    #[test]
    fn numbers_and_names_go_both_ways() {
        for stream in Stream::ALL {
            assert_eq!(Stream::from_number(stream.number()), Some(stream));
        }
        for reason in GapReason::ALL {
            assert_eq!(GapReason::from_number(reason.number()), Some(reason));
        }
        assert_eq!(Stream::from_number(0), None);
        assert_eq!(GapReason::from_number(99), None);
    }
}
