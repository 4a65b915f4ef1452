//! The database of sealed chunks, `logs.db`: SQLite 3, WAL, one row a chunk.
//!
//! `application_id` is 0x504C4D4C (`PLML`), `user_version` the schema's version, 2; a database of version 1 gets the tables of version 2
//! when a writer opens it, and is read as it is until then. A seal is one transaction: its chunks, and per stream
//! where sealing goes on. So a line is in a chunk, or will be found by going on from there, and never both.
//!
//! What queries and retention ask of a chunk stands in one covering index, so that a look at thousands of chunks reads a few pages and
//! no chunk. Token filters ([`crate::filter`]) have a table of their own, so that looking for a word reads filters and no chunks.
//!
//! Bounds: page cache 1 MiB, write-ahead log 8 MiB between checkpoints ([`crate::retain`] stops a log that a reader keeps from being
//! emptied), busy wait 2 s (the sealer's 0.2 s).

use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::{Connection, OpenFlags, OptionalExtension, TransactionBehavior};

use crate::chunk::Sealed;
use crate::split::Resume;
use crate::{StoreError, Stream};

/// `PLML`.
pub(crate) const APPLICATION_ID: i64 = 0x504C_4D4C;
/// The schema that this program writes and reads.
pub(crate) const VERSION: i64 = 2;
/// The oldest that it reads, and brings up to date.
pub(crate) const OLDEST: i64 = 1;
/// How long a statement waits for another process's lock.
pub(crate) const BUSY: Duration = Duration::from_secs(2);
/// The same for the sealer, which has better things to do than to wait, and tries again anyway.
const SEALER_BUSY: Duration = Duration::from_millis(200);
const PAGE_BYTES: u32 = 16 * 1024;

const TABLES: &str = "
CREATE TABLE source (
    id INTEGER PRIMARY KEY,
    name TEXT NOT NULL UNIQUE
) STRICT;
CREATE TABLE sealed (
    stream INTEGER PRIMARY KEY,
    frame INTEGER NOT NULL,
    byte INTEGER NOT NULL,
    skipping INTEGER NOT NULL,
    max_line_bytes INTEGER NOT NULL
) STRICT;
CREATE TABLE chunk (
    id INTEGER PRIMARY KEY,
    source INTEGER NOT NULL REFERENCES source (id),
    stream INTEGER NOT NULL,
    first_position INTEGER NOT NULL,
    last_position INTEGER NOT NULL,
    first_unix_ns INTEGER NOT NULL,
    last_unix_ns INTEGER NOT NULL,
    lines INTEGER NOT NULL,
    gaps INTEGER NOT NULL,
    gap_lines INTEGER NOT NULL,
    levels INTEGER NOT NULL,
    raw_bytes INTEGER NOT NULL,
    blob BLOB NOT NULL
) STRICT;
CREATE UNIQUE INDEX chunk_by_position ON chunk (stream, last_position);
CREATE INDEX chunk_facts ON chunk (
    stream, last_position, first_position, first_unix_ns, last_unix_ns, lines, gaps, gap_lines, levels, raw_bytes
);
CREATE TABLE filter (
    chunk INTEGER PRIMARY KEY,
    bits BLOB NOT NULL
) STRICT;
";

/// From version 1 to 2.
const SINCE_1: &str = "
CREATE INDEX chunk_facts ON chunk (
    stream, last_position, first_position, first_unix_ns, last_unix_ns, lines, gaps, gap_lines, levels, raw_bytes
);
CREATE TABLE filter (
    chunk INTEGER PRIMARY KEY,
    bits BLOB NOT NULL
) STRICT;
PRAGMA user_version = 2;
";

/// The writing end; one per directory, held by the sealer.
#[derive(Debug)]
pub(crate) struct Database {
    connection: Connection,
    path: PathBuf,
    source: i64,
}

/// What merging asks of a chunk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Facts {
    pub(crate) id: i64,
    pub(crate) first_position: u64,
    pub(crate) last_position: u64,
    pub(crate) raw_bytes: u64,
    /// Lines and gaps.
    pub(crate) entries: u64,
}

