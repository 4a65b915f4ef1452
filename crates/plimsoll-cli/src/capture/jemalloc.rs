//! jemalloc's own profiles: it writes them by itself (see `env.rs`), here the newest of the process is taken and the others
//! are removed, so that a program that allocates fast does not fill the disk with them.

use std::fs::File;
use std::io::{BufRead as _, BufReader, Read as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::env::jemalloc_prefix;
use super::mode::Mode;

/// The most files of the directory that are looked at.
const FILES_MAX: usize = 10_000;
/// The longest profile that is looked through, and what is held of it at a time.
const PROFILE_BYTES_MAX: u64 = 1 << 30;
const PART_BYTES: u64 = 64 << 10;
/// How long a profile may take that is being written: some MB.
const WRITES: Duration = Duration::from_millis(250);

/// The profiles of all processes, oldest first: `PREFIX.PID.SEQ.KIND.heap`.
fn profiles(tmp: &Path) -> Result<Vec<(i32, u64, PathBuf)>, String> {
    let failed = |error| format!("cannot read {}: {error}", tmp.display());
    let prefix = jemalloc_prefix(tmp);
    let prefix = prefix.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    let mut found = Vec::new();
    for entry in std::fs::read_dir(tmp).map_err(failed)?.take(FILES_MAX) {
        let entry = entry.map_err(failed)?;
        let name = entry.file_name();
        let Some(rest) = name.to_str().and_then(|name| name.strip_prefix(prefix)?.strip_prefix('.')) else { continue };
        let mut words = rest.split('.');
        if let (Some(Ok(pid)), Some(Ok(number))) = (words.next().map(str::parse), words.next().map(str::parse))
            && rest.ends_with(".heap")
        {
            found.push((pid, number, entry.path()));
        }
    }
    found.sort();
    Ok(found)
}

/// Whether a file of this name is, with this mode, a profile that jemalloc writes or has written.
pub(crate) fn is_profile(mode: &Mode, name: &str) -> bool {
    *mode == Mode::Jemalloc && name.starts_with("jemalloc.")
}

/// The newest finished profile of `pid`.
///
/// # Errors
/// A sentence: none was written.
pub(crate) fn newest(tmp: &Path, pid: i32) -> Result<PathBuf, String> {
    let of_pid: Vec<PathBuf> =
        profiles(tmp)?.into_iter().filter(|(of, ..)| *of == pid).map(|(_, _, path)| path).collect();
    if let Some(newest) = of_pid.last()
        && !is_whole(newest)
    {
        // It writes right now: one more look.
        std::thread::sleep(WRITES);
    }
    of_pid.iter().rev().find(|path| is_whole(path)).cloned().ok_or_else(|| {
        if let Some(newest) = of_pid.last() {
            return format!(
                "{} is not finished: pid {pid} still writes it, or was killed while it did",
                newest.display()
            );
        }
        format!(
            "pid {pid} has written no profile to {}: it does not use a jemalloc with profiling, or has not grown yet",
            tmp.display()
        )
    })
}

/// jemalloc writes the mappings of the process last, and whole lines of them.
fn is_whole(path: &Path) -> bool {
    let Ok(file) = File::open(path) else { return false };
    let mut file = BufReader::new(file.take(PROFILE_BYTES_MAX));
    let mut line = Vec::new();
    let (mut has_mappings, mut ended) = (false, false);
    while let Ok(1..) = (&mut file).take(PART_BYTES).read_until(b'\n', &mut line) {
        has_mappings |= line.starts_with(b"MAPPED_LIBRARIES:");
        ended = line.ends_with(b"\n");
        line.clear();
    }
    has_mappings && ended
}

/// Removes all but the two newest profiles of each process. Returns how many were removed.
pub(crate) fn tidy(tmp: &Path) -> u64 {
    let Ok(all) = profiles(tmp) else { return 0 };
    let mut removed = 0;
    for (at, (pid, _, path)) in all.iter().enumerate() {
        let newer = all[at + 1..].iter().filter(|(other, ..)| other == pid).count();
        if newer >= 2 && std::fs::remove_file(path).is_ok() {
            removed += 1;
        }
    }
    removed
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_profile_of_a_process_is_taken_and_old_ones_go() {
        let dir = tempfile::tempdir().unwrap();
        for name in ["jemalloc.7.9.i9.heap", "jemalloc.7.10.u10.heap", "jemalloc.7.2.i2.heap", "jemalloc.70.11.i1.heap"]
        {
            std::fs::write(dir.path().join(name), format!("heap_v2/1\n\nMAPPED_LIBRARIES:\n{name}\n")).unwrap();
        }
        std::fs::write(dir.path().join("jemalloc.7.11.i11.heap"), "heap_v2/1\n  t*: 1: 2 [0: 0]\n").unwrap();
        std::fs::write(dir.path().join("jemalloc.9.1.i1.heap"), "heap_v2/1\n\nMAPPED_LIBRARIES:\n1-2 r-x").unwrap();
        std::fs::write(dir.path().join("other.7.99.i1.heap"), "x").unwrap();
        assert_eq!(newest(dir.path(), 7).unwrap().file_name().unwrap(), "jemalloc.7.10.u10.heap", "11 is not finished");
        assert!(is_profile(&Mode::Jemalloc, "jemalloc.7.10.u10.heap") && !is_profile(&Mode::Jemalloc, "smaps.part"));
        assert!(!is_profile(&Mode::Auto, "jemalloc.7.10.u10.heap"));
        assert!(newest(dir.path(), 8).unwrap_err().contains("no profile"));
        assert!(newest(dir.path(), 9).unwrap_err().contains("is not finished"));
        assert_eq!(tidy(dir.path()), 2);
        assert!(dir.path().join("jemalloc.7.10.u10.heap").exists() && dir.path().join("other.7.99.i1.heap").exists());
        assert!(!dir.path().join("jemalloc.7.2.i2.heap").exists());
    }
}
