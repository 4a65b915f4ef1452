//! `plimsoll run`: one supervisor, one program, from the lock to the last line.
//!
//! Threads, all named and joined at the end: this one (the loop of `lives.rs`), `governor` (one per life), `tail`, `echo`
//! (not with `--quiet`), `web`, the two of the log store, and with `--pty` `stdin`. What is decided without I/O stands in
//! `table`, `restart`, `stage`, `budget`, `derive`, `adopt` and `reason`; the rest does what they say.

mod actions;
mod adopt;
mod beat;
mod budget;
pub(crate) mod child;
pub(crate) mod derive;
mod ends;
mod facts;
pub(crate) mod files;
pub(crate) mod group;
mod journal;
mod lives;
pub(crate) mod logs;
mod mailbox;
pub(crate) mod options;
mod pty;
mod reach;
pub(crate) mod reason;
pub(crate) mod recorder;
mod reports;
pub(crate) mod restart;
mod setup;
pub(crate) mod shared;
mod signals;
mod speak;
pub(crate) mod stage;
mod start;
pub(crate) mod state;
mod sys;
mod table;
mod tty;
mod watch;

use std::process::ExitCode;

use crate::exit::Failure;
use options::Options;

/// Runs the program until it is over; returns the code to end with.
///
/// # Errors
/// What keeps it from being started at all: the name is taken, a state of another program, no directory, no FIFO.
pub(crate) fn run(options: Options) -> Result<ExitCode, Failure> {
    let code = setup::supervise(options)?;
    Ok(ExitCode::from(code))
}
