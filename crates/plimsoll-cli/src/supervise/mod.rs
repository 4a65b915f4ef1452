//! (to come)
#![allow(dead_code)]
pub(crate) mod files;
pub(crate) mod options;
pub(crate) mod restart;
pub(crate) mod stage;
pub(crate) mod state;
pub(crate) mod reason;
pub(crate) mod journal;
pub(crate) mod sys;
pub(crate) mod child;
pub(crate) mod tty;
pub(crate) mod derive;
pub(crate) mod group;
pub(crate) fn run(_: options::Options) -> Result<std::process::ExitCode, crate::exit::Failure> { Err(crate::exit::Failure::internal("x")) }
