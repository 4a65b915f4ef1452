//! The same values where who finds no room sleeps until there is some, and the receiver until something comes: as threads, and as tasks of
//! tokio with two workers. What most programs do, and what no spin helps.

use std::future::Future;

use plimsoll::queue::{Limits, Sender, WhenFull, bounded};
use tokio::sync::mpsc;

use crate::rivals::{Kind, clones};
use crate::{Item, named};

pub(crate) const THREADS: [Kind; 7] = [
    ("plimsoll::queue", ours),
    ("tokio mpsc", tokio_blocking),
    ("crossbeam-channel", crossbeam),
    ("flume", flume_blocking),
    ("kanal", kanal_blocking),
    ("async-channel", async_channel_blocking),
    ("std sync_channel", std_blocking),
];

pub(crate) const TASKS: [Kind; 7] = [
    ("plimsoll::queue", ours_tasks),
    ("…, recv_all_async", ours_tasks_all),
    ("tokio mpsc", tokio_tasks),
    ("…, recv_many", tokio_tasks_many),
    ("flume", flume_tasks),
    ("kanal", kanal_tasks),
    ("async-channel", async_channel_tasks),
];

/// Long enough that nobody is ever late.
const PATIENCE: std::time::Duration = std::time::Duration::from_secs(3600);

fn ours_senders(
    producers: usize,
    capacity: usize,
    when_full: WhenFull<Item>,
) -> (Vec<Sender<Item>>, plimsoll::queue::Receiver<Item>) {
    let limits = Limits { max_items: capacity, max_bytes: 64 * capacity as u64 };
    let (first, receiver) = bounded(limits, when_full);
    (named(&first, producers), receiver)
}

fn on_threads<S: Send>(
    senders: Vec<S>,
    each: usize,
    send: impl Fn(&S, Item) + Sync,
    receive: impl FnOnce() -> u64,
) -> u64 {
    std::thread::scope(|scope| {
        for sender in senders {
            let send = &send;
            scope.spawn(move || (0..each).for_each(|n| send(&sender, Item::new(n))));
        }
        receive()
    })
}

fn ours(producers: usize, each: usize, capacity: usize) -> u64 {
    let (senders, mut receiver) = ours_senders(producers, capacity, WhenFull::WaitUntil(PATIENCE));
    let send = |sender: &Sender<Item>, item| assert!(sender.send(item).is_ok());
    on_threads(senders, each, send, || {
        let (mut all, mut sum) = (Vec::new(), 0);
        while receiver.recv_all(&mut all) > 0 {
            sum += all.drain(..).map(Item::seen).sum::<u64>();
        }
        sum
    })
}

fn tokio_blocking(producers: usize, each: usize, capacity: usize) -> u64 {
    let (sender, mut receiver) = mpsc::channel::<Item>(capacity);
    let send = |sender: &mpsc::Sender<Item>, item| assert!(sender.blocking_send(item).is_ok());
    on_threads(clones(sender, producers), each, send, || {
        std::iter::from_fn(|| receiver.blocking_recv()).map(Item::seen).sum()
    })
}

fn crossbeam(producers: usize, each: usize, capacity: usize) -> u64 {
    let (sender, receiver) = crossbeam_channel::bounded::<Item>(capacity);
    let send = |sender: &crossbeam_channel::Sender<Item>, item| assert!(sender.send(item).is_ok());
    on_threads(clones(sender, producers), each, send, || receiver.iter().map(Item::seen).sum())
}

fn flume_blocking(producers: usize, each: usize, capacity: usize) -> u64 {
    let (sender, receiver) = flume::bounded::<Item>(capacity);
    let send = |sender: &flume::Sender<Item>, item| assert!(sender.send(item).is_ok());
    on_threads(clones(sender, producers), each, send, || receiver.iter().map(Item::seen).sum())
}

fn kanal_blocking(producers: usize, each: usize, capacity: usize) -> u64 {
    let (sender, receiver) = kanal::bounded::<Item>(capacity);
    let send = |sender: &kanal::Sender<Item>, item| assert!(sender.send(item).is_ok());
    on_threads(clones(sender, producers), each, send, || {
        std::iter::from_fn(|| receiver.recv().ok()).map(Item::seen).sum()
    })
}

