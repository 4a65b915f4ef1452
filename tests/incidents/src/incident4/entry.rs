//! The entries, who writes them and how fast; and what the process takes meanwhile.

use crate::{Plan, QUIET};
use plimsoll::queue::Weigh;
use plimsoll_incidents::log_channel::PRODUCERS;
use plimsoll_incidents::{clock, files};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// The text of an entry, in bytes.
const TEXT_BYTES: usize = 240;
/// Entries between two looks at the clock.
const STEP: u64 = 64;
/// Nothing is offered beyond this.
const OFFER_BYTES_MAX: u64 = 4 << 30;
/// How many entries a quiet producer writes, evenly over the time: one a simulated second.
const QUIET_ENTRIES: u64 = 600;

/// One log entry, as the service of the incident had them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) source: u32,
    pub(crate) number: u64,
    pub(crate) text: Box<str>,
}

impl Entry {
    fn new(source: usize, number: u64) -> Entry {
        let mut text = format!("service-{source:02} request {number:012} ");
        while text.len() < TEXT_BYTES {
            text.push_str("handled in 12 ms, ");
        }
        text.truncate(TEXT_BYTES);
        Entry { source: source as u32, number, text: text.into() }
    }

    pub(crate) fn bytes() -> u64 {
        (size_of::<Entry>() + TEXT_BYTES) as u64
    }
}

impl Weigh for Entry {
    fn weight_bytes(&self) -> u64 {
        (size_of::<Entry>() + self.text.len()) as u64
    }
}

/// How much is offered, by whom, how fast.
pub(crate) struct Load {
    entries_each: u64,
    bytes_per_second: u64,
    offered_bytes: AtomicU64,
    total_bytes: u64,
}

impl Load {
    pub(crate) fn of(plan: &Plan) -> Load {
        let total = plan.offer.min(OFFER_BYTES_MAX).div_ceil(Entry::bytes());
        let loud = total.saturating_sub(QUIET as u64 * QUIET_ENTRIES) / (PRODUCERS - QUIET) as u64;
        let total_bytes = (loud * (PRODUCERS - QUIET) as u64 + QUIET as u64 * QUIET_ENTRIES) * Entry::bytes();
        Load { entries_each: loud, bytes_per_second: plan.rate, offered_bytes: AtomicU64::new(0), total_bytes }
    }

    /// Has every producer write its entries, and tells samples meanwhile. The last [`QUIET`] are the quiet ones.
    pub(crate) fn run<S: Send>(&self, senders: Vec<S>, send: impl Fn(&S, Entry) + Sync) {
        std::thread::scope(|scope| {
            for (source, sender) in senders.into_iter().enumerate() {
                let send = &send;
                scope.spawn(move || self.produce(source, |entry| send(&sender, entry)));
            }
            for hundredth in 1..=100 {
                while self.offered_bytes.load(Ordering::Relaxed) < self.total_bytes / 100 * hundredth {
                    std::thread::sleep(Duration::from_millis(1));
                }
                self.sample();
            }
        });
        self.sample();
    }

    fn produce(&self, source: usize, send: impl Fn(Entry)) {
        let is_quiet = source >= PRODUCERS - QUIET;
        let (entries, step) = if is_quiet { (QUIET_ENTRIES, 1) } else { (self.entries_each, STEP) };
        // All of them would be done after so long.
        let lasts_ns = self.total_bytes.saturating_mul(1_000_000_000) / self.bytes_per_second.max(1);
        let began = clock::monotonic_ns();
        for number in 0..entries {
            send(Entry::new(source, number));
            if number % step == step - 1 {
                self.offered_bytes.fetch_add(step * Entry::bytes(), Ordering::Relaxed);
                let due = began + (u128::from(lasts_ns) * u128::from(number) / u128::from(entries)) as u64;
                std::thread::sleep(Duration::from_nanos(due.saturating_sub(clock::monotonic_ns())));
            }
        }
        self.offered_bytes.fetch_add(entries % step * Entry::bytes(), Ordering::Relaxed);
    }

    fn sample(&self) {
        let status = files::text(Path::new("/proc/self/status")).unwrap_or_default();
        let rss_bytes = files::field(&status, "VmRSS").unwrap_or(0) * 1024;
        let offered_bytes = self.offered_bytes.load(Ordering::Relaxed);
        println!(
            "{}",
            serde_json::json!({ "event": "sample", "offered_bytes": offered_bytes, "rss_bytes": rss_bytes })
        );
    }

    pub(crate) fn total_bytes(&self) -> u64 {
        self.total_bytes
    }
}

/// The most that this process ever had resident.
pub(crate) fn peak_bytes() -> u64 {
    let status = files::text(Path::new("/proc/self/status")).unwrap_or_default();
    files::field(&status, "VmHWM").unwrap_or(0) * 1024
}
