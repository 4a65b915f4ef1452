//! Holds what the ledger was told against what the allocator says, and names who drifts.
//!
//! `unaccounted = live − accounted` is never zero: code, stacks of threads and buffers that nobody charges belong to it. What alarms is a
//! *change*: the unaccounted part moved by more than a tolerance since it was last smallest, or accounts hold more than there is.
//! (A store that subtracted more than it had charged drifted from 129 to 104 MB in two days at a constant count, and no one saw it.)

use std::sync::Arc;

use super::{Figures, Ledger};

/// Default share of *live* that the unaccounted part may move before it alarms.
pub const DEFAULT_TOLERANCE_RATIO: f64 = 0.10;
/// Default least movement that alarms, 16 MiB.
pub const DEFAULT_TOLERANCE_BYTES: u64 = 16 << 20;

/// An account that changed most while ledger and allocator drifted apart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Suspect {
    /// Its name.
    pub name: Arc<str>,
    /// Bytes by which its charges changed since ledger and allocator last agreed.
    pub change_bytes: i64,
}

/// How ledger and allocator disagree.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Divergence {
    /// The accounts together hold more than is allocated: somebody charges what it does not hold, or forgets to release.
    OverAccounted {
        /// By how much, in bytes.
        excess_bytes: u64,
        /// Accounts that grew meanwhile, most first.
        suspects: Vec<Suspect>,
    },
    /// Memory grew that no account was charged for: somebody charges too little, releases too much, or is not in the ledger at all.
    Unaccounted {
        /// By how much it grew since it was last smallest, in bytes.
        grown_bytes: u64,
        /// Accounts that changed meanwhile, most first. Empty: it belongs to nobody in the ledger.
        suspects: Vec<Suspect>,
    },
}

/// One comparison.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Reconciliation {
    /// What the accounts hold, in bytes.
    pub accounted_bytes: u64,
    /// What the allocator has handed out, in bytes.
    pub live_bytes: u64,
    /// Live less accounted; negative if the accounts hold more than there is.
    pub unaccounted_bytes: i64,
    /// Set while they disagree by more than the tolerance.
    pub divergence: Option<Divergence>,
}

/// Compares again and again; remembers the last agreement.
///
/// # Examples
/// ```
/// use plimsoll::reclaim::ledger::{Divergence, Ledger, Reconciler};
///
/// let ledger = Ledger::new();
/// let index = ledger.account("index")?;
/// let mut reconciler = Reconciler::new(ledger.clone());
/// let mut charges = vec![index.charge(100 << 20)];
/// assert_eq!(reconciler.observe(140 << 20).divergence, None);
///
/// // 60 MiB are charged, 160 MiB appear.
/// charges.push(index.charge(60 << 20));
/// let seen = reconciler.observe(300 << 20);
/// assert!(matches!(seen.divergence, Some(Divergence::Unaccounted { grown_bytes, .. }) if grown_bytes == 100 << 20));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct Reconciler {
    ledger: Ledger,
    tolerance_ratio: f64,
    tolerance_bytes: u64,
    agreed: Option<Agreement>,
    figures: Vec<Figures>,
}

/// The moment at which the unaccounted part was smallest.
#[derive(Debug)]
struct Agreement {
    unaccounted: i64,
    held: Vec<(Arc<str>, u64)>,
}

impl Reconciler {
    /// Compares `ledger` with the default tolerances.
    pub fn new(ledger: Ledger) -> Reconciler {
        Reconciler::with_tolerance(ledger, DEFAULT_TOLERANCE_RATIO, DEFAULT_TOLERANCE_BYTES)
    }

    /// Alarms when the unaccounted part moved by more than `ratio` of live and by more than `bytes`.
    pub fn with_tolerance(ledger: Ledger, ratio: f64, bytes: u64) -> Reconciler {
        Reconciler { ledger, tolerance_ratio: ratio, tolerance_bytes: bytes, agreed: None, figures: Vec::new() }
    }

    /// Compares with `live_bytes`, read from the allocator just now. Not for a hot path: it may allocate.
    pub fn observe(&mut self, live_bytes: u64) -> Reconciliation {
        self.ledger.figures(&mut self.figures);
        let accounted_bytes: u64 = self.figures.iter().map(|account| account.held_bytes).sum();
        let unaccounted_bytes = signed(live_bytes) - signed(accounted_bytes);
        // Truncation of a share of live to whole bytes changes nothing.
        let share = (live_bytes as f64 * self.tolerance_ratio) as u64;
        let tolerance = share.max(self.tolerance_bytes);
        let grown = self.agreed.as_ref().map_or(0, |agreed| unaccounted_bytes - agreed.unaccounted);
        let divergence = if unaccounted_bytes < -signed(tolerance) {
            let suspects = self.suspects(|change| change > 0);
            Some(Divergence::OverAccounted { excess_bytes: unaccounted_bytes.unsigned_abs(), suspects })
        } else if grown > signed(tolerance) {
            Some(Divergence::Unaccounted {
                grown_bytes: grown.unsigned_abs(),
                suspects: self.suspects(|change| change != 0),
            })
        } else {
            None
        };
        if self.agreed.is_none() || (grown < 0 && divergence.is_none()) {
            let held = self.figures.iter().map(|account| (Arc::clone(&account.name), account.held_bytes)).collect();
            self.agreed = Some(Agreement { unaccounted: unaccounted_bytes, held });
        }
        Reconciliation { accounted_bytes, live_bytes, unaccounted_bytes, divergence }
    }

    fn suspects(&self, counts: impl Fn(i64) -> bool) -> Vec<Suspect> {
        let Some(agreed) = &self.agreed else { return Vec::new() };
        let before = |name: &str| agreed.held.iter().find(|(known, _)| &**known == name).map_or(0, |(_, bytes)| *bytes);
        let change = |account: &Figures| signed(account.held_bytes) - signed(before(&account.name));
        let mut suspects: Vec<Suspect> = (self.figures.iter())
            .map(|account| Suspect { name: Arc::clone(&account.name), change_bytes: change(account) })
            .filter(|suspect| counts(suspect.change_bytes))
            .collect();
        suspects.sort_by_key(|suspect| std::cmp::Reverse(suspect.change_bytes.unsigned_abs()));
        suspects
    }
}

fn signed(bytes: u64) -> i64 {
    i64::try_from(bytes).unwrap_or(i64::MAX)
}
