//! One charge: a guard that remembers what it charged and releases exactly that.

use std::fmt;
use std::sync::Arc;

use super::account::{Account, Lane};
use super::error::Refused;

/// Bytes on an account. Dropping it releases exactly what it holds, on whichever thread it is dropped.
///
/// `Charge<'static>` owns its account and may be kept beside the value it stands for; one from [`Account::charge_scoped`] borrows it
/// and is about twice as fast. A charge that is forgotten (`mem::forget`) stays charged.
///
/// # Examples
/// ```
/// use plimsoll::reclaim::ledger::{Charge, Ledger};
///
/// struct Packet {
///     bytes: Vec<u8>,
///     _charge: Charge<'static>,
/// }
///
/// let ledger = Ledger::with_cap(1 << 20);
/// let packets = ledger.account("packets")?;
/// let charge = packets.try_charge(1_500)?;
/// let packet = Packet { bytes: vec![0; 1_500], _charge: charge };
/// assert_eq!(packets.held_bytes(), 1_500);
/// drop(packet);
/// assert_eq!(packets.held_bytes(), 0);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[must_use = "a charge that is dropped at once charges nothing"]
pub struct Charge<'a> {
    lane: Hold<'a>,
    bytes: u64,
}

/// How a charge keeps its account alive.
enum Hold<'a> {
    Borrowed(&'a Lane),
    Owned(Arc<Lane>),
}

impl Hold<'_> {
    #[inline]
    fn lane(&self) -> &Lane {
        match self {
            Hold::Borrowed(lane) => lane,
            Hold::Owned(lane) => lane,
        }
    }
}

impl<'a> Charge<'a> {
    #[inline]
    pub(super) fn owned(lane: Arc<Lane>, bytes: u64) -> Charge<'static> {
        Charge { lane: Hold::Owned(lane), bytes }
    }

    #[inline]
    pub(super) fn borrowed(lane: &'a Lane, bytes: u64) -> Charge<'a> {
        Charge { lane: Hold::Borrowed(lane), bytes }
    }

    /// What it holds now, in bytes.
    #[inline]
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Adds bytes.
    ///
    /// # Errors
    /// [`Refused`] if they do not fit; the charge stays as it was.
    pub fn grow(&mut self, by_bytes: u64) -> Result<(), Refused> {
        self.lane.lane().acquire(by_bytes, by_bytes)?;
        self.bytes += by_bytes;
        Ok(())
    }

    /// Adds bytes whatever the caps say: for memory that is there already.
    pub fn force_grow(&mut self, by_bytes: u64) {
        self.lane.lane().force(by_bytes);
        self.bytes += by_bytes;
    }

    /// Releases bytes, at most what it holds; returns how many.
    pub fn shrink(&mut self, by_bytes: u64) -> u64 {
        let by = by_bytes.min(self.bytes);
        self.bytes -= by;
        self.lane.lane().release(by);
        by
    }

    /// Grows or shrinks to `bytes`.
    ///
    /// # Errors
    /// [`Refused`] if the growth does not fit; the charge stays as it was.
    pub fn resize(&mut self, bytes: u64) -> Result<(), Refused> {
        if bytes > self.bytes {
            return self.grow(bytes - self.bytes);
        }
        self.shrink(self.bytes - bytes);
        Ok(())
    }

    /// Moves bytes, at most what it holds, into a charge of their own on the same account. Nothing is charged or released.
    pub fn split(&mut self, bytes: u64) -> Charge<'a> {
        let moved = bytes.min(self.bytes);
        self.bytes -= moved;
        let lane = match &self.lane {
            Hold::Borrowed(lane) => Hold::Borrowed(lane),
            Hold::Owned(lane) => Hold::Owned(Arc::clone(lane)),
        };
        Charge { lane, bytes: moved }
    }

    /// Adds another charge of the same account to this one.
    ///
    /// # Errors
    /// The other charge, untouched, if it is on another account.
    pub fn merge(&mut self, mut other: Charge<'a>) -> Result<(), Charge<'a>> {
        if !self.lane.lane().same_account(other.lane.lane()) {
            return Err(other);
        }
        self.bytes += std::mem::take(&mut other.bytes);
        Ok(())
    }

    /// Moves the whole charge to another account: charged there first, then released here.
    ///
    /// # Errors
    /// The charge, untouched, and why the other account refused it.
    pub fn transfer(self, to: &Account) -> Result<Charge<'static>, (Charge<'a>, Refused)> {
        match to.try_charge(self.bytes) {
            Ok(moved) => Ok(moved),
            Err(refused) => Err((self, refused)),
        }
    }
}

impl Drop for Charge<'_> {
    #[inline]
    fn drop(&mut self) {
        if self.bytes > 0 {
            self.lane.lane().release(self.bytes);
        }
    }
}

impl fmt::Debug for Charge<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Charge").field("account", &self.lane.lane().name()).field("bytes", &self.bytes).finish()
    }
}
