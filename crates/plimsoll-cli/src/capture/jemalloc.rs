//! jemalloc's own profiles: it writes them by itself (see `env.rs`), here the newest of the process is taken and the others
//! are removed, so that a program that allocates fast does not fill the disk with them.

use std::path::{Path, PathBuf};

use super::env::jemalloc_prefix;
use super::mode::Mode;

/// The most files of the directory that are looked at.
const FILES_MAX: usize = 10_000;

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
    let whole = |path: &&PathBuf| std::fs::metadata(path).is_ok_and(|meta| meta.len() > 0);
    of_pid.iter().rev().find(whole).cloned().ok_or_else(|| {
        format!(
            "pid {pid} has written no profile to {}: it does not use a jemalloc with profiling, or has not grown yet",
            tmp.display()
        )
    })
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
            std::fs::write(dir.path().join(name), name).unwrap();
        }
        std::fs::write(dir.path().join("jemalloc.7.11.i11.heap"), "").unwrap();
        std::fs::write(dir.path().join("other.7.99.i1.heap"), "x").unwrap();
        assert_eq!(newest(dir.path(), 7).unwrap().file_name().unwrap(), "jemalloc.7.10.u10.heap", "11 is not finished");
        assert!(is_profile(&Mode::Jemalloc, "jemalloc.7.10.u10.heap") && !is_profile(&Mode::Jemalloc, "smaps.part"));
        assert!(!is_profile(&Mode::Auto, "jemalloc.7.10.u10.heap"));
        assert!(newest(dir.path(), 8).unwrap_err().contains("no profile"));
        assert_eq!(tidy(dir.path()), 2);
        assert!(dir.path().join("jemalloc.7.10.u10.heap").exists() && dir.path().join("other.7.99.i1.heap").exists());
        assert!(!dir.path().join("jemalloc.7.2.i2.heap").exists());
    }
}
