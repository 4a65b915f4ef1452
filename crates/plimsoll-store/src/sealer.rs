//! The sealer: reads frames that are in the spool, splits them into lines, and writes compressed chunks, each in one transaction with
//! the positions where its streams go on. So a line is in the database or will be found again in the spool, never both, never neither.
//!
//! It reads when 1 MiB is there, and seals everything it has at 1 MiB or 10,000 lines of a stream, 30 s (`seal_after`) after the first
//! line that waits, when a segment must be freed, and at closing. Until then lines wait in ring and spool, not in heap. It runs at nice
//! 10; what a crash of the *machine* can lose is what the spool has taken since its last `fdatasync`, which it makes 1 s after the first
//! byte that is not synced.
//!
//! Any failure of the database (locked, full, read-only, I/O) makes it forget what it holds in memory and begin again at the
//! positions in the database, after 100 ms, 200 ms … 5 s. A corrupt or removed database is replaced by a new one.

use std::sync::atomic::Ordering;
use std::time::Duration;

use crate::chunk::{Batch, Builders, Sealed};
use crate::core::{Core, SEAL_BYTES};
use crate::frame::{Frame, GAP_BYTES, Kind};
use crate::merge::{EVERY_SEALS, Merger};
use crate::recover::unknown;
use crate::retain::{self, Opened};
use crate::schema::is_damage;
use crate::segment::{FrameReader, Stop};
use crate::split::Resume;
use crate::{GapReason, StoreError, Stream, clock};

/// Longest time that spooled bytes stay unsynced.
const SYNC_AFTER: Duration = Duration::from_secs(1);
const FIRST_RETRY: Duration = Duration::from_millis(100);
const LAST_RETRY: Duration = Duration::from_secs(5);
/// The sealer yields to everything that the supervised program does.
const NICE: i32 = 10;
/// An unfinished line may hold back this many segments before it is cut.
const PATIENCE_SEGMENTS: u64 = 2;

/// What gets too old is looked for no sooner, and no later: the wall clock may be set.
const SOONEST_LOOK: Duration = Duration::from_secs(1);
const LATEST_LOOK: Duration = Duration::from_secs(3600);

/// What to do after a turn.
enum Turn {
    Again,
    /// Until woken, or this long.
    Sleep(Option<Duration>),
    Done,
}

struct Sealer<'a> {
    core: &'a Core,
    database: Option<Opened>,
    work: Option<Work>,
    /// When everything that waits is sealed; `None`: nothing waits.
    seal_at: Option<Duration>,
    /// When the spool is synced; `None`: it is.
    sync_at: Option<Duration>,
    retry_at: Duration,
    retry_after: Duration,
    /// Where the streams go on after the last seal of this life: a new database in place of a lost one goes on there.
    sealed: Option<[Resume; 3]>,
    /// A lost database was told of, and nothing was sealed since.
    told_lost: bool,
    merger: Merger,
    /// Seals since small chunks were merged.
    unmerged: u64,
    /// When the oldest chunk gets too old; `None`: there is none, or age is no matter.
    age_at: Option<Duration>,
    /// A reader keeps the database's log from being emptied.
    held: bool,
}

/// What is read and not sealed yet.
struct Work {
    frames: FrameReader,
    builders: Builders,
    /// Everything before this is sealed.
    lowest: u64,
    /// A break was asked for when the ring's head was here.
    cut_at: u64,
}

/// The sealer thread's loop (`told_lost`: a gap for a lost database is written already); ends when the store closes and everything is sealed, or when it is told to give up.
pub(crate) fn run(core: &Core, database: Option<Opened>, told_lost: bool) {
    // Without the right to be nicer there is nothing to do about it.
    rustix::process::setpriority_process(None, NICE).unwrap_or_default();
    let mut sealer = Sealer {
        core,
        told_lost,
        database,
        work: None,
        seal_at: None,
        sync_at: None,
        sealed: None,
        retry_at: Duration::ZERO,
        retry_after: FIRST_RETRY,
        merger: Merger::default(),
        unmerged: 0,
        // Looked at as soon as there is a database.
        age_at: core.settings.retain_age.map(|_| Duration::ZERO),
        held: false,
    };
    while !core.gives_up() {
        match sealer.turn() {
            Ok(Turn::Again) => {}
            Ok(Turn::Sleep(None)) => std::thread::park(),
            Ok(Turn::Sleep(Some(limit))) => std::thread::park_timeout(limit),
            Ok(Turn::Done) => return,
            Err(error) => sealer.failed(&error),
        }
    }
}

