//! Lines and records: each comes back as it was, and nothing that is none passes for one.

use std::time::Duration;

use proptest::prelude::*;

use super::*;
use crate::event::Supply;
use crate::gauge::{Protected, Unread};
use crate::governor::law::LawState;
use crate::governor::{State, step_and_reclaim};

const MIB: u64 = 1 << 20;

fn text(records: &[Record]) -> Vec<u8> {
    let mut line = Line::new();
    let mut text = line.header().to_vec();
    records.iter().for_each(|record| text.extend_from_slice(line.encode(record)));
    text
}

/// What the governor's thread would log of these readings.
fn recorded(policy: Policy, readings: &[Reading]) -> Vec<Record> {
    let at = readings.first().map_or(Duration::ZERO, |reading| reading.at);
    let mut records = vec![Record::Start { at, at_unix: at }, Record::Policy { at, policy }];
    let (mut state, mut law) = (State::default(), LawState::default());
    for reading in readings {
        let decided = step_and_reclaim(&policy, state, law, reading);
        (state, law) = (decided.0, decided.1);
        records.push(Record::Sample { reading: *reading, decision: decided.2 });
    }
    records
}

fn any_reading() -> impl Strategy<Value = Reading> {
    let protected = (0..400 * MIB, prop::option::of(0..200 * MIB))
        .prop_map(|(program_bytes, kernel_bytes)| Protected { program_bytes, kernel_bytes, ..Protected::default() });
    let confirmed = prop_oneof![
        6 => protected.prop_map(|protected| Some(Ok(protected))),
        1 => Just(Some(Err(Unread::Denied("recorded reading")))),
        1 => Just(None),
    ];
    let supply = (0..300 * MIB, any::<u64>(), any::<u64>(), 0..MIB).prop_map(|(held, claimed, withdrawn, floor)| {
        Supply { held_bytes: held, claimed_bytes_total: claimed, withdrawn_bytes_total: withdrawn, floor_bytes: floor }
    });
    (any::<Option<u64>>(), confirmed, any::<Option<u64>>(), prop::option::of(supply)).prop_map(
        |(fast_bytes, confirmed, guard_bytes, supply)| Reading {
            at: Duration::ZERO,
            fast_bytes,
            confirmed,
            guard_bytes,
            supply,
        },
    )
}

proptest! {
    /// Any readings, at any distance: the text gives the records back, to the last bit.
    #[test]
    fn what_is_written_is_read_again(
        readings in prop::collection::vec((any_reading(), 0..5_000_000_000u64), 1..60),
        budget in prop::option::of(MIB..1 << 40),
    ) {
        let mut at = Duration::from_secs(80_000);
        let readings: Vec<Reading> = readings
            .into_iter()
            .map(|(reading, gap)| {
                at += Duration::from_nanos(gap);
                Reading { at, ..reading }
            })
            .collect();
        let policy = budget.map_or_else(Policy::observe, |budget| Policy::new(budget, MIB));
        let mut records = recorded(policy, &readings);
        records.push(Record::Gap { samples: 7 });
        let log = parse(&text(&records)).expect("a log");
        prop_assert_eq!(&log.records, &records);
        prop_assert_eq!(log.torn_bytes, 0);
    }

    #[test]
    fn garbage_is_an_error_inside_the_text_and_never_a_panic(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        let with_header = [HEADER.as_bytes(), b"\n", &bytes].concat();
        for text in [&bytes, &with_header] {
            if let Err(error) = parse(text) {
                prop_assert!(error.offset <= text.len() && error.line >= 1, "{}", error);
            }
        }
    }

    /// One byte changed anywhere: an error that names that line, or a record that differs, never a panic.
    #[test]
    fn one_changed_byte_is_found_or_changes_a_value(place in any::<prop::sample::Index>(), byte in any::<u8>()) {
        let good = text(&recorded(Policy::new(300 * MIB, 0), &[confirmed(1, 100), confirmed(2, 310)]));
        let place = place.index(good.len());
        let mut bad = good.clone();
        bad[place] = byte;
        match parse(&bad) {
            // The unit of a size may be a small letter.
            Ok(log) => prop_assert!(bad == good || log != parse(&good).unwrap() || byte == b'b', "{}", place),
            // What a new line end breaks begins after it.
            Err(error) => prop_assert!(error.offset <= place + 1, "{} at {}", error, place),
        }
    }
}

fn confirmed(second: u64, mib: u64) -> Reading {
    Reading {
        at: Duration::from_secs(second),
        fast_bytes: Some((mib + 20) * MIB),
        confirmed: Some(Ok(Protected { program_bytes: mib * MIB, ..Protected::default() })),
        ..Reading::default()
    }
}

