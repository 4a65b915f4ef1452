//! A reading allocates nothing: neither the first one, which looks for members, nor one that fails. Nor does the loop around it: gauge,
//! supply, `step`, law, decision log, board, on the governor's own thread.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::sync_channel;
use std::time::Duration;

use plimsoll::clock::MonotonicClock;
use plimsoll::event::Supply;
use plimsoll::gauge::descriptors::{self, Counts};
use plimsoll::gauge::group::{Group, GroupGauge};
use plimsoll::gauge::host::HostGauge;
use plimsoll::gauge::process::read_process;
use plimsoll::gauge::tree::{TreeGauge, TreeScope};
use plimsoll::gauge::{Gauge, ProcessGauge, Protected, Root, Unread};
use plimsoll::governor::log::Line;
use plimsoll::governor::{Decision, Governor, Setup};
use plimsoll::level::Level;
use plimsoll::policy::Policy;
use plimsoll::reclaim::ledger::Ledger;

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

/// Reads this process's real files, and tells a ramp past the budget, which then stays; 100 MiB of it are not the store's.
struct Ramp {
    own: ProcessGauge,
    mib: Arc<AtomicU64>,
}

impl Gauge for Ramp {
    fn fast(&mut self) -> Result<u64, Unread> {
        self.own.fast().map(|_| self.mib.load(Ordering::Relaxed) << 20)
    }
    fn confirm(&mut self) -> Result<Protected, Unread> {
        let mib = (self.mib.load(Ordering::Relaxed) + 1).min(305);
        self.mib.store(mib, Ordering::Relaxed);
        self.own.confirm().map(|protected| Protected { program_bytes: mib << 20, ..protected })
    }
}

#[test]
fn the_sampling_loop_allocates_nothing() {
    const SAMPLES: usize = 500;
    let (tell, told) = sync_channel::<(u64, Decision)>(4 * SAMPLES);
    let (ledger, mib) = (Ledger::new(), Arc::new(AtomicU64::new(246)));
    let _held = ledger.account("store").unwrap().charge(100 << 20);
    let gauge = Ramp { own: ProcessGauge::own(&Root::default()).unwrap(), mib: Arc::clone(&mib) };
    let poll_interval = Duration::from_millis(10);
    let setup = Setup {
        policy: Policy { poll_interval, dwell: Duration::from_millis(5), ..Policy::new(300 << 20, 0) },
        gauge: Box::new(gauge),
        wakes: Vec::new(),
        clock: Arc::new(MonotonicClock),
        name: "governor".into(),
    };
    let held = move || (mib.load(Ordering::Relaxed) << 20) - ledger.held_bytes();
    let supply = move || Supply { held_bytes: held(), ..Supply::default() };
    let mut line = Line::new();
    let record = move |record: &_| assert!(line.encode(record).ends_with(b"\n"));
    // Allocations are counted per thread: this is called on the governor's.
    let on_decision = move |decision: &Decision| tell.try_send((allocations(), *decision)).unwrap_or_default();
    let governor =
        Governor::start_recorded(setup, Some(Box::new(supply)), Box::new(record), on_decision).expect("it starts");
    let first = told.recv().expect("the first decision").0;
    let (mut critical, mut orders, mut last) = (0, 0, first);
    for _ in 0..SAMPLES {
        let (allocated, decision) = told.recv().expect("one more");
        (critical, last) = (critical + usize::from(decision.level == Level::Critical), allocated);
        orders += usize::from(decision.is_order());
        // Readers of the board are in its way, as they are in a service.
        std::hint::black_box(governor.status());
        std::hint::black_box(governor.log());
    }
    assert_eq!(last - first, 0, "allocations in {SAMPLES} samples");
    assert!(critical > 0 && orders > 0, "{critical} samples at critical, {orders} orders: the loop had nothing to do");
}
