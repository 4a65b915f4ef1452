//! Readings that are kept and paid off, and the real allocators: what is allocated is seen, what is purged is gone.

use std::alloc::System;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::sys::blocks::Block;
use super::*;
use crate::clock::ManualClock;

#[cfg(any(feature = "jemalloc", feature = "mimalloc"))]
const MIB: u64 = 1 << 20;

/// An allocator that costs time, on a manual clock, and whose live bytes are the number of readings.
struct Slow {
    clock: Arc<ManualClock>,
    cost: Duration,
    reads: u64,
    purges: Arc<AtomicU64>,
}

impl Allocator for Slow {
    fn name(&self) -> &'static str {
        "slow"
    }

    fn read(&mut self) -> Heap {
        self.clock.advance(self.cost);
        self.reads += 1;
        Heap::live(Ok(self.reads))
    }

    fn purge(&mut self) -> Result<(), Unread> {
        self.purges.fetch_add(1, Ordering::SeqCst);
        Ok(())
    }
}

fn slow(cost: Duration) -> (Arc<Cached>, Arc<ManualClock>, Arc<AtomicU64>) {
    let (clock, purges) = (Arc::new(ManualClock::default()), Arc::new(AtomicU64::new(0)));
    clock.advance(Duration::from_secs(100));
    let allocator = Slow { clock: Arc::clone(&clock), cost, reads: 0, purges: Arc::clone(&purges) };
    (Arc::new(Cached::new(allocator).clock(clock.clone())), clock, purges)
}

#[test]
fn a_cheap_reading_is_good_for_its_time_to_live() {
    let (cached, clock, _) = slow(Duration::from_micros(6));
    assert_eq!(cached.last(), None);
    assert_eq!(cached.read().heap.live_bytes, Ok(1));
    clock.advance(Duration::from_millis(999));
    let kept = cached.read();
    assert_eq!((kept.heap.live_bytes, kept.age), (Ok(1), Duration::from_millis(999)));
    clock.advance(Duration::from_millis(1));
    assert_eq!(cached.read().heap.live_bytes, Ok(2));
    assert_eq!(cached.costs().postponed_total, 0);
}

#[test]
fn a_dear_reading_is_paid_off_before_the_next_one() {
    let (cached, clock, _) = slow(Duration::from_millis(49));
    let began = crate::clock::Clock::now(&*clock);
    // Somebody asks every 100 ms for a minute.
    for _ in 0..600 {
        cached.read();
        clock.advance(Duration::from_millis(100));
    }
    let (costs, elapsed) = (cached.costs(), crate::clock::Clock::now(&*clock) - began);
    // The first one is not paid off by anything before it.
    let share = (costs.sum - costs.last).as_secs_f64() / elapsed.as_secs_f64();
    assert!(share <= DEFAULT_SHARE, "{share} of a core: {costs:?}");
    assert!((12..=14).contains(&costs.reads_total), "one every 4.9 s: {costs:?}");
    assert!(costs.postponed_total > 400 && costs.max == Duration::from_millis(49), "{costs:?}");
}

#[test]
fn the_last_words_see_the_last_reading_without_reading() {
    let (cached, clock, _) = slow(Duration::ZERO);
    let last = cached.last_live();
    assert_eq!(last(), None);
    cached.read();
    clock.advance(Duration::from_secs(7));
    assert_eq!(last(), Some((1, Duration::from_secs(7))));
    assert_eq!(cached.costs().reads_total, 1);
}

#[test]
fn purges_have_a_pause_and_the_next_reading_is_new() {
    let (cached, clock, purges) = slow(Duration::ZERO);
    cached.read();
    assert_eq!(cached.purge(), Ok(Purged::Done(Duration::ZERO)));
    assert_eq!(cached.read().heap.live_bytes, Ok(2), "what was given back is seen");
    assert_eq!(cached.purge(), Ok(Purged::TooSoon));
    clock.advance(PURGE_INTERVAL);
    assert_eq!(cached.purge(), Ok(Purged::Done(Duration::ZERO)));
    assert_eq!((purges.load(Ordering::SeqCst), cached.costs().purges_total), (2, 2));
}

#[test]
fn who_asks_while_another_reads_gets_the_last_one() {
    let (enter, entered) = std::sync::mpsc::sync_channel(1);
    let (go, gone) = std::sync::mpsc::sync_channel::<()>(1);
    let mut reads = 0;
    let cached = Cached::new(move || {
        reads += 1;
        if reads > 1 {
            enter.send(()).unwrap();
            gone.recv().unwrap();
        }
        Ok(reads)
    });
    let clock = Arc::new(ManualClock::default());
    let cached = cached.clock(clock.clone()).ttl(Duration::from_secs(1));
    assert_eq!(cached.read().heap.live_bytes, Ok(1));
    clock.advance(Duration::from_secs(2));
    std::thread::scope(|scope| {
        let reader = scope.spawn(|| cached.read().heap.live_bytes);
        entered.recv().unwrap();
        assert_eq!(cached.read().heap.live_bytes, Ok(1), "it does not wait");
        assert_eq!(cached.purge(), Ok(Purged::TooSoon));
        go.send(()).unwrap();
        assert_eq!(reader.join().unwrap(), Ok(2));
    });
}

