//! The binary as its users meet it.

#![allow(
    clippy::disallowed_methods,
    clippy::unwrap_used,
    reason = "tests read whole small files, wait on the real clock, and fail by panicking"
)]

mod demo;
mod faces;
mod heap;
mod logs;
mod replay;
mod shop;
