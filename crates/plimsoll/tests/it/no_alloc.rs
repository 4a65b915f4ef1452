//! A reading allocates nothing: neither the first one, which looks for members, nor one that fails.

use plimsoll::gauge::descriptors::{self, Counts};
use plimsoll::gauge::group::{Group, GroupGauge};
use plimsoll::gauge::host::HostGauge;
use plimsoll::gauge::process::read_process;
use plimsoll::gauge::tree::{TreeGauge, TreeScope};
use plimsoll::gauge::{Gauge, Root, Unread};

use crate::fixture::{PID, Tree};
use crate::stage::{Player, with_group};
use crate::sys::allocations;

fn own_pid() -> i32 {
    rustix::process::getpid().as_raw_nonzero().get()
}

/// Reads 100 times, from the very first on.
fn allocates_nothing<T>(what: &str, mut read: impl FnMut() -> Result<T, Unread>) {
    let before = allocations();
    let mut failure = None;
    for _ in 0..100 {
        failure = failure.or(read().err());
    }
    assert_eq!(allocations() - before, 0, "{what}");
    assert_eq!(failure, None, "{what}");
}

fn neither_rate_allocates(what: &str, gauge: &mut dyn Gauge) {
    allocates_nothing(what, || gauge.fast());
    allocates_nothing(what, || gauge.confirm());
}

#[test]
fn the_counter_counts() {
    let before = allocations();
    drop(std::hint::black_box(Box::new(1u64)));
    drop(std::hint::black_box(vec![1u8; 10]));
    assert_eq!(allocations() - before, 2);
}

#[test]
fn group_readings_of_both_versions() {
    for name in ["v1-plain", "v1-nested", "v2-plain", "v2-nested"] {
        let tree = Tree::unpack(name);
        let group = Group::of_pid(&tree.root(), PID).unwrap();
        neither_rate_allocates(name, &mut GroupGauge::open(&tree.root(), &group).unwrap());
    }
}

#[test]
fn group_readings_of_a_real_group_with_members() {
    with_group(|group| {
        let mut player = Player::start();
        group.admit(player.pid());
        for _ in 0..12 {
            player.tell("worker");
        }
        let mut gauge = GroupGauge::open(&Root::default(), group.group()).unwrap();
        neither_rate_allocates("real group", &mut gauge);
        drop(player);
    });
}

#[test]
fn tree_readings() {
    let mut player = Player::start();
    player.tell("anon 4");
    let mut gauge = TreeGauge::open(&Root::default(), TreeScope::Descendants { root: player.pid() }).unwrap();
    let monitor = gauge.monitor();
    neither_rate_allocates("one process", &mut gauge);
    // Members that the gauge has not seen, and more than it keeps open.
    for _ in 0..70 {
        player.tell("worker");
    }
    neither_rate_allocates("71 processes", &mut gauge);
    assert_eq!(monitor.status().members, 71);
    let mut processes = Vec::with_capacity(100);
    allocates_nothing("the list of members", || {
        monitor.processes(&mut processes);
        Ok(())
    });
}

#[test]
fn readings_of_one_process_and_of_the_host() {
    let root = Root::default();
    let mut counts = Counts::default();
    allocates_nothing("descriptors", || descriptors::count(&root, own_pid(), &mut counts));
    assert!(counts.total() > 2, "{counts:?}");
    allocates_nothing("process", || read_process(&root, own_pid()));
    let host = HostGauge::open(&root).unwrap();
    allocates_nothing("host", || host.read());
}

#[test]
fn a_reading_that_fails() {
    let tree = Tree::unpack("v1-malformed");
    let group = Group::of_pid(&tree.root(), PID).unwrap();
    let mut gauge = GroupGauge::open(&tree.root(), &group).unwrap();
    let before = allocations();
    for _ in 0..10 {
        assert!(gauge.fast().is_err());
        assert!(gauge.confirm().is_err());
    }
    assert_eq!(allocations() - before, 0);
}
