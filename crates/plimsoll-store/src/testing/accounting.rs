//! The accounting invariant in quiet, in floods, with a full ring, over reopening at random moments, and at closing.

use std::path::Path;
use std::time::Duration;

use proptest::prelude::*;

use super::{Entry, Place, Program, account, account_torn, everything, hold_database, until};
use crate::{GapReason, Rate, RateLimit, Settings, Stream, open};

const BOTH: [Stream; 2] = [Stream::Stdout, Stream::Stderr];
const LONG: Duration = Duration::from_secs(30);

#[test]
fn what_is_printed_is_sealed_at_close_and_leaves_nothing_else() {
    let place = Place::new();
    let (mut intake, store, recovery) = open(place.settings()).unwrap();
    assert_eq!(recovery.notes(), Vec::<String>::new());
    let mut program = Program::new(1);
    for _ in 0..50 {
        for stream in BOTH {
            program.print(stream, 1000);
            program.deliver(&mut intake, stream, 5);
        }
    }
    program.finish(&mut intake);
    intake.note("a note", 6);
    let closed = store.close(LONG);
    assert!(closed.complete, "{closed:?}");
    assert_eq!(closed.stats.degraded, None);
    let all = everything(&place.path(), &place.ring());
    for stream in BOTH {
        assert_eq!(account(&all[&stream], program.lines(stream)), 0);
        assert_eq!(closed.stats.stream(stream).lines_in_total, program.lines(stream));
    }
    let note = Entry::Line { text: b"a note".to_vec(), continued: false };
    assert_eq!(all[&Stream::Plimsoll].iter().map(|e| &e.1).collect::<Vec<_>>(), [&note]);
    let mut left: Vec<String> = names(&place.path());
    left.extend(names(place.dir.path()));
    left.extend(names(&place.path().join("spool")));
    left.sort();
    assert_eq!(left, ["lock", "logs.db", "spool", "web"]);
    let (_, store, recovery) = open(place.settings()).unwrap();
    assert_eq!(recovery.notes(), Vec::<String>::new(), "a clean end leaves nothing to recover");
    drop(store);
}

fn names(dir: &Path) -> Vec<String> {
    std::fs::read_dir(dir).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect()
}

#[test]
fn waiting_lines_are_sealed_in_time_and_the_spool_is_freed() {
    let place = Place::new();
    let settings = Settings { seal_after: Duration::from_millis(50), ..place.settings() };
    let (mut intake, store, _) = open(settings).unwrap();
    let mut program = Program::new(2);
    for round in 1..=3 {
        program.print(Stream::Stdout, 3000);
        program.finish(&mut intake);
        until("the lines are sealed", || store.stats().sealed_lines_total == program.lines(Stream::Stdout));
        until("the spool is freed", || store.stats().spool_used_bytes == 0);
        assert_eq!(store.stats().sealed_chunks_total, round);
    }
    drop(store);
    let all = everything(&place.path(), &place.ring());
    assert_eq!(account(&all[&Stream::Stdout], program.lines(Stream::Stdout)), 0);
}

#[test]
fn a_full_ring_drops_counts_and_heals() {
    let place = Place::new();
    let (mut intake, store, _) = open(place.settings()).unwrap();
    let mut program = Program::new(3);
    let lock = hold_database(&place.path());
    let mut flood = |program: &mut Program| {
        for stream in BOTH {
            let len = program.random(60_000) as usize;
            program.print(stream, len);
            program.deliver(&mut intake, stream, 1);
        }
    };
    // 4 MiB of spool and 256 KiB of ring, and nothing goes into the database.
    until("the spool is at its budget", || {
        flood(&mut program);
        store.stats().degraded.is_some_and(|said| said.contains("budget"))
    });
    let before = BOTH.map(|s| store.stats().stream(s).dropped_lines_total);
    until("lines of both streams are dropped", || {
        flood(&mut program);
        let after = BOTH.map(|s| store.stats().stream(s).dropped_lines_total);
        after[0] > before[0] && after[1] > before[1]
    });
    assert!(store.stats().spool_used_bytes <= place.settings().spool_bytes);
    drop(lock);
    until("it heals", || {
        flood(&mut program);
        store.stats().degraded.is_none()
    });
    program.finish(&mut intake);
    let closed = store.close(LONG);
    assert!(closed.complete, "{closed:?}");
    let all = everything(&place.path(), &place.ring());
    for stream in BOTH {
        let missing = account(&all[&stream], program.lines(stream));
        assert!(missing > 0, "{stream}");
    }
    let gaps: u64 = BOTH.iter().map(|s| account(&all[s], program.lines(*s))).sum();
    assert_eq!(closed.stats.gap_lines_total, gaps);
}

