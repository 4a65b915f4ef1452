//! Opening and closing a store. Open, in this order: lock the directory (a second opener is refused) · open the database, or set a
//! damaged one aside · check the spool, cut a torn end once · adopt the ring of a dead supervisor and finish its read, or record that
//! the ring is lost · start the two threads. Nothing that was taken before is lost by it; what cannot be found again becomes a gap.
//!
//! A database that cannot be written *now* (locked, disk full, read-only) does not stop the opening: how far sealing has come is read as
//! a reader does, lines wait in ring and spool, and `Stats::degraded` says why.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread::JoinHandle;
use std::time::Duration;

use crate::core::{Core, Ended};
use crate::disk::RealDisk;
use crate::recover::{self, Interrupted};
use crate::ring::{Found, Ring, at};
use crate::segment::{self, Checked, Content};
use crate::segments::Segments;
use crate::split::Resume;
use crate::stats::Stats;
use crate::writer::Writer;
use crate::{GapReason, Intake, Settings, StoreError, Stream, clock, retain, sealer, spooler};

/// Name of the file in [`Settings::dir`] that holds the ring's path, for readers. It exists while there is a ring.
pub(crate) const RING_PATH_FILE: &str = "ring.path";
/// Name of the directory of segments.
pub(crate) const SPOOL_DIR: &str = "spool";
/// Name of the lock file inside `spool/`.
pub(crate) const LOCK_FILE: &str = "lock";
/// How long an opener waits for the lock: a process that was being forked when a store closed holds it until its `exec`.
const LOCK_PATIENCE: Duration = Duration::from_millis(200);
/// After the closing deadline: how long the threads have to notice.
const NOTICE: Duration = Duration::from_millis(250);

/// What [`open`] found and did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Recovery {
    /// The ring of an earlier supervisor was taken over, with everything in it.
    pub adopted_ring: bool,
    /// What became of the read that its death interrupted.
    pub interrupted: Interrupted,
    /// Bytes of the adopted ring that were not in the spool yet.
    pub ring_bytes: u64,
    /// Bytes of the spool at open.
    pub spool_bytes: u64,
    /// An earlier supervisor's ring is gone (the machine restarted, or it was removed). A gap of unknown count says so.
    pub ring_lost: bool,
    /// Bytes cut from the torn end of the newest spool segment; the ring usually still has them.
    pub torn_bytes: u64,
    /// Spool segments that are missing between others; each is a gap of unknown count.
    pub spool_holes: u64,
    /// A damaged database was renamed to this, and a new one begun.
    pub database_set_aside: Option<PathBuf>,
    /// The database of sealed lines is gone or was set aside. A gap of unknown count says so.
    pub database_lost: bool,
    /// What does not work; the store takes lines all the same and tries again.
    pub degraded: Option<String>,
}

impl Recovery {
    /// What is worth telling, one sentence each; empty for a first or clean start.
    pub fn notes(&self) -> Vec<String> {
        let mut notes = Vec::new();
        if self.adopted_ring {
            notes.push(format!("took over the log ring of an earlier supervisor with {} bytes in it", self.ring_bytes));
        }
        if let Interrupted::Finished { bytes } = self.interrupted {
            notes.push(format!("finished a read of {bytes} bytes that its death interrupted"));
        }
        if self.ring_lost {
            notes.push("the log ring of an earlier supervisor is gone; what was only there is lost".into());
        }
        if self.torn_bytes > 0 {
            notes.push(format!("cut {} bytes from the torn end of the log spool", self.torn_bytes));
        }
        if self.spool_holes > 0 {
            notes.push(format!("{} segments of the log spool are missing", self.spool_holes));
        }
        if let Some(path) = &self.database_set_aside {
            notes.push(format!("the log database is damaged and was set aside as {}", path.display()));
        } else if self.database_lost {
            notes.push("the log database is gone; a new one was begun".into());
        }
        notes.extend(self.degraded.clone());
        notes
    }
}

/// What [`Store::close`] left behind. Nothing of it is lost: the next open goes on with it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Closed {
    /// Everything is in the database.
    pub complete: bool,
    /// Bytes that stay in the ring.
    pub ring_bytes: u64,
    /// Bytes that stay in the spool.
    pub spool_bytes: u64,
    /// Threads that hang in a system call (a disk that does not answer) and were left behind.
    pub stuck_threads: Vec<&'static str>,
    /// The last figures.
    pub stats: Stats,
}

/// The life of an open store: its figures, its end. Dropping it is `close` without time: threads end, ring and spool keep what they hold.
#[derive(Debug)]
pub struct Store {
    pub(crate) core: Arc<Core>,
    spooler: Option<JoinHandle<()>>,
    sealer: Option<JoinHandle<()>>,
    _lock: File,
}

