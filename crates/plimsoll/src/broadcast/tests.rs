//! Each line of the contract as a table or a short story, and a naive model beside the broadcast.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, Wake};

use proptest::prelude::*;

use super::*;
use crate::clock::ManualClock;
use crate::reclaim::ledger::Ledger;

const OVERHEAD: u64 = ring::overhead::<Vec<u8>>();

/// A message that weighs so many bytes in all.
fn heavy(n: u8, bytes: u64) -> Vec<u8> {
    vec![n; (bytes - OVERHEAD) as usize]
}

fn bounds(behind_bytes: u64) -> Bounds {
    Bounds { behind_bytes, subscribe_per_second: 0, ..Bounds::default() }
}

fn publish(live: &Broadcast<Vec<u8>>, messages: impl IntoIterator<Item = u8>) {
    for n in messages {
        live.publish(heavy(n, 1_000)).expect("room");
    }
}

/// The first byte of every message there is now.
fn read(subscriber: &mut Subscriber<Vec<u8>>) -> Result<Vec<u8>, Ended> {
    let mut all = Vec::new();
    while let Some(batch) = subscriber.try_next()? {
        all.extend(batch.iter().map(|message| message[0]));
    }
    Ok(all)
}

#[derive(Default)]
struct Woken(AtomicUsize);

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

/// Polls once; how often it was woken can be asked afterwards.
fn poll<F: Future>(future: F, woken: &Arc<Woken>) -> Poll<F::Output> {
    std::pin::pin!(future).as_mut().poll(&mut Context::from_waker(&Waker::from(Arc::clone(woken))))
}

#[test]
fn everybody_gets_everything_in_order_from_when_he_came() {
    let live = Broadcast::new(bounds(1 << 20));
    publish(&live, [1]);
    let mut first = live.subscribe().unwrap();
    publish(&live, 0..200);
    let mut second = live.subscribe().unwrap();
    publish(&live, 200..=255);
    assert_eq!(read(&mut first).unwrap(), (0..=255).collect::<Vec<u8>>());
    assert_eq!(read(&mut second).unwrap(), (200..=255).collect::<Vec<u8>>());
    drop(live);
    assert_eq!((read(&mut first), read(&mut second)), (Err(Ended::Closed), Err(Ended::Closed)));
    assert_eq!((first.stats().delivered_total, first.stats().published.items), (256 + 56, 257));
}

#[test]
fn the_message_that_passes_the_bound_removes_and_not_the_one_before() {
    for bound in [1_000, 3_000, 3_999, 100_000] {
        let live = Broadcast::new(bounds(bound));
        let (mut stalled, mut quick) = (live.subscribe().unwrap(), live.subscribe().unwrap());
        let (told, fits) = (Arc::<Woken>::default(), bound / 1_000);
        let mut removal = stalled.removal();
        for n in 1..=fits {
            assert_eq!(live.publish(heavy(n as u8, 1_000)).unwrap(), 2, "bound {bound}, message {n}");
            assert_eq!(read(&mut quick).unwrap(), [n as u8]);
        }
        assert!(poll(&mut removal, &told).is_pending());
        assert_eq!(live.publish(heavy(0, 1_000)).unwrap(), 1, "bound {bound}: gone within one message");
        assert_eq!(told.0.load(Ordering::SeqCst), 1, "and told");
        let removed = Removed { reason: Reason::Behind, behind_bytes: (fits + 1) * 1_000 };
        assert_eq!(poll(&mut removal, &told), Poll::Ready(Some(removed)));
        assert_eq!(read(&mut stalled), Err(Ended::Removed(removed)));
        assert_eq!(Ended::Removed(removed).close_code(), 1013);
        assert_eq!(read(&mut quick).unwrap(), [0]);
        let stats = live.stats();
        assert_eq!((stats.removed, stats.subscribers, stats.lingering), ([1, 0, 0], 1, 1));
        drop(stalled);
        assert_eq!(live.stats().lingering, 0);
    }
}

