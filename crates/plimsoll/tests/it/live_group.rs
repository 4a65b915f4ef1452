//! Groups as the kernel really keeps them: page cache, lagging counters, limits of ancestors, wakes, kills.

use plimsoll::gauge::group::{Group, GroupGauge, Version};
use plimsoll::gauge::{Gauge as _, Root, Unread, WakeKind, threshold_wake};
use plimsoll::limit::{self, Consequence};
use rustix::event::{PollFd, Timespec};

use crate::stage::{MIB, Player, disk, with_group};

/// What a player holds besides what it was told to, and what the kernel charges in batches.
const SLACK: u64 = 12 * MIB;

fn gauge(group: &Group) -> GroupGauge {
    GroupGauge::open(&Root::default(), group).unwrap()
}

#[test]
fn page_cache_never_counts_and_shared_memory_does() {
    let Some(disk) = disk() else { return };
    with_group(|group| {
        let mut player = Player::start();
        group.admit(player.pid());
        player.tell("anon 48");
        let mut gauge = gauge(group.group());
        let before = gauge.confirm().unwrap();
        assert!((48 * MIB..48 * MIB + SLACK).contains(&before.program_bytes), "{before:?}");

        player.tell(&format!("file 64 {}", disk.path().join("cached").display()));
        let (fast, cached) = (gauge.fast().unwrap(), gauge.confirm().unwrap());
        assert!(cached.file_bytes.unwrap() >= 60 * MIB, "the cache is there: {cached:?}");
        assert!(fast >= 108 * MIB, "raw usage includes it: {fast}");
        assert!(cached.program_bytes < before.program_bytes + SLACK, "{before:?} {cached:?}");

        player.tell("shmem 32");
        let shared = gauge.confirm().unwrap();
        assert!(shared.shmem_bytes.unwrap() >= 31 * MIB, "{shared:?}");
        assert!(shared.program_bytes >= cached.program_bytes + 28 * MIB, "{cached:?} {shared:?}");
        assert!(gauge.fast().unwrap() >= shared.program_bytes);
        drop(player);
    });
}

#[test]
fn what_was_just_filled_is_seen_at_once() {
    with_group(|group| {
        let mut player = Player::start();
        group.admit(player.pid());
        let mut gauge = gauge(group.group());
        gauge.confirm().unwrap();
        for step in 1..=8 {
            player.tell("anon 16");
            let read = gauge.confirm().unwrap();
            let filled = step * 16 * MIB;
            assert!((filled..filled + SLACK).contains(&read.program_bytes), "step {step}: {read:?}");
        }
        drop(player);
    });
}

#[test]
fn copy_on_write_workers_count_once_in_a_group() {
    with_group(|group| {
        let mut player = Player::start();
        group.admit(player.pid());
        player.tell("anon 48");
        let workers: Vec<i32> = (0..4).map(|_| player.tell("worker")[0]).collect();
        let mut gauge = gauge(group.group());
        let shared = gauge.confirm().unwrap();
        assert!((48 * MIB..48 * MIB + SLACK).contains(&shared.program_bytes), "{shared:?}");
        let mut pids = Vec::new();
        group.group().procs(&mut pids).unwrap();
        assert!(workers.iter().all(|worker| pids.contains(worker)) && pids.len() == 5, "{pids:?}");
        drop(player);
    });
}

#[test]
fn the_ancestor_with_the_least_headroom_governs() {
    with_group(|outer| {
        let (inner, beside) = (outer.below("inner"), outer.below("beside"));
        let (player, mut neighbour) = (Player::start(), Player::start());
        inner.admit(player.pid());
        beside.admit(neighbour.pid());
        inner.limit(96 * MIB);
        outer.limit(160 * MIB);
        let governing = || {
            let limits = limit::discover(&Root::default(), player.pid());
            let governing = limits.governing().unwrap_or_else(|| panic!("{limits:?}"));
            assert_eq!(governing.consequence, Consequence::Kill);
            assert!(governing.usage_bytes.is_ok());
            (governing.source.clone(), governing.level, governing.bytes)
        };
        let file = |group: &Group| group.dir().join(group.limit_file());
        assert_eq!(governing(), (file(inner.group()), Some(0), 96 * MIB));
        // What the neighbour holds leaves the group above less than our own group has.
        neighbour.tell("anon 96");
        assert_eq!(governing(), (file(outer.group()), Some(1), 160 * MIB));
        drop(neighbour);
        assert_eq!(governing(), (file(inner.group()), Some(0), 96 * MIB), "found again while running");
        drop((player, inner, beside));
    });
}

#[test]
fn a_group_without_a_limit_says_so() {
    with_group(|group| {
        let (path, limit) = match group.group().version() {
            Version::V1 => ("memory.limit_in_bytes", "-1"),
            Version::V2 => ("memory.max", "max"),
        };
        std::fs::write(group.group().dir().join(path), limit).unwrap();
        assert_eq!(group.group().limit(), Ok(None));
        group.limit(64 * MIB);
        assert_eq!(group.group().limit(), Ok(Some(64 * MIB)));
    });
}

#[test]
fn a_group_that_is_gone_is_missing_and_not_empty() {
    with_group(|group| {
        let dir = group.group().dir().to_owned();
        let mut gauge = gauge(group.group());
        assert!(gauge.confirm().is_ok());
        drop(group);
        assert!(!dir.exists(), "removed");
        assert!(matches!(gauge.fast(), Err(Unread::Missing(_))), "{:?}", gauge.fast());
        assert!(matches!(gauge.confirm(), Err(Unread::Missing(_))), "{:?}", gauge.confirm());
    });
}

#[test]
fn a_threshold_wakes_when_it_is_crossed_and_only_then() {
    with_group(|group| {
        if group.group().version() == Version::V2 {
            return println!("skipped, usage thresholds exist in cgroup v1 only");
        }
        let mut player = Player::start();
        group.admit(player.pid());
        let wake = threshold_wake(group.group(), 32 * MIB).unwrap();
        assert_eq!((wake.kind, wake.guard_bytes), (WakeKind::Threshold, Some(32 * MIB)));
        let ready = |seconds| {
            let mut fds = [PollFd::new(&wake, wake.kind.poll_flags())];
            rustix::event::poll(&mut fds, Some(&Timespec { tv_sec: seconds, tv_nsec: 0 })).unwrap() == 1
        };
        player.tell("anon 8");
        assert!(!ready(0));
        player.tell("anon 40");
        assert!(ready(10));
        wake.clear().unwrap();
        assert!(!ready(0), "cleared");
        drop(player);
        assert!(ready(10), "crossed downwards");
    });
}

#[test]
fn a_kill_by_the_kernel_is_counted() {
    with_group(|group| {
        group.limit(32 * MIB);
        let swapless = std::fs::read_to_string("/proc/swaps").is_ok_and(|text| text.lines().count() < 2);
        if !swapless {
            return println!("skipped, the machine has swap: the group would be swapped out");
        }
        assert_eq!(group.group().oom_kills(), Ok(0));
        let mut player = Player::start();
        group.admit(player.pid());
        player.begin("anon 64");
        assert_eq!(player.answer(), None, "killed");
        assert_eq!(group.group().oom_kills(), Ok(1));
        drop(player);
    });
}
