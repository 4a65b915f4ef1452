//! Each line of the gate's contract, with a clock that stands still, and threads that meet in it.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use proptest::prelude::*;

use super::*;
use crate::clock::ManualClock;
use crate::level::Level;

fn lane(slots: usize, waiting: usize, wait_ms: u64) -> Lane {
    Lane { slots: Slots::Fixed(slots), waiting, wait: Duration::from_millis(wait_ms) }
}

fn gate(settings: Settings) -> (Gate, Arc<ManualClock>, LevelCell) {
    let clock = Arc::new(ManualClock::default());
    let level = LevelCell::with_clock(LEVEL_HOLDS, clock.clone());
    (Gate::with_clock(settings, level.clone(), clock.clone()), clock, level)
}

fn of(kind: Kind) -> Arrival<'static> {
    Arrival { kind, ..Arrival::default() }
}

fn permit(answer: Answer) -> Permit {
    match answer {
        Answer::Now(permit) => permit,
        other => panic!("expected a permit, got {other:?}"),
    }
}

fn ticket(answer: Answer) -> Ticket {
    match answer {
        Answer::Wait(ticket) => ticket,
        other => panic!("expected a ticket, got {other:?}"),
    }
}

fn reason(answer: Answer) -> Reason {
    match answer {
        Answer::Refused(refused) => refused.reason,
        other => panic!("expected a refusal, got {other:?}"),
    }
}

fn poll(ticket: &mut Ticket) -> Poll<Result<Permit, Refused>> {
    std::pin::Pin::new(ticket).poll(&mut Context::from_waker(Waker::noop()))
}

#[test]
fn the_least_important_are_refused_first_and_probes_never() {
    let (gate, _, level) = gate(Settings::default());
    for (now, share) in [
        (Level::Normal, [0.0, 0.0, 0.0, 0.0]),
        (Level::Elevated, [0.0, 0.0, 0.0, 0.5]),
        (Level::High, [0.0, 0.0, 0.5, 1.0]),
        (Level::Critical, [0.0, 0.5, 1.0, 1.0]),
    ] {
        level.set(now);
        for (class, share) in Class::ALL.into_iter().zip(share) {
            let before = gate.stats().refused_for(class, Reason::Level);
            for _ in 0..2_000 {
                let kind = Kind { class, ..Kind::LIGHT };
                assert!(!matches!(gate.admit(of(kind)), Answer::Wait(_)));
            }
            let refused = (gate.stats().refused_for(class, Reason::Level) - before) as f64 / 2_000.0;
            assert!((refused - share).abs() < 0.06, "{now}, {class:?}: {refused} refused, expected {share}");
        }
    }
    assert_eq!(gate.stats().admitted[Class::Exempt as usize], 8_000);
}

#[test]
fn a_gate_whose_governor_is_gone_or_hangs_lets_in_again_and_says_so() {
    let (gate, clock, level) = gate(Settings::default());
    let mut drive = level.driver();
    let refused = || match gate.admit(of(Kind::LIGHT)) {
        Answer::Refused(refused) => Some(refused.reason),
        _ => None,
    };
    drive(Level::Critical, Some(1000), Some(1000));
    assert_eq!((refused(), gate.stats().is_level_silent), (Some(Reason::Level), false));
    clock.advance(LEVEL_HOLDS + Duration::from_millis(1));
    assert_eq!((refused(), gate.stats().is_level_silent), (None, true));
    drive(Level::Critical, Some(1000), Some(1000));
    assert_eq!((refused(), gate.stats().is_level_silent), (Some(Reason::Level), false));
    drop(drive);
    assert_eq!((refused(), gate.stats().is_level_silent), (None, false));
}

