//! A plant simulator: the memory of a service, as a controller would meet it, with everything that has fooled one.
//!
//! Time moves in steps of 10 ms when it is told to. What a controller sees is late by `measure_delay`; what it orders is carried out late
//! by each cache's `lazy`; what is freed stays with the allocator for a while (`retention`), and some of it for good (`fragmentation`).
//! Page cache is in the raw usage and never in the protected number. Deterministic: the same settings and calls give the same run.

use std::collections::VecDeque;
use std::time::Duration;

/// Length of one step, 10 ms.
pub const STEP: Duration = Duration::from_millis(10);

/// A limit above the service's own, shared with others.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Ancestor {
    /// The ancestor's limit, in bytes.
    pub limit_bytes: u64,
    /// What the others below it use, in bytes.
    pub others_bytes: u64,
}

/// Memory that no cache owns, for a time.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Burst {
    /// When it is there.
    pub at: Duration,
    /// For how long.
    pub lasts: Duration,
    /// How much, in bytes.
    pub bytes: u64,
}

/// One evictable component.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct CacheSettings {
    /// What it holds at first, in bytes.
    pub start_bytes: u64,
    /// What is put in, in bytes a second.
    pub inflow_bytes_per_second: f64,
    /// Time between an order to evict and its execution.
    pub lazy: Duration,
    /// Share of an order that it really frees; it claims all of it. 1 is honest.
    pub honesty_ratio: f64,
}

impl CacheSettings {
    /// An honest cache that evicts at once.
    pub fn new(start_bytes: u64, inflow_bytes_per_second: f64) -> CacheSettings {
        CacheSettings { start_bytes, inflow_bytes_per_second, lazy: Duration::ZERO, honesty_ratio: 1.0 }
    }
}

/// What the simulated service is like. `PlantSettings::new` is the plain case; set what differs.
#[derive(Clone, Debug, PartialEq)]
pub struct PlantSettings {
    /// The kernel kills above this, in bytes.
    pub limit_bytes: u64,
    /// A limit further up.
    pub ancestor: Option<Ancestor>,
    /// What can never be evicted, in bytes.
    pub base_bytes: u64,
    /// By how much that grows, in bytes a second.
    pub leak_bytes_per_second: f64,
    /// Transient memory that no cache owns.
    pub bursts: Vec<Burst>,
    /// Page cache: in the raw usage only, in bytes.
    pub page_cache_bytes: u64,
    /// The evictable components.
    pub caches: Vec<CacheSettings>,
    /// How late a reading is.
    pub measure_delay: Duration,
    /// Share of freed memory that the allocator keeps for a while, 0..=1.
    pub retention_ratio: f64,
    /// Time in which it gives half of that back.
    pub retention_half_life: Duration,
    /// Share of freed memory that it never gives back until it is used again, 0..=1.
    pub fragmentation_ratio: f64,
}

impl PlantSettings {
    /// A service with this limit and base, no caches, and nothing that fools anybody.
    pub fn new(limit_bytes: u64, base_bytes: u64) -> PlantSettings {
        PlantSettings {
            limit_bytes,
            ancestor: None,
            base_bytes,
            leak_bytes_per_second: 0.0,
            bursts: Vec::new(),
            page_cache_bytes: 0,
            caches: Vec::new(),
            measure_delay: Duration::ZERO,
            retention_ratio: 0.0,
            retention_half_life: Duration::from_secs(1),
            fragmentation_ratio: 0.0,
        }
    }

    /// The tightest limit, as seen from inside: the own one, or what the others leave of an ancestor's.
    pub fn effective_limit_bytes(&self) -> u64 {
        let above = self.ancestor.map(|above| above.limit_bytes.saturating_sub(above.others_bytes));
        self.limit_bytes.min(above.unwrap_or(u64::MAX))
    }
}

/// What a controller sees at one moment.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Seen {
    /// The simulated time.
    pub at: Duration,
    /// The protected number, as it was `measure_delay` ago, in bytes.
    pub protected_bytes: u64,
    /// What the allocator has handed out, as late as that, in bytes.
    pub live_bytes: u64,
    /// The group's raw usage with page cache, in bytes. Never late: the kernel tells it at once.
    pub raw_bytes: u64,
    /// Per cache, what it says it holds now, in bytes.
    pub held_bytes: Vec<u64>,
    /// Per cache, what it says it has evicted since the start, in bytes.
    pub claimed_bytes_total: Vec<u64>,
    /// Per cache, what was put in since the start, in bytes.
    pub admitted_bytes_total: Vec<u64>,
}

#[derive(Clone, Debug)]
struct Cache {
    settings: CacheSettings,
    held: f64,
    claimed: f64,
    admitted: f64,
    refused: f64,
    evicted: f64,
    most: Option<f64>,
    orders: VecDeque<(Duration, f64)>,
}

