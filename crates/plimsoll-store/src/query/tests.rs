//! The reader against stores in every state: in the ring, in the spool, sealed, all of them, growing, damaged, gone.
#![allow(clippy::disallowed_methods)] // tests read their own small files

use std::io::Write;
use std::os::fd::AsFd;
use std::time::Duration;

use super::*;
use crate::LogLevel;
use crate::testing::{Place, pipe};
use crate::{Intake, Settings, Store, open};

/// An entry in words: `12 out text`, times in small numbers.
fn words(entry: &Entry<'_>) -> String {
    let stream = match entry.stream {
        Stream::Stdout => "out",
        Stream::Stderr => "err",
        Stream::Plimsoll => "pli",
    };
    let rest = match entry.kind {
        EntryKind::Line { text, continued, unterminated, .. } => {
            let end = if continued {
                "…"
            } else if unterminated {
                "|"
            } else {
                ""
            };
            format!("{}{end}", String::from_utf8_lossy(text))
        }
        EntryKind::Gap { lines, reason, .. } => format!("<{lines} {reason}>"),
    };
    format!("{} {stream} {rest}", entry.at_unix_ns)
}

fn read_from(reader: &mut Reader, query: &Query, from: Option<Cursor>) -> (Vec<String>, Cursor) {
    let mut all = Vec::new();
    let cursor = reader.read(query, from, &mut |entry| {
        all.push(words(&entry));
        ControlFlow::Continue(())
    });
    (all, cursor.unwrap())
}

fn read(dir: &Path, query: &Query) -> Vec<String> {
    read_from(&mut Reader::open(dir).unwrap(), query, None).0
}

fn tail(dir: &Path, query: &Query, n: usize) -> Vec<String> {
    let mut all = Vec::new();
    let sink = &mut |entry: Entry<'_>| {
        all.push(words(&entry));
        ControlFlow::Continue(())
    };
    Reader::open(dir).unwrap().tail(query, n, sink).unwrap();
    all
}

fn pending(dir: &Path) -> Vec<String> {
    let mut reader = Reader::open(dir).unwrap();
    read_from(&mut reader, &Query::default(), None);
    pending_of(&mut reader)
}

fn pending_of(reader: &mut Reader) -> Vec<String> {
    let mut all = Vec::new();
    let sink = &mut |entry: Entry<'_>| {
        all.push(words(&entry));
        ControlFlow::Continue(())
    };
    reader.pending(&Query::default(), sink).unwrap();
    all
}

fn print(intake: &mut Intake, stream: Stream, text: &str, at: u64) {
    let (read, mut write) = pipe();
    write.write_all(text.as_bytes()).unwrap();
    assert_eq!(intake.read_from(stream, read.as_fd(), at).unwrap().bytes, text.len());
}

fn lazy(place: &Place) -> Settings {
    Settings { seal_after: Duration::from_secs(3600), ..place.settings() }
}

fn close(store: Store) {
    assert!(store.close(Duration::from_secs(20)).complete);
}

/// Waits until everything that is committed is in the spool.
fn spooled(store: &Store) {
    while store.stats().ring_used_bytes > 0 {
        std::thread::yield_now();
    }
}

/// Six lines of three streams, in two batches; what each state does with the first batch is `between`'s to decide.
fn six(place: &Place, between: impl FnOnce((Intake, Store)) -> (Intake, Store)) -> (Intake, Store) {
    let (mut intake, store, _) = open(lazy(place)).unwrap();
    print(&mut intake, Stream::Stdout, "one\n", 1);
    print(&mut intake, Stream::Stderr, "ERROR two\n", 2);
    intake.note("three", 3);
    let (mut intake, store) = between((intake, store));
    print(&mut intake, Stream::Stdout, "WARN four\nfi", 4);
    print(&mut intake, Stream::Stderr, "six\n", 5);
    print(&mut intake, Stream::Stdout, "ve\n", 6);
    (intake, store)
}

const SIX: [&str; 6] = ["1 out one", "2 err ERROR two", "3 pli three", "4 out WARN four", "5 err six", "6 out five"];

