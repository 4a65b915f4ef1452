//! What leaks: heap snapshots and profiles of any runtime, parsed, compared, and judged over time. Bytes in, values and warnings out.
//!
//! Input is untrusted: a reader never panics, its memory is bounded by the file, and what it skipped it says. No I/O beyond the
//! reader it is given, no threads, no unsafe code.
//!
//! | module | what |
//! |---|---|
//! | [`mod@format`] | which format a file has, by its first bytes |
//! | [`parse`] | one reader a format |
//! | [`graph`] | a heap as a graph: sizes, dominators, retained sizes |
//! | [`summary`] | what one snapshot says: classes, owners, digest |
//! | [`mod@diff`] | what changed between two snapshots, and who holds it |
//! | [`digest`] | the few KB that are kept of a snapshot: classes, owners, stacks or mappings with bytes, count and variance |
//! | [`profile`] | what is live by stack, class or mapping, and what changed between two |
//! | [`series`] | one figure over time |
//! | [`trend`] | how it moves: slope with interval, significance, shape |
//! | [`verdict`] | does it leak: a word, reasons, rate, time to limit; leak or retention |

mod column;
pub mod diff;
pub mod digest;
pub mod format;
pub mod graph;
pub mod parse;
pub mod profile;
pub mod series;
pub mod summary;
pub mod trend;
pub mod verdict;
