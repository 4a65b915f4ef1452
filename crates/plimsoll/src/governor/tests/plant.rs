//! A program that grows while it is sampled, in simulated time: how far beyond the budget is it when Critical is said, and
//! how many samples did that take? The loop here is the thread's, with costs and kernel events that are scripted.

use super::*;
use crate::governor::{Growth, confirm_is_urgent, confirm_pause, step, wants_confirm};
use crate::level::Level;

/// What a fast reading and a wake-up cost, together.
const FAST_COST: Duration = Duration::from_micros(10);
/// How late the kernel's threshold comes: 64 pages batched on each of 16 CPUs, at the steepest ramp.
const GUARD_LAG: Duration = Duration::from_millis(2);
/// How finely the simulation looks for a guard that is crossed.
const TICK: Duration = Duration::from_micros(200);

/// A program and its page cache over time.
struct Plant {
    /// Charged bytes at a time.
    program: Box<dyn Fn(Duration) -> u64>,
    /// Page cache at a time: in the fast number, not in the confirmed one.
    cache: Box<dyn Fn(Duration) -> u64>,
    /// What a confirmed reading costs.
    confirm_cost: Duration,
    /// Thresholds that are armed.
    guards: Vec<u64>,
}

impl Plant {
    fn raw(&self, at: Duration) -> u64 {
        (self.program)(at) + (self.cache)(at)
    }
}

#[derive(Debug, Default)]
struct Run {
    samples: u32,
    confirms: u32,
    /// The highest level.
    level: Level,
    /// When Critical was decided, readings included.
    critical_at: Option<Duration>,
    /// The slope that was told last.
    growth: Option<Growth>,
}

/// Samples the plant from `begin` to `end`, or until Critical.
fn run(policy: &Policy, plant: &Plant, begin: Duration, end: Duration) -> Run {
    let (mut state, mut now, mut run) = (State::default(), begin, Run::default());
    let mut last_confirm: Option<(Duration, Duration)> = None;
    while now < end {
        let at = now;
        let fast = plant.raw(at);
        now += FAST_COST;
        let guard_bytes = plant.guards.iter().copied().filter(|guard| *guard > fast).min();
        let mut reading = Reading { at, fast_bytes: Some(fast), confirmed: None, guard_bytes, supply: None };
        let mut postponed = None;
        if wants_confirm(policy, &state, at, Some(fast), guard_bytes) {
            let urgent = confirm_is_urgent(policy, &state, Some(fast));
            let from = last_confirm.map(|(then, cost)| then + confirm_pause(policy, cost, urgent));
            match from.filter(|from| *from > at) {
                Some(from) => postponed = Some(from - at),
                None => {
                    // What is read is what was true when the reading began: the worse case.
                    reading.confirmed = Some(Ok(protected((plant.program)(at))));
                    now += plant.confirm_cost;
                    last_confirm = Some((at, plant.confirm_cost));
                    run.confirms += 1;
                }
            }
        }
        let (next, decision) = step(policy, state, &reading);
        state = next;
        run.samples += 1;
        run.level = run.level.max(decision.level);
        run.growth = decision.growth;
        if decision.level == Level::Critical {
            run.critical_at = Some(now);
            return run;
        }
        let sleep = postponed.map_or(decision.sleep, |wait| decision.sleep.min(wait.max(policy.min_interval)));
        now = wake(plant, now, now.max(at + sleep));
    }
    run
}

/// When the sleeper wakes: at `until`, or `GUARD_LAG` after raw usage crosses a guard.
fn wake(plant: &Plant, from: Duration, until: Duration) -> Duration {
    let mut before = plant.raw(from);
    let mut now = from;
    while now < until && !plant.guards.is_empty() {
        now = (now + TICK).min(until);
        let raw = plant.raw(now);
        if plant.guards.iter().any(|guard| (*guard > before) != (*guard > raw)) {
            return (now + GUARD_LAG).min(until);
        }
        before = raw;
    }
    until
}

fn constant(bytes: u64) -> Box<dyn Fn(Duration) -> u64> {
    Box::new(move |_| bytes)
}

/// `base` until `begin`, then `mib` MiB more each second.
fn ramp(base: u64, begin: Duration, mib: u64) -> Box<dyn Fn(Duration) -> u64> {
    Box::new(move |at| base + (at.saturating_sub(begin).as_secs_f64() * (mib * MIB) as f64) as u64)
}

