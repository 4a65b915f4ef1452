//! The ledger: who holds how many bytes. What is charged is remembered by its guard and exactly that is released.
//!
//! At most [`MAX_ACCOUNTS`] accounts, opened by name. A cap over their sum and one for each; a charge that passes one is refused with
//! the largest holders named. A charge costs one atomic operation on the calling core's own cache line (see `benches/charge.rs`),
//! and a reading walks the accounts without a lock and without allocating. At most `2 × 64 KiB` per account and lane (4 a core) are granted
//! but unused; before anything is refused, they are taken back.
//!
//! The ledger counts what it is told. A [`Reconciler`] holds it against what the allocator says and names who drifts.

mod account;
mod charge;
mod error;
mod pool;
mod reconcile;
mod sys;
#[cfg(all(test, not(loom)))]
mod tests;

use std::sync::{Arc, OnceLock};

use parking_lot::Mutex;

pub use account::{Account, CHUNK_BYTES};
pub use charge::Charge;
pub use error::{AccountError, Bound, Refused, TOP_HOLDERS};
pub use reconcile::{
    DEFAULT_TOLERANCE_BYTES, DEFAULT_TOLERANCE_RATIO, Divergence, Reconciler, Reconciliation, Suspect,
};

use pool::Pool;

/// Accounts that a ledger can have.
pub const MAX_ACCOUNTS: usize = 256;
/// Lanes of one account: four for each core, so that two threads seldom meet on one, at most this many.
const MAX_LANES: usize = 16;

/// Figures of one account at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Figures {
    /// The account's name.
    pub name: Arc<str>,
    /// Bytes charged.
    pub held_bytes: u64,
    /// Its own cap, if it has one.
    pub cap_bytes: Option<u64>,
    /// Its temporary cap, if one is in force.
    pub clamp_bytes: Option<u64>,
    /// Charges refused.
    pub refused_total: u64,
    /// Bytes charged beyond a cap, because they were there already.
    pub forced_over_cap_bytes_total: u64,
}

/// All accounts of a ledger; slots are filled in order and never emptied.
#[derive(Debug)]
pub(super) struct Registry {
    slots: Box<[OnceLock<Account>]>,
    opening: Mutex<()>,
}

impl Registry {
    /// In the order in which they were opened. Takes no lock.
    pub(super) fn accounts(&self) -> impl Iterator<Item = &Account> {
        self.slots.iter().map_while(OnceLock::get)
    }
}

/// A set of accounts under one cap. Cheap to clone; all clones are the same ledger.
#[derive(Clone, Debug)]
pub struct Ledger {
    total: Arc<Pool>,
    registry: Arc<Registry>,
    lanes: usize,
}

impl Ledger {
    /// A ledger without a cap: it counts and refuses nothing.
    pub fn new() -> Ledger {
        Ledger::with_cap(u64::MAX)
    }

    /// A ledger whose accounts together hold at most `bytes` (but for what is [forced](Account::charge)).
    pub fn with_cap(bytes: u64) -> Ledger {
        let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        let slots = std::iter::repeat_with(OnceLock::new).take(MAX_ACCOUNTS).collect();
        Ledger {
            total: Arc::new(Pool::new(bytes)),
            registry: Arc::new(Registry { slots, opening: Mutex::new(()) }),
            lanes: (4 * cores).next_power_of_two().min(MAX_LANES),
        }
    }

    /// Changes the cap over the sum; `None` removes it. What is held already stays charged.
    pub fn set_cap(&self, bytes: Option<u64>) {
        self.registry.accounts().for_each(Account::sweep);
        self.total.set_cap(bytes.unwrap_or(u64::MAX));
    }

    /// The account of this name, opened if it is new.
    ///
    /// # Errors
    /// [`AccountError::TooMany`] past [`MAX_ACCOUNTS`].
    pub fn account(&self, name: &str) -> Result<Account, AccountError> {
        let known = |registry: &Registry| registry.accounts().find(|account| &**account.name() == name).cloned();
        if let Some(account) = known(&self.registry) {
            return Ok(account);
        }
        let _opening = self.registry.opening.lock();
        if let Some(account) = known(&self.registry) {
            return Ok(account);
        }
        let open = || Account::open(name, self.lanes, &self.total, Arc::downgrade(&self.registry));
        let free = self.registry.slots.iter().find(|slot| slot.get().is_none());
        let too_many = || AccountError::TooMany { name: name.to_owned(), most: MAX_ACCOUNTS };
        Ok(free.ok_or_else(too_many)?.get_or_init(open).clone())
    }

    /// Bytes charged to all accounts. Takes no lock and allocates nothing; exact as [`Account::held_bytes`] is.
    pub fn held_bytes(&self) -> u64 {
        self.registry.accounts().map(Account::held_bytes).sum()
    }

    /// Bytes by which the sum has grown since `before`, a value of [`Ledger::held_bytes`]: admitted, and perhaps not yet seen by a gauge.
    pub fn admitted_since(&self, before: u64) -> u64 {
        self.held_bytes().saturating_sub(before)
    }

    /// Writes every account's figures into `into`, which is cleared first and reused.
    pub fn figures(&self, into: &mut Vec<Figures>) {
        into.clear();
        into.extend(self.registry.accounts().map(Account::figures));
    }
}

impl Default for Ledger {
    fn default() -> Ledger {
        Ledger::new()
    }
}
