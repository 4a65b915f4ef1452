//! One message to 1,000 and 10,000 subscribers beside `tokio::sync::broadcast`: deliveries a second, with and without 5 % of them
//! stalled, one by one and at batches of 32; and what a stalled subscriber costs in bytes.
//!
//! `cargo bench -p plimsoll --bench broadcast`. Without `--bench` (as under `cargo test --benches`) one short round, to see that it
//! runs. Closed loop on tokio's two workers: a burst is published, every live subscriber's task reads all of it, then the next.
//! Messages are 1 KB behind an `Arc`, for both. Tokio's capacity is 1,024 messages, ours 1 MiB: the same. Stalled subscribers never
//! read: ours are removed on the way, tokio's stay for ever. The best of [`ROUNDS`] alternating rounds, as neighbours only slow down.

#![allow(clippy::unwrap_used, reason = "a bench fails by panicking")]

mod sys;

use std::hint::black_box;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use plimsoll::broadcast::{Bounds, Broadcast, Reason};
use plimsoll::clock::{Clock as _, MonotonicClock};
use tokio::sync::{Notify, broadcast};

const ROUNDS: usize = 7;
const MESSAGE_BYTES: usize = 1024;

fn bounds() -> Bounds {
    Bounds { subscribers: 20_000, subscribe_per_second: 0, ..Bounds::default() }
}

fn message() -> Arc<[u8]> {
    Arc::from(vec![7u8; MESSAGE_BYTES])
}

/// Counts what was read; the last of a burst tells the publisher.
struct Gate {
    left: AtomicUsize,
    done: Notify,
}

impl Gate {
    fn read(&self, messages: usize) {
        if self.left.fetch_sub(messages, Ordering::AcqRel) == messages {
            self.done.notify_one();
        }
    }
}

/// Seconds for `bursts` bursts of `burst` messages to `live` tasks, beside `stalled` subscribers that never read.
async fn ours(live: usize, stalled: usize, burst: usize, bursts: usize) -> f64 {
    let hub: Broadcast<Arc<[u8]>> = Broadcast::new(bounds());
    let gate = Arc::new(Gate { left: AtomicUsize::new(0), done: Notify::new() });
    let still: Vec<_> = (0..stalled).map(|_| hub.subscribe().unwrap()).collect();
    let tasks: Vec<_> = (0..live)
        .map(|_| {
            let (mut subscriber, gate) = (hub.subscribe().unwrap(), Arc::clone(&gate));
            tokio::spawn(async move {
                while let Ok(batch) = subscriber.next_up_to(burst).await {
                    batch.iter().for_each(|message| _ = black_box(message[0]));
                    let read = batch.len();
                    drop(batch);
                    gate.read(read);
                }
            })
        })
        .collect();
    tokio::task::yield_now().await;
    let shared = message();
    let began = MonotonicClock.now();
    for _ in 0..bursts {
        gate.left.store(live * burst, Ordering::Release);
        for _ in 0..burst {
            hub.publish(Arc::clone(&shared)).unwrap();
        }
        gate.done.notified().await;
    }
    let seconds = (MonotonicClock.now() - began).as_secs_f64();
    let stats = hub.stats();
    let expected = if (burst * bursts) as u64 * 1_024 > bounds().behind_bytes { stalled as u64 } else { 0 };
    assert_eq!(stats.removed_for(Reason::Behind), expected, "the stalled are gone, and nobody else");
    drop((hub, still));
    for task in tasks {
        task.await.unwrap();
    }
    seconds
}

async fn theirs(live: usize, stalled: usize, burst: usize, bursts: usize) -> f64 {
    let (hub, _) = broadcast::channel::<Arc<[u8]>>(1024);
    let gate = Arc::new(Gate { left: AtomicUsize::new(0), done: Notify::new() });
    let still: Vec<_> = (0..stalled).map(|_| hub.subscribe()).collect();
    let tasks: Vec<_> = (0..live)
        .map(|_| {
            let (mut subscriber, gate) = (hub.subscribe(), Arc::clone(&gate));
            tokio::spawn(async move {
                while let Ok(message) = subscriber.recv().await {
                    black_box(message[0]);
                    gate.read(1);
                }
            })
        })
        .collect();
    tokio::task::yield_now().await;
    let shared = message();
    let began = MonotonicClock.now();
    for _ in 0..bursts {
        gate.left.store(live * burst, Ordering::Release);
        for _ in 0..burst {
            hub.send(Arc::clone(&shared)).unwrap();
        }
        gate.done.notified().await;
    }
    let seconds = (MonotonicClock.now() - began).as_secs_f64();
    drop((hub, still));
    for task in tasks {
        task.await.unwrap();
    }
    seconds
}