/// Says that the supervisor lives; cheap, and may be used from any thread.
#[derive(Clone, Debug)]
pub struct Heartbeat(Arc<Core>);

impl Heartbeat {
    /// Stores the time (`CLOCK_MONOTONIC`, nanoseconds) in the ring's header, where readers see its age.
    pub fn beat(&self, monotonic_ns: u64) {
        self.0.ring.set(at::HEARTBEAT, monotonic_ns);
    }
}

/// Opens the store in `settings.dir`, or makes it.
///
/// # Errors
/// [`StoreError::Settings`] for values out of range; [`StoreError::InUse`] if another process (or this one) has it open;
/// [`StoreError::Damaged`] if a spool segment or the ring is damaged in a way that no crash explains; [`StoreError::Version`] if another
/// version wrote the database; [`StoreError::Io`] if directory, lock or ring cannot be made.
pub fn open(settings: Settings) -> Result<(Intake, Store, Recovery), StoreError> {
    settings.validate()?;
    let dir = settings.dir.clone();
    let spool_dir = dir.join(SPOOL_DIR);
    for path in [&dir, &spool_dir] {
        DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(StoreError::io("make", path))?;
    }
    let lock = lock(&spool_dir.join(LOCK_FILE))?;
    let mut recovery = Recovery::default();
    let database = open_database(&settings, &mut recovery)?;
    let known = match &database {
        Some(opened) => Some(opened.database.sealed_positions()?),
        None => sealed_for_a_reader(&settings)?,
    };
    let sealed = known.unwrap_or_default();
    let checked = segment::check(Content::Log, &spool_dir, 0, &mut |_| ())?;
    recovery.torn_bytes = checked.torn_bytes;
    recovery.spool_holes = checked.holes;
    let (ring, mut writer) = open_ring(&settings, &checked, sealed, known.is_some(), &mut recovery)?;
    let spool = Segments::new(spool_dir, Content::Log, Box::new(RealDisk), settings.spool_bytes, &checked.segments);
    recovery.spool_bytes = spool.used();
    recovery.ring_bytes = ring.used();
    let began = checked.segments.first().map_or(ring.tail(), |(start, _)| *start);
    let fresh = database.is_some() && sealed == [Resume::default(); 3];
    recovery.database_lost =
        recovery.database_set_aside.is_some() || (fresh && began > 0 && recovery.degraded.is_none());
    if recovery.database_lost {
        writer.add_gap(Stream::Plimsoll, recover::unknown(GapReason::DatabaseLost, clock::unix_ns()));
    }
    writer.limit(settings.rate_limit);
    let found = write_ring_path(&dir, ring.path());
    let core = Arc::new(Core::new(settings, ring, writer, spool));
    if let Err(e) = found {
        // Without it readers do not find the ring; the spooler tries again.
        core.ring_path_owed.store(true, Ordering::Relaxed);
        recovery.degraded.get_or_insert_with(|| e.to_string());
        core.trouble.spool_failed(&io::Error::other(e));
    }
    if let Some(said) = &recovery.degraded {
        core.trouble.database_failed(said);
    }
    let spooler = start("plimsoll-spool", &core, |core| {
        spooler::run(core);
        core.has_ended(|e| e.spooler = true);
    })?;
    let told_lost = recovery.database_lost;
    let sealer = start("plimsoll-seal", &core, move |core| {
        sealer::run(core, database, told_lost);
        core.has_ended(|e| e.sealer = true);
    });
    let sealer = match sealer {
        Ok(sealer) => sealer,
        Err(e) => {
            core.stop_now();
            spooler.thread().unpark();
            join(spooler);
            return Err(e);
        }
    };
    core.threads_are(spooler.thread().clone(), sealer.thread().clone());
    core.wake_spooler();
    core.wake_sealer();
    let intake = Intake::new(core.clone());
    Ok((intake, Store { core, spooler: Some(spooler), sealer: Some(sealer), _lock: lock }, recovery))
}

impl Store {
    /// The figures of this moment. Never waits for a disk.
    pub fn stats(&self) -> Stats {
        Stats::of(&self.core)
    }

    /// Says that the supervisor is alive; see [`Heartbeat::beat`].
    pub fn heartbeat(&self, monotonic_ns: u64) {
        self.core.ring.set(at::HEARTBEAT, monotonic_ns);
    }

    /// A handle for another thread to say that the supervisor is alive.
    pub fn heartbeat_handle(&self) -> Heartbeat {
        Heartbeat(self.core.clone())
    }

    /// Stores `text` as one line of [`Stream::Plimsoll`], like [`Intake::note`], from any thread.
    pub fn note(&self, text: &str, at_unix_ns: u64) {
        self.core.note(text, at_unix_ns);
    }

