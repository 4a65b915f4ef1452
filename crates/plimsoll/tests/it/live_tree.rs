//! Process trees as they really are: workers that share pages, sessions, orphans, and many that come and go.

use plimsoll::gauge::descriptors::{self, Counts};
use plimsoll::gauge::tree::{Excluded, KEPT_PROCESSES, TreeGauge, TreeMonitor, TreeScope};
use plimsoll::gauge::{Gauge as _, Root, Unread};

use rustix::io::Errno;
use rustix::process::{Resource, Rlimit};

use crate::stage::{MIB, Player, alone};

const EMFILE: i32 = Errno::MFILE.raw_os_error();

/// What a player holds besides what it was told to.
const SLACK: u64 = 8 * MIB;

fn open(scope: TreeScope) -> TreeGauge {
    TreeGauge::open(&Root::default(), scope).unwrap()
}

fn of(player: &Player) -> TreeGauge {
    open(TreeScope::Descendants { root: player.pid() })
}

fn pids(monitor: &TreeMonitor) -> Vec<i32> {
    let mut processes = Vec::new();
    monitor.processes(&mut processes);
    processes.iter().map(|process| process.pid).collect()
}

#[test]
fn copy_on_write_workers_count_once_until_they_write() {
    let mut player = Player::start();
    player.tell("anon 64");
    let mut gauge = of(&player);
    let alone = gauge.confirm().unwrap().program_bytes;
    assert!((64 * MIB..64 * MIB + SLACK).contains(&alone), "{alone}");

    let workers: Vec<i32> = (0..4).map(|_| player.tell("worker")[0]).collect();
    let shared = gauge.confirm().unwrap().program_bytes;
    assert!((64 * MIB..64 * MIB + SLACK).contains(&shared), "five processes, one copy: {shared}");
    assert!(gauge.fast().unwrap() >= 5 * 64 * MIB, "fast is an upper bound: it counts five");
    assert_eq!(gauge.caveat(), None);
    assert_eq!(gauge.monitor().status().members, 5);

    player.tell(&format!("go-on {}", workers[0]));
    // The worker writes while we look: until it is done each look sees more, never less than the one copy.
    let grown = (0..2000).map(|_| gauge.confirm().unwrap().program_bytes).find(|bytes| *bytes >= 127 * MIB);
    assert!(grown.is_some_and(|bytes| bytes < 128 * MIB + SLACK), "two copies: {grown:?}");

    player.tell(&format!("end {}", workers[0]));
    let back = gauge.confirm().unwrap().program_bytes;
    assert!((64 * MIB..64 * MIB + SLACK).contains(&back), "its copy is gone: {back}");
}

#[test]
fn what_grew_since_the_last_look_is_in_both_rates() {
    let mut player = Player::start();
    player.tell("anon 8");
    let mut gauge = of(&player);
    player.tell("anon 24");
    let (fast, read) = (gauge.fast().unwrap(), gauge.confirm().unwrap());
    assert!(fast >= read.program_bytes, "{fast} {read:?}");
    assert!(read.anon_bytes.unwrap() >= 32 * MIB, "{read:?}");
    assert!(gauge.confirm_cost().is_some());
}

#[test]
fn a_grandchild_in_a_session_of_its_own_stays_in_the_tree() {
    let mut player = Player::start();
    let mut gauge = of(&player);
    let family = player.tell("session 32");
    let (child, grandchild) = (family[0], family[1]);
    let with = gauge.confirm().unwrap().program_bytes;
    assert!(with >= 32 * MIB, "{with}");
    assert_eq!(pids(&gauge.monitor()).len(), 3);

    // Its parent ends: by descent alone it would be lost.
    player.tell(&format!("end {child}"));
    let orphaned = gauge.confirm().unwrap().program_bytes;
    assert!(orphaned >= 32 * MIB, "{orphaned}");
    let mut members = vec![player.pid(), grandchild];
    members.sort_unstable();
    assert_eq!(pids(&gauge.monitor()), members);
}

