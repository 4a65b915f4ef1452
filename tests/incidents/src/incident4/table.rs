//! The database: one table of entries and one of gaps, a transaction for each batch; and somebody who holds its lock.

use crate::entry::Entry;
use plimsoll::queue::batch::{Record, Sink, SinkError};
use rusqlite::{Connection, TransactionBehavior};
use std::path::Path;
use std::time::Duration;

/// How long an insertion waits for the lock before it says that it is locked.
const BUSY: Duration = Duration::from_millis(50);

pub(crate) struct Table {
    database: Connection,
}

impl Table {
    pub(crate) fn open(path: &Path) -> rusqlite::Result<Table> {
        let database = Connection::open(path)?;
        database.pragma_update(None, "journal_mode", "WAL")?;
        database.pragma_update(None, "synchronous", "NORMAL")?;
        database.busy_timeout(BUSY)?;
        database.execute_batch(
            "CREATE TABLE IF NOT EXISTS entries (source INTEGER, number INTEGER, text TEXT);
             CREATE TABLE IF NOT EXISTS gaps (producer TEXT, reason TEXT, items INTEGER, first_ms INTEGER, last_ms INTEGER);",
        )?;
        Ok(Table { database })
    }

    /// Inserts entries in one transaction: all or none.
    pub(crate) fn insert<'a>(&mut self, records: impl Iterator<Item = &'a Record<Entry>>) -> rusqlite::Result<()> {
        let transaction = self.database.transaction_with_behavior(TransactionBehavior::Immediate)?;
        {
            let mut entry = transaction.prepare_cached("INSERT INTO entries VALUES (?1, ?2, ?3)")?;
            let mut missing = transaction.prepare_cached("INSERT INTO gaps VALUES (?1, ?2, ?3, ?4, ?5)")?;
            for record in records {
                match record {
                    Record::Value(of) => entry.execute((of.source, of.number as i64, &*of.text))?,
                    Record::Gap(gap) => missing.execute((
                        &*gap.producer,
                        gap.reason.as_str(),
                        gap.lost.items as i64,
                        gap.first.as_millis() as i64,
                        gap.last.as_millis() as i64,
                    ))?,
                };
            }
        }
        transaction.commit()
    }
}

impl Sink<Entry> for Table {
    fn write(&mut self, records: &[Record<Entry>]) -> Result<(), SinkError> {
        Ok(self.insert(records.iter())?)
    }
}

/// Holds the write lock until it is dropped.
pub(crate) struct Lock(Connection);

impl Lock {
    pub(crate) fn take(path: &Path) -> rusqlite::Result<Lock> {
        let database = Connection::open(path)?;
        database.busy_timeout(Duration::from_secs(10))?;
        database.execute_batch("BEGIN IMMEDIATE")?;
        Ok(Lock(database))
    }
}

impl Drop for Lock {
    fn drop(&mut self) {
        if let Err(error) = self.0.execute_batch("ROLLBACK") {
            eprintln!("the lock could not be released: {error}");
        }
    }
}