/// Every state that six lines can be in, each checked by `check`.
fn in_every_state(check: &dyn Fn(&Path, &str)) {
    let place = Place::new();
    let (_intake, store) = six(&place, |both| both);
    check(&place.path(), "ring or spool");
    spooled(&store);
    check(&place.path(), "spool");
    drop(store);
    check(&place.path(), "a dead supervisor's spool");
    std::fs::remove_file(place.ring()).unwrap();
    check(&place.path(), "spool without a ring");

    let place = Place::new();
    let (_intake, store) = six(&place, |(_, store)| {
        close(store);
        let (intake, store, _) = open(lazy(&place)).unwrap();
        (intake, store)
    });
    check(&place.path(), "half sealed");
    close(store);
    check(&place.path(), "sealed");
    std::fs::remove_dir_all(place.path().join("spool")).unwrap();
    check(&place.path(), "sealed, without a spool's directory");
}

#[test]
fn the_same_lines_in_every_state() {
    in_every_state(&|dir, state| {
        assert_eq!(read(dir, &Query::default()), SIX, "{state}");
        for n in [0, 1, 4, 6, 9] {
            assert_eq!(tail(dir, &Query::default(), n), SIX[6 - n.min(6)..], "the newest {n}, {state}");
        }
    });
}

#[test]
fn each_filter_in_every_state() {
    let all = Query::default;
    let table: [(&str, Query, &[usize]); 8] = [
        ("since", Query { since_unix_ns: Some(4), ..all() }, &[3, 4, 5]),
        ("until", Query { until_unix_ns: Some(4), ..all() }, &[0, 1, 2]),
        ("both", Query { since_unix_ns: Some(2), until_unix_ns: Some(3), ..all() }, &[1]),
        ("streams", Query { streams: vec![Stream::Stderr, Stream::Plimsoll], ..all() }, &[1, 2, 4]),
        ("level", Query { min_level: Some(LogLevel::Warn), ..all() }, &[1, 3]),
        ("worse", Query { min_level: Some(LogLevel::Error), ..all() }, &[1]),
        (
            "pattern",
            Query { pattern: Some(Pattern::new("^.*[ot]w?o|five$", Find::default()).unwrap()), ..all() },
            &[1, 5],
        ),
        ("nothing", Query { since_unix_ns: Some(7), ..all() }, &[]),
    ];
    for (name, query, expected) in &table {
        let expected: Vec<&str> = expected.iter().map(|i| SIX[*i]).collect();
        in_every_state(&|dir, state| {
            assert_eq!(read(dir, query), expected, "{name}, {state}");
            assert_eq!(tail(dir, query, 9), expected, "{name}, {state}");
            assert_eq!(tail(dir, query, 1), expected[expected.len().saturating_sub(1)..], "{name}, {state}");
        });
    }
}

#[test]
fn a_broken_off_read_goes_on_at_the_next_entry() {
    in_every_state(&|dir, state| {
        let (mut all, mut cursor, mut reader) = (Vec::new(), None, Reader::open(dir).unwrap());
        for i in 0..7 {
            if i == 3 {
                // Another process, which knows only the number.
                reader = Reader::open(dir).unwrap();
                cursor = cursor.map(|c: Cursor| Cursor::at(c.position()));
            }
            let sink = &mut |entry: Entry<'_>| {
                all.push(words(&entry));
                ControlFlow::Break(())
            };
            cursor = Some(reader.read(&Query::default(), cursor, sink).unwrap());
        }
        assert_eq!(all, SIX, "{state}");
    });
}

#[test]
fn following_gives_what_is_new_also_across_a_seal() {
    let place = Place::new();
    let (mut intake, store, _) = open(lazy(&place)).unwrap();
    let mut reader = Reader::open(&place.path()).unwrap();
    let mut cursor = None;
    let mut got = Vec::new();
    let mut follow = |got: &mut Vec<String>, reader: &mut Reader| {
        let (new, now) = read_from(reader, &Query::default(), cursor);
        cursor = Some(now);
        let n = new.len();
        got.extend(new);
        n
    };
    assert_eq!(follow(&mut got, &mut reader), 0, "nothing there yet");
    print(&mut intake, Stream::Stdout, "one\ntw", 1);
    assert_eq!(follow(&mut got, &mut reader), 1);
    assert_eq!(follow(&mut got, &mut reader), 0);
    print(&mut intake, Stream::Stdout, "o\nthree\nfo", 2);
    close(store);
    // All of it is in the database now, and the frame that it stood in is gone.
    assert_eq!(follow(&mut got, &mut reader), 3);
    let (mut intake, store, _) = open(lazy(&place)).unwrap();
    print(&mut intake, Stream::Stdout, "five\n", 3);
    assert_eq!(follow(&mut got, &mut reader), 1);
    assert_eq!(
        got,
        ["1 out one", "2 out two", "2 out three", "2 out fo|", "3 out five"].map(|w| w.replace("2 out fo|", &got[3]))
    );
    assert!(got[3].ends_with(" out fo|"), "{}", got[3]);
    drop(store);
}

