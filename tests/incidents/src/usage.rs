//! What a process uses: resident and private memory, CPU time, wake-ups, descriptors; and what a directory takes on disk.
//!
//! CPU time is the scheduler's own (`schedstat`, nanoseconds), not clock ticks of 10 ms. A wake-up is a voluntary or an
//! involuntary context switch of any thread. What a thread that has ended used is only in the process's ticks.

use crate::files;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// One look at one process.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Resident set now, in bytes.
    pub rss_bytes: u64,
    /// The highest it ever was, in bytes.
    pub peak_bytes: u64,
    /// Pages that nobody else maps, in bytes; of a program that runs once, its code is among them.
    pub private_bytes: u64,
    /// Of those, the ones that were written, in bytes.
    pub dirty_bytes: u64,
    /// Resident set with shared pages in proportion, in bytes.
    pub pss_bytes: u64,
    /// CPU time of all living threads, in nanoseconds.
    pub cpu_ns: u64,
    /// Context switches of all living threads.
    pub wakes: u64,
    /// Open descriptors.
    pub descriptors: u64,
    /// Threads.
    pub threads: u64,
}

/// Looks at `pid`; `None` when it has gone.
pub fn of(pid: u32) -> Option<Usage> {
    let proc = Path::new("/proc").join(pid.to_string());
    let kib = |text: &str, key: &str| files::field(text, key).unwrap_or(0) * 1024;
    let status = files::text(&proc.join("status")).ok()?;
    let rollup = files::text(&proc.join("smaps_rollup")).unwrap_or_default();
    let mut usage = Usage {
        rss_bytes: kib(&status, "VmRSS"),
        peak_bytes: kib(&status, "VmHWM"),
        private_bytes: kib(&rollup, "Private_Clean") + kib(&rollup, "Private_Dirty"),
        dirty_bytes: kib(&rollup, "Private_Dirty"),
        pss_bytes: kib(&rollup, "Pss"),
        descriptors: std::fs::read_dir(proc.join("fd")).ok()?.count() as u64,
        ..Usage::default()
    };
    for task in std::fs::read_dir(proc.join("task")).ok()?.flatten() {
        let text = |file: &str| files::text(&task.path().join(file)).unwrap_or_default();
        usage.cpu_ns += text("schedstat").split(' ').next().and_then(|ns| ns.parse::<u64>().ok()).unwrap_or(0);
        let status = text("status");
        let switches = |key: &str| files::field(&status, key).unwrap_or(0);
        usage.wakes += switches("voluntary_ctxt_switches") + switches("nonvoluntary_ctxt_switches");
        usage.threads += 1;
    }
    Some(usage)
}

/// What all files below `dir` take on disk, in bytes (allocated blocks, as `du` counts).
pub fn disk_bytes(dir: &Path) -> u64 {
    let Ok(entries) = std::fs::read_dir(dir) else { return 0 };
    let size = |entry: std::fs::DirEntry| match entry.metadata() {
        Ok(metadata) if metadata.is_dir() => disk_bytes(&entry.path()),
        Ok(metadata) if metadata.is_file() => metadata.blocks() * 512,
        _ => 0,
    };
    entries.flatten().map(size).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn own_usage_is_plausible_and_grows() {
        let own = std::process::id();
        let before = of(own).unwrap();
        assert!(before.rss_bytes > 1 << 20 && before.peak_bytes >= before.rss_bytes, "{before:?}");
        assert!(before.private_bytes > 0 && before.pss_bytes <= before.rss_bytes, "{before:?}");
        assert!(before.threads >= 1 && before.descriptors >= 3, "{before:?}");
        // Other tests' threads end meanwhile, and what they counted goes with them.
        let grew = (0..200).any(|_| {
            let before = of(own).unwrap();
            std::thread::sleep(std::time::Duration::from_millis(5));
            let after = of(own).unwrap();
            after.wakes > before.wakes && after.cpu_ns > before.cpu_ns
        });
        assert!(grew, "{before:?} {:?}", of(own));
        assert_eq!(of(u32::MAX / 2), None);
    }

    #[test]
    fn a_directory_takes_what_its_files_take() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("below")).unwrap();
        std::fs::write(dir.path().join("below/file"), vec![1; 100_000]).unwrap();
        // Some file systems allocate late.
        std::fs::File::open(dir.path().join("below/file")).unwrap().sync_all().unwrap();
        assert!((90_000..200_000).contains(&disk_bytes(dir.path())), "{}", disk_bytes(dir.path()));
        assert_eq!(disk_bytes(&dir.path().join("nothing")), 0);
    }
}
