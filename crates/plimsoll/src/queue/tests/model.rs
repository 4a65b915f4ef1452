//! A naive model beside the queue: the same values, the same words, the same counters; producers come and go, shares with them. Between
//! two looks at the counters values are sent on credit, where the queue is large enough for some.

use proptest::prelude::*;

use super::*;

/// One thing that happens to a queue.
#[derive(Clone, Debug)]
enum Op {
    Send { producer: usize, bytes: u64 },
    Recv,
    RecvAll,
    Come(usize),
    Leave(usize),
    Close,
    DropReceiver,
    Advance(u64),
    Look,
}

/// The first of them never leaves.
const NAMES: [&str; 3] = [FIRST_PRODUCER, "b", "c"];

fn any_op() -> impl Strategy<Value = Op> {
    prop_oneof![
        24 => (0usize..3, prop_oneof![0u64..30, 40u64..120]).prop_map(|(producer, bytes)| Op::Send { producer, bytes }),
        6 => Just(Op::Recv),
        2 => Just(Op::RecvAll),
        2 => (1usize..3).prop_map(Op::Come),
        1 => (1usize..3).prop_map(Op::Leave),
        3 => (0u64..5).prop_map(Op::Advance),
        6 => Just(Op::Look),
        1 => prop_oneof![9 => Just(Op::Recv), 2 => Just(Op::Close), 1 => Just(Op::DropReceiver)],
    ]
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Full {
    Newest,
    Oldest,
    Reject,
}

impl Full {
    fn policy(self) -> WhenFull<Load> {
        match self {
            Full::Newest => WhenFull::DropNewest,
            Full::Oldest => WhenFull::DropOldest,
            Full::Reject => WhenFull::Reject,
        }
    }
}

/// The queue as one would explain it: a list, and a diary of what happened to each value.
struct Model {
    limits: Limits,
    full: Full,
    waiting: Vec<(Load, usize, u64)>,
    handles: [bool; 3],
    open: bool,
    second: u64,
    diary: Vec<(usize, &'static str, u64)>,
}

impl Model {
    fn sum(&self, producer: Option<usize>) -> Tally {
        let of = self.waiting.iter().filter(|(_, whose, _)| producer.is_none_or(|producer| producer == *whose));
        of.fold(Tally::default(), |sum, (load, ..)| sum + tally(1, load.bytes))
    }

    fn is_live(&self, producer: usize) -> bool {
        self.handles[producer] || self.sum(Some(producer)).items > 0
    }

    fn live(&self) -> u64 {
        (0..3).filter(|producer| self.is_live(*producer)).count() as u64
    }

    fn share(&self) -> Tally {
        let live = self.live();
        tally(self.limits.max_items as u64 / 2 / live, self.limits.max_bytes / 2 / live)
    }

    fn common(&self) -> Tally {
        let live = self.live();
        let all = tally(self.limits.max_items as u64, self.limits.max_bytes);
        (0..live).fold(all, |left, _| left - self.share())
    }

    /// What a producer would lie beyond its share by, with `more`.
    fn beyond(&self, producer: usize, more: Tally) -> Tally {
        let share = if self.is_live(producer) { self.share() } else { Tally::default() };
        self.sum(Some(producer)) + more - share
    }

    fn is_within(&self, producer: usize, load: Load) -> bool {
        self.beyond(producer, tally(1, load.bytes)) == Tally::default()
    }

    fn has_room(&self, producer: usize, load: Load) -> bool {
        let after = self.sum(None) + tally(1, load.bytes);
        let fits = |sum: Tally, into: Tally| sum.items <= into.items && sum.bytes <= into.bytes;
        let beyond = (0..3).fold(Tally::default(), |sum, i| {
            sum + self.beyond(i, if i == producer { tally(1, load.bytes) } else { Tally::default() })
        });
        fits(after, tally(self.limits.max_items as u64, self.limits.max_bytes)) && {
            let own = self.beyond(producer, tally(1, load.bytes));
            (own.items == 0 || beyond.items <= self.common().items)
                && (own.bytes == 0 || beyond.bytes <= self.common().bytes)
        }
    }

    /// Whose value goes, and where it lies; `None`: the new one.
    fn victim(&self, producer: usize, load: Load) -> Option<usize> {
        if self.full == Full::Newest && !self.is_within(producer, load) {
            return None;
        }
        let mut furthest = (0.0, None);
        for i in 0..3 {
            let waits = self.waiting.iter().any(|(_, whose, _)| *whose == i);
            let beyond = self.beyond(i, if i == producer { tally(1, load.bytes) } else { Tally::default() });
            let part = (beyond.items as f64 / self.limits.max_items as f64)
                .max(beyond.bytes as f64 / self.limits.max_bytes as f64);
            let is_further = part > furthest.0 || part > 0.0 && part == furthest.0 && furthest.1 == Some(producer);
            if (waits || i == producer) && is_further {
                furthest = (part, Some(i));
            }
        }
        let whose = furthest.1?;
        if self.full == Full::Oldest {
            self.waiting.iter().position(|(_, of, _)| *of == whose)
        } else {
            self.waiting.iter().rposition(|(_, of, _)| *of == whose)
        }
    }

    fn send(&mut self, load: Load, producer: usize) -> Result<Sent, Refusal> {
        let reject = self.full == Full::Reject;
        let (what, said) = if !self.open {
            ("refused closed", Err(Refusal::Closed))
        } else if load.bytes > self.common().bytes + self.share().bytes {
            if reject { ("refused too large", Err(Refusal::TooLarge)) } else { ("too large", Ok(Sent::Dropped)) }
        } else if reject && !self.has_room(producer, load) {
            ("refused full", Err(Refusal::Full))
        } else {
            let mut displaced = 0;
            loop {
                if self.has_room(producer, load) {
                    self.waiting.push((load, producer, self.second));
                    break ("accepted", Ok(if displaced == 0 { Sent::Queued } else { Sent::Displaced(displaced) }));
                }
                let Some(at) = self.victim(producer, load) else { break ("full", Ok(Sent::Dropped)) };
                let (gone, whose, _) = self.waiting.remove(at);
                self.diary.push((whose, "displaced", gone.bytes));
                displaced += 1;
            }
        };
        self.diary.push((producer, what, load.bytes));
        said
    }

    fn leave(&mut self, count: usize, how: &'static str) -> Vec<Load> {
        let gone: Vec<_> = self.waiting.drain(..count.min(self.waiting.len())).collect();
        self.diary.extend(gone.iter().map(|(load, producer, _)| (*producer, how, load.bytes)));
        gone.into_iter().map(|(load, ..)| load).collect()
    }

    fn tally(&self, producer: usize, what: &str) -> Tally {
        let of = self.diary.iter().filter(|(whose, how, _)| *whose == producer && *how == what);
        of.fold(Tally::default(), |sum, (_, _, bytes)| sum + tally(1, *bytes))
    }

    fn counters(&self, producer: usize) -> Counters {
        let mut counters = Counters {
            accepted: self.tally(producer, "accepted"),
            delivered: self.tally(producer, "delivered"),
            ..Counters::default()
        };
        for reason in [DropReason::Full, DropReason::Displaced, DropReason::TooLarge, DropReason::Abandoned] {
            counters.dropped[reason as usize] = self.tally(producer, &reason.as_str().replace('-', " "));
        }
        for refusal in [Refusal::Full, Refusal::TooLarge, Refusal::Closed] {
            let how = format!("refused {}", refusal.as_str().replace('-', " "));
            counters.refused[refusal as usize] = self.tally(producer, &how);
        }
        counters
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, ..ProptestConfig::default() })]

    #[test]
    fn it_does_what_the_model_does(
        (max_items, max_bytes) in prop_oneof![(1usize..14, Just(100)), (16usize..70, 300u64..4_000)],
        full in prop::sample::select(vec![Full::Newest, Full::Oldest, Full::Reject]),
        mut ops in prop::collection::vec(any_op(), 1..240),
    ) {
        let limits = limits(max_items, max_bytes);
        ops.push(Op::Look);
        let (sender, receiver, clock) = on_clock(limits, full.policy());
        let mut senders = [Some(sender.clone()), Some(sender.named("b")), Some(sender.named("c"))];
        let mut receiver = Some(receiver);
        let mut model = Model {
            limits, full, waiting: Vec::new(), handles: [true; 3], open: true, second: 0, diary: Vec::new(),
        };
        for (id, op) in ops.into_iter().enumerate() {
            match op {
                Op::Send { producer, bytes } => {
                    let Some(sender) = &senders[producer] else { continue };
                    let value = load(id as u64, bytes);
                    let is_within = model.open && model.is_within(producer, value);
                    let said = sender.send(value).map_err(|error| (error.value, error.refusal));
                    prop_assert_eq!(said, model.send(value, producer).map_err(|refusal| (value, refusal)));
                    if is_within && full != Full::Reject {
                        prop_assert!(matches!(said, Ok(Sent::Queued | Sent::Displaced(_))), "its share: {:?}", said);
                    }
                }
                Op::Come(producer) => {
                    senders[producer] = Some(sender.named(NAMES[producer]));
                    model.handles[producer] = true;
                }
                Op::Leave(producer) => {
                    senders[producer] = None;
                    model.handles[producer] = false;
                }
                Op::Recv => {
                    let Some(receiver) = &mut receiver else { continue };
                    let expected = model.leave(1, "delivered").pop();
                    let nothing = if model.open { RecvError::Timeout } else { RecvError::Closed };
                    prop_assert_eq!(receiver.recv_timeout(Duration::ZERO), expected.ok_or(nothing));
                }
                Op::RecvAll => {
                    let Some(receiver) = &mut receiver else { continue };
                    let mut all = vec![load(u64::MAX, 0)];
                    receiver.recv_all_timeout(&mut all, Duration::ZERO).ok();
                    prop_assert_eq!(&all[1..], &model.leave(usize::MAX, "delivered")[..]);
                    prop_assert_eq!(all[0], load(u64::MAX, 0), "what was there stays");
                }
                Op::Close => {
                    sender.close();
                    model.open = false;
                }
                Op::DropReceiver => {
                    receiver = None;
                    model.leave(usize::MAX, "abandoned");
                    model.open = false;
                }
                Op::Advance(seconds) => {
                    clock.advance(Duration::from_secs(seconds));
                    model.second += seconds;
                }
                Op::Look => {
                    let stats = sender.stats();
                    prop_assert_eq!((stats.queued, stats.share), (model.sum(None), model.share()));
                    let age = model.waiting.first().map(|(_, _, since)| Duration::from_secs(model.second - since));
                    prop_assert_eq!((stats.oldest_age, stats.closed), (age, !model.open));
                    for (i, producer) in stats.producers.iter().enumerate() {
                        prop_assert_eq!(producer.counters, model.counters(i), "{}", producer.name);
                        prop_assert_eq!(producer.queued, model.sum(Some(i)));
                    }
                    let total = stats.total();
                    let in_vain = total.dropped_for(DropReason::Displaced) + total.dropped_for(DropReason::Abandoned);
                    prop_assert_eq!(total.accepted, total.delivered + in_vain + stats.queued, "the law");
                    prop_assert!(stats.peak_items <= max_items as u64 && stats.peak_bytes <= max_bytes);
                }
            }
        }
    }
}
