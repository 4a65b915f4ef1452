//! Loom's models of the handoff between the ends: who sleeps is woken, whatever the order of events, and nothing is lost or counted twice.
//!
//! `RUSTFLAGS="--cfg loom" cargo test -p plimsoll --release --lib queue::models`. Time does not pass here: a wait ends only by being woken,
//! so a lost wake-up is a deadlock that loom reports.

use std::time::Duration;

use loom::future::block_on;
use loom::thread;

use super::*;

const PATIENCE: Duration = Duration::from_secs(3600);

#[derive(Debug, PartialEq, Eq)]
struct Unit(u32);

impl Weigh for Unit {
    fn weight_bytes(&self) -> u64 {
        1
    }
}

fn one_place(when_full: WhenFull<Unit>) -> (Sender<Unit>, Receiver<Unit>) {
    bounded(Limits { max_items: 1, max_bytes: 1 }, when_full)
}

#[test]
fn a_sleeping_receiver_gets_the_value_and_then_the_end() {
    loom::model(|| {
        let (sender, mut receiver) = one_place(WhenFull::Reject);
        let sending = thread::spawn(move || sender.send(Unit(7)).expect("room"));
        assert_eq!((receiver.recv(), receiver.recv()), (Some(Unit(7)), None));
        sending.join().expect("no panic");
    });
}

#[test]
fn a_sleeping_sender_gets_the_room() {
    loom::model(|| {
        let (sender, mut receiver) = one_place(WhenFull::WaitUntil(PATIENCE));
        let sending = thread::spawn(move || {
            sender.send(Unit(1)).expect("room");
            sender.send(Unit(2)).expect("room in time");
        });
        assert_eq!((receiver.recv(), receiver.recv(), receiver.recv()), (Some(Unit(1)), Some(Unit(2)), None));
        sending.join().expect("no panic");
    });
}

#[test]
fn a_sleeping_sender_is_told_that_the_receiver_has_gone() {
    loom::model(|| {
        let (sender, receiver) = one_place(WhenFull::WaitUntil(PATIENCE));
        sender.send(Unit(1)).expect("room");
        let leaving = thread::spawn(move || drop(receiver));
        assert_eq!(sender.send(Unit(2)).expect_err("gone").refusal, Refusal::Closed);
        leaving.join().expect("no panic");
    });
}

#[test]
fn tasks_at_both_ends_meet() {
    loom::model(|| {
        let (sender, mut receiver) = one_place(WhenFull::Reject);
        let sending = thread::spawn(move || {
            block_on(sender.send_async(Unit(1))).expect("room");
            block_on(sender.send_async(Unit(2))).expect("room");
        });
        let mut all = Vec::new();
        assert_eq!(block_on(receiver.recv_async()), Some(Unit(1)));
        assert_eq!(block_on(receiver.recv_all_async(&mut all)), 1);
        assert_eq!(block_on(receiver.recv_async()), None);
        sending.join().expect("no panic");
    });
}

/// A sender that turns away by itself beside a receiver that makes room: each value is accepted or refused, once, and afterwards there is room.
#[test]
fn the_word_full_does_not_outlive_the_fullness() {
    loom::model(|| {
        let (sender, mut receiver) = one_place(WhenFull::Reject);
        sender.send(Unit(0)).expect("room");
        let sending = thread::spawn({
            let sender = sender.clone();
            move || (1..3).filter(|n| sender.send(Unit(*n)).is_ok()).count() as u64
        });
        assert_eq!(receiver.recv_timeout(Duration::ZERO), Ok(Unit(0)));
        let accepted = sending.join().expect("no panic");
        let total = sender.stats().total();
        assert_eq!(total.accepted.items, 1 + accepted);
        assert_eq!(total.refused_for(Refusal::Full).items, 2 - accepted);
        if accepted == 1 {
            assert!(receiver.recv_timeout(Duration::ZERO).is_ok());
        }
        assert!(sender.send(Unit(9)).is_ok(), "nothing is queued");
    });
}

fn some_places(places: usize) -> (Sender<Unit>, Receiver<Unit>) {
    bounded(Limits { max_items: places, max_bytes: 100 }, WhenFull::Reject)
}

/// Values sent on credit beside a receiver that takes all and sleeps in between: none is lost, none is left behind by a receiver that sleeps.
#[test]
fn what_is_sent_on_credit_comes_in_its_order_and_then_the_end() {
    loom::model(|| {
        let (sender, mut receiver) = some_places(8);
        sender.send(Unit(0)).expect("room");
        let sending = thread::spawn(move || assert_eq!(sender.send(Unit(1)).ok(), Some(Sent::Queued)));
        let mut all = Vec::new();
        while receiver.recv_all(&mut all) > 0 {}
        assert_eq!(all, [Unit(0), Unit(1)]);
        sending.join().expect("no panic");
        assert_eq!(receiver.stats().total().delivered.items, 2);
    });
}

/// Two senders on credit, the second of which sends only after it has heard of the first one's value: what came first leaves first.
#[test]
fn what_was_sent_before_comes_before() {
    loom::model(|| {
        let (first, mut receiver) = some_places(8);
        let second = first.named("second");
        // Both have credit from here on.
        first.send(Unit(0)).expect("room");
        second.send(Unit(1)).expect("room");
        let sent = loom::sync::Arc::new(loom::sync::atomic::AtomicBool::new(false));
        let sending = thread::spawn({
            let sent = loom::sync::Arc::clone(&sent);
            move || {
                first.send(Unit(2)).expect("room");
                sent.store(true, loom::sync::atomic::Ordering::Release);
            }
        });
        let heard = sent.load(loom::sync::atomic::Ordering::Acquire);
        second.send(Unit(3)).expect("room");
        let mut all = Vec::new();
        while all.len() < 4 {
            receiver.recv_all(&mut all);
        }
        let place = |n| all.iter().position(|unit| *unit == Unit(n)).expect("nothing is lost");
        assert!(!heard || place(2) < place(3), "{all:?}");
        sending.join().expect("no panic");
    });
}

/// A sender on credit beside another that fills the queue: together never more than the places, and every value is accepted or refused.
#[test]
fn credit_never_exceeds_the_places() {
    loom::model(|| {
        let (first, receiver) = some_places(4);
        let second = first.named("second");
        first.send(Unit(0)).expect("room");
        let sending = thread::spawn(move || (0..2).filter(|n| first.send(Unit(*n)).is_ok()).count() as u64);
        let mut accepted = 1 + (0..2).filter(|n| second.send(Unit(*n)).is_ok()).count() as u64;
        accepted += sending.join().expect("no panic");
        let stats = receiver.stats();
        assert_eq!((stats.queued.items, stats.total().accepted.items), (accepted, accepted));
        assert!(accepted <= 4);
        assert_eq!(stats.total().refused_for(Refusal::Full).items, 5 - accepted);
    });
}
