//! A cap over the sum of several queues, through the ledger.

use super::*;
use crate::reclaim::ledger::Ledger;

const MIB: u64 = 1 << 20;

fn queue(ledger: &Ledger, name: &str, policy: WhenFull<Load>) -> (Sender<Load>, Receiver<Load>) {
    let account = ledger.account(name).expect("few accounts");
    Builder::new(limits(1_000_000, MIB), policy).account(account).build()
}

#[test]
fn two_queues_together_never_pass_the_cap_and_nothing_stays_charged() {
    let ledger = Ledger::with_cap(MIB);
    let (a, mut from_a) = queue(&ledger, "a", WhenFull::DropNewest);
    let (b, mut from_b) = queue(&ledger, "b", WhenFull::Reject);
    let (mut out, mut refused) = (Vec::new(), 0);
    for round in 0..2_000_u64 {
        a.send(load(round, 1_000)).expect("it drops");
        refused += u64::from(b.send(load(round, 1_000)).is_err_and(|error| error.refusal == Refusal::SumFull));
        let queued = a.stats().queued.bytes + b.stats().queued.bytes;
        assert!(queued <= ledger.held_bytes() && ledger.held_bytes() <= MIB, "{queued}: {}", ledger.held_bytes());
    }
    let lost = a.stats().total().dropped_for(DropReason::SumFull);
    assert!(lost.items > 900 && refused > 900, "{lost:?} {refused}");
    assert!(a.stats().queued.bytes + b.stats().queued.bytes > MIB - 3 * (64 << 10), "the cap can be used");
    from_a.recv_all(&mut out);
    from_b.recv_all(&mut out);
    assert!(ledger.held_bytes() <= 4 * (64 << 10), "two steps each: {}", ledger.held_bytes());
    assert!(b.send(load(0, MIB - (300 << 10))).is_ok(), "what a gave back b may have");
    drop((a, from_a, b, from_b));
    assert_eq!(ledger.held_bytes(), 0);
}

#[test]
fn drop_oldest_makes_room_in_the_sum_with_its_own() {
    let ledger = Ledger::with_cap(100_000);
    let other = ledger.account("other").expect("few accounts").charge(50_000);
    let (sender, mut receiver) = queue(&ledger, "a", WhenFull::DropOldest);
    for id in 0..100 {
        sender.send(load(id, 1_000)).expect("it drops");
    }
    let mut out = Vec::new();
    receiver.recv_all(&mut out);
    assert_eq!(out.iter().map(|load| load.id).collect::<Vec<_>>(), (50..100).collect::<Vec<_>>());
    drop(other);
}

#[test]
fn who_waits_for_the_sum_alone_is_told_at_once() {
    let ledger = Ledger::with_cap(100_000);
    let _other = ledger.account("other").expect("few accounts").charge(99_999);
    let (sender, _receiver) = queue(&ledger, "a", WhenFull::WaitUntil(PATIENCE));
    let error = sender.send(load(1, 1_000)).expect_err("nothing that leaves this queue would help");
    assert_eq!((error.refusal, error.value), (Refusal::SumFull, load(1, 1_000)));
    assert_eq!(sender.stats().total().refused_for(Refusal::SumFull), tally(1, 1_000));
}

#[test]
fn nothing_is_displaced_for_a_value_that_the_sum_would_refuse_even_then() {
    let ledger = Ledger::with_cap(100_000);
    let other = ledger.account("other").expect("few accounts").charge(95_000);
    let (sender, _receiver) = queue(&ledger, "a", WhenFull::DropOldest);
    assert!((0..5).all(|id| sender.send(load(id, 1_000)) == Ok(Sent::Queued)));
    assert_eq!(sender.send(load(5, 50_000)), Ok(Sent::Dropped));
    assert_eq!(sender.stats().queued, tally(5, 5_000));
    assert_eq!(sender.send(load(6, 2_000)), Ok(Sent::Displaced(2)), "its own make room");
    drop(other);
}