impl Sealer<'_> {
    fn turn(&mut self) -> Result<Turn, StoreError> {
        let core = self.core;
        let now = clock::monotonic();
        // Looked at before the tail: then nothing can come behind the tail that is read.
        let last = core.spool_is_final();
        self.sync_spool(now);
        if now < self.retry_at {
            return Ok(Turn::Sleep(Some(self.retry_at - now)));
        }
        let tail = core.ring.tail();
        self.prepare(tail)?;
        let Some(work) = self.work.as_mut() else { return Ok(Turn::Again) };
        let pressed = core.pressed.swap(false, Ordering::AcqRel);
        let due = last || pressed || self.seal_at.is_some_and(|at| now >= at);
        if due || tail.saturating_sub(work.frames.position()) >= SEAL_BYTES {
            work.read(core, tail)?;
            core.sealed_to.store(work.frames.position(), Ordering::Release);
        }
        let at_end = work.frames.position() >= tail;
        // Pressed with nothing to seal: the disk is nearly full, and only old chunks can make room.
        let must_make_room = pressed && at_end && work.builders.is_empty() && core.settings.free_disk_bytes > 0;
        let must_keep = must_make_room || self.age_at.is_some_and(|at| now >= at);
        let patience = PATIENCE_SEGMENTS * core.spool.segment_bytes();
        let far_behind = work.frames.position().saturating_sub(work.lowest) >= patience;
        let must_seal = work.builders.is_full() || (due && at_end) || (far_behind && !work.builders.is_empty());
        if (must_keep || must_seal) && self.may_not_write()? {
            // Due again at once then: what is read waits in memory, the rest in the spool.
            self.seal_at = self.seal_at.or(due.then_some(now));
            return Ok(Turn::Sleep(Some(self.retry_at - now)));
        }
        if must_keep {
            self.keep(at_end)?;
            return Ok(Turn::Again);
        }
        let Some(work) = self.work.as_mut() else { return Ok(Turn::Again) };
        if must_seal {
            self.seal(due && at_end)?;
            if due && !at_end {
                // A chunk was full before the end: what is behind it has waited as long.
                self.seal_at = Some(now);
            }
            return Ok(if last && at_end { Turn::Done } else { Turn::Again });
        }
        work.cut_what_holds(core, patience, at_end);
        let waiting = !at_end || !work.builders.is_empty();
        Ok(self.rest(now, tail, waiting))
    }

    /// Whether a reader keeps the database's log from being emptied, which is as long as it may get. It is said, and looked at again
    /// after 100 ms … 5 s.
    fn may_not_write(&mut self) -> Result<bool, StoreError> {
        let core = self.core;
        let Some(opened) = self.database.as_ref() else { return Ok(false) };
        let Some(bytes) = opened.log_is_held(&core.settings)? else {
            if std::mem::take(&mut self.held) {
                core.trouble.database_well();
                self.retry_after = FIRST_RETRY;
            }
            return Ok(false);
        };
        let path = opened.database.path().display();
        core.trouble.database_waits(&format!(
            "a reader holds an old state of {path}, whose log cannot be emptied and has {bytes} bytes: lines wait in the spool"
        ));
        self.held = true;
        self.retry_at = clock::monotonic() + self.retry_after;
        self.retry_after = (self.retry_after * 2).min(LAST_RETRY);
        Ok(true)
    }

    /// Sets the timers, and says how long to sleep.
    fn rest(&mut self, now: Duration, tail: u64, waiting: bool) -> Turn {
        let core = self.core;
        if waiting && self.seal_at.is_none() {
            self.seal_at = Some(now.saturating_add(core.settings.seal_after));
        }
        if self.sync_at.is_none() {
            // From here on the spooler's next write wakes this thread.
            core.sealer_knows.store(false, Ordering::SeqCst);
            if core.spool.is_unsynced() {
                core.sealer_knows.store(true, Ordering::SeqCst);
                self.sync_at = Some(now.saturating_add(SYNC_AFTER));
            } else if core.ring.tail() != tail {
                return Turn::Again;
            }
        }
        let next = [self.seal_at, self.sync_at, self.age_at].into_iter().flatten().min();
        Turn::Sleep(next.map(|at| at.saturating_sub(now)))
    }

    fn sync_spool(&mut self, now: Duration) {
        if self.sync_at.is_none_or(|at| now < at) {
            return;
        }
        self.sync_at = match self.core.spool.sync() {
            Ok(()) => None,
            Err(e) => {
                self.core.trouble.spool_failed(&e);
                Some(now + SYNC_AFTER)
            }
        };
    }

    /// Makes sure that there is a database, and a place to go on from.
    fn prepare(&mut self, tail: u64) -> Result<(), StoreError> {
        let core = self.core;
        if self.database.as_ref().is_some_and(|opened| !opened.is_in_place()) {
            self.database = None;
            self.work = None;
        }
        let oldest = core.spool.oldest().unwrap_or(tail);
        if self.database.is_some() && self.work.is_some() {
            return Ok(());
        }
        let opened = match self.database.as_ref() {
            Some(opened) => opened,
            None => {
                let opened = self.database.insert(retain::open(&core.settings)?);
                core.tally.database_bytes.store(opened.database.size_bytes(), Ordering::Relaxed);
                core.tally.kept_lines.store(opened.lines(), Ordering::Relaxed);
                let fresh = opened.database.sealed_positions()? == [Resume::default(); 3];
                if fresh && oldest > 0 && !self.told_lost {
                    self.told_lost = true;
                    core.database_was_lost(
                        "the database of older log lines was damaged or removed; a new one was begun",
                    );
                }
                opened
            }
        };
        let mut resume = opened.database.sealed_positions()?;
        if oldest > 0 {
            // A new database: what lies before the spool went with the old one.
            for (stream, from) in Stream::ALL.into_iter().zip(&mut resume) {
                if *from == Resume::default() {
                    *from = self.sealed.map_or_else(|| begins(stream, oldest, tail), |sealed| sealed[stream.index()]);
                }
            }
        }
        let lowest = resume.iter().map(|r| r.frame).min().unwrap_or(0);
        self.work = Some(Work {
            frames: FrameReader::new(core.spool.dir(), lowest),
            builders: Builders::new(core.settings.max_line_bytes, resume),
            lowest,
            cut_at: 0,
        });
        Ok(())
    }

    /// Writes what is collected, frees segments, keeps the budget. `idle`: there was nothing more to read.
    fn seal(&mut self, idle: bool) -> Result<(), StoreError> {
        let core = self.core;
        let (Some(work), Some(opened)) = (self.work.as_mut(), self.database.as_mut()) else { return Ok(()) };
        let position = work.frames.position();
        let batch = work.builders.finish(position).map_err(StoreError::io("compress lines for", &core.settings.dir))?;
        opened.database.insert(&batch.sealed, &batch.resume)?;
        work.lowest = batch.resume.iter().map(|r| r.frame).min().unwrap_or(0);
        self.sealed = Some(batch.resume);
        count(core, &batch);
        core.trouble.database_well();
        self.seal_at = None;
        self.told_lost = false;
        self.retry_after = FIRST_RETRY;
        if core.spool.has_free(work.lowest, idle) {
            // Synced before the only other copy goes.
            opened.database.checkpoint()?;
            match core.spool.free_below(work.lowest, idle) {
                Ok(()) => core.wake_spooler(),
                Err(e) => core.trouble.spool_failed(&e),
            }
        }
        let sum = |of: fn(&Sealed) -> u64| batch.sealed.iter().map(of).sum();
        opened.sealed(sum(|s| s.lines), sum(|s| s.blob.len() as u64));
        self.unmerged += 1;
        self.keep(idle)
    }

    /// Deletes what is too much, merges what is too small, and when idle gives disk and memory back.
    fn keep(&mut self, idle: bool) -> Result<(), StoreError> {
        let core = self.core;
        let Some(opened) = self.database.as_mut() else { return Ok(()) };
        let now = clock::unix_ns();
        opened.retain(&core.settings, now, idle, &mut |reason, deleted| core.tally.retire(reason, deleted))?;
        let may_merge = !core.is_closing() && opened.log_is_held(&core.settings)?.is_none();
        if may_merge && (idle || self.unmerged >= EVERY_SEALS) {
            self.unmerged = 0;
            let merged = self.merger.step(&mut opened.database)?;
            core.tally.merged_chunks.fetch_add(merged.from, Ordering::Relaxed);
        }
        let due = opened.too_old_at_unix_ns(&core.settings)?;
        self.age_at = due.map(|due| {
            let wait = Duration::from_nanos(due.saturating_sub(now)).clamp(SOONEST_LOOK, LATEST_LOOK);
            clock::monotonic().saturating_add(wait)
        });
        if idle {
            opened.give_back(&|| core.gives_up())?;
            core.writer.lock().trim();
        }
        core.tally.kept_lines.store(opened.lines(), Ordering::Relaxed);
        core.tally.database_bytes.store(opened.database.size_bytes(), Ordering::Relaxed);
        Ok(())
    }

    /// Forgets what is in memory; it is in the spool. A corrupt database is set aside.
    fn failed(&mut self, error: &StoreError) {
        let core = self.core;
        core.trouble.database_failed(&error.to_string());
        self.work = None;
        self.database = None;
        if is_damage(error)
            && let Err(e) = retain::set_aside(&core.settings.dir.join(retain::DATABASE_FILE))
        {
            core.trouble.database_failed(&format!("the damaged log database cannot be set aside: {e}"));
        }
        self.retry_at = clock::monotonic() + self.retry_after;
        self.retry_after = (self.retry_after * 2).min(LAST_RETRY);
    }
}

