//! Frames in, lines out: tables of what each stream says, and a property: cutting the stream into frames differently, or going on from
//! any sealed position, changes nothing.

use proptest::prelude::*;

use super::*;
use crate::frame::{HEADER_BYTES, frame_bytes};

/// One frame to come.
#[derive(Clone, Debug)]
enum Step {
    Data(Stream, Vec<u8>),
    Gap(GapNote),
    Break(bool),
}

/// What came out, owned: position, stream, and the entry in words.
type Out = (u64, Stream, String);

fn frames(steps: &[Step]) -> Vec<(Frame, Vec<u8>)> {
    let mut position = 0;
    let mut all = Vec::new();
    for step in steps {
        let (kind, stream, flags, payload) = match step {
            Step::Data(stream, bytes) => (Kind::Data, *stream, 0, bytes.clone()),
            Step::Gap(note) => (Kind::Gap, Stream::Stdout, 0, note.encode().to_vec()),
            Step::Break(goes_on) => (Kind::Break, Stream::Stdout, u8::from(*goes_on), Vec::new()),
        };
        let frame = Frame { kind, stream, flags, len: payload.len(), position, at_unix_ns: 1 };
        position += frame_bytes(payload.len()) as u64;
        all.push((frame, payload));
    }
    all
}

fn words(found: Found<'_>) -> String {
    match found {
        Found::Line { text, continued, unterminated } => {
            let end = if continued {
                "…"
            } else if unterminated {
                "|"
            } else {
                ""
            };
            format!("{}{end}", String::from_utf8_lossy(text))
        }
        Found::Gap { lines, bytes, reason, .. } => format!("<{lines} lines, {bytes} bytes, {reason}>"),
    }
}

fn feed(splitter: &mut Splitter, frames: &[(Frame, Vec<u8>)]) -> Vec<Out> {
    let mut out = Vec::new();
    for (frame, payload) in frames {
        splitter.feed(frame, payload, &mut |position, found| out.push((position, frame.stream, words(found))));
    }
    out
}

fn split(max: u32, steps: &[Step]) -> Vec<String> {
    feed(&mut Splitter::new(max, [Resume::default(); 3]), &frames(steps)).into_iter().map(|(_, _, w)| w).collect()
}

fn data(text: &str) -> Step {
    Step::Data(Stream::Stdout, text.into())
}

fn gap(newlines: u64, open: bool, reason: GapReason) -> Step {
    Step::Gap(GapNote { newlines, bytes: 9, from_unix_ns: 1, to_unix_ns: 2, open, reason })
}

#[test]
fn lines_are_joined_across_frames_and_long_ones_cut() {
    let full = GapReason::RingFull;
    let table: [(u32, Vec<Step>, &[&str]); 14] = [
        (9, vec![data("a\nb\n\nc")], &["a", "b", ""]),
        (9, vec![data("ab"), data("cd\ne"), data("\n")], &["abcd", "e"]),
        (3, vec![data("abc\n")], &["abc"]),
        (3, vec![data("abc"), data("\n")], &["abc"]),
        (3, vec![data("abc"), data("d\n")], &["abc…", "d"]),
        (3, vec![data("abcdefgh\n")], &["abc…", "def…", "gh"]),
        (1, vec![data("abc\n")], &["a…", "b…", "c"]),
        (9, vec![data("ab"), Step::Break(false), data("c\n")], &["ab|", "c"]),
        (9, vec![data("ab"), Step::Break(true), data("c\n")], &["ab…", "c"]),
        (9, vec![Step::Break(false), data("c\n")], &["c"]),
        // The dropped bytes hold the end of "ab": its line end is one of the two.
        (9, vec![data("ab"), gap(2, false, full), data("c\n")], &["<2 lines, 9 bytes, ring-full>", "c"]),
        // They end inside a line, which is the third that is lost; a second gap inside it does not count it again.
        (
            9,
            vec![gap(2, true, full), data("rest"), gap(1, false, full), data("c\n")],
            &["<3 lines, 9 bytes, ring-full>", "<0 lines, 9 bytes, ring-full>", "c"],
        ),
        (9, vec![gap(0, true, full), data("rest\nc\n")], &["<1 lines, 9 bytes, ring-full>", "c"]),
        (
            9,
            vec![data("kept"), gap(0, false, GapReason::RingLost), data("c\n")],
            &["kept|", "<0 lines, 9 bytes, ring-lost>", "c"],
        ),
    ];
    for (max, steps, expected) in table {
        assert_eq!(split(max, &steps), expected, "max {max}, {steps:?}");
    }
}