    /// Where the ring is: an adopted one may lie elsewhere than `Settings::ring_path`.
    pub fn ring_path(&self) -> &Path {
        self.core.ring.path()
    }

    /// Ends unfinished lines, takes nothing more, and seals everything; returns after at most `deadline` and half a second. What is
    /// not sealed by then stays in ring and spool, readable, for the next open to go on with.
    pub fn close(mut self, deadline: Duration) -> Closed {
        self.core.start_closing(clock::unix_ns());
        self.end(deadline)
    }

    fn end(&mut self, deadline: Duration) -> Closed {
        let all = Ended { spooler: true, sealer: true };
        let mut ended = self.core.wait_for_end(deadline);
        if ended != all {
            self.core.stop_now();
            ended = self.core.wait_for_end(NOTICE);
        }
        let mut stuck_threads = Vec::new();
        let threads = [("spool", self.spooler.take(), ended.spooler), ("seal", self.sealer.take(), ended.sealer)];
        for (name, thread, done) in threads {
            match thread {
                Some(thread) if done => join(thread),
                Some(_) => stuck_threads.push(name),
                None => {}
            }
        }
        let core = &self.core;
        let ring_bytes = core.ring.used();
        let owed = Stream::ALL.into_iter().any(|stream| core.ring.pending_gap(stream).is_some());
        let spool_bytes = core.spool.used();
        let complete = ring_bytes == 0 && !owed && spool_bytes == 0;
        if complete && core.is_closing() && ended == all {
            // A ring with nothing more to do is not left behind: without `ring.path` the next open knows that nothing was lost.
            // If either cannot be removed, the next open adopts an empty ring.
            remove_quietly(&core.settings.dir.join(RING_PATH_FILE));
            remove_quietly(core.ring.path());
        }
        Closed { complete, ring_bytes, spool_bytes, stuck_threads, stats: self.stats() }
    }
}

impl Drop for Store {
    fn drop(&mut self) {
        if self.spooler.is_some() || self.sealer.is_some() {
            self.core.writer.lock().closed = true;
            self.core.stop_now();
            self.end(Duration::ZERO);
        }
    }
}

fn start(
    name: &'static str,
    core: &Arc<Core>,
    run: impl FnOnce(&Core) + Send + 'static,
) -> Result<JoinHandle<()>, StoreError> {
    let core = core.clone();
    let thread = std::thread::Builder::new().name(name.into()).stack_size(512 << 10).spawn(move || run(&core));
    thread.map_err(StoreError::io("start a thread for", name))
}

/// A thread of ours that panicked has said so on stderr already; its part of the work waits in ring and spool.
fn join(thread: JoinHandle<()>) {
    drop(thread.join());
}

fn remove_quietly(path: &Path) {
    drop(std::fs::remove_file(path));
}

/// Takes the lock file at `path` for this process alone, as long as the file lives.
pub(crate) fn lock(path: &Path) -> Result<File, StoreError> {
    use rustix::fs::{FlockOperation, flock};
    let open = OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(path);
    let file = open.map_err(StoreError::io("open", path))?;
    let until = clock::monotonic() + LOCK_PATIENCE;
    loop {
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => return Ok(file),
            Err(rustix::io::Errno::WOULDBLOCK) if clock::monotonic() < until => std::thread::sleep(LOCK_PATIENCE / 20),
            Err(rustix::io::Errno::WOULDBLOCK) => return Err(StoreError::InUse { path: path.to_path_buf() }),
            Err(e) => return Err(StoreError::io("lock", path)(e.into())),
        }
    }
}

/// `None`: it cannot be used now; `recovery.degraded` says why.
fn open_database(settings: &Settings, recovery: &mut Recovery) -> Result<Option<retain::Opened>, StoreError> {
    match retain::open(settings) {
        Ok(opened) => {
            recovery.database_set_aside.clone_from(&opened.set_aside);
            Ok(Some(opened))
        }
        Err(e @ StoreError::Version { .. }) => Err(e),
        Err(e) => {
            recovery.degraded = Some(e.to_string());
            Ok(None)
        }
    }
}

/// How far sealing has come, as a reader sees it: another process's write lock, a full disk or a file that may not be written keep nobody
/// from reading. `None`: it cannot be read either.
fn sealed_for_a_reader(settings: &Settings) -> Result<Option<[Resume; 3]>, StoreError> {
    match crate::query::sealed_position(&settings.dir.join(retain::DATABASE_FILE)) {
        Ok(position) => Ok(Some(position.resume)),
        Err(e @ StoreError::Version { .. }) => Err(e),
        Err(_) => Ok(None),
    }
}

