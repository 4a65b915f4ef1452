//! Threads that meet in the queue.

use std::collections::BTreeMap;
use std::thread;

use super::*;

#[test]
fn many_threads_lose_nothing_that_is_not_counted_and_keep_their_order() {
    const EACH: u64 = 20_000;
    for when_full in [WhenFull::DropNewest, WhenFull::DropOldest, WhenFull::Reject] {
        let (sender, mut receiver) = bounded(limits(64, 1000), when_full);
        let threads: Vec<_> = (0..4u64)
            .map(|who| {
                let sender = sender.named(&who.to_string());
                thread::spawn(move || {
                    (0..EACH).filter(|n| sender.send(load(who * EACH + n, n % 50)).is_err()).count() as u64
                })
            })
            .collect();
        drop(sender);
        let (mut got, mut batch) = (Vec::new(), Vec::new());
        while receiver.recv_all(&mut batch) > 0 {
            assert!(batch.len() <= 64 && batch.iter().map(|load| load.bytes).sum::<u64>() <= 1000);
            got.append(&mut batch);
            got.extend(receiver.recv());
        }
        let refused: u64 = threads.into_iter().map(|thread| thread.join().expect("no panic")).sum();
        let (stats, mut newest) = (receiver.stats(), BTreeMap::new());
        for load in &got {
            let before = newest.insert(load.id / EACH, load.id);
            assert!(before.is_none_or(|before| before < load.id), "first in, first out per producer");
        }
        let total = stats.total();
        assert_eq!(total.delivered.items, got.len() as u64);
        assert_eq!(total.accepted.items, total.delivered.items + total.dropped_for(DropReason::Displaced).items);
        let not_taken = total.dropped_for(DropReason::Full).items + total.refused_for(Refusal::Full).items;
        assert_eq!(total.accepted.items + not_taken, 4 * EACH);
        assert_eq!(refused, total.refused_for(Refusal::Full).items);
        assert!(stats.peak_items <= 64 && stats.peak_bytes <= 1000);
    }
}