#[test]
fn a_tail_is_where_following_begins() {
    let place = Place::new();
    let (mut intake, store) = six(&place, |both| both);
    let mut reader = Reader::open(&place.path()).unwrap();
    let cursor = reader.tail(&Query::default(), 0, &mut |_| panic!("none was asked for")).unwrap();
    print(&mut intake, Stream::Stderr, "seven\n", 7);
    assert_eq!(read_from(&mut reader, &Query::default(), Some(cursor)).0, ["7 err seven"]);
    drop(store);
}

#[test]
fn a_cursor_behind_the_end_gives_what_comes() {
    let place = Place::new();
    let (mut intake, store) = six(&place, |both| both);
    let mut reader = Reader::open(&place.path()).unwrap();
    let (none, cursor) = read_from(&mut reader, &Query::default(), Some(Cursor::at(u64::MAX)));
    assert!(none.is_empty());
    print(&mut intake, Stream::Stderr, "seven\n", 7);
    assert_eq!(read_from(&mut reader, &Query::default(), Some(cursor)).0, ["7 err seven"]);
    drop(store);
}

#[test]
fn nothing_there_is_an_empty_log_and_no_directory_an_error() {
    let place = Place::new();
    let error = Reader::open(&place.path()).unwrap_err().to_string();
    assert!(error.contains("web"), "{error}");
    std::fs::create_dir(place.path()).unwrap();
    assert_eq!(read(&place.path(), &Query::default()), [""; 0]);
    assert_eq!(tail(&place.path(), &Query::default(), 5), [""; 0]);
    assert_eq!(Reader::open(&place.path()).unwrap().heartbeat_age().unwrap(), None);
    assert_eq!(std::fs::read_dir(place.path()).unwrap().count(), 0, "a reader makes no files");
}

#[test]
fn what_is_not_final_is_pending() {
    let place = Place::new();
    let settings = Settings { ring_bytes: 256 << 10, ..lazy(&place) };
    let (mut intake, store, _) = open(settings).unwrap();
    print(&mut intake, Stream::Stderr, "done\npassword: ", 8);
    assert_eq!(pending(&place.path()), ["8 err password: |"]);
    assert_eq!(read(&place.path(), &Query::default()), ["8 err done"]);
    // What became complete between a read and the question comes first, and is not pending too.
    let mut reader = Reader::open(&place.path()).unwrap();
    assert_eq!(read_from(&mut reader, &Query::default(), None).0, ["8 err done"]);
    print(&mut intake, Stream::Stderr, "secret\nmore", 9);
    assert_eq!(pending_of(&mut reader), ["9 err password: secret", "9 err more|"]);
    intake.heartbeat(u64::try_from(clock::monotonic().as_nanos()).unwrap());
    let age = Reader::open(&place.path()).unwrap().heartbeat_age().unwrap().unwrap();
    assert!(age < Duration::from_secs(60), "{age:?}");
    drop(store);
}

#[test]
fn a_damaged_database_is_an_error_that_names_it_and_what_to_do() {
    let place = Place::new();
    let (_, store) = six(&place, |both| both);
    close(store);
    let path = place.path().join("logs.db");
    let mut bytes = std::fs::read(&path).unwrap();
    bytes[..100].fill(7);
    std::fs::write(&path, &bytes).unwrap();
    let error = Reader::open(&place.path()).unwrap_err();
    assert!(error.to_string().contains("logs.db"), "{error}");
    assert!(error.hint().is_some_and(|hint| hint.contains("set")), "{:?}", error.hint());
}

#[test]
fn a_damaged_chunk_is_a_gap_of_its_lines() {
    let place = Place::new();
    let (_, store) = six(&place, |(_, store)| {
        close(store);
        let (intake, store, _) = open(lazy(&place)).unwrap();
        (intake, store)
    });
    close(store);
    let db = rusqlite::Connection::open(place.path().join("logs.db")).unwrap();
    db.execute_batch("UPDATE chunk SET blob = zeroblob(9) WHERE first_unix_ns = 4").unwrap();
    drop(db);
    let expected = ["1 out one", "2 err ERROR two", "3 pli three", "5 err six", "6 out <2 database-lost>"];
    assert_eq!(read(&place.path(), &Query::default()), expected);
    assert_eq!(tail(&place.path(), &Query::default(), 2), expected[3..]);
}