#[test]
fn what_is_in_a_readers_hands_is_not_read_yet() {
    let live = Broadcast::new(bounds(16_000));
    let mut slow = live.subscribe().unwrap();
    publish(&live, 0..2);
    let batch = slow.try_next().unwrap().expect("two");
    assert_eq!(batch.len(), 2);
    publish(&live, 2..16);
    assert_eq!(live.stats().removed_total(), 0);
    publish(&live, 16..17);
    assert_eq!(live.stats().removed, [1, 0, 0], "it still writes the first two, and fifteen more have come");
    assert_eq!(batch.iter().map(|message| message[0]).collect::<Vec<_>>(), [0, 1], "its memory is its own");
    drop(batch);
    assert!(slow.try_next().is_err());
}

#[test]
fn a_soft_bound_may_be_passed_for_a_time_without_a_break() {
    let clock = Arc::new(ManualClock::default());
    let soft = Some(Soft { bytes: 2_000, time: Duration::from_secs(10) });
    let live = Broadcast::with_clock(Bounds { soft, ..bounds(100_000) }, clock.clone());
    let (mut stalled, mut late) = (live.subscribe().unwrap(), live.subscribe().unwrap());
    publish(&live, 0..3);
    clock.advance(Duration::from_secs(9));
    publish(&live, 3..4);
    assert_eq!(live.stats().removed_total(), 0);
    // One catches up, and falls behind again: its time starts afresh.
    assert_eq!(read(&mut late).unwrap(), [0, 1, 2, 3]);
    publish(&live, 4..7);
    clock.advance(Duration::from_millis(1_000));
    publish(&live, 7..8);
    assert_eq!((live.stats().removed, live.stats().subscribers), ([0, 1, 0], 1));
    assert!(matches!(stalled.try_next(), Err(Ended::Removed(removed)) if removed.reason == Reason::BehindTooLong));
    clock.advance(Duration::from_millis(8_999));
    live.look();
    assert_eq!(live.stats().subscribers, 1);
    clock.advance(Duration::from_millis(1));
    live.look();
    assert_eq!((live.stats().removed, live.stats().subscribers), ([0, 2, 0], 0), "without a message too");
}

#[test]
fn a_full_sum_removes_the_furthest_behind_and_then_refuses() {
    let live = Broadcast::new(Bounds { total_bytes: 20_000, ..bounds(8_000) });
    let (mut holder, mut quick) = (live.subscribe().unwrap(), live.subscribe().unwrap());
    // Blocks weigh an eighth of the bound: one message each.
    publish(&live, 0..8);
    let held = holder.try_next().unwrap().expect("a block");
    assert_eq!(live.stats().alive_bytes, 8_000);
    assert_eq!(read(&mut quick).unwrap().len(), 8);
    publish(&live, 8..9);
    assert_eq!(live.stats().removed, [1, 0, 0]);
    assert_eq!(live.stats().alive_bytes, 1_000 + 1_000, "the newest, and what is in the removed one's hands");
    drop(held);
    assert_eq!(live.stats().alive_bytes, 1_000);

    let ledger = Ledger::with_cap(5_500);
    let live = Broadcast::charged_to(bounds(1 << 20), ledger.account("live").unwrap());
    let (mut quick, stalled) = (live.subscribe().unwrap(), live.subscribe().unwrap());
    for n in 0..64 {
        live.publish(heavy(n, 1_000)).unwrap();
        assert_eq!(read(&mut quick).unwrap(), [n], "who reads loses nothing");
    }
    assert_eq!((live.stats().removed, live.stats().subscribers), ([0, 0, 1], 1));
    assert_eq!(ledger.held_bytes(), live.stats().alive_bytes);
    assert!(quick.try_next().unwrap().is_none());
    drop((stalled, quick));
    assert_eq!((live.stats().ring_bytes, ledger.held_bytes()), (0, 0), "nobody is left to read it");
}

