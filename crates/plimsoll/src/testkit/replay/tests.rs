//! The same policy gives the same decisions, whatever was read; another one says what would have been different.

use proptest::prelude::*;

use super::*;
use crate::event::Supply;
use crate::gauge::{Protected, Unread};
use crate::governor::log::{Line, parse};
use crate::level::Level;
use crate::testkit::{CacheSettings, Plant, PlantSettings};

const MIB: u64 = 1 << 20;

/// The text that a governor over these readings would have written.
fn log_of(changes: &[(usize, Policy)], readings: &[Reading]) -> Vec<u8> {
    let mut line = Line::new();
    let mut text = line.header().to_vec();
    let at = readings.first().map_or(Duration::ZERO, |reading| reading.at);
    text.extend_from_slice(line.encode(&Record::Start { at, at_unix: at }));
    let (mut replay, mut policy) = (Replay::default(), Policy::observe());
    for (i, reading) in readings.iter().enumerate() {
        for (_, changed) in changes.iter().filter(|(from, _)| *from == i) {
            policy = *changed;
            text.extend_from_slice(line.encode(&Record::Policy { at: reading.at, policy }));
        }
        let decision = replay.decide(&policy, reading);
        text.extend_from_slice(line.encode(&Record::Sample { reading: *reading, decision }));
    }
    text
}

fn recording(text: &[u8]) -> Recording {
    Recording::from_log(&parse(text).expect("a log")).expect("a recording")
}

fn at_mib(second: f64, mib: u64) -> Reading {
    let protected = Protected { program_bytes: mib * MIB, ..Protected::default() };
    let at = Duration::from_secs_f64(second);
    Reading { at, fast_bytes: Some(mib * MIB), confirmed: Some(Ok(protected)), ..Reading::default() }
}

proptest! {
    /// Any course of readings, blindness, supplies and changes of the policy: replayed under its own policies, not one decision differs.
    #[test]
    fn the_same_policy_reproduces_the_log_exactly(
        steps in prop::collection::vec((1u64..3_000_000_000, 0u64..400, 0u64..300, 0u8..20, any::<bool>()), 1..120),
        change_at in 0usize..120,
        budget in 64u64..512,
    ) {
        let (mut at, mut claimed) = (Duration::from_secs(1_000), 0);
        let readings: Vec<Reading> = steps
            .iter()
            .map(|(gap, mib, held, kind, stores)| {
                at += Duration::from_nanos(*gap);
                claimed += held % 7 * MIB;
                let confirmed = match kind {
                    0 => Some(Err(Unread::Denied("recorded reading"))),
                    1 => None,
                    _ => at_mib(0.0, *mib).confirmed,
                };
                let supply = Supply { held_bytes: held * MIB, claimed_bytes_total: claimed, ..Supply::default() };
                Reading { at, confirmed, supply: stores.then_some(supply), ..at_mib(0.0, *mib) }
            })
            .collect();
        let changes = [(0, Policy::new(300 * MIB, 100 * MIB)), (change_at, Policy::new(budget * MIB, 0))];
        let reproduction = recording(&log_of(&changes, &readings)).reproduce();
        prop_assert_eq!(reproduction.decisions, readings.len());
        prop_assert_eq!((reproduction.differing, reproduction.unsettled, reproduction.first), (0, 0, None));
    }
}

#[test]
fn a_changed_decision_is_found_and_one_in_mid_life_is_not_held_against_it() {
    let readings: Vec<Reading> = (0..30).map(|s| at_mib(f64::from(s), 200 + u64::from(s as u32) * 4)).collect();
    let text = String::from_utf8(log_of(&[(0, Policy::new(300 * MIB, 100 * MIB))], &readings)).unwrap();
    let forged = text.replacen("level=high was=elevated", "level=critical was=elevated", 1);
    assert_ne!(forged, text);
    let found = recording(forged.as_bytes()).reproduce();
    assert_eq!((found.decisions, found.differing, found.unsettled), (30, 1, 0));
    let (recorded, replayed) = found.first.unwrap();
    assert_eq!((recorded.level, replayed.level), (Level::Critical, Level::High));
    // Without its first lines: what was remembered is not known, the level is.
    let lines: Vec<&str> = text.lines().collect();
    let rest = [&lines[..1], &lines[2..3], &lines[20..]].concat().join("\n") + "\n";
    let found = recording(rest.as_bytes()).reproduce();
    assert_eq!((found.decisions, found.differing), (13, 0));
    assert!(found.unsettled > 0, "the slope is another one at first");
}

