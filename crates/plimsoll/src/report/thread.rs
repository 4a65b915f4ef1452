//! The report's own thread: collect, send, sleep for the rest of the interval or until the level changes.

use std::sync::atomic::Ordering;
use std::time::Duration;

use super::collect::Collector;
use super::wire::{Part, Writer};
use super::{Clock as _, GAP, MonotonicClock, Shared};

pub(super) fn run(shared: &Shared) {
    let Some(outlet) = &shared.outlet else { return };
    let mut part = Part::new();
    let mut collector = Collector::new();
    let mut number = 0;
    while !shared.stop.load(Ordering::Acquire) {
        shared.nudged.store(false, Ordering::Release);
        let began = MonotonicClock.now();
        number += 1;
        let at_ms = u64::try_from(began.as_millis()).unwrap_or(u64::MAX);
        let mut send = |bytes: &[u8]| outlet.send(bytes).is_ok();
        let mut writer = Writer::new(&mut part, number, at_ms, &mut send);
        collector.collect(shared, outlet.counts(), began, &mut writer);
        let (cut, _) = writer.end();
        collector.cut_lines += cut;
        sleep(shared, began);
    }
}

/// Until the interval is over; until [`GAP`] is over where there is news.
fn sleep(shared: &Shared, began: Duration) {
    loop {
        let news = shared.nudged.load(Ordering::Acquire);
        let due = began + if news { GAP.min(shared.interval) } else { shared.interval };
        let left = due.saturating_sub(MonotonicClock.now());
        if left.is_zero() || shared.stop.load(Ordering::Acquire) {
            return;
        }
        std::thread::park_timeout(left);
    }
}
