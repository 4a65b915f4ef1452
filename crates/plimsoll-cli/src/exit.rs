//! Exit codes, chosen here and nowhere else, and the one shape of an error that ends a command.
//!
//! 0 ok · 1 a finding or a failure · 2 memory pressure · 64 usage · 70 internal · otherwise the child's own
//! (128 + signal when a signal ended it).

use std::fmt;
use std::process::ExitCode;

/// A finding or a failure.
pub(crate) const FAILURE: u8 = 1;
/// The child was stopped for memory and not started again.
pub(crate) const MEMORY: u8 = 2;
/// The command line cannot be understood.
pub(crate) const USAGE: u8 = 64;
/// A defect of Plimsoll itself.
pub(crate) const INTERNAL: u8 = 70;

/// Why a command ends early: what failed, with path and value, and what to do about it.
#[derive(Debug)]
pub(crate) struct Failure {
    code: u8,
    what: String,
    hint: Option<String>,
}

impl Failure {
    /// An ordinary failure (exit code 1). `what` reads well after "plimsoll: ".
    pub(crate) fn new(what: impl Into<String>) -> Failure {
        Failure { code: FAILURE, what: what.into(), hint: None }
    }

    /// A command line or configuration that cannot be used (exit code 64).
    pub(crate) fn usage(what: impl Into<String>) -> Failure {
        Failure { code: USAGE, what: what.into(), hint: None }
    }

    /// A defect of Plimsoll itself (exit code 70).
    pub(crate) fn internal(what: impl Into<String>) -> Failure {
        Failure { code: INTERNAL, what: what.into(), hint: None }
    }

    /// Adds what the reader can do about it.
    pub(crate) fn hint(mut self, hint: impl Into<String>) -> Failure {
        self.hint = Some(hint.into());
        self
    }

    /// The exit code that belongs to it.
    pub(crate) fn exit_code(&self) -> ExitCode {
        ExitCode::from(self.code)
    }
}

impl From<plimsoll_store::StoreError> for Failure {
    fn from(error: plimsoll_store::StoreError) -> Failure {
        let failure = Failure::new(format!("failed to {error}"));
        match error.hint() {
            Some(hint) => failure.hint(hint),
            None => failure,
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.what)?;
        match &self.hint {
            Some(hint) => write!(f, "\n  hint: {hint}"),
            None => Ok(()),
        }
    }
}
