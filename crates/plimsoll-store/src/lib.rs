//! A bounded store of log lines: what a program prints goes through a ring that survives the death of its reader, a spool on disk,
//! and compressed chunks in SQLite; at every moment every line is stored or lies in a gap record that counts it.
//!
//! ```text
//!  pipe --read(2)--> ring (tmpfs, 8 MiB) --pwrite--> spool (disk, <= 512 MiB) --zstd--> chunk (SQLite, <= 1 GiB)
//!       Intake                      spooler thread (nice -10)          sealer thread (nice 10)
//! ```
//!
//! | part | bounded by | when full |
//! |---|---|---|
//! | ring | `Settings::ring_bytes` | lines are dropped and counted; a gap record says how many, and when |
//! | spool | `Settings::spool_bytes` | the spooler waits, so the ring fills |
//! | chunks | `Settings::retain_bytes`, `retain_lines`, `retain_age`, `retain_sum_bytes`, `free_disk_bytes` | the oldest chunks are deleted, counted by reason |
//! | hot window | what [`HotWindow::new`] was given | the chunk used longest ago goes |
//! | one line | `Settings::max_line_bytes` | it is stored in pieces; each but the last says `continued` |
//!
//! What can be lost: by the death of the process nothing that was read from a pipe, and nothing that is still in it; by the death of the
//! machine what the ring held, and what the spool took in the second since its last `fdatasync`. The next [`open()`] writes a gap for it.
//!
//! What it costs, measured with `cargo bench -p plimsoll-store --bench flood` (1,000,000 lines of 200 bytes, one `write(2)` each, words
//! drawn from 20,000; 2 cores that others kept busy): 1.5 us of CPU a line in all, 1.1 of it from the ring to the chunk
//! with its token filter; the program done after 0.4 to 0.5 s, 18 MB of memory at the peak, 0.59 of the raw size on disk. One word
//! among 10 million lines is found in 11 to 14 ms, any expression in 0.8 to 1.3 s on two cores (`--bench query`).
//!
//! [`open()`] gives the writing end ([`Intake`]) and the store's life ([`Store`]); [`Reader`] reads, from any process, while a
//! supervisor runs or after it died. The crate is synchronous; an open store has two threads of its own, a reader's long
//! scan at most four while it lasts. The on-disk format is described in `docs/log-format.md`.
//!
//! # Examples
//! ```
//! use std::{io::Write, ops::ControlFlow, os::fd::AsFd, time::Duration};
//! use plimsoll_store::{EntryKind, Query, Reader, Settings, Stream, open};
//!
//! let place = tempfile::tempdir()?;
//! let dir = place.path().join("web");
//! let (mut intake, store, _recovery) = open(Settings::new(&dir, place.path().join("web.ring"), "web"))?;
//! let (from, mut to) = std::io::pipe()?;
//! to.write_all(b"listening on port 80\n")?;
//! intake.read_from(Stream::Stdout, from.as_fd(), 1_700_000_000_000_000_000)?;
//! assert!(store.close(Duration::from_secs(10)).complete);
//!
//! let mut lines = Vec::new();
//! Reader::open(&dir)?.read(&Query::default(), None, &mut |entry| {
//!     if let EntryKind::Line { text, .. } = entry.kind {
//!         lines.push(text.to_vec());
//!     }
//!     ControlFlow::Continue(())
//! })?;
//! assert_eq!(lines, [b"listening on port 80"]);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod chunk;
mod clock;
mod core;
mod dedup;
mod disk;
mod error;
mod filter;
mod frame;
mod hot;
mod intake;
mod level;
mod merge;
mod open;
mod query;
mod rate;
mod recover;
mod retain;
mod ring;
mod schema;
mod sealer;
mod segment;
mod segments;
mod settings;
mod share;
mod split;
pub mod spool;
mod spooler;
mod stats;
mod sys;
#[cfg(test)]
mod testing;
pub mod volume;
mod writer;

pub use dedup::{DEFAULT_DEDUP_EVENTS, Dedup, DedupStats, MAX_SOURCE_BYTES};
pub use error::StoreError;
pub use hot::{DEFAULT_HOT_BYTES, HotStats, HotWindow};
pub use intake::{Intake, Landed, Missed};
pub use level::LogLevel;
pub use open::{Closed, Heartbeat, Recovery, Store, open};
pub use query::{Counted, Coverage, Cursor, DEFAULT_PATTERN_BYTES, Entry, EntryKind, Find, Pattern, Query, Reader};
pub use rate::{Rate, RateLimit};
pub use recover::Interrupted;
pub use settings::{
    DEFAULT_MAX_LINE_BYTES, DEFAULT_RETAIN_BYTES, DEFAULT_RING_BYTES, DEFAULT_SEAL_AFTER, DEFAULT_SPOOL_BYTES,
    GapReason, RetainReason, Settings, Stream,
};
pub use stats::{Retired, Stats, StreamStats};
