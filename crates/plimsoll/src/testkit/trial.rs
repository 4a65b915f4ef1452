//! A policy on a plant: the governor's own decisions, in simulated time, with what the plant sees and how late it obeys.
//!
//! Samples are taken when the decisions say so, at the least every [`STEP`] (10 ms) of the plant; orders are shared over the plant's caches
//! as the controller shares them, and their bounds are set. An hour of a service takes about a second. Deterministic.

use std::time::Duration;

use super::replay::{Recording, ReplayError};
use super::{Plant, STEP};
use crate::event::{Pass, Profile, Supply};
use crate::gauge::Protected;
use crate::governor::law::LawState;
use crate::governor::log::{Log, Record};
use crate::governor::{Reading, State, step_and_reclaim, wants_confirm};
use crate::level::Level;
use crate::policy::Policy;
use crate::reclaim::share::{Component, bounds, share};

/// What a policy came to on a plant.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct Trial {
    /// When the kernel would have killed.
    pub killed_at: Option<Duration>,
    /// When Critical was reached: a service with a watchdog leaves then.
    pub critical_at: Option<Duration>,
    /// When eviction was first said to be stuck.
    pub stuck_at: Option<Duration>,
    /// The highest use, in bytes.
    pub peak_bytes: u64,
    /// What the caches held, on average over the second half, in bytes.
    pub mean_cached_bytes: u64,
    /// Evicted from all caches, in bytes.
    pub evicted_bytes: u64,
    /// Samples taken.
    pub samples: u64,
    records: Vec<Record>,
}

impl Trial {
    /// Its decision log, to be [replayed](Recording::against) against another policy, or written as text.
    ///
    /// # Errors
    /// No sample was taken: the trial had no time.
    pub fn recording(&self) -> Result<Recording, ReplayError> {
        Recording::from_log(&Log { records: self.records.clone(), torn_bytes: 0 })
    }
}

/// Runs `policy` on `plant` for `time`. The plant's caches are the stores; each costs the same.
///
/// # Examples
/// ```
/// use std::time::Duration;
/// use plimsoll::policy::Policy;
/// use plimsoll::testkit::{CacheSettings, Plant, PlantSettings, run_policy};
///
/// // A limit of 400 MiB, 60 MiB that cannot be evicted, a cache that takes in 8 MiB a second, all of it a second late.
/// let mut settings = PlantSettings::new(400 << 20, 60 << 20);
/// settings.caches.push(CacheSettings::new(0, f64::from(8 << 20)));
/// settings.measure_delay = Duration::from_secs(1);
/// let mut plant = Plant::new(settings);
///
/// let trial = run_policy(&mut plant, &Policy::new(300 << 20, 100 << 20), Duration::from_secs(300));
/// assert_eq!((trial.killed_at, trial.critical_at), (None, None));
/// assert!(trial.mean_cached_bytes > 220 << 20, "{} MiB", trial.mean_cached_bytes >> 20);
/// ```
pub fn run_policy(plant: &mut Plant, policy: &Policy, time: Duration) -> Trial {
    let begin = plant.seen().at;
    let mut trial = Trial {
        records: vec![
            Record::Start { at: begin, at_unix: Duration::ZERO },
            Record::Policy { at: begin, policy: *policy },
        ],
        ..Trial::default()
    };
    let (mut state, mut law) = (State::default(), LawState::default());
    let (mut cached, mut steps, mut next) = (0u128, 0u128, begin);
    while plant.seen().at < begin + time {
        let seen = plant.seen();
        if seen.at >= next {
            let supply = Supply {
                held_bytes: seen.held_bytes.iter().sum(),
                claimed_bytes_total: seen.claimed_bytes_total.iter().sum(),
                ..Supply::default()
            };
            let fast_bytes = Some(seen.raw_bytes);
            let protected = Protected { program_bytes: seen.protected_bytes, ..Protected::default() };
            let confirmed = wants_confirm(policy, &state, seen.at, fast_bytes, None).then_some(Ok(protected));
            let has_stores = !seen.held_bytes.is_empty();
            let supply = (has_stores && confirmed.is_some()).then_some(supply);
            let reading = Reading { at: seen.at, fast_bytes, confirmed, guard_bytes: None, supply };
            let decided = step_and_reclaim(policy, state, law, &reading);
            (state, law) = (decided.0, decided.1);
            let decision = decided.2;
            trial.samples += 1;
            if confirmed.is_some() {
                trial.records.push(Record::Sample { reading, decision });
            }
            if decision.level == Level::Critical {
                trial.critical_at.get_or_insert(seen.at);
            }
            if let Some(want) = decision.want {
                obey(plant, &seen.held_bytes, &want);
                if want.stuck {
                    trial.stuck_at.get_or_insert(seen.at);
                }
            }
            next = seen.at + decision.sleep.max(STEP);
        }
        plant.run(STEP);
        if seen.at >= begin + time / 2 {
            cached += u128::from(plant.cached_bytes());
            steps += 1;
        }
    }
    trial.killed_at = plant.killed_at();
    trial.peak_bytes = plant.peak_bytes();
    trial.evicted_bytes = plant.evicted_bytes();
    trial.mean_cached_bytes = u64::try_from(cached / steps.max(1)).unwrap_or(u64::MAX);
    trial
}

