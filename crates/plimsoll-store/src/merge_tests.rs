//! Merging keeps every entry, bounds how often a byte is written again, and leaves alone what it cannot read.

use rusqlite::Connection;

use super::*;
use crate::chunk::{Item, Sealed, Unpacker};
use crate::split::{Found, Resume};
use crate::{GapReason, LogLevel};

fn open(dir: &tempfile::TempDir) -> Database {
    Database::open(&dir.path().join("logs.db"), "web", 65_536).expect("a database")
}

fn chunk_of(stream: Stream, first: u64, texts: &[&str]) -> Sealed {
    let mut builder = Builder::new(stream);
    let mut position = first;
    for text in texts {
        position += text.len() as u64 + 1;
        let found = if *text == "GAP" {
            Found::Gap { lines: 3, bytes: 9, from_unix_ns: first, to_unix_ns: first + 1, reason: GapReason::RingFull }
        } else {
            Found::Line { text: text.as_bytes(), continued: false, unterminated: false }
        };
        builder.push(position, first, found);
    }
    builder.finish().expect("zstd compresses").expect("something was pushed")
}

type Seen = (u64, u64, Option<LogLevel>, String);

fn everything(database: &mut Database, stream: Stream) -> (Vec<Seen>, usize) {
    let mut facts = database.newest_facts(stream, 0, 100_000).expect("readable");
    facts.reverse();
    let mut seen = Vec::new();
    for facts in &facts {
        let mut chunk = Chunk::default();
        database
            .with_blob(facts.id, |blob| chunk.load(&mut Unpacker::default(), blob).expect("whole"))
            .expect("readable")
            .expect("there");
        seen.extend(chunk.items().map(|item| {
            let Item { position, at_unix_ns, level, found } = item.expect("whole");
            (position, at_unix_ns, level, format!("{found:?}"))
        }));
    }
    (seen, facts.len())
}

#[test]
fn a_line_a_minute_becomes_few_chunks_and_no_line_is_lost() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let mut database = open(&dir);
    let mut merger = Merger::default();
    let (mut written_again, mut sum) = (0, 0);
    for minute in 0..3000u64 {
        let line = format!("WARN minute {minute} {:x}", minute.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        let other: &[&str] = if minute % 100 == 7 { &["GAP"] } else { &[] };
        let texts = [&[line.as_str()], other].concat();
        let sealed = chunk_of(Stream::Stderr, minute * 1000, &texts);
        sum += sealed.raw_bytes;
        database.insert(&[sealed], &[Resume::default(); 3]).expect("written");
        let before = database.newest_facts(Stream::Stderr, 0, 100_000).expect("readable");
        let merged = merger.step(&mut database).expect("merged");
        if merged.into > 0 {
            let after = database.newest_facts(Stream::Stderr, 0, 100_000).expect("readable");
            assert_eq!(before.len() as u64 - merged.from + merged.into, after.len() as u64);
            written_again += after
                .iter()
                .filter(|a| {
                    !before.iter().any(|b| b.first_position == a.first_position && b.last_position == a.last_position)
                })
                .map(|a| a.raw_bytes)
                .sum::<u64>();
        }
    }
    let (seen, chunks) = everything(&mut database, Stream::Stderr);
    assert_eq!(seen.len(), 3030);
    assert!(seen.is_sorted_by_key(|s| s.0), "in order");
    assert_eq!(seen.iter().filter(|s| s.2 == Some(LogLevel::Warn)).count(), 3000);
    assert!(chunks <= 40, "{chunks} chunks are left");
    assert!(written_again <= 4 * sum, "{written_again} bytes were written again, of {sum}");
}

#[test]
fn columns_of_a_merged_chunk_are_those_of_its_parts() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let mut database = open(&dir);
    let parts: Vec<Sealed> =
        (0..8).map(|i| chunk_of(Stream::Stdout, 1000 + 100 * i, &["one", "ERROR two", "GAP"])).collect();
    database.insert(&parts, &[Resume::default(); 3]).expect("written");
    assert_eq!(Merger::default().step(&mut database).expect("merged"), Merged { from: 8, into: 1 });
    let row = |sql: &str| -> Vec<i64> {
        let connection = Connection::open(dir.path().join("logs.db")).expect("opened");
        let mut find = connection.prepare(sql).expect("right");
        let rows = find.query_map([], |row| row.get(0)).expect("readable").map(|v| v.expect("a number"));
        rows.collect()
    };
    for (column, value) in [
        ("id", 8),
        ("first_position", 1004),
        ("last_position", 1718),
        ("first_unix_ns", 1000),
        ("last_unix_ns", 1701),
        ("lines", 16),
        ("gaps", 8),
        ("gap_lines", 24),
        ("levels", 1 | 1 << 5),
        ("raw_bytes", 8 * 14),
    ] {
        assert_eq!(row(&format!("SELECT {column} FROM chunk")), [value], "{column}");
    }
}

#[test]
fn what_cannot_be_read_stays_and_what_is_large_too() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let mut database = open(&dir);
    let mut parts: Vec<Sealed> = (0..20).map(|i| chunk_of(Stream::Stdout, 100 * i, &["line"])).collect();
    parts[3].blob[30] ^= 1;
    database.insert(&parts, &[Resume::default(); 3]).expect("written");
    let mut merger = Merger::default();
    assert_eq!(merger.step(&mut database).expect("looked"), Merged::default());
    assert_eq!(merger.step(&mut database).expect("merged"), Merged { from: 16, into: 1 }, "what lies behind it");
    assert_eq!(merger.step(&mut database).expect("looked"), Merged::default());
    let facts = |raw_bytes, entries| Facts { id: 1, first_position: 1, last_position: 1, raw_bytes, entries };
    for (raw_bytes, entries, expected) in [
        (0, 1, 0),
        (2047, 1, 0),
        (2048, 1, 1),
        (100, 19, 1),
        (16 << 10, 1, 2),
        (100, 1250, 3),
        (1 << 20, 1, 3),
        (5, 10_000, 3),
    ] {
        assert_eq!(class(&facts(raw_bytes, entries)), expected, "{raw_bytes} bytes, {entries} entries");
    }
    assert_eq!(find_run(&vec![facts(1 << 20, 9); 100]), None);
    assert_eq!(find_run(&vec![facts(200 << 10, 9); 100]), None, "large enough");
    let large = facts(20 << 10, 9);
    let mixed = [vec![large; 7], vec![facts(9, 1); 7]].concat();
    assert_eq!(find_run(&mixed), None, "a large one is not written again for small ones");
    assert_eq!(
        find_run(&[vec![large; 4], vec![facts(9, 1); 3], vec![large; 4], vec![facts(9, 1)]].concat()),
        Some(0..12)
    );
    assert_eq!(find_run(&vec![facts(100, 5); 7]), None);
}