/// A simulated service.
///
/// # Examples
/// ```
/// use std::time::Duration;
/// use plimsoll::testkit::{CacheSettings, Plant, PlantSettings};
///
/// let mut settings = PlantSettings::new(1_000, 200);
/// settings.caches.push(CacheSettings::new(0, 100.0));
/// settings.measure_delay = Duration::from_millis(500);
/// let mut plant = Plant::new(settings);
/// plant.run(Duration::from_secs(4));
/// assert_eq!(plant.used_bytes(), 600);
/// assert_eq!(plant.seen().protected_bytes, 550, "half a second late");
/// plant.order(0, 250);
/// plant.run(Duration::from_secs(1));
/// assert_eq!(plant.used_bytes(), 450);
/// ```
#[derive(Clone, Debug)]
pub struct Plant {
    settings: PlantSettings,
    at: Duration,
    leaked: f64,
    retained: f64,
    fragmented: f64,
    caches: Vec<Cache>,
    /// Protected and live of the last steps, oldest first.
    past: VecDeque<(f64, f64)>,
    peak: f64,
    over_since: Option<Duration>,
}

impl Plant {
    /// A service at time zero.
    pub fn new(settings: PlantSettings) -> Plant {
        let cache = |settings: &CacheSettings| Cache {
            settings: *settings,
            held: settings.start_bytes as f64,
            claimed: 0.0,
            admitted: 0.0,
            refused: 0.0,
            evicted: 0.0,
            most: None,
            orders: VecDeque::new(),
        };
        let caches = settings.caches.iter().map(cache).collect();
        let mut plant = Plant {
            settings,
            at: Duration::ZERO,
            leaked: 0.0,
            retained: 0.0,
            fragmented: 0.0,
            caches,
            past: VecDeque::new(),
            peak: 0.0,
            over_since: None,
        };
        plant.look();
        plant
    }

    /// Lets time pass, in steps of [`STEP`].
    pub fn run(&mut self, time: Duration) {
        let end = self.at + time;
        while self.at < end {
            self.step();
        }
    }

    /// Orders a cache to evict so many bytes. It does, `lazy` later, as far as it holds them.
    pub fn order(&mut self, cache: usize, bytes: u64) {
        let due = self.at + self.caches[cache].settings.lazy;
        self.caches[cache].orders.push_back((due, bytes as f64));
    }

    /// Lets a cache hold at most so many bytes; what does not fit is refused. `None`: no bound.
    pub fn clamp(&mut self, cache: usize, bytes: Option<u64>) {
        self.caches[cache].most = bytes.map(|bytes| bytes as f64);
    }

    /// Purges the allocator: what it kept for a while goes back at once.
    pub fn purge(&mut self) {
        self.retained = 0.0;
    }

    /// What a controller sees now.
    pub fn seen(&self) -> Seen {
        let (protected, live) = self.past.front().copied().unwrap_or_default();
        let each = |of: fn(&Cache) -> f64| self.caches.iter().map(|cache| whole(of(cache))).collect();
        Seen {
            at: self.at,
            protected_bytes: whole(protected),
            live_bytes: whole(live),
            raw_bytes: whole(self.used()) + self.settings.page_cache_bytes,
            held_bytes: each(|cache| cache.held),
            claimed_bytes_total: each(|cache| cache.claimed),
            admitted_bytes_total: each(|cache| cache.admitted),
        }
    }

    /// The truth: what the kernel would count now, in bytes.
    pub fn used_bytes(&self) -> u64 {
        whole(self.used())
    }

    /// The truth: what all caches hold, in bytes.
    pub fn cached_bytes(&self) -> u64 {
        whole(self.caches.iter().map(|cache| cache.held).sum())
    }

    /// The highest use so far, in bytes.
    pub fn peak_bytes(&self) -> u64 {
        whole(self.peak)
    }

    /// Bytes really evicted so far, from all caches.
    pub fn evicted_bytes(&self) -> u64 {
        whole(self.caches.iter().map(|cache| cache.evicted).sum())
    }

    /// Bytes that found a clamp in their way so far.
    pub fn refused_bytes(&self) -> u64 {
        whole(self.caches.iter().map(|cache| cache.refused).sum())
    }

    /// When the effective limit was first passed: the kernel would have killed then.
    pub fn killed_at(&self) -> Option<Duration> {
        self.over_since
    }

    /// What it is made of.
    pub fn settings(&self) -> &PlantSettings {
        &self.settings
    }