#[test]
fn below_a_subreaper_even_an_orphan_that_was_never_seen_is_found() {
    let mut player = Player::start();
    player.tell("subreaper");
    let excluded = Excluded::default();
    let scope = TreeScope::Below { parent: player.pid(), excluded: excluded.clone() };
    let mut gauge = open(scope);
    assert_eq!(gauge.fast(), Ok(0), "nobody is below it yet, and it does not count itself");
    let orphan = player.tell("orphan 32")[1];
    assert!(gauge.confirm().unwrap().program_bytes >= 32 * MIB);
    assert_eq!(pids(&gauge.monitor()), [orphan]);
    assert!(excluded.exclude(orphan));
    assert_eq!(gauge.confirm().unwrap().program_bytes, 0, "a helper that does not count");
    excluded.readmit(orphan);
    assert!(gauge.confirm().unwrap().program_bytes >= 32 * MIB);
}

#[test]
fn a_tree_whose_root_is_gone_is_missing_and_not_empty() {
    let player = Player::start();
    let mut gauge = of(&player);
    let mut fast_only = of(&player);
    assert!(gauge.fast().unwrap() > 0);
    drop(player);
    assert_eq!(fast_only.fast(), Err(Unread::Missing("process tree")));
    assert_eq!(gauge.confirm(), Err(Unread::Missing("process tree")));
    assert_eq!(gauge.fast(), Err(Unread::Missing("process tree")));
}

#[test]
fn two_thousand_short_lived_processes_leave_no_descriptor_behind() {
    alone("live_tree::two_thousand_short_lived_processes_leave_no_descriptor_behind", churn_alone);
}

/// In a process of its own: nothing else opens or closes a descriptor here.
fn churn_alone() {
    let mut player = Player::start();
    let own = rustix::process::getpid().as_raw_nonzero().get();
    let open_descriptors = || {
        let mut counts = Counts::default();
        descriptors::count(&Root::default(), own, &mut counts).unwrap();
        usize::try_from(counts.total()).unwrap()
    };
    let without = open_descriptors();
    let mut gauge = of(&player);
    let monitor = gauge.monitor();
    let at_start = open_descriptors();
    assert_eq!(at_start, without + 3 + monitor.status().kept_open, "two on /proc, one on loadavg, and the members");

    player.begin("churn 2000");
    let (mut most, mut readings, mut most_members) = (at_start, 0, 0);
    while !player.has_answered() {
        gauge.fast().unwrap();
        if readings % 4 == 0 {
            gauge.confirm().unwrap();
        }
        readings += 1;
        let (now, status) = (open_descriptors(), monitor.status());
        assert!(now <= without + 3 + status.kept_open, "{now} open, {status:?}");
        most = most.max(now);
        most_members = most_members.max(status.members);
    }
    assert_eq!(player.answer().as_deref(), Some(""));
    gauge.confirm().unwrap();
    let status = monitor.status();
    assert_eq!(open_descriptors(), at_start, "{status:?}");
    assert!(most <= without + 3 + KEPT_PROCESSES);
    assert!(most_members > 1, "the children were seen");
    println!("{readings} readings, at most {most_members} members and {most} descriptors, {status:?}");
}

#[test]
fn without_a_free_descriptor_a_tree_is_unread_and_not_empty() {
    alone("live_tree::without_a_free_descriptor_a_tree_is_unread_and_not_empty", no_descriptor_alone);
}

/// In a process of its own: the limit is the whole process's.
fn no_descriptor_alone() {
    let mut player = Player::start();
    player.tell("anon 16");
    let own = rustix::process::getpid().as_raw_nonzero().get();
    let mut gauges = [of(&player), open(TreeScope::Below { parent: own, excluded: Excluded::default() })];
    let limit = rustix::process::getrlimit(Resource::Nofile);
    let before = gauges.each_mut().map(|gauge| gauge.confirm().unwrap().program_bytes);
    assert!(before.iter().all(|bytes| *bytes >= 16 * MIB), "{before:?}");

    rustix::process::setrlimit(Resource::Nofile, Rlimit { current: Some(0), maximum: limit.maximum }).unwrap();
    let without = gauges.each_mut().map(|gauge| (gauge.confirm(), gauge.fast()));
    rustix::process::setrlimit(Resource::Nofile, limit).unwrap();
    for (confirmed, fast) in without {
        assert!(matches!(confirmed, Err(Unread::Failed(_, EMFILE))), "{confirmed:?}");
        // What is kept open can still be read: fast goes on, or says why not.
        assert!(fast.is_err() || fast.is_ok_and(|bytes| bytes >= 16 * MIB), "{fast:?}");
    }
    let after = gauges.each_mut().map(|gauge| gauge.confirm().unwrap().program_bytes);
    assert!(after.iter().all(|bytes| *bytes >= 16 * MIB), "it recovers: {after:?}");
}
