//! The unprotected controls: same binary, limit and load, nobody watching. Here the failure must be seen to happen.

use crate::support::{BUDGET, KERNEL, or_skip, turn};
use plimsoll_incidents::launch::control;
use std::time::Duration;

const DEADLINE: Duration = Duration::from_secs(60);

#[test]
fn the_kernel_kills_a_leak_at_every_rate() {
    let _turn = turn();
    for rate in ["50", "200", "1000"] {
        let load = ["ramp", "--rate", rate, "--forever", "--mark", "300M"];
        let Some(end) = or_skip(control(&load, KERNEL, DEADLINE)) else { return };
        assert!(end.killed_by_kernel(), "{rate} MiB/s: {end:?}");
        let crossed = end.evidence.first("crossed").expect("the mark was crossed before the kill");
        assert!(crossed.total_bytes >= BUDGET && crossed.total_bytes < BUDGET + 8192, "{crossed:?}");
        assert_eq!(end.evidence.lag_ms(), None, "nobody warned it");
        assert!(!end.evidence.all_done(), "it did not end by itself");
    }
}

#[test]
fn the_kernel_kills_leaks_of_trees() {
    let _turn = turn();
    for shape in ["grandchild", "detached", "three-children"] {
        let load = ["tree", shape, "--rate", "600", "--forever", "--mark", "300M"];
        let Some(end) = or_skip(control(&load, KERNEL, DEADLINE)) else { return };
        assert!(end.oom_kills > 0, "{shape}: {end:?}");
        assert!(end.evidence.first("crossed").is_some() && !end.evidence.all_done(), "{shape}: {end:?}");
    }
}

#[test]
fn what_stays_below_the_limit_ends_by_itself() {
    let _turn = turn();
    let loads: [&[&str]; 3] = [
        &["ramp", "--rate", "1000", "--to", "291M", "--mark", "300M", "--hold-ms", "300"],
        &["cow", "--run-ms", "600"],
        &["forkstorm", "--count", "200"],
    ];
    for load in loads {
        let Some(end) = or_skip(control(load, KERNEL, DEADLINE)) else { return };
        assert_eq!(end.status.and_then(|status| status.code()), Some(0), "{load:?}: {end:?}");
        assert_eq!(end.oom_kills, 0, "{load:?}");
        assert!(end.evidence.all_done() && end.evidence.first("crossed").is_none(), "{load:?}: {end:?}");
    }
}

#[test]
fn hot_page_cache_alone_kills_nobody() {
    let _turn = turn();
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("cache").display().to_string();
    let load = ["page-cache", "--file", &file, "--size", "350M", "--rate", "1000", "--to", "100M", "--mark", "300M"];
    let Some(end) = or_skip(control(&load, KERNEL, DEADLINE)) else { return };
    assert_eq!(end.status.and_then(|status| status.code()), Some(0), "{end:?}");
    assert!(end.oom_kills == 0 && end.evidence.all_done(), "{end:?}");
}
