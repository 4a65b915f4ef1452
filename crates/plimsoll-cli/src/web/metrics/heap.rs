//! Heap captures as metrics.

use std::collections::BTreeMap;

use super::{Metric, Number, Samples, metric};
use crate::snapshot::{HeapView, Snapshot};

/// A figure of the captures; absent where they are off.
fn one<N: Number>(snapshot: &Snapshot, out: &mut Samples, read: fn(&HeapView) -> N) {
    if let Some(heap) = &snapshot.heap {
        out.one(read(heap));
    }
}

/// A map of counters of the captures.
fn each(snapshot: &Snapshot, out: &mut Samples, key: &'static str, read: fn(&HeapView) -> &BTreeMap<String, u64>) {
    if let Some(heap) = &snapshot.heap {
        out.each(key, read(heap));
    }
}

/// One row for each figure of `HeapView`.
pub(super) const METRICS: &[Metric] = &[
    metric("plimsoll_heap_captures_total", "Heap captures taken, by method", |s, out| {
        each(s, out, "method", |heap| &heap.taken_total);
    }),
    metric("plimsoll_heap_captures_failed_total", "Heap captures that did not work, by method", |s, out| {
        each(s, out, "method", |heap| &heap.failed_total);
    }),
    metric("plimsoll_heap_captures_refused_total", "Heap captures not taken because of a rule, by reason", |s, out| {
        each(s, out, "reason", |heap| &heap.refused_total);
    }),
    metric("plimsoll_heap_capture_self_test_info", "1 for what the self-test of captures found", |s, out| {
        if let Some(heap) = &s.heap {
            let found = match heap.self_test.as_deref() {
                None => "pending",
                Some("ok") => "ok",
                Some(_) => "failed",
            };
            out.one_of("result", ["pending", "ok", "failed"], found);
        }
    }),
    metric(
        "plimsoll_heap_capture_attributed_bytes",
        "Memory of the program put down to a running capture",
        |s, out| one(s, out, |heap| heap.attributed_bytes),
    ),
    metric("plimsoll_heap_kept_count", "Captures on disk", |s, out| one(s, out, |heap| heap.kept)),
    metric("plimsoll_heap_kept_bytes", "Disk that captures take", |s, out| one(s, out, |heap| heap.kept_bytes)),
    metric("plimsoll_heap_removed_total", "Capture files removed to stay within the bounds", |s, out| {
        one(s, out, |heap| heap.removed_total);
    }),
];
