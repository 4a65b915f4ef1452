//! What each line of the queue's contract promises, one producer at a time.

use std::thread;

use super::super::core::testing::{KEPT_ITEMS, Ring};
use super::super::core::{Core, Fallen, Offer, Policy};
use super::*;

/// Sends ids 0.. of these weights to a fresh queue; what each send said, and the ids that can then be received.
fn sent_and_left(limits: Limits, when_full: WhenFull<Load>, weights: &[u64]) -> (Vec<Result<Sent, Refusal>>, Vec<u64>) {
    let (sender, mut receiver) = bounded(limits, when_full);
    let said = weights.iter().enumerate().map(|(id, bytes)| {
        let value = load(id as u64, *bytes);
        sender.send(value).map_err(|error| {
            assert_eq!(error.value, value, "the value is handed back");
            error.refusal
        })
    });
    let said = said.collect();
    drop(sender);
    let mut left = Vec::new();
    receiver.recv_all(&mut left);
    (said, left.iter().map(|load| load.id).collect())
}

#[test]
fn full_is_what_was_chosen_in_items_and_in_bytes() {
    use Sent::{Displaced, Dropped, Queued};
    let full: Result<Sent, Refusal> = Err(Refusal::Full);
    for (name, limits, when_full, weights, said, left) in [
        (
            "items, newest",
            limits(2, 99),
            WhenFull::DropNewest,
            &[1, 1, 1][..],
            vec![Ok(Queued), Ok(Queued), Ok(Dropped)],
            vec![0, 1],
        ),
        (
            "items, oldest",
            limits(2, 99),
            WhenFull::DropOldest,
            &[1, 1, 1],
            vec![Ok(Queued), Ok(Queued), Ok(Displaced(1))],
            vec![1, 2],
        ),
        ("items, reject", limits(2, 99), WhenFull::Reject, &[1, 1, 1], vec![Ok(Queued), Ok(Queued), full], vec![0, 1]),
        (
            "bytes, newest",
            limits(9, 10),
            WhenFull::DropNewest,
            &[6, 6, 4],
            vec![Ok(Queued), Ok(Dropped), Ok(Queued)],
            vec![0, 2],
        ),
        (
            "bytes, oldest",
            limits(9, 10),
            WhenFull::DropOldest,
            &[3, 3, 3, 8],
            vec![Ok(Queued), Ok(Queued), Ok(Queued), Ok(Displaced(3))],
            vec![3],
        ),
        ("bytes, reject", limits(9, 10), WhenFull::Reject, &[10, 1, 0], vec![Ok(Queued), full, Ok(Queued)], vec![0, 2]),
        ("too large, newest", limits(9, 10), WhenFull::DropNewest, &[4, 11], vec![Ok(Queued), Ok(Dropped)], vec![0]),
        (
            "too large displaces nothing",
            limits(9, 10),
            WhenFull::DropOldest,
            &[4, 11],
            vec![Ok(Queued), Ok(Dropped)],
            vec![0],
        ),
        (
            "too large, reject",
            limits(9, 10),
            WhenFull::Reject,
            &[4, u64::MAX],
            vec![Ok(Queued), Err(Refusal::TooLarge)],
            vec![0],
        ),
        ("no places at all", limits(0, 10), WhenFull::DropOldest, &[1], vec![Ok(Dropped)], vec![]),
        (
            "nothing weighs nothing",
            limits(9, 0),
            WhenFull::Reject,
            &[0, 1],
            vec![Ok(Queued), Err(Refusal::TooLarge)],
            vec![0],
        ),
    ] {
        assert_eq!(sent_and_left(limits, when_full, weights), (said, left), "{name}");
    }
}

#[test]
fn closed_by_any_end_gives_back_and_drains() {
    type Close = fn(&Sender<Load>, &Receiver<Load>);
    let ways: [(&str, Close); 3] =
        [("sender", |s, _| s.close()), ("receiver", |_, r| r.close()), ("monitor", |s, _| s.monitor().close())];
    for (name, close) in ways {
        let (sender, mut receiver) = bounded(limits(9, 99), WhenFull::DropOldest);
        sender.send(load(1, 5)).expect("open");
        close(&sender, &receiver);
        let error = sender.send(load(2, 7)).expect_err(name);
        assert_eq!((error.value, error.refusal), (load(2, 7), Refusal::Closed), "{name}");
        assert_eq!(receiver.recv(), Some(load(1, 5)), "{name}");
        assert_eq!(receiver.recv(), None, "{name}");
        assert_eq!(receiver.recv_timeout(PATIENCE), Err(RecvError::Closed), "{name}: at once");
        assert_eq!(receiver.recv_all_timeout(&mut Vec::new(), PATIENCE), Err(RecvError::Closed), "{name}");
        let stats = receiver.stats();
        assert!(stats.closed, "{name}");
        assert_eq!(stats.total().refused_for(Refusal::Closed), Tally { items: 1, bytes: 7 }, "{name}");
    }
}