/// What the controller does with a want.
fn obey(plant: &mut Plant, held_bytes: &[u64], want: &crate::event::Want) {
    if want.evict_bytes > 0 {
        let components: Vec<Component> =
            held_bytes.iter().map(|held| Component { held_bytes: *held, profile: Profile::default() }).collect();
        for (cache, bytes) in share(want.evict_bytes, Pass::Destructive, &components).into_iter().enumerate() {
            plant.order(cache, bytes);
        }
    }
    if want.purge {
        plant.purge();
    }
    for (cache, bytes) in bounds(want.hold_bytes, held_bytes).into_iter().enumerate() {
        plant.clamp(cache, Some(bytes));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::Overrides;
    use crate::testkit::{Burst, CacheSettings, PlantSettings};

    const MIB: u64 = 1 << 20;

    fn plant(change: impl FnOnce(&mut PlantSettings)) -> Plant {
        let mut settings = PlantSettings::new(400 * MIB, 60 * MIB);
        settings.caches = vec![CacheSettings::new(0, 4.0 * MIB as f64), CacheSettings::new(20 * MIB, 4.0 * MIB as f64)];
        change(&mut settings);
        Plant::new(settings)
    }

    #[test]
    fn a_leak_ends_in_critical_before_the_kernel_and_page_cache_never_does() {
        let policy = Policy::new(300 * MIB, 100 * MIB);
        let mut leaks = plant(|settings| settings.leak_bytes_per_second = 2.0 * MIB as f64);
        let trial = run_policy(&mut leaks, &policy, Duration::from_secs(150));
        let ended = trial.critical_at.or(trial.stuck_at).expect("it leaves");
        assert!(trial.killed_at.is_none_or(|killed| ended < killed), "{ended:?}, {:?}", trial.killed_at);
        let mut cached = plant(|settings| settings.page_cache_bytes = 2_000 * MIB);
        let trial = run_policy(&mut cached, &policy, Duration::from_secs(100));
        assert_eq!((trial.critical_at, trial.stuck_at, trial.killed_at), (None, None, None));
    }

    #[test]
    fn its_log_is_reproduced_and_can_be_held_against_another_policy() {
        let burst = Burst { at: Duration::from_secs(60), lasts: Duration::from_secs(900), bytes: 80 * MIB };
        let mut plant = plant(|settings| settings.bursts.push(burst));
        let trial = run_policy(&mut plant, &Policy::new(300 * MIB, 100 * MIB), Duration::from_secs(100));
        let recording = trial.recording().unwrap();
        let found = recording.reproduce();
        assert!(found.decisions > 100 && found.differing == 0, "{found:?}");
        assert!(trial.critical_at.is_some());
        let other = recording.against(&Overrides::parse("fill = 65 %").unwrap()).unwrap();
        assert!(other.sentence().ends_with("never drained"), "{other}");
    }
}
