//! The other queues, each in the way that suits it best, with the same contract: bounded, try again when full, one receiver.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::{Item, persist};

/// A name, and a run: producers, values of each, capacity; answers the sum of what came.
pub(crate) type Kind = (&'static str, fn(usize, usize, usize) -> u64);

pub(crate) const KINDS: [Kind; 10] = [
    ("tokio mpsc, recv", tokio_recv),
    ("tokio mpsc, recv_many", tokio_recv_many),
    ("crossbeam-channel", crossbeam),
    ("crossbeam ArrayQueue", array_queue),
    ("flume", flume_recv),
    ("flume, drain", flume_drain),
    ("kanal", kanal_recv),
    ("async-channel", async_channel_recv),
    ("std sync_channel", std_recv),
    ("Mutex<Vec>, swapped", swapped),
];

/// Runs the producers, each with a sender of its own, and the receiver on this thread.
fn run<S: Send>(
    senders: Vec<S>,
    each: usize,
    try_send: impl Fn(&S, Item) -> bool + Sync,
    receive: impl FnOnce() -> u64,
) -> u64 {
    std::thread::scope(|scope| {
        for sender in senders {
            let try_send = &try_send;
            scope.spawn(move || (0..each).for_each(|n| persist(|| try_send(&sender, Item::new(n)))));
        }
        receive()
    })
}

pub(crate) fn clones<S: Clone>(sender: S, producers: usize) -> Vec<S> {
    let mut all: Vec<S> = (1..producers).map(|_| sender.clone()).collect();
    all.push(sender);
    all
}

fn tokio_recv(producers: usize, each: usize, capacity: usize) -> u64 {
    let (sender, mut receiver) = tokio::sync::mpsc::channel::<Item>(capacity);
    let try_send = |sender: &tokio::sync::mpsc::Sender<Item>, item| sender.try_send(item).is_ok();
    run(clones(sender, producers), each, try_send, || {
        std::iter::from_fn(|| receiver.blocking_recv()).map(Item::seen).sum()
    })
}

fn tokio_recv_many(producers: usize, each: usize, capacity: usize) -> u64 {
    let (sender, mut receiver) = tokio::sync::mpsc::channel::<Item>(capacity);
    let try_send = |sender: &tokio::sync::mpsc::Sender<Item>, item| sender.try_send(item).is_ok();
    run(clones(sender, producers), each, try_send, || {
        let (mut all, mut sum) = (Vec::new(), 0);
        while receiver.blocking_recv_many(&mut all, capacity) > 0 {
            sum += all.drain(..).map(Item::seen).sum::<u64>();
        }
        sum
    })
}

fn crossbeam(producers: usize, each: usize, capacity: usize) -> u64 {
    let (sender, receiver) = crossbeam_channel::bounded::<Item>(capacity);
    let try_send = |sender: &crossbeam_channel::Sender<Item>, item| sender.try_send(item).is_ok();
    run(clones(sender, producers), each, try_send, || receiver.iter().map(Item::seen).sum())
}

/// It knows no end: the receiver counts the producers that are still there.
fn array_queue(producers: usize, each: usize, capacity: usize) -> u64 {
    struct Producer(Arc<crossbeam_queue::ArrayQueue<Item>>, Arc<AtomicUsize>);
    impl Drop for Producer {
        fn drop(&mut self) {
            self.1.fetch_sub(1, Ordering::Release);
        }
    }
    let (queue, alive) = (Arc::new(crossbeam_queue::ArrayQueue::new(capacity)), Arc::new(AtomicUsize::new(producers)));
    let senders = (0..producers).map(|_| Producer(Arc::clone(&queue), Arc::clone(&alive))).collect();
    run(
        senders,
        each,
        |producer: &Producer, item| producer.0.push(item).is_ok(),
        || {
            let (mut sum, mut done) = (0, false);
            persist(|| {
                let ended = alive.load(Ordering::Acquire) == 0;
                while let Some(item) = queue.pop() {
                    sum += item.seen();
                }
                done = ended;
                done
            });
            sum
        },
    )
}

fn flume_recv(producers: usize, each: usize, capacity: usize) -> u64 {
    let (sender, receiver) = flume::bounded::<Item>(capacity);
    let try_send = |sender: &flume::Sender<Item>, item| sender.try_send(item).is_ok();
    run(clones(sender, producers), each, try_send, || receiver.iter().map(Item::seen).sum())
}

fn flume_drain(producers: usize, each: usize, capacity: usize) -> u64 {
    let (sender, receiver) = flume::bounded::<Item>(capacity);
    let try_send = |sender: &flume::Sender<Item>, item| sender.try_send(item).is_ok();
    run(clones(sender, producers), each, try_send, || {
        let mut sum = 0;
        while let Ok(first) = receiver.recv() {
            sum += first.seen() + receiver.drain().map(Item::seen).sum::<u64>();
        }
        sum
    })
}

fn kanal_recv(producers: usize, each: usize, capacity: usize) -> u64 {
    let (sender, receiver) = kanal::bounded::<Item>(capacity);
    let try_send = |sender: &kanal::Sender<Item>, item| sender.try_send(item) == Ok(true);
    run(clones(sender, producers), each, try_send, || std::iter::from_fn(|| receiver.recv().ok()).map(Item::seen).sum())
}

fn async_channel_recv(producers: usize, each: usize, capacity: usize) -> u64 {
    let (sender, receiver) = async_channel::bounded::<Item>(capacity);
    let try_send = |sender: &async_channel::Sender<Item>, item| sender.try_send(item).is_ok();
    run(clones(sender, producers), each, try_send, || {
        std::iter::from_fn(|| receiver.recv_blocking().ok()).map(Item::seen).sum()
    })
}

fn std_recv(producers: usize, each: usize, capacity: usize) -> u64 {
    let (sender, receiver) = std::sync::mpsc::sync_channel::<Item>(capacity);
    let try_send = |sender: &std::sync::mpsc::SyncSender<Item>, item| sender.try_send(item).is_ok();
    run(clones(sender, producers), each, try_send, || receiver.iter().map(Item::seen).sum())
}

/// What ours is without its accounts: a vector behind a lock, which the receiver swaps for an empty one.
fn swapped(producers: usize, each: usize, capacity: usize) -> u64 {
    struct Producer(Arc<parking_lot::Mutex<Vec<Item>>>, Arc<AtomicUsize>);
    impl Drop for Producer {
        fn drop(&mut self) {
            self.1.fetch_sub(1, Ordering::Release);
        }
    }
    let (queue, alive) = (Arc::new(parking_lot::Mutex::new(Vec::new())), Arc::new(AtomicUsize::new(producers)));
    let senders = (0..producers).map(|_| Producer(Arc::clone(&queue), Arc::clone(&alive))).collect();
    let try_send = |producer: &Producer, item| {
        let mut queue = producer.0.lock();
        let room = queue.len() < capacity;
        if room {
            queue.push(item);
        }
        room
    };
    run(senders, each, try_send, || {
        let (mut all, mut sum) = (Vec::new(), 0);
        persist(|| {
            let ended = alive.load(Ordering::Acquire) == 0;
            std::mem::swap(&mut all, &mut queue.lock());
            let some = !all.is_empty();
            sum += all.drain(..).map(Item::seen).sum::<u64>();
            ended && !some
        });
        sum
    })
}
