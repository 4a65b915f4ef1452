//! Real files of real tools, and the verdict on a labelled corpus.

#![allow(
    missing_docs,
    unreachable_pub,
    clippy::disallowed_methods,
    clippy::unwrap_used,
    reason = "tests read their own small files whole"
)]

mod readers;
mod v8;
mod verdict;
