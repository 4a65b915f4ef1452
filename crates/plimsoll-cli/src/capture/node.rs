//! A V8 heap snapshot of a Node process: the signal, then waiting for the file to appear, to grow and to be whole.
//!
//! Node opens the file when its event loop gets to the signal, stands still while it walks the heap, and then writes. At most
//! [`APPEAR`] (30 s) until the file is there (a busy event loop, or a runtime that ignores the signal; what begins after that is late,
//! and waited for elsewhere), [`STALLED`] (60 s) between two bytes of it, [`WHOLE`] (10 min) in all. A process that dies meanwhile, and a disk that is full by then, are a failed capture at
//! once; what it left is removed. A snapshot is whole when it ends as JSON ends and has not grown for two looks.

use std::io::{Read as _, Seek as _, SeekFrom};
use std::path::{Path, PathBuf};
use std::time::Duration;

use plimsoll::clock::{Clock as _, MonotonicClock};
use plimsoll::gauge::Root;
use plimsoll::gauge::process::read_process;
use rustix::process::{Pid, Signal};

use super::env::NodeSetup;
use super::shelf::free_bytes;
use super::wait::Pause;
use crate::supervise::child;
use crate::supervise::reason::signal_name;
use crate::supervise::state::Process;

/// How long until the file is there.
pub(crate) const APPEAR: Duration = Duration::from_secs(30);
/// How long the whole may take: 20 million objects took 137 s on a busy machine.
pub(crate) const WHOLE: Duration = Duration::from_secs(600);
/// How long a file that was begun may not grow.
pub(crate) const STALLED: Duration = Duration::from_secs(60);
/// Between two looks.
const LOOK: Duration = Duration::from_millis(100);
/// Looks without growth after which a full disk is the reason.
const STILL_LOOKS: u32 = 10;
/// Free bytes below which a disk is full: what is left to the last block of a writer.
const FULL_BYTES: u64 = 64 << 10;
/// The most files of the directory that are looked at.
const FILES_MAX: usize = 4096;

/// How long each part may take.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Patience {
    pub(super) appear: Duration,
    pub(super) stalled: Duration,
    pub(super) whole: Duration,
}

impl Default for Patience {
    fn default() -> Patience {
        Patience { appear: APPEAR, stalled: STALLED, whole: WHOLE }
    }
}

/// A snapshot that a process was asked for.
#[derive(Clone, Debug)]
pub(crate) struct Asked {
    process: Pid,
    identity: Process,
    signal: i32,
    dir: PathBuf,
    before: Vec<PathBuf>,
    at: Duration,
}

/// Why there is no snapshot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Missed {
    pub(crate) why: String,
    /// It was not begun in time: the signal still waits for the runtime, which will take it when it gets to it.
    pub(crate) is_late: bool,
}

/// How far a snapshot is that was not begun in time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Progress {
    /// Its process has ended.
    Ended,
    /// Nothing is there yet.
    Waiting,
    /// It is being written, or whole.
    Begun,
    /// Nothing was there within [`WHOLE`]: nobody waits any longer.
    GivenUp,
}

/// Asks `pid` for a snapshot.
///
/// # Errors
/// A sentence: it was not asked, and why.
pub(crate) fn ask(pid: i32, setup: &NodeSetup) -> Result<Asked, String> {
    let name = signal_name(setup.signal);
    let reading = read_process(&Root::default(), pid).map_err(|why| format!("pid {pid} cannot be read: {why}"))?;
    if !reading.catches(setup.signal) {
        return Err(format!(
            "pid {pid} does not catch SIG{name}, so it would end: it is no Node with --heapsnapshot-signal, or is still starting"
        ));
    }
    let process = Pid::from_raw(pid).ok_or("no such pid")?;
    let signal = Signal::from_named_raw(setup.signal).ok_or_else(|| format!("no signal {} here", setup.signal))?;
    let before = files_of(&setup.dir, pid)?;
    let identity = child::identify(process).ok_or_else(|| format!("pid {pid} has ended"))?;
    rustix::process::kill_process(process, signal).map_err(|error| format!("cannot signal pid {pid}: {error}"))?;
    let (signal, dir, at) = (setup.signal, setup.dir.clone(), MonotonicClock.now());
    Ok(Asked { process, identity, signal, dir, before, at })
}

impl Asked {
    fn pid(&self) -> i32 {
        self.process.as_raw_nonzero().get()
    }

    /// How long ago it was asked.
    pub(crate) fn since(&self) -> Duration {
        MonotonicClock.now().saturating_sub(self.at)
    }

    /// Whether a file of this name may be the one that was asked for.
    pub(crate) fn may_be(&self, name: &str) -> bool {
        is_snapshot_of(name, self.pid())
    }

