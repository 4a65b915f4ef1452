//! The database is made once, refuses what it does not know, and writes a seal whole or not at all.

use super::*;
use crate::chunk::Builder;
use crate::split::Found;

fn row(stream: Stream, first: u64, lines: u64) -> Sealed {
    let mut builder = Builder::new(stream);
    for i in 0..lines {
        let text = format!("line {i} {:x}", (first + i).wrapping_mul(0x9e37_79b9_7f4a_7c15));
        builder.push(first + i * 100, i, Found::Line { text: text.as_bytes(), continued: false, unterminated: false });
    }
    builder.finish().expect("zstd compresses").expect("lines were pushed")
}

fn resume(frame: u64) -> [Resume; 3] {
    [Resume { frame, byte: 7, skipping: true }, Resume { frame: frame + 1, ..Resume::default() }, Resume::default()]
}

fn open(dir: &tempfile::TempDir) -> Result<Database, StoreError> {
    Database::open(&dir.path().join("logs.db"), "web", 65_536)
}

#[test]
fn what_is_sealed_is_there_after_opening_again() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let mut db = open(&dir).expect("a new database");
    assert_eq!(db.sealed_positions().expect("readable"), [Resume::default(); 3]);
    db.insert(&[row(Stream::Stdout, 40, 10), row(Stream::Stderr, 50, 1)], &resume(4000)).expect("written");
    drop(db);
    let db = open(&dir).expect("the same database");
    assert_eq!(db.sealed_positions().expect("readable"), resume(4000));
    let count: i64 = db.connection.query_row("SELECT sum(lines) FROM chunk", [], first).expect("readable");
    assert_eq!(count, 11);
    let sources: i64 = db.connection.query_row("SELECT count(*) FROM source", [], first).expect("readable");
    assert_eq!(sources, 1);
    let pragma = |name: &str| db.connection.pragma_query_value(None, name, first).expect("readable");
    assert_eq!((pragma("page_size"), pragma("auto_vacuum"), pragma("user_version")), (16_384, 2, VERSION));
    use std::os::unix::fs::PermissionsExt;
    for file in ["logs.db", "logs.db-wal"] {
        let mode = std::fs::metadata(dir.path().join(file)).expect("it is there").permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{file}");
    }
}

#[test]
fn a_seal_that_fails_leaves_nothing() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let mut db = open(&dir).expect("a new database");
    db.insert(&[row(Stream::Stdout, 40, 10)], &resume(4000)).expect("written");
    // The second chunk ends at the same position as one that is there: sealed twice.
    let twice = [row(Stream::Stderr, 40, 10), row(Stream::Stdout, 40, 10)];
    db.insert(&twice, &resume(9000)).expect_err("a position is sealed once");
    assert_eq!(db.sealed_positions().expect("readable"), resume(4000));
    let count: i64 = db.connection.query_row("SELECT count(*) FROM chunk", [], first).expect("readable");
    assert_eq!(count, 1);
}

#[test]
fn foreign_newer_and_broken_files_are_refused_and_kept() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let path = dir.path().join("logs.db");
    drop(open(&dir).expect("a new database"));
    let change = |sql: &str| Connection::open(&path).and_then(|c| c.execute_batch(sql)).expect("changed");
    change("PRAGMA user_version = 9");
    assert!(matches!(open(&dir), Err(StoreError::Version { found: 9, known: 2, .. })));
    change("PRAGMA user_version = 2; PRAGMA application_id = 5");
    assert!(matches!(open(&dir), Err(StoreError::Version { found: 0, .. })));
    std::fs::write(&path, [7u8; 9000]).expect("overwritten");
    let error = open(&dir).expect_err("not a database");
    assert!(is_damage(&error), "{error}");
    assert_eq!(std::fs::metadata(&path).expect("it is there").len(), 9000);
}

#[test]
fn deleting_the_oldest_gives_disk_back() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let mut db = open(&dir).expect("a new database");
    for i in 0..40 {
        db.insert(&[row(Stream::Stdout, 40 + i * 1_000_000, 5000)], &resume(i)).expect("written");
    }
    assert!(db.checkpoint().expect("checkpointed"));
    let (used, size) = (db.used_bytes().expect("readable"), db.size_bytes());
    let deleted = db.delete_oldest(&mut |_, deleted| deleted.bytes < used / 2).expect("deleted");
    assert!(deleted.bytes >= used / 2 && deleted.chunks < 40, "{deleted:?}");
    assert_eq!(deleted.lines, deleted.chunks * 5000);
    let oldest: i64 = db.connection.query_row("SELECT min(first_position) FROM chunk", [], first).expect("readable");
    assert_eq!(unsigned(oldest), 40 + deleted.chunks * 1_000_000, "the oldest went");
    db.incremental_vacuum(u64::MAX / 2).expect("vacuumed");
    assert!(db.checkpoint().expect("checkpointed"));
    assert!(db.size_bytes() < size * 6 / 10, "{} of {size} bytes are left", db.size_bytes());
    assert!(db.used_bytes().expect("readable") < used * 6 / 10);
}

#[test]
fn deleting_more_than_there_is_ends() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let mut db = open(&dir).expect("a new database");
    db.insert(&[row(Stream::Stdout, 40, 10)], &resume(1)).expect("written");
    assert_eq!(db.delete_oldest(&mut |_, _| true).expect("deleted").chunks, 1);
    assert_eq!(db.delete_oldest(&mut |_, _| true).expect("deleted"), Deleted::default());
}

#[test]
fn a_database_of_version_1_is_brought_up_to_date_once() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let path = dir.path().join("logs.db");
    std::fs::copy(concat!(env!("CARGO_MANIFEST_DIR"), "/testdata/v1/logs.db"), &path).expect("copied");
    let schema = |db: &Database| -> Vec<(String, String)> {
        let mut find = db.connection.prepare("SELECT name, sql FROM sqlite_schema ORDER BY name").expect("readable");
        let rows = find.query_map([], |row| Ok((row.get(0)?, row.get::<_, Option<String>>(1)?.unwrap_or_default())));
        rows.expect("readable").map(|row| row.expect("readable")).collect()
    };
    let before: i64 =
        Connection::open(&path).and_then(|c| c.query_row("SELECT sum(lines) FROM chunk", [], first)).expect("readable");
    for _ in 0..2 {
        let db = open(&dir).expect("version 1 is known");
        assert_eq!(db.connection.pragma_query_value(None, "user_version", first).expect("readable"), VERSION);
        assert_eq!(db.connection.query_row("SELECT sum(lines) FROM chunk", [], first).expect("readable"), before);
        let fresh = tempfile::tempdir().expect("a temporary directory");
        assert_eq!(schema(&db), schema(&open(&fresh).expect("a new database")), "the same as a new one");
    }
}

#[test]
fn a_large_chunk_has_a_filter_and_loses_it_with_the_chunk() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let mut db = open(&dir).expect("a new database");
    let filters = |db: &Database| db.connection.query_row("SELECT count(*) FROM filter", [], first).expect("readable");
    db.insert(&[row(Stream::Stdout, 40, 5000), row(Stream::Stderr, 50, 3)], &resume(4000)).expect("written");
    assert_eq!(filters(&db), 1, "three lines are read as fast as a filter");
    assert_eq!(db.delete_oldest(&mut |_, deleted| deleted.bytes < 1).expect("deleted").chunks, 1);
    assert_eq!(filters(&db), 0);
}

#[test]
fn the_document_shows_these_tables() {
    let document = include_str!("../../../docs/log-format.md");
    assert!(document.contains(TABLES.trim()), "docs/log-format.md shows other tables than schema.rs makes");
}