#[test]
fn the_last_sender_ends_the_queue_and_a_monitor_does_not_keep_it() {
    let (sender, mut receiver) = bounded(limits(99, 99), WhenFull::Reject);
    let (second, third, monitor) = (sender.named("second"), sender.clone(), sender.monitor());
    drop((sender, second));
    assert_eq!(receiver.recv_timeout(Duration::ZERO), Err(RecvError::Timeout), "one is left");
    third.send(load(1, 1)).expect("open");
    drop(third);
    assert_eq!(receiver.recv(), Some(load(1, 1)));
    assert_eq!(receiver.recv(), None);
    drop(receiver);
    assert_eq!(monitor.stats().total().delivered, Tally { items: 1, bytes: 1 });
}

#[test]
fn a_receiver_that_goes_away_abandons_what_waits() {
    let (sender, receiver) = bounded(limits(9, 99), WhenFull::DropNewest);
    sender.send(load(1, 5)).expect("open");
    sender.named("b").send(load(2, 6)).expect("open");
    drop(receiver);
    let stats = sender.stats();
    let abandoned = |i: usize| stats.producers[i].counters.dropped_for(DropReason::Abandoned);
    assert_eq!((abandoned(0), abandoned(1)), (Tally { items: 1, bytes: 5 }, Tally { items: 1, bytes: 6 }));
    assert_eq!((stats.queued, stats.oldest_age, stats.closed), (Tally::default(), None, true));
    assert_eq!(sender.send(load(3, 1)).expect_err("gone").refusal, Refusal::Closed);
}

#[test]
fn producers_are_counted_by_name_and_their_number_is_bounded() {
    let (sender, receiver) = bounded(limits(1, 9999), WhenFull::DropOldest);
    let (a, again) = (sender.named("a"), sender.named("a"));
    a.send(load(1, 10)).expect("open");
    again.send(load(2, 20)).expect("open");
    sender.send(load(3, 30)).expect("open");
    let stats = receiver.stats();
    let names: Vec<&str> = stats.producers.iter().map(|producer| &*producer.name).collect();
    assert_eq!(names, [FIRST_PRODUCER, "a"]);
    let counters = stats.producers[1].counters;
    assert_eq!(counters.accepted, Tally { items: 2, bytes: 30 });
    assert_eq!(
        counters.dropped_for(DropReason::Displaced),
        Tally { items: 2, bytes: 30 },
        "whose it was, not who came"
    );
    assert_eq!(stats.producers[0].counters.dropped_total(), Tally::default());

    for i in 0..1000 {
        sender.named(&format!("client {i}")).send(load(i, 1)).expect("open");
    }
    let stats = receiver.stats();
    assert_eq!(stats.producers.len(), PRODUCERS_MAX);
    let last = &stats.producers[PRODUCERS_MAX - 1];
    assert_eq!((&*last.name, last.counters.accepted.items), (OTHERS, 1000 - (PRODUCERS_MAX as u64 - 3)));
    assert_eq!(stats.total().accepted.items, 1003);
}

#[test]
fn gauges_tell_depth_bytes_peaks_and_the_age_of_the_oldest() {
    let (sender, mut receiver, clock) = on_clock(limits(9, 99), WhenFull::Reject);
    assert_eq!(sender.stats().oldest_age, None);
    sender.send(load(1, 40)).expect("room");
    clock.advance(Duration::from_secs(3));
    sender.send(load(2, 2)).expect("room");
    clock.advance(Duration::from_secs(1));
    let stats = sender.stats();
    assert_eq!(stats.queued, Tally { items: 2, bytes: 42 });
    assert_eq!(stats.oldest_age, Some(Duration::from_secs(4)));
    receiver.recv();
    let stats = sender.stats();
    assert_eq!((stats.queued, stats.oldest_age), (Tally { items: 1, bytes: 2 }, Some(Duration::from_secs(1))));
    assert_eq!((stats.peak_items, stats.peak_bytes), (2, 42));
}

/// A value whose drop looks at the queue: it would deadlock if it were dropped under the lock.
struct Nosy(Option<Monitor<Nosy>>, u64);

impl Weigh for Nosy {
    fn weight_bytes(&self) -> u64 {
        self.0.as_ref().map(Monitor::stats);
        self.1
    }
}

