//! Incident 3, CI-sized: a dashboard's stalled clients are removed and its memory stays flat, where the same dashboard without the one
//! flag is killed. `plimsoll-incident-3 broadcast` makes three runs of each.

use crate::support::{or_skip, turn};
use plimsoll_incidents::stalled::run;

#[test]
fn stalled_clients_are_told_1013_and_the_others_miss_nothing() {
    let _turn = turn();
    let Some(ended) = or_skip(run(true)) else { return };
    ended.held().unwrap_or_else(|why| panic!("{why}: {ended:?}"));
}

#[test]
fn the_same_dashboard_without_the_bound_is_killed() {
    let _turn = turn();
    let Some(ended) = or_skip(run(false)) else { return };
    ended.killed().unwrap_or_else(|why| panic!("{why}"));
}
