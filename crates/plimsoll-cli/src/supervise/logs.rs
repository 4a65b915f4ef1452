//! Where the program's output goes: the one place that knows both the tail thread and the log store.
//!
//! The ring lies on tmpfs (`/dev/shm/plimsoll-UID/…`, directory 0700 and our own), else beside the other files, which is
//! said. A store that cannot be opened is no reason not to run: the output is then read, echoed, counted and not kept, every
//! face says so, and it is tried again ([`late`]).

mod late;

pub(crate) use late::RETRY;

use std::io;
use std::os::fd::BorrowedFd;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use plimsoll::clock::{self, Clock as _, MonotonicClock};
use plimsoll_store::{Intake, RateLimit, RetainReason, Settings, Store, Stream};

use self::late::{Late, Nowhere};
use super::beat::Beat;
use crate::commands::keep::Keep;
use crate::commands::rate::words;
use crate::layout::Layout;
use crate::snapshot::volume::VolumeView;
use crate::snapshot::{LogsView, StreamView};
use crate::tail::echo::Echo;
use crate::tail::{self, Inputs, Landing, Notes, STDERR, Setup, Sink, TailHandle};

/// How long sealing what is left may take at the end; what is not sealed stays readable in the spool.
const SEAL: Duration = Duration::from_secs(3);
/// Shared memory, where the ring survives us and costs no disk.
const SHARED_MEMORY: &str = "/dev/shm";

/// Disk that a log may take in all, when nothing else is said.
pub(crate) const LOG_DISK_BYTES: u64 = 1 << 30;
/// The least that it may be: the write-ahead log takes 8 MiB of it while it is busy.
pub(crate) const LOG_DISK_MIN_BYTES: u64 = 32 << 20;
/// What the database takes beyond the chunks that it keeps: its write-ahead log, and the chunks of one seal before the oldest go.
const DATABASE_BESIDE_BYTES: u64 = 12 << 20;
/// The part of it that lines may take before they are compressed …
const SPOOL_PART: u64 = 4;
/// … but never more than this.
const SPOOL_MAX_BYTES: u64 = plimsoll_store::DEFAULT_SPOOL_BYTES;

/// How much of the output is kept.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Kept {
    /// Disk in all.
    pub(crate) disk_bytes: u64,
    /// What each stream may print.
    pub(crate) rate: RateLimit,
    /// How long, how many lines, beside whom.
    pub(crate) keep: Keep,
    /// How often opening is tried again where it failed.
    pub(crate) retry: Duration,
}

impl Kept {
    /// The store's bounds: all that it puts on disk is within `disk_bytes`.
    fn settings(self, settings: Settings) -> Settings {
        let spool_bytes = (self.disk_bytes / SPOOL_PART).min(SPOOL_MAX_BYTES);
        let retain_bytes = self.disk_bytes.saturating_sub(spool_bytes + DATABASE_BESIDE_BYTES);
        Settings { spool_bytes, retain_bytes, rate_limit: self.rate, ..self.keep.settings(settings) }
    }
}

/// Where bytes land.
pub(crate) enum Place {
    /// The log store.
    Store(Intake),
    /// Nowhere: what is left while no store can be had. The program is not blocked by it.
    Nowhere(Box<Nowhere>),
}

impl Place {
    /// Takes the store that has come meanwhile.
    fn look(&mut self) {
        if let Place::Nowhere(nowhere) = self
            && let Some(store) = nowhere.store()
        {
            *self = store;
        }
    }
}

impl Sink for Place {
    fn read_from(
        &mut self,
        stream: usize,
        fd: BorrowedFd<'_>,
        at_unix_ns: u64,
        see: &mut dyn FnMut(&[u8], u64),
    ) -> io::Result<Landing> {
        self.look();
        match self {
            Place::Store(intake) => {
                let stream = if stream == STDERR { Stream::Stderr } else { Stream::Stdout };
                let landed = intake.read_from(stream, fd, at_unix_ns).map_err(|error| match error.kind() {
                    // The tail tells "nothing now" from a failure by its number.
                    io::ErrorKind::WouldBlock => rustix::io::Errno::AGAIN.into(),
                    _ => error,
                })?;
                see(landed.data, landed.lines);
                Ok(Landing { bytes: landed.bytes, more: landed.more, pressed: landed.pressed })
            }
            Place::Nowhere(nowhere) => nowhere.read_from(stream, fd, at_unix_ns, see),
        }
    }

    fn note(&mut self, text: &str, at_unix_ns: u64) {
        self.look();
        if let Place::Store(intake) = self {
            intake.note(text, at_unix_ns);
        }
    }