    /// How far it is.
    pub(crate) fn progress(&self) -> Progress {
        match self.begun() {
            _ if child::identify(self.process) != Some(self.identity) => Progress::Ended,
            Ok(Some(_)) => Progress::Begun,
            _ if self.since() > WHOLE => Progress::GivenUp,
            _ => Progress::Waiting,
        }
    }

    fn begun(&self) -> Result<Option<PathBuf>, String> {
        Ok(files_of(&self.dir, self.pid())?.into_iter().find(|path| !self.before.contains(path)))
    }

    /// Removes what was written of it: never finished, it must not be taken for a small heap.
    pub(crate) fn remove(&self) {
        if let Ok(Some(path)) = self.begun() {
            std::fs::remove_file(path).ok();
        }
    }

    /// Waits for the file and returns it, whole, still under the runtime's name.
    ///
    /// # Errors
    /// A sentence: who did not do what within which time.
    pub(crate) fn wait(&self, patience: Patience, pause: &dyn Pause) -> Result<PathBuf, Missed> {
        let (pid, name) = (self.pid(), signal_name(self.signal));
        let started = MonotonicClock.now();
        let mut growing: Option<(PathBuf, u64, u32)> = None;
        loop {
            let closed = !pause.pause(LOOK);
            let waited = MonotonicClock.now().saturating_sub(started);
            if growing.is_none() {
                // Whoever took the directory away has not taken the signal back.
                let begun = self.begun().map_err(|why| Missed { why, is_late: true })?;
                growing = begun.map(|path| (path, 0, 0));
            }
            if let Some((path, bytes, still)) = &mut growing {
                let now = std::fs::metadata(&*path).map_or(0, |meta| meta.len());
                *still = if now == *bytes { *still + 1 } else { 0 };
                *bytes = now;
                if *still >= 2 && ends_as_json(path) {
                    return Ok(path.clone());
                }
            }
            let stalled = |still: u32| LOOK * still > patience.stalled;
            let is_full =
                |still: u32| still >= STILL_LOOKS && free_bytes(&self.dir).is_ok_and(|free| free < FULL_BYTES);
            let mut is_late = false;
            let why = match &growing {
                _ if child::identify(self.process) != Some(self.identity) => {
                    format!("pid {pid} ended while it took the snapshot")
                }
                _ if closed => "the supervisor ends".to_owned(),
                None if waited > patience.appear => {
                    is_late = true;
                    format!(
                        "pid {pid} began no snapshot within {} s of SIG{name}: its event loop is busy, or it may not write to {}",
                        patience.appear.as_secs(),
                        self.dir.display()
                    )
                }
                Some((_, bytes, still)) if is_full(*still) => {
                    format!("the disk is full: pid {pid} wrote {bytes} bytes of its snapshot to {}", self.dir.display())
                }
                // While it walks the heap it writes nothing.
                Some((_, bytes, still)) if *bytes > 0 && stalled(*still) => {
                    let within = patience.stalled.as_secs();
                    format!("pid {pid} wrote {bytes} bytes of its snapshot and then nothing for {within} s")
                }
                Some((_, bytes, _)) if waited > patience.whole => {
                    let within = patience.whole.as_secs();
                    format!("the snapshot of pid {pid} was not whole within {within} s, at {bytes} bytes")
                }
                _ => continue,
            };
            if let Some((path, ..)) = growing {
                // Never finished: it must not be taken for a small heap.
                std::fs::remove_file(path).ok();
            }
            return Err(Missed { why, is_late });
        }
    }
}

/// How many objects a snapshot says it holds: `"node_count":N` within its first 4 KiB.
pub(crate) fn objects(path: &Path) -> Option<u64> {
    let mut head = [0; 4096];
    let text = crate::supervise::files::read_small(path, &mut head).ok()?;
    let number = text.split_once("\"node_count\":")?.1.trim_start();
    number.split(|c: char| !c.is_ascii_digit()).next()?.parse().ok()
}

/// The snapshots of `pid` in `dir`: `Heap.DATE.TIME.PID.THREAD.N.heapsnapshot`.
fn files_of(dir: &Path, pid: i32) -> Result<Vec<PathBuf>, String> {
    let failed = |error| format!("cannot read {}: {error}", dir.display());
    let mut found = Vec::new();
    for entry in std::fs::read_dir(dir).map_err(failed)?.take(FILES_MAX) {
        let path = entry.map_err(failed)?.path();
        if path.file_name().and_then(|name| name.to_str()).is_some_and(|name| is_snapshot_of(name, pid)) {
            found.push(path);
        }
    }
    Ok(found)
}

fn is_snapshot_of(name: &str, pid: i32) -> bool {
    name.starts_with("Heap.")
        && name.ends_with(".heapsnapshot")
        && name.split('.').nth(3).is_some_and(|word| word.parse() == Ok(pid))
}

