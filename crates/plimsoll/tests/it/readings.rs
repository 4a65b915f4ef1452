//! Readings of processes and groups on fixture trees: what is read, and what is said when it cannot be.

use plimsoll::gauge::group::{Group, GroupGauge};
use plimsoll::gauge::process::{read_identity, read_process};
use plimsoll::gauge::tree::{TreeGauge, TreeScope};
use plimsoll::gauge::{Gauge as _, Root, Unread, host, pressure};

use crate::fixture::{PID, Tree};

/// A `statm` that says less than any group's own figures do.
const SMALL: &str = "10 5 5 1 0 1 0\n";

fn gauge(tree: &Tree) -> Result<GroupGauge, Unread> {
    GroupGauge::open(&tree.root(), &Group::of_pid(&tree.root(), PID)?)
}

#[test]
fn fast_bounds_confirm_on_every_tree_that_can_be_read() {
    let mut read = 0;
    for name in ["v1-plain", "v1-nested", "v1-no-limit", "v1-namespaced", "v2-plain", "v2-nested", "hybrid"] {
        let tree = Tree::unpack(name);
        tree.write("proc/42/statm", SMALL);
        let mut gauge = gauge(&tree).unwrap();
        let (fast, confirmed) = (gauge.fast().unwrap(), gauge.confirm().unwrap());
        assert!(fast >= confirmed.program_bytes, "tree {name}: {fast} < {confirmed:?}");
        assert_eq!(confirmed, Group::of_pid(&tree.root(), PID).unwrap().protected().unwrap(), "tree {name}");
        assert!(gauge.confirm_cost().is_some());
        read += 1;
    }
    assert_eq!(read, 7);
}

#[test]
fn the_largest_member_counts_when_the_group_lags_but_never_beyond_raw_usage() {
    let tree = Tree::unpack("v1-plain");
    // 42 holds 160 MiB (51200 - 10240 pages); the group's stat still says 150 of anon.
    let confirmed = gauge(&tree).unwrap().confirm().unwrap();
    assert_eq!(confirmed.anon_bytes, Some(160 << 20));
    assert_eq!(confirmed.program_bytes, (160 + 4) << 20);
    tree.write("proc/42/statm", "900000 400000 10240 1 0 1 0\n");
    let confirmed = gauge(&tree).unwrap().confirm().unwrap();
    assert_eq!(confirmed.anon_bytes, Some(380 << 20), "memory that is charged elsewhere does not count here");
}

#[test]
fn swap_is_part_of_the_protected_number_and_of_its_bound() {
    let tree = Tree::unpack("v2-nested");
    tree.write("proc/42/statm", SMALL);
    let mut gauge = gauge(&tree).unwrap();
    assert_eq!(gauge.fast(), Ok((100 + 16) << 20));
    let confirmed = gauge.confirm().unwrap();
    assert_eq!((confirmed.swap_bytes, confirmed.program_bytes), (Some(16 << 20), (90 + 16) << 20));
}

#[test]
fn what_cannot_be_read_has_a_reason() {
    let malformed = Tree::unpack("v1-malformed");
    let mut broken = gauge(&malformed).unwrap();
    assert_eq!(broken.fast(), Err(Unread::Malformed("memory.usage_in_bytes")));
    assert_eq!(broken.confirm(), Err(Unread::Malformed("memory.stat")));
    assert_eq!(read_process(&malformed.root(), PID).unwrap_err(), Unread::Malformed("/proc/PID/stat"));
    assert_eq!(host::read(&malformed.root()), Err(Unread::Malformed("/proc/meminfo")));

    let missing = Tree::unpack("v2-missing");
    assert_eq!(gauge(&missing).unwrap_err(), Unread::Missing("memory.stat"));
    assert_eq!(read_process(&missing.root(), 43).unwrap_err(), Unread::Missing("/proc/PID/stat"));
    let nowhere = TreeGauge::open(&missing.root(), TreeScope::Descendants { root: 43 });
    assert_eq!(nowhere.unwrap_err(), Unread::Missing("/proc/PID/stat"));
    assert_eq!(pressure::read(&missing.path().join("proc/pressure/memory")), Err(Unread::Missing("memory pressure")));
    assert_eq!(Group::of_pid(&Root::at("/nonexistent"), PID), Err(Unread::Missing("/proc/PID/cgroup")));
}

#[test]
fn a_process_is_read_with_its_split() {
    let tree = Tree::unpack("v2-plain");
    let read = read_process(&tree.root(), PID).unwrap();
    assert_eq!(read.identity, read_identity(&tree.root(), PID).unwrap());
    let who = read.identity;
    assert_eq!((who.pid, who.parent, who.process_group, who.session, who.start_ticks), (42, 1, 42, 42, 923_548));
    assert_eq!((who.comm.to_string(), who.state), ("app".to_owned(), b'S'));
    assert_eq!((read.anon_bytes >> 20, read.file_bytes >> 20, read.shmem_bytes >> 20), (160, 30, 10));
    assert_eq!(read.resident_bytes(), 204_800 * 1024);
    assert_eq!((read.swap_bytes, read.page_tables_bytes), (Some(2 << 20), Some(512 << 10)));
    assert_eq!((read.virtual_bytes, read.data_bytes, read.threads), (800_000 << 10, 400_000 << 10, 7));
    // 0x4202: bits 1, 9 and 14, so signals 2 (INT), 10 (USR1) and 15 (TERM).
    let caught: Vec<i32> = (0..=65).filter(|signal| read.catches(*signal)).collect();
    assert_eq!(caught, [2, 10, 15]);
    assert_eq!(read.oom_score_adj, None, "the tree has no such file");
}

#[test]
fn names_with_brackets_and_spaces_do_not_shift_the_fields() {
    let tree = Tree::unpack("v2-plain");
    tree.write("proc/42/stat", "42 (a) R 7 (b) S 9 8 7 0 -1 0 0 0 0 0 0 0 0 0 0 0 1 0 555 0 0\n");
    let who = read_identity(&tree.root(), PID).unwrap();
    assert_eq!((who.comm.to_string(), who.state), ("a) R 7 (b".to_owned(), b'S'));
    assert_eq!((who.parent, who.process_group, who.session, who.start_ticks), (9, 8, 7, 555));
}
