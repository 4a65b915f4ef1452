//! The metrics of what the program said of itself. Figures of several processes are summed, ages and levels are the highest.
//!
//! Labels are the program's own names, at most as many at a time as one report holds (32 accounts, 32 queues of 16 producers, 256
//! gauges); what is not named is in `other`.

use plimsoll::level::Level;

use super::{Metric, Samples, metric};
use crate::snapshot::Snapshot;
use crate::snapshot::report::{QueueView, ReclaimView, ReportView, StoreView};

/// The label of what is not named.
const OTHER: &str = "other";

fn each(snapshot: &Snapshot, mut tell: impl FnMut(&ReportView)) {
    snapshot.reports.processes.iter().for_each(&mut tell);
}

fn queues(snapshot: &Snapshot, mut tell: impl FnMut(&QueueView)) {
    each(snapshot, |report| report.queues.iter().for_each(&mut tell));
}

fn reclaim(snapshot: &Snapshot, out: &mut Samples, read: fn(&ReclaimView) -> u64) {
    each(snapshot, |report| out.one(report.reclaim.as_ref().map(read)));
}

fn stores(snapshot: &Snapshot, out: &mut Samples, read: fn(&StoreView) -> u64) {
    each(snapshot, |report| {
        for store in report.reclaim.iter().flat_map(|reclaim| &reclaim.stores) {
            out.with(&[("store", &store.name)], read(store));
        }
    });
}

/// Units that the name of a gauge may end in; one that ends in none is a count.
const UNITS: [&str; 5] = ["_bytes", "_seconds", "_ratio", "_total", "_count"];

fn gauges(snapshot: &Snapshot, out: &mut Samples, unit: &str) {
    each(snapshot, |report| {
        for gauge in &report.gauges {
            let own = UNITS.into_iter().find(|unit| gauge.name.ends_with(unit)).unwrap_or("_count");
            if own == unit {
                out.with(&[("gauge", &gauge.name)], gauge.value);
            }
        }
    });
}