#[test]
fn streams_do_not_mix() {
    let steps = [data("out"), Step::Data(Stream::Stderr, b"err\n".to_vec()), data(" again\n")];
    assert_eq!(split(99, &steps), ["err", "out again"]);
}

#[test]
fn an_unfinished_line_is_known_and_keeps_its_frame() {
    let mut splitter = Splitter::new(99, [Resume::default(); 3]);
    let all = frames(&[data("one\ntw"), data("o")]);
    feed(&mut splitter, &all);
    let next = all[1].0.end();
    assert_eq!(splitter.resume(Stream::Stdout, next), Resume { frame: 0, byte: 4, skipping: false });
    assert_eq!(splitter.resume(Stream::Stderr, next), Resume { frame: next, byte: 0, skipping: false });
    assert_eq!(splitter.unfinished(Stream::Stdout), Some(&b"two"[..]));
    assert_eq!(splitter.unfinished_before(1).collect::<Vec<_>>(), [Stream::Stdout]);
    assert_eq!(splitter.unfinished_before(0).count(), 0);
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let text = prop::collection::vec(prop::sample::select(b"ab\n\n".to_vec()), 1..12);
    let stream = prop::sample::select(vec![Stream::Stdout, Stream::Stderr]);
    let reason = prop::sample::select(vec![GapReason::RingFull, GapReason::RingLost]);
    prop::collection::vec(
        prop_oneof![
            6 => (stream, text).prop_map(|(stream, bytes)| Step::Data(stream, bytes)),
            1 => (1u64..4, any::<bool>(), reason).prop_map(|(n, open, reason)| gap(n, open, reason)),
            1 => any::<bool>().prop_map(Step::Break),
        ],
        1..14,
    )
}

proptest! {
    /// Sealing up to any frame and going on from there gives what one pass gives.
    #[test]
    fn going_on_from_a_sealed_position_changes_nothing(steps in steps(), max in 1u32..9, cut in 0usize..14) {
        let all = frames(&steps);
        let cut = cut.min(all.len());
        let mut whole = Splitter::new(max, [Resume::default(); 3]);
        let expected = feed(&mut whole, &all);
        let mut first = Splitter::new(max, [Resume::default(); 3]);
        let mut got = feed(&mut first, &all[..cut]);
        let next = all.get(cut).map_or(u64::MAX, |(frame, _)| frame.position);
        let resume = Stream::ALL.map(|stream| first.resume(stream, next));
        let from = resume.iter().map(|r| r.frame).min().unwrap_or(0);
        let rest: Vec<_> = all.iter().filter(|(frame, _)| frame.position >= from).cloned().collect();
        got.extend(feed(&mut Splitter::new(max, resume), &rest));
        prop_assert_eq!(got, expected);
    }

    /// Positions are unique and rise, whatever the streams do.
    #[test]
    fn positions_rise(steps in steps(), max in 1u32..9) {
        let out = feed(&mut Splitter::new(max, [Resume::default(); 3]), &frames(&steps));
        prop_assert!(out.windows(2).all(|two| two[0].0 < two[1].0), "{:?}", out);
    }

    /// How the bytes were cut into reads does not matter.
    #[test]
    fn reads_of_any_length_give_the_same_lines(text in "[ab\n]{0,60}", cuts in prop::collection::vec(1usize..9, 60), max in 1u32..9) {
        let mut rest = text.as_bytes();
        let mut steps = Vec::new();
        for cut in cuts {
            let (now, later) = rest.split_at(cut.min(rest.len()));
            if !now.is_empty() {
                steps.push(Step::Data(Stream::Stdout, now.to_vec()));
            }
            rest = later;
        }
        prop_assert_eq!(split(max, &steps), split(max, &[data(&text)]));
    }
}

#[test]
fn an_entry_has_the_position_of_what_completed_it() {
    let steps = [data("abcd"), data("\n"), gap(1, false, GapReason::RingFull), data("x"), Step::Break(false)];
    let all = frames(&steps);
    let out = feed(&mut Splitter::new(3, [Resume::default(); 3]), &all);
    let positions: Vec<u64> = out.iter().map(|(position, _, _)| *position).collect();
    let head = HEADER_BYTES as u64;
    let expected = [head + 3, all[1].0.position + head, all[2].0.position + 1, all[4].0.position];
    assert_eq!(positions, expected);
}
