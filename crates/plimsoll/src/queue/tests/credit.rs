//! Values that were sent on credit: in their order whoever takes them, within the bounds, seen by every look, and no memory held for who
//! sends no more.

use super::*;
use crate::queue::core::testing::KEPT_ITEMS;

/// Two producers on credit, and what they send in turn: a one time, b two times.
fn in_turn(count: u64, when_full: WhenFull<Load>) -> (Sender<Load>, Sender<Load>, Receiver<Load>) {
    let (sender, receiver) = bounded(limits(1_000, 100_000), when_full);
    let (a, b) = (sender.named("a"), sender.named("b"));
    drop(sender);
    for id in 0..count {
        let sender = if id % 3 == 0 { &a } else { &b };
        assert_eq!(sender.send(load(id, 1 + id)).ok(), Some(Sent::Queued));
    }
    (a, b, receiver)
}

fn ids(loads: &[Load]) -> Vec<u64> {
    loads.iter().map(|load| load.id).collect()
}

#[test]
fn whoever_takes_finds_the_order_in_which_it_was_sent() {
    let expected: Vec<u64> = (0..300).collect();
    let (_a, _b, mut receiver) = in_turn(300, WhenFull::Reject);
    assert!(receiver.shared.is_any_on_credit(), "this is about values on credit");
    let mut all = Vec::new();
    assert_eq!((receiver.recv_all(&mut all), ids(&all)), (300, expected.clone()));

    let (_a, _b, mut receiver) = in_turn(300, WhenFull::Reject);
    let one_by_one: Vec<Load> = (0..300).filter_map(|_| receiver.recv()).collect();
    assert_eq!(ids(&one_by_one), expected);

    let (_a, _b, mut receiver) = in_turn(300, WhenFull::Reject);
    receiver.fill_hand(&mut Vec::new());
    let hand = std::iter::from_fn(|| receiver.in_hand().pop()).map(|(value, ..)| value.id);
    assert_eq!(hand.collect::<Vec<_>>(), expected);
}

#[test]
fn taken_in_part_and_sent_on_it_stays_one_queue() {
    let (a, b, mut receiver) = in_turn(100, WhenFull::Reject);
    assert_eq!(receiver.recv().map(|load| load.id), Some(0));
    for id in 100..200 {
        let sender = if id % 2 == 0 { &a } else { &b };
        assert!(sender.send(load(id, 1)).is_ok());
    }
    assert_eq!(receiver.recv().map(|load| load.id), Some(1));
    let mut all = Vec::new();
    assert_eq!(receiver.recv_all(&mut all), 198);
    assert_eq!(ids(&all), (2..200).collect::<Vec<_>>());
}

#[test]
fn every_look_sees_what_was_sent_on_credit() {
    let (a, _b, receiver) = in_turn(300, WhenFull::Reject);
    let bytes = |who: u64| (0..300).filter(|id| (id % 3 == 0) == (who == 0)).map(|id| 1 + id).sum::<u64>();
    let stats = a.monitor().stats();
    let accepted: Vec<_> = stats.producers.iter().map(|producer| producer.counters.accepted).collect();
    assert_eq!(accepted, [tally(0, 0), tally(100, bytes(0)), tally(200, bytes(1))]);
    assert_eq!(stats.queued, tally(300, bytes(0) + bytes(1)));
    assert_eq!((stats.peak_items, stats.oldest_age.is_some()), (300, true));
    drop(receiver);
    let total = a.stats().total();
    assert_eq!(total.dropped_for(DropReason::Abandoned), tally(300, bytes(0) + bytes(1)));
    assert_eq!(
        a.send(load(1, 1)).map_err(|error| error.refusal),
        Err(Refusal::Closed),
        "credit ends with the receiver"
    );
}

