//! Loom models of the ways on which a wake-up could be lost. The core is pure and behind one lock, so what they try is every order of
//! locking and waking: `RUSTFLAGS="--cfg loom" cargo test -p plimsoll --release --lib broadcast::models`.

use loom::future::block_on;
use loom::thread;

use super::*;

fn bounds(behind_bytes: u64) -> Bounds {
    Bounds { behind_bytes, subscribe_per_second: 0, ..Bounds::default() }
}

/// Weighs 1,000 bytes in all.
fn message(n: u8) -> Vec<u8> {
    vec![n; 1_000 - ring::overhead::<Vec<u8>>() as usize]
}

/// Two messages beside a reader that may look before, between and after them: it gets both, in order, then the end.
#[test]
fn a_reader_sleeps_through_nothing() {
    loom::model(|| {
        let live = Broadcast::new(bounds(10_000));
        let mut reader = live.subscribe().expect("the first");
        let publisher = thread::spawn(move || {
            for n in 0..2 {
                assert_eq!(live.publish(message(n)).expect("room"), 1);
            }
        });
        let mut seen = Vec::new();
        while let Ok(batch) = block_on(reader.next()) {
            seen.extend(batch.iter().map(|message| message[0]));
        }
        assert_eq!(seen, [0, 1]);
        publisher.join().expect("no panic");
    });
}

/// One that waits only for its removal is told, whichever comes first; the one beside it loses nothing.
#[test]
fn a_stalled_subscriber_is_told_and_the_other_reads_on() {
    loom::model(|| {
        let live = Broadcast::new(bounds(1_999));
        let (stalled, mut reader) = (live.subscribe().expect("one"), live.subscribe().expect("two"));
        let removal = stalled.removal();
        let waiter = thread::spawn(move || block_on(removal));
        assert_eq!(live.publish(message(0)).expect("room"), 2);
        assert_eq!(block_on(reader.next()).map(|batch| batch.len()), Ok(1));
        // Reading is confirmed by asking again.
        assert!(matches!(reader.try_next(), Ok(None)));
        assert_eq!(live.publish(message(1)).expect("room"), 1);
        assert_eq!(waiter.join().expect("no panic").map(|removed| removed.reason), Some(Reason::Behind));
        assert_eq!(block_on(reader.next()).map(|batch| batch.iter().map(|m| m[0]).sum::<u8>()), Ok(1));
        drop(stalled);
    });
}

/// Publishing beside a subscriber that leaves and one that comes to its place: nobody waits for ever.
#[test]
fn a_place_that_changes_hands_is_woken_for_its_new_holder() {
    loom::model(|| {
        let live = Broadcast::new(bounds(10_000));
        let mut first = live.subscribe().expect("one");
        let publisher = {
            let live = live.clone();
            thread::spawn(move || live.publish(message(7)).is_ok())
        };
        // Waits, unless the message is there, and goes.
        let waker = Waker::noop();
        let polled = std::pin::pin!(first.next()).as_mut().poll(&mut std::task::Context::from_waker(waker)).is_ready();
        drop(first);
        let mut second = live.subscribe().expect("its place");
        let ender = thread::spawn(move || live.close());
        let got = block_on(second.next()).map(|batch| batch.len());
        assert!(got == Ok(1) || got == Err(Ended::Closed), "{got:?}");
        assert!(!polled || got == Err(Ended::Closed), "what came before it was never its");
        publisher.join().expect("no panic");
        ender.join().expect("no panic");
    });
}