#[test]
fn heavy_work_waits_in_a_bounded_line_first_come_first_served() {
    let (gate, _, _) = gate(Settings { heavy: lane(1, 2, 1_000), ..Settings::default() });
    let working = permit(gate.admit(of(Kind::HEAVY)));
    let mut first = ticket(gate.admit(of(Kind::HEAVY)));
    let mut second = ticket(gate.admit(of(Kind::HEAVY)));
    assert_eq!(reason(gate.admit(of(Kind::HEAVY))), Reason::Busy);
    let light = permit(gate.admit(of(Kind::LIGHT)));
    let probe = permit(gate.admit(of(Kind::EXEMPT)));
    assert!(poll(&mut first).is_pending() && poll(&mut second).is_pending());
    drop(working);
    assert!(poll(&mut second).is_pending(), "it came later");
    let Poll::Ready(Ok(working)) = poll(&mut first) else { panic!("its turn") };
    let mut third = ticket(gate.admit(of(Kind::HEAVY)));
    drop(working);
    assert!(poll(&mut third).is_pending(), "it came last");
    assert!(matches!(poll(&mut second), Poll::Ready(Ok(_))));
    assert!(matches!(poll(&mut third), Poll::Ready(Ok(_))));
    let stats = gate.stats();
    assert_eq!((stats.heavy.in_flight, stats.heavy.peak_in_flight, stats.heavy.waited_total), (0, 1, 3));
    assert_eq!((stats.light.in_flight, stats.refused_for(Class::Ordinary, Reason::Busy)), (1, 1));
    drop((light, probe));
}

#[test]
fn a_wait_ends_at_the_lanes_time_or_the_askers_own_and_what_is_late_is_not_begun() {
    let (gate, clock, _) = gate(Settings { heavy: lane(1, 8, 1_000), ..Settings::default() });
    let working = permit(gate.admit(of(Kind::HEAVY)));
    let hurried = Arrival { time: Some(Duration::from_millis(200)), ..of(Kind::HEAVY) };
    let mut hurried = ticket(gate.admit(hurried));
    let mut patient = ticket(gate.admit(of(Kind::HEAVY)));
    clock.advance(Duration::from_millis(300));
    let mut late = ticket(gate.admit(Arrival { time: Some(Duration::from_secs(60)), ..of(Kind::HEAVY) }));
    drop(working);
    // The slot passes over the one whose time is over.
    let Poll::Ready(Err(refused)) = poll(&mut hurried) else { panic!("its time is over") };
    assert_eq!(refused.reason, Reason::Expired);
    let Poll::Ready(Ok(working)) = poll(&mut patient) else { panic!("its turn") };
    assert_eq!(working.waited(), Duration::from_millis(300));
    clock.advance(Duration::from_secs(1));
    drop(working);
    let Poll::Ready(Err(refused)) = poll(&mut late) else { panic!("longer than the lane allows") };
    assert_eq!(refused.reason, Reason::Expired);
    assert!(refused.retry_after >= RETRY_AFTER && refused.retry_after < 2 * RETRY_AFTER);
    let given = permit(gate.admit(Arrival { time: Some(Duration::from_secs(5)), ..of(Kind::HEAVY) }));
    clock.advance(Duration::from_secs(2));
    assert_eq!(given.time_left(gate.now()), Some(Duration::from_secs(3)));
}

