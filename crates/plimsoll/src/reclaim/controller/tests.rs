//! The controller's threads with stores that behave, lie, sleep and panic.

use std::sync::atomic::AtomicU64;
use std::time::Instant;

use super::*;
use crate::event::{Ask, Outcome, Pass, Profile};
use crate::gauge::{Gauge, Protected, Unread};
use crate::governor::{Decision, Governor, Setup};
use crate::policy::Policy;
use crate::reclaim::adapt::Closure;
use crate::reclaim::ledger::Ledger;

const MIB: u64 = 1 << 20;

/// What wants so much, in sum.
fn wanting(ordered_bytes_total: u64, hold_bytes: u64) -> Want {
    Want { ordered_bytes_total, hold_bytes, evict_bytes: 1, ..Want::default() }
}

/// A store of plain bytes that takes `nap` for each ask.
struct Plain {
    held: AtomicU64,
    nap: Duration,
    profile: Profile,
    asks: Mutex<Vec<(Pass, u64)>>,
}

impl Plain {
    fn new(held: u64) -> Plain {
        Plain { held: AtomicU64::new(held), nap: Duration::ZERO, profile: Profile::default(), asks: Mutex::default() }
    }
}

impl Reclaim for Plain {
    fn held_bytes(&self) -> u64 {
        self.held.load(Ordering::Relaxed)
    }
    fn profile(&self) -> Profile {
        self.profile
    }
    fn reclaim(&self, ask: Ask) -> Outcome {
        self.asks.lock().push((ask.pass, ask.bytes));
        std::thread::sleep(self.nap);
        let given = ask.bytes.min(self.held.load(Ordering::Relaxed));
        self.held.fetch_sub(given, Ordering::Relaxed);
        Outcome::new(given, true)
    }
}

#[allow(clippy::disallowed_methods)] // Real threads: waiting for them is in real time.
fn now() -> Instant {
    Instant::now()
}

fn wait_until(what: &str, mut holds: impl FnMut() -> bool) {
    let begun = now();
    while !holds() {
        assert!(begun.elapsed() < Duration::from_secs(20), "{what}: not within 20 s");
        std::thread::sleep(Duration::from_millis(2));
    }
}

#[test]
fn an_order_is_shared_and_what_came_of_it_is_in_the_supply() {
    let controller = Controller::start(Settings::default()).expect("a thread");
    let stores = [Arc::new(Plain::new(300 * MIB)), Arc::new(Plain::new(100 * MIB))];
    for (name, store) in ["large", "small"].iter().zip(&stores) {
        controller.register(name, Arc::<Plain>::clone(store), None).expect("registered");
    }
    let (mut supply, mut order) = (controller.supply(), controller.order());
    assert_eq!(supply(), Supply { held_bytes: 400 * MIB, ..Supply::default() });
    order(Level::High, Some(&wanting(40 * MIB, 360 * MIB)));
    wait_until("claimed", || supply().claimed_bytes_total == 40 * MIB);
    assert_eq!(stores.each_ref().map(|store| store.held_bytes() / MIB), [270, 90]);
    wait_until("held", || supply().held_bytes == 360 * MIB);
    // The same total again is no new order; a higher one is the difference.
    order(Level::High, Some(&wanting(40 * MIB, 360 * MIB)));
    order(Level::High, Some(&wanting(44 * MIB, 356 * MIB)));
    wait_until("claimed", || supply().claimed_bytes_total == 44 * MIB);
    assert_eq!(controller.figures().withdrawn_bytes_total, 0);
    assert!(controller.stop().is_empty());
}

