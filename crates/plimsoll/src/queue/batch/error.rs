//! Why a sink did not take a batch, as far as the batcher needs to know: whether to come back, or to look for the value at fault.

use std::error::Error;
use std::fmt;

/// What a failure says about the batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum SinkErrorKind {
    /// Nothing: the sink is locked, full, away. The batch is kept and tried again.
    Unavailable,
    /// At least one of its values can never be written. It is looked for and given up.
    Refused,
}

/// Why a batch was not written. None of it was.
///
/// Any error becomes [`SinkErrorKind::Unavailable`] by `?`. As it converts from every error it is none itself.
///
/// # Examples
/// ```
/// use plimsoll::queue::batch::{SinkError, SinkErrorKind};
///
/// let full: SinkError = std::io::Error::other("disk full").into();
/// assert_eq!(full.kind(), SinkErrorKind::Unavailable);
/// let bad = SinkError::refused(std::fmt::Error);
/// assert_eq!(bad.kind(), SinkErrorKind::Refused);
/// ```
#[derive(Debug)]
pub struct SinkError {
    kind: SinkErrorKind,
    cause: Box<dyn Error + Send + Sync>,
}

impl SinkError {
    /// The sink takes nothing now.
    pub fn unavailable(cause: impl Into<Box<dyn Error + Send + Sync>>) -> SinkError {
        SinkError { kind: SinkErrorKind::Unavailable, cause: cause.into() }
    }

    /// One of the values can never be written.
    pub fn refused(cause: impl Into<Box<dyn Error + Send + Sync>>) -> SinkError {
        SinkError { kind: SinkErrorKind::Refused, cause: cause.into() }
    }

    /// What it says about the batch.
    pub fn kind(&self) -> SinkErrorKind {
        self.kind
    }

    /// What happened.
    pub fn cause(&self) -> &(dyn Error + Send + Sync + 'static) {
        &*self.cause
    }
}

impl fmt::Display for SinkError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.cause.fmt(f)
    }
}

impl<E: Error + Send + Sync + 'static> From<E> for SinkError {
    fn from(cause: E) -> SinkError {
        SinkError::unavailable(cause)
    }
}
