//! What a failing sink costs, decided without a thread; and the thread, from its first batch to its end.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use parking_lot::Mutex;

use super::super::{Builder as QueueBuilder, DropReason, Limits, Sender, Sent, WhenFull, bounded};
use super::flush::{Flush, Origin, Out, Step};
use super::*;
use crate::clock::{Clock, ManualClock};

const PATIENCE: Duration = Duration::from_secs(20);

/// Everything in one list, failing as told.
#[derive(Clone, Default)]
struct Table {
    rows: Arc<Mutex<Vec<Record<String>>>>,
    is_away: Arc<AtomicBool>,
    calls: Arc<AtomicU64>,
}

impl Table {
    fn away(&self, is_away: bool) {
        self.is_away.store(is_away, Ordering::SeqCst);
    }

    fn values(&self) -> Vec<String> {
        let rows = self.rows.lock();
        let value = |record: &Record<String>| match record {
            Record::Value(value) => Some(value.clone()),
            Record::Gap(_) => None,
        };
        rows.iter().filter_map(value).collect()
    }

    fn gaps(&self) -> Vec<Gap> {
        let rows = self.rows.lock();
        let gap = |record: &Record<String>| match record {
            Record::Value(_) => None,
            Record::Gap(gap) => Some(gap.clone()),
        };
        rows.iter().filter_map(gap).collect()
    }