#[test]
fn time_that_is_over_is_not_begun_however_the_slot_came() {
    let (gate, clock, _) = gate(Settings { heavy: lane(1, 8, 1_000), ..Settings::default() });
    let for_millis = |millis| Arrival { time: Some(Duration::from_millis(millis)), ..of(Kind::HEAVY) };
    assert_eq!(reason(gate.admit(for_millis(0))), Reason::Expired, "with a slot that is free");
    let probe = permit(gate.admit(Arrival { time: Some(Duration::ZERO), ..of(Kind::EXEMPT) }));
    // The slot comes in time, and is asked for too late.
    let working = permit(gate.admit(of(Kind::HEAVY)));
    let mut granted = ticket(gate.admit(for_millis(200)));
    let mut next = ticket(gate.admit(of(Kind::HEAVY)));
    clock.advance(Duration::from_millis(100));
    drop(working);
    clock.advance(Duration::from_millis(300));
    assert!(poll(&mut next).is_pending());
    assert!(matches!(poll(&mut granted), Poll::Ready(Err(refused)) if refused.reason == Reason::Expired));
    assert!(matches!(poll(&mut next), Poll::Ready(Ok(_))), "the slot went on to the next");
    // What waits within a request has no more time than that has.
    let outer = permit(gate.admit(Arrival { time: Some(Duration::from_millis(100)), ..of(Kind::LIGHT) }));
    let step = Arrival { within: Some(&outer), ..of(Kind::HEAVY) };
    assert_eq!(permit(gate.admit(step)).time_left(gate.now()), Some(Duration::from_millis(100)));
    clock.advance(Duration::from_millis(100));
    assert_eq!(reason(gate.admit(step)), Reason::Expired);
    let stats = gate.stats();
    assert_eq!((stats.heavy.in_flight, stats.refused_for(Class::Ordinary, Reason::Expired)), (0, 3));
    drop((probe, outer));
}

#[test]
fn closing_lets_begun_work_take_its_next_step_and_those_wait_who_are_part_of_it() {
    let (gate, clock, _) = gate(Settings { heavy: lane(1, 9, 1_000), ..Settings::default() });
    let working = permit(gate.admit(of(Kind::HEAVY)));
    let [begun, other] = [(); 2].map(|()| permit(gate.admit(of(Kind::LIGHT))));
    let mut waiting = ticket(gate.admit(Arrival { within: Some(&begun), ..of(Kind::HEAVY) }));
    let mut stranger = ticket(gate.admit(of(Kind::HEAVY)));
    gate.close();
    assert!(matches!(poll(&mut stranger), Poll::Ready(Err(refused)) if refused.reason == Reason::Closed));
    assert!(poll(&mut waiting).is_pending(), "it is part of what was begun");
    let mut later = ticket(gate.admit(Arrival { within: Some(&other), ..of(Kind::HEAVY) }));
    drop(working);
    assert!(matches!(poll(&mut waiting), Poll::Ready(Ok(_))));
    assert!(matches!(poll(&mut later), Poll::Ready(Ok(_))));
    let working = permit(gate.admit(Arrival { within: Some(&other), ..of(Kind::HEAVY) }));
    let mut late = ticket(gate.admit(Arrival { within: Some(&begun), ..of(Kind::HEAVY) }));
    clock.advance(Duration::from_secs(2));
    drop(working);
    assert!(matches!(poll(&mut late), Poll::Ready(Err(refused)) if refused.reason == Reason::Expired));
    let working = permit(gate.admit(Arrival { within: Some(&other), ..of(Kind::HEAVY) }));
    let mut orphan = ticket(gate.admit(Arrival { within: Some(&begun), ..of(Kind::HEAVY) }));
    drop(gate);
    assert!(
        matches!(poll(&mut orphan), Poll::Ready(Err(refused)) if refused.reason == Reason::Closed),
        "no timer is left"
    );
    drop((working, begun, other));
}

#[test]
fn the_timer_refuses_where_nothing_else_happens() {
    let heavy = lane(1, 8, 30);
    let gate = Gate::new(Settings { heavy, ..Settings::default() }, LevelCell::new());
    let _stuck = permit(gate.admit(of(Kind::HEAVY)));
    let refused = gate.admit_blocking(of(Kind::HEAVY)).unwrap_err();
    assert_eq!(refused.reason, Reason::Expired);
    assert_eq!(gate.stats().heavy.waiting, 0);
}