#[test]
fn a_ramp_is_caught_at_the_budget_with_and_without_guards_and_whatever_the_cache() {
    let begin = Duration::from_secs(3);
    for budget_mib in [64, 300, 4096] {
        let policy = Policy::new(budget_mib * MIB, 100 * MIB);
        let guards = policy.guard_bytes().expect("a budget").to_vec();
        for rate_mib in [50, 200, 1000, 2000] {
            for phase_us in [0, 130, 1_700, 33_000, 410_000, 999_000] {
                for cache_mib in [0, budget_mib / 2, budget_mib * 4 / 3] {
                    for guards in [Vec::new(), guards.clone()] {
                        let start = begin + Duration::from_micros(phase_us);
                        let plant = Plant {
                            program: ramp(budget_mib * MIB / 15, start, rate_mib),
                            cache: constant(cache_mib * MIB),
                            confirm_cost: Duration::from_micros(20),
                            guards,
                        };
                        let run = run(&policy, &plant, Duration::ZERO, Duration::from_secs(200));
                        let name = format!(
                            "{budget_mib} MiB, {rate_mib} MiB/s, phase {phase_us} µs, cache {cache_mib}, {} guards",
                            plant.guards.len()
                        );
                        let at = run.critical_at.unwrap_or_else(|| panic!("{name}: never Critical"));
                        let over = (plant.program)(at) as i64 - policy.budget_bytes.unwrap_or(0) as i64;
                        // One shortest sleep at the fastest fill, and one sample at the actual rate.
                        let sample = (FAST_COST + plant.confirm_cost).as_secs_f64() * (rate_mib * MIB) as f64;
                        let most = policy.fill_bytes_per_second as f64 * policy.min_interval.as_secs_f64() + sample;
                        assert!((0..=most as i64).contains(&over), "{name}: {over} bytes over, at most {most}");
                    }
                }
            }
        }
    }
}

#[test]
fn a_tree_whose_confirmed_reading_is_dear_is_caught_within_three_of_them() {
    // PSS of 300 MiB: 4 ms. No kernel event, pages shared by copy-on-write in the fast number.
    for rate_mib in [200, 1000, 2000] {
        for (phase_us, shared_mib) in [(0, 0), (700, 0), (50_000, 100), (99_000, 250), (3_300, 250)] {
            let plant = Plant {
                program: ramp(20 * MIB, Duration::from_secs(2) + Duration::from_micros(phase_us), rate_mib),
                cache: constant(shared_mib * MIB),
                confirm_cost: ms(4),
                guards: Vec::new(),
            };
            let run = run(&policy(), &plant, Duration::ZERO, Duration::from_secs(20));
            let over = (plant.program)(run.critical_at.expect("Critical")) - 300 * MIB;
            let most = (rate_mib * MIB) as f64 * 0.013;
            assert!(over as f64 <= most, "{rate_mib} MiB/s, {phase_us}, {shared_mib}: {over} over, at most {most}");
        }
    }
}

#[test]
fn what_stays_at_97_percent_is_never_critical() {
    for guards in [Vec::new(), policy().guard_bytes().expect("a budget").to_vec()] {
        let stay = 291 * MIB;
        let plant = Plant {
            program: Box::new(move |at| stay.min(20 * MIB + (at.as_secs_f64() * 400e6) as u64)),
            cache: constant(0),
            confirm_cost: Duration::from_micros(20),
            guards,
        };
        let run = run(&policy(), &plant, Duration::ZERO, Duration::from_secs(60));
        assert_eq!((run.level, run.critical_at), (Level::High, None));
        // 9 MiB at 2 GiB/s are 4.4 ms.
        assert!(run.samples <= 60 * 230, "{run:?}");
    }
}

#[test]
fn page_cache_alone_raises_nothing_and_keeps_nobody_busy() {
    // 500 MB/s of page cache up to the kernel's limit of 400 MiB, then reclaimed and filled again, for a minute.
    for guards in [Vec::new(), policy().guard_bytes().expect("a budget").to_vec()] {
        let plant = Plant {
            program: constant(50 * MIB),
            cache: Box::new(|at| (at.as_secs_f64() % 5.0 * 500e6) as u64 % (350 * MIB)),
            confirm_cost: Duration::from_micros(20),
            guards,
        };
        let run = run(&policy(), &plant, Duration::ZERO, Duration::from_secs(60));
        assert_eq!(run.level, Level::Normal);
        // 175 MiB to the first mark at 2 GiB/s are 85 ms; with some extra looks while the number moves.
        assert!(run.samples <= 60 * 25, "{run:?}");
    }
}

#[test]
fn at_rest_it_wakes_once_a_second_with_a_guard_and_ten_times_without() {
    // Without: 200 MiB to the first mark at 2 GiB/s are 98 ms.
    for (guards, per_minute) in [(policy().guard_bytes().expect("a budget").to_vec(), 61), (Vec::new(), 620)] {
        let plant = Plant {
            program: constant(20 * MIB),
            cache: constant(5 * MIB),
            confirm_cost: Duration::from_micros(20),
            guards,
        };
        let run = run(&policy(), &plant, Duration::ZERO, Duration::from_secs(60));
        assert!(run.samples <= per_minute, "{run:?}");
        assert!(run.confirms <= 61, "one confirmed reading per poll interval: {run:?}");
    }
}

#[test]
fn the_slope_at_the_budget_is_the_ramps_also_in_stairs_of_a_mib() {
    let begin = Duration::from_secs(3);
    for rate_mib in [50, 200, 1000] {
        for guards in [Vec::new(), policy().guard_bytes().expect("a budget").to_vec()] {
            let smooth = ramp(20 * MIB, begin, rate_mib);
            let plant = Plant {
                program: Box::new(move |at| smooth(at) / MIB * MIB),
                cache: constant(3 * MIB),
                confirm_cost: Duration::from_micros(20),
                guards,
            };
            let growth = run(&policy(), &plant, Duration::ZERO, Duration::from_secs(20)).growth.expect("many readings");
            let ratio = growth.bytes_per_second / (rate_mib * MIB) as f64;
            assert!((0.8..1.2).contains(&ratio) && growth.confidence > 0.5, "{rate_mib} MiB/s: {growth:?}");
        }
    }
}
