//! What a reading costs when it is really taken: after a sleep, with caches that others have used meanwhile. `benches/readings.rs` has the
//! same readings in a loop, 2 to 10 times cheaper.
//!
//! `cargo bench -p plimsoll --bench cold`; ten seconds. CPU time of the reading thread, so that being preempted is not in it.

use std::hint::black_box;
use std::time::Duration;

use plimsoll::gauge::group::{Group, GroupGauge};
use plimsoll::gauge::{Gauge, ProcessGauge, Root};
use rustix::time::{ClockId, clock_gettime};

/// Readings of each kind at each distance.
const READINGS: usize = 200;
/// Time between two of them.
const GAPS: [Duration; 4] =
    [Duration::ZERO, Duration::from_millis(1), Duration::from_millis(10), Duration::from_millis(30)];

fn main() {
    println!("{:24} {:>8} {:>10} {:>10} {:>10}", "reading", "after", "median", "p95", "most");
    let root = Root::default();
    let mut own = ProcessGauge::own(&root).expect("/proc");
    row("clock alone", || ());
    row("process, fast", || _ = black_box(own.fast()));
    row("process, confirming", || _ = black_box(own.confirm()));
    let pid = rustix::process::getpid().as_raw_nonzero().get();
    let group = Group::of_pid(&root, pid).and_then(|group| GroupGauge::open(&root, &group));
    match group {
        Ok(mut group) => {
            row("group, fast", || _ = black_box(group.fast()));
            row("group, confirming", || _ = black_box(group.confirm()));
        }
        Err(why) => println!("group: not read: {why}"),
    }
}

fn row(what: &str, mut read: impl FnMut()) {
    for gap in GAPS {
        let mut took: Vec<u64> = (0..READINGS)
            .map(|_| {
                if !gap.is_zero() {
                    std::thread::sleep(gap);
                }
                let before = cpu_ns();
                read();
                cpu_ns() - before
            })
            .collect();
        took.sort_unstable();
        let shown = |ns: u64| format!("{:.1} µs", ns as f64 / 1e3);
        let (median, p95, most) = (took[READINGS / 2], took[READINGS * 95 / 100], took[READINGS - 1]);
        println!("{what:24} {:>8} {:>10} {:>10} {:>10}", format!("{gap:?}"), shown(median), shown(p95), shown(most));
    }
}

/// CPU time of this thread. Two calls cost 0.2 to 2 µs themselves: the row "clock alone".
fn cpu_ns() -> u64 {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
}