#[test]
fn bounds_and_shares_hold_to_the_last_place_and_byte() {
    for (max_items, max_bytes, full_at) in [(64, 10_000, 64), (1_000, 640, 64)] {
        let (flood, mut receiver) = bounded(limits(max_items, max_bytes), WhenFull::Reject);
        let quiet = flood.named("quiet");
        let sent = (0..200).filter(|n| flood.send(load(*n, 10)).is_ok()).count();
        assert_eq!(sent, full_at * 3 / 4, "the common half and its own quarter");
        let sent = (0..200).filter(|n| quiet.send(load(*n, 10)).is_ok()).count();
        assert_eq!(sent, full_at / 4, "its quarter");
        let mut all = Vec::new();
        assert_eq!(receiver.recv_all(&mut all), full_at);
    }
}

#[test]
fn a_receiver_that_waits_for_a_batch_is_woken_by_its_last_value() {
    let (sender, mut receiver) = bounded(limits(1_000, 100_000), WhenFull::Reject);
    let waiting = std::thread::spawn(move || {
        receiver.wait_for_batch(100, u64::MAX, PATIENCE);
        let mut all = Vec::new();
        receiver.recv_all(&mut all)
    });
    while !sender.shared.lock().wait.is_receiver_asleep() {
        std::thread::yield_now();
    }
    for id in 0..99 {
        assert!(sender.send(load(id, 1)).is_ok());
    }
    assert!(sender.shared.lock().wait.is_receiver_asleep(), "99 are not 100");
    assert!(sender.send(load(99, 1)).is_ok());
    assert_eq!(waiting.join().expect("no panic"), 100);
}

#[test]
fn who_sends_no_more_holds_no_memory() {
    let (sender, mut receiver) = bounded(limits(100_000, 10_000_000), WhenFull::Reject);
    let mut all = Vec::new();
    for count in [50_000, 50_000, 50_000, 10, 10, 10] {
        (0..count).for_each(|id| assert!(sender.send(load(id, 1)).is_ok()));
        assert_eq!(receiver.recv_all(&mut all), count as usize);
        all.clear();
    }
    assert!(receiver.shared.places_on_credit() > 0);
    // On a busy machine a short time may be over before it goes to sleep.
    let sleeps = (0..100).any(|_| {
        assert_eq!(receiver.recv_all_timeout(&mut all, Duration::from_millis(5)), Err(RecvError::Timeout));
        receiver.shared.places_on_credit() == 0
    });
    assert!(sleeps, "{} places are kept", receiver.shared.places_on_credit());
    let kept = receiver.places_kept();
    assert!(kept <= 2 * KEPT_ITEMS, "{kept} places");
}

#[test]
fn more_senders_than_have_credit_lose_nothing() {
    let (sender, mut receiver) = bounded(limits(100_000, 10_000_000), WhenFull::Reject);
    let senders: Vec<_> = (0..200).map(|_| sender.clone()).collect();
    for id in 0..10_000 {
        assert!(senders[id % 200].send(load(id as u64, 1)).is_ok());
    }
    drop(senders);
    let mut all = Vec::new();
    assert_eq!(receiver.recv_all(&mut all), 10_000);
    assert_eq!(ids(&all), (0..10_000).collect::<Vec<_>>());
}

#[test]
fn what_was_known_of_a_burst_is_given_back_as_its_values_are() {
    let (sender, mut receiver) = bounded(limits(100_000, u64::MAX), WhenFull::Reject);
    let mut all = Vec::new();
    for count in [50_000, 50_000, 10, 10, 10, 10] {
        // No two weigh the same, so each has a note of its own.
        (0..count).for_each(|id| assert!(sender.send(load(id, 1 + id)).is_ok()));
        all = Vec::new();
        assert_eq!(receiver.recv_all(&mut all), count as usize);
    }
    let kept = receiver.places_kept() + receiver.shared.places_on_credit();
    assert!(kept <= 4 * KEPT_ITEMS, "{kept} places, after a catch of {}", all.len());
}