#[test]
fn a_waker_that_panics_takes_neither_the_timer_nor_the_slots_of_others_with_it() {
    struct Panics;
    impl std::task::Wake for Panics {
        fn wake(self: Arc<Self>) {
            panic!("a task's waker");
        }
    }
    let waker = Waker::from(Arc::new(Panics));
    let gate = Gate::new(Settings { heavy: lane(2, 8, 30), ..Settings::default() }, LevelCell::new());
    let stuck = [(); 2].map(|()| permit(gate.admit(of(Kind::HEAVY))));
    let mut bad = ticket(gate.admit(of(Kind::HEAVY)));
    assert!(std::pin::Pin::new(&mut bad).poll(&mut Context::from_waker(&waker)).is_pending());
    // One after the other, so that the timer must have outlived the first.
    for _ in 0..2 {
        let (tell, told) = std::sync::mpsc::sync_channel(1);
        let waits = gate.clone();
        std::thread::spawn(move || tell.send(waits.admit_blocking(of(Kind::HEAVY)).map(drop)));
        let refused = told.recv_timeout(Duration::from_secs(60)).expect("the timer lives").unwrap_err();
        assert_eq!(refused.reason, Reason::Expired);
    }
    assert_eq!(gate.stats().waker_panics_total, 1);
    drop((stuck, bad));

    let (gate, ..) = self::gate(Settings { heavy: lane(1, 8, 1_000), ..Settings::default() });
    let working = permit(gate.admit(of(Kind::HEAVY)));
    let mut bad = ticket(gate.admit(of(Kind::HEAVY)));
    assert!(std::pin::Pin::new(&mut bad).poll(&mut Context::from_waker(&waker)).is_pending());
    drop(working);
    assert_eq!((gate.stats().waker_panics_total, gate.stats().heavy.in_flight), (1, 1), "the slot is its ticket's");
}

#[test]
fn nested_work_takes_no_second_slot_and_heavy_within_light_takes_a_heavy_one() {
    let (gate, _, _) = gate(Settings { heavy: lane(1, 0, 0), per_peer: Some(1), ..Settings::default() });
    let peer = Peer::name("a");
    fn arrival<'a>(kind: Kind, peer: &'a Peer, within: Option<&'a Permit>) -> Arrival<'a> {
        Arrival { kind, within, peer: Some(peer), time: None }
    }
    let outer = permit(gate.admit(arrival(Kind::HEAVY, &peer, None)));
    let inner = permit(gate.admit(arrival(Kind::HEAVY, &peer, Some(&outer))));
    let innermost = permit(gate.admit(arrival(Kind::LIGHT, &peer, Some(&inner))));
    assert_eq!((gate.stats().heavy.in_flight, gate.stats().nested_total), (1, 2));
    drop((outer, inner));
    assert_eq!(gate.stats().heavy.in_flight, 1, "as long as one of them works");
    drop(innermost);
    assert_eq!((gate.stats().heavy.in_flight, gate.stats().peers), (0, 0));

    let light = permit(gate.admit(arrival(Kind::LIGHT, &peer, None)));
    let heavy = permit(gate.admit(arrival(Kind::HEAVY, &peer, Some(&light))));
    assert_eq!((gate.stats().light.in_flight, gate.stats().heavy.in_flight), (1, 1), "the peer's cap was passed once");
    let again = permit(gate.admit(arrival(Kind::HEAVY, &peer, Some(&heavy))));
    assert_eq!(gate.stats().heavy.in_flight, 1);
    drop((heavy, again));
    assert_eq!((gate.stats().light.in_flight, gate.stats().heavy.in_flight), (1, 0));

    let (other, ..) = self::gate(Settings { heavy: lane(1, 0, 0), ..Settings::default() });
    let theirs = permit(other.admit(of(Kind::HEAVY)));
    let ours = permit(gate.admit(Arrival { within: Some(&theirs), ..of(Kind::HEAVY) }));
    assert_eq!(gate.stats().heavy.in_flight, 1, "another gate's permit is none of this one's");
    drop((ours, light));
}