/// The format is a promise: a change of it needs another version.
#[test]
fn version_1_is_what_it_was() {
    let records = recorded(Policy::new(300 * MIB, 100 * MIB), &[confirmed(1, 100), confirmed(2, 310)]);
    let expected = "plimsoll-decisions 1\n\
        start at=1.000000000 unix=1.000000000\n\
        policy at=1.000000000 budget=314572800B reserve=104857600B kernel-allowance=52428800B elevated=0.75 elevated-leave=0.7 \
        elevated-sustain=0ns high=0.88 high-leave=0.83 high-sustain=0ns critical=1 critical-leave=0.95 critical-sustain=0ns fill=0.95 \
        dwell=5000000000ns poll-interval=1000000000ns min-interval=1000000ns fastest-fill=2147483648B blind=hold\n\
        sample at=1.000000000 fast=125829120 program=104857600 -> level=normal cause=steady charged=104857600 sleep=0.061035156\n\
        sample at=2.000000000 fast=346030080 program=325058560 -> level=critical was=normal cause=entered-mark charged=325058560 \
        limit-in=0.000000000 sleep=0.010000000\n";
    assert_eq!(String::from_utf8_lossy(&text(&records)), expected);
}

#[test]
fn damage_is_named_with_its_byte_and_line_and_only_a_torn_end_is_cut() {
    let good = text(&recorded(Policy::new(300 * MIB, 0), &[confirmed(1, 100), confirmed(2, 310)]));
    let whole = parse(&good).unwrap();
    let last_line = good[..good.len() - 1].iter().rposition(|b| *b == b'\n').unwrap() + 1;
    for cut in last_line + 1..good.len() {
        let log = parse(&good[..cut]).unwrap();
        assert_eq!((log.records.len(), log.torn_bytes), (whole.records.len() - 1, cut - last_line), "cut at {cut}");
    }
    let header = HEADER.len() + 1;
    let with = |line: &str| [HEADER, "\n", line, "\n"].concat().into_bytes();
    let long = with(&format!("gap samples={}", "1".repeat(LINE_BYTES_MAX)));
    let cases: [(&[u8], usize, usize, &str); 10] = [
        (b"", 0, 1, "empty"),
        (b"plimsoll-dec", 0, 1, "expected \"plimsoll-decisions 1\""),
        (b"plimsoll-decisions 2\n", 0, 1, "version 2"),
        (b"\x7fELF\x02\x01\x01\n", 0, 1, "expected \"plimsoll-decisions 1\", found \"\\u{7f}ELF"),
        (&with("note at=1"), header, 2, "unknown record \"note\""),
        (&with("start at=1 unix=2.000000000"), header, 2, "at=1: expected seconds with nine decimals"),
        (&with("sample at=1.000000000"), header, 2, "\" -> \""),
        (&with("policy at=1.000000000 budget=300"), header, 2, "budget=300: expected"),
        (&with("gap samples=1 more=2"), header, 2, "\"more=2\": nothing was expected here"),
        (&long, header, 2, "a line has at most"),
    ];
    for (text, offset, line, what) in cases {
        let error = parse(text).expect_err(what);
        assert_eq!((error.offset, error.line), (offset, line), "{error}");
        assert!(error.what.contains(what), "{error}");
    }
}

#[test]
fn the_longest_line_fits() {
    let (huge, long) = (u64::MAX, Duration::MAX);
    let want = crate::event::Want {
        evict_bytes: huge,
        ordered_bytes_total: huge,
        hold_bytes: huge,
        in_flight_bytes: huge,
        base_bytes: huge,
        spread_bytes: huge,
        delay: long,
        lag: long,
        effect: crate::event::Effect::Fruitless,
        purge: true,
        stuck: true,
    };
    let reading = Reading {
        at: long,
        fast_bytes: Some(huge),
        confirmed: Some(Ok(Protected { program_bytes: huge, kernel_bytes: Some(huge), ..Protected::default() })),
        guard_bytes: Some(huge),
        supply: Some(Supply {
            held_bytes: huge,
            claimed_bytes_total: huge,
            withdrawn_bytes_total: huge,
            floor_bytes: huge,
        }),
    };
    let growth = crate::governor::Growth { bytes_per_second: -f64::MIN_POSITIVE * 3.0, confidence: 1.0 / 3.0 };
    let decision = crate::governor::Decision {
        previous: crate::level::Level::Critical,
        level: crate::level::Level::Elevated,
        cause: crate::governor::Cause::AssumedBlind,
        charged_bytes: Some(huge),
        growth: Some(growth),
        time_to_limit: Some(long),
        sleep: long,
        blind: true,
        want: Some(want),
        ..recorded(Policy::observe(), &[reading]).into_iter().find_map(sampled).unwrap()
    };
    let record = Record::Sample { reading, decision };
    let mut line = Line::new();
    let written = line.encode(&record).len();
    assert!(written <= LINE_BYTES_MAX - 100, "{written} bytes");
    assert_eq!(parse(&text(&[record])).unwrap().records, [record]);
}

fn sampled(record: Record) -> Option<crate::governor::Decision> {
    if let Record::Sample { decision, .. } = record { Some(decision) } else { None }
}
