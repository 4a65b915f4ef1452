//! What a reading costs on this machine: `cargo bench -p plimsoll`. The design allows 2 µs for a fast reading and 20 µs a
//! level for a confirming one.
//!
//! A group is made below the one that this runs in, with [`MEMBERS`] sleeping processes; where none can be made, the group
//! that this runs in is read. All processes end and the group goes when the bench does.

use std::process::{Child, Command};
use std::sync::{Mutex, PoisonError};

use divan::Bencher;
use plimsoll::gauge::descriptors::{self, Counts};
use plimsoll::gauge::group::{Group, GroupGauge};
use plimsoll::gauge::host::HostGauge;
use plimsoll::gauge::pressure::PressureGauge;
use plimsoll::gauge::process::read_process;
use plimsoll::gauge::tree::{Excluded, TreeGauge, TreeScope};
use plimsoll::gauge::{Gauge as _, Root};
use plimsoll::limit;

/// Sleeping processes in the group and in the tree.
const MEMBERS: usize = 4;

struct Stage {
    group: Group,
    made: bool,
    members: Vec<Child>,
}

static STAGE: Mutex<Option<Stage>> = Mutex::new(None);

fn own_pid() -> i32 {
    rustix::process::getpid().as_raw_nonzero().get()
}

fn set_up() -> Option<Stage> {
    let own = Group::of_pid(&Root::default(), own_pid()).ok()?;
    let group = own.child(&format!("plimsoll-test-bench-{}", own_pid()));
    let made = std::fs::create_dir(group.dir()).is_ok();
    let mut stage = Stage { group: if made { group } else { own }, made, members: Vec::new() };
    for _ in 0..MEMBERS {
        let Ok(child) = Command::new("sleep").arg("600").spawn() else { break };
        if stage.made {
            std::fs::write(stage.group.dir().join("cgroup.procs"), child.id().to_string()).ok();
        }
        stage.members.push(child);
    }
    Some(stage)
}

fn tear_down() {
    let Some(mut stage) = STAGE.lock().unwrap_or_else(PoisonError::into_inner).take() else { return };
    for child in &mut stage.members {
        child.kill().ok();
        child.wait().ok();
    }
    if stage.made {
        std::fs::remove_dir(stage.group.dir()).ok();
    }
}

fn main() {
    *STAGE.lock().unwrap_or_else(PoisonError::into_inner) = set_up();
    divan::main();
    tear_down();
}

fn group() -> Option<Group> {
    STAGE.lock().unwrap_or_else(PoisonError::into_inner).as_ref().map(|stage| stage.group.clone())
}

fn member() -> i32 {
    let stage = STAGE.lock().unwrap_or_else(PoisonError::into_inner);
    let child = stage.as_ref().and_then(|stage| stage.members.first());
    child.and_then(|child| i32::try_from(child.id()).ok()).unwrap_or_else(own_pid)
}

#[divan::bench]
fn group_fast(bencher: Bencher<'_, '_>) {
    let Some(Ok(mut gauge)) = group().map(|group| GroupGauge::open(&Root::default(), &group)) else { return };
    bencher.bench_local(|| gauge.fast());
}

#[divan::bench]
fn group_confirm(bencher: Bencher<'_, '_>) {
    let Some(Ok(mut gauge)) = group().map(|group| GroupGauge::open(&Root::default(), &group)) else { return };
    bencher.bench_local(|| gauge.confirm());
}

#[divan::bench]
fn tree_of_one_fast(bencher: Bencher<'_, '_>) {
    let Ok(mut gauge) = TreeGauge::open(&Root::default(), TreeScope::Descendants { root: member() }) else { return };
    bencher.bench_local(|| gauge.fast());
}

#[divan::bench]
fn tree_of_one_confirm(bencher: Bencher<'_, '_>) {
    let Ok(mut gauge) = TreeGauge::open(&Root::default(), TreeScope::Descendants { root: member() }) else { return };
    bencher.bench_local(|| gauge.confirm());
}

fn tree_of_members() -> Option<TreeGauge> {
    let scope = TreeScope::Below { parent: own_pid(), excluded: Excluded::default() };
    TreeGauge::open(&Root::default(), scope).ok()
}

#[divan::bench]
fn tree_of_members_fast(bencher: Bencher<'_, '_>) {
    let Some(mut gauge) = tree_of_members() else { return };
    bencher.bench_local(|| gauge.fast());
}

#[divan::bench]
fn tree_of_members_confirm(bencher: Bencher<'_, '_>) {
    let Some(mut gauge) = tree_of_members() else { return };
    bencher.bench_local(|| gauge.confirm());
}

#[divan::bench]
fn one_process(bencher: Bencher<'_, '_>) {
    let (root, pid) = (Root::default(), member());
    bencher.bench_local(|| read_process(&root, pid));
}

#[divan::bench]
fn own_descriptors(bencher: Bencher<'_, '_>) {
    let (root, mut counts) = (Root::default(), Counts::default());
    bencher.bench_local(|| descriptors::count(&root, own_pid(), &mut counts));
}

#[divan::bench]
fn host_memory(bencher: Bencher<'_, '_>) {
    let Ok(gauge) = HostGauge::open(&Root::default()) else { return };
    bencher.bench_local(|| gauge.read());
}

#[divan::bench]
fn host_pressure(bencher: Bencher<'_, '_>) {
    let Ok(gauge) = PressureGauge::host(&Root::default()) else { return };
    bencher.bench_local(|| gauge.read());
}

#[divan::bench]
fn all_limits(bencher: Bencher<'_, '_>) {
    let (root, pid) = (Root::default(), member());
    bencher.bench_local(|| limit::discover(&root, pid));
}