#[test]
fn deeper_passes_come_only_when_those_before_did_not_give_enough() {
    let controller = Controller::start(Settings::default()).expect("a thread");
    let spare = Arc::new(Plain { profile: Profile::default().only(&[Pass::Compact]), ..Plain::new(40 * MIB) });
    let deep = Arc::new(Plain { profile: Profile::default().only(&[Pass::Destructive]), ..Plain::new(400 * MIB) });
    controller.register("spare", Arc::<Plain>::clone(&spare), None).expect("registered");
    controller.register("deep", Arc::<Plain>::clone(&deep), None).expect("registered");
    let (mut supply, mut order) = (controller.supply(), controller.order());
    order(Level::High, Some(&wanting(8 * MIB, 0)));
    wait_until("claimed", || supply().claimed_bytes_total == 8 * MIB);
    assert_eq!(deep.asks.lock().len(), 0);
    order(Level::High, Some(&wanting(208 * MIB, 0)));
    wait_until("done", || supply().claimed_bytes_total + supply().withdrawn_bytes_total == 208 * MIB);
    // A quarter of 32 from the one, a quarter of 400 from the other, and the rest back to the law.
    assert_eq!(*spare.asks.lock(), [(Pass::Compact, 8 * MIB), (Pass::Compact, 8 * MIB)]);
    assert_eq!(*deep.asks.lock(), [(Pass::Destructive, 100 * MIB)]);
    assert_eq!(supply().withdrawn_bytes_total, 92 * MIB);
}

#[test]
fn a_store_that_sleeps_is_named_late_and_delays_neither_others_nor_the_next_order() {
    let settings = Settings { deadline: Duration::from_millis(100), ..Settings::default() };
    let controller = Controller::start(settings).expect("a thread");
    let sleeper = Arc::new(Plain { nap: Duration::from_secs(10), ..Plain::new(100 * MIB) });
    let other = Arc::new(Plain::new(100 * MIB));
    controller.register("sleeper", Arc::<Plain>::clone(&sleeper), None).expect("registered");
    controller.register("other", Arc::<Plain>::clone(&other), None).expect("registered");
    let (mut supply, mut order) = (controller.supply(), controller.order());
    let begun = now();
    order(Level::High, Some(&wanting(20 * MIB, 180 * MIB)));
    assert!(begun.elapsed() < Duration::from_millis(50), "ordering does not wait");
    wait_until("given up", || supply().withdrawn_bytes_total == 10 * MIB);
    assert_eq!(supply().claimed_bytes_total, 10 * MIB);
    order(Level::High, Some(&wanting(30 * MIB, 180 * MIB)));
    wait_until("the other gives all", || supply().claimed_bytes_total == 20 * MIB);
    assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
    wait_until("it is named", || controller.figures().stores[0].late_for.is_some());
    let figures = controller.figures();
    assert_eq!((&*figures.stores[0].name, figures.stores[0].late_total), ("sleeper", 1));
    assert_eq!(figures.stores[1].late_total, 0);
    assert_eq!(sleeper.asks.lock().len(), 1, "who is late is not asked again");
    assert_eq!(controller.stop().iter().map(|name| &**name).collect::<Vec<_>>(), ["sleeper"]);
    assert!(begun.elapsed() < Duration::from_secs(8), "nor is it waited for at the end");
}

#[test]
fn a_store_that_panics_gave_nothing_and_is_asked_again() {
    let controller = Controller::start(Settings::default()).expect("a thread");
    let store =
        Closure::new(|| 100 * MIB, |_| panic!("on purpose")).with_profile(Profile::default().only(&[Pass::Idle]));
    controller.register("panics", Arc::new(store), None).expect("registered");
    let (mut supply, mut order) = (controller.supply(), controller.order());
    for n in 1..=2 {
        order(Level::High, Some(&wanting(n * MIB, 90 * MIB)));
        wait_until("given up", || supply().withdrawn_bytes_total == n * MIB);
    }
    wait_until("counted", || controller.figures().stores[0].panics_total == 2);
}

