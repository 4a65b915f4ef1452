//! One that floods beside quiet ones: who loses, and that the shares hold however often the flood comes.

use super::*;

/// Sends one value of 10 bytes; whether it got in.
fn sends(sender: &Sender<Load>) -> bool {
    matches!(sender.send(load(0, 10)), Ok(Sent::Queued | Sent::Displaced(_)))
}

#[test]
fn a_flood_loses_its_own_and_the_quiet_ones_lose_nothing_whatever_happens_when_full() {
    type Policy = fn() -> WhenFull<Load>;
    let policies: [Policy; 3] = [|| WhenFull::DropNewest, || WhenFull::DropOldest, || WhenFull::Reject];
    for policy in policies {
        let (flood, mut receiver) = bounded(limits(100, 100_000), policy());
        let quiet: Vec<_> = (0..4).map(|n| flood.named(&format!("quiet {n}"))).collect();
        let mut out = Vec::new();
        for round in 0..50 {
            (0..1_000).for_each(|_| _ = sends(&flood));
            // Five producers share half of a hundred places.
            for sender in &quiet {
                assert!((0..10).all(|_| sends(sender)), "{:?}, round {round}", policy());
            }
            if round % 3 == 0 {
                out.clear();
                assert_eq!(receiver.recv_all(&mut out), 100, "{:?}: common part, five shares", policy());
            } else {
                (0..40).for_each(|_| _ = receiver.recv_timeout(Duration::ZERO));
                // What it took was the oldest, whosever; now each has at most its share.
                (0..60).for_each(|_| _ = receiver.recv_timeout(Duration::ZERO));
            }
        }
        let stats = flood.stats();
        for producer in &stats.producers[1..] {
            let lost = producer.counters.dropped_total() + producer.counters.refused_for(Refusal::Full);
            assert_eq!((lost, producer.counters.accepted), (tally(0, 0), tally(500, 5_000)), "{}", producer.name);
        }
        let flooded = stats.producers[0].counters;
        assert!(flooded.accepted.items >= 50 * 60 && flooded.accepted.items <= 50_000);
    }
}

#[test]
fn shares_hold_in_bytes_as_well() {
    let (flood, _receiver) = bounded(limits(1_000_000, 4_000), WhenFull::DropNewest);
    let quiet = flood.named("quiet");
    while sends(&flood) {}
    assert_eq!(flood.stats().producers[0].queued.bytes, 3_000, "the common half and its own quarter");
    assert_eq!((0..200).filter(|_| sends(&quiet)).count(), 100);
    assert_eq!(flood.stats().queued.bytes, 4_000);
}

#[test]
fn one_that_comes_when_all_is_taken_gets_its_share_where_values_may_be_dropped() {
    for (policy, gets, newest) in [
        (WhenFull::DropNewest, 2, vec![0, 1, 2, 3, 4, 5]),
        (WhenFull::DropOldest, 2, vec![2, 3, 4, 5, 6, 7]),
        (WhenFull::Reject, 0, (0..8).collect()),
    ] {
        let shown = format!("{policy:?}");
        let (flood, mut receiver) = bounded(limits(8, 1_000), policy);
        (0..8).for_each(|id| assert!(flood.send(load(id, 10)).is_ok()));
        let late = flood.named("late");
        assert_eq!((0..2).filter(|_| sends(&late)).count(), gets, "{shown}");
        let displaced = flood.stats().producers[0].counters.dropped_for(DropReason::Displaced).items;
        assert_eq!(displaced, gets as u64, "{shown}");
        let mut out = Vec::new();
        receiver.recv_all(&mut out);
        out.truncate(8 - gets);
        assert_eq!(out.iter().map(|load| load.id).collect::<Vec<_>>(), newest, "{shown}");
        assert!(sends(&late), "{shown}: now there is room");
    }
}

#[test]
fn the_guaranteed_part_can_be_chosen() {
    for (ratio, alone, both) in [(0.0, 100, 100), (0.5, 75, 100), (1.0, 50, 100)] {
        let builder = Builder::new(limits(100, 1 << 20), WhenFull::DropNewest).guaranteed_ratio(ratio);
        let (flood, _receiver) = builder.build();
        let quiet = flood.named("quiet");
        assert_eq!((0..1_000).filter(|_| sends(&flood)).count(), alone, "ratio {ratio}");
        assert_eq!((0..1_000).filter(|_| sends(&quiet)).count(), both - alone, "ratio {ratio}");
    }
}

#[test]
fn a_producer_that_left_keeps_its_share_until_what_it_queued_has_left() {
    let (first, mut receiver) = bounded(limits(8, 1_000), WhenFull::DropNewest);
    let gone = first.named("gone");
    assert!((0..4).all(|_| sends(&gone)));
    drop(gone);
    assert_eq!(first.stats().share, tally(2, 250));
    assert_eq!((0..100).filter(|_| sends(&first)).count(), 4);
    assert_eq!(first.stats().producers[1].queued.items, 4, "nothing of it was pushed out");
    assert!((0..4).all(|_| receiver.recv().is_some()));
    assert_eq!(first.stats().share, tally(4, 500));
    assert_eq!((0..100).filter(|_| sends(&first)).count(), 4);
}

#[test]
fn a_heavy_value_that_found_no_room_does_not_shut_out_a_light_one_within_its_share() {
    let (flood, _receiver) = bounded(limits(8, 100), WhenFull::DropNewest);
    assert!((0..8).all(|id| flood.send(load(id, 1)) == Ok(Sent::Queued)));
    let late = flood.named("late");
    assert_eq!(late.send(load(8, 60)), Ok(Sent::Dropped), "beyond its share of 25 bytes");
    assert_eq!(late.send(load(9, 1)), Ok(Sent::Displaced(1)));
}

#[test]
fn who_takes_nothing_of_an_overdrawn_dimension_gets_in_one_by_one_as_on_credit() {
    let (heavy, _receiver) = bounded(limits(1_000, 10_000), WhenFull::Reject);
    assert!((0..90).all(|id| heavy.send(load(id, 100)).is_ok()));
    let light = heavy.named("light");
    // A look between two sends calls all credit in.
    let sent = (0..1_000).take_while(|id| light.send(load(*id, 1)).is_ok() && light.stats().queued.items > 0).count();
    assert_eq!(sent, 750, "its share of 250 and the common part of 500 items");
}
