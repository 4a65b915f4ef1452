//! The queue beside others, in one run: values of 64 bytes from 1, 2 and 4 producers to one receiver, in millions a second.
//!
//! `cargo bench -p plimsoll --bench queue [-- CAPACITY]` (default 1,024). Three tables: threads that try again when full, after a pause that
//! doubles (`rivals`); threads, and tasks, that sleep until there is room (`waiting`). Each cell is the median of [`ROUNDS`] rounds and,
//! behind it, the best; the kinds take turns within a round, so that what else the machine does falls on all. Ours counts
//! accepted and delivered, in items and bytes, for each producer, and keeps shares; the others count nothing. Then what a
//! value costs without a second thread (`alone`). Without `--bench` (as under `cargo test --benches`) one short round, to
//! see that it runs.

mod alone;
mod rivals;
mod waiting;

use std::time::Duration;

use plimsoll::clock::{Clock as _, MonotonicClock};
use plimsoll::queue::{Limits, Sender, Weigh, WhenFull, bounded};
use rivals::Kind;

const ROUNDS: usize = 9;
const PRODUCERS: [usize; 3] = [1, 2, 4];

/// 64 bytes.
#[derive(Clone, Copy)]
pub(crate) struct Item([u64; 8]);

impl Item {
    pub(crate) fn new(n: usize) -> Item {
        Item([n as u64; 8])
    }

    /// What the receiver sums up, so that nothing is optimised away and nothing is lost.
    pub(crate) fn seen(self) -> u64 {
        self.0[0]
    }
}

impl Weigh for Item {
    fn weight_bytes(&self) -> u64 {
        64
    }
}

/// Tries until it goes, with the pauses that crossbeam takes: spins of 1, 2, 4 … 64, then the processor is given up.
pub(crate) fn persist(mut try_once: impl FnMut() -> bool) {
    let mut step = 0;
    while !try_once() {
        if step <= 6 {
            (0..1 << step).for_each(|_| std::hint::spin_loop());
            step += 1;
        } else {
            std::thread::yield_now();
        }
    }
}

/// So many producers of a queue, each with a name.
pub(crate) fn named(first: &Sender<Item>, producers: usize) -> Vec<Sender<Item>> {
    (0..producers).map(|n| first.named(&format!("producer {n}"))).collect()
}

/// Ours: named producers, values rejected when full, everything received at once.
fn ours(producers: usize, each: usize, capacity: usize) -> u64 {
    let limits = Limits { max_items: capacity, max_bytes: 64 * capacity as u64 };
    let (first, mut receiver) = bounded(limits, WhenFull::Reject);
    let senders = named(&first, producers);
    drop(first);
    let mut sum = 0;
    std::thread::scope(|scope| {
        for sender in senders {
            scope.spawn(move || (0..each).for_each(|n| persist(|| sender.send(Item::new(n)).is_ok())));
        }
        let mut all = Vec::new();
        while receiver.recv_all(&mut all) > 0 {
            sum += all.drain(..).map(Item::seen).sum::<u64>();
        }
    });
    let total = receiver.stats().total();
    assert_eq!(total.delivered.items, (producers * each) as u64);
    assert_eq!(total.accepted.bytes, 64 * (producers * each) as u64);
    sum
}

fn median(mut values: Vec<f64>) -> (f64, f64) {
    values.sort_by(f64::total_cmp);
    (values[values.len() / 2], values[values.len() - 1])
}

/// Each kind with each number of producers, in turns; printed as a table beside the first.
fn compare(title: &str, kinds: &[Kind], (rounds, values): (usize, usize), capacity: usize) {
    println!(
        "{title}: {values} values of 64 bytes, capacity {capacity}, {rounds} rounds: millions a second, median (best)"
    );
    let mut table = vec![Vec::new(); kinds.len()];
    for producers in PRODUCERS {
        let each = values / producers;
        let expected = producers as u64 * (each as u64 * (each as u64 - 1) / 2);
        let mut rates = vec![Vec::new(); kinds.len()];
        for _ in 0..rounds {
            for ((name, run), rates) in kinds.iter().zip(&mut rates) {
                let began = MonotonicClock.now();
                assert_eq!(run(producers, each, capacity), expected, "{name} lost something");
                let took: Duration = MonotonicClock.now() - began;
                rates.push((producers * each) as f64 / took.as_secs_f64() / 1e6);
            }
        }
        for (cells, rates) in table.iter_mut().zip(rates) {
            cells.push(median(rates));
        }
    }
    println!("  {:<26}{:>16}{:>16}{:>16}   ours is so many times as fast", "", "1 producer", "2", "4");
    for ((name, _), cells) in kinds.iter().zip(&table) {
        let shown: String = cells.iter().map(|(median, best)| format!("{median:>8.1} ({best:>5.1})")).collect();
        let ratios: String =
            cells.iter().zip(&table[0]).map(|(cell, ours)| format!("{:>7.1}", ours.0 / cell.0)).collect();
        println!("  {name:<26}{shown}  {ratios}");
    }
}

fn main() {
    let measure = std::env::args().any(|arg| arg == "--bench");
    let capacity = std::env::args().filter_map(|arg| arg.parse().ok()).next().unwrap_or(1024);
    let size = if measure { (ROUNDS, 800_000) } else { (1, 4_000) };
    let mut kinds: Vec<Kind> = vec![("plimsoll::queue", ours)];
    kinds.extend(rivals::KINDS);
    compare("threads that try again", &kinds, size, capacity);
    compare("threads that sleep", &waiting::THREADS, size, capacity);
    compare("tasks", &waiting::TASKS, size, capacity);
    println!("one thread, values of 16 bytes:");
    alone::run(measure);
}