    fn step(&mut self) {
        let seconds = STEP.as_secs_f64();
        self.at += STEP;
        self.leaked += self.settings.leak_bytes_per_second * seconds;
        let half_lives = seconds / self.settings.retention_half_life.as_secs_f64().max(seconds);
        self.retained *= 0.5_f64.powf(half_lives);
        for cache in &mut self.caches {
            let mut freed = 0.0;
            while cache.orders.front().is_some_and(|(due, _)| *due <= self.at) {
                let Some((_, bytes)) = cache.orders.pop_front() else { break };
                let done = (bytes * cache.settings.honesty_ratio).min(cache.held - freed);
                cache.claimed += bytes.min(cache.held - freed);
                freed += done;
            }
            cache.held -= freed;
            cache.evicted += freed;
            self.retained += freed * self.settings.retention_ratio;
            self.fragmented += freed * self.settings.fragmentation_ratio;
            let wanted = cache.settings.inflow_bytes_per_second * seconds;
            let room = cache.most.map_or(f64::INFINITY, |most| (most - cache.held).max(0.0));
            let taken = wanted.min(room);
            cache.refused += wanted - taken;
            cache.admitted += taken;
            cache.held += taken;
            // New allocations fill what the allocator kept first.
            let reused = taken.min(self.retained);
            self.retained -= reused;
            self.fragmented -= (taken - reused).min(self.fragmented);
        }
        self.look();
    }

    fn look(&mut self) {
        let used = self.used();
        self.peak = self.peak.max(used);
        if used > self.settings.effective_limit_bytes() as f64 && self.over_since.is_none() {
            self.over_since = Some(self.at);
        }
        let late = self.settings.measure_delay.as_millis() / STEP.as_millis();
        self.past.push_back((used, self.live()));
        while self.past.len() as u128 > late + 1 {
            self.past.pop_front();
        }
    }

    fn live(&self) -> f64 {
        let cached: f64 = self.caches.iter().map(|cache| cache.held).sum();
        let there = |burst: &&Burst| burst.at <= self.at && self.at < burst.at + burst.lasts;
        let burst: u64 = self.settings.bursts.iter().filter(there).map(|burst| burst.bytes).sum();
        self.settings.base_bytes as f64 + self.leaked + burst as f64 + cached
    }

    fn used(&self) -> f64 {
        self.live() + self.retained + self.fragmented
    }
}

/// Whole bytes of a simulated, never negative amount.
fn whole(bytes: f64) -> u64 {
    bytes.round().max(0.0) as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn with(change: impl FnOnce(&mut PlantSettings)) -> Plant {
        let mut settings = PlantSettings::new(1_000, 100);
        settings.caches.push(CacheSettings::new(400, 0.0));
        change(&mut settings);
        Plant::new(settings)
    }

    #[test]
    fn a_lazy_cache_evicts_late_and_only_what_it_holds() {
        let mut plant = with(|settings| settings.caches[0].lazy = SECOND);
        plant.order(0, 900);
        plant.run(SECOND - STEP);
        assert_eq!(plant.cached_bytes(), 400);
        plant.run(STEP);
        assert_eq!((plant.cached_bytes(), plant.seen().claimed_bytes_total[0]), (0, 400));
    }

    #[test]
    fn what_the_allocator_keeps_decays_or_is_purged_and_fragments_stay() {
        let mut plant = with(|settings| {
            settings.retention_ratio = 0.5;
            settings.fragmentation_ratio = 0.25;
        });
        plant.order(0, 400);
        plant.run(STEP);
        assert_eq!(plant.used_bytes(), 100 + 200 + 100);
        plant.run(SECOND);
        assert_eq!(plant.used_bytes(), 100 + 100 + 100);
        plant.purge();
        assert_eq!((plant.used_bytes(), plant.seen().live_bytes), (200, 100));
    }

    #[test]
    fn a_clamp_refuses_what_does_not_fit_and_a_liar_claims_what_it_keeps() {
        let mut plant = with(|settings| {
            settings.caches[0].inflow_bytes_per_second = 100.0;
            settings.caches[0].honesty_ratio = 0.0;
        });
        plant.clamp(0, Some(450));
        plant.run(SECOND);
        assert_eq!((plant.cached_bytes(), plant.refused_bytes()), (450, 50));
        plant.order(0, 200);
        plant.run(STEP);
        assert_eq!((plant.cached_bytes(), plant.seen().claimed_bytes_total[0]), (450, 200));
    }

    #[test]
    fn the_ancestor_kills_first_and_page_cache_never_does() {
        let mut plant = with(|settings| {
            settings.page_cache_bytes = 5_000;
            settings.ancestor = Some(Ancestor { limit_bytes: 2_000, others_bytes: 1_300 });
            settings.bursts.push(Burst { at: SECOND, lasts: SECOND, bytes: 201 });
        });
        plant.run(SECOND - STEP);
        assert_eq!((plant.killed_at(), plant.seen().raw_bytes), (None, 5_500));
        plant.run(STEP);
        assert_eq!((plant.killed_at(), plant.peak_bytes()), (Some(SECOND), 701));
        plant.run(SECOND);
        assert_eq!(plant.used_bytes(), 500);
    }
}
