//! Rows into SQLite through the queue and the batcher beside a bare loop over a prepared statement, the same schema, the same rows, in
//! one run: rows a second, the median of [`ROUNDS`] rounds in turn.
//!
//! `cargo bench -p plimsoll --bench batch`. WAL, `synchronous = NORMAL`, transactions of 10,000 rows, a text of 200 bytes, a
//! time, a source and a level. Without `--bench` one short round, to see that it runs.

use std::path::Path;
use std::time::Duration;

use plimsoll::clock::{Clock as _, MonotonicClock};
use plimsoll::queue::batch::{Builder, Record, SinkError};
use plimsoll::queue::{Limits, Sent, Weigh, WhenFull, bounded};
use rusqlite::{CachedStatement, Connection};

const ROUNDS: usize = 7;
const TRANSACTION_ROWS: usize = 10_000;

#[derive(Clone)]
struct Row {
    at_ms: i64,
    source: &'static str,
    level: i64,
    text: Box<str>,
}

impl Weigh for Row {
    fn weight_bytes(&self) -> u64 {
        (size_of::<Row>() + self.text.len()) as u64
    }
}

fn rows(count: usize) -> Vec<Row> {
    let row = |n: usize| {
        let text = format!("{n:010} {}", "a request was handled in so many milliseconds ".repeat(5));
        Row { at_ms: n as i64, source: "web/stderr", level: (n % 5) as i64, text: text[..200].into() }
    };
    (0..count).map(row).collect()
}

fn open(path: &Path) -> Connection {
    let database = Connection::open(path).expect("a database");
    database.pragma_update(None, "journal_mode", "WAL").expect("a pragma");
    database.pragma_update(None, "synchronous", "NORMAL").expect("a pragma");
    database.execute_batch("CREATE TABLE log (at INTEGER, source TEXT, level INTEGER, text TEXT)").expect("a table");
    database
}

fn insert(statement: &mut CachedStatement<'_>, row: &Row) -> rusqlite::Result<()> {
    statement.execute((row.at_ms, row.source, row.level, &*row.text)).map(|_| ())
}

fn insert_all<'a>(database: &mut Connection, rows: impl Iterator<Item = &'a Row>) -> rusqlite::Result<()> {
    let transaction = database.transaction()?;
    {
        let mut statement = transaction.prepare_cached("INSERT INTO log VALUES (?1, ?2, ?3, ?4)")?;
        for row in rows {
            insert(&mut statement, row)?;
        }
    }
    transaction.commit()
}

/// A name and a run.
type Kind = (&'static str, fn(&Path, &[Row]));

/// As fast as SQLite takes them from one thread; as what comes through the queue, each row is made just before.
fn bare(path: &Path, rows: &[Row]) {
    let mut database = open(path);
    for rows in rows.chunks(TRANSACTION_ROWS) {
        insert_all(&mut database, rows.to_vec().iter()).expect("an insertion");
    }
}

/// From another thread through the queue.
fn batched(path: &Path, rows: &[Row]) {
    let mut database = open(path);
    let limits = Limits { max_items: 8 * TRANSACTION_ROWS, max_bytes: 32 << 20 };
    let (sender, receiver) = bounded(limits, WhenFull::WaitUntil(Duration::from_secs(60)));
    let sink = move |records: &[Record<Row>]| {
        let rows = records.iter().filter_map(|record| match record {
            Record::Value(row) => Some(row),
            Record::Gap(_) => None,
        });
        insert_all(&mut database, rows).map_err(SinkError::from)
    };
    let count = rows.len() as u64;
    let batcher = Builder::new(receiver, sink).max_items(TRANSACTION_ROWS).start().expect("a thread");
    for row in rows {
        assert_eq!(sender.send(row.clone()).expect("room in time"), Sent::Queued);
    }
    let finished = batcher.finish(Duration::from_secs(60));
    assert_eq!(finished.stats.written_total.items, count);
}

fn main() {
    let measure = std::env::args().any(|arg| arg == "--bench");
    let (rounds, count) = if measure { (ROUNDS, 500_000) } else { (1, 20_000) };
    let rows = rows(count);
    let kinds: [Kind; 2] = [("bare loop", bare), ("queue and batcher", batched)];
    let mut rates = [Vec::new(), Vec::new()];
    for _ in 0..rounds {
        for ((_, run), rates) in kinds.iter().zip(&mut rates) {
            let dir = tempfile::tempdir().expect("a directory");
            let began = MonotonicClock.now();
            run(&dir.path().join("log.db"), &rows);
            rates.push(count as f64 / (MonotonicClock.now() - began).as_secs_f64());
        }
    }
    let medians = rates.map(|mut rates| {
        rates.sort_by(f64::total_cmp);
        rates[rates.len() / 2]
    });
    println!("{count} rows of 200 bytes, {rounds} rounds: rows a second, median");
    for ((name, _), median) in kinds.iter().zip(medians) {
        println!("  {name:<20}{:>10.0} k   {:>5.2} of the bare loop", median / 1e3, median / medians[0]);
    }
}