#[test]
fn a_permit_keeps_what_it_was_found_within_whichever_gate_that_is_of() {
    let settings = Settings { heavy: lane(1, 8, 1_000), per_peer: Some(1), ..Settings::default() };
    let ((service, ..), (route, ..), (other, ..)) = (gate(settings), gate(settings), gate(settings));
    let peer = Peer::name("a");
    let arrival = |within| Arrival { peer: Some(&peer), within, ..of(Kind::HEAVY) };
    let first = permit(service.admit(arrival(None)));
    let second = permit(route.admit(arrival(Some(&first))));
    let probe = permit(other.admit(Arrival { kind: Kind::EXEMPT, ..arrival(Some(&second)) }));
    // A sub-request passes both gates once more.
    let again = permit(service.admit(arrival(Some(&probe))));
    let innermost = permit(route.admit(arrival(Some(&again))));
    for gate in [&service, &route] {
        let stats = gate.stats();
        assert_eq!((stats.heavy.in_flight, stats.nested_total, stats.refused_total()), (1, 1, 0));
    }
    drop((first, second, probe, again));
    assert_eq!((service.stats().heavy.in_flight, route.stats().heavy.in_flight), (1, 1), "the work goes on");
    drop(innermost);
    assert_eq!((service.stats().heavy.in_flight, route.stats().heavy.in_flight), (0, 0));
}

#[test]
fn an_adaptive_lane_hears_of_those_who_go_away_but_not_of_a_part_that_is_given_up() {
    let light = Lane {
        slots: Slots::Adaptive(Adapt { min: 40, max: 200, ..Adapt::default() }),
        waiting: 0,
        wait: Duration::ZERO,
    };
    let (gate, clock, _) = gate(Settings { light, ..Settings::default() });
    let ask = |millis, gone| {
        let request = permit(gate.admit(of(Kind::LIGHT)));
        // A part of it, given up early, as a future is that loses a race.
        permit(gate.admit(Arrival { within: Some(&request), ..of(Kind::LIGHT) })).abandon();
        clock.advance(Duration::from_millis(millis));
        if gone {
            request.abandon();
        }
    };
    for _ in 0..400 {
        let full: Vec<_> = std::iter::from_fn(|| match gate.admit(of(Kind::LIGHT)) {
            Answer::Now(permit) => Some(permit),
            _ => None,
        })
        .collect();
        clock.advance(Duration::from_millis(10));
        drop(full);
    }
    let grown = gate.stats().light.slots;
    assert!(grown > 100, "{grown}");
    (0..100).for_each(|_| ask(5, false));
    assert_eq!(gate.stats().light.base_latency, Some(Duration::from_millis(5)));
    (0..100).for_each(|_| ask(1_000, true));
    assert_eq!(gate.stats().light.slots, 40);
}

#[test]
fn a_peers_cap_counts_what_waits_and_names_who_it_is() {
    let (gate, _, _) = gate(Settings { heavy: lane(1, 9, 1_000), per_peer: Some(3), ..Settings::default() });
    let (greedy, other) = (Peer::name("greedy"), Peer::name("other"));
    let arrival = |peer| Arrival { peer: Some(peer), ..of(Kind::HEAVY) };
    let working = permit(gate.admit(arrival(&greedy)));
    let waiting = [ticket(gate.admit(arrival(&greedy))), ticket(gate.admit(arrival(&greedy)))];
    assert_eq!(reason(gate.admit(arrival(&greedy))), Reason::Peer);
    let mut neighbour = ticket(gate.admit(arrival(&other)));
    let top = gate.top_peers(1);
    assert_eq!((top[0].peer.to_string(), top[0].requests, top[0].refused), ("greedy".to_owned(), 3, 1));
    drop(waiting);
    drop(working);
    assert!(matches!(poll(&mut neighbour), Poll::Ready(Ok(_))));
    assert_eq!((gate.stats().peers, gate.stats().abandoned_total), (0, 2));
}