/// The oldest chunk, as retention asks for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Oldest {
    pub(crate) id: i64,
    pub(crate) lines: u64,
    /// There is no other.
    pub(crate) is_only: bool,
}

/// What a deletion took away.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Deleted {
    pub(crate) chunks: u64,
    pub(crate) lines: u64,
    /// Compressed bytes.
    pub(crate) bytes: u64,
}

impl Database {
    /// Opens the database, and makes it (0600) if it is not there.
    ///
    /// # Errors
    /// [`StoreError::Version`] for another program's or version's file, which stays as it is; [`StoreError::Database`] for what SQLite
    /// says: see [`is_damage`].
    pub(crate) fn open(path: &Path, source: &str, max_line_bytes: u32) -> Result<Database, StoreError> {
        use std::os::unix::fs::OpenOptionsExt;
        // SQLite gives its files the mode that the database has.
        let mut options = std::fs::OpenOptions::new();
        options.write(true).create(true).truncate(false).mode(0o600);
        options.open(path).map_err(StoreError::io("open", path))?;
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let failed = failed(path);
        let connection = Connection::open_with_flags(path, flags).map_err(&failed)?;
        connection.busy_timeout(SEALER_BUSY).map_err(&failed)?;
        let empty: i64 = connection.query_row("SELECT count(*) FROM sqlite_schema", [], first).map_err(&failed)?;
        if empty == 0 {
            create(&connection).map_err(&failed)?;
        }
        if check_version(&connection, path)? == 1 {
            connection.execute_batch(&format!("BEGIN IMMEDIATE; {SINCE_1} COMMIT;")).map_err(&failed)?;
        }
        connection
            .execute_batch(
                "PRAGMA journal_mode = WAL; PRAGMA synchronous = NORMAL; PRAGMA cache_size = -1024; PRAGMA trusted_schema = OFF;
                 PRAGMA wal_autocheckpoint = 512; PRAGMA journal_size_limit = 8388608; PRAGMA foreign_keys = OFF;",
            )
            .map_err(&failed)?;
        let known = "INSERT INTO source (name) VALUES (?1) ON CONFLICT (name) DO UPDATE SET name = name RETURNING id";
        let source = connection.query_row(known, [source], first).map_err(&failed)?;
        for stream in Stream::ALL {
            let upsert =
                "INSERT INTO sealed VALUES (?1, 0, 0, 0, ?2) ON CONFLICT (stream) DO UPDATE SET max_line_bytes = ?2";
            connection.execute(upsert, (stream.number(), max_line_bytes)).map_err(&failed)?;
        }
        Ok(Database { connection, path: path.to_path_buf(), source })
    }

    /// Writes chunks, and where each stream goes on (in the order of [`Stream::ALL`]), in one transaction.
    ///
    /// # Errors
    /// What SQLite says; then nothing of it was written, and the same call may be made again.
    pub(crate) fn insert(&mut self, sealed: &[Sealed], resume: &[Resume; 3]) -> Result<(), StoreError> {
        self.insert_all(sealed, resume).map_err(failed(&self.path))
    }

    fn insert_all(&mut self, sealed: &[Sealed], resume: &[Resume; 3]) -> rusqlite::Result<()> {
        let source = self.source;
        let write = self.connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        {
            for s in sealed {
                add(&write, source, None, s)?;
            }
            let mut set =
                write.prepare_cached("UPDATE sealed SET frame = ?2, byte = ?3, skipping = ?4 WHERE stream = ?1")?;
            for stream in Stream::ALL {
                let to = resume[stream.index()];
                set.execute((stream.number(), signed(to.frame), to.byte, to.skipping))?;
            }
        }
        write.commit()
    }

