//! Looking for words by the chunks' token filters, reading backwards in pages, and the hot window: each says exactly what the plain way
//! through everything says.
#![allow(clippy::disallowed_methods)] // tests read their own small files

use super::*;
use crate::chunk::{Builder, Builders};
use crate::frame::frame_bytes;
use crate::merge::Merger;
use crate::schema::Database;

const LINES: u64 = 30_000;

/// A sealed log of 30,000 lines of two streams in about 20 chunks, with a gap, and nothing unsealed.
fn log() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    let mut database = Database::open(&dir.path().join(DATABASE_FILE), "web", 65_536).unwrap();
    let mut builders = Builders::new(65_536, [Resume::default(); 3]);
    let mut position = 0;
    let mut push = |builders: &mut Builders, kind, stream, number, payload: &[u8]| {
        let frame = Frame { kind, stream, flags: 0, len: payload.len(), position, at_unix_ns: number };
        builders.push(&frame, payload);
        position += frame_bytes(payload.len()) as u64;
        position
    };
    for number in 0..LINES {
        let stream = if number % 3 == 0 { Stream::Stderr } else { Stream::Stdout };
        let level = if number % 1000 == 1 { "ERROR" } else { "info" };
        let line =
            format!("{number:06} {level} user id{:x} from 10.0.{}.{}\n", number * 7919, number % 7, number % 251);
        let mut end = push(&mut builders, Kind::Data, stream, number, line.as_bytes());
        if number == LINES / 2 {
            let gap = unknown(GapReason::RingLost, number).encode();
            end = push(&mut builders, Kind::Gap, stream, number, &gap);
        }
        if number % 1500 == 1499 {
            let batch = builders.finish(end).unwrap();
            database.insert(&batch.sealed, &batch.resume).unwrap();
        }
    }
    dir
}

fn words(entry: &Entry<'_>) -> String {
    match entry.kind {
        EntryKind::Line { text, .. } => {
            format!("{} {} {}", entry.position, entry.stream, String::from_utf8_lossy(text))
        }
        EntryKind::Gap { lines, .. } => format!("{} {} gap of {lines}", entry.position, entry.stream),
    }
}

fn forwards(reader: &mut Reader, query: &Query) -> Vec<String> {
    let mut all = Vec::new();
    let mut sink = |entry: Entry<'_>| {
        all.push(words(&entry));
        ControlFlow::Continue(())
    };
    reader.read(query, None, &mut sink).unwrap();
    all
}

fn backwards(reader: &mut Reader, query: &Query, page: usize) -> Vec<String> {
    let (mut all, mut before) = (Vec::new(), None);
    loop {
        let mut count = 0;
        let mut sink = |entry: Entry<'_>| {
            count += 1;
            all.push(words(&entry));
            ControlFlow::Continue(())
        };
        before = reader.read_back(query, before, page, &mut sink).unwrap();
        assert!(count <= page);
        if before.is_none() {
            all.reverse();
            return all;
        }
    }
}

fn queries() -> Vec<(&'static str, Query)> {
    let word = Find { whole_words: true, ..Find::default() };
    let looking = |text: &str, find| Query { pattern: Some(Pattern::new(text, find).unwrap()), ..Query::default() };
    vec![
        ("everything", Query::default()),
        ("one line", looking(&format!("id{:x}", 12_345 * 7919), word)),
        ("no line", looking("id000000ffff", word)),
        ("an address", looking(r"10\.0\.3\.77", word)),
        ("two words", looking(r" ERROR user .* 10\.0\.1\.", Find::default())),
        ("one of two", looking(r"\b(000007|029999)\b", Find::default())),
        ("a part of a word", looking("d5e", Find::default())),
        (
            "bad ones of one stream",
            Query { streams: vec![Stream::Stdout], min_level: Some(crate::LogLevel::Error), ..Query::default() },
        ),
        ("no level but info", Query { min_level: Some(crate::LogLevel::Info), ..Query::default() }),
        ("a time", Query { since_unix_ns: Some(2_500), until_unix_ns: Some(27_100), ..Query::default() }),
        (
            "a time, and a word",
            Query { since_unix_ns: Some(7_000), until_unix_ns: Some(9_000), ..looking("008000", word) },
        ),
    ]
}

