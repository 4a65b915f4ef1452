//! Incident 1 on the plant, deterministic: a packet store with a cap of 1,024 MiB, its two published laws and ours on the same workload.
//! What is really held for a packet is 4.2 times what the formula says: three derived indexes that nobody counted.

use super::*;
use crate::testkit::{Burst, CacheSettings, Plant, PlantSettings};

const MIB: u64 = 1 << 20;
const CAP: u64 = 1_024 * MIB;
/// Formula over truth: 1.2 of 5 GB.
const COUNTED: f64 = 0.24;
const SECOND: Duration = Duration::from_secs(1);

/// Half the cap at first, 12 MiB/s of packets with all that hangs on them; `base` cannot be evicted.
fn plant(base: u64, limit: u64) -> Plant {
    let mut settings = PlantSettings::new(limit, base);
    settings.measure_delay = Duration::from_millis(300);
    settings.retention_ratio = 0.3;
    settings
        .caches
        .push(CacheSettings { lazy: Duration::from_millis(500), ..CacheSettings::new(512 * MIB, 12.0 * MIB as f64) });
    Plant::new(settings)
}

/// Ten minutes of our law, looked at every 100 ms; the largest part of the store that one order took, and the last word.
fn governed(plant: &mut Plant, seconds: u64) -> (f64, Want) {
    let (mut state, mut largest, mut last) = (LawState::default(), 0.0_f64, Want::default());
    for _ in 0..10 * seconds {
        let seen = plant.seen();
        let supply = Supply {
            held_bytes: seen.held_bytes[0],
            claimed_bytes_total: seen.claimed_bytes_total[0],
            ..Supply::default()
        };
        let (next, want) = law(state, seen.at, seen.protected_bytes, CAP / 100 * 97, CAP, supply);
        (state, last) = (next, want);
        largest = largest.max(want.evict_bytes as f64 / supply.held_bytes.max(1) as f64);
        plant.clamp(0, Some(want.hold_bytes));
        if want.evict_bytes > 0 {
            plant.order(0, want.evict_bytes);
        }
        if want.purge {
            plant.purge();
        }
        plant.run(SECOND / 10);
    }
    (largest, last)
}

#[test]
fn a_by_its_formula_the_store_grows_to_more_than_three_times_its_cap() {
    let mut plant = plant(200 * MIB, 16 * CAP);
    for _ in 0..600 {
        let estimate = plant.cached_bytes() as f64 * COUNTED;
        let excess = (estimate - CAP as f64).max(0.0);
        plant.order(0, (excess / COUNTED) as u64);
        plant.run(SECOND);
    }
    assert!(plant.used_bytes() > 3 * CAP, "{} MiB", plant.used_bytes() / MIB);
}

#[test]
fn b_by_the_process_heap_the_store_is_emptied_while_the_rest_stays() {
    let base = 1_300 * MIB;
    let mut plant = plant(base, 16 * CAP);
    let before = plant.cached_bytes();
    let mut evicted = Vec::new();
    // Once a minute, and the first minutes decide.
    for _ in 0..20 {
        let n = plant.seen().protected_bytes as f64 / CAP as f64;
        if n > 1.0 {
            plant.clamp(0, Some(0));
            let held = plant.cached_bytes();
            evicted.push((held as f64 * (1.0 - 0.9 / n)) as u64);
            plant.order(0, *evicted.last().expect("pushed"));
        }
        plant.run(60 * SECOND);
    }
    assert!(plant.cached_bytes() * 100 < before, "{} of {} MiB left", plant.cached_bytes() / MIB, before / MIB);
    assert!(evicted.windows(2).all(|pair| pair[0] > pair[1]), "a spiral: {evicted:?}");
    assert!(plant.used_bytes() > CAP, "and it did not help");
}

#[test]
fn c_plimsoll_keeps_what_fits_and_never_passes_the_cap() {
    let base = 300 * MIB;
    let mut plant = plant(base, CAP);
    let (largest, last) = governed(&mut plant, 600);
    assert_eq!(plant.killed_at(), None, "peak {} MiB", plant.peak_bytes() / MIB);
    let kept = plant.cached_bytes() as f64 / (CAP - base) as f64;
    assert!(kept >= 0.85, "{kept} of what would fit");
    assert!(largest <= 0.25 && !last.stuck, "{largest} {last:?}");
}

#[test]
fn c_a_base_over_the_mark_is_stuck_and_costs_no_packet() {
    let mut plant = plant(1_300 * MIB, 16 * CAP);
    let (_, last) = governed(&mut plant, 60);
    assert!(last.stuck);
    assert_eq!((plant.evicted_bytes(), plant.cached_bytes()), (0, 512 * MIB));
}

#[test]
fn c_a_spike_of_twice_what_was_used_costs_less_than_a_fiftieth() {
    let mut settings = plant(0, 2 * CAP).settings().clone();
    settings.caches[0].inflow_bytes_per_second = 0.0;
    settings.bursts.push(Burst { at: 20 * SECOND, lasts: SECOND, bytes: 511 * MIB });
    let mut plant = Plant::new(settings);
    governed(&mut plant, 60);
    assert!(plant.peak_bytes() > CAP / 100 * 97, "it passed the mark");
    assert!(plant.evicted_bytes() * 50 < 512 * MIB, "{} MiB evicted", plant.evicted_bytes() / MIB);
}
