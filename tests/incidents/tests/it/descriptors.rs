//! Descriptors: the supervisor's own stay flat whatever its child does, and the child's leak is named by kind.

use crate::support::{start, turn};
use plimsoll_incidents::clock;
use plimsoll_incidents::protected::Setup;
use std::time::Duration;

/// Descendants in the CI-sized run; the benchmark takes 10,000.
const DESCENDANTS: &str = "2000";
/// What a question over the socket and a turn of the log spool may have open for a moment.
const SLACK: usize = 6;

fn open_descriptors(pid: u32) -> usize {
    std::fs::read_dir(format!("/proc/{pid}/fd")).map_or(0, Iterator::count)
}

#[test]
fn short_lived_descendants_leave_the_supervisors_descriptors_flat() {
    let _turn = turn();
    for more in [&[][..], &["--no-cgroup"][..]] {
        let flags = [&["--memory", "300M", "--quiet", "--restart", "never"], more].concat();
        let load = ["forkstorm", "--count", DESCENDANTS, "--hold-ms", "1500"];
        let Some(mut service) = start(Setup::new("storm", &flags).load(&load)) else { return };
        service.child();
        // The governor and the store open theirs in the first moments.
        std::thread::sleep(Duration::from_millis(500));
        let before = open_descriptors(service.pid());
        let mut highest = before;
        let finished = clock::wait_for(Duration::from_secs(60), Duration::from_millis(20), || {
            highest = highest.max(open_descriptors(service.pid()));
            service.evidence().first("done").cloned()
        });
        assert_eq!(finished.map(|done| done.lines), DESCENDANTS.parse().ok(), "{}", service.stderr());
        let after = open_descriptors(service.pid());
        eprintln!("{more:?}: descriptors before {before}, highest {highest}, after {after}");
        assert!(highest <= before + SLACK && (after == 0 || after <= before + SLACK), "{before} → {highest} → {after}");
        assert_eq!(
            service.wait(Duration::from_secs(20)).and_then(|status| status.code()),
            Some(0),
            "{}",
            service.stderr()
        );
    }
}

#[test]
fn a_leak_of_proc_descriptors_is_named_by_kind() {
    let _turn = turn();
    for (kind, field) in [("proc", "proc"), ("socket", "socket")] {
        let load = ["fds", "--kind", kind, "--count", "400", "--over-ms", "6000", "--hold-ms", "30000"];
        let Some(service) = start(Setup::new("fds", &["--memory", "300M", "--quiet"]).load(&load)) else { return };
        service.until(Duration::from_secs(30), "the kind that grows", |status| {
            let fds = &status["child"]["fds"];
            (fds[field].as_u64()? >= 400 && fds["growing"] == field).then_some(())
        });
    }
}
