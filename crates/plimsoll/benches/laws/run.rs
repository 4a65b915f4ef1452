//! One law against one plant, and what came of it.

use std::time::Duration;

use plimsoll::testkit::{CacheSettings, Plant, PlantSettings};

use crate::rivals::Law;

/// Simulated time of one run; its second half is what is judged as settled.
const LASTS: Duration = Duration::from_secs(300);
/// Time between two ticks of a law.
const TICK: Duration = Duration::from_millis(100);
const LIMIT: u64 = 1 << 30;
/// How full the service is at first, in parts of the limit, where its base leaves room.
const START: f64 = 0.65;

/// The parameters of one cell.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Cell {
    /// How late a reading is.
    pub(crate) delay: Duration,
    /// How late an order is carried out.
    pub(crate) lazy: Duration,
    /// What comes in, in parts of the limit a second.
    pub(crate) inflow: f64,
    /// What can never be evicted, in parts of the limit.
    pub(crate) base: f64,
}

impl std::fmt::Display for Cell {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (delay, lazy) = (self.delay.as_secs_f64(), self.lazy.as_secs_f64());
        write!(
            f,
            "delay {delay:.2} s, lazy {lazy:.2} s, inflow {:.1} %/s, base {:.0} %",
            self.inflow * 100.0,
            self.base * 100.0
        )
    }
}

/// What a law made of it, in points (hundredths) of the limit.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Outcome {
    /// The highest use of all.
    pub(crate) peak: f64,
    /// Highest less lowest use, settled.
    pub(crate) swing: f64,
    /// Mean size of the store, settled.
    pub(crate) store: f64,
    /// Evicted or refused beyond what no law could have kept, in hundredths of what came in.
    pub(crate) beyond: f64,
}

/// Runs `law` in `cell`.
pub(crate) fn run(law: &mut dyn Law, cell: &Cell) -> Outcome {
    run_watched(law, cell, &mut |_, _| {})
}

/// The same; `watch` is told the time and the use, in points of the limit, after each tick.
pub(crate) fn run_watched(law: &mut dyn Law, cell: &Cell, watch: &mut dyn FnMut(Duration, f64)) -> Outcome {
    let bytes = |ratio: f64| (ratio * LIMIT as f64) as u64;
    let start = (START - cell.base).max(0.0);
    let mut settings = PlantSettings::new(LIMIT, bytes(cell.base));
    settings.measure_delay = cell.delay;
    settings
        .caches
        .push(CacheSettings { lazy: cell.lazy, ..CacheSettings::new(bytes(start), cell.inflow * LIMIT as f64) });
    let mut plant = Plant::new(settings);
    let (mut low, mut high, mut sum, mut count) = (f64::MAX, 0.0_f64, 0.0, 0.0);
    let mut at = Duration::ZERO;
    while at < LASTS {
        let act = law.tick(&plant.seen(), LIMIT);
        plant.clamp(0, act.clamp_bytes);
        if act.evict_bytes > 0 {
            plant.order(0, act.evict_bytes);
        }
        if act.purge {
            plant.purge();
        }
        plant.run(TICK);
        at += TICK;
        watch(at, plant.used_bytes() as f64 / LIMIT as f64 * 100.0);
        if at > LASTS / 2 {
            let used = plant.used_bytes() as f64;
            (low, high) = (low.min(used), high.max(used));
            sum += plant.cached_bytes() as f64;
            count += 1.0;
        }
    }
    let points = |bytes: f64| bytes / LIMIT as f64 * 100.0;
    let came = cell.inflow * LASTS.as_secs_f64();
    let room = 1.0 - cell.base - start;
    let need = (came - room).max(0.0);
    let lost = (plant.evicted_bytes() + plant.refused_bytes()) as f64 / LIMIT as f64;
    Outcome {
        peak: points(plant.peak_bytes() as f64),
        swing: points(high - low),
        store: points(sum / count),
        beyond: (lost - need) / came * 100.0,
    }
}