/// Every metric of this kind.
pub(super) const METRICS: &[Metric] = &[
    metric("plimsoll_report_processes_count", "Processes of the program that report", |s, out| {
        if !s.reports.processes.is_empty() {
            out.one(s.reports.processes.len() as u64);
        }
    }),
    metric("plimsoll_report_age_seconds", "Age of the oldest last report", |s, out| {
        out.one(s.reports.processes.iter().map(|report| report.age_seconds).reduce(f64::max));
    }),
    metric("plimsoll_report_received_total", "Datagrams taken from the program", |s, out| {
        out.one(s.reports.received_total);
    }),
    metric("plimsoll_report_refused_total", "Datagrams, or lines of them, not taken, by reason", |s, out| {
        out.each("reason", &s.reports.refused_total);
    }),
    metric("plimsoll_report_sender_total", "What became of the program's datagrams, by its own count", |s, out| {
        each(s, |report| out.each("what", &report.sender_total));
    }),
    metric("plimsoll_report_protected_bytes", "Protected memory, as the program reads it", |s, out| {
        each(s, |report| out.one(report.protected_bytes));
    }),
    metric("plimsoll_report_live_bytes", "What its allocator has handed out", |s, out| {
        each(s, |report| out.one(report.live_bytes));
    }),
    metric("plimsoll_report_accounted_bytes", "What its ledger was told", |s, out| {
        each(s, |report| out.one(report.accounted_bytes));
    }),
    metric("plimsoll_report_retained_bytes", "Protected less live: kept by the allocator", |s, out| {
        each(s, |report| out.one(report.retained_bytes.map(|bytes| bytes as f64)));
    }),
    metric("plimsoll_report_unaccounted_bytes", "Live less accounted: nobody was charged for it", |s, out| {
        each(s, |report| out.one(report.unaccounted_bytes.map(|bytes| bytes as f64)));
    }),
    metric("plimsoll_report_threshold_bytes", "Where the program leaves by itself", |s, out| {
        out.one(s.reports.processes.iter().filter_map(|report| report.threshold_bytes).min());
    }),
    metric(
        "plimsoll_report_level_info",
        "How urgent it is by the program's own judgement: 1 for what holds",
        |s, out| {
            let place = |name: &str| Level::ALL.iter().position(|level| level.as_str() == name);
            let levels = s.reports.processes.iter().filter_map(|report| report.level.as_deref());
            if let Some(highest) = levels.max_by_key(|level| place(level)) {
                out.one_of("level", Level::ALL.map(Level::as_str), highest);
            }
        },
    ),
    metric("plimsoll_report_leaving_info", "1 while the program leaves for memory", |s, out| {
        if !s.reports.processes.is_empty() {
            out.one(u64::from(s.reports.processes.iter().any(|report| report.leaving)));
        }
    }),
    metric("plimsoll_account_held_bytes", "What an account of the program's ledger holds", |s, out| {
        each(s, |report| {
            for account in &report.accounts {
                out.with(&[("account", &account.name)], account.held_bytes);
            }
            if report.accounts_count > report.accounts.len() as u64 {
                out.with(&[("account", OTHER)], report.unnamed_bytes());
            }
        });
    }),
    metric("plimsoll_account_refused_total", "Charges that an account refused", |s, out| {
        each(s, |report| {
            for account in &report.accounts {
                out.with(&[("account", &account.name)], account.refused_total);
            }
        });
    }),
    metric("plimsoll_queue_items_count", "Items that wait in a queue of the program", |s, out| {
        queues(s, |queue| out.with(&[("queue", &queue.name)], queue.items));
    }),
    metric("plimsoll_queue_bytes", "Bytes that wait in a queue of the program", |s, out| {
        queues(s, |queue| out.with(&[("queue", &queue.name)], queue.bytes));
    }),
    metric("plimsoll_queue_max_bytes", "Bytes that may wait in it", |s, out| {
        queues(s, |queue| out.with(&[("queue", &queue.name)], queue.max_bytes));
    }),
    metric("plimsoll_queue_oldest_age_seconds", "How long its oldest item has waited", |s, out| {
        queues(s, |queue| out.with(&[("queue", &queue.name)], queue.oldest_seconds));
    }),
    metric("plimsoll_queue_accepted_items_total", "Items that it took, by producer", |s, out| {
        queues(s, |queue| {
            for producer in &queue.producers {
                out.with(&[("producer", &producer.name), ("queue", &queue.name)], producer.accepted_items_total);
            }
        });
    }),
    metric(
        "plimsoll_queue_lost_items_total",
        "Items that it did not take, or dropped, by producer and reason",
        |s, out| {
            queues(s, |queue| {
                for producer in &queue.producers {
                    let dropped = producer.dropped_items_total.iter().map(|lost| ("dropped", lost));
                    let refused = producer.refused_items_total.iter().map(|lost| ("refused", lost));
                    for (how, (reason, items)) in dropped.chain(refused) {
                        let labels =
                            [("how", how), ("producer", &producer.name), ("queue", &queue.name), ("reason", reason)];
                        out.with(&labels, *items);
                    }
                }
            });
        },
    ),
    metric("plimsoll_reclaim_ordered_bytes_total", "What the program's stores were asked to give back", |s, out| {
        reclaim(s, out, |reclaim| reclaim.ordered_bytes_total);
    }),
    metric("plimsoll_reclaim_claimed_bytes_total", "What they say they gave", |s, out| {
        reclaim(s, out, |reclaim| reclaim.claimed_bytes_total);
    }),
    metric("plimsoll_reclaim_in_flight_bytes", "Ordered, and neither given nor given up", |s, out| {
        reclaim(s, out, |reclaim| reclaim.in_flight_bytes);
    }),
    metric("plimsoll_reclaim_stuck_info", "1 while giving back does not help", |s, out| {
        each(s, |report| out.one(report.reclaim.as_ref().map(|reclaim| u64::from(reclaim.stuck))));
    }),
    metric("plimsoll_store_held_bytes", "What a store of the program holds", |s, out| {
        stores(s, out, |store| store.held_bytes);
    }),
    metric("plimsoll_store_late_total", "Asks that a store did not answer in time", |s, out| {
        stores(s, out, |store| store.late_total);
    }),
    metric("plimsoll_report_gauge_bytes", "Any other figure that the program reports: in bytes", |s, out| {
        gauges(s, out, "_bytes");
    }),
    metric("plimsoll_report_gauge_seconds", "Any other figure that the program reports: in seconds", |s, out| {
        gauges(s, out, "_seconds");
    }),
    metric("plimsoll_report_gauge_ratio", "Any other figure that the program reports: a ratio", |s, out| {
        gauges(s, out, "_ratio");
    }),
    metric("plimsoll_report_gauge_total", "Any other figure that the program reports: a counter", |s, out| {
        gauges(s, out, "_total");
    }),
    metric("plimsoll_report_gauge_count", "Any other figure that the program reports: a number", |s, out| {
        gauges(s, out, "_count");
    }),
    metric("plimsoll_notify_ready_info", "1 once the program said by sd_notify that it is ready", |s, out| {
        out.one(s.reports.notify.as_ref().map(|notify| u64::from(notify.ready)));
    }),
    metric("plimsoll_notify_messages_total", "Messages of sd_notify by what became of them", |s, out| {
        if let Some(notify) = &s.reports.notify {
            let kept = notify.messages_total.saturating_sub(notify.forwarded_total + notify.withheld_total);
            let what = [("forwarded", notify.forwarded_total), ("withheld", notify.withheld_total), ("kept", kept)];
            what.iter().for_each(|(what, n)| out.with(&[("what", what)], *n));
        }
    }),
];