/// Whether the last byte that is no blank closes an object.
fn ends_as_json(path: &Path) -> bool {
    let last = || -> std::io::Result<Vec<u8>> {
        let mut file = std::fs::File::open(path)?;
        let length = file.seek(SeekFrom::End(0))?;
        file.seek(SeekFrom::Start(length.saturating_sub(16)))?;
        let mut tail = Vec::with_capacity(16);
        file.take(16).read_to_end(&mut tail)?;
        Ok(tail)
    };
    last().is_ok_and(|tail| tail.trim_ascii_end().ends_with(b"}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Sleep;

    impl Pause for Sleep {
        fn pause(&self, time: Duration) -> bool {
            std::thread::sleep(time);
            true
        }
    }

    #[test]
    fn names_tell_whose_snapshot_it_is() {
        assert!(is_snapshot_of("Heap.20261126.130501.4711.0.001.heapsnapshot", 4711));
        for other in [
            "Heap.20261126.130501.47.0.001.heapsnapshot",
            "Heap.20261126.130501.4711.0.001.heapprofile",
            "report.20261126.130501.4711.0.001.json",
            "heapsnapshot",
        ] {
            assert!(!is_snapshot_of(other, 4711), "{other}");
        }
    }

    #[test]
    fn a_file_cut_short_does_not_end_as_json() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x");
        for (text, whole) in
            [("{\"strings\":[\"a\"]}\n", true), ("{\"strings\":[\"a\"", false), ("", false), ("{}", true)]
        {
            std::fs::write(&path, text).unwrap();
            assert_eq!(ends_as_json(&path), whole, "{text}");
        }
        assert!(!ends_as_json(&dir.path().join("missing")));
    }

    #[test]
    fn a_snapshot_says_how_many_objects_it_holds() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x");
        for (text, count) in [
            ("{\"snapshot\":{\"meta\":{},\"node_count\":48067,\"edge_count\":1}", Some(48067)),
            ("{\"snapshot\":{\"node_count\": 7}", Some(7)),
            ("{}", None),
            ("", None),
        ] {
            std::fs::write(&path, text).unwrap();
            assert_eq!(objects(&path), count, "{text}");
        }
    }

    #[test]
    fn a_process_that_would_die_of_the_signal_is_not_sent_it() {
        let mut sleeper = std::process::Command::new("sleep").arg("60").spawn().unwrap();
        let pid = i32::try_from(sleeper.id()).unwrap();
        let dir = tempfile::tempdir().unwrap();
        let setup = NodeSetup { signal: libc::SIGUSR2, dir: dir.path().to_owned() };
        let error = ask(pid, &setup).unwrap_err();
        assert!(error.contains("does not catch SIGUSR2"), "{error}");
        assert!(sleeper.try_wait().unwrap().is_none(), "it lives");
        sleeper.kill().unwrap();
        sleeper.wait().unwrap();
    }

    /// A shell that does this when it gets the signal; its pid.
    fn deaf(on_signal: &str, dir: &Path) -> (std::process::Child, i32) {
        let ready = dir.join("ready");
        let script = format!("trap '{on_signal}' USR2; : > {}; while :; do sleep 0.05; done", ready.display());
        let child = std::process::Command::new("sh").arg("-c").arg(script).current_dir(dir).spawn().unwrap();
        while !ready.exists() {
            Sleep.pause(Duration::from_millis(5));
        }
        let pid = i32::try_from(child.id()).unwrap();
        (child, pid)
    }

    #[test]
    fn who_ignores_the_signal_stops_writing_or_dies_of_it_has_failed_and_leaves_nothing() {
        let name = "Heap.20261126.130501.$$.0.001.heapsnapshot";
        let cases = [
            (":".to_owned(), "began no snapshot within 0 s of SIGUSR2"),
            (format!("printf half > {name}"), "wrote 4 bytes of its snapshot and then nothing for 0 s"),
            (format!("printf half > {name}; exit 1"), "ended while it took the snapshot"),
        ];
        for (on_signal, why) in cases {
            let dir = tempfile::tempdir().unwrap();
            let (mut child, pid) = deaf(&on_signal, dir.path());
            let setup = NodeSetup { signal: libc::SIGUSR2, dir: dir.path().to_owned() };
            let half_a_second = Duration::from_millis(500);
            let patience = Patience { appear: half_a_second, stalled: half_a_second, whole: WHOLE };
            let missed = ask(pid, &setup).unwrap().wait(patience, &Sleep).unwrap_err();
            assert!(missed.why.contains(why), "{why}: {missed:?}");
            assert_eq!(missed.is_late, on_signal == ":", "{missed:?}");
            assert_eq!(files_of(dir.path(), pid), Ok(Vec::new()), "{why}");
            child.kill().unwrap();
            child.wait().unwrap();
        }
    }
}