    /// Puts one chunk in the place of several that follow each other, in one transaction; it takes the last one's row.
    ///
    /// # Errors
    /// What SQLite says; then nothing of it was done.
    pub(crate) fn replace(&mut self, ids: &[i64], merged: &Sealed) -> Result<(), StoreError> {
        let source = self.source;
        let mut replace = || {
            let write = self.connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
            for id in ids {
                write.prepare_cached("DELETE FROM filter WHERE chunk = ?1")?.execute([id])?;
                write.prepare_cached("DELETE FROM chunk WHERE id = ?1")?.execute([id])?;
            }
            add(&write, source, ids.last().copied(), merged)?;
            write.commit()
        };
        replace().map_err(failed(&self.path))
    }

    /// The newest chunks of a stream, newest first, as far back as `behind`; at most `most`.
    pub(crate) fn newest_facts(&self, stream: Stream, behind: u64, most: usize) -> Result<Vec<Facts>, StoreError> {
        let find = || {
            let mut find = self.connection.prepare_cached(
                "SELECT id, first_position, last_position, raw_bytes, lines + gaps FROM chunk INDEXED BY chunk_facts
                 WHERE stream = ?1 AND last_position > ?2 ORDER BY last_position DESC LIMIT ?3",
            )?;
            let read = |row: &rusqlite::Row<'_>| {
                let column = |at| row.get(at).map(unsigned);
                let (first_position, last_position) = (column(1)?, column(2)?);
                Ok(Facts { id: row.get(0)?, first_position, last_position, raw_bytes: column(3)?, entries: column(4)? })
            };
            let rows = find.query_map((stream.number(), signed(behind), signed(most as u64)), read)?;
            rows.collect::<rusqlite::Result<Vec<Facts>>>()
        };
        find().map_err(failed(&self.path))
    }

    /// Hands a chunk's blob out; `None`: there is no such chunk.
    pub(crate) fn with_blob<T>(&self, id: i64, each: impl FnOnce(&[u8]) -> T) -> Result<Option<T>, StoreError> {
        let failed = failed(&self.path);
        let mut find = self.connection.prepare_cached("SELECT blob FROM chunk WHERE id = ?1").map_err(&failed)?;
        let mut rows = find.query([id]).map_err(&failed)?;
        let Some(row) = rows.next().map_err(&failed)? else { return Ok(None) };
        let blob = row.get_ref(0).map_err(&failed)?.as_blob().unwrap_or_default();
        Ok(Some(each(blob)))
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Lines that all chunks have.
    pub(crate) fn lines(&self) -> Result<u64, StoreError> {
        let sum = "SELECT coalesce(sum(lines), 0) FROM chunk INDEXED BY chunk_facts";
        self.connection.query_row(sum, [], first).map(unsigned).map_err(failed(&self.path))
    }

    /// When the newest line came of the chunk of which that was longest ago; `None`: there is no chunk.
    pub(crate) fn oldest_unix_ns(&self) -> Result<Option<u64>, StoreError> {
        let oldest = "SELECT min(last_unix_ns) FROM chunk INDEXED BY chunk_facts";
        let found: Option<i64> = self.connection.query_row(oldest, [], |r| r.get(0)).map_err(failed(&self.path))?;
        Ok(found.map(unsigned))
    }

    /// The newest chunk whose newest line came before `before`, and the newest one whose newest line came after `now`.
    pub(crate) fn newest_before_and_after(&self, before: u64, now: u64) -> Result<[Option<i64>; 2], StoreError> {
        let find = "SELECT max(id) FILTER (WHERE last_unix_ns < ?1), max(id) FILTER (WHERE last_unix_ns > ?2)
                    FROM chunk INDEXED BY chunk_facts";
        let row = |r: &rusqlite::Row<'_>| Ok([r.get(0)?, r.get(1)?]);
        self.connection.query_row(find, (signed(before), signed(now)), row).map_err(failed(&self.path))
    }

    /// Where each stream goes on, in the order of [`Stream::ALL`]; all zero in a new database.
    pub(crate) fn sealed_positions(&self) -> Result<[Resume; 3], StoreError> {
        Ok(position(&self.connection).map_err(failed(&self.path))?.resume)
    }

    /// Deletes the oldest chunks while `more` says so of the oldest one and of what is deleted already, in one transaction. Their pages
    /// become free; [`Database::incremental_vacuum`] gives them back to the filesystem.
    pub(crate) fn delete_oldest(
        &mut self,
        more: &mut dyn FnMut(Oldest, Deleted) -> bool,
    ) -> Result<Deleted, StoreError> {
        self.delete_some(more).map_err(failed(&self.path))
    }

    fn delete_some(&mut self, more: &mut dyn FnMut(Oldest, Deleted) -> bool) -> rusqlite::Result<Deleted> {
        let write = self.connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let mut deleted = Deleted::default();
        {
            let mut find = write.prepare_cached(
                "SELECT id, lines, length(blob), id = (SELECT max(id) FROM chunk) FROM chunk
                 WHERE id = (SELECT min(id) FROM chunk)",
            )?;
            let row = |r: &rusqlite::Row<'_>| {
                let oldest = Oldest { id: r.get(0)?, lines: unsigned(r.get(1)?), is_only: r.get(3)? };
                Ok((oldest, unsigned(r.get(2)?)))
            };
            while let Some((oldest, len)) = find.query_row([], row).optional()? {
                if !more(oldest, deleted) {
                    break;
                }
                let id = oldest.id;
                let filter = "DELETE FROM filter WHERE chunk = ?1 RETURNING length(bits)";
                let bits = write.prepare_cached(filter)?.query_row([id], first).optional()?.map_or(0, unsigned);
                write.prepare_cached("DELETE FROM chunk WHERE id = ?1")?.execute([id])?;
                deleted.chunks += 1;
                deleted.lines += oldest.lines;
                deleted.bytes += len + bits;
            }
        }
        // With nothing to delete nothing is written.
        if deleted.chunks > 0 {
            write.commit()?;
        } else {
            write.rollback()?;
        }
        Ok(deleted)
    }

    /// Bytes of the database's pages that are in use: what retention counts. Free pages are not in it.
    pub(crate) fn used_bytes(&self) -> Result<u64, StoreError> {
        let pragma = |name: &str| self.connection.pragma_query_value(None, name, first).map(unsigned);
        let used = || Ok((pragma("page_count")? - pragma("freelist_count")?) * pragma("page_size")?);
        used().map_err(failed(&self.path))
    }

    /// Bytes on disk: the database file and its write-ahead log.
    pub(crate) fn size_bytes(&self) -> u64 {
        let len = |path: &Path| std::fs::metadata(path).map_or(0, |m| m.len());
        len(&self.path) + self.log_bytes()
    }

    /// Bytes on disk of the write-ahead log.
    pub(crate) fn log_bytes(&self) -> u64 {
        std::fs::metadata(beside(&self.path, "-wal")).map_or(0, |m| m.len())
    }

    /// Gives free pages back, at most `bytes` of them.
    pub(crate) fn incremental_vacuum(&self, bytes: u64) -> Result<(), StoreError> {
        let pages = bytes.div_ceil(PAGE_BYTES.into());
        let vacuum = || {
            let mut step = self.connection.prepare(&format!("PRAGMA incremental_vacuum({pages})"))?;
            let mut rows = step.query([])?;
            while rows.next()?.is_some() {}
            Ok(())
        };
        vacuum().map_err(failed(&self.path))
    }

    /// Moves the write-ahead log into the database and makes both survive a power cut: before a spool segment is removed, and when
    /// idle. False if a reader kept some of it from being moved; then the log itself was synced.
    pub(crate) fn checkpoint(&self) -> Result<bool, StoreError> {
        let row = |r: &rusqlite::Row<'_>| r.get::<_, i64>(0);
        let busy = self.connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], row).map_err(failed(&self.path))?;
        if busy != 0 {
            // SQLite may have stopped before it synced the log.
            let log = beside(&self.path, "-wal");
            std::fs::File::open(&log).and_then(|file| file.sync_data()).map_err(StoreError::io("sync", &log))?;
        }
        Ok(busy == 0)
    }
}