#[test]
fn a_missing_segment_is_a_gap() {
    // Segments by hand: two, with a hole between them.
    let place = Place::new();
    let spool = place.path().join("spool");
    std::fs::create_dir_all(&spool).unwrap();
    let frame = |position: u64, text: &str| {
        let len = text.len();
        let frame = Frame { kind: Kind::Data, stream: Stream::Stdout, flags: 0, len, position, at_unix_ns: 9 };
        let mut bytes = frame.header(text.as_bytes()).to_vec();
        bytes.extend_from_slice(text.as_bytes());
        bytes.resize(crate::frame::frame_bytes(len), 0);
        bytes
    };
    let segment = |start: u64, frames: &[u8]| {
        let file = crate::segment::path(&spool, start);
        std::fs::write(file, [&crate::segment::header(crate::segment::Content::Log, start)[..], frames].concat())
            .unwrap();
    };
    segment(0, &frame(0, "one\ncut o"));
    segment(4096, &frame(4096, "ff\ntwo\nthree"));
    let expected = ["9 out one", "9 out cut o|", "9 out <1 spool-damaged>", "9 err <1 spool-damaged>", "9 out two"];
    assert_eq!(read(&place.path(), &Query::default()), expected);
    assert_eq!(tail(&place.path(), &Query::default(), 1), expected[4..]);
    // The sealer sees the same as the reader, at the same positions: nobody who reads on sees it twice.
    let places = |dir: &Path| {
        let mut all = Vec::new();
        let sink = &mut |entry: Entry<'_>| {
            all.push((entry.position, words(&entry).split_once(' ').unwrap().1.to_owned()));
            ControlFlow::Continue(())
        };
        Reader::open(dir).unwrap().read(&Query::default(), None, sink).unwrap();
        all
    };
    let unsealed = places(&place.path());
    let (_intake, store, recovery) = open(lazy(&place)).unwrap();
    assert_eq!(recovery.spool_holes, 1);
    close(store);
    let sealed = places(&place.path());
    assert_eq!(sealed[..5], unsealed);
    assert_eq!(sealed[5..].iter().map(|(_, words)| words.as_str()).collect::<Vec<_>>(), ["out three|"]);
}

#[test]
fn without_a_ring_the_torn_end_of_the_spool_is_its_end() {
    let place = Place::new();
    let (_intake, store) = six(&place, |both| both);
    spooled(&store);
    drop(store);
    std::fs::remove_file(place.ring()).unwrap();
    let newest = crate::segment::path(&place.path().join("spool"), 0);
    let whole = std::fs::read(&newest).unwrap();
    std::fs::write(&newest, &whole[..whole.len() - 9]).unwrap();
    assert_eq!(read(&place.path(), &Query::default()), SIX[..5]);
    assert_eq!(tail(&place.path(), &Query::default(), 1), SIX[4..5]);
}

#[test]
fn segments_that_are_sealed_and_freed_while_they_are_read_are_found_in_the_database() {
    let place = Place::new();
    let settings = Settings { ring_bytes: 8 << 20, spool_bytes: 16 << 20, ..lazy(&place) };
    let (mut intake, store, _) = open(settings).unwrap();
    // Nothing can be sealed yet.
    let other = rusqlite::Connection::open(place.path().join("logs.db")).unwrap();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    let mut held = Some((store, other));
    // Two segments of 4 MiB, and a part of a third.
    let text: String = (0..600).map(|i| format!("{i:>99}\n")).collect();
    let blocks = 180;
    for at in 1..=blocks {
        print(&mut intake, Stream::Stdout, &text, at);
        if at % 60 == 0 {
            spooled(&held.as_ref().unwrap().0);
        }
    }
    let mut reader = Reader::open(&place.path()).unwrap();
    let mut next = 0;
    let sink = &mut |entry: Entry<'_>| {
        // With the first segment open, all of it is sealed and freed.
        if let Some((store, other)) = held.take() {
            drop(other);
            close(store);
        }
        let EntryKind::Line { text, .. } = entry.kind else { panic!("{entry:?}") };
        assert_eq!(str::from_utf8(text).unwrap().trim().parse(), Ok(next % 600));
        assert_eq!(entry.at_unix_ns, next / 600 + 1);
        next += 1;
        ControlFlow::Continue(())
    };
    reader.read(&Query::default(), None, sink).unwrap();
    assert_eq!(next, blocks * 600);
}
