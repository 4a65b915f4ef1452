//! The binary as its users meet it.

#![allow(clippy::disallowed_methods, reason = "tests read whole small files and wait on the real clock")]

mod logs;
mod shop;