/// Where to go on in a spool of which nobody knows what is sealed: only the lost database knew where in a line it begins.
fn begins(stream: Stream, oldest: u64, tail: u64) -> Resume {
    Resume { frame: oldest, byte: 0, skipping: oldest < tail && stream != Stream::Plimsoll }
}

fn count(core: &Core, batch: &Batch) {
    let add = |counter: &std::sync::atomic::AtomicU64, value| counter.fetch_add(value, Ordering::Relaxed);
    for sealed in &batch.sealed {
        add(&core.tally.chunks, 1);
        add(&core.tally.lines, sealed.lines);
        add(&core.tally.gap_lines, sealed.gap_lines);
    }
}

impl Work {
    /// Reads frames up to `tail`, or until a stream has a chunk's worth.
    fn read(&mut self, core: &Core, tail: u64) -> Result<(), StoreError> {
        while !self.builders.is_full() && !core.gives_up() {
            match self.frames.step(tail).map_err(StoreError::io("read", core.spool.dir()))? {
                Ok(()) => self.builders.push(&self.frames.frame(), self.frames.payload()),
                Err(Stop::End) => break,
                Err(Stop::Hole) => {
                    let next = core.spool.next_after(self.frames.position()).unwrap_or(tail).min(tail);
                    self.damaged(next);
                }
                Err(Stop::Bad { segment, offset, why }) => {
                    let path = crate::segment::path(core.spool.dir(), segment);
                    let end = core.spool.set_aside(segment).map_err(StoreError::io("set aside", &path))?;
                    let said = format!("{} at byte {offset}: {why}; it was set aside", path.display());
                    core.trouble.spool_failed(&std::io::Error::other(said));
                    self.damaged(end.unwrap_or(tail));
                }
            }
        }
        Ok(())
    }