    fn end_lines(&mut self, at_unix_ns: u64) {
        self.look();
        match self {
            Place::Store(intake) => {
                for stream in [Stream::Stdout, Stream::Stderr] {
                    intake.end_of(stream, at_unix_ns);
                }
            }
            Place::Nowhere(nowhere) => nowhere.end_lines(),
        }
    }
}

/// The log path of one supervisor: the tail thread and the store that it feeds.
pub(crate) struct Logs {
    tail: Mutex<Option<TailHandle<Place>>>,
    store: Arc<Mutex<Option<Store>>>,
    /// There was no store at the start.
    late: Option<Arc<Late>>,
    /// What each stream may print, in words, when that is limited.
    limit: Option<String>,
}

/// What opening found, for people.
#[derive(Debug, Default)]
pub(crate) struct Opened {
    /// Said once, and in the log.
    pub(crate) notes: Vec<String>,
    /// Holds until the end.
    pub(crate) warnings: Vec<String>,
}

impl Logs {
    /// Opens the store of `layout`, shows `beat` in its ring, and starts reading `inputs`. Unless the program `goes_on` that wrote there
    /// before, what lacks its end from then is a line as it is.
    ///
    /// # Errors
    /// No thread can be had.
    pub(crate) fn start(
        layout: &Layout,
        beat: &Beat,
        inputs: Inputs,
        echo: Option<Echo>,
        kept: Kept,
        goes_on: bool,
    ) -> io::Result<(Logs, Opened)> {
        let mut opened = Opened::default();
        let ring_path = match shared_file(layout, "ring") {
            Ok(path) => path,
            Err(why) => {
                opened.warnings.push(format!("the log ring lies on disk, not in shared memory: {why}"));
                layout.home().join("ring")
            }
        };
        let settings = kept.settings(Settings::new(layout.home(), ring_path, layout.name()));
        let (place, store, late) = match plimsoll_store::open(settings.clone()) {
            Ok((mut intake, store, recovery)) => {
                begin(&mut intake, goes_on);
                opened.notes = recovery.notes();
                let heartbeat = store.heartbeat_handle();
                beat.show_in(Box::new(move |ns| heartbeat.beat(ns)));
                (Place::Store(intake), Some(store), None)
            }
            Err(error) => {
                let late = Late::because(&error);
                opened.notes.extend(late.why());
                let beats = Arc::clone(&late);
                beat.show_in(Box::new(move |ns| beats.beat(ns)));
                (Place::Nowhere(Box::new(Nowhere::new(Arc::clone(&late)))), None, Some(late))
            }
        };
        let tail = tail::start(Setup { intake: place, inputs, echo, clock: Arc::new(MonotonicClock) })?;
        let store = Arc::new(Mutex::new(store));
        if let Some(late) = &late {
            late.open_later(settings, goes_on, kept.retry, Arc::clone(&store), tail.notes())?;
        }
        let limit = (!kept.rate.is_none()).then(|| words(&kept.rate));
        Ok((Logs { tail: Mutex::new(Some(tail)), store, late, limit }, opened))
    }

    /// For lines of Plimsoll's own.
    pub(crate) fn notes(&self) -> Option<Notes> {
        self.tail.lock().as_ref().map(TailHandle::notes)
    }

    /// The program is gone: its unfinished last lines are complete as they are.
    pub(crate) fn child_ended(&self) {
        if let Some(tail) = self.tail.lock().as_ref() {
            tail.child_ended();
        }
    }

    /// What is wrong now, one sentence each.
    pub(crate) fn warnings(&self) -> Vec<String> {
        let mut warnings = self.tail.lock().as_ref().map(TailHandle::warnings).unwrap_or_default();
        warnings.extend(self.late.as_deref().and_then(Late::why));
        if let Some(store) = self.store.lock().as_ref() {
            warnings.extend(store.stats().degraded);
        }
        warnings
    }