/// Inserts a chunk and its filter; `id`: in this row, which must be free.
fn add(write: &Connection, source: i64, id: Option<i64>, s: &Sealed) -> rusqlite::Result<()> {
    let mut add = write.prepare_cached(
        "INSERT INTO chunk (id, source, stream, first_position, last_position, first_unix_ns, last_unix_ns,
            lines, gaps, gap_lines, levels, raw_bytes, blob) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13)",
    )?;
    let id = add.insert((
        id,
        source,
        s.stream.number(),
        signed(s.first_position),
        signed(s.last_position),
        signed(s.first_unix_ns),
        signed(s.last_unix_ns),
        signed(s.lines),
        signed(s.gaps),
        signed(s.gap_lines),
        s.levels,
        signed(s.raw_bytes),
        &s.blob,
    ))?;
    if let Some(bits) = &s.filter {
        write.prepare_cached("INSERT INTO filter (chunk, bits) VALUES (?1, ?2)")?.execute((id, bits))?;
    }
    Ok(())
}

fn create(connection: &Connection) -> rusqlite::Result<()> {
    connection.execute_batch(&format!(
        "PRAGMA page_size = {PAGE_BYTES}; PRAGMA auto_vacuum = INCREMENTAL; PRAGMA journal_mode = WAL;
         BEGIN; PRAGMA application_id = {APPLICATION_ID}; PRAGMA user_version = {VERSION}; {TABLES} COMMIT;"
    ))
}

