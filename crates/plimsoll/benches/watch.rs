//! What being watched costs: the watchdog's share of a core by how near the threshold is, what a server that does nothing but allocate
//! loses to it (pairs of half a second, in turns), and what counting every allocation costs.
//!
//! `cargo bench -p plimsoll --bench watch`; about a minute, of a machine that has nothing else to do.

#![allow(clippy::disallowed_methods, reason = "reads a few lines of /proc/self")]

use std::alloc::System;
use std::time::Duration;

use plimsoll::clock::{Clock as _, MonotonicClock};
use plimsoll::gauge::allocator::Counted;
use plimsoll::gauge::{Gauge as _, ProcessGauge, Root};
use plimsoll::watchdog::{Config, Subject, Watchdog};

#[global_allocator]
static COUNTED: Counted<System> = Counted::new(System);

const MIB: u64 = 1 << 20;
/// Allocations and releases of one timing.
const PAIRS: u32 = 5_000_000;

fn main() {
    near_the_threshold();
    loss_of_a_server();
    counting();
}

fn watched(threshold_bytes: u64) -> Watchdog {
    let mut config = Config::new(threshold_bytes);
    (config.reserve_bytes, config.subject) = (0, Subject::Process);
    config.poll_interval = Duration::from_secs(1);
    let watchdog = Watchdog::new(config).at_deadline(|| {});
    watchdog.start().expect("the watchdog starts");
    watchdog
}

/// Memory that is really there.
fn touched(mib: u64) -> Vec<u8> {
    let mut bytes = vec![0_u8; usize::try_from(mib * MIB).expect("fits")];
    bytes.iter_mut().step_by(4096).for_each(|byte| *byte = 1);
    std::hint::black_box(bytes)
}

/// CPU time of the watchdog's thread so far.
fn watchdog_cpu_ns() -> u64 {
    let tasks = std::fs::read_dir("/proc/self/task").expect("/proc");
    let mut dirs = tasks.flatten().map(|task| task.path());
    let own = |task: &std::path::PathBuf| {
        std::fs::read_to_string(task.join("comm")).is_ok_and(|comm| comm.trim() == "memory-watchdog")
    };
    let text = std::fs::read_to_string(dirs.find(own).expect("it runs").join("schedstat")).expect("schedstat");
    text.split(' ').next().and_then(|field| field.parse().ok()).expect("nanoseconds")
}

fn near_the_threshold() {
    let held = touched(256);
    let gauge = ProcessGauge::own(&Root::default()).expect("/proc");
    let used = { gauge }.confirm().expect("readable").anon_bytes.expect("known");
    for percent in [25, 50, 75, 90, 97, 99] {
        let watchdog = watched(used / percent * 100);
        std::thread::sleep(Duration::from_millis(200));
        let (before, samples) = (watchdog_cpu_ns(), watchdog.status().expect("runs").samples_total);
        std::thread::sleep(Duration::from_secs(3));
        let share = (watchdog_cpu_ns() - before) as f64 / 3e9 * 100.0;
        let status = watchdog.status().expect("runs");
        let rate = (status.samples_total - samples) / 3;
        println!(
            "at {percent:>2} % of the threshold: {rate:>3} samples/s, {share:.3} % of a core, {:?}",
            status.confirm_cost
        );
    }
    drop(held);
}

/// One copy of the code, whoever calls it.
#[inline(never)]
fn work() -> f64 {
    let until = MonotonicClock.now() + Duration::from_millis(500);
    let mut done = 0_u64;
    while MonotonicClock.now() < until {
        for size in 0..1000 {
            drop(std::hint::black_box(vec![1_u8; 64 + size]));
        }
        done += 1000;
    }
    done as f64
}

fn loss_of_a_server() {
    let held = touched(200);
    work();
    // Half of the threshold is in use.
    let under = || {
        let _watchdog = watched(400 * MIB);
        work()
    };
    let pair = |n: usize| {
        let (with, without) = if n.is_multiple_of(2) { (under(), work()) } else { (work(), under()) };
        let (with, without) = if n.is_multiple_of(2) { (with, without) } else { (without, with) };
        (1.0 - with / without) * 100.0
    };
    let mut lost: Vec<f64> = (0..40).map(pair).collect();
    lost.sort_by(f64::total_cmp);
    println!("lost to the watchdog: median {:.2} %, quartiles {:.2} % and {:.2} %", lost[20], lost[10], lost[30]);
    drop(held);
}

fn counting() {
    for threads in [1, 8] {
        let began = MonotonicClock.now();
        std::thread::scope(|scope| {
            for _ in 0..threads {
                scope.spawn(|| (0..PAIRS).for_each(|n| drop(std::hint::black_box(Box::new(n)))));
            }
        });
        let each = (MonotonicClock.now() - began) / PAIRS;
        println!("{threads} threads: {each:?} for an allocation and its release, counted");
    }
    let began = MonotonicClock.now();
    for _ in 0..PAIRS / 100 {
        std::hint::black_box(COUNTED.live_bytes());
    }
    println!("a reading of the counter: {:?}", (MonotonicClock.now() - began) / (PAIRS / 100));
}