#[test]
fn a_log_without_its_begin_or_without_a_sample_is_refused() {
    let text = log_of(&[(0, Policy::observe())], &[at_mib(1.0, 5)]);
    let text = String::from_utf8(text).unwrap();
    let without =
        |word: &str| text.lines().filter(|line| !line.starts_with(word)).map(|l| format!("{l}\n")).collect::<String>();
    let error = |text: &str| Recording::from_log(&parse(text.as_bytes()).unwrap()).unwrap_err();
    assert_eq!(error(&without("policy")), ReplayError::NoPolicy { record: 2 });
    assert_eq!(error(&without("sample")), ReplayError::Empty);
}

#[test]
fn a_trace_is_read_in_every_usual_form_and_damage_is_named() {
    let policy = Policy::new(300 * MIB, 0);
    let plain = Recording::from_trace(b"0,100000000\n0.5,200000000\n", &policy).unwrap();
    for same in [
        "time,bytes\n0,100000000\n0.5,200000000\n",
        "# from somewhere\n\n0 100000000\n0.5\t200000000 extra columns\n",
        "0s;100000000B\r\n500ms;200000000B",
    ] {
        assert_eq!(Recording::from_trace(same.as_bytes(), &policy).unwrap(), plain, "{same:?}");
    }
    for (text, expected) in [
        ("0,5\n1,x\n", "byte 4, line 2: bytes: \"x\" does not begin"),
        ("0,5\n7\n", "byte 4, line 2: \"7\": expected time,bytes"),
        ("5,5\n4,5\n", "byte 4, line 2: 4 s after 5 s: time goes back"),
        ("time,bytes\nmore words\n", "byte 11, line 2: time:"),
        ("0,-5\n", "byte 0, line 1: bytes: \"-5\" is negative"),
        ("", "no sample in it"),
        ("# nothing\n", "no sample in it"),
    ] {
        let error = Recording::from_trace(text.as_bytes(), &policy).unwrap_err().to_string();
        assert!(error.starts_with(expected), "{text:?}: {error}");
    }
    let error = Recording::from_trace(b"0,5\n\xff\xfe\n", &policy).unwrap_err().to_string();
    assert!(error.starts_with("byte 4, line 2: neither a decision log nor a trace"), "{error}");
}

/// 100 MiB and 4 MiB more each second; elevated at 225, high at 264, critical at 300 MiB.
fn ramp() -> Recording {
    let readings: Vec<Reading> = (0..60).map(|s| at_mib(f64::from(s), 100 + 4 * u64::from(s as u32))).collect();
    recording(&log_of(&[(0, Policy::new(300 * MIB, 100 * MIB))], &readings))
}

#[test]
fn the_difference_is_told_in_one_sentence() {
    let told = |text: &str| ramp().against(&Overrides::parse(text).unwrap()).unwrap().sentence();
    assert_eq!(told("high = 80 %"), "with high = 80 % you would have acted 6.0 s earlier");
    assert_eq!(
        told("elevated = 95 %\nhigh = 96 %\ncritical-sustain = 1h"),
        "with elevated = 95 %, high = 96 %, critical-sustain = 1 h you would have acted 6.0 s later and never drained"
    );
    assert_eq!(told("budget = 400M"), "with budget = 400.0 MiB you would have never acted and never drained");
    assert_eq!(
        told("poll-interval = 2s"),
        "with poll-interval = 2.0 s you would have acted and drained at the same times"
    );
}

#[test]
fn the_table_is_what_it_was() {
    let comparison = ramp().against(&Overrides::parse("high = 80 %").unwrap()).unwrap();
    let expected = "\
60 readings over 59 s
                                 recorded       replayed   difference
  elevated reached                +32.0 s        +32.0 s   –
  high reached                    +41.0 s        +35.0 s   6.0 s earlier
  critical reached                +50.0 s        +50.0 s   –
  time at high or above            18.0 s         24.0 s
  changes of level                      3              3
  peak                          336.0 MiB      336.0 MiB
with high = 80 % you would have acted 6.0 s earlier
";
    assert_eq!(comparison.to_string(), expected);
    assert_eq!(
        comparison.changed,
        [("high", "88 %".to_owned(), "80 %".to_owned()), ("high-leave", "83 %".to_owned(), "75 %".to_owned()),]
    );
}