/// Adopts the ring of a dead supervisor, or makes a new one.
fn open_ring(
    settings: &Settings,
    checked: &Checked,
    sealed: [Resume; 3],
    known: bool,
    recovery: &mut Recovery,
) -> Result<(Arc<Ring>, Writer), StoreError> {
    let spool_end = checked.segments.last().map(|(_, end)| *end);
    let sealed_to = sealed.iter().map(|r| r.frame).max().unwrap_or(0);
    let reached = spool_end.unwrap_or(0).max(sealed_to);
    let recorded = read_ring_path(&settings.dir).map_err(StoreError::io("read", settings.dir.join(RING_PATH_FILE)))?;
    let mut places: Vec<&Path> = recorded.as_deref().into_iter().collect();
    if recorded.as_deref() != Some(&settings.ring_path) {
        places.push(&settings.ring_path);
    }
    for path in places {
        match Ring::find(path).map_err(StoreError::io("open", path))? {
            Found::Alive(ring) if ring.head() >= reached => {
                recovery.adopted_ring = true;
                return adopt(ring, spool_end, sealed, recovery);
            }
            Found::Alive(_) => {
                // Older than the spool: not the ring that was used last.
                let aside = path.with_extension("ring-stale");
                std::fs::rename(path, &aside).map_err(StoreError::io("set aside", path))?;
                recovery.ring_lost = true;
            }
            Found::Lost => {}
            Found::Foreign(what) => {
                return Err(StoreError::Damaged { path: path.to_path_buf(), offset: 0, what: what.into() });
            }
        }
    }
    recovery.ring_lost |= recorded.is_some();
    if !known {
        // Where to go on stands only in the database, which cannot be read now.
        let database = settings.dir.join(retain::DATABASE_FILE);
        let said = recovery.degraded.take().unwrap_or_default();
        return Err(StoreError::Io {
            action: "find the end of the log in",
            path: database,
            source: io::Error::other(said),
        });
    }
    let made = Ring::create(&settings.ring_path, settings.ring_bytes, reached.next_multiple_of(8));
    let ring = Arc::new(made.map_err(StoreError::io("make the log ring", &settings.ring_path))?);
    let mut writer = Writer::new(ring.clone());
    if recovery.ring_lost {
        let now = clock::unix_ns();
        for stream in [Stream::Stdout, Stream::Stderr] {
            writer.add_gap(stream, recover::unknown(GapReason::RingLost, now));
        }
    }
    Ok((ring, writer))
}

/// Finishes what the dead writer had begun and agrees with the spool on where it ends.
fn adopt(
    ring: Ring,
    spool_end: Option<u64>,
    sealed: [Resume; 3],
    recovery: &mut Recovery,
) -> Result<(Arc<Ring>, Writer), StoreError> {
    let ring = Arc::new(ring);
    let mut writer = Writer::new(ring.clone());
    recovery.interrupted = recover::finish_intent(&ring, &mut writer);
    let lowest = sealed.iter().map(|r| r.frame).min().unwrap_or(0);
    let spooled_to = spool_end.unwrap_or(lowest);
    let tail = ring.tail();
    // The spool may be ahead (killed between write and tail), or behind (torn, or a file is gone) with the frames still in the ring.
    if (spooled_to > tail && spooled_to <= ring.head())
        || (spooled_to < tail && recover::still_holds(&ring, spooled_to))
    {
        ring.set(at::TAIL, spooled_to);
    }
    if let Err((position, why)) = recover::check_frames(&ring, ring.tail()) {
        let offset = ring.offset(position) as u64;
        return Err(StoreError::Damaged { path: ring.path().to_path_buf(), offset, what: why.to_string() });
    }
    Ok((ring, writer))
}

/// The path that `ring.path` holds, if there is such a file.
pub(crate) fn read_ring_path(dir: &Path) -> io::Result<Option<PathBuf>> {
    let mut bytes = Vec::new();
    match File::open(dir.join(RING_PATH_FILE)) {
        Ok(file) => file.take(4096).read_to_end(&mut bytes)?,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(e),
    };
    if bytes.last() == Some(&b'\n') {
        bytes.pop();
    }
    Ok((!bytes.is_empty()).then(|| PathBuf::from(std::ffi::OsString::from_vec(bytes))))
}

pub(crate) fn write_ring_path(dir: &Path, ring: &Path) -> Result<(), StoreError> {
    let path = dir.join(RING_PATH_FILE);
    if read_ring_path(dir).is_ok_and(|there| there.as_deref() == Some(ring)) {
        return Ok(());
    }
    let new = path.with_extension("path-new");
    let write = || {
        let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&new)?;
        file.write_all(ring.as_os_str().as_bytes())?;
        file.write_all(b"\n")?;
        std::fs::rename(&new, &path)
    };
    write().map_err(StoreError::io("write", &path))
}