#[test]
fn filters_windows_and_pages_say_what_the_plain_way_says() {
    let dir = log();
    let plain = forwards(&mut Reader::open(dir.path()).unwrap(), &Query::default());
    assert_eq!(plain.len() as u64, LINES + 1);
    let without = tempfile::tempdir().unwrap();
    std::fs::copy(dir.path().join(DATABASE_FILE), without.path().join(DATABASE_FILE)).unwrap();
    let connection = rusqlite::Connection::open(without.path().join(DATABASE_FILE)).unwrap();
    assert!(connection.execute("DELETE FROM filter", []).unwrap() > 10, "chunks have filters");
    drop(connection);
    let hot = Arc::new(HotWindow::new(3 << 20));
    for (name, query) in queries() {
        let expected = forwards(&mut Reader::open(without.path()).unwrap(), &query);
        let found = forwards(&mut Reader::open(dir.path()).unwrap(), &query);
        assert_eq!(found, expected, "{name}, with filters");
        let counted = Reader::open(dir.path()).unwrap().count(&query).unwrap();
        assert_eq!(counted.lines + counted.gaps, expected.len() as u64, "{name}, counted: {counted:?}");
        let mut reader = Reader::open_with(dir.path(), Some(hot.clone())).unwrap();
        for _ in 0..2 {
            assert_eq!(forwards(&mut reader, &query), expected, "{name}, with a window");
        }
        for page in [1000, 7, 1].into_iter().filter(|page| expected.len() / page < 300) {
            assert_eq!(backwards(&mut reader, &query, page), expected, "{name}, backwards by {page}");
        }
        assert!(hot.held_bytes() <= 3 << 20);
        hot.give_back(1 << 20);
    }
    let stats = hot.stats();
    assert!(stats.hits_total > 0 && stats.misses_total > 0, "{stats:?}");
}

#[test]
fn a_word_that_is_nowhere_opens_hardly_a_chunk() {
    let dir = log();
    let opened = |query: &Query| {
        let hot = Arc::new(HotWindow::new(1 << 30));
        let mut reader = Reader::open_with(dir.path(), Some(hot.clone())).unwrap();
        forwards(&mut reader, query);
        hot.stats().misses_total
    };
    let all = opened(&Query::default());
    let word = Pattern::new("absent00", Find { whole_words: true, ..Find::default() }).unwrap();
    let some = opened(&Query { pattern: Some(word), ..Query::default() });
    assert!(all >= 40 && some <= 3, "{some} of {all} chunks; the one with the gap must be");
}

#[test]
fn the_newest_chunks_are_loaded_first_and_what_is_covered_is_said() {
    let dir = log();
    let hot = Arc::new(HotWindow::new(64 << 20));
    let mut reader = Reader::open_with(dir.path(), Some(hot.clone())).unwrap();
    let mut before = Coverage::default();
    let mut steps = 0;
    while !before.complete {
        let now = reader.warm(150_000).unwrap();
        assert!(now.chunks > before.chunks && now.of_chunks >= 40, "{now:?} after {before:?}");
        assert!(before.from_unix_ns.is_none_or(|from| now.from_unix_ns < Some(from)), "newest first");
        // It answers meanwhile, from memory and disk.
        assert_eq!(backwards(&mut reader, &queries()[1].1, 5).len(), 2);
        (before, steps) = (now, steps + 1);
    }
    assert!(steps > 3 && before.chunks == before.of_chunks && before.from_unix_ns == Some(0), "{steps} steps");
    let misses = hot.stats().misses_total;
    assert_eq!(forwards(&mut reader, &Query::default()).len() as u64, LINES + 1);
    assert_eq!(hot.stats().misses_total, misses, "all of it is in memory");
    let small = Arc::new(HotWindow::new(300_000));
    let mut reader = Reader::open_with(dir.path(), Some(small.clone())).unwrap();
    let covered = reader.warm(u64::MAX).unwrap();
    assert!(!covered.complete && covered.chunks >= 1 && covered.chunks < covered.of_chunks, "{covered:?}");
    assert!(covered.from_unix_ns > Some(LINES / 2) && small.held_bytes() <= 300_000);
    assert_eq!(reader.warm(u64::MAX).unwrap(), covered, "there is no room for more");
}