    /// What is shown.
    pub(crate) fn view(&self) -> LogsView {
        let mut view = LogsView::default();
        if let Some(tail) = self.tail.lock().as_ref() {
            view.echo_dropped_lines_total = tail.echo_counters().dropped_lines;
            let [stdout, stderr] = tail.volume(MonotonicClock.now());
            view.volume = VolumeView::of(&[("stdout", stdout), ("stderr", stderr)], self.limit.clone());
        }
        if let Some(store) = self.store.lock().as_ref() {
            let stats = store.stats();
            for stream in Stream::ALL {
                let seen = stats.stream(stream);
                let shown = StreamView {
                    lines_total: seen.lines_in_total,
                    bytes_total: seen.bytes_in_total,
                    dropped_lines_total: seen.dropped_lines_total,
                    dropped_bytes_total: seen.dropped_bytes_total,
                    limited_lines_total: seen.limited_lines_total,
                    limited_bytes_total: seen.limited_bytes_total,
                };
                view.streams.insert(stream.name().to_owned(), shown);
            }
            view.ring_used_bytes = stats.ring_used_bytes;
            view.ring_capacity_bytes = stats.ring_capacity_bytes;
            view.spool_bytes = stats.spool_used_bytes;
            view.database_bytes = stats.database_bytes;
            view.chunks_total = stats.sealed_chunks_total;
            view.merged_chunks_total = stats.merged_chunks_total;
            view.kept_lines = stats.kept_lines;
            for reason in RetainReason::ALL {
                view.retired_lines_total.insert(reason.name().to_owned(), stats.retired(reason).lines_total);
            }
            view.degraded = stats.degraded;
        }
        if let Some(late) = self.late.as_deref() {
            for (stream, lost) in late.lost() {
                let shown = view.streams.entry(stream.name().to_owned()).or_default();
                shown.dropped_lines_total += lost.dropped_lines_total;
                shown.dropped_bytes_total += lost.dropped_bytes_total;
            }
            view.degraded = late.why().or(view.degraded);
        }
        view
    }

    /// Reads what is left, at most for `patience`, seals it, at most for [`SEAL`], and closes everything. Returns what a
    /// person should know, one sentence each.
    pub(crate) fn close(&self, patience: Duration) -> Vec<String> {
        let Some(tail) = self.tail.lock().take() else { return Vec::new() };
        let drained = tail.drain(MonotonicClock.now() + patience);
        let mut said = Vec::new();
        if drained.intake.is_none() {
            said.push("the tail thread panicked: the last lines are missing; please report this".to_owned());
        }
        if drained.echo.dropped_lines > 0 {
            said.push(format!("{} lines were not echoed", drained.echo.dropped_lines));
        }
        drop(drained.intake);
        if let Some(late) = self.late.as_deref() {
            late.stop();
            let lost: u64 = late.lost().iter().map(|(_, lost)| lost.dropped_lines_total).sum();
            said.extend(late.why().map(|why| format!("{lost} lines were lost: {why}")));
        }
        if let Some(store) = self.store.lock().take() {
            let closed = store.close(SEAL);
            for stuck in closed.stuck_threads {
                said.push(format!("the log's {stuck} thread hangs in a system call and was left behind"));
            }
            if !closed.complete {
                let waiting = closed.ring_bytes + closed.spool_bytes;
                let why = closed.stats.degraded.map(|why| format!(" ({why})")).unwrap_or_default();
                let waiting = plimsoll::units::size(waiting);
                said.push(format!(
                    "{waiting} of the log wait to be sealed by the next run{why}; `plimsoll logs` reads them"
                ));
            }
        }
        said
    }
}

/// Ends what an earlier program left unfinished, unless the program of this life goes on with it.
fn begin(intake: &mut Intake, goes_on: bool) {
    if !goes_on {
        let now = u64::try_from(clock::wall().as_nanos()).unwrap_or(u64::MAX);
        [Stream::Stdout, Stream::Stderr].into_iter().for_each(|stream| intake.end_of(stream, now));
    }
}

/// A file of this name's in shared memory: the ring, the decision log.
///
/// # Errors
/// A sentence that says why it cannot be there.
pub(super) fn shared_file(layout: &Layout, kind: &str) -> Result<PathBuf, String> {
    let uid = rustix::process::getuid();
    let memory = Path::new(SHARED_MEMORY);
    if !is_tmpfs(memory) {
        return Err(format!("{SHARED_MEMORY} is no tmpfs"));
    }
    let dir = memory.join(format!("plimsoll-{}", uid.as_raw()));
    match std::fs::DirBuilder::new().mode(0o700).create(&dir) {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
        Err(error) => return Err(format!("cannot make {}: {error}", dir.display())),
    }
    // Everybody may make files there: only a directory that is ours alone is used.
    let found = dir.symlink_metadata().map_err(|error| format!("{}: {error}", dir.display()))?;
    if !found.is_dir() || found.uid() != uid.as_raw() || found.mode() & 0o077 != 0 {
        return Err(format!("{} is not a directory of ours alone", dir.display()));
    }
    let home = layout.home();
    let home = home.canonicalize().map_err(|error| format!("{}: {error}", home.display()))?;
    Ok(dir.join(format!("{:016x}-{}.{kind}", fnv(home.as_os_str().as_bytes()), layout.name())))
}