#[test]
fn accounts_are_clamped_to_what_may_be_held_and_freed_at_the_end() {
    let ledger = Ledger::new();
    let account = ledger.account("cache").expect("an account");
    let _held = account.charge(100 * MIB);
    let controller = Controller::start(Settings::default()).expect("a thread");
    controller.register("cache", Arc::new(Plain::new(0)), Some(account.clone())).expect("registered");
    let (mut supply, mut order) = (controller.supply(), controller.order());
    assert_eq!(supply().held_bytes, 100 * MIB, "the account knows");
    order(Level::High, Some(&wanting(0, 110 * MIB)));
    wait_until("clamped", || account.figures().clamp_bytes == Some(110 * MIB));
    assert!(account.try_charge(11 * MIB).is_err());
    drop(controller);
    assert_eq!(account.figures().clamp_bytes, None);
}

#[test]
fn purges_are_rate_limited_and_the_next_stage_is_called_once() {
    let (purges, stages) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
    let (counts, calls) = (Arc::clone(&purges), Arc::clone(&stages));
    let settings = Settings {
        purge: Some(Box::new(move || {
            counts.fetch_add(1, Ordering::Relaxed);
        })),
        on_stuck: Some(Box::new(move || {
            calls.fetch_add(1, Ordering::Relaxed);
        })),
        stuck_dwell: Duration::from_millis(50),
        ..Settings::default()
    };
    let controller = Controller::start(settings).expect("a thread");
    let mut order = controller.order();
    let calm = wanting(0, 0);
    let stuck = Want { purge: true, stuck: true, ..Want::default() };
    for _ in 0..20 {
        order(Level::High, Some(&stuck));
        std::thread::sleep(Duration::from_millis(10));
    }
    wait_until("the stage", || controller.figures().stuck_total == 1);
    assert_eq!((purges.load(Ordering::Relaxed), stages.load(Ordering::Relaxed)), (1, 1));
    assert!(controller.figures().purges_skipped_total >= 1);
    order(Level::High, Some(&calm));
    wait_until("not stuck", || !controller.figures().is_stuck);
}

#[test]
fn there_is_a_bound_on_stores() {
    let controller = Controller::start(Settings::default()).expect("a thread");
    for n in 0..MAX_STORES {
        controller.register(&n.to_string(), Arc::new(Plain::new(1)), None).expect("registered");
    }
    let error = controller.register("one more", Arc::new(Plain::new(1)), None).expect_err("too many");
    assert_eq!(error.to_string(), "register store \"one more\": there are 64 already");
    assert_eq!(controller.supply()().held_bytes, MAX_STORES as u64);
}

/// The process is a base of 100 MiB and what the store holds.
struct Process(Arc<Plain>);
impl Gauge for Process {
    fn fast(&mut self) -> Result<u64, Unread> {
        Ok(100 * MIB + self.0.held_bytes())
    }
    fn confirm(&mut self) -> Result<Protected, Unread> {
        Ok(Protected { program_bytes: self.fast()?, ..Protected::default() })
    }
}

#[test]
fn governor_and_controller_bring_a_store_below_the_mark_and_keep_it_there() {
    let store = Arc::new(Plain::new(205 * MIB));
    let controller = Controller::start(Settings::default()).expect("a thread");
    controller.register("store", Arc::<Plain>::clone(&store), None).expect("registered");
    let setup = Setup {
        policy: Policy::new(300 * MIB, 100 * MIB),
        gauge: Box::new(Process(Arc::clone(&store))),
        wakes: Vec::new(),
        clock: Arc::new(MonotonicClock),
        name: "governor".into(),
    };
    let mut order = controller.order();
    let pass_on = move |decision: &Decision| order(decision.level, decision.want.as_ref());
    let governor = Governor::start_with(setup, controller.supply(), pass_on).expect("started");
    // 305 of 300: twenty have to go to be at 95 %.
    wait_until("below the mark", || store.held_bytes() <= 185 * MIB);
    std::thread::sleep(Duration::from_millis(500));
    assert!(store.held_bytes() >= 180 * MIB, "{} MiB", store.held_bytes() / MIB);
    let orders: Vec<Want> = governor.decisions(1_000).iter().filter_map(|decision| decision.want).collect();
    assert!(orders.iter().all(|want| want.evict_bytes <= 205 * MIB / 4));
    assert!(orders.iter().any(|want| want.evict_bytes > 0));
    governor.stop();
}