#[test]
fn nobody_is_removed_in_vain_for_what_stuck_writes_hold() {
    let live = Broadcast::new(Bounds { total_bytes: 20_000, ..bounds(8_000) });
    let mut sockets: Vec<_> = (0..20).map(|_| live.subscribe().unwrap()).collect();
    let mut healthy: Vec<_> = (0..5).map(|_| live.subscribe().unwrap()).collect();
    // With every message another one gets stuck in its write.
    let (mut held, mut well) = (Vec::new(), &mut sockets[..]);
    for n in 0..20 {
        publish(&live, [n]);
        let (stuck, rest) = well.split_first_mut().expect("twenty");
        held.push(stuck.try_next().unwrap().expect("the message"));
        rest.iter_mut().chain(&mut healthy[n as usize / 19..]).for_each(|one| assert_eq!(read(one).unwrap(), [n]));
        well = rest;
    }
    // One of the healthy has not read the newest yet. The stuck that are not told yet are, one block a refusal.
    assert_eq!((live.stats().removed, live.stats().alive_bytes), ([12, 0, 0], 20_000));
    for told in 1..8 {
        assert_eq!(live.publish(heavy(20, 1_000)).unwrap_err().refusal, Refusal::Full);
        assert_eq!((live.stats().removed, live.stats().subscribers), ([12, 0, told], 13 - told));
    }
    assert_eq!(read(&mut healthy[0]).unwrap(), [19]);
    for _ in 0..10 {
        assert_eq!(live.publish(heavy(20, 1_000)).unwrap_err().refusal, Refusal::Full);
        assert_eq!((live.stats().removed, live.stats().subscribers), ([12, 0, 8], 5), "the healthy stay");
    }
    held.pop();
    publish(&live, [20]);
    // Now one has something to read, and what is lacking lies in hands that were told: nothing in the ring could make room.
    healthy[1..].iter_mut().for_each(|one| assert_eq!(read(one).unwrap(), [20]));
    assert!(live.publish(heavy(21, 2_000)).is_err());
    assert_eq!(
        (live.stats().removed, live.stats().subscribers),
        ([12, 0, 8], 5),
        "2,000 were lacking, 1,000 are in the ring"
    );
    drop(held);
    publish(&live, [21]);
    assert_eq!(read(&mut healthy[0]).unwrap(), [20, 21]);
}

#[test]
fn nobody_is_removed_in_vain_for_what_other_accounts_hold() {
    let ledger = Ledger::with_cap(10_000);
    let live = Broadcast::charged_to(bounds(8_000), ledger.account("live").unwrap());
    let mut reader = live.subscribe().unwrap();
    publish(&live, 0..3);
    let other = ledger.account("other").unwrap();
    let charge = other.charge(10_000);
    assert_eq!(live.publish(heavy(3, 1_000)).unwrap_err().refusal, Refusal::Full);
    assert_eq!((live.stats().removed, read(&mut reader).unwrap()), ([0; 3], vec![0, 1, 2]));
    drop(charge);
    publish(&live, [3]);
    assert_eq!(read(&mut reader).unwrap(), [3]);
}