/// Chunks are merged between two pages, and while their old forms are in the window.
#[test]
fn merging_changes_nothing_for_a_reader() {
    let dir = tempfile::tempdir().unwrap();
    let mut database = Database::open(&dir.path().join(DATABASE_FILE), "web", 65_536).unwrap();
    let seal = |database: &mut Database, number: u64| {
        let mut builder = Builder::new(Stream::Stdout);
        let text = format!("{number:06} token{number}");
        builder.push(
            number * 100 + 50,
            number,
            Found::Line { text: text.as_bytes(), continued: false, unterminated: false },
        );
        let resume = Resume { frame: number * 100 + 100, ..Resume::default() };
        database.insert(&[builder.finish().unwrap().unwrap()], &[resume; 3]).unwrap();
    };
    for number in 0..100 {
        seal(&mut database, number);
    }
    let hot = Arc::new(HotWindow::default());
    let mut reader = Reader::open_with(dir.path(), Some(hot)).unwrap();
    let expected = forwards(&mut reader, &Query::default());
    assert_eq!(expected.len(), 100);
    let mut merger = Merger::default();
    let (mut all, mut before) = (Vec::new(), None);
    loop {
        let mut sink = |entry: Entry<'_>| {
            all.push(words(&entry));
            ControlFlow::Continue(())
        };
        before = reader.read_back(&Query::default(), before, 7, &mut sink).unwrap();
        merger.step(&mut database).unwrap();
        if before.is_none() {
            break;
        }
    }
    all.reverse();
    assert_eq!(all, expected);
    assert!(database.newest_facts(Stream::Stdout, 0, 1000).unwrap().len() < 20, "they were merged");
    assert_eq!(forwards(&mut reader, &Query::default()), expected);
    // In the middle of a walk forwards, too.
    for number in 100..200 {
        seal(&mut database, number);
    }
    let mut seen = 0;
    let mut sink = |_: Entry<'_>| {
        seen += 1;
        if seen % 10 == 0 {
            merger.step(&mut database).unwrap();
        }
        ControlFlow::Continue(())
    };
    reader.read(&Query::default(), None, &mut sink).unwrap();
    assert_eq!(seen, 200);
}

#[test]
fn what_is_counted_by_its_row_is_not_counted_again_in_what_it_is_merged_into() {
    let dir = tempfile::tempdir().unwrap();
    let mut database = Database::open(&dir.path().join(DATABASE_FILE), "web", 65_536).unwrap();
    let mut builders = Builders::new(65_536, [Resume::default(); 3]);
    let mut position = 0;
    let mut seal = |database: &mut Database, lines: &[(Stream, &str)]| {
        for (stream, text) in lines {
            let frame =
                Frame { kind: Kind::Data, stream: *stream, flags: 0, len: text.len(), position, at_unix_ns: position };
            builders.push(&frame, text.as_bytes());
            position += frame_bytes(text.len()) as u64;
        }
        let batch = builders.finish(position).unwrap();
        database.insert(&batch.sealed, &batch.resume).unwrap();
    };
    // Of mixed levels, so it is opened.
    seal(&mut database, &[(Stream::Stderr, "ERROR bad\nnothing\n")]);
    for _ in 0..7 {
        seal(&mut database, &[(Stream::Stdout, "INFO good\n")]);
    }
    let query = Query { min_level: Some(crate::LogLevel::Info), ..Query::default() };
    let (mut by_row, mut read, mut merged) = (Counted::default(), Counted::default(), 0);
    let mut reader = Reader::open(dir.path()).unwrap();
    let mut take_row = |row: &Row| row.counted(&query).inspect(|counted| by_row.add(*counted)).is_some();
    let walked = reader.read_but(&query, None, &mut take_row, &mut |entry| {
        read.count(&entry);
        if merged == 0 {
            // An eighth comes, and all of them become one.
            seal(&mut database, &[(Stream::Stdout, "INFO new\n")]);
            merged = Merger::default().step(&mut database).unwrap().from;
        }
        ControlFlow::Continue(())
    });
    walked.unwrap();
    assert_eq!(merged, 8);
    assert_eq!((by_row.lines, read.lines), (7, 2));
}
