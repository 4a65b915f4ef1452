//! How a service ends: one exit code, chosen in one place, and what is still to be logged.

use std::error::Error;
use std::process::ExitCode;

use super::{Fired, Watchdog};
use crate::drain::is_cancelled;

/// Ended as it should.
pub const EXIT_OK: u8 = 0;
/// Failed.
pub const EXIT_FAILURE: u8 = 1;
/// Left because of memory pressure. Other programs use 2 too: the code alone is no proof.
pub const EXIT_MEMORY: u8 = 2;

/// The exit code of a service, the error that is worth a line in the log, and the memory pressure that ended it.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Outcome<E> {
    /// 2 once the watchdog has fired, whatever came after; else 0 for success and for the cancellation itself, 1 for errors.
    pub code: u8,
    /// The error to be logged: also beside code 2, but never the cancellation itself.
    pub error: Option<E>,
    /// The memory pressure that ended it.
    pub fired: Option<Fired>,
}

impl<E> Outcome<E> {
    /// The code, for returning from `main`.
    pub fn exit_code(&self) -> ExitCode {
        ExitCode::from(self.code)
    }
}

impl Watchdog {
    /// What a service's `main` should end with, from the result of its work: also of its start, when that was cut short.
    ///
    /// # Examples
    /// ```
    /// use plimsoll::{drain::Cancelled, watchdog::Watchdog};
    ///
    /// let watchdog = Watchdog::new(None);
    /// assert_eq!(watchdog.outcome(Ok::<(), std::io::Error>(())).code, 0);
    /// assert_eq!(watchdog.outcome(Err::<(), _>(Cancelled)).code, 0, "it stopped because it was told to");
    /// let outcome = watchdog.outcome(Err::<(), _>(std::io::Error::other("disk full")));
    /// assert_eq!((outcome.code, outcome.error.unwrap().to_string()), (1, "disk full".into()));
    /// ```
    pub fn outcome<T, E: Error + 'static>(&self, result: Result<T, E>) -> Outcome<E> {
        self.outcome_by(result, |error| is_cancelled(error))
    }

    /// As [`Watchdog::outcome`], for errors that are not [`Error`] (`anyhow`, `Box<dyn Error>`): `is_cancellation` tells
    /// which of them only say that the service was told to stop.
    ///
    /// # Examples
    /// ```
    /// use plimsoll::{drain::is_cancelled, watchdog::Watchdog};
    /// let watchdog = Watchdog::new(None);
    /// let result: Result<(), Box<dyn std::error::Error>> = Err("no port".into());
    /// assert_eq!(watchdog.outcome_by(result, |error| is_cancelled(error.as_ref())).code, 1);
    /// ```
    pub fn outcome_by<T, E>(&self, result: Result<T, E>, is_cancellation: impl FnOnce(&E) -> bool) -> Outcome<E> {
        let error = result.err().filter(|error| !is_cancellation(error));
        let fired = self.fired();
        let code = match (self.has_fired(), &error) {
            (true, _) => EXIT_MEMORY,
            (false, None) => EXIT_OK,
            (false, Some(_)) => EXIT_FAILURE,
        };
        Outcome { code, error, fired }
    }
}