impl Drop for Nosy {
    fn drop(&mut self) {
        self.0.as_ref().map(Monitor::stats);
    }
}

#[test]
fn values_are_weighed_and_dropped_outside_the_lock() {
    for when_full in [WhenFull::DropNewest, WhenFull::DropOldest, WhenFull::Reject] {
        let (sender, receiver) = bounded(limits(3, 30), when_full);
        let nosy = |bytes| Nosy(Some(sender.monitor()), bytes);
        for bytes in [1, 1, 1, 1, 29, 31] {
            sender.send(nosy(bytes)).ok();
        }
        drop(receiver);
        assert!(sender.send(nosy(1)).is_err());
    }
}

#[test]
fn room_is_given_back_after_a_burst() {
    let (burst, few) = (100 * KEPT_ITEMS, KEPT_ITEMS / 8);
    let mut core = Core::new(&mut Builder::new(limits(burst, u64::MAX), WhenFull::Reject), Policy::Reject, 0);
    core.sender_named("a");
    let fill = |core: &mut Core<Load>, count| {
        for id in 0..count {
            let offer = core.offer(load(id as u64, 1), 1, 0, Duration::ZERO, false, &mut Fallen::default());
            assert!(matches!(offer, Offer::Done(Ok(Sent::Queued))));
        }
    };
    fill(&mut core, burst);
    assert!(core.room_items() >= burst);
    while core.take().is_some() {}
    fill(&mut core, few);
    while core.take().is_some() {}
    assert!(core.room_items() <= 2 * KEPT_ITEMS, "{}", core.room_items());
    // The same, all at once: two rings take turns, and both give their room back.
    let (mut batch, mut out) = (Ring::new(), Vec::new());
    for count in [burst, few, few, few] {
        fill(&mut core, count);
        assert_eq!(core.take_all(&mut batch), count);
        batch.pour(&mut out);
        out.clear();
    }
    assert!(core.room_items() <= 2 * KEPT_ITEMS, "{}", core.room_items());
}

#[test]
fn a_sleeping_receiver_is_woken_by_a_value_by_close_and_by_the_last_sender() {
    type End = fn(Sender<Load>);
    let ends: [(End, Option<Load>); 3] = [
        (|sender| assert_eq!(sender.send(load(7, 1)).expect("open"), Sent::Queued), Some(load(7, 1))),
        (|sender| sender.close(), None),
        (drop, None),
    ];
    for (end, expected) in ends {
        for timed in [false, true] {
            let (sender, mut receiver) = bounded(limits(9, 99), WhenFull::Reject);
            let monitor = sender.monitor();
            let waiting =
                thread::spawn(move || if timed { receiver.recv_timeout(PATIENCE).ok() } else { receiver.recv() });
            while !monitor.0.lock().wait.is_receiver_asleep() {
                thread::yield_now();
            }
            end(sender);
            assert_eq!(waiting.join().expect("no panic"), expected, "timed: {timed}");
        }
    }
    let (_sender, mut receiver) = bounded::<Load>(limits(9, 99), WhenFull::Reject);
    assert_eq!(receiver.recv_timeout(Duration::from_millis(5)), Err(RecvError::Timeout));
}

#[test]
fn nothing_is_displaced_for_a_value_that_would_not_get_in_even_then() {
    let (sender, mut receiver) = bounded(limits(10, 100), WhenFull::DropOldest);
    assert!(sender.send(load(0, 50)).is_ok());
    receiver.fill_hand(&mut Vec::new());
    assert!((1..6).all(|id| sender.send(load(id, 10)) == Ok(Sent::Queued)));
    assert_eq!(sender.send(load(6, 60)), Ok(Sent::Dropped), "50 bytes are in hand and stay there");
    assert_eq!(sender.stats().queued, tally(6, 100));
}

#[test]
fn a_task_that_slept_for_a_value_is_let_go_with_its_receiver() {
    let (sender, mut receiver) = bounded::<Load>(limits(10, 100), WhenFull::Reject);
    let waker = Arc::new(Nothing);
    {
        let mut waiting = std::pin::pin!(receiver.recv_async());
        let waker = std::task::Waker::from(Arc::clone(&waker));
        assert!(waiting.as_mut().poll(&mut std::task::Context::from_waker(&waker)).is_pending());
    }
    assert_eq!(Arc::strong_count(&waker), 2, "the queue has its waker");
    drop(receiver);
    assert_eq!(Arc::strong_count(&waker), 1);
    drop(sender);
}

struct Nothing;

impl std::task::Wake for Nothing {
    fn wake(self: Arc<Self>) {}
}
