//! The allocators of this process, alone with it: what is handed out is seen, what is purged is gone.

#![cfg(any(feature = "mimalloc", all(feature = "glibc", target_env = "gnu")))]

use plimsoll::gauge::allocator::Allocator as _;
use plimsoll::gauge::{Gauge as _, ProcessGauge, Root};

use crate::stage::{MIB, alone};

fn anon_bytes() -> u64 {
    ProcessGauge::own(&Root::default()).unwrap().confirm().unwrap().anon_bytes.unwrap()
}

#[cfg(all(feature = "glibc", target_env = "gnu"))]
#[test]
fn glibc_tells_what_is_live_in_all_arenas_and_trims() {
    alone("allocators::glibc_tells_what_is_live_in_all_arenas_and_trims", on_stage_glibc);
}

#[cfg(all(feature = "glibc", target_env = "gnu"))]
fn on_stage_glibc() {
    use plimsoll::gauge::allocator::{Cached, glibc::Glibc};
    let before = Glibc.read().live_bytes.unwrap();
    // Small blocks of this thread's arena and of another's, every second one freed, and one large enough for its own mapping.
    let blocks = || (0..200_000).map(|n| Some(std::hint::black_box(vec![1u8; 200 + n % 3 * 200]))).collect::<Vec<_>>();
    let mut own = blocks();
    let mut other = std::thread::spawn(blocks).join().unwrap();
    let large = std::hint::black_box(vec![1u8; 64 << 20]);
    own.iter_mut().chain(&mut other).step_by(2).for_each(|block| drop(block.take()));
    let held = Glibc.read();
    let live = held.live_bytes.unwrap() - before;
    // 64 MiB, 2 × 100,000 blocks of 400 bytes and 16 of header, and the two vectors of 200,000 × 24 bytes.
    let expected = (64 << 20) + 200_000 * 416 + 2 * 4_800_000;
    assert!(live.abs_diff(expected) < 4 * MIB, "{live} of {expected}");
    assert!(held.active_bytes.unwrap() >= held.live_bytes.unwrap(), "{held:?}");
    let cached = Cached::new(Glibc);
    cached.read();
    let resident = anon_bytes();
    drop((own, other, large));
    let freed = anon_bytes();
    Glibc.purge().unwrap();
    let trimmed = anon_bytes();
    println!("glibc: RssAnon {resident} -> {freed} freed -> {trimmed} trimmed; a reading {:?}", cached.costs().last);
    assert!(trimmed + 200 * MIB < resident, "{resident} -> {trimmed}");
}

#[cfg(feature = "mimalloc")]
#[test]
fn a_purge_of_mimalloc_gives_memory_back() {
    alone("allocators::a_purge_of_mimalloc_gives_memory_back", on_stage_mimalloc);
}

#[cfg(feature = "mimalloc")]
fn on_stage_mimalloc() {
    use plimsoll::gauge::allocator::mimalloc::Mimalloc;
    let before = anon_bytes();
    let mut held = 0;
    crate::sys::with_mimalloc_blocks(128 << 10, 500, || held = anon_bytes());
    Mimalloc::new().purge().unwrap();
    let after = anon_bytes();
    println!("mimalloc: RssAnon {before} -> {held} -> {after} purged");
    assert!(held > before + 60 * MIB && after + 50 * MIB < held, "{before} {held} {after}");
}