#[test]
fn lives_are_told_apart() {
    let short: Vec<Reading> = (0..20).map(|s| at_mib(f64::from(s), 100)).collect();
    let policy = Policy::new(300 * MIB, 100 * MIB);
    let ramp: Vec<Reading> = (0..60).map(|s| at_mib(f64::from(s), 100 + 4 * u64::from(s as u32))).collect();
    let text = [log_of(&[(0, policy)], &short), log_of(&[(0, policy)], &ramp), log_of(&[(0, policy)], &ramp)].concat();
    let comparison = recording(&text).against(&Overrides::parse("critical-sustain = 1h").unwrap()).unwrap();
    assert_eq!(comparison.lives.len(), 3);
    let text = comparison.to_string();
    assert!(text.contains("life 1: 20 readings over 19 s\n  nothing was reached"), "{text}");
    assert!(text.ends_with("drained 0 times instead of 2\n"), "{text}");
}

/// A store that fills the budget on a plant; its log under a policy whose marks lie above the limit, then under one whose do not.
#[test]
fn stores_are_modelled_and_the_model_fits_its_own_recording() {
    let mut settings = PlantSettings::new(400 * MIB, 60 * MIB);
    settings.caches.push(CacheSettings::new(0, 8.0 * MIB as f64));
    // The base jumps by 80 MiB: the store has to give that back.
    settings.bursts.push(crate::testkit::Burst {
        at: Duration::from_secs(50),
        lasts: Duration::from_secs(1_000),
        bytes: 80 * MIB,
    });
    let mut plant = Plant::new(settings);
    let policy = Policy { fill_ratio: 0.97, ..Policy::new(300 * MIB, 100 * MIB) };
    let mut line = Line::new();
    let mut text = line.header().to_vec();
    text.extend_from_slice(line.encode(&Record::Start { at: Duration::ZERO, at_unix: Duration::ZERO }));
    text.extend_from_slice(line.encode(&Record::Policy { at: Duration::ZERO, policy }));
    let mut replay = Replay::default();
    for _ in 0..1_000 {
        let seen = plant.seen();
        let supply = Supply {
            held_bytes: seen.held_bytes[0],
            claimed_bytes_total: seen.claimed_bytes_total[0],
            ..Supply::default()
        };
        let reading = Reading { at: seen.at, supply: Some(supply), ..at_mib(0.0, 0) };
        let protected = Protected { program_bytes: seen.protected_bytes, ..Protected::default() };
        let reading = Reading { fast_bytes: Some(seen.protected_bytes), confirmed: Some(Ok(protected)), ..reading };
        let decision = replay.decide(&policy, &reading);
        text.extend_from_slice(line.encode(&Record::Sample { reading, decision }));
        if let Some(want) = decision.want {
            if want.evict_bytes > 0 {
                plant.order(0, want.evict_bytes);
            }
            plant.clamp(0, Some(want.hold_bytes));
        }
        plant.run(Duration::from_millis(100));
    }
    let recording = recording(&text);
    assert_eq!(recording.reproduce().differing, 0);
    let same = recording.against(&Overrides::default()).unwrap();
    let life = same.lives[0];
    let fit = life.modelled.expect("there is a store");
    assert!(fit.error_ratio < 0.03, "{fit:?}");
    assert!(life.recorded.drained_at.is_some(), "the jump passes the budget: {:?}", life.recorded);
    // Filled to 70 % only, the same jump stays below the budget.
    let other = recording.against(&Overrides::parse("fill = 70 %").unwrap()).unwrap();
    let sentence = other.sentence();
    assert!(
        sentence.starts_with("with fill = 70 % you would have ") && sentence.ends_with("never drained"),
        "{sentence}"
    );
    assert!(other.lives[0].replayed.peak_bytes < 300 * MIB, "{:?}", other.lives[0].replayed);
    assert!(other.to_string().contains("stores are modelled, to "), "{other}");
}