/// Bytes that one stalled subscriber costs, handle included, with so many of them; the ring and what it holds left out.
fn bytes_a_stalled_one(count: usize) -> f64 {
    let hub: Broadcast<Arc<[u8]>> = Broadcast::new(bounds());
    let mut handles = Vec::with_capacity(count);
    let before = sys::held_bytes() - (count * size_of_val(&hub.subscribe().unwrap())) as i64;
    for _ in 0..count {
        handles.push(hub.subscribe().unwrap());
    }
    // Each has waited for a message once, as a task does before its client stalls.
    for handle in &mut handles {
        let mut context = std::task::Context::from_waker(std::task::Waker::noop());
        assert!(std::pin::pin!(handle.next()).as_mut().poll(&mut context).is_pending());
    }
    let cost = (sys::held_bytes() - before) as f64 / count as f64;
    drop(handles);
    cost
}

/// What publishing costs while one subscriber stays at the edge of the bound and 9,999 read: nanoseconds a message.
fn publish_ns(subscribers: usize, messages: usize) -> f64 {
    let hub: Broadcast<Arc<[u8]>> = Broadcast::new(bounds());
    let _stalled: Vec<_> = (0..subscribers).map(|_| hub.subscribe().unwrap()).collect();
    let shared = message();
    let began = MonotonicClock.now();
    for _ in 0..messages {
        hub.publish(Arc::clone(&shared)).unwrap();
    }
    (MonotonicClock.now() - began).as_nanos() as f64 / messages as f64
}

fn main() {
    let measure = std::env::args().any(|arg| arg == "--bench");
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_time().build().unwrap();
    let rounds = if measure { ROUNDS } else { 1 };
    println!("M deliveries/s, best of {rounds} rounds, and CPU ns a delivery: ours, tokio, ratio");
    for subscribers in [1_000, 10_000] {
        for stalled in [0, subscribers / 20] {
            for burst in [1, 32] {
                let live = subscribers - stalled;
                let deliveries: usize = if measure { 2_000_000 * if burst == 1 { 1 } else { 4 } } else { live * burst };
                let bursts = deliveries.div_ceil(live * burst);
                let (mut best, mut cpu) = ([f64::MAX; 2], [f64::MAX; 2]);
                for _ in 0..rounds {
                    for (which, (best, cpu)) in best.iter_mut().zip(&mut cpu).enumerate() {
                        let before = cpu_seconds();
                        let seconds = runtime.block_on(async {
                            // On a worker: `block_on` itself runs on the main thread.
                            let run = async move {
                                match which {
                                    0 => ours(live, stalled, burst, bursts).await,
                                    _ => theirs(live, stalled, burst, bursts).await,
                                }
                            };
                            tokio::spawn(run).await.unwrap()
                        });
                        *best = best.min(seconds);
                        *cpu = cpu.min(cpu_seconds() - before);
                    }
                }
                let delivered = (live * burst * bursts) as f64;
                let [ours, theirs] = best.map(|seconds| delivered / seconds / 1e6);
                let [ours_ns, theirs_ns] = cpu.map(|seconds| seconds * 1e9 / delivered);
                println!(
                    "{subscribers:>6} subscribers, {stalled:>3} stalled, batches of {burst:>2}: {ours:>6.1} ({ours_ns:>4.0} ns) {theirs:>6.1} ({theirs_ns:>4.0} ns) {:>5.1} x",
                    ours / theirs
                );
            }
        }
    }
    for count in [1_000, 10_000] {
        println!("{count:>6} stalled subscribers: {:.0} bytes each, handle included", bytes_a_stalled_one(count));
    }
    for subscribers in [1, 10_000] {
        let messages = if measure { 100_000 } else { 100 };
        println!(
            "{subscribers:>6} stalled from the start: {:.0} ns to publish a message",
            publish_ns(subscribers, messages)
        );
    }
}

fn cpu_seconds() -> f64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    Duration::new(now.tv_sec as u64, now.tv_nsec as u32).as_secs_f64()
}
