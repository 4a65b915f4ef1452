//! Tables and properties over the pure function: each row is a moment, a reading and what must follow.

use proptest::prelude::*;

use super::*;
use crate::governor::{
    BLIND_INTERVAL, CRITICAL_INTERVAL, Cause, Decision, confirm_is_urgent, confirm_pause, step, wants_confirm,
};
use crate::level::Level::{self, Critical, Elevated, High, Normal};
use crate::policy::BlindPolicy;

const GONE: Unread = Unread::Missing("memory.stat");

/// One moment: milliseconds, MiB that were read (or not), the level and cause that must follow.
type Row = (u64, Result<u64, Unread>, Level, Cause);

fn check(name: &str, policy: &Policy, rows: &[Row]) -> (State, Vec<Decision>) {
    let (mut state, mut decisions) = (State::default(), Vec::new());
    for (n, (at_ms, read, level, cause)) in rows.iter().enumerate() {
        let reading = confirmed(ms(*at_ms), read.map(|mib| mib * MIB));
        let (next, decision) = step(policy, state, &reading);
        assert_eq!((decision.level, decision.cause), (*level, *cause), "{name}, row {n}: {decision:#?}");
        assert_eq!(decision.previous, state.level(), "{name}, row {n}");
        state = next;
        decisions.push(decision);
    }
    (state, decisions)
}

#[test]
fn levels_are_entered_at_their_marks_and_left_after_the_dwell() {
    check(
        "one by one",
        &policy(),
        &[
            (0, Ok(224), Normal, Cause::Steady),
            (1, Ok(225), Elevated, Cause::EnteredMark),
            (2, Ok(263), Elevated, Cause::Steady),
            (3, Ok(264), High, Cause::EnteredMark),
            (4, Ok(299), High, Cause::Steady),
            (5, Ok(300), Critical, Cause::EnteredMark),
            (6, Ok(285), Critical, Cause::Steady), // at the leave mark: not below it
            (1_000, Ok(284), Critical, Cause::Steady), // the dwell begins
            (5_999, Ok(284), Critical, Cause::Steady),
            (6_000, Ok(284), High, Cause::LeftMark),
            (6_001, Ok(248), High, Cause::Steady),
            (11_000, Ok(249), High, Cause::Steady), // back above: the dwell begins anew
            (11_001, Ok(248), High, Cause::Steady),
            (16_000, Ok(248), High, Cause::Steady),
            (16_001, Ok(209), Elevated, Cause::LeftMark), // below 210 only since now
            (21_000, Ok(209), Elevated, Cause::Steady),
            (21_001, Ok(209), Normal, Cause::LeftMark),
        ],
    );
    check(
        "straight up, straight down",
        &policy(),
        &[
            (0, Ok(900), Critical, Cause::EnteredMark),
            (10, Ok(10), Critical, Cause::Steady),
            (5_009, Ok(10), Critical, Cause::Steady),
            (5_010, Ok(10), Normal, Cause::LeftMark),
        ],
    );
    check(
        "a spike in the dwell",
        &policy(),
        &[
            (0, Ok(270), High, Cause::EnteredMark),
            (10, Ok(100), High, Cause::Steady),
            (4_000, Ok(300), Critical, Cause::EnteredMark),
            (4_010, Ok(100), Critical, Cause::Steady),
            (9_009, Ok(100), Critical, Cause::Steady),
            (9_010, Ok(100), Normal, Cause::LeftMark),
        ],
    );
}

#[test]
fn a_sustain_is_a_time_above_the_mark_without_a_break() {
    let sustained = Policy { sustain: [ms(0), ms(0), ms(30_000)], ..policy() };
    let (_, decisions) = check(
        "for 30s",
        &sustained,
        &[
            (0, Ok(301), High, Cause::EnteredMark), // High needs no sustain
            (29_999, Ok(301), High, Cause::Steady),
            (30_000, Ok(299), High, Cause::Steady), // a break: it begins anew
            (30_010, Ok(301), High, Cause::Steady),
            (60_009, Ok(400), High, Cause::Steady),
            (60_010, Ok(301), Critical, Cause::Sustained),
        ],
    );
    assert_eq!(decisions[0].sleep, CRITICAL_INTERVAL, "above the budget it looks closely, whatever the sustain");
    assert_eq!(decisions[4].sleep, ms(1), "the end of the sustain is not slept through");
    let all = Policy { sustain: [ms(1_000); 3], ..policy() };
    check("skips levels", &all, &[(0, Ok(350), Normal, Cause::Steady), (1_000, Ok(350), Critical, Cause::Sustained)]);
}

