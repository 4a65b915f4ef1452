//! Heap captures in one line: how many are kept, the newest, and what does not work; and what changed between two, as every JSON tells it.

use plimsoll_heap::digest::Kind;
use plimsoll_heap::profile::diff::Change;
use serde::Serialize;

use super::text::{Line, Tone};
use super::words;
use crate::snapshot::{CaptureView, HeapView};

/// One key in two captures.
#[derive(Debug, PartialEq, Serialize)]
pub(crate) struct ChangeRow {
    pub(crate) kind: &'static str,
    /// Absent for who is not authorised.
    pub(crate) key: Option<String>,
    pub(crate) before_bytes: u64,
    pub(crate) after_bytes: u64,
    pub(crate) delta_bytes: i64,
    pub(crate) before_count: u64,
    pub(crate) after_count: u64,
    /// What a difference has to exceed to mean something; 0 where both were counted.
    pub(crate) noise_bytes: f64,
    /// It does not.
    pub(crate) within_noise: bool,
}

impl ChangeRow {
    /// Of a change among keys of `kind`, which is called `key` where that may be told.
    pub(crate) fn of(kind: Kind, change: &Change, key: Option<String>) -> ChangeRow {
        ChangeRow {
            kind: kind.word(),
            key,
            before_bytes: change.before_bytes,
            after_bytes: change.after_bytes,
            delta_bytes: change.delta_bytes(),
            before_count: change.before_count,
            after_count: change.after_count,
            noise_bytes: change.error_bytes,
            within_noise: change.is_noise(),
        }
    }
}

/// The line of `status`.
pub(crate) fn facts(heap: &HeapView, now_unix: f64) -> Line {
    let mut line = match &heap.running {
        Some(trigger) => Line::new().add(Tone::Note, format!("a capture runs ({trigger})")).plain(" · "),
        None => Line::new(),
    };
    let kept = words::plural(heap.kept, "capture", "captures");
    line = line.plain(format!("{kept}, {}", words::size(heap.kept_bytes)));
    if let Some(CaptureView { method, at_unix, .. }) = &heap.last {
        line = line.add(Tone::Dim, format!(" · {method} {} ago", words::seconds((now_unix - at_unix).max(0.0))));
    }
    let sum = |by: &std::collections::BTreeMap<String, u64>| by.values().sum::<u64>();
    let (refused, failed) = (sum(&heap.refused_total), sum(&heap.failed_total));
    if refused > 0 {
        line = line.add(Tone::Note, format!(" · {} refused", words::count(refused)));
    }
    if failed > 0 {
        line = line.add(Tone::Warn, format!(" · {} failed", words::count(failed)));
    }
    match heap.self_test.as_deref() {
        None | Some("ok") => line,
        Some(why) => line.add(Tone::Alarm, format!(" · captures do not work as asked: {why}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::view::text;

    fn told(heap: &HeapView) -> String {
        text::write_lines(&[facts(heap, 1_000.0)], false)
    }

    #[test]
    fn one_line_says_what_is_kept_and_what_does_not_work() {
        let last = CaptureView { method: "smaps".into(), at_unix: 910.0, ..CaptureView::default() };
        let heap = HeapView { kept: 2, kept_bytes: 3 << 20, last: Some(last), ..HeapView::default() };
        assert_eq!(told(&heap).trim_end(), "2 captures, 3.0 MiB · smaps 1 min 30 s ago");
        let heap = HeapView {
            kept: 1,
            running: Some("level".into()),
            refused_total: [("headroom".to_owned(), 3)].into(),
            failed_total: [("agent".to_owned(), 2)].into(),
            self_test: Some("no node".into()),
            ..HeapView::default()
        };
        let expected =
            "a capture runs (level) · 1 capture, 0 B · 3 refused · 2 failed · captures do not work as asked: no node";
        assert_eq!(told(&heap).trim_end(), expected);
    }
}