#[test]
fn peers_that_cannot_be_told_are_not_taken_for_one_and_are_counted() {
    let settings = Settings { per_peer: Some(2), ..Settings::default() };
    let arrival = Arrival { peer: Some(&Peer::Unknown), ..of(Kind::LIGHT) };
    let (gate, ..) = gate(settings);
    let permits: Vec<_> = (0..100).map(|_| permit(gate.admit(arrival))).collect();
    let named = permit(gate.admit(Arrival { peer: Some(&Peer::name("a")), ..arrival }));
    assert_eq!((gate.stats().unknown_peers_total, gate.stats().refused_total()), (100, 0));
    let top = gate.top_peers(1);
    assert_eq!((&top[0].peer, top[0].requests), (&Peer::Unknown, 100), "they are seen");
    drop((permits, named));
    assert_eq!(gate.stats().peers, 0);

    let (gate, ..) = self::gate(Settings { unknown_peers: Some(3), ..settings });
    let permits: Vec<_> = (0..3).map(|_| permit(gate.admit(arrival))).collect();
    assert_eq!(reason(gate.admit(arrival)), Reason::Peer);
    assert_eq!(gate.stats().unknown_peers_total, 4);
    drop(permits);
    assert_eq!(gate.stats().peers, 0);
}

#[test]
fn those_refused_together_are_told_to_come_back_at_different_times_in_whole_seconds_too() {
    for (retry_after_ms, shares) in
        [(1_000, &[(1, 0.5), (2, 0.5)][..]), (200, &[(1, 0.5), (2, 0.5)]), (2_000, &[(2, 0.25), (3, 0.5), (4, 0.25)])]
    {
        let retry_after = Duration::from_millis(retry_after_ms);
        let (gate, ..) = gate(Settings { heavy: lane(0, 0, 0), retry_after, ..Settings::default() });
        let mut told = std::collections::BTreeMap::new();
        for _ in 0..4_000 {
            let Answer::Refused(refused) = gate.admit(of(Kind::HEAVY)) else { panic!("there is no slot") };
            assert!((retry_after..2 * retry_after).contains(&refused.retry_after));
            *told.entry(refused.retry_after_seconds()).or_insert(0) += 1;
        }
        assert_eq!(told.len(), shares.len(), "{told:?}");
        for (seconds, share) in shares {
            let seen = f64::from(told[seconds]) / 4_000.0;
            assert!((seen - share).abs() < 0.05, "{retry_after_ms} ms: {told:?}");
        }
    }
    let (gate, ..) = gate(Settings { heavy: lane(0, 0, 0), retry_after: Duration::MAX, ..Settings::default() });
    let Answer::Refused(refused) = gate.admit(of(Kind::HEAVY)) else { panic!("there is no slot") };
    assert_eq!((refused.retry_after, refused.retry_after_seconds()), (Duration::MAX, u64::MAX));
}

#[test]
fn closing_refuses_those_who_wait_and_come_but_not_probes_nor_what_is_worked_on() {
    let (gate, _, _) = gate(Settings { heavy: lane(1, 9, 1_000), ..Settings::default() });
    let working = permit(gate.admit(of(Kind::HEAVY)));
    let mut waiting = ticket(gate.admit(of(Kind::HEAVY)));
    let mut orphan = ticket(gate.admit(of(Kind::HEAVY)));
    gate.close();
    assert!(matches!(poll(&mut waiting), Poll::Ready(Err(refused)) if refused.reason == Reason::Closed));
    assert_eq!(reason(gate.admit(of(Kind::LIGHT))), Reason::Closed);
    assert!(matches!(gate.admit(of(Kind::EXEMPT)), Answer::Now(_)));
    let nested = gate.admit(Arrival { within: Some(&working), ..of(Kind::HEAVY) });
    assert!(matches!(nested, Answer::Now(_)), "what is worked on is finished");
    drop((nested, gate, working));
    assert!(matches!(poll(&mut orphan), Poll::Ready(Err(_))), "tickets and permits outlive the gate");
}