/// The version of a database; refuses one that another program, or a later version of this one, has made.
pub(crate) fn check_version(connection: &Connection, path: &Path) -> Result<i64, StoreError> {
    let pragma = |name: &str| connection.pragma_query_value(None, name, first).map_err(failed(path));
    let found = if pragma("application_id")? == APPLICATION_ID { pragma("user_version")? } else { 0 };
    if (OLDEST..=VERSION).contains(&found) {
        Ok(found)
    } else {
        Err(StoreError::Version { path: path.to_path_buf(), found, known: VERSION })
    }
}

/// How far sealing has come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Position {
    /// Where each stream goes on, in the order of [`Stream::ALL`].
    pub(crate) resume: [Resume; 3],
    /// What longer lines are cut into. 0: nobody has written yet.
    pub(crate) max_line_bytes: u32,
}

/// How far sealing has come.
pub(crate) fn position(connection: &Connection) -> rusqlite::Result<Position> {
    let mut all = Position::default();
    let mut find = connection.prepare_cached("SELECT stream, frame, byte, skipping, max_line_bytes FROM sealed")?;
    let mut rows = find.query([])?;
    while let Some(row) = rows.next()? {
        if let Some(stream) = Stream::from_number(row.get(0)?) {
            let frame = unsigned(row.get(1)?);
            all.resume[stream.index()] = Resume { frame, byte: row.get(2)?, skipping: row.get(3)? };
            all.max_line_bytes = row.get(4)?;
        }
    }
    Ok(all)
}

/// Whether the error means that the file is not (any more) a sound database, rather than locked, full or unreadable.
pub(crate) fn is_damage(error: &StoreError) -> bool {
    use rusqlite::ErrorCode::{DatabaseCorrupt, NotADatabase};
    let StoreError::Database { source, .. } = error else { return false };
    matches!(source.sqlite_error_code(), Some(DatabaseCorrupt | NotADatabase))
}

/// The file that SQLite keeps beside the database.
pub(crate) fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_os_string();
    name.push(suffix);
    name.into()
}

pub(crate) fn failed(path: &Path) -> impl Fn(rusqlite::Error) -> StoreError + use<> {
    let path = path.to_path_buf();
    move |source| StoreError::Database { path: path.clone(), source }
}

pub(crate) fn first(row: &rusqlite::Row<'_>) -> rusqlite::Result<i64> {
    row.get(0)
}

/// SQLite's integers are signed; positions stay far below 2^63, and times do until 2262.
pub(crate) fn signed(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

pub(crate) fn unsigned(value: i64) -> u64 {
    u64::try_from(value).unwrap_or(0)
}

#[cfg(test)]
#[path = "schema_tests.rs"]
mod tests;
