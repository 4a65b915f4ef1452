//! Incident 2, CI-sized: an embedded service leaves before the kernel kills it, with every acknowledged write on disk, where
//! the same service without the one flag is killed. `plimsoll-incident-2 campaign` makes ten runs a rate.

use crate::support::{or_skip, turn};
use plimsoll_incidents::embedded::{Trouble, run};

/// A protected run; false when no group can be made here.
#[track_caller]
fn holds(rate: u64, trouble: Trouble) -> bool {
    let Some(ended) = or_skip(run(rate, trouble, true)) else { return false };
    let figures = (ended.told_ms, ended.overshoot_bytes, ended.drain_ms, ended.acknowledged);
    eprintln!("{rate} MiB/s, {trouble:?}: told, over, drained, acknowledged: {figures:?}");
    ended.held(trouble).unwrap_or_else(|why| panic!("{rate} MiB/s, {trouble:?}: {why}\n{ended:#?}"));
    true
}

#[test]
fn an_embedded_service_drains_and_exits_2_at_every_rate() {
    let _turn = turn();
    for rate in [50, 200, 1000] {
        if !holds(rate, Trouble::None) {
            return;
        }
    }
}

#[test]
fn the_same_service_without_the_flag_is_killed() {
    let _turn = turn();
    for rate in [50, 200, 1000] {
        let Some(ended) = or_skip(run(rate, Trouble::None, false)) else { return };
        ended.killed().unwrap_or_else(|why| panic!("{rate} MiB/s: {why}"));
    }
}

#[test]
fn it_leaves_while_its_async_runtime_is_wedged() {
    let _turn = turn();
    holds(500, Trouble::Runtime);
}

#[test]
fn it_drains_although_a_reclaimer_holds_its_lock_for_ten_seconds() {
    let _turn = turn();
    holds(500, Trouble::Lock);
}