#[test]
fn a_message_that_is_refused_comes_back_and_is_counted() {
    let live = Broadcast::new(Bounds { total_bytes: 3_000, ..bounds(8_000) });
    let mut readers: Vec<_> = (0..3).map(|_| live.subscribe().unwrap()).collect();
    let error = live.publish(heavy(7, 3_001)).unwrap_err();
    assert_eq!((error.refusal, error.message.len() as u64), (Refusal::TooLarge, 3_001 - OVERHEAD));
    // Each holds another message in its hands, and with it all the memory there may be.
    publish(&live, 0..3);
    let mut held = Vec::new();
    for (n, reader) in readers.iter_mut().enumerate() {
        (0..n).for_each(|_| assert!(reader.try_next().unwrap().is_some()));
        held.push(reader.try_next().unwrap().expect("its message"));
    }
    let _quick = live.subscribe().unwrap();
    let error = live.publish(heavy(8, 1_000)).unwrap_err();
    assert_eq!((error.refusal, error.message[0]), (Refusal::Full, 8));
    assert_eq!(
        (live.stats().removed, live.stats().subscribers),
        ([0, 0, 1], 3),
        "the furthest behind is told to let go"
    );
    held.pop();
    publish(&live, 9..10);
    assert_eq!((live.stats().removed, live.stats().subscribers), ([0, 0, 3], 1), "now that it made room");
    live.close();
    assert_eq!(live.publish(heavy(9, 1_000)).unwrap_err().refusal, Refusal::Closed);
    assert_eq!((live.stats().refused, live.stats().published.items), ([1, 1, 1], 4));
}

#[test]
fn subscribers_are_capped_in_number_and_rate() {
    let clock = Arc::new(ManualClock::default());
    let few = Bounds { subscribers: 3, subscribe_per_second: 10, subscribe_burst: 2, ..bounds(1_000) };
    let live = Broadcast::<Vec<u8>>::with_clock(few, clock.clone());
    let _first = live.subscribe().unwrap();
    let second = live.subscribe().unwrap();
    let retry_after = Duration::from_millis(100);
    assert_eq!(live.subscribe().unwrap_err(), SubscribeError::TooFast { retry_after });
    clock.advance(retry_after);
    let _third = live.subscribe().unwrap();
    clock.advance(Duration::from_secs(1));
    assert_eq!(live.subscribe().unwrap_err(), SubscribeError::TooMany { most: 3 });
    drop(second);
    let _fourth = live.subscribe().unwrap();
    live.close();
    assert_eq!(live.subscribe().unwrap_err(), SubscribeError::Closed);
    assert_eq!((live.stats().turned_away, live.stats().subscribed_total, live.stats().left_total), ([1, 1, 1], 4, 1));
}

#[test]
fn a_waiter_is_woken_once_a_message_however_often_it_asked() {
    let live = Broadcast::new(bounds(1 << 20));
    let mut subscribers: Vec<_> = (0..200).map(|_| live.subscribe().unwrap()).collect();
    let woken = Arc::<Woken>::default();
    for round in 1..=3 {
        for subscriber in &mut subscribers {
            for _ in 0..3 {
                assert!(poll(subscriber.next(), &woken).is_pending());
            }
        }
        publish(&live, [0]);
        assert_eq!(woken.0.load(Ordering::SeqCst), round * 200);
        publish(&live, [1]);
        assert_eq!(woken.0.load(Ordering::SeqCst), round * 200, "nobody waits");
        subscribers.iter_mut().for_each(|subscriber| assert_eq!(read(subscriber).unwrap(), [0, 1]));
    }
    for subscriber in &mut subscribers {
        assert!(poll(subscriber.next(), &woken).is_pending());
    }
    live.close();
    assert_eq!(woken.0.load(Ordering::SeqCst), 4 * 200);
}

