//! What a value costs on its way through the queue in one thread, and what a drop costs when it is full, beside
//! `std::sync::mpsc::sync_channel`: nanoseconds per value, the median of [`ROUNDS`] rounds. Values are 16 bytes; nothing is
//! allocated for them.

use std::hint::black_box;
use std::sync::mpsc::sync_channel;
use std::time::Duration;

use plimsoll::clock::{Clock as _, CoarseClock, MonotonicClock};
use plimsoll::queue::{Limits, Sent, Weigh, WhenFull, bounded};

const ROUNDS: usize = 15;
/// Values that wait at most: what both kinds of queue are given.
const PLACES: usize = 1024;

#[derive(Clone, Copy)]
struct Value([u64; 2]);

impl Weigh for Value {
    fn weight_bytes(&self) -> u64 {
        16
    }
}

fn value(n: usize) -> Value {
    Value([n as u64, 1])
}

fn seen(value: Value) {
    black_box(value.0);
}

fn limits() -> Limits {
    Limits { max_items: PLACES, max_bytes: 16 * PLACES as u64 }
}

/// One thread, a thousand in, a thousand out: the price without contention.
fn alone_ours(values: usize) {
    let (sender, mut receiver) = bounded(limits(), WhenFull::Reject);
    for _ in 0..values / 1000 {
        for n in 0..1000 {
            assert!(sender.send(value(n)).is_ok());
        }
        for _ in 0..1000 {
            black_box(receiver.recv_timeout(Duration::ZERO).map(|value| value.0)).ok();
        }
    }
}

fn alone_ours_all_at_once(values: usize) {
    let (sender, mut receiver) = bounded(limits(), WhenFull::Reject);
    let mut all = Vec::new();
    for _ in 0..values / 1000 {
        for n in 0..1000 {
            assert!(sender.send(value(n)).is_ok());
        }
        receiver.recv_all(&mut all);
        all.drain(..).for_each(seen);
    }
}

fn alone_std(values: usize) {
    let (sender, receiver) = sync_channel(PLACES);
    for _ in 0..values / 1000 {
        for n in 0..1000 {
            assert!(sender.try_send(value(n)).is_ok());
        }
        for _ in 0..1000 {
            black_box(receiver.try_recv().map(|value| value.0)).ok();
        }
    }
}

/// The queue is full and stays so: what a drop costs.
fn full_ours(values: usize, when_full: WhenFull<Value>) {
    let (sender, _receiver) = bounded(limits(), when_full);
    for n in 0..PLACES {
        assert_eq!(sender.send(value(n)).ok(), Some(Sent::Queued));
    }
    for n in 0..values {
        black_box(sender.send(value(n)).is_ok());
    }
}

fn full_std(values: usize) {
    let (sender, _receiver) = sync_channel(PLACES);
    for n in 0..values + PLACES {
        black_box(sender.try_send(value(n)).is_ok());
    }
}

pub(crate) fn run(measure: bool) {
    let (rounds, values) = if measure { (ROUNDS, 1_000_000) } else { (1, 10_000) };
    type Case = (&'static str, fn(usize));
    let cases: [Case; 7] = [
        ("the clock", |values| (0..values).for_each(|_| _ = black_box(CoarseClock.now()))),
        ("one thread: send, recv", alone_ours),
        ("one thread: send, recv_all", alone_ours_all_at_once),
        ("one thread: sync_channel", alone_std),
        ("full: send, DropNewest", |values| full_ours(values, WhenFull::DropNewest)),
        ("full: send, DropOldest", |values| full_ours(values, WhenFull::DropOldest)),
        ("full: sync_channel, try_send", full_std),
    ];
    for (name, case) in cases {
        let mut nanos: Vec<f64> = (0..rounds)
            .map(|_| {
                let began = MonotonicClock.now();
                case(values);
                (MonotonicClock.now() - began).as_nanos() as f64 / values as f64
            })
            .collect();
        nanos.sort_by(f64::total_cmp);
        let (least, median) = (nanos[0], nanos[rounds / 2]);
        println!("  {name:<30} {median:>7.1} ns per value (least {least:.1})");
    }
}