#[test]
fn blindness_is_said_once_and_holds_the_level() {
    let (_, decisions) = check(
        "hold",
        &policy(),
        &[
            (0, Ok(270), High, Cause::EnteredMark),
            (10, Err(GONE), High, Cause::WentBlind),
            (110, Err(GONE), High, Cause::Steady),
            (9_000_000, Err(GONE), High, Cause::Steady),
            (9_000_100, Ok(270), High, Cause::Sighted),
            (9_000_200, Ok(270), High, Cause::Steady),
        ],
    );
    assert_eq!(decisions.iter().map(|d| d.blind).collect::<Vec<_>>(), [false, true, true, true, false, false]);
    assert_eq!(decisions[1].unread, Some(GONE));
    assert_eq!(decisions[2].sleep, BLIND_INTERVAL);
    assert_eq!(decisions[3].charged_bytes, Some(270 * MIB), "the last that was known, never 0");
    check(
        "from the start",
        &policy(),
        &[(0, Err(GONE), Normal, Cause::WentBlind), (9, Err(GONE), Normal, Cause::Steady)],
    );
    check(
        "crossed while blind",
        &policy(),
        &[(0, Err(GONE), Normal, Cause::WentBlind), (9, Ok(300), Critical, Cause::EnteredMark)],
    );
}

#[test]
fn a_policy_may_assume_a_level_while_blind() {
    let assume = Policy { blind: BlindPolicy::Assume { after: ms(2_000), level: High }, ..policy() };
    check(
        "assume",
        &assume,
        &[
            (0, Ok(10), Normal, Cause::Steady),
            (1_000, Err(GONE), Normal, Cause::WentBlind),
            (2_999, Err(GONE), Normal, Cause::Steady),
            (3_000, Err(GONE), High, Cause::AssumedBlind),
            (4_000, Err(GONE), High, Cause::Steady),
            (4_100, Ok(10), Normal, Cause::Sighted), // without a dwell: nothing was ever above a mark
        ],
    );
    check(
        "never lower",
        &assume,
        &[
            (0, Ok(300), Critical, Cause::EnteredMark),
            (10, Err(GONE), Critical, Cause::WentBlind),
            (9_000, Err(GONE), Critical, Cause::Steady),
        ],
    );
}

#[test]
fn a_budget_that_changes_at_run_time_moves_the_marks() {
    let state = after(&policy(), ms(0), 200 * MIB);
    assert_eq!(state.level(), Normal);
    let lower = Policy::new(200 * MIB, 100 * MIB);
    assert!(wants_confirm(&lower, &state, ms(1), Some(200 * MIB), None), "the lower mark is looked at at once");
    let (state, decision) = step(&lower, state, &confirmed(ms(1), Ok(200 * MIB)));
    assert_eq!((decision.level, decision.budget_bytes), (Critical, Some(200 * MIB)));
    // Raised again: left after the dwell, counted from the first reading under the new marks.
    let (state, decision) = step(&policy(), state, &confirmed(ms(10), Ok(200 * MIB)));
    assert_eq!(decision.level, Critical);
    let (state, decision) = step(&policy(), state, &confirmed(ms(5_010), Ok(200 * MIB)));
    assert_eq!((decision.level, decision.cause), (Normal, Cause::LeftMark));
    // The budget taken away: no marks, no level; the next reading need not be a confirmed one.
    let (state, _) = step(&lower, state, &confirmed(ms(5_020), Ok(200 * MIB)));
    let (state, decision) = step(&Policy::observe(), state, &fast_only(ms(5_030), 200 * MIB));
    assert_eq!((decision.level, decision.cause, decision.time_to_limit), (Normal, Cause::BudgetGone, None));
    let (_, decision) = step(&Policy::observe(), state, &confirmed(ms(5_040), Ok(900 * MIB)));
    assert_eq!((decision.level, decision.sleep), (Normal, Policy::observe().poll_interval));
}