#[test]
fn a_waker_that_panics_keeps_no_other_from_being_woken() {
    struct Panics;
    impl Wake for Panics {
        fn wake(self: Arc<Self>) {
            panic!("as a bad executor might");
        }
    }
    let live = Broadcast::new(bounds(2_000));
    let mut subscribers: Vec<_> = (0..200).map(|_| live.subscribe().unwrap()).collect();
    let (woken, told) = (Arc::<Woken>::default(), Arc::<Woken>::default());
    let panics = Waker::from(Arc::new(Panics));
    for (n, subscriber) in subscribers.iter_mut().enumerate() {
        let waker = if [0, 150, 199].contains(&n) { panics.clone() } else { Waker::from(Arc::clone(&woken)) };
        assert!(std::pin::pin!(subscriber.next()).as_mut().poll(&mut Context::from_waker(&waker)).is_pending());
    }
    let publish = |n: u8| std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| publish(&live, [n])));
    assert!(publish(0).is_err(), "the panic is not swallowed");
    assert_eq!(woken.0.load(Ordering::SeqCst), 197);
    // So it is with those whose removal is told.
    let mut removals: Vec<_> = subscribers.iter().map(Subscriber::removal).collect();
    for (n, removal) in removals.iter_mut().enumerate() {
        let waker = if [0, 150, 199].contains(&n) { panics.clone() } else { Waker::from(Arc::clone(&told)) };
        assert!(std::pin::pin!(removal).poll(&mut Context::from_waker(&waker)).is_pending());
    }
    assert!(publish(1).is_ok());
    assert!(publish(2).is_err());
    assert_eq!((told.0.load(Ordering::SeqCst), live.stats().removed), (197, [200, 0, 0]));
}

#[test]
fn a_thread_can_wait_and_is_told_of_a_message_a_removal_and_the_end() {
    let live = Broadcast::new(bounds(2_500));
    let mut subscriber = live.subscribe().unwrap();
    assert!(subscriber.next_timeout(Duration::ZERO).unwrap().is_none());
    let patience = Duration::from_secs(20);
    let has_read = std::sync::Barrier::new(2);
    std::thread::scope(|scope| {
        let has_read = &has_read;
        let waiting = scope.spawn(move || {
            let first = subscriber.next_timeout(patience).unwrap().map(|batch| batch.len());
            has_read.wait();
            let mut removal = subscriber.removal();
            let woken = Arc::<Woken>::default();
            while poll(&mut removal, &woken).is_pending() {
                std::thread::yield_now();
            }
            (first, subscriber.next_timeout(patience).map(|batch| batch.is_some()))
        });
        publish(&live, [0]);
        has_read.wait();
        while live.stats().subscribers > 0 {
            publish(&live, [1]);
            std::thread::yield_now();
        }
        let (first, then) = waiting.join().unwrap();
        assert!(first.is_some());
        assert!(matches!(then, Err(Ended::Removed(_))), "{then:?}");
    });
    let mut last = live.subscribe().unwrap();
    std::thread::scope(|scope| {
        let waiting = scope.spawn(|| last.next_timeout(patience).map(|batch| batch.is_some()));
        drop(live);
        assert_eq!(waiting.join().unwrap(), Err(Ended::Closed));
    });
}

#[test]
fn places_and_the_ring_are_given_back_after_a_burst() {
    let live = Broadcast::new(bounds(1 << 20));
    let many: Vec<_> = (0..5_000).map(|_| live.subscribe().unwrap()).collect();
    publish(&live, 0..100);
    assert_eq!(live.held_bytes(), 100_000);
    assert_eq!(live.reclaim(Ask::new(1, Pass::Compact)), Outcome::new(0, false), "nobody has read it");
    let outcome = live.reclaim(Ask::new(50_000, Pass::Destructive));
    assert_eq!((outcome.more, live.stats().subscribers), (false, 0), "all were as far behind: {outcome:?}");
    drop(many);
    assert!(live.shared.core.lock().places_kept() < 200);
    let mut one = live.subscribe().unwrap();
    publish(&live, 0..3);
    assert_eq!(read(&mut one).unwrap(), [0, 1, 2]);
    assert_eq!(live.reclaim(Ask::new(1, Pass::Compact)).claimed_bytes, 3_000);
}

