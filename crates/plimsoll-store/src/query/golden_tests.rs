//! `testdata/v1` is a log as version 1 of the format wrote it: every later program reads it as `expected.txt` says. Never make it anew
//! for the same version; a change that needs that is a new version of the format, with a directory of its own.
#![allow(clippy::disallowed_methods)] // tests read their own small files

use std::fmt::Write;

use super::*;
use crate::LogLevel;
use crate::chunk::Builders;
use crate::frame::{FLAG_GOES_ON, GapNote, HEADER_BYTES, frame_bytes};
use crate::schema::Database;

fn golden() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata/v1")
}

/// Reads a copy, since SQLite may put its log beside what it reads.
fn copy() -> tempfile::TempDir {
    let copy = tempfile::tempdir().unwrap();
    let spool = copy.path().join("spool");
    std::fs::create_dir(&spool).unwrap();
    std::fs::copy(golden().join("logs.db"), copy.path().join("logs.db")).unwrap();
    for entry in std::fs::read_dir(golden().join("spool")).unwrap() {
        let entry = entry.unwrap();
        std::fs::copy(entry.path(), spool.join(entry.file_name())).unwrap();
    }
    copy
}

fn told(entry: &Entry<'_>) -> String {
    let Entry { at_unix_ns, stream, position, kind } = entry;
    let mut said = format!("{position} {at_unix_ns} {stream} ");
    match kind {
        EntryKind::Line { text, level, continued, unterminated } => {
            let level = level.map_or("-", LogLevel::name);
            let end = if *continued {
                "continued"
            } else if *unterminated {
                "unterminated"
            } else {
                "line"
            };
            write!(said, "{end} {level} \"{}\"", text.escape_ascii()).unwrap();
        }
        EntryKind::Gap { lines, bytes, from_unix_ns, to_unix_ns, reason } => {
            write!(said, "gap {reason} {lines} lines {bytes} bytes {from_unix_ns} to {to_unix_ns}").unwrap();
        }
    }
    said
}

fn everything(dir: &Path) -> String {
    let mut all = String::new();
    let mut reader = Reader::open(dir).unwrap();
    let mut sink = |entry: Entry<'_>| {
        writeln!(all, "{}", told(&entry)).unwrap();
        ControlFlow::Continue(())
    };
    reader.read(&Query::default(), None, &mut sink).unwrap();
    reader.pending(&Query::default(), &mut sink).unwrap();
    all
}

#[test]
fn version_1_is_read_as_it_was_meant() {
    let copy = copy();
    let expected = std::fs::read_to_string(golden().join("expected.txt")).unwrap();
    assert_eq!(everything(copy.path()), expected);
    assert_eq!(expected.lines().filter(|l| l.contains(" gap ")).count(), 2, "the golden log has gaps, sealed and not");
    for word in ["continued", "unterminated", "error", "\\xff"] {
        assert!(expected.contains(word), "the golden log has no {word}");
    }
}

#[test]
fn version_1_is_written_as_it_was() {
    let place = tempfile::tempdir().unwrap();
    make(place.path());
    assert_eq!(everything(place.path()), everything(copy().path()));
    let segment = |dir: &Path| {
        let starts = crate::segment::list(&dir.join("spool")).unwrap();
        starts.into_iter().map(|s| (s, std::fs::read(crate::segment::path(&dir.join("spool"), s)).unwrap())).collect()
    };
    let (now, then): (Vec<_>, Vec<_>) = (segment(place.path()), segment(&golden()));
    assert_eq!(now, then, "segments are the same byte for byte");
}

/// How `testdata/v1` was made: `cargo test -p plimsoll-store make_the_golden_log -- --ignored`, once.
#[test]
#[ignore = "writes testdata/v1, which is there"]
fn make_the_golden_log() {
    std::fs::create_dir_all(golden()).unwrap();
    assert!(!golden().join("logs.db").exists(), "a golden log is made once");
    make(&golden());
    std::fs::write(golden().join("expected.txt"), everything(copy().path())).unwrap();
}

fn make(dir: &Path) {
    let gap = |newlines, open| GapNote {
        newlines,
        bytes: 1234,
        from_unix_ns: 1_763_712_000_500_000_000,
        to_unix_ns: 1_763_712_000_900_000_000,
        open,
        reason: GapReason::RingFull,
    };
    let note = |gap: GapNote| gap.encode().to_vec();
    let steps: [(Kind, Stream, u8, Vec<u8>); 14] = [
        (Kind::Data, Stream::Stdout, 0, b"level=info started\n\nplain\nhal".to_vec()),
        (Kind::Data, Stream::Stderr, 0, b"ERROR: no such file\nbinary \xff\x00\t\n".to_vec()),
        (Kind::Data, Stream::Stdout, 0, b"f and half\n".to_vec()),
        (Kind::Data, Stream::Plimsoll, 0, b"the program was started\n".to_vec()),
        (Kind::Data, Stream::Stdout, 0, b"a line that is much longer than forty bytes and so comes in two\n".to_vec()),
        (Kind::Gap, Stream::Stdout, 0, note(gap(7, true))),
        (Kind::Data, Stream::Stdout, 0, b"the rest of a lost line\nback again\nprompt> ".to_vec()),
        (Kind::Break, Stream::Stdout, 0, Vec::new()),
        // From here on it is not sealed.
        (Kind::Data, Stream::Stderr, 0, b"WARN: unsealed\ncut ".to_vec()),
        (Kind::Break, Stream::Stderr, FLAG_GOES_ON, Vec::new()),
        (Kind::Data, Stream::Stderr, 0, b"in two\n".to_vec()),
        (Kind::Gap, Stream::Stderr, 0, note(gap(3, false))),
        (Kind::Data, Stream::Stdout, 0, b"the last line\n".to_vec()),
        (Kind::Data, Stream::Stdout, 0, b"not yet a line".to_vec()),
    ];
    let sealed_steps = 8;
    let mut database = Database::open(&dir.join("logs.db"), "web", 40).unwrap();
    let mut builders = Builders::new(40, [Resume::default(); 3]);
    let spool = dir.join("spool");
    std::fs::create_dir_all(&spool).unwrap();
    let (mut position, mut start, mut bytes) = (0, 0, Vec::new());
    for (i, (kind, stream, flags, payload)) in steps.into_iter().enumerate() {
        let at_unix_ns = 1_763_712_000_000_000_000 + i as u64 * 1_000_000_007;
        let frame = Frame { kind, stream, flags, len: payload.len(), position, at_unix_ns };
        position = frame.end();
        if i < sealed_steps {
            builders.push(&frame, &payload);
            start = position;
            continue;
        }
        bytes.extend_from_slice(&frame.header(&payload));
        bytes.extend_from_slice(&payload);
        bytes.resize(bytes.len() - HEADER_BYTES - payload.len() + frame_bytes(payload.len()), 0);
    }
    let batch = builders.finish(start).unwrap();
    database.insert(&batch.sealed, &batch.resume).unwrap();
    let segment = [&crate::segment::header(crate::segment::Content::Log, start)[..], &bytes].concat();
    std::fs::write(crate::segment::path(&spool, start), segment).unwrap();
}
