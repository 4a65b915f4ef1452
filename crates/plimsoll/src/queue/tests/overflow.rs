//! What overflows comes back in its order, and what the overflow does not take is dropped and counted.

use std::collections::VecDeque;

use parking_lot::Mutex;

use super::*;

/// A store with so many places, whose content a test can see.
#[derive(Clone)]
struct Shelf(Arc<Mutex<(VecDeque<Load>, u64)>>, usize);

impl Shelf {
    fn new(places: usize) -> Shelf {
        Shelf(Arc::default(), places)
    }

    fn settled(&self) -> u64 {
        self.0.lock().1
    }
}

impl Overflow<Load> for Shelf {
    fn keep(&mut self, value: Load, producer: &str) -> Result<(), Load> {
        assert_eq!(producer, FIRST_PRODUCER);
        let mut shelf = self.0.lock();
        if shelf.0.len() < self.1 {
            shelf.0.push_back(value);
            return Ok(());
        }
        Err(value)
    }

    fn next(&mut self) -> Option<Load> {
        self.0.lock().0.pop_front()
    }

    fn settle(&mut self, count: u64) {
        self.0.lock().1 += count;
    }

    fn kept(&self) -> u64 {
        self.0.lock().0.len() as u64
    }
}

fn ids(values: &[Load]) -> Vec<u64> {
    values.iter().map(|load| load.id).collect()
}

#[test]
fn values_come_back_in_their_order_and_memory_is_used_again_when_it_is_empty() {
    let shelf = Shelf::new(100);
    let (sender, mut receiver) = bounded(limits(4, 1_000), WhenFull::Overflow(Box::new(shelf.clone())));
    let said: Vec<Sent> = (0..10).map(|id| sender.send(load(id, 10)).expect("open")).collect();
    assert_eq!(said, [[Sent::Queued; 4].as_slice(), &[Sent::Overflowed; 6]].concat());
    assert_eq!(receiver.recv(), Some(load(0, 10)));
    assert_eq!(sender.send(load(10, 10)).expect("open"), Sent::Overflowed, "room or not: the others came first");
    let mut out = Vec::new();
    assert_eq!(receiver.recv_all(&mut out), 3);
    assert_eq!(receiver.recv(), Some(load(4, 10)));
    assert_eq!(receiver.recv_all(&mut out), 6);
    assert_eq!(ids(&out), [1, 2, 3, 5, 6, 7, 8, 9, 10]);
    assert_eq!(shelf.settled(), 7);
    assert_eq!(sender.send(load(11, 10)).expect("open"), Sent::Queued);
    let stats = sender.stats();
    assert_eq!(stats.overflow.taken_total, tally(7, 70));
    assert_eq!((stats.overflow.kept_items, stats.overflow.returned_items_total), (0, 7));
    drop(sender);
    assert_eq!((receiver.recv(), receiver.recv()), (Some(load(11, 10)), None));
}

#[test]
fn what_the_overflow_does_not_take_is_dropped_and_counted_and_a_closed_queue_gives_all_back_first() {
    let (sender, mut receiver) = bounded(limits(2, 1_000), WhenFull::Overflow(Box::new(Shelf::new(3))));
    let said: Vec<Sent> = (0..9).map(|id| sender.send(load(id, 10)).expect("open")).collect();
    assert_eq!(said[2..], [[Sent::Overflowed; 3].as_slice(), &[Sent::Dropped; 4]].concat());
    assert_eq!(sender.stats().total().dropped_for(DropReason::Overflow), tally(4, 40));
    sender.close();
    assert_eq!(sender.send(load(9, 1)).expect_err("closed").refusal, Refusal::Closed);
    let all: Vec<Load> = std::iter::from_fn(|| receiver.recv()).collect();
    assert_eq!(ids(&all), [0, 1, 2, 3, 4]);
}

#[test]
fn what_an_earlier_process_left_comes_first() {
    let mut shelf = Shelf::new(100);
    assert!((0..3).all(|id| shelf.keep(load(id, 10), FIRST_PRODUCER).is_ok()));
    let (sender, mut receiver) = bounded(limits(2, 1_000), WhenFull::Overflow(Box::new(shelf)));
    assert_eq!(sender.send(load(3, 10)).expect("open"), Sent::Overflowed);
    drop(sender);
    let all: Vec<Load> = std::iter::from_fn(|| receiver.recv()).collect();
    assert_eq!(ids(&all), [0, 1, 2, 3]);
}

#[test]
fn an_overflow_that_loses_values_does_not_hold_up_the_queue() {
    let shelf = Shelf::new(100);
    let (sender, mut receiver) = bounded(limits(2, 1_000), WhenFull::Overflow(Box::new(shelf.clone())));
    (0..6).for_each(|id| assert!(sender.send(load(id, 10)).is_ok()));
    shelf.0.lock().0.clear();
    let mut out = Vec::new();
    receiver.recv_all(&mut out);
    assert_eq!(receiver.recv_timeout(Duration::ZERO), Err(RecvError::Timeout));
    assert_eq!(sender.stats().overflow.lost_items_total, 4);
    assert_eq!(sender.send(load(6, 10)).expect("open"), Sent::Queued);
}

#[test]
fn threads_overflow_beside_a_receiver_and_each_keeps_its_order() {
    let (sender, mut receiver) = bounded(limits(8, 1_000), WhenFull::Overflow(Box::new(Shelf::new(usize::MAX))));
    let threads: Vec<_> = (0..3_u64)
        .map(|who| {
            let sender = sender.clone();
            std::thread::spawn(move || (0..5_000).for_each(|n| assert!(sender.send(load(who * 5_000 + n, 1)).is_ok())))
        })
        .collect();
    drop(sender);
    let (mut next, mut count) = ([0; 3], 0);
    while let Some(value) = receiver.recv() {
        let who = (value.id / 5_000) as usize;
        assert_eq!(value.id % 5_000, next[who], "producer {who}");
        next[who] += 1;
        count += 1;
    }
    threads.into_iter().for_each(|thread| thread.join().expect("no panic"));
    assert_eq!(count, 15_000);
}

#[test]
fn a_store_that_panics_costs_one_counted_value_and_the_queue_ends_in_order() {
    struct Panics;
    impl Overflow<Load> for Panics {
        fn keep(&mut self, _: Load, _: &str) -> Result<(), Load> {
            panic!("the disk is on fire")
        }
        fn next(&mut self) -> Option<Load> {
            None
        }
        fn settle(&mut self, _: u64) {}
        fn kept(&self) -> u64 {
            0
        }
    }
    let (sender, mut receiver) = bounded(limits(1, 100), WhenFull::Overflow(Box::new(Panics)));
    assert_eq!(sender.send(load(0, 10)), Ok(Sent::Queued));
    let other = sender.clone();
    assert!(std::thread::spawn(move || other.send(load(1, 10))).join().is_err());
    let monitor = sender.monitor();
    drop(sender);
    assert_eq!((receiver.recv(), receiver.recv()), (Some(load(0, 10)), None));
    assert_eq!(monitor.stats().total().dropped_for(DropReason::Overflow), tally(1, 10));
}