#[test]
fn what_is_counted_is_what_is_allocated_but_for_an_eighth_of_the_bound() {
    const PLACES: u64 = BLOCK_MESSAGES as u64 * OVERHEAD;
    // As docs/broadcast.md has it.
    assert_eq!((ring::overhead::<Arc<[u8]>>(), size_of::<ring::Block<Arc<[u8]>>>() + 3 * size_of::<usize>()), (56, 64));
    for behind_bytes in [1_000, 4_096, 16_384, 65_536, 1 << 20] {
        let block_bytes = behind_bytes / 8;
        for weight in [OVERHEAD, 100, 500, 1_000] {
            let mut ring = ring::Ring::<Vec<u8>>::new(behind_bytes);
            for n in 1..=100 {
                ring.push(heavy(n, weight), weight, None);
                let empty = ring.empty_bytes();
                assert!(empty <= block_bytes.min(PLACES), "{behind_bytes}, {n} of {weight}: {empty} in the last block");
                assert!(
                    empty == 0 || weight < block_bytes,
                    "{behind_bytes}, {n} of {weight}: alone in a block of one place"
                );
            }
            assert_eq!(ring.bytes(), 100 * weight);
        }
        // The worst: each light message is followed by one that needs a block of its own.
        let mut ring = ring::Ring::<Vec<u8>>::new(behind_bytes);
        for n in 0..50 {
            let before = ring.empty_bytes();
            ring.push(heavy(n, OVERHEAD), OVERHEAD, None);
            let weight = block_bytes.max(OVERHEAD);
            ring.push(heavy(n, weight), weight, None);
            let empty = ring.empty_bytes() - before;
            assert!(empty <= block_bytes.min(PLACES), "{behind_bytes}: {empty} beside {}", weight + OVERHEAD);
        }
    }
}

#[derive(Clone, Debug)]
enum Step {
    Subscribe,
    Leave(usize),
    Publish(u64),
    Take(usize, usize),
    Finish(usize),
    Pass(u64),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        2 => Just(Step::Subscribe),
        1 => (0..6usize).prop_map(Step::Leave),
        8 => (OVERHEAD..3_000u64).prop_map(Step::Publish),
        6 => (0..6usize, 1..80usize).prop_map(|(who, most)| Step::Take(who, most)),
        2 => (0..6usize).prop_map(Step::Finish),
        1 => (0..5_000u64).prop_map(Step::Pass),
    ]
}

/// One subscriber as anybody would write it down: its own queue of numbers and weights, and what of it is being read.
#[derive(Default)]
struct Naive {
    queue: VecDeque<(u64, u64)>,
    removed: Option<Reason>,
    over_since: Option<u64>,
}

impl Naive {
    fn behind(&self) -> u64 {
        self.queue.iter().map(|(_, weight)| weight).sum()
    }
}

