//! What goes into a chunk comes out of it; what is damaged is said to be.

use proptest::prelude::*;

use super::*;

type Owned = (u64, u64, Option<Vec<u8>>, bool, u64);

fn push(builder: &mut Builder, (position, at, text, flag, number): &Owned) {
    let found = match text {
        Some(text) => Found::Line { text, continued: *flag, unterminated: *number % 2 == 1 },
        None => Found::Gap {
            lines: *number,
            bytes: number.wrapping_mul(7),
            from_unix_ns: at.saturating_sub(*number),
            to_unix_ns: *at,
            reason: if *flag { GapReason::RingFull } else { GapReason::RingLost },
        },
    };
    builder.push(*position, *at, found);
}

fn sealed(entries: &[Owned]) -> Sealed {
    let mut builder = Builder::new(Stream::Stderr);
    entries.iter().for_each(|entry| push(&mut builder, entry));
    builder.finish().expect("zstd compresses").expect("something was pushed")
}

fn entries() -> impl Strategy<Value = Vec<Owned>> {
    let text = prop::option::weighted(
        0.9,
        prop::collection::vec(any::<u8>().prop_filter("no line ends", |b| *b != b'\n'), 0..40),
    );
    let time = prop_oneof![Just(1_700_000_000_000_000_000u64), any::<u64>()];
    let one = (1u64..100_000, time, text, any::<bool>(), any::<u32>().prop_map(u64::from));
    prop::collection::vec(one, 1..40).prop_map(|mut all| {
        let mut position = 0;
        let mut before = None;
        for entry in &mut all {
            // A third of them repeat the line before.
            if entry.4 % 3 == 0 && entry.2.is_some() {
                entry.2 = before.clone().unwrap_or_default();
            }
            before = Some(entry.2.clone());
            // Every other one right behind the one before, as in a flood.
            let adjacent = entry.2.as_ref().map_or(1, |text| text.len() as u64 + 1);
            position += if entry.0 % 2 == 0 { adjacent } else { entry.0 };
            entry.0 = position;
        }
        all
    })
}

proptest! {
    #[test]
    fn what_goes_in_comes_out(entries in entries()) {
        let row = sealed(&entries);
        let mut chunk = Chunk::default();
        chunk.load(&mut Unpacker::default(), &row.blob).map_err(TestCaseError::fail)?;
        let mut again = Builder::new(Stream::Stderr);
        let mut count = 0;
        for item in chunk.items() {
            let item = item.map_err(TestCaseError::fail)?;
            let (position, at, text, ..) = &entries[count];
            prop_assert_eq!((item.position, item.at_unix_ns), (*position, *at));
            match (item.found, text) {
                (Found::Line { text: got, .. }, Some(text)) => {
                    prop_assert_eq!(got, &text[..]);
                    prop_assert_eq!(item.level, LogLevel::detect(text));
                }
                (Found::Gap { .. }, None) => {}
                (other, _) => prop_assert!(false, "{other:?} came out"),
            }
            again.push(item.position, item.at_unix_ns, item.found);
            count += 1;
        }
        prop_assert_eq!(count, entries.len());
        // Flags and gaps too: the same blob again.
        prop_assert_eq!(again.finish().expect("zstd compresses"), Some(row));
    }

    /// Whatever the bytes are, loading them neither panics nor makes more than it may.
    #[test]
    fn garbage_is_refused(mut blob in prop::collection::vec(any::<u8>(), 0..200), as_chunk in any::<bool>()) {
        if as_chunk && blob.len() > 20 {
            blob[..4].copy_from_slice(b"Pc\x01\x01");
            let sum = crc32fast::hash(&blob[..16]);
            blob[16..20].copy_from_slice(&sum.to_le_bytes());
        }
        prop_assert!(Chunk::default().load(&mut Unpacker::default(), &blob).is_err());
    }

    /// Entries that pass the checksum but make no sense (a writer's mistake) end with an error, not a panic.
    #[test]
    fn nonsense_inside_is_an_error_or_entries(content in prop::collection::vec(any::<u8>(), 0..80), cut in 0usize..80, count in any::<u32>()) {
        let entries = cut.min(content.len());
        let chunk = Chunk { content, entries, count };
        let taken = chunk.items().take(200).filter(Result::is_ok).count();
        prop_assert!(taken <= entries);
    }
}