#[test]
fn the_time_to_limit_is_told_when_it_is_known() {
    // 100 MiB/s from 100 MiB: after 0.5 s there are 150 MiB to go.
    let (mut state, mut last) = (State::default(), None);
    for n in 0..=10 {
        let (next, decision) = step(&policy(), state, &confirmed(ms(n * 50), Ok((100 + 5 * n) * MIB)));
        (state, last) = (next, Some(decision));
    }
    let last = last.expect("eleven readings");
    let seconds = last.time_to_limit.expect("a limit ahead").as_secs_f64();
    assert!((seconds - 1.5).abs() < 0.01, "{last:?}");
    let (_, at_limit) = step(&policy(), state, &confirmed(ms(600), Ok(300 * MIB)));
    assert_eq!(at_limit.time_to_limit, Some(Duration::ZERO));
    let (_, decision) = step(&policy(), after(&policy(), ms(0), 50 * MIB), &confirmed(ms(10), Ok(60 * MIB)));
    assert_eq!((decision.growth, decision.time_to_limit), (None, None), "two readings are no slope");
}

#[test]
fn the_sleep_is_the_room_over_the_fastest_fill() {
    let fill = |mib: u64| Duration::from_nanos(mib * MIB * 1_000_000_000 / policy().fill_bytes_per_second);
    for (mib, sleep) in [
        (25, fill(200)),     // to the first mark
        (224, fill(76) / 4), // a quarter of the room to the budget: it rests just below a mark
        (264, fill(36)),     // Critical itself is never late
        (299, ms(1)),        // the shortest sleep
        (300, CRITICAL_INTERVAL),
    ] {
        let (_, decision) = step(&policy(), State::default(), &confirmed(ms(0), Ok(mib * MIB)));
        let error = decision.sleep.abs_diff(sleep);
        assert!(error <= Duration::from_nanos(2), "{mib} MiB: {:?}, not {sleep:?}", decision.sleep);
    }
    let wide = Policy::new(64 << 30, 1 << 30);
    let (_, decision) = step(&wide, State::default(), &confirmed(ms(0), Ok(0)));
    assert_eq!(decision.sleep, wide.poll_interval, "the longest sleep");
}

#[test]
fn a_kernel_guard_allows_the_longest_sleep_only_where_it_comes_in_time() {
    for (mib, guard_mib, holds) in [
        (20, Some(38), true),
        (20, None, false),
        (20, Some(20), false),  // not above the present usage
        (20, Some(161), false), // more than half-way to the budget
        (220, Some(225), true),
        (240, Some(263), false), // closer than an eighth of the budget
    ] {
        let guard_bytes = guard_mib.map(|mib: u64| mib * MIB);
        let reading = Reading { guard_bytes, ..confirmed(ms(0), Ok(mib * MIB)) };
        let (_, decision) = step(&policy(), State::default(), &reading);
        assert_eq!(decision.sleep == policy().poll_interval, holds, "{mib} {guard_mib:?}: {:?}", decision.sleep);
    }
}

#[test]
fn memory_that_the_fast_number_does_not_see_is_added_to_it() {
    // 150 MiB of the 250 are swapped out and the fast number only sees the rest.
    let reading = Reading { fast_bytes: Some(100 * MIB), ..confirmed(ms(0), Ok(250 * MIB)) };
    let (state, _) = step(&policy(), State::default(), &reading);
    assert_eq!(state.level(), Elevated);
    assert!(!wants_confirm(&policy(), &state, ms(1), Some(100 * MIB), None));
    assert!(wants_confirm(&policy(), &state, ms(1), Some(114 * MIB), None), "264 MiB with what is not seen");
    let (_, decision) = step(&policy(), state, &fast_only(ms(1), 110 * MIB));
    assert!(decision.sleep < ms(25), "40 MiB are left, not 190: {:?}", decision.sleep);
}

#[test]
fn a_dear_confirmed_reading_is_paced_and_an_urgent_one_less() {
    assert_eq!(confirm_pause(&policy(), Duration::from_micros(20), false), Duration::ZERO);
    assert_eq!(confirm_pause(&policy(), ms(5), false), ms(50));
    assert_eq!(confirm_pause(&policy(), ms(5), true), ms(10));
    // 100 MiB and 250 MiB of page cache: wanted, not urgent, until another 125 MiB appear.
    let reading = Reading { fast_bytes: Some(350 * MIB), ..confirmed(ms(0), Ok(100 * MIB)) };
    let (state, _) = step(&policy(), State::default(), &reading);
    for (fast_mib, urgent) in [(350, false), (474, false), (475, true)] {
        assert!(wants_confirm(&policy(), &state, ms(1), Some(fast_mib * MIB), None));
        assert_eq!(confirm_is_urgent(&policy(), &state, Some(fast_mib * MIB)), urgent, "{fast_mib}");
    }
}