fn async_channel_blocking(producers: usize, each: usize, capacity: usize) -> u64 {
    let (sender, receiver) = async_channel::bounded::<Item>(capacity);
    let send = |sender: &async_channel::Sender<Item>, item| assert!(sender.send_blocking(item).is_ok());
    on_threads(clones(sender, producers), each, send, || {
        std::iter::from_fn(|| receiver.recv_blocking().ok()).map(Item::seen).sum()
    })
}

fn std_blocking(producers: usize, each: usize, capacity: usize) -> u64 {
    let (sender, receiver) = std::sync::mpsc::sync_channel::<Item>(capacity);
    let send = |sender: &std::sync::mpsc::SyncSender<Item>, item| assert!(sender.send(item).is_ok());
    on_threads(clones(sender, producers), each, send, || receiver.iter().map(Item::seen).sum())
}

/// Everybody a task: the producers, each with a sender of its own, and the receiver.
fn on_tasks<S: Send + 'static, P: Future<Output = ()> + Send + 'static>(
    senders: Vec<S>,
    produce: impl Fn(S) -> P,
    receive: impl Future<Output = u64> + Send + 'static,
) -> u64 {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).build().expect("a runtime");
    for sender in senders {
        runtime.spawn(produce(sender));
    }
    runtime.block_on(runtime.spawn(receive)).expect("the receiver ends")
}

async fn produce_ours(sender: Sender<Item>, each: usize) {
    for n in 0..each {
        assert!(sender.send_async(Item::new(n)).await.is_ok());
    }
}

fn ours_tasks(producers: usize, each: usize, capacity: usize) -> u64 {
    let (senders, mut receiver) = ours_senders(producers, capacity, WhenFull::Reject);
    on_tasks(senders, |sender| produce_ours(sender, each), async move {
        let mut sum = 0;
        while let Some(item) = receiver.recv_async().await {
            sum += item.seen();
        }
        sum
    })
}

fn ours_tasks_all(producers: usize, each: usize, capacity: usize) -> u64 {
    let (senders, mut receiver) = ours_senders(producers, capacity, WhenFull::Reject);
    on_tasks(senders, |sender| produce_ours(sender, each), async move {
        let (mut all, mut sum) = (Vec::new(), 0);
        while receiver.recv_all_async(&mut all).await > 0 {
            sum += all.drain(..).map(Item::seen).sum::<u64>();
        }
        sum
    })
}

async fn produce_tokio(sender: mpsc::Sender<Item>, each: usize) {
    for n in 0..each {
        assert!(sender.send(Item::new(n)).await.is_ok());
    }
}

fn tokio_tasks(producers: usize, each: usize, capacity: usize) -> u64 {
    let (sender, mut receiver) = mpsc::channel::<Item>(capacity);
    on_tasks(clones(sender, producers), |sender| produce_tokio(sender, each), async move {
        let mut sum = 0;
        while let Some(item) = receiver.recv().await {
            sum += item.seen();
        }
        sum
    })
}

fn tokio_tasks_many(producers: usize, each: usize, capacity: usize) -> u64 {
    let (sender, mut receiver) = mpsc::channel::<Item>(capacity);
    on_tasks(clones(sender, producers), |sender| produce_tokio(sender, each), async move {
        let (mut all, mut sum) = (Vec::new(), 0);
        while receiver.recv_many(&mut all, capacity).await > 0 {
            sum += all.drain(..).map(Item::seen).sum::<u64>();
        }
        sum
    })
}

/// A run of tasks of a channel whose ends are called so.
macro_rules! one_by_one {
    ($name:ident, $channel:path, $sender:path, $send:ident, $recv:ident) => {
        fn $name(producers: usize, each: usize, capacity: usize) -> u64 {
            let (sender, receiver) = $channel(capacity);
            let produce = |sender: $sender| async move {
                for n in 0..each {
                    assert!(sender.$send(Item::new(n)).await.is_ok());
                }
            };
            on_tasks(clones(sender, producers), produce, async move {
                let mut sum = 0;
                while let Ok(item) = receiver.$recv().await {
                    sum += item.seen();
                }
                sum
            })
        }
    };
}
one_by_one!(flume_tasks, flume::bounded, flume::Sender<Item>, send_async, recv_async);
one_by_one!(kanal_tasks, kanal::bounded_async, kanal::AsyncSender<Item>, send, recv);
one_by_one!(async_channel_tasks, async_channel::bounded, async_channel::Sender<Item>, send, recv);
