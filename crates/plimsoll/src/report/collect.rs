//! What is in a report: the sources, and one pass over them. Buffers are kept; the accounts are ranked without allocating.

use std::time::Duration;

use super::wire::{Line, Writer, key};
use super::{ACCOUNTS_MAX, PRODUCERS_MAX, QUEUES_MAX, SOURCES_MAX, Seen, Sent, Shared};
use crate::gauge::{Gauge as _, ProcessGauge, Root};
use crate::last_words::LastLive;
use crate::queue::{DropReason, ProducerStats, Refusal, Stats};
use crate::reclaim::ledger::{Figures, Ledger, MAX_ACCOUNTS};

/// A decision older than this many intervals is not reported as the present.
const OLD_INTERVALS: u32 = 5;

type QueueStats = Box<dyn FnMut() -> Stats + Send>;
/// A source of gauges: it is given what takes each figure with its name.
pub type Gauges = Box<dyn FnMut(&mut dyn FnMut(&str, f64)) + Send>;

/// What a service reports.
#[derive(Default)]
pub(super) struct Sources {
    pub(super) ledger: Option<Ledger>,
    pub(super) live: Option<LastLive>,
    #[cfg(not(loom))]
    pub(super) reclaim: Option<Box<dyn FnMut() -> crate::reclaim::Figures + Send>>,
    queues: Vec<(String, QueueStats)>,
    gauges: Vec<(String, Gauges)>,
}

impl Sources {
    pub(super) fn queue(&mut self, name: &str, stats: impl FnMut() -> Stats + Send + 'static) {
        if self.queues.len() < QUEUES_MAX {
            self.queues.push((name.to_owned(), Box::new(stats)));
        }
    }

    pub(super) fn gauges(&mut self, source: &str, figures: Gauges) {
        if self.gauges.len() < SOURCES_MAX {
            self.gauges.push((source.to_owned(), figures));
        }
    }
}

/// What the report's thread keeps from one report to the next.
pub(super) struct Collector {
    figures: Vec<Figures>,
    /// The process's own reading, for a service that no governor watches.
    own: Option<ProcessGauge>,
    pub(super) cut_lines: u64,
}