#[test]
fn threads_never_exceed_the_slots_and_nobody_waits_for_ever() {
    let settings = Settings { heavy: lane(3, 64, 20_000), ..Settings::default() };
    let gate = Gate::new(settings, LevelCell::new());
    let inside = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                for _ in 0..2_000 {
                    let permit = gate.admit_blocking(of(Kind::HEAVY)).unwrap();
                    assert!(inside.fetch_add(1, Ordering::SeqCst) < 3);
                    std::hint::spin_loop();
                    inside.fetch_sub(1, Ordering::SeqCst);
                    drop(permit);
                }
            });
        }
    });
    let stats = gate.stats();
    assert_eq!((stats.heavy.in_flight, stats.heavy.waiting, stats.admitted_total()), (0, 0, 16_000));
}

#[derive(Clone, Debug)]
enum Step {
    Come { heavy: bool, peer: u8, time: u64 },
    Finish(usize),
    GiveUp(usize),
    Pass(u64),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => (any::<bool>(), 0..3u8, 1..400u64).prop_map(|(heavy, peer, time)| Step::Come { heavy, peer, time }),
        4 => (0..8usize).prop_map(Step::Finish),
        1 => (0..8usize).prop_map(Step::GiveUp),
        2 => (1..300u64).prop_map(Step::Pass),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    /// Whatever comes, finishes, gives up or waits too long: no bound is passed, every request is accounted for, and nothing is left.
    #[test]
    fn every_request_is_let_in_refused_or_gave_up(steps in proptest::collection::vec(step(), 1..150)) {
        let settings = Settings { light: lane(3, 2, 150), heavy: lane(2, 3, 200), per_peer: Some(4), ..Settings::default() };
        let (gate, clock, _) = gate(settings);
        let peers = [Peer::name("a"), Peer::name("b"), Peer::name("c")];
        let (mut permits, mut tickets) = (Vec::new(), Vec::new());
        let (mut came, mut admitted, mut refused, mut gone) = (0u64, 0u64, 0u64, 0u64);
        for step in steps {
            match step {
                Step::Come { heavy, peer, time } => {
                    came += 1;
                    let kind = if heavy { Kind::HEAVY } else { Kind::LIGHT };
                    let time = Some(Duration::from_millis(time));
                    match gate.admit(Arrival { kind, peer: Some(&peers[usize::from(peer)]), time, within: None }) {
                        Answer::Now(permit) => {
                            admitted += 1;
                            permits.push(permit);
                        }
                        Answer::Wait(ticket) => tickets.push(ticket),
                        Answer::Refused(_) => refused += 1,
                    }
                }
                Step::Finish(which) if which < permits.len() => drop(permits.remove(which)),
                Step::GiveUp(which) if which < tickets.len() => {
                    gone += 1;
                    drop(tickets.remove(which));
                }
                Step::Finish(_) | Step::GiveUp(_) => {}
                Step::Pass(millis) => clock.advance(Duration::from_millis(millis)),
            }
            tickets.retain_mut(|ticket| match poll(ticket) {
                Poll::Pending => true,
                Poll::Ready(Ok(permit)) => {
                    admitted += 1;
                    permits.push(permit);
                    false
                }
                Poll::Ready(Err(_)) => {
                    refused += 1;
                    false
                }
            });
            let stats = gate.stats();
            prop_assert!(stats.light.in_flight <= 3 && stats.heavy.in_flight <= 2);
            prop_assert!(stats.light.waiting <= 2 && stats.heavy.waiting <= 3);
            prop_assert_eq!(stats.light.in_flight + stats.heavy.in_flight, permits.len() as u64);
            prop_assert!(gate.top_peers(3).iter().all(|figures| figures.requests <= 4));
            prop_assert_eq!((stats.admitted_total(), stats.refused_total()), (admitted, refused));
            prop_assert_eq!(came, admitted + refused + gone + tickets.len() as u64);
        }
        drop((permits, tickets));
        let stats = gate.stats();
        prop_assert_eq!((stats.light.in_flight, stats.heavy.in_flight, stats.peers), (0, 0, 0));
    }
}
