//! What a charge costs: new and drop, borrowed and owned, alone and with 2 and 8 threads on one account. Goals: 15 ns, and 60 ns at 8.
//!
//! `cargo bench -p plimsoll --bench charge`; ten seconds. CPU time of the charging threads, so that being preempted is not in it: the
//! median and the most of [`ROUNDS`] rounds of [`CHARGES`] charges each, over all threads.

use std::hint::black_box;
use std::sync::Barrier;

use plimsoll::reclaim::ledger::{Account, Ledger};
use rustix::time::{ClockId, clock_gettime};

const CHARGES: u32 = 1_000_000;
const ROUNDS: usize = 15;

fn main() {
    let ledger = Ledger::with_cap(8 << 30);
    let account = ledger.account("bench").expect("the first account");
    println!("{:24} {:>8} {:>12} {:>12}", "per charge", "threads", "median", "most");
    for threads in [1, 2, 8] {
        row("borrowed, new and drop", threads, &account, |account| {
            drop(black_box(account.charge_scoped(black_box(1_500))));
        });
        row("owned, new and drop", threads, &account, |account| drop(black_box(account.try_charge(black_box(1_500)))));
        row("owned, forced", threads, &account, |account| drop(black_box(account.charge(black_box(1_500)))));
    }
    let mut reads: Vec<f64> = (0..ROUNDS).map(|_| timed(CHARGES, || _ = black_box(ledger.held_bytes()))).collect();
    reads.sort_by(f64::total_cmp);
    println!("{:24} {:>8} {:>9.1} ns {:>9.1} ns", "reading one account", 1, reads[ROUNDS / 2], reads[ROUNDS - 1]);
}

fn row(what: &str, threads: usize, account: &Account, charge: impl Fn(&Account) + Sync) {
    let mut each = Vec::new();
    for _ in 0..ROUNDS {
        let together = Barrier::new(threads);
        let run = || {
            together.wait();
            timed(CHARGES, || charge(account))
        };
        std::thread::scope(|scope| {
            let all: Vec<_> = (0..threads).map(|_| scope.spawn(run)).collect();
            each.extend(all.into_iter().map(|thread| thread.join().expect("no panic")));
        });
    }
    each.sort_by(f64::total_cmp);
    println!("{what:24} {threads:>8} {:>9.1} ns {:>9.1} ns", each[each.len() / 2], each[each.len() - 1]);
}

/// Nanoseconds of this thread's CPU time for one.
fn timed(times: u32, mut call: impl FnMut()) -> f64 {
    let before = cpu_ns();
    for _ in 0..times {
        call();
    }
    (cpu_ns() - before) as f64 / f64::from(times)
}

fn cpu_ns() -> u64 {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
}
