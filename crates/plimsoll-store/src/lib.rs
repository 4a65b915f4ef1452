//! A bounded store of log lines: what a program prints goes through a ring that survives the death of its reader, a spool on disk,
//! and compressed chunks in SQLite; at every moment every line is stored or lies in a gap record that counts it.
//!
//! ```text
//!  pipe --read(2)--> ring (tmpfs, 8 MiB) --pwrite--> spool (disk, <= 512 MiB) --zstd--> chunk (SQLite, <= 1 GiB)
//!       Intake                      spooler thread                     sealer thread (nice 10)
//! ```
//!
//! | part | bounded by | when full |
//! |---|---|---|
//! | ring | `Settings::ring_bytes` | lines are dropped and counted; a gap record says how many, and when |
//! | spool | `Settings::spool_bytes` | the spooler waits, so the ring fills |
//! | chunks | `Settings::retain_bytes` | the oldest chunks are deleted |
//! | one line | `Settings::max_line_bytes` | it is stored in pieces; each but the last says `continued` |
//!
//! [`open`] gives the writing end ([`Intake`]) and the store's life ([`Store`]); [`Reader`] reads, from any process, while a
//! supervisor runs or after it died. The crate is synchronous and has two threads of its own. The on-disk format is described in
//! `docs/log-format.md`.

mod chunk;
mod clock;
mod core;
mod error;
mod frame;
mod intake;
mod level;
mod open;
mod query;
mod recover;
mod retain;
mod ring;
mod schema;
mod segment;
mod settings;
mod split;
mod spool;
mod stats;
mod sys;
#[cfg(test)]
mod testing;
mod write;
mod writer;

pub use error::StoreError;
pub use intake::{Intake, Landed};
pub use level::LogLevel;
pub use open::{Closed, Heartbeat, Recovery, Store, open};
pub use query::{Cursor, Entry, EntryKind, Query, Reader};
pub use recover::Interrupted;
pub use settings::{
    DEFAULT_MAX_LINE_BYTES, DEFAULT_RETAIN_BYTES, DEFAULT_RING_BYTES, DEFAULT_SEAL_AFTER, DEFAULT_SPOOL_BYTES,
    GapReason, Settings, Stream,
};
pub use stats::{Stats, StreamStats};