/// Whether files there live in memory.
pub(crate) fn is_tmpfs(path: &Path) -> bool {
    const TMPFS_MAGIC: rustix::fs::FsWord = 0x0102_1994;
    rustix::fs::statfs(path).is_ok_and(|found| found.f_type == TMPFS_MAGIC)
}

/// FNV-1a, 64 bit: two state directories have two rings.
fn fnv(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_of_a_log_is_within_its_disk() {
        for disk_bytes in [LOG_DISK_MIN_BYTES, 100 << 20, LOG_DISK_BYTES, 100 << 30] {
            let (rate, keep) = (RateLimit::default(), Keep::default());
            let kept = Kept { disk_bytes, rate, keep, retry: RETRY };
            let settings = kept.settings(Settings::new("/d", "/r", "web"));
            settings.validate().unwrap();
            assert_eq!(settings.spool_bytes + settings.retain_bytes + DATABASE_BESIDE_BYTES, disk_bytes);
            assert!(settings.retain_bytes >= disk_bytes / 4, "{disk_bytes}");
        }
    }

    /// A file where the spool's directory should be, which goes away: what was printed before is counted, what comes then is kept.
    #[test]
    fn a_store_that_cannot_be_opened_is_tried_again_and_what_was_lost_is_counted() {
        use rustix::pipe::{PipeFlags, pipe_with};
        use std::io::Write as _;

        let dir = tempfile::tempdir().unwrap();
        let layout = Layout::new(dir.path(), "web").unwrap();
        std::fs::create_dir_all(layout.home()).unwrap();
        let spool = layout.home().join("spool");
        std::fs::write(&spool, "no directory").unwrap();
        let pipe = || pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK).unwrap();
        let ((stdout, out), (stderr, _err)) = (pipe(), pipe());
        let mut out = std::fs::File::from(out);
        let (rate, keep) = (RateLimit::default(), Keep::default());
        let kept = Kept { disk_bytes: LOG_DISK_BYTES, rate, keep, retry: Duration::from_millis(20) };
        let beat = Beat::default();
        let inputs = Inputs::Fifos { stdout, stderr };
        let (logs, opened) = Logs::start(&layout, &beat, inputs, None, kept, false).unwrap();
        assert!(opened.notes[0].contains("spool"), "{opened:?}");
        let until = |what: &str, is: &dyn Fn(&LogsView) -> bool| {
            let tries = (0..5000).find(|_| {
                std::thread::sleep(Duration::from_millis(2));
                is(&logs.view())
            });
            assert!(tries.is_some(), "{what}: {:?}", logs.view());
        };
        let lost = |view: &LogsView| view.streams["stdout"].dropped_lines_total;
        out.write_all(b"one\ntwo\nthr").unwrap();
        until("two are counted", &|view| lost(view) == 2);
        assert!(logs.view().degraded.unwrap().contains("not kept") && logs.warnings().len() == 1);
        std::fs::remove_file(&spool).unwrap();
        until("it opens", &|view| view.degraded.is_none() && view.ring_capacity_bytes > 0);
        out.write_all(b"ee\nfour\n").unwrap();
        until("the fourth is kept", &|view| view.streams["stdout"].lines_total == 2);
        assert_eq!((lost(&logs.view()), logs.warnings()), (2, Vec::new()));
        assert_eq!(logs.close(Duration::from_secs(5)), Vec::<String>::new());
        let mut told = Vec::new();
        let mut reader = plimsoll_store::Reader::open(&layout.home()).unwrap();
        let query = plimsoll_store::Query::default();
        let mut each = |entry: plimsoll_store::Entry<'_>| {
            told.push(match entry.kind {
                plimsoll_store::EntryKind::Line { text, .. } => String::from_utf8_lossy(text).into_owned(),
                plimsoll_store::EntryKind::Gap { lines, .. } => format!("gap of {lines}"),
            });
            std::ops::ControlFlow::Continue(())
        };
        reader.read(&query, None, &mut each).unwrap();
        // The line that was cut counts as lost, whole.
        told.retain(|text| !text.contains("kept from here"));
        assert_eq!(told, ["gap of 3", "four"]);
    }

    #[test]
    fn two_directories_have_two_rings_and_one_keeps_its_own() {
        let (one, two) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let ring = |dir: &tempfile::TempDir| {
            let layout = Layout::new(dir.path(), "web").unwrap();
            std::fs::create_dir_all(layout.home()).unwrap();
            shared_file(&layout, "ring")
        };
        if !is_tmpfs(Path::new(SHARED_MEMORY)) {
            assert!(ring(&one).is_err());
            return;
        }
        assert_eq!(ring(&one), ring(&one));
        assert_ne!(ring(&one).unwrap(), ring(&two).unwrap());
    }
}
