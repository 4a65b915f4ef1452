//! A V8 heap snapshot of a Node process: the signal, then waiting for the file to appear, to grow and to be whole.
//!
//! Node opens the file when its event loop gets to the signal, stands still while it walks the heap, and then writes. At most
//! [`APPEAR`] until the file is there (a busy event loop, or a runtime that ignores the signal), [`WHOLE`] in all. A process that
//! dies meanwhile is a failed capture at once; what it left is removed. A snapshot is whole when it ends as JSON ends and has
//! not grown for two looks.

use std::io::{Read as _, Seek as _, SeekFrom};
use std::path::{Path, PathBuf};
use std::time::Duration;

use plimsoll::clock::{Clock as _, MonotonicClock};
use plimsoll::gauge::Root;
use plimsoll::gauge::process::read_process;
use rustix::process::{Pid, Signal};

use super::env::NodeSetup;
use super::wait::Pause;
use crate::supervise::child;
use crate::supervise::reason::signal_name;

/// How long until the file is there.
pub(crate) const APPEAR: Duration = Duration::from_secs(30);
/// How long the whole may take: 20 million objects took 137 s on a busy machine.
pub(crate) const WHOLE: Duration = Duration::from_secs(600);
/// Between two looks.
const LOOK: Duration = Duration::from_millis(100);
/// The most files of the directory that are looked at.
const FILES_MAX: usize = 4096;

/// Takes a snapshot of `pid` and returns the file, whole, still under the runtime's name.
///
/// # Errors
/// A sentence: who did not do what within which time.
pub(crate) fn snapshot(pid: i32, setup: &NodeSetup, pause: &dyn Pause) -> Result<PathBuf, String> {
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

    let started = MonotonicClock.now();
    let mut growing: Option<(PathBuf, u64, u32)> = None;
    loop {
        let closed = !pause.pause(LOOK);
        let waited = MonotonicClock.now().saturating_sub(started);
        if growing.is_none() {
            growing =
                files_of(&setup.dir, pid)?.into_iter().find(|path| !before.contains(path)).map(|path| (path, 0, 0));
        }
        if let Some((path, bytes, still)) = &mut growing {
            let now = std::fs::metadata(&*path).map_or(0, |meta| meta.len());
            *still = if now == *bytes && now > 0 { *still + 1 } else { 0 };
            *bytes = now;
            if *still >= 2 && ends_as_json(path) {
                return Ok(path.clone());
            }
        }
        let why = match &growing {
            _ if child::identify(process) != Some(identity) => format!("pid {pid} ended while it took the snapshot"),
            _ if closed => "the supervisor ends".to_owned(),
            None if waited > APPEAR => format!(
                "pid {pid} began no snapshot within {} s of SIG{name}: its event loop is busy, or it may not write to {}",
                APPEAR.as_secs(),
                setup.dir.display()
            ),
            Some((_, bytes, _)) if waited > WHOLE => {
                format!("the snapshot of pid {pid} was not whole within {} s, at {bytes} bytes", WHOLE.as_secs())
            }
            _ => continue,
        };
        if let Some((path, ..)) = growing {
            // Never finished: it must not be taken for a small heap.
            std::fs::remove_file(path).ok();
        }
        return Err(why);
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
        let error = snapshot(pid, &setup, &Sleep).unwrap_err();
        assert!(error.contains("does not catch SIGUSR2"), "{error}");
        assert!(sleeper.try_wait().unwrap().is_none(), "it lives");
        sleeper.kill().unwrap();
        sleeper.wait().unwrap();
    }
}
