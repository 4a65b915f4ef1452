//! A made-up report, with every optional field filled.

use std::collections::BTreeMap;

use super::super::report::{
    AccountView, GaugeView, LastWordsView, NotifyView, ProducerView, QueueView, ReclaimView, ReportView, ReportsView,
    StoreView,
};
use super::{AT_UNIX, MIB, map};

/// One of each unit.
const GAUGES: [(&str, f64); 5] = [
    ("clients_count", 17.0),
    ("held_bytes", 5e6),
    ("slowest_seconds", 0.2),
    ("full_ratio", 0.5),
    ("dropped_total", 3.0),
];

/// Two accounts of eleven, a queue that lost lines of two producers, a store that is late, one gauge, ready.
pub(super) fn reports() -> ReportsView {
    let account = |name: &str, mib: u64, refused_total| AccountView {
        name: name.into(),
        held_bytes: mib * MIB,
        cap_bytes: Some(200 * MIB),
        refused_total,
        ..AccountView::default()
    };
    let producer = |name: &str, accepted, dropped, refused| ProducerView {
        name: name.into(),
        accepted_items_total: accepted,
        accepted_bytes_total: 9 * MIB,
        delivered_items_total: accepted - 600,
        dropped_items_total: map([("full", dropped)]),
        refused_items_total: if refused > 0 { map([("closed", refused)]) } else { BTreeMap::new() },
    };
    let report = ReportView {
        pid: 4711,
        age_seconds: 0.4,
        library: "0.1.0".into(),
        level: Some("high".into()),
        protected_bytes: Some(271_056_896),
        live_bytes: Some(182 * MIB),
        accounted_bytes: Some(171 * MIB),
        retained_bytes: Some(271_056_896 - (182 << 20)),
        unaccounted_bytes: Some(11 << 20),
        threshold_bytes: Some(300 * MIB),
        accounts: vec![account("packets", 120, 0), account("index", 40, 3)],
        accounts_count: 11,
        queues: vec![QueueView {
            name: "ingest".into(),
            items: 1_204,
            bytes: 3_355_443,
            oldest_seconds: Some(1.2),
            max_items: Some(10_000),
            max_bytes: Some(64 * MIB),
            producers_count: 2,
            producers: vec![producer("web/stderr", 70_000, 4_200, 11), producer("main", 900, 4, 0)],
            ..QueueView::default()
        }],
        reclaim: Some(ReclaimView {
            ordered_bytes_total: 32 * MIB,
            claimed_bytes_total: 20 * MIB,
            withdrawn_bytes_total: 8 * MIB,
            in_flight_bytes: 4 * MIB,
            hold_bytes: Some(128 * MIB),
            purges_total: 1,
            stores: vec![StoreView {
                name: "packets".into(),
                held_bytes: 120 * MIB,
                asked_bytes_total: 32 * MIB,
                claimed_bytes_total: 20 * MIB,
                late_total: 1,
                late_seconds: Some(2.5),
                ..StoreView::default()
            }],
            ..ReclaimView::default()
        }),
        gauges: GAUGES.map(|(name, value)| GaugeView { name: format!("chat.{name}"), value }).into(),
        sender_total: map([("sent", 552), ("full", 3), ("gone", 1)]),
        ..ReportView::default()
    };
    ReportsView {
        processes: vec![report],
        received_total: 552,
        refused_total: map([("foreign", 2), ("malformed", 0)]),
        notify: Some(NotifyView {
            ready: true,
            status: Some("serving 3 clients".into()),
            messages_total: 4,
            forwarded_total: 3,
            withheld_total: 1,
            ..NotifyView::default()
        }),
    }
}

/// What a program said that left at 300 MiB.
pub(super) fn last_words() -> LastWordsView {
    LastWordsView {
        pid: 4650,
        at_unix: AT_UNIX - 553.0,
        protected_bytes: Some(301 * MIB),
        threshold_bytes: Some(300 * MIB),
        deadline_seconds: 10.0,
        lines: vec![
            "plimsoll: memory pressure: 301.0 MiB of 300.0 MiB, +18.4 MiB/s (confidence 0.97)".into(),
            "plimsoll: holders: packets 120.0 MiB (+80.0 MiB since calm); 11 accounts, 3 not named".into(),
            "token=hunter2".into(),
        ],
    }
}