    /// Puts gaps of unknown count in place of what lies between here and `next`, and goes on there.
    fn damaged(&mut self, next: u64) {
        let at_unix_ns = clock::unix_ns();
        let mut note = unknown(GapReason::SpoolDamaged, at_unix_ns);
        // Where a line begins behind the damage cannot be known: up to the next line end nothing is taken for a line.
        note.open = true;
        for (i, stream) in [Stream::Stdout, Stream::Stderr].into_iter().enumerate() {
            let position = self.frames.position() + 8 * i as u64;
            let frame = Frame { kind: Kind::Gap, stream, flags: 0, len: GAP_BYTES, position, at_unix_ns };
            self.builders.push(&frame, &note.encode());
        }
        self.frames.seek(next);
    }

    /// An unfinished line that holds back old segments is cut by a break in the ring. With everything read and the spool at its
    /// budget the break could never be spooled: then the spool may exceed it by what the ring holds.
    fn cut_what_holds(&mut self, core: &Core, patience: u64, at_end: bool) {
        let position = self.frames.position();
        let before = position.saturating_sub(patience);
        let holding: Vec<Stream> = self.builders.unfinished_before(before).collect();
        core.spool.set_overdraft(if at_end && !holding.is_empty() { core.ring.capacity() } else { 0 });
        if holding.is_empty() || position <= self.cut_at {
            return;
        }
        self.cut_at = core.ring.head();
        let mut writer = core.writer.lock();
        for stream in holding {
            writer.cut_line(stream, clock::unix_ns());
        }
        drop(writer);
        core.wake_spooler();
    }
}
