//! Incident 2's second half and a server under twice its load, CI-sized: what is counted here, not timed, holds on a busy machine too.
//! `plimsoll-incident-2 reads` and `… overload` measure latencies and judge them.

use std::time::Duration;

use crate::support::turn;
use plimsoll_incidents::overload::{overload, reads};

const SHORT: Duration = Duration::from_secs(4);

#[test]
fn probes_and_neighbours_are_answered_beside_one_clients_heavy_reads_and_not_without_the_gate() {
    let _turn = turn();
    let with = reads(true, SHORT).unwrap();
    assert_eq!((with.probes.good, with.probes.lost, with.probes.refused), (with.probes.sent, 0, 0), "{with:?}");
    assert_eq!((with.beside.lost, with.beside.refused), (0, 0), "{with:?}");
    assert!(with.abuser.good > 0 && with.abuser.refused > with.abuser.good, "{with:?}");
    let without = reads(false, SHORT).unwrap();
    // Each asks again when it was answered, so few answers are slow ones.
    assert!(without.beside.good * 3 < with.beside.good, "{without:?}\n{with:?}");
    assert!(without.probes.good * 2 < with.probes.good, "{without:?}\n{with:?}");
}

#[test]
fn twice_the_load_is_answered_as_far_as_it_can_be_and_not_at_all_without_the_gate() {
    let _turn = turn();
    let with = overload(true, SHORT).unwrap();
    assert_eq!((with.probes.good, with.probes.sent - with.probes.good), (with.probes.sent, 0), "{with:?}");
    assert!(with.doubled.refused > 0 && with.doubled.lost * 20 < with.doubled.sent, "{with:?}");
    let without = overload(false, SHORT).unwrap();
    assert!(without.doubled.good * 2 < with.doubled.good, "{without:?}\n{with:?}");
}