#[test]
fn an_estimator_can_be_injected_and_may_fail() {
    let mut script = [Ok(5), Err(Unread::Missing("estimate"))].into_iter();
    let cached = Cached::new(move || script.next().unwrap_or(Ok(0))).clock(Arc::new(ManualClock::default()));
    assert_eq!(cached.name(), "estimator");
    assert_eq!(cached.read().heap.live_bytes, Ok(5));
    assert_eq!(cached.read().heap.live_bytes, Err(Unread::Missing("estimate")), "free, so never kept");
    assert_eq!(cached.purge(), Err(Unread::Missing("purge of an estimator")));
}

#[test]
fn counting_is_exact_over_threads_that_free_what_others_allocated() {
    static COUNTED: Counted<System> = Counted::new(System);
    let blocks: Vec<_> = std::thread::scope(|scope| {
        let allocate = || scope.spawn(|| (1..=100usize).map(|n| Block::counted(&COUNTED, n * 8)).collect::<Vec<_>>());
        let threads: Vec<_> = (0..40).map(|_| allocate()).collect();
        threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect()
    });
    let all: u64 = 40 * (1..=100u64).map(|n| n * 8).sum::<u64>();
    assert_eq!(COUNTED.live_bytes(), all);
    let mut asked = &COUNTED;
    assert_eq!((asked.read().live_bytes, asked.name()), (Ok(all), "counted"));
    assert!(asked.purge().is_err());
    drop(blocks);
    assert_eq!(COUNTED.live_bytes(), 0);
    let grown = Block::grow_counted(&COUNTED, 64, 4096);
    assert_eq!(COUNTED.live_bytes(), 4096);
    drop(grown);
    assert_eq!(COUNTED.live_bytes(), 0);
}

/// Every second of many small blocks freed, so that pages stay half used.
#[cfg(any(feature = "jemalloc", feature = "mimalloc"))]
fn fragmented(mib: usize, block: impl Fn(usize) -> Block) -> Vec<Block> {
    let count = (mib << 20) / 640;
    let mut blocks: Vec<_> = (0..count).map(|n| Some(block(256 + n % 3 * 384))).collect();
    blocks.iter_mut().step_by(2).for_each(|block| drop(block.take()));
    blocks.into_iter().flatten().collect()
}

/// Reads some times and tells what one costs.
#[cfg(any(feature = "jemalloc", feature = "mimalloc"))]
fn tell_cost(allocator: impl Allocator + 'static, times: u32) {
    let cached = Cached::new(allocator).ttl(Duration::ZERO).share(1.0);
    let mut taken = 0;
    while taken < times {
        taken += u32::from(cached.read().age.is_zero());
    }
    let costs = cached.costs();
    let mean = costs.sum / u32::try_from(costs.reads_total).expect("few");
    println!("{}: a reading costs {mean:?} (at most {:?})", cached.name(), costs.max);
}

#[cfg(feature = "jemalloc")]
#[test]
fn jemalloc_tells_what_is_live_and_gives_back_what_is_not() {
    let mut jemalloc = jemalloc::Jemalloc::new().unwrap();
    let before = jemalloc.read();
    let blocks = fragmented(64, Block::jemalloc);
    let held = jemalloc.read();
    let live = held.live_bytes.unwrap() - before.live_bytes.unwrap();
    assert!((24 * MIB..48 * MIB).contains(&live), "half of 64 MiB: {live}");
    let (active, resident) = (held.active_bytes.unwrap(), held.resident_bytes.unwrap());
    assert!(held.live_bytes.unwrap() < active && active <= resident, "fragmentation is between them: {held:?}");
    tell_cost(jemalloc::Jemalloc::new().unwrap(), 200);
    drop(blocks);
    jemalloc.purge().unwrap();
    let after = jemalloc.read();
    assert!(after.live_bytes.unwrap() < before.live_bytes.unwrap() + MIB, "{after:?}");
    assert!(after.resident_bytes.unwrap() + 40 * MIB < resident, "{after:?} after {held:?}");
}

#[cfg(feature = "mimalloc")]
#[test]
fn mimalloc_tells_what_is_committed_and_says_what_it_does_not_know() {
    let mut mimalloc = mimalloc::Mimalloc::new();
    let before = mimalloc.read().active_bytes.unwrap();
    let blocks = fragmented(64, Block::mimalloc);
    let held = mimalloc.read();
    assert!(held.active_bytes.unwrap() >= before + 40 * MIB, "{held:?} after {before}");
    assert_eq!(held.live_bytes, Err(Unread::Missing("mimalloc's live bytes (see Counted)")));
    assert_eq!(mimalloc::Mimalloc::new().live(|| 7).read().live_bytes, Ok(7));
    tell_cost(mimalloc, 200);
    drop(blocks);
}
