//! What a queue says when a value does not get in, or none comes out. A value that was not taken is in the error.

use std::fmt;

/// Why a value was given back to its sender. Each is counted as refused, per producer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
pub enum Refusal {
    /// There is no room and its sender decides: [`WhenFull::Reject`](super::WhenFull::Reject), or `try_send`.
    #[error("queue full")]
    Full,
    /// The value alone is more than its producer may ever have queued.
    #[error("value larger than the queue")]
    TooLarge,
    /// The queue was closed, or its receiver is gone. Whatever happens when full.
    #[error("queue closed")]
    Closed,
    /// It waited for room as long as it was allowed to.
    #[error("no room in the queue in time")]
    Late,
    /// The queue has room, the sum of the queues has not: the account's or its ledger's cap.
    #[error("all queues together are full")]
    SumFull,
}

impl Refusal {
    /// How many there are.
    pub const COUNT: usize = 5;
    /// All of them, in the order of [`Counters::refused`](super::Counters::refused).
    pub const ALL: [Refusal; Refusal::COUNT] =
        [Refusal::Full, Refusal::TooLarge, Refusal::Closed, Refusal::Late, Refusal::SumFull];

    /// The name used in logs, metrics and JSON.
    pub const fn as_str(self) -> &'static str {
        match self {
            Refusal::Full => "full",
            Refusal::TooLarge => "too-large",
            Refusal::Closed => "closed",
            Refusal::Late => "late",
            Refusal::SumFull => "sum-full",
        }
    }
}

/// A value that was not taken, and why. The value is handed back.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct SendError<T> {
    /// What was to be sent.
    pub value: T,
    /// Why it was not.
    pub refusal: Refusal,
}

impl<T> fmt::Debug for SendError<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SendError").field("refusal", &self.refusal).finish_non_exhaustive()
    }
}

impl<T> fmt::Display for SendError<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.refusal.fmt(f)
    }
}

impl<T> std::error::Error for SendError<T> {}

/// Why nothing was received.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
pub enum RecvError {
    /// Nothing came in the time allowed.
    #[error("nothing queued in time")]
    Timeout,
    /// The queue is empty and nothing can come any more: it was closed, or its last sender is gone.
    #[error("queue closed and drained")]
    Closed,
}
