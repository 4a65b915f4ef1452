//! Figures in words, and what is read from `/proc` for the faces only; nothing here decides.

use std::path::Path;

use plimsoll::gauge::Root;
use plimsoll::gauge::descriptors::{self, Counts};
use plimsoll::gauge::process::read_process;
use plimsoll::governor::Decision;
use plimsoll::units;

use super::files::read_small;
use crate::snapshot::{FdsView, SupervisorView};

/// Processes whose descriptors and threads are counted; more are said to be there.
const COUNTED: usize = 64;
/// A kind of descriptor that grew by more than this is named.
const GROWN: u64 = 100;

/// "301.2 MiB of 300 MiB, +200 MiB/s, limit in 0.4 s".
pub(crate) fn figures(decision: &Decision) -> String {
    let mut text = match (decision.charged_bytes, decision.budget_bytes) {
        (Some(charged), Some(budget)) => format!("{} of {}", units::size(charged), units::size(budget)),
        (Some(charged), None) => format!("{}", units::size(charged)),
        (None, _) => "memory unknown".to_owned(),
    };
    if let Some(growth) = decision.growth
        && growth.bytes_per_second.abs() >= 1024.0
    {
        text.push_str(&format!(", {}", units::rate(growth.bytes_per_second)));
    }
    if let Some(left) = decision.time_to_limit
        && !left.is_zero()
    {
        text.push_str(&format!(", limit in {}", units::duration(left)));
    }
    text
}

/// Descriptors of the processes, by kind.
pub(crate) fn count_fds(pids: &[i32]) -> Counts {
    let mut counts = Counts::default();
    for pid in pids.iter().take(COUNTED) {
        // A process that ended meanwhile has none.
        descriptors::count(&Root::default(), *pid, &mut counts).ok();
    }
    counts
}

/// As shown; `first` is the count that growth is measured from.
pub(crate) fn fds_view(now: &Counts, first: &Counts, processes: usize) -> FdsView {
    let grown = now
        .by_kind()
        .into_iter()
        .zip(first.by_kind())
        .map(|((kind, now), (_, first))| (now.saturating_sub(first), kind));
    FdsView {
        total: now.total(),
        file: now.file,
        socket: now.socket,
        pipe: now.pipe,
        anon_inode: now.anon_inode,
        proc: now.proc,
        device: now.device,
        other: now.other,
        growing: grown.max().filter(|(by, _)| *by > GROWN).map(|(_, kind)| kind.to_owned()),
        truncated: processes > COUNTED || now.unclassified > 0,
    }
}

/// Threads of the processes, summed.
pub(crate) fn threads(pids: &[i32]) -> u64 {
    pids.iter()
        .take(COUNTED)
        .filter_map(|pid| read_process(&Root::default(), *pid).ok())
        .map(|reading| reading.threads)
        .sum()
}

/// Plimsoll's own footprint.
pub(crate) fn own(view: &mut SupervisorView) {
    let mut buffer = [0_u8; 4096];
    let rollup = read_small("/proc/self/smaps_rollup", &mut buffer).unwrap_or_default();
    let kib = |name: &str| {
        rollup.lines().find_map(|line| line.strip_prefix(name)?.trim_start().split(' ').next()?.parse::<u64>().ok())
    };
    view.rss_bytes = kib("Rss:").map(|k| k * 1024);
    view.private_bytes = match (kib("Private_Clean:"), kib("Private_Dirty:")) {
        (Some(clean), Some(dirty)) => Some((clean + dirty) * 1024),
        _ => None,
    };
    let cpu = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    view.cpu_seconds = Some(cpu.tv_sec as f64 + cpu.tv_nsec as f64 / 1e9);
    // One of them is the directory that is being read.
    view.open_fds =
        std::fs::read_dir(Path::new("/proc/self/fd")).ok().map(|fds| (fds.count() as u64).saturating_sub(1));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kind_that_grew_most_is_named_once_it_grew_by_more_than_a_hundred() {
        let first = Counts { file: 10, socket: 500, ..Counts::default() };
        let grown = |proc: u64, file: u64| Counts { proc, file, ..first };
        let named = |now: Counts| fds_view(&now, &first, 1).growing;
        assert_eq!(named(grown(100, 10)), None);
        assert_eq!(named(grown(101, 10)).as_deref(), Some("proc"));
        assert_eq!(named(grown(150, 200)).as_deref(), Some("file"));
        let view = fds_view(&grown(7, 10), &first, COUNTED + 1);
        assert_eq!((view.total, view.proc, view.truncated), (517, 7, true));
    }

    #[test]
    fn plimsolls_own_footprint_is_read_and_not_zero() {
        let mut view = SupervisorView::default();
        own(&mut view);
        assert!(view.rss_bytes.is_some_and(|bytes| bytes > 1 << 20), "{view:?}");
        assert!(view.private_bytes <= view.rss_bytes && view.private_bytes > Some(0), "{view:?}");
        assert!(view.open_fds.is_some_and(|fds| fds >= 3), "{view:?}");
        assert!(view.cpu_seconds.is_some_and(|seconds| seconds > 0.0), "{view:?}");
    }
}
