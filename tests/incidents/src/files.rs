//! Bounded reads: a test that reads a file says how much of it it is prepared to hold.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

/// The largest text file the harness reads whole, in bytes: status documents, evidence, `/proc` files.
pub const MAX_TEXT_BYTES: u64 = 8 << 20;

/// Reads a text file of at most [`MAX_TEXT_BYTES`]; bytes that are not UTF-8 become U+FFFD.
///
/// # Errors
/// What opening or reading says; a longer file is an error and not a silent prefix.
pub fn text(path: &Path) -> io::Result<String> {
    let mut bytes = Vec::new();
    File::open(path)?.take(MAX_TEXT_BYTES + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > MAX_TEXT_BYTES {
        return Err(io::Error::other(format!("{} is longer than {MAX_TEXT_BYTES} bytes", path.display())));
    }
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// The number in the line `key: 123 kB` (or `key 123`) of a `/proc` style file, without its unit.
pub fn field(text: &str, key: &str) -> Option<u64> {
    text.lines().find_map(|line| {
        let rest = line.strip_prefix(key)?;
        let rest = rest.strip_prefix(':').or_else(|| rest.strip_prefix(' '))?;
        rest.split_whitespace().next()?.parse().ok()
    })
}

/// Memory of a process that no file stands behind, in bytes: anonymous and shared anonymous, pages that several processes have
/// counted in proportion (`Pss_Anon` + `Pss_Shmem`), else whole (`RssAnon` + `RssShmem`).
pub fn anonymous_bytes(pid: u32) -> Option<u64> {
    let sum = |file: &str, keys: [&str; 2]| {
        let text = text(Path::new(&format!("/proc/{pid}/{file}"))).ok()?;
        keys.into_iter().map(|key| field(&text, key)).sum::<Option<u64>>()
    };
    let kib = sum("smaps_rollup", ["Pss_Anon", "Pss_Shmem"]).or_else(|| sum("status", ["RssAnon", "RssShmem"]))?;
    Some(kib * 1024)
}

/// Whether `pid` lives and is not a zombie.
pub fn lives(pid: u32) -> bool {
    text(Path::new(&format!("/proc/{pid}/stat")))
        .ok()
        .and_then(|stat| stat.rsplit_once(')').map(|(_, rest)| rest.trim_start().starts_with(['Z', 'X'])))
        .is_some_and(|gone| !gone)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_found_by_whole_key() {
        let status = "Name:\tx\nVmRSSextra:\t9 kB\nVmRSS:\t  120 kB\noom_kill 3\n";
        assert_eq!(field(status, "VmRSS"), Some(120));
        assert_eq!(field(status, "oom_kill"), Some(3));
        assert_eq!(field(status, "Vm"), None);
    }

    #[test]
    fn own_process_lives_and_has_anonymous_memory() {
        let own = std::process::id();
        assert!(lives(own));
        assert!(anonymous_bytes(own).is_some_and(|bytes| bytes > 0));
        assert!(!lives(u32::MAX / 2));
    }
}