#[test]
fn a_run_of_one_line_has_its_text_once_and_every_time_and_position() {
    let text = [b'x'; 200];
    let run: Vec<Owned> = (0..1000).map(|i| (i * 201 + 201, i * i, Some(text.to_vec()), false, 0)).collect();
    let row = sealed(&run);
    assert_eq!(row.blob[2], VERSION_REPEATS);
    assert_eq!((row.lines, row.raw_bytes), (1000, 201_000), "what is inside counts as it came");
    let mut chunk = Chunk::default();
    chunk.load(&mut Unpacker::default(), &row.blob).expect("it is whole");
    assert!(chunk.content.len() < 5000, "{} bytes before they are compressed", chunk.content.len());
    let again: Vec<_> = chunk.items().map(|item| item.map(|item| (item.position, item.at_unix_ns)).unwrap()).collect();
    assert_eq!(again, run.iter().map(|(position, at, ..)| (*position, *at)).collect::<Vec<_>>());
    // A gap between two of them is no run.
    let line = |position| (position, 1, Some(text.to_vec()), false, 0);
    let cut = sealed(&[line(201), (300, 1, None, true, 7), line(600)]);
    assert_eq!(cut.blob[2], VERSION, "without a repeat it is what the first programs read");
}

#[test]
fn every_flipped_bit_is_noticed() {
    let lines: Vec<Owned> =
        (0..50).map(|i| (i * 40 + 40, i, Some(format!("line {i} says something").into()), false, 0)).collect();
    let blob = sealed(&lines).blob;
    let mut chunk = Chunk::default();
    chunk.load(&mut Unpacker::default(), &blob).expect("it is whole");
    for bit in 0..blob.len() * 8 {
        let mut bad = blob.clone();
        bad[bit / 8] ^= 1 << (bit % 8);
        let seen = chunk.load(&mut Unpacker::default(), &bad).is_err() || {
            // Some bits of a zstd frame's header carry nothing; then the content must be the same.
            let mut good = Chunk::default();
            good.load(&mut Unpacker::default(), &blob).expect("it is whole");
            good.content == chunk.content
        };
        assert!(seen, "bit {bit} flipped unseen");
    }
}

#[test]
fn the_row_says_what_is_inside() {
    let gap = (60, 50, None, true, 30);
    let row =
        sealed(&[(20, 40, Some(b"ERROR one".to_vec()), false, 0), gap, (90, 45, Some(b"two".to_vec()), false, 1)]);
    assert_eq!((row.first_position, row.last_position), (20, 90));
    assert_eq!((row.first_unix_ns, row.last_unix_ns), (20, 50), "the gap begins at 20");
    assert_eq!((row.lines, row.gaps, row.gap_lines, row.raw_bytes), (2, 1, 30, 14));
    assert_eq!(row.levels, 1 << 5 | 1, "an error, and a line without a level");
}

#[test]
fn builders_seal_complete_lines_and_keep_the_rest() {
    use crate::frame::{Frame, Kind};
    let mut builders = Builders::new(64, [Resume::default(); 3]);
    assert!(builders.is_empty());
    let payload = b"one\ntwo\nthr";
    let frame =
        Frame { kind: Kind::Data, stream: Stream::Stdout, flags: 0, len: payload.len(), position: 0, at_unix_ns: 9 };
    builders.push(&frame, payload);
    assert!(!builders.is_empty() && !builders.is_full());
    let batch = builders.finish(frame.end()).expect("zstd compresses");
    assert_eq!(batch.sealed.iter().map(|s| (s.stream, s.lines)).collect::<Vec<_>>(), [(Stream::Stdout, 2)]);
    assert_eq!(batch.resume[0], Resume { frame: 0, byte: 8, skipping: false });
    assert_eq!(batch.resume[1].frame, frame.end());
    assert!(builders.is_empty());
    assert_eq!(builders.unfinished_before(1).collect::<Vec<_>>(), [Stream::Stdout]);
    assert!(builders.finish(frame.end()).expect("zstd compresses").sealed.is_empty());
}

#[test]
fn a_builder_is_full_at_its_marks() {
    let mut many = Builder::new(Stream::Stdout);
    for i in 0..FULL_LINES {
        assert!(!many.is_full(), "full at {i}");
        many.push(i + 1, 1, Found::Line { text: b"", continued: false, unterminated: false });
    }
    assert!(many.is_full());
    let row = many.finish().expect("zstd compresses").expect("lines were pushed");
    assert!(row.blob.len() < 200, "10,000 empty lines take {} bytes", row.blob.len());
    let mut long = Builder::new(Stream::Stdout);
    long.push(1, 1, Found::Line { text: &[b'x'; FULL_BYTES], continued: false, unterminated: false });
    assert!(long.is_full());
}

#[test]
fn the_document_shows_this_blob() {
    let document = include_str!("../../../docs/log-format.md");
    let source = include_str!("chunk.rs");
    let rows = |text: &str, from: &str| {
        let rows = text.lines().map(|l| l.trim_start_matches("//! ")).skip_while(|l| !l.starts_with(from));
        rows.take_while(|l| l.starts_with('|')).map(str::to_owned).collect::<Vec<_>>()
    };
    let (shown, made) = (rows(document, "| 0..2 | `P` `c` |"), rows(source, "| 0..2 | `P` `c` |"));
    assert_eq!(shown, made);
    assert_eq!(made.len(), 7);
}
