//! A snapshot as text for people: lines of toned words, bars and one panel, shared by `status` and `top`.
//!
//! Pure: no clock, no terminal, no files; width and time zone are passed in. Words that come from the program (its
//! `comm`, a decision's text) are shown with control characters replaced, so that they cannot steer the terminal.

pub(crate) mod bar;
pub(crate) mod heap;
pub(crate) mod panel;
mod report;
pub(crate) mod table;
pub(crate) mod text;
pub(crate) mod trend;
pub(crate) mod volume;
pub(crate) mod words;
