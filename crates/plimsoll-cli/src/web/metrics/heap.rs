//! Heap captures as metrics.

use super::{Metric, metric};

/// One row for each figure of `HeapView`; absent where captures are off.
pub(super) const METRICS: &[Metric] = &[
    metric("plimsoll_heap_captures_total", "Heap captures taken, by method", |s, out| {
        if let Some(heap) = &s.heap {
            out.each("method", &heap.taken_total);
        }
    }),
    metric("plimsoll_heap_captures_failed_total", "Heap captures that did not work, by method", |s, out| {
        if let Some(heap) = &s.heap {
            out.each("method", &heap.failed_total);
        }
    }),
    metric("plimsoll_heap_captures_refused_total", "Heap captures not taken because of a rule, by reason", |s, out| {
        if let Some(heap) = &s.heap {
            out.each("reason", &heap.refused_total);
        }
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
        |s, out| {
            out.one(s.heap.as_ref().map(|heap| heap.attributed_bytes));
        },
    ),
    metric("plimsoll_heap_kept_count", "Captures on disk", |s, out| {
        out.one(s.heap.as_ref().map(|heap| heap.kept));
    }),
    metric("plimsoll_heap_kept_bytes", "Disk that captures take", |s, out| {
        out.one(s.heap.as_ref().map(|heap| heap.kept_bytes));
    }),
    metric("plimsoll_heap_removed_total", "Capture files removed to stay within the bounds", |s, out| {
        out.one(s.heap.as_ref().map(|heap| heap.removed_total));
    }),
];