/// A ring that becomes full while a stream is above its rate, and has room again: each reason has its own gap, exact.
#[test]
fn what_is_limited_and_what_finds_no_room_are_kept_apart() {
    use crate::frame::{GapNote, Kind};
    use std::io::Write;
    use std::sync::Arc;

    let place = Place::new();
    let ring = Arc::new(crate::ring::Ring::create(&place.ring(), 256 << 10, 0).unwrap());
    let mut writer = crate::writer::Writer::new(ring.clone());
    let (read, mut write) = super::pipe();
    let mut print = |writer: &mut crate::writer::Writer, stream, len: usize| {
        write.write_all(&[vec![b'x'; len - 1], vec![b'\n']].concat()).unwrap();
        writer.read(stream, std::os::fd::AsFd::as_fd(&read), 1).unwrap().dropped
    };
    let rate = Rate { per_second: 1, burst: 1 };
    let limited = RateLimit { bytes: Some(rate), lines: None };
    writer.limit(limited);
    assert!(!print(&mut writer, Stream::Stdout, 100));
    for _ in 0..3 {
        assert!(print(&mut writer, Stream::Stdout, 100), "above its rate");
    }
    let over = std::mem::take(&mut writer.limits);
    while !print(&mut writer, Stream::Stderr, 60_000) {}
    writer.limits = over;
    for _ in 0..5 {
        assert!(print(&mut writer, Stream::Stdout, 100), "no room");
    }
    assert_eq!(ring.pending_gap(Stream::Stdout).map(|gap| (gap.newlines, gap.reason)), Some((5, GapReason::RingFull)));
    let mut gaps = Vec::new();
    let mut spool = || {
        let mut position = ring.tail();
        while position < ring.head() {
            let bytes = ring.bytes(position, crate::frame::MAX_FRAME_BYTES);
            let (frame, payload) = crate::frame::Frame::decode(bytes, position).unwrap();
            if frame.kind == Kind::Gap && frame.stream == Stream::Stdout {
                gaps.extend(GapNote::decode(payload).map(|gap| (gap.newlines, gap.reason)));
            }
            position = frame.end();
        }
        ring.set(crate::ring::at::TAIL, position);
    };
    spool();
    for _ in 0..2 {
        assert!(print(&mut writer, Stream::Stdout, 100), "room again, and above its rate");
    }
    assert!(writer.flush_gaps());
    spool();
    use GapReason::{RateLimited, RingFull};
    assert_eq!(gaps, [(3, RateLimited), (5, RingFull), (2, RateLimited)]);
    assert_eq!(ring.dropped(Stream::Stdout).0, 10);
    assert_eq!(ring.counter(Stream::Stdout, crate::ring::at::LIMITED_LINES), 5);
}

#[test]
fn above_its_rate_a_stream_is_counted_and_the_other_is_whole() {
    let place = Place::new();
    let rate = Rate { per_second: 2_000_000, burst: 30_000 };
    let limit = RateLimit { bytes: Some(rate), lines: None };
    let (mut intake, store, _) = open(Settings { rate_limit: limit, ..place.settings() }).unwrap();
    let mut program = Program::new(31);
    let mut rounds = 0;
    until("the flood is limited, let through again, and limited", || {
        program.print(Stream::Stdout, 20_000);
        program.print(Stream::Stderr, 100);
        for stream in BOTH {
            program.deliver(&mut intake, stream, 1);
        }
        rounds += 1;
        rounds >= 40 && store.stats().stream(Stream::Stdout).limited_lines_total > 0
    });
    program.finish(&mut intake);
    let closed = store.close(LONG);
    assert!(closed.complete, "{closed:?}");
    let (out, err) = (closed.stats.stream(Stream::Stdout), closed.stats.stream(Stream::Stderr));
    assert_eq!((out.limited_lines_total, out.limited_bytes_total), (out.dropped_lines_total, out.dropped_bytes_total));
    assert_eq!((err.dropped_lines_total, err.lines_in_total), (0, program.lines(Stream::Stderr)));
    let all = everything(&place.path(), &place.ring());
    assert_eq!(account(&all[&Stream::Stderr], program.lines(Stream::Stderr)), 0);
    assert!(account(&all[&Stream::Stdout], program.lines(Stream::Stdout)) > 0);
    let reasons: Vec<GapReason> = all[&Stream::Stdout]
        .iter()
        .filter_map(|(_, entry)| if let Entry::Gap { reason, .. } = entry { Some(*reason) } else { None })
        .collect();
    assert!(!reasons.is_empty() && reasons.iter().all(|reason| *reason == GapReason::RateLimited), "{reasons:?}");
}