fn any_policy() -> impl Strategy<Value = Policy> {
    let wait = 0u64..3_000;
    (32u64..4096, prop::array::uniform3(wait), 0u64..6_000, 20u64..2_000, any::<bool>()).prop_map(
        |(budget_mib, sustain, dwell, poll, observe)| Policy {
            budget_bytes: (!observe).then_some(budget_mib * MIB),
            sustain: sustain.map(ms),
            dwell: ms(dwell),
            poll_interval: ms(poll),
            ..policy()
        },
    )
}

/// What one sample may see: time since the last one, fast, confirmed (or not tried, or failed), guard.
fn any_sample() -> impl Strategy<Value = (u64, Option<u64>, Option<Option<u64>>, Option<u64>)> {
    let bytes = prop_oneof![0..600 * MIB, 0..8192 * MIB, any::<u64>()];
    let confirmed = prop::option::weighted(0.5, prop::option::weighted(0.9, bytes.clone()));
    (0u64..2_000_000, prop::option::weighted(0.9, bytes.clone()), confirmed, prop::option::of(bytes))
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, ..ProptestConfig::default() })]

    /// Whatever comes in: no panic, sleeps in their bounds, a level rises only with a confirmed reading at or above its
    /// mark, and Critical is entered exactly at the budget.
    #[test]
    fn a_level_rises_only_by_what_was_confirmed(policy in any_policy(), samples in prop::collection::vec(any_sample(), 1..80)) {
        prop_assert!(policy.validate().is_ok());
        let (mut state, mut at) = (State::default(), Duration::ZERO);
        for (micros, fast_bytes, tried, guard_bytes) in samples {
            at += Duration::from_micros(micros);
            let confirmed = tried.map(|read| read.map(protected).ok_or(GONE));
            let reading = Reading { at, fast_bytes, confirmed, guard_bytes, supply: None };
            let was_blind = state.blind_since().is_some();
            wants_confirm(&policy, &state, at, fast_bytes, guard_bytes);
            let (next, decision) = step(&policy, state, &reading);
            prop_assert!((policy.min_interval..=policy.poll_interval).contains(&decision.sleep), "{decision:?}");
            if decision.level > state.level() {
                let bytes = tried.flatten();
                prop_assert!(bytes >= policy.mark_bytes(decision.level) && bytes.is_some(), "{decision:?}");
                prop_assert!(decision.confirmed);
            }
            if decision.level < state.level() {
                prop_assert!(decision.confirmed || policy.budget_bytes.is_none(), "{decision:?}");
            }
            if let (Some(Some(bytes)), Some(budget), true) = (tried, policy.budget_bytes, policy.sustain[2].is_zero()) {
                prop_assert!(bytes < budget || decision.level == Critical, "{decision:?}");
            }
            prop_assert_eq!(decision.cause == Cause::WentBlind, tried == Some(None) && !was_blind);
            state = next;
        }
    }

    /// The fast number alone, whatever it does after any confirmed reading, never changes a level, in either direction.
    #[test]
    fn fast_alone_never_moves_a_level(policy in any_policy(), bytes in 0..600 * MIB, fast in prop::collection::vec((0u64..2_000_000, any::<u64>()), 1..50)) {
        let mut state = after(&policy, Duration::ZERO, bytes);
        let (level, mut at) = (state.level(), Duration::ZERO);
        for (micros, fast) in fast {
            at += Duration::from_micros(micros);
            let (next, decision) = step(&policy, state, &fast_only(at, fast));
            prop_assert_eq!((decision.level, decision.is_change()), (level, false));
            state = next;
        }
    }

    /// A sample that was not worth a confirmed reading could not have raised the level: the upper bound was below the mark.
    #[test]
    fn what_is_not_confirmed_is_below_the_next_mark(policy in any_policy(), bytes in 0..600 * MIB, cache in 0..600 * MIB, fast in 0..1200 * MIB) {
        let reading = Reading { fast_bytes: Some(bytes + cache), ..confirmed(Duration::ZERO, Ok(bytes)) };
        let (state, _) = step(&policy, State::default(), &reading);
        if !wants_confirm(&policy, &state, Duration::ZERO, Some(fast), None) {
            let next = Level::ALL.get(state.level() as usize + 1).and_then(|level| policy.mark_bytes(*level));
            prop_assert!(next.is_none_or(|mark| fast < mark), "{fast} {next:?}");
        }
    }
}