fn ms(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

impl Collector {
    pub(super) fn new() -> Collector {
        Collector {
            figures: Vec::with_capacity(MAX_ACCOUNTS),
            own: ProcessGauge::own(&Root::default()).ok(),
            cut_lines: 0,
        }
    }

    pub(super) fn collect(&mut self, shared: &Shared, sent: Sent, now: Duration, out: &mut Writer<'_>) {
        let seen = *shared.seen.lock();
        let mut sources = shared.sources.lock();
        let Sources { ledger, live, queues, .. } = &mut *sources;
        out.line(key::LIBRARY, |line| line.name(env!("CARGO_PKG_VERSION")));
        self.memory(shared, &seen, now, ledger.as_ref(), live.as_ref(), out);
        if let Some(ledger) = ledger {
            self.accounts(ledger, out);
        }
        for (name, stats) in queues {
            shared.guarded(|| queue(name, &stats(), out));
        }
        #[cfg(not(loom))]
        if let Some(figures) = &mut sources.reclaim {
            shared.guarded(|| reclaim(&figures(), out));
        }
        let Sources { gauges, .. } = &mut *sources;
        for (source, figures) in gauges {
            shared.guarded(|| gauge(source, figures, out));
        }
        let (cut, panics) = (self.cut_lines, shared.panics.load(std::sync::atomic::Ordering::Relaxed));
        out.line(key::SENDER, |line| {
            let [full, gone, denied, failed] = sent.dropped_total;
            line.put("sent_total", sent.sent_total).put("full_total", full).put("gone_total", gone);
            line.put("denied_total", denied).put("failed_total", failed);
            line.put("cut_lines_total", cut).put("panics_total", panics);
        });
    }

    /// The three numbers, and how urgent it is.
    fn memory(
        &mut self,
        shared: &Shared,
        seen: &Seen,
        now: Duration,
        ledger: Option<&Ledger>,
        live: Option<&LastLive>,
        out: &mut Writer<'_>,
    ) {
        // A governor tells at least once per poll interval; one that has fallen silent no longer tells of now.
        let patience = shared.interval * OLD_INTERVALS + crate::policy::POLL_INTERVAL;
        let decision = seen.decision.filter(|decision| now.saturating_sub(decision.at) <= patience);
        let own = || self.own.as_mut().and_then(|own| own.confirm().ok()).map(|read| read.program_bytes);
        let protected = decision.map_or_else(own, |decision| decision.charged_bytes);
        let accounted = ledger.map(Ledger::held_bytes);
        let mut told = None;
        shared.guarded(|| told = live.and_then(|live| live()));
        out.line(key::MEMORY, |line| {
            line.put("protected_bytes", protected).put("live_bytes", told.map(|(bytes, _)| bytes));
            line.put("live_age_ms", told.map(|(_, age)| ms(age))).put("accounted_bytes", accounted);
            line.put("threshold_bytes", decision.and_then(|decision| decision.budget_bytes));
        });
        let Some(decision) = decision else { return };
        out.line(key::LEVEL, |line| {
            line.put("level", decision.level).put("blind", decision.blind);
            line.put("soft", seen.soft).put("leaving", seen.leaving);
            line.put("growth_bytes_per_second", decision.growth.map(|growth| growth.bytes_per_second));
            line.put("confidence_ratio", decision.growth.map(|growth| growth.confidence));
            line.put("time_to_limit_ms", decision.time_to_limit.map(ms));
        });
    }

    fn accounts(&mut self, ledger: &Ledger, out: &mut Writer<'_>) {
        ledger.figures(&mut self.figures);
        self.figures.sort_unstable_by_key(|account| std::cmp::Reverse(account.held_bytes));
        let (count, held) = (self.figures.len(), self.figures.iter().map(|account| account.held_bytes).sum::<u64>());
        out.line(key::ACCOUNTS, |line| {
            line.put("count", count).put("held_bytes", held);
        });
        for account in self.figures.iter().take(ACCOUNTS_MAX) {
            out.line(key::ACCOUNT, |line| {
                line.put("held_bytes", account.held_bytes).put("cap_bytes", account.cap_bytes);
                line.put("clamp_bytes", account.clamp_bytes).put("refused_total", account.refused_total);
                line.put("forced_bytes_total", account.forced_over_cap_bytes_total);
                line.name(&account.name);
            });
        }
    }
}

fn queue(name: &str, stats: &Stats, out: &mut Writer<'_>) {
    let peak = (stats.peak_items, stats.peak_bytes);
    out.line(key::QUEUE, |line| {
        line.put("items", stats.queued.items).put("bytes", stats.queued.bytes);
        line.put("oldest_ms", stats.oldest_age.map(ms));
        line.put("max_items", stats.limits.max_items).put("max_bytes", stats.limits.max_bytes);
        line.put("peak_items", peak.0).put("peak_bytes", peak.1);
        line.put("closed", stats.closed).put("producers", stats.producers.len());
        line.name(name);
    });
    let rank = |producer: &&ProducerStats| {
        let counters = &producer.counters;
        let refused: u64 = counters.refused.iter().map(|tally| tally.items).sum();
        std::cmp::Reverse((counters.dropped_total().items + refused, counters.accepted.items))
    };
    let mut producers: Vec<&ProducerStats> = stats.producers.iter().collect();
    producers.sort_by_key(rank);
    for producer in producers.into_iter().take(PRODUCERS_MAX) {
        let counters = &producer.counters;
        out.line(key::PRODUCER, |line| {
            line.put("accepted_items_total", counters.accepted.items);
            line.put("accepted_bytes_total", counters.accepted.bytes);
            line.put("delivered_items_total", counters.delivered.items);
            line.name(&producer.name);
        });
        let dropped = DropReason::ALL.map(|reason| (key::DROPPED, reason.as_str(), counters.dropped_for(reason)));
        let refused = Refusal::ALL.map(|refusal| (key::REFUSED, refusal.as_str(), counters.refused_for(refusal)));
        for (key, reason, lost) in dropped.into_iter().chain(refused).filter(|(.., lost)| lost.items > 0) {
            out.line(key, |line| {
                line.put("items_total", lost.items).put("bytes_total", lost.bytes).name(reason);
            });
        }
    }
}

#[cfg(not(loom))]
fn reclaim(figures: &crate::reclaim::Figures, out: &mut Writer<'_>) {
    let done = figures.claimed_bytes_total.saturating_add(figures.withdrawn_bytes_total);
    out.line(key::RECLAIM, |line| {
        line.put("ordered_bytes_total", figures.ordered_bytes_total);
        line.put("claimed_bytes_total", figures.claimed_bytes_total);
        line.put("withdrawn_bytes_total", figures.withdrawn_bytes_total);
        line.put("in_flight_bytes", figures.ordered_bytes_total.saturating_sub(done));
        line.put("hold_bytes", figures.hold_bytes).put("stuck", figures.is_stuck);
        line.put("stuck_total", figures.stuck_total).put("purges_total", figures.purges_total);
    });
    for store in &figures.stores {
        out.line(key::STORE, |line| {
            line.put("held_bytes", store.held_bytes).put("asked_bytes_total", store.asked_bytes_total);
            line.put("claimed_bytes_total", store.claimed_bytes_total).put("late_total", store.late_total);
            line.put("late_ms", store.late_for.map(ms)).put("panics_total", store.panics_total);
            line.name(&store.name);
        });
    }
}

fn gauge(source: &str, figures: &mut Gauges, out: &mut Writer<'_>) {
    figures(&mut |name, value| {
        out.line(key::GAUGE, |line: &mut Line<'_>| {
            line.put("value", value).names([source, ".", name]);
        });
    });
}
