//! `testdata/v1` and `testdata/v2` are logs as these versions of the format wrote them: every later program reads them as `expected.txt`
//! says. Never make one anew for the same version; a change that needs that is a new version of the format, with a directory of its own.
#![allow(clippy::disallowed_methods)] // tests read their own small files

use std::fmt::Write;

use super::*;
use crate::LogLevel;
use crate::chunk::Builders;
use crate::frame::{FLAG_GOES_ON, GapNote, HEADER_BYTES, frame_bytes};
use crate::schema::Database;

/// What this program writes.
const NOW: &str = "v2";

fn golden(version: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata").join(version)
}

/// Reads a copy, since SQLite may put its log beside what it reads.
fn copy(version: &str) -> tempfile::TempDir {
    let golden = golden(version);
    let copy = tempfile::tempdir().unwrap();
    let spool = copy.path().join("spool");
    std::fs::create_dir(&spool).unwrap();
    std::fs::copy(golden.join("logs.db"), copy.path().join("logs.db")).unwrap();
    for entry in std::fs::read_dir(golden.join("spool")).unwrap() {
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
fn every_version_is_read_as_it_was_meant() {
    for version in ["v1", "v2"] {
        let copy = copy(version);
        let expected = std::fs::read_to_string(golden(version).join("expected.txt")).unwrap();
        assert_eq!(everything(copy.path()), expected, "{version}");
        let gaps = expected.lines().filter(|l| l.contains(" gap ")).count();
        assert_eq!(gaps, 2, "{version}: the golden log has gaps, sealed and not");
        for word in ["continued", "unterminated", "error", "\\xff"] {
            assert!(expected.contains(word), "{version}: the golden log has no {word}");
        }
    }
}

/// Version 1 is brought up to date by the first writer, and says the same then.
#[test]
fn version_1_says_the_same_when_it_was_brought_up_to_date() {
    let copy = copy("v1");
    let before = everything(copy.path());
    drop(Database::open(&copy.path().join("logs.db"), "web", 40).unwrap());
    assert_eq!(everything(copy.path()), before);
}

/// The filter of version 2 is a fact on disk: what it was asked then it answers now.
#[test]
fn the_filter_of_version_2_is_understood() {
    let copy = copy("v2");
    let found = |text: &str| {
        let pattern = Pattern::new(text, Find { whole_words: true, ..Find::default() }).unwrap();
        assert!(pattern.is_filtered());
        let mut count = 0;
        let query = Query { streams: vec![Stream::Plimsoll], pattern: Some(pattern), ..Query::default() };
        let mut sink = |_: Entry<'_>| {
            count += 1;
            ControlFlow::Continue(())
        };
        Reader::open(copy.path()).unwrap().read(&query, None, &mut sink).unwrap();
        count
    };
    assert_eq!((found("token0007"), found("Token1999"), found("token2000")), (1, 0, 0));
    assert_eq!((found(r"203\.0\.113\.17"), found(r"203\.0\.114\.17")), (8, 0));
    let connection = rusqlite::Connection::open(copy.path().join("logs.db")).unwrap();
    let filters = connection.query_row("SELECT count(*) FROM filter", [], |row| row.get::<_, i64>(0)).unwrap();
    assert_eq!(filters, 1);
    // Without its filter the chunk is opened, and says the same: the filter lost nothing.
    connection.execute("DELETE FROM filter", []).unwrap();
    assert_eq!((found("token0007"), found(r"203\.0\.113\.17")), (1, 8));
}

#[test]
fn the_newest_version_is_written_as_it_was() {
    make_the_golden_log_once();
    let place = tempfile::tempdir().unwrap();
    make(place.path());
    assert_eq!(everything(place.path()), everything(copy(NOW).path()));
    let segment = |dir: &Path| {
        let starts = crate::segment::list(&dir.join("spool")).unwrap();
        starts.into_iter().map(|s| (s, std::fs::read(crate::segment::path(&dir.join("spool"), s)).unwrap())).collect()
    };
    let (now, then): (Vec<_>, Vec<_>) = (segment(place.path()), segment(&golden(NOW)));
    assert_eq!(now, then, "segments are the same byte for byte");
    let filter = |dir: &Path| -> Vec<u8> {
        let connection = rusqlite::Connection::open(dir.join("logs.db")).unwrap();
        connection.query_row("SELECT bits FROM filter", [], |row| row.get(0)).unwrap()
    };
    assert_eq!(filter(place.path()), filter(copy(NOW).path()), "the filter is the same byte for byte");
}

/// How a golden log is made, once a version: by a test run while it is not there yet. What is there is never made anew.
fn make_the_golden_log_once() {
    if golden(NOW).exists() {
        return;
    }
    std::fs::create_dir_all(golden(NOW)).unwrap();
    make(&golden(NOW));
    std::fs::write(golden(NOW).join("expected.txt"), everything(copy(NOW).path())).unwrap();
    panic!("{} was made: look at expected.txt, and keep it", golden(NOW).display());
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
    // Enough for a token filter.
    let many: String = (0..1000).map(|i| format!("token{i:04} from 203.0.113.{}\n", i % 125)).collect();
    let steps: [(Kind, Stream, u8, Vec<u8>); 15] = [
        (Kind::Data, Stream::Stdout, 0, b"level=info started\n\nplain\nhal".to_vec()),
        (Kind::Data, Stream::Stderr, 0, b"ERROR: no such file\nbinary \xff\x00\t\n".to_vec()),
        (Kind::Data, Stream::Stdout, 0, b"f and half\n".to_vec()),
        (Kind::Data, Stream::Plimsoll, 0, b"the program was started\n".to_vec()),
        (Kind::Data, Stream::Plimsoll, 0, many.into_bytes()),
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
    let sealed_steps = 9;
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
