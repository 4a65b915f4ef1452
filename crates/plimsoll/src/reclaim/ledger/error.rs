//! Why a charge was refused, and who holds the memory instead.

use std::fmt;
use std::sync::Arc;

use crate::units;

/// At most this many holders are named in a refusal.
pub const TOP_HOLDERS: usize = 3;

/// Which bound a charge ran into.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Bound {
    /// The cap over the sum of all accounts.
    Ledger,
    /// The account's own cap.
    Account,
    /// The account may not refill for now: it was asked to give memory back (see [`Account::set_clamp`](super::Account::set_clamp)).
    Clamp,
}

/// A charge that did not fit. Nothing was charged.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Refused {
    /// The account that asked.
    pub account: Arc<str>,
    /// The least it asked for, in bytes.
    pub wanted_bytes: u64,
    /// The bound in the way.
    pub bound: Bound,
    /// That bound, in bytes.
    pub bound_bytes: u64,
    /// What was held below that bound, in bytes.
    pub held_bytes: u64,
    /// The accounts of the ledger that hold most, largest first; at most [`TOP_HOLDERS`].
    pub holders: Vec<(Arc<str>, u64)>,
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let bound = match self.bound {
            Bound::Ledger => "the ledger's cap",
            Bound::Account => "the account's cap",
            Bound::Clamp => "the account's clamp",
        };
        write!(
            f,
            "{} more for {:?} do not fit: {} of {bound} of {} are held",
            units::size(self.wanted_bytes),
            self.account,
            units::size(self.held_bytes),
            units::size(self.bound_bytes)
        )?;
        for (i, (name, bytes)) in self.holders.iter().enumerate() {
            write!(f, "{}{name} {}", if i == 0 { "; largest: " } else { ", " }, units::size(*bytes))?;
        }
        Ok(())
    }
}

impl std::error::Error for Refused {}

/// An account could not be opened.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum AccountError {
    /// The ledger has as many accounts as it can have.
    #[error("no room for account {name:?}: a ledger has at most {most} accounts; share one between short-lived owners")]
    TooMany {
        /// The name that was asked for.
        name: String,
        /// How many there can be.
        most: usize,
    },
}