#[test]
fn a_line_without_end_does_not_hold_the_spool() {
    let place = Place::new();
    let (mut intake, store, _) = open(place.settings()).unwrap();
    let mut program = Program::new(4);
    let (read, mut write) = super::pipe();
    std::io::Write::write_all(&mut write, b"password: ").unwrap();
    intake.read_from(Stream::Stderr, std::os::fd::AsFd::as_fd(&read), 1).unwrap();
    let mut printed = 0;
    while printed < 12 << 20 {
        program.print(Stream::Stdout, 60_000);
        printed += program.deliver(&mut intake, Stream::Stdout, 1);
        until("there is room", || store.stats().ring_used_bytes < 100_000);
    }
    until("the spool is within two segments", || store.stats().spool_used_bytes <= 3 << 20);
    std::io::Write::write_all(&mut write, b"secret\n").unwrap();
    intake.read_from(Stream::Stderr, std::os::fd::AsFd::as_fd(&read), 1).unwrap();
    program.finish(&mut intake);
    assert!(store.close(LONG).complete);
    let all = everything(&place.path(), &place.ring());
    assert_eq!(account(&all[&Stream::Stdout], program.lines(Stream::Stdout)), 0);
    let stderr: Vec<&Entry> = all[&Stream::Stderr].iter().map(|(_, e)| e).collect();
    let piece = |text: &str, continued| Entry::Line { text: text.into(), continued };
    assert_eq!(stderr, [&piece("password: ", true), &piece("secret", false)]);
}

#[derive(Clone, Copy, Debug)]
enum Step {
    Print(Stream, usize),
    Deliver(Stream),
    /// Gives the threads a moment.
    Pause,
    /// The database is locked by another process, or not any more.
    Lock(bool),
    /// The supervisor goes without sealing; the next one adopts.
    Drop,
    Close,
}

fn step() -> impl Strategy<Value = Step> {
    let stream = prop_oneof![Just(Stream::Stdout), Just(Stream::Stderr)];
    prop_oneof![
        8 => (stream.clone(), prop_oneof![1usize..40, 1usize..5000, 60_000usize..70_000]).prop_map(|(s, n)| Step::Print(s, n)),
        8 => stream.prop_map(Step::Deliver),
        2 => Just(Step::Pause),
        1 => any::<bool>().prop_map(Step::Lock),
        1 => Just(Step::Drop),
        1 => Just(Step::Close),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn whatever_happens_every_line_is_accounted_for(steps in prop::collection::vec(step(), 1..80), seed in any::<u64>()) {
        let place = Place::new();
        let settings = Settings { seal_after: Duration::from_millis(20), ..place.settings() };
        let mut program = Program::new(seed);
        let mut lock = None;
        let (mut intake, mut store, _) = open(settings.clone()).unwrap();
        for step in steps {
            match step {
                Step::Print(stream, len) => program.print(stream, len),
                Step::Deliver(stream) => drop(program.deliver(&mut intake, stream, 1)),
                Step::Pause => std::thread::sleep(Duration::from_millis(3)),
                Step::Lock(on) => lock = on.then(|| { lock = None; hold_database(&place.path()) }),
                Step::Drop => {
                    drop(store);
                    check(&place, &mut program);
                    (intake, store, _) = open(settings.clone()).unwrap();
                }
                Step::Close => {
                    // What is closed has ended its lines.
                    program.finish(&mut intake);
                    let patience = if lock.is_some() { Duration::ZERO } else { LONG };
                    let closed = store.close(patience);
                    prop_assert!(closed.complete || lock.is_some(), "{:?}", closed);
                    (intake, store, _) = open(settings.clone()).unwrap();
                }
            }
        }
        drop(lock);
        program.finish(&mut intake);
        let closed = store.close(LONG);
        prop_assert!(closed.complete, "{:?}", closed);
        let all = everything(&place.path(), &place.ring());
        for stream in BOTH {
            account(&all[&stream], program.lines(stream));
        }
    }
}

/// In between, with lines torn where the pipe was read last, what is complete is accounted for.
fn check(place: &Place, program: &mut Program) {
    let all = everything(&place.path(), &place.ring());
    for stream in BOTH {
        let (complete, torn) = program.taken(stream);
        account_torn(&all[&stream], complete, torn);
    }
}
