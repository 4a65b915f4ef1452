//! The mappings of a process as the kernel tells them: `/proc/PID/smaps`, at most [`BYTES_MAX`]. 20 ms per GB, in which the process
//! cannot change its mappings, so it is for every half hour and not for every second. The copy ends with a line that tells its length.

use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::path::Path;

use plimsoll_heap::parse::smaps::END;

/// The longest file taken: 60,000 mappings.
const BYTES_MAX: u64 = 64 << 20;

/// Copies the mappings of `pid` to `path`.
///
/// # Errors
/// The path and what the system says; a process without memory (a zombie) and one with too many mappings are errors, too.
pub(crate) fn copy(pid: i32, path: &Path) -> Result<(), String> {
    let source = format!("/proc/{pid}/smaps");
    let from = File::open(&source).map_err(|error| format!("{source}: {error}"))?;
    let mut to = File::create_new(path).map_err(|error| format!("{}: {error}", path.display()))?;
    let copied = io::copy(&mut from.take(BYTES_MAX + 1), &mut to).map_err(|error| format!("{source}: {error}"))?;
    // The reader knows by it that nothing is missing.
    let end = |error| format!("{}: {error}", path.display());
    writeln!(to, "{END}{copied}").map_err(end)?;
    match copied {
        0 => Err(format!("{source} is empty: the process has ended")),
        1..=BYTES_MAX => Ok(()),
        _ => Err(format!("{source} is longer than {} MiB", BYTES_MAX >> 20)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ones_own_mappings_are_copied_and_those_of_nobody_are_an_error() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x");
        copy(rustix::process::getpid().as_raw_nonzero().get(), &path).unwrap();
        let mut head = [0; 4096];
        let text = crate::supervise::files::read_small(&path, &mut head).unwrap();
        assert!(text.contains("Rss:") && text.contains("Private_Dirty:"), "{text}");
        let (read, warnings) = plimsoll_heap::parse::smaps::read(File::open(&path).unwrap()).unwrap();
        assert!(read.bytes() > 0.0 && warnings.is_empty(), "{warnings:?}");
        assert!(copy(i32::MAX, &dir.path().join("y")).unwrap_err().contains("smaps"));
    }
}
