//! Waiting for room and for values, as threads and as tasks, with every future dropped at every one of its waits.

use std::future::Future;
use std::pin::pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, Wake, Waker};
use std::thread;

use super::*;

/// A waker that counts.
#[derive(Default)]
struct Count(AtomicUsize);

impl Wake for Count {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

impl Count {
    fn woken(&self) -> usize {
        self.0.load(Ordering::SeqCst)
    }
}

fn poll<F: Future + Unpin>(future: &mut F, waker: &Waker) -> Poll<F::Output> {
    std::pin::Pin::new(future).poll(&mut Context::from_waker(waker))
}

fn sleepers(sender: &Sender<Load>) -> usize {
    sender.monitor().0.lock().wait.sleeping_senders()
}

type Waiting = thread::JoinHandle<Result<Sent, SendError<Load>>>;

/// A queue of one place, which 0 has; 1 sleeps in its thread until there is room.
fn full_with_one_that_waits() -> (Sender<Load>, Receiver<Load>, Waiting) {
    let (sender, receiver) = bounded(limits(1, 99), WhenFull::WaitUntil(PATIENCE));
    sender.send(load(0, 1)).expect("room");
    let waiting = thread::spawn({
        let sender = sender.clone();
        move || sender.send(load(1, 1))
    });
    while sleepers(&sender) == 0 {
        thread::yield_now();
    }
    (sender, receiver, waiting)
}

#[test]
fn who_does_not_wait_is_refused_while_another_does_and_nothing_is_a_drop() {
    let (sender, mut receiver, waiting) = full_with_one_that_waits();
    assert_eq!(sender.try_send(load(2, 3)).map_err(|error| error.refusal), Err(Refusal::Full));
    let total = sender.stats().total();
    assert_eq!(total.refused_for(Refusal::Full), tally(1, 3));
    assert_eq!(total.dropped_for(DropReason::Full), tally(0, 0));
    assert_eq!(receiver.recv(), Some(load(0, 1)));
    assert_eq!(waiting.join().expect("no panic").ok(), Some(Sent::Queued));
    assert_eq!(receiver.recv(), Some(load(1, 1)));
}

#[test]
fn many_that_wait_in_a_small_queue_lose_nothing_and_keep_their_order() {
    let (first, mut receiver) = bounded(limits(8, 1_000), WhenFull::WaitUntil(PATIENCE));
    let senders: Vec<_> = (0..4).map(|n| first.named(&n.to_string())).collect();
    drop(first);
    let threads: Vec<_> = (0..4)
        .zip(senders)
        .map(|(n, sender)| thread::spawn(move || (0..500).all(|id| sender.send(load(n * 1_000 + id, 1)).is_ok())))
        .collect();
    let mut next = [0, 1_000, 2_000, 3_000];
    while let Some(Load { id, .. }) = receiver.recv() {
        let next = &mut next[(id / 1_000) as usize];
        assert_eq!(id, *next, "each in its order");
        *next += 1;
    }
    assert!(threads.into_iter().all(|thread| thread.join().expect("no panic")));
    assert_eq!(next, [500, 1_500, 2_500, 3_500]);
}

#[test]
fn a_thread_waits_for_room_and_is_woken_by_whatever_leaves_or_ends() {
    type Free = fn(&mut Receiver<Load>);
    let ways: [(&str, Free, bool); 3] = [
        ("one", |receiver| assert!(receiver.recv().is_some()), true),
        ("all", |receiver| assert!(receiver.recv_all(&mut Vec::new()) > 0), true),
        ("closed", |receiver| receiver.close(), false),
    ];
    for (name, free, gets_in) in ways {
        let (sender, mut receiver, waiting) = full_with_one_that_waits();
        free(&mut receiver);
        let said = waiting.join().expect("no panic").map_err(|error| (error.refusal, error.value));
        assert_eq!(said, if gets_in { Ok(Sent::Queued) } else { Err((Refusal::Closed, load(1, 1))) }, "{name}");
        assert_eq!(sleepers(&sender), 0, "{name}");
    }
}

#[test]
fn patience_ends_and_the_value_comes_back() {
    let (sender, receiver) = bounded(limits(1, 99), WhenFull::WaitUntil(Duration::from_millis(5)));
    sender.send(load(0, 1)).expect("room");
    let error = sender.send(load(1, 7)).expect_err("full");
    assert_eq!((error.refusal, error.value), (Refusal::Late, load(1, 7)));
    assert_eq!(sender.try_send(load(2, 1)).expect_err("full").refusal, Refusal::Full, "no patience at all");
    assert_eq!(sender.send(load(3, 100)).expect_err("never fits").refusal, Refusal::TooLarge);
    let total = receiver.stats().total();
    assert_eq!((total.refused_for(Refusal::Late), total.refused_for(Refusal::Full)), (tally(1, 7), tally(1, 1)));
}

#[test]
fn a_task_waits_for_a_value_and_is_woken_once_by_what_it_waits_for() {
    let (sender, mut receiver) = bounded(limits(9, 99), WhenFull::Reject);
    let (count, waker) = counted();
    {
        let mut receiving = pin!(receiver.recv_async());
        assert!(receiving.as_mut().poll(&mut Context::from_waker(&waker)).is_pending());
        assert_eq!(count.woken(), 0);
        sender.send(load(1, 1)).expect("room");
        sender.send(load(2, 1)).expect("room");
        assert_eq!(count.woken(), 1, "once");
        // Dropped while a value is there for it: that stays.
    }
    let mut out = Vec::new();
    {
        let mut receiving = pin!(receiver.recv_all_async(&mut out));
        assert_eq!(receiving.as_mut().poll(&mut Context::from_waker(&waker)), Poll::Ready(2));
    }
    {
        let mut receiving = pin!(receiver.recv_all_async(&mut out));
        assert!(receiving.as_mut().poll(&mut Context::from_waker(&waker)).is_pending());
        drop(sender);
        assert_eq!(count.woken(), 2, "nothing can come any more");
        assert_eq!(receiving.as_mut().poll(&mut Context::from_waker(&waker)), Poll::Ready(0));
    }
    assert_eq!(receiver.recv_timeout(PATIENCE), Err(RecvError::Closed));
}

fn counted() -> (Arc<Count>, Waker) {
    let count = Arc::new(Count::default());
    (Arc::clone(&count), Waker::from(count))
}

#[test]
fn a_task_waits_for_room_and_a_dropped_one_leaves_nothing_behind() {
    let (sender, mut receiver) = bounded(limits(1, 99), WhenFull::Reject);
    let (count, waker) = counted();
    // Dropped before its first poll, and after one: never sent, counted.
    drop(sender.send_async(load(7, 7)));
    sender.send(load(0, 1)).expect("room");
    let mut dropped = sender.send_async(load(8, 8));
    assert!(poll(&mut dropped, &waker).is_pending());
    assert_eq!(sleepers(&sender), 1);
    drop(dropped);
    assert_eq!((sleepers(&sender), count.woken()), (0, 0));
    assert_eq!(sender.stats().total().dropped_for(DropReason::Cancelled), tally(2, 15));
    // Given up: the value is back.
    let mut given_up = sender.send_async(load(9, 9));
    assert!(poll(&mut given_up, &waker).is_pending());
    assert_eq!((given_up.give_up(), given_up.give_up()), (Some(load(9, 9)), None));
    drop(given_up);
    assert_eq!(sender.stats().total().refused_for(Refusal::Late), tally(1, 9));
    // Woken, then dropped without being polled again: the other one was woken as well.
    let (mut first, mut second) = (sender.send_async(load(1, 1)), sender.send_async(load(2, 1)));
    assert!(poll(&mut first, &waker).is_pending() && poll(&mut second, &waker).is_pending());
    assert!(poll(&mut second, &waker).is_pending(), "polled again: still one waker");
    assert_eq!(sleepers(&sender), 2);
    assert_eq!(receiver.recv(), Some(load(0, 1)));
    assert_eq!((count.woken(), sleepers(&sender)), (2, 0));
    drop(first);
    assert!(matches!(poll(&mut second, &waker), Poll::Ready(Ok(Sent::Queued))));
    drop(second);
    assert_eq!(receiver.recv(), Some(load(2, 1)));
    // The end wakes and gives back.
    sender.send(load(3, 1)).expect("room");
    let mut late = sender.send_async(load(4, 1));
    assert!(poll(&mut late, &waker).is_pending());
    drop(receiver);
    assert_eq!(count.woken(), 3);
    let Poll::Ready(Err(error)) = poll(&mut late, &waker) else { panic!("closed") };
    assert_eq!((error.refusal, error.value), (Refusal::Closed, load(4, 1)));
}

#[test]
fn a_task_on_a_queue_with_patience_is_late_when_it_is_polled_after_it() {
    let (sender, _receiver, clock) = on_clock(limits(1, 99), WhenFull::WaitUntil(Duration::from_secs(5)));
    sender.send(load(0, 1)).expect("room");
    let mut sending = sender.send_async(load(1, 1));
    assert!(poll(&mut sending, Waker::noop()).is_pending());
    clock.advance(Duration::from_secs(5));
    let Poll::Ready(Err(error)) = poll(&mut sending, Waker::noop()) else { panic!("late") };
    assert_eq!((error.refusal, error.value), (Refusal::Late, load(1, 1)));
}

#[test]
fn a_sender_that_leaves_wakes_those_whose_share_has_grown() {
    let (sender, _receiver) = bounded(limits(4, 99), WhenFull::Reject);
    let other = sender.named("other");
    let (count, waker) = counted();
    (0..3).for_each(|id| assert!(sender.send(load(id, 1)).is_ok()));
    let mut fourth = sender.send_async(load(3, 1));
    assert!(poll(&mut fourth, &waker).is_pending(), "the other one's share");
    drop(other);
    assert_eq!(count.woken(), 1);
    assert!(matches!(poll(&mut fourth, &waker), Poll::Ready(Ok(Sent::Queued))));
}

#[test]
fn tasks_and_threads_meet_and_nothing_is_lost() {
    const EACH: u64 = 5_000;
    let (sender, mut receiver) = bounded(limits(16, 1_000), WhenFull::Reject);
    let threads: Vec<_> = (0..4_u64)
        .map(|who| {
            let sender = sender.named(&who.to_string());
            thread::spawn(move || {
                for n in 0..EACH {
                    let value = load(who * EACH + n, n % 10);
                    if who % 2 == 0 {
                        sender.send_timeout(value, PATIENCE).expect("room in time");
                    } else {
                        block_on(sender.send_async(value)).expect("room");
                    }
                }
            })
        })
        .collect();
    drop(sender);
    let (mut got, mut all) = (0, Vec::new());
    while let Some(_value) = block_on(receiver.recv_async()) {
        got += 1 + block_on_all(&mut receiver, &mut all);
    }
    threads.into_iter().for_each(|thread| thread.join().expect("no panic"));
    assert_eq!(got, 4 * EACH);
    assert_eq!(receiver.stats().total().delivered.items, 4 * EACH);
}

fn block_on_all(receiver: &mut Receiver<Load>, all: &mut Vec<Load>) -> u64 {
    all.clear();
    receiver.recv_all_timeout(all, Duration::ZERO).unwrap_or(0) as u64
}

/// The smallest runtime there is.
fn block_on<F: Future>(future: F) -> F::Output {
    struct Unpark(thread::Thread);
    impl Wake for Unpark {
        fn wake(self: Arc<Self>) {
            self.0.unpark();
        }
    }
    let (waker, mut future) = (Waker::from(Arc::new(Unpark(thread::current()))), pin!(future));
    loop {
        match future.as_mut().poll(&mut Context::from_waker(&waker)) {
            Poll::Ready(done) => return done,
            Poll::Pending => thread::park_timeout(PATIENCE),
        }
    }
}