    fn wait_for(&self, what: impl Fn(&Table) -> bool) {
        for _ in 0..20_000 {
            if what(self) {
                return;
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        panic!("it did not come: {:?}", self.rows.lock());
    }
}

impl Sink<String> for Table {
    fn write(&mut self, records: &[Record<String>]) -> Result<(), SinkError> {
        self.calls.fetch_add(1, Ordering::SeqCst);
        if self.is_away.load(Ordering::SeqCst) {
            return Err(std::io::Error::other("away").into());
        }
        for record in records {
            match record {
                Record::Value(value) if value.starts_with("refused") => return Err(SinkError::refused("bad value")),
                Record::Value(value) if value.starts_with("failing") => {
                    return Err(SinkError::unavailable("odd value"));
                }
                Record::Value(value) if value.starts_with("panic") => panic!("expected in this test"),
                _ => {}
            }
        }
        self.rows.lock().extend_from_slice(records);
        Ok(())
    }
}

fn queue(max_items: usize) -> (Sender<String>, Receiver<String>) {
    bounded(Limits { max_items, max_bytes: 1 << 20 }, WhenFull::DropNewest)
}

/// A batch of these values.
fn batch(values: &[&str]) -> Flush<String> {
    let mut flush = Flush::new();
    for value in values {
        flush.push(Record::Value((*value).to_owned()), Origin::Queue { producer: 0, bytes: value.len() as u64 });
    }
    flush
}

/// Steps until all is out or `most` pauses were due; what was given up, and how many pauses were due.
fn drive(flush: &mut Flush<String>, table: &mut Table, most: u32) -> (u64, u32) {
    let (mut out, mut given_up, mut pauses) = (Out::default(), 0, 0);
    while flush.len() > 0 && pauses < most {
        match flush.step(table, &mut out) {
            Step::Failed(_) => pauses += 1,
            Step::GaveUp(_) => given_up += u64::from(out.given_up.take().is_some()),
            Step::Went | Step::Halved(_) => {}
        }
    }
    (given_up, pauses)
}

#[test]
fn a_value_that_is_refused_is_found_by_halving_and_all_others_go_through_in_order() {
    for at in [0, 1, 37, 98, 99] {
        let values: Vec<String> =
            (0..100).map(|n| if n == at { "refused".into() } else { format!("{n:02}") }).collect();
        let mut flush = batch(&values.iter().map(String::as_str).collect::<Vec<_>>());
        let mut table = Table::default();
        assert_eq!(drive(&mut flush, &mut table, 1), (1, 0), "at {at}: no pause");
        let expected: Vec<String> = values.into_iter().filter(|value| value != "refused").collect();
        assert_eq!(table.values(), expected, "at {at}");
        let calls = table.calls.load(Ordering::SeqCst);
        assert!(calls <= 24, "at {at}: {calls} calls");
    }
    let mut all_bad = batch(&["refused"; 20]);
    assert_eq!(drive(&mut all_bad, &mut Table::default(), 1), (20, 0));
}

#[test]
fn a_sink_that_panics_at_a_value_loses_that_value_only() {
    let (mut flush, mut table) = (batch(&["a", "b", "panic", "c"]), Table::default());
    assert_eq!(drive(&mut flush, &mut table, 1), (1, 0));
    assert_eq!(table.values(), ["a", "b", "c"]);
}

#[test]
fn an_outage_costs_nothing_however_long_it_lasts() {
    let (mut flush, mut table) = (batch(&["a", "b", "c", "d", "e"]), Table::default());
    table.away(true);
    assert_eq!(drive(&mut flush, &mut table, 1000), (0, 1000));
    table.away(false);
    assert_eq!(drive(&mut flush, &mut table, 1), (0, 0));
    assert_eq!(table.values(), ["a", "b", "c", "d", "e"]);
}

#[test]
fn a_value_that_only_fails_is_given_up_once_others_go_through_beside_it() {
    let (mut flush, mut table) = (batch(&["a", "b", "failing", "c", "d", "e", "f", "g"]), Table::default());
    let (given_up, pauses) = drive(&mut flush, &mut table, 100);
    assert_eq!(given_up, 1);
    assert!(pauses > SUSPECT_AFTER && pauses <= 3 * SUSPECT_AFTER, "{pauses}");
    let mut values = table.values();
    values.sort();
    assert_eq!(values, ["a", "b", "c", "d", "e", "f", "g"]);
    // Alone, nobody can tell whose fault it is.
    let (mut flush, mut table) = (batch(&["failing"]), Table::default());
    assert_eq!(drive(&mut flush, &mut table, 100), (0, 100));
}

#[test]
fn an_outage_that_ends_while_a_value_is_judged_costs_nothing() {
    // Away for n calls, whatever n: the end falls between any two of the calls that judge.
    for away in 0..60 {
        let (mut flush, mut table) = (batch(&["a", "b", "c", "d"]), Table::default());
        let mut calls = 0;
        let mut sink = |records: &[Record<String>]| {
            calls += 1;
            if calls <= away { Err(SinkError::unavailable("away")) } else { table.write(records) }
        };
        let mut out = Out::default();
        while flush.len() > 0 {
            flush.step(&mut sink, &mut out);
            assert_eq!(out.given_up, None, "away for {away} calls");
        }
        let mut values = table.values();
        values.sort();
        assert_eq!(values, ["a", "b", "c", "d"]);
    }
}

#[test]
fn batches_are_cut_by_count_and_by_bytes_and_keep_the_order() {
    for (items, bytes, most) in [(7, u64::MAX, 7), (1000, 50, 5), (1000, 0, 1)] {
        let (sender, receiver) = queue(1000);
        let (table, sizes) = (Table::default(), Arc::new(Mutex::new(Vec::new())));
        for n in 0..100 {
            let mut value = String::with_capacity(10);
            value.push_str(&format!("{n:02}"));
            sender.send(value).expect("open");
        }
        let sink = {
            let (mut table, sizes) = (table.clone(), Arc::clone(&sizes));
            move |records: &[Record<String>]| {
                sizes.lock().push(records.len());
                table.write(records)
            }
        };
        let batcher = Builder::new(receiver, sink).max_items(items).max_bytes(bytes).start().expect("a thread");
        drop(sender);
        let finished = batcher.finish(PATIENCE);
        assert_eq!((finished.left, finished.is_stuck), (Tally::default(), false));
        assert_eq!(table.values(), (0..100).map(|n| format!("{n:02}")).collect::<Vec<_>>());
        assert!(sizes.lock().iter().all(|size| *size <= most), "{sizes:?}");
        assert_eq!(finished.stats.written_total, Tally { items: 100, bytes: 1000 });
        assert_eq!(finished.stats.batches_total, sizes.lock().len() as u64);
    }
}

#[test]
fn a_lonely_value_is_written_within_the_tick_and_a_full_batch_at_once() {
    let (sender, receiver) = queue(1000);
    let table = Table::default();
    let hour = Duration::from_secs(3600);
    let batcher = Builder::new(receiver, table.clone()).every(hour).max_items(10).start().expect("a thread");
    (0..10).for_each(|n| assert_eq!(sender.send(n.to_string()).expect("open"), Sent::Queued));
    table.wait_for(|table| table.values().len() == 10);
    sender.send("lonely".to_owned()).expect("open");
    drop(batcher.finish(PATIENCE));
    assert_eq!(table.values().len(), 11, "the end does not wait for the tick");

    let (sender, receiver) = queue(1000);
    let table = Table::default();
    let _batcher = Builder::new(receiver, table.clone()).every(Duration::from_millis(2)).start().expect("a thread");
    sender.send("lonely".to_owned()).expect("open");
    table.wait_for(|table| table.values() == ["lonely"]);
}

#[test]
fn what_was_taken_counts_until_it_is_written_and_what_finds_no_room_becomes_a_gap() {
    let clock = Arc::new(ManualClock::default());
    let limits = Limits { max_items: 8, max_bytes: 1 << 20 };
    let (sender, receiver) =
        QueueBuilder::new(limits, WhenFull::DropNewest).clock(Arc::clone(&clock) as Arc<dyn Clock>).build_named("web");
    let (table, notices) = (Table::default(), Arc::new(Mutex::new(Vec::new())));
    table.away(true);
    let hears = Arc::clone(&notices);
    let batcher = Builder::new(receiver, table.clone())
        .every(Duration::ZERO)
        .retry(Duration::from_millis(1), Duration::from_millis(5))
        .on_notice(move |notice| hears.lock().push(notice.to_string()))
        .start()
        .expect("a thread");
    (0..8).for_each(|n| assert_eq!(sender.send(n.to_string()).expect("open"), Sent::Queued));
    table.wait_for(|table| table.calls.load(Ordering::SeqCst) >= 3);
    let stats = sender.stats();
    assert_eq!(stats.queued.items, 8, "in hand is queued");
    assert_eq!((stats.producers[0].counters.delivered, stats.oldest_age), (Tally::default(), Some(Duration::ZERO)));
    for n in 0..5 {
        assert_eq!(sender.send(format!("lost {n}")).expect("open"), Sent::Dropped);
        clock.advance(Duration::from_secs(2));
    }
    let failing = batcher.stats();
    assert!(failing.failures_in_a_row > 0 && failing.last_error.as_deref() == Some("away"), "{failing:?}");
    table.away(false);
    table.wait_for(|table| !table.gaps().is_empty());
    assert_eq!(table.values().len(), 8);
    let [gap] = &table.gaps()[..] else { panic!("{:?}", table.gaps()) };
    assert_eq!((&*gap.producer, gap.reason, gap.lost.items), ("web", DropReason::Full, 5));
    assert_eq!(gap.last - gap.first, Duration::from_secs(10), "the last is told as of when it was counted");
    assert!(gap.first > Duration::from_secs(1_600_000_000), "on the wall clock");
    assert_eq!(gap.to_string(), format!("5 of web missing ({} B, full) within 10 s", gap.lost.bytes));
    assert_eq!(table.rows.lock().iter().position(|record| matches!(record, Record::Gap(_))), Some(8), "behind them");
    let finished = batcher.finish(PATIENCE);
    assert_eq!((finished.stats.written_total.items, finished.stats.gaps_total), (8, 1));
    assert_eq!(sender.stats().producers[0].counters.delivered.items, 8);
    let notices = notices.lock();
    assert_eq!(notices.iter().filter(|notice| notice.starts_with("the sink fails")).count(), 1, "{notices:?}");
    assert_eq!(notices.iter().filter(|notice| notice.starts_with("the sink is well again")).count(), 1);
    let lost: Vec<&String> = notices.iter().filter(|notice| notice.contains("entries lost")).collect();
    assert!(!lost.is_empty() && lost.len() <= 5 && lost[0].contains("most by web"), "{lost:?}");
}

#[test]
fn poison_is_counted_against_its_producer_and_told_in_a_gap() {
    let (sender, receiver) = queue(1000);
    let table = Table::default();
    for value in ["a", "refused", "b"] {
        sender.send(value.to_owned()).expect("open");
    }
    let batcher = Builder::new(receiver, table.clone()).every(Duration::ZERO).start().expect("a thread");
    table.wait_for(|table| table.gaps().len() == 1);
    let finished = batcher.finish(PATIENCE);
    assert_eq!(table.values(), ["a", "b"]);
    assert_eq!((table.gaps()[0].reason, table.gaps()[0].lost.items), (DropReason::Sink, 1));
    assert_eq!((finished.left.items, finished.stats.poison_total.items), (0, 1));
    let total = sender.stats().total();
    assert_eq!((total.accepted.items, total.delivered.items), (3, 2));
    assert_eq!(total.dropped_for(DropReason::Sink).items, 1);
}

#[test]
fn at_the_deadline_what_is_left_is_said_and_counted_and_a_stuck_sink_is_left_behind() {
    let (sender, receiver) = queue(1000);
    let table = Table::default();
    table.away(true);
    let batcher = Builder::new(receiver, table).start().expect("a thread");
    (0..5).for_each(|n| assert!(sender.send(n.to_string()).is_ok()));
    let finished = batcher.finish(Duration::from_millis(20));
    assert_eq!((finished.left.items, finished.is_stuck), (5, false));
    assert_eq!(sender.stats().total().dropped_for(DropReason::Abandoned).items, 5);
    assert!(sender.send("late".to_owned()).is_err());

    let (sender, receiver) = queue(1000);
    let (go, stuck) = std::sync::mpsc::sync_channel::<()>(0);
    let sink = move |_: &[Record<String>]| stuck.recv().map_err(SinkError::from);
    let batcher = Builder::new(receiver, sink).every(Duration::ZERO).start().expect("a thread");
    sender.send("held".to_owned()).expect("open");
    let finished = batcher.finish(Duration::from_millis(20));
    assert_eq!((finished.left.items, finished.is_stuck), (1, true));
    drop(go);
}

#[test]
fn the_drain_closes_the_queue_and_waits_until_all_is_written() {
    let (drain, table) = (Drain::new(), Table::default());
    let (sender, receiver) = queue(1000);
    table.away(true);
    let batcher = Builder::new(receiver, table.clone())
        .retry(Duration::from_millis(1), Duration::from_millis(1))
        .drain(&drain)
        .start()
        .expect("a thread");
    sender.send("in flight".to_owned()).expect("open");
    drain.begin();
    assert!(sender.send("late".to_owned()).is_err(), "closed");
    assert!(!drain.is_finished(), "a value is not written");
    table.away(false);
    assert!(drain.wait(PATIENCE).is_finished());
    assert_eq!(table.values(), ["in flight"]);
    assert!(!batcher.finish(PATIENCE).is_stuck);
}

#[test]
fn what_overflows_is_written_behind_what_was_in_memory_and_settled_only_then() {
    #[derive(Clone, Default)]
    struct Shelf(Arc<Mutex<std::collections::VecDeque<String>>>, Arc<AtomicU64>);
    impl super::super::Overflow<String> for Shelf {
        fn keep(&mut self, value: String, _: &str) -> Result<(), String> {
            self.0.lock().push_back(value);
            Ok(())
        }
        fn next(&mut self) -> Option<String> {
            self.0.lock().pop_front()
        }
        fn settle(&mut self, count: u64) {
            self.1.fetch_add(count, Ordering::SeqCst);
        }
        fn kept(&self) -> u64 {
            self.0.lock().len() as u64
        }
    }
    let (shelf, table) = (Shelf::default(), Table::default());
    table.away(true);
    let limits = Limits { max_items: 10, max_bytes: 1 << 20 };
    let (sender, receiver) = bounded(limits, WhenFull::Overflow(Box::new(shelf.clone())));
    let batcher = Builder::new(receiver, table.clone())
        .every(Duration::ZERO)
        .retry(Duration::from_millis(1), Duration::from_millis(1))
        .start()
        .expect("a thread");
    (0..1000).for_each(|n| assert!(sender.send(format!("{n:03}")).is_ok()));
    assert_eq!(shelf.1.load(Ordering::SeqCst), 0);
    let stats = sender.stats();
    // Up to 256 of them may be in the batcher's hand again by now, which is kept as long as the sink is away.
    assert!(stats.overflow.taken_total.items >= 900, "{stats:?}");
    table.away(false);
    let finished = batcher.finish(PATIENCE);
    assert_eq!((finished.left.items, finished.stats.written_total.items), (0, 1000));
    assert_eq!(table.values(), (0..1000).map(|n| format!("{n:03}")).collect::<Vec<_>>());
    assert_eq!(shelf.1.load(Ordering::SeqCst), sender.stats().overflow.taken_total.items);
}

#[test]
fn a_full_queue_presses_a_batcher_that_waits_for_more_also_when_nobody_waits_for_room() {
    let (sender, receiver) = bounded(Limits { max_items: 4, max_bytes: 1 << 20 }, WhenFull::WaitUntil(Duration::ZERO));
    let table = Table::default();
    let batcher = Builder::new(receiver, table.clone()).every(Duration::from_secs(3600)).start().expect("a thread");
    // Which of them finds it full depends on when the thread goes to sleep; one in the first round or the next does.
    for n in 0..20_000 {
        if table.calls.load(Ordering::SeqCst) > 0 {
            break;
        }
        sender.send(n.to_string()).ok();
        std::thread::sleep(Duration::from_millis(1));
    }
    assert!(table.calls.load(Ordering::SeqCst) > 0, "it slept on a full queue");
    batcher.finish(PATIENCE);
}

#[test]
fn what_was_turned_away_while_a_batch_was_in_hand_is_told_without_another_value() {
    let (sender, receiver) = queue(2);
    let table = Table::default();
    table.away(true);
    let batcher = Builder::new(receiver, table.clone())
        .every(Duration::ZERO)
        .retry(Duration::from_millis(1), Duration::from_millis(5))
        .start()
        .expect("a thread");
    (0..2).for_each(|n| assert_eq!(sender.send(n.to_string()).expect("open"), Sent::Queued));
    table.wait_for(|table| table.calls.load(Ordering::SeqCst) >= 2);
    (0..9).for_each(|n| assert_eq!(sender.send(n.to_string()).expect("open"), Sent::Dropped));
    table.away(false);
    table.wait_for(|table| table.gaps().iter().map(|gap| gap.lost.items).sum::<u64>() == 9);
    batcher.finish(PATIENCE);
}

#[test]
fn poison_that_came_by_the_overflow_is_told_in_a_gap() {
    struct Shelf(std::collections::VecDeque<String>);
    impl super::super::Overflow<String> for Shelf {
        fn keep(&mut self, value: String, _: &str) -> Result<(), String> {
            self.0.push_back(value);
            Ok(())
        }
        fn next(&mut self) -> Option<String> {
            self.0.pop_front()
        }
        fn settle(&mut self, _: u64) {}
        fn kept(&self) -> u64 {
            self.0.len() as u64
        }
    }
    let overflow = WhenFull::Overflow(Box::new(Shelf(std::collections::VecDeque::new())));
    let (sender, receiver) = bounded(Limits { max_items: 1, max_bytes: 1 << 20 }, overflow);
    for value in ["a", "refused", "b"] {
        sender.send(value.to_owned()).expect("open");
    }
    let table = Table::default();
    let batcher = Builder::new(receiver, table.clone()).every(Duration::ZERO).start().expect("a thread");
    table.wait_for(|table| table.gaps().len() == 1);
    let finished = batcher.finish(PATIENCE);
    assert_eq!((table.values(), finished.stats.poison_total.items), (vec!["a".to_owned(), "b".to_owned()], 1));
    let gap = &table.gaps()[0];
    assert_eq!((&*gap.producer, gap.reason, gap.lost.items), (FROM_OVERFLOW, DropReason::Sink, 1));
}