const BEHIND: u64 = 9_000;
const SOFT: Soft = Soft { bytes: 5_000, time: Duration::from_millis(3_000) };

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    /// Whoever the model removes is removed, at the same message and for the same reason; all others read exactly what they should.
    #[test]
    fn it_does_what_a_queue_for_each_subscriber_would(steps in proptest::collection::vec(step(), 1..200), soft in any::<bool>()) {
        let clock = Arc::new(ManualClock::default());
        let soft = soft.then_some(SOFT);
        let live = Broadcast::with_clock(Bounds { soft, ..bounds(BEHIND) }, clock.clone());
        let mut real: Vec<Subscriber<Vec<u8>>> = Vec::new();
        let mut naive: Vec<Naive> = Vec::new();
        let (mut number, mut removed_total, mut delivered) = (0u64, 0u64, 0u64);
        for step in steps {
            let now = clock.now().as_millis() as u64;
            match step {
                Step::Subscribe if real.len() < 6 => {
                    real.push(live.subscribe().unwrap());
                    naive.push(Naive::default());
                }
                Step::Subscribe => {}
                Step::Leave(who) if who < real.len() => {
                    drop(real.remove(who));
                    naive.remove(who);
                }
                Step::Publish(weight) => {
                    let mut message = heavy(0, weight);
                    let tag = number.to_le_bytes();
                    let fits = message.len().min(8);
                    message[..fits].copy_from_slice(&tag[..fits]);
                    for one in naive.iter_mut().filter(|one| one.removed.is_none()) {
                        one.queue.push_back((number, weight));
                        one.over_since = (soft.is_some() && one.behind() > SOFT.bytes)
                            .then(|| one.over_since.unwrap_or(now));
                        let too_long = one.over_since.is_some_and(|since| now - since >= SOFT.time.as_millis() as u64);
                        if one.behind() > BEHIND {
                            one.removed = Some(Reason::Behind);
                        } else if too_long {
                            one.removed = Some(Reason::BehindTooLong);
                        }
                        removed_total += u64::from(one.removed.is_some());
                    }
                    number += 1;
                    let active = naive.iter().filter(|one| one.removed.is_none()).count() as u64;
                    prop_assert_eq!(live.publish(message).unwrap(), active);
                }
                Step::Take(who, most) if who < real.len() => {
                    // What is taken is finished by the next question, below or by a later step.
                    let mut context = Context::from_waker(Waker::noop());
                    let got = match std::pin::pin!(real[who].next_up_to(most)).as_mut().poll(&mut context) {
                        Poll::Ready(Ok(batch)) => Ok(batch.iter().map(Vec::len).collect::<Vec<_>>()),
                        Poll::Ready(Err(ended)) => Err(ended),
                        Poll::Pending => Ok(Vec::new()),
                    };
                    // The one question after it confirms what was read.
                    let confirm = real[who].read_all_confirmed();
                    match (naive[who].removed, got) {
                        (Some(reason), Err(Ended::Removed(removed))) => prop_assert_eq!(reason, removed.reason),
                        (None, Ok(lengths)) => {
                            prop_assert_eq!(lengths.is_empty(), naive[who].queue.is_empty());
                            for length in lengths {
                                let (_, weight) = naive[who].queue.pop_front().expect("no more than were published");
                                prop_assert_eq!(length as u64, weight - OVERHEAD);
                                delivered += 1;
                            }
                            if naive[who].behind() <= SOFT.bytes {
                                naive[who].over_since = None;
                            }
                            prop_assert!(confirm);
                        }
                        (expected, got) => prop_assert!(false, "expected {:?}, got {:?}", expected, got),
                    }
                }
                Step::Finish(who) if who < real.len() => {
                    // Everything, in order, numbers included.
                    while naive[who].removed.is_none() {
                        let Some(batch) = real[who].try_next().unwrap() else { break };
                        for message in &batch {
                            let (number, weight) = naive[who].queue.pop_front().expect("no more than were published");
                            let fits = message.len().min(8);
                            prop_assert_eq!(&message[..fits], &number.to_le_bytes()[..fits]);
                            prop_assert_eq!(message.len() as u64, weight - OVERHEAD);
                            delivered += 1;
                        }
                        naive[who].over_since = None;
                    }
                    prop_assert!(naive[who].removed.is_some() || naive[who].queue.is_empty());
                }
                Step::Leave(_) | Step::Take(..) | Step::Finish(_) => {}
                Step::Pass(millis) => clock.advance(Duration::from_millis(millis)),
            }
            let stats = live.stats();
            prop_assert_eq!(stats.removed_total(), removed_total);
            prop_assert_eq!(stats.subscribed_total, stats.subscribers + stats.left_total + removed_total);
            prop_assert_eq!(stats.delivered_total, delivered);
            let most = BEHIND + BEHIND / 8 + 3_000;
            prop_assert!(stats.alive_bytes <= most, "{} bytes alive", stats.alive_bytes);
        }
    }
}

impl Subscriber<Vec<u8>> {
    /// Asks again, so that what was read counts as read, without reading on.
    fn read_all_confirmed(&mut self) -> bool {
        let mut core = self.shared.core.lock();
        !matches!(core.fetch(self.ticket, self.read_to, 1), core::Found::Ended(_))
    }
}
