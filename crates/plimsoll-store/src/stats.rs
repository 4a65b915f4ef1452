//! What the store counts, and what troubles it.

use std::io;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;

use crate::core::Core;
use crate::ring::at;
use crate::schema::Deleted;
use crate::{RetainReason, Stream};

/// Counts of one stream since its ring was made (they survive the death of the supervisor, not a restart of the machine).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StreamStats {
    /// Line ends that were stored.
    pub lines_in_total: u64,
    /// Bytes that were stored.
    pub bytes_in_total: u64,
    /// Line ends that found the ring full, or the stream above its rate limit.
    pub dropped_lines_total: u64,
    /// Bytes of these.
    pub dropped_bytes_total: u64,
    /// Of the dropped line ends, those above the rate limit. Of a supervisor that was killed inside a read, that read may be missing here.
    pub limited_lines_total: u64,
    /// Of the dropped bytes, those above the rate limit.
    pub limited_bytes_total: u64,
}

/// What retention deleted since open, for one reason.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Retired {
    /// Chunks.
    pub chunks_total: u64,
    /// Lines in them.
    pub lines_total: u64,
    /// Compressed bytes.
    pub bytes_total: u64,
}

/// A moment's figures of an open store.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Per stream, in the order of [`Stream::ALL`]; see [`Stats::stream`].
    pub streams: [StreamStats; 3],
    /// Bytes in the ring that are not in the spool yet.
    pub ring_used_bytes: u64,
    /// Size of the ring.
    pub ring_capacity_bytes: u64,
    /// Disk that the spool takes.
    pub spool_used_bytes: u64,
    /// Disk that the spool may take.
    pub spool_budget_bytes: u64,
    /// Chunks sealed since open.
    pub sealed_chunks_total: u64,
    /// Lines sealed since open.
    pub sealed_lines_total: u64,
    /// Lines that lie in the gap records sealed since open; exact, unlike the line ends of `dropped_lines_total`, also for lines
    /// that were torn at either side of a gap.
    pub gap_lines_total: u64,
    /// Chunks that retention deleted since open.
    pub deleted_chunks_total: u64,
    /// What it deleted by each reason, in the order of [`RetainReason::ALL`]; see [`Stats::retired`].
    pub retired: [Retired; 5],
    /// Small chunks that were merged into larger ones since open.
    pub merged_chunks_total: u64,
    /// Lines in all sealed chunks.
    pub kept_lines: u64,
    /// Size of the database with its write-ahead log.
    pub database_bytes: u64,
    /// Failed writes to the spool since open.
    pub spool_errors_total: u64,
    /// Failed database operations since open.
    pub database_errors_total: u64,
    /// The newest error, whether it is over or not.
    pub last_error: Option<String>,
    /// What does not work right now; `None` is healthy. The store goes on trying.
    pub degraded: Option<String>,
}

impl Stats {
    /// The counts of one stream.
    pub fn stream(&self, stream: Stream) -> StreamStats {
        self.streams[stream.index()]
    }

    /// What retention deleted for `reason`.
    pub fn retired(&self, reason: RetainReason) -> Retired {
        self.retired[reason as usize]
    }

    pub(crate) fn of(core: &Core) -> Stats {
        let streams = Stream::ALL.map(|stream| {
            let (dropped_lines_total, dropped_bytes_total) = core.ring.dropped(stream);
            StreamStats {
                lines_in_total: core.ring.counter(stream, at::LINES_IN),
                bytes_in_total: core.ring.counter(stream, at::BYTES_IN),
                dropped_lines_total,
                dropped_bytes_total,
                limited_lines_total: core.ring.counter(stream, at::LIMITED_LINES),
                limited_bytes_total: core.ring.counter(stream, at::LIMITED_BYTES),
            }
        });
        let tally = &core.tally;
        let get = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let retired = *tally.retired.lock();
        let (spool_errors_total, database_errors_total, last_error, degraded) = core.trouble.look();
        Stats {
            streams,
            ring_used_bytes: core.ring.used(),
            ring_capacity_bytes: core.ring.capacity(),
            spool_used_bytes: core.spool.used(),
            spool_budget_bytes: core.settings.spool_bytes,
            sealed_chunks_total: get(&tally.chunks),
            sealed_lines_total: get(&tally.lines),
            gap_lines_total: get(&tally.gap_lines),
            deleted_chunks_total: retired.iter().map(|r| r.chunks_total).sum(),
            retired,
            merged_chunks_total: get(&tally.merged_chunks),
            kept_lines: get(&tally.kept_lines),
            database_bytes: get(&tally.database_bytes),
            spool_errors_total,
            database_errors_total,
            last_error,
            degraded,
        }
    }
}

/// The sealer's counters.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    pub(crate) chunks: AtomicU64,
    pub(crate) lines: AtomicU64,
    pub(crate) gap_lines: AtomicU64,
    pub(crate) merged_chunks: AtomicU64,
    pub(crate) kept_lines: AtomicU64,
    pub(crate) retired: Mutex<[Retired; 5]>,
    pub(crate) database_bytes: AtomicU64,
}

impl Tally {
    pub(crate) fn retire(&self, reason: RetainReason, deleted: Deleted) {
        let mut all = self.retired.lock();
        let one = &mut all[reason as usize];
        one.chunks_total += deleted.chunks;
        one.lines_total += deleted.lines;
        one.bytes_total += deleted.bytes;
    }
}

/// What fails now, and what failed last.
#[derive(Debug, Default)]
pub(crate) struct Trouble(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    spool: Option<String>,
    database: Option<String>,
    last: Option<String>,
    spool_errors: u64,
    database_errors: u64,
}

impl Trouble {
    pub(crate) fn spool_failed(&self, error: &io::Error) {
        let said = format!("the log spool cannot be written: {error}");
        let mut state = self.0.lock();
        state.spool_errors += 1;
        state.last = Some(said.clone());
        state.spool = Some(said);
    }

    pub(crate) fn spool_waits(&self, why: &str) {
        let mut state = self.0.lock();
        state.last = Some(why.into());
        state.spool = Some(why.into());
    }

    pub(crate) fn spool_well(&self) {
        self.0.lock().spool = None;
    }

    pub(crate) fn database_failed(&self, what: &str) {
        let mut state = self.0.lock();
        state.database_errors += 1;
        state.last = Some(what.into());
        state.database = Some(what.into());
    }

    pub(crate) fn database_waits(&self, why: &str) {
        let mut state = self.0.lock();
        state.last = Some(why.into());
        state.database = Some(why.into());
    }

    pub(crate) fn database_well(&self) {
        self.0.lock().database = None;
    }

    fn look(&self) -> (u64, u64, Option<String>, Option<String>) {
        let state = self.0.lock();
        let both: Vec<&str> = [&state.spool, &state.database].into_iter().flatten().map(String::as_str).collect();
        let degraded = (!both.is_empty()).then(|| both.join("; "));
        (state.spool_errors, state.database_errors, state.last.clone(), degraded)
    }
}
