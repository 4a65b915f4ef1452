//! An account: a named holder of memory, spread over as many lanes as there are cores.
//!
//! A charge is one compare-and-swap on the lane of the thread that charges; only when the lane has run out of credit ([`CHUNK_BYTES`])
//! does it touch the account's and the ledger's own counters. A release puts the bytes into the lane of the thread that releases.

use std::cell::Cell;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};

use super::charge::Charge;
use super::error::{Bound, Refused, TOP_HOLDERS};
use super::pool::{Credit, MOST_AT_ONCE, Pool};
use super::sys;
use super::{Figures, Registry};

/// Credit that a lane takes from the ledger at a time, 64 KiB; a lane keeps at most twice as much.
pub const CHUNK_BYTES: u64 = 64 << 10;

/// One core's end of an account.
#[derive(Debug)]
#[repr(align(128))]
pub(super) struct Lane {
    credit: Credit,
    center: Arc<Center>,
}

/// What the lanes of one account share.
#[derive(Debug)]
pub(super) struct Center {
    pub(super) name: Arc<str>,
    pool: Pool,
    /// The cap that the owner set; the pool's is the lower of this and the clamp.
    cap: AtomicU64,
    clamp: AtomicU64,
    refused: AtomicU64,
    forced_over_cap: AtomicU64,
    total: Arc<Pool>,
    registry: Weak<Registry>,
}

/// A named holder of memory. Cheap to clone; all clones are the same account.
///
/// Opened with [`Ledger::account`](super::Ledger::account), by name; it lives as long as the ledger.
#[derive(Clone, Debug)]
pub struct Account {
    center: Arc<Center>,
    lanes: Arc<Lanes>,
}

/// The lanes of an account. When the account goes, each lane stays for as long as there are charges on it.
#[derive(Debug)]
struct Lanes(Box<[Arc<Lane>]>);

impl Drop for Lanes {
    fn drop(&mut self) {
        std::mem::take(&mut self.0).into_iter().for_each(sys::orphan);
    }
}

impl Account {
    pub(super) fn open(name: &str, lanes: usize, total: &Arc<Pool>, registry: Weak<Registry>) -> Account {
        let center = Arc::new(Center {
            name: name.into(),
            pool: Pool::new(u64::MAX),
            cap: AtomicU64::new(u64::MAX),
            clamp: AtomicU64::new(u64::MAX),
            refused: AtomicU64::new(0),
            forced_over_cap: AtomicU64::new(0),
            total: Arc::clone(total),
            registry,
        });
        let lane = |_| Arc::new(Lane { credit: Credit::empty(), center: Arc::clone(&center) });
        Account { lanes: Arc::new(Lanes((0..lanes).map(lane).collect())), center }
    }

    /// Its name.
    pub fn name(&self) -> &Arc<str> {
        &self.center.name
    }

    /// Charges `bytes`.
    ///
    /// # Errors
    /// [`Refused`], with the largest holders, if they do not fit below the ledger's cap, the account's cap or its clamp.
    #[inline]
    pub fn try_charge(&self, bytes: u64) -> Result<Charge<'static>, Refused> {
        Charge::acquire(self.lane(), bytes)
    }

    /// As [`Account::try_charge`], but the charge borrows the account.
    ///
    /// # Errors
    /// [`Refused`], as there.
    #[inline]
    pub fn charge_scoped(&self, bytes: u64) -> Result<Charge<'_>, Refused> {
        let lane = self.lane();
        lane.acquire(bytes, bytes)?;
        Ok(Charge::borrowed(lane, bytes))
    }

    /// Charges `bytes` whatever the caps say: for memory that is there already. What passes a cap is counted
    /// ([`Figures::forced_over_cap_bytes_total`]).
    #[inline]
    pub fn charge(&self, bytes: u64) -> Charge<'static> {
        Charge::force(self.lane(), bytes)
    }

    /// Takes granted bytes over from a lane of the same ledger; `None`: it is of another one. On success the caller owns them here.
    pub(super) fn take_over(&self, from: &Lane, bytes: u64) -> Option<Result<(), Refused>> {
        if !Arc::ptr_eq(&self.center.total, &from.center.total) {
            return None;
        }
        if Arc::ptr_eq(&self.center, &from.center) {
            return Some(Ok(()));
        }
        let pool = &self.center.pool;
        let taken = pool.take(bytes, bytes).or_else(|| {
            self.sweep();
            pool.take(bytes, bytes)
        });
        Some(match taken {
            Some(_) => {
                from.center.pool.give(bytes);
                Ok(())
            }
            None => Err(self.center.refusal(bytes, self.center.own_bound())),
        })
    }

    /// A charge of bytes that are granted to this account already.
    pub(super) fn own(&self, bytes: u64) -> Charge<'static> {
        Charge::owned(self.lane(), bytes)
    }

    /// Charges as much as fits between the ends of `range`: a buffer that works with `min` and prefers `max`.
    ///
    /// # Errors
    /// [`Refused`] if not even the lower end fits.
    ///
    /// # Examples
    /// ```
    /// # use plimsoll::reclaim::ledger::Ledger;
    /// let ledger = Ledger::with_cap(100);
    /// let sort = ledger.account("sort")?;
    /// let join = ledger.account("join")?;
    /// let most = sort.reserve(10..=80)?;
    /// let rest = join.reserve(10..=80)?;
    /// assert_eq!((most.bytes(), rest.bytes()), (80, 20));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn reserve(&self, range: std::ops::RangeInclusive<u64>) -> Result<Charge<'static>, Refused> {
        let most = (*range.end()).max(*range.start());
        let lane = self.lane();
        let got = lane.acquire(*range.start(), most)?;
        Ok(Charge::owned(lane, got))
    }

    /// Bytes charged now. Exact while no other thread charges; beside one that refills or empties its lane it can be off by
    /// one [`CHUNK_BYTES`].
    pub fn held_bytes(&self) -> u64 {
        let credit: u64 = self.lanes.0.iter().map(|lane| lane.credit.bytes()).sum();
        self.center.pool.granted().saturating_sub(credit)
    }

    /// Sets the account's own cap; `None` removes it. What is held already stays charged.
    pub fn set_cap(&self, bytes: Option<u64>) {
        self.center.cap.store(bytes.unwrap_or(u64::MAX), Ordering::Relaxed);
        self.apply_caps();
    }

    /// Sets a temporary cap, below which a reclaimed cache may not refill; `None` lifts it.
    pub fn set_clamp(&self, bytes: Option<u64>) {
        self.center.clamp.store(bytes.unwrap_or(u64::MAX), Ordering::Relaxed);
        self.apply_caps();
    }

    fn apply_caps(&self) {
        let cap = self.center.cap.load(Ordering::Relaxed);
        let clamp = self.center.clamp.load(Ordering::Relaxed);
        self.sweep();
        self.center.pool.set_cap(cap.min(clamp));
    }

    /// A moment's figures.
    pub fn figures(&self) -> Figures {
        let set = |value: u64| (value < u64::MAX).then_some(value);
        Figures {
            name: Arc::clone(&self.center.name),
            held_bytes: self.held_bytes(),
            cap_bytes: set(self.center.cap.load(Ordering::Relaxed)),
            clamp_bytes: set(self.center.clamp.load(Ordering::Relaxed)),
            refused_total: self.center.refused.load(Ordering::Relaxed),
            forced_over_cap_bytes_total: self.center.forced_over_cap.load(Ordering::Relaxed),
        }
    }

    /// Returns the credit of all lanes to the ledger.
    pub(super) fn sweep(&self) {
        for lane in &self.lanes.0 {
            lane.center.give_back(lane.credit.trim(0));
        }
    }

    #[inline]
    fn lane(&self) -> &Arc<Lane> {
        &self.lanes.0[own_slot() % self.lanes.0.len()]
    }
}

/// A number of this thread's own, from the address of its thread-local storage: no global counter.
#[inline]
fn own_slot() -> usize {
    thread_local!(static SLOT: Cell<usize> = const { Cell::new(usize::MAX) });
    SLOT.with(|slot| {
        if slot.get() == usize::MAX {
            let address = (&raw const *slot) as usize;
            slot.set((address >> 6).wrapping_mul(0x9e37_79b9_7f4a_7c15_u64 as usize) >> (usize::BITS - 16));
        }
        slot.get()
    })
}

impl Lane {
    pub(super) fn name(&self) -> &Arc<str> {
        &self.center.name
    }

    pub(super) fn credit(&self) -> &Credit {
        &self.credit
    }

    pub(super) fn same_account(&self, other: &Lane) -> bool {
        Arc::ptr_eq(&self.center, &other.center)
    }

    /// Between `least` and `most` bytes, as many as fit.
    #[inline]
    pub(super) fn acquire(&self, least: u64, most: u64) -> Result<u64, Refused> {
        if self.credit.spend(most) { Ok(most) } else { self.refill(least, most) }
    }

    #[cold]
    fn refill(&self, least: u64, most: u64) -> Result<u64, Refused> {
        let center = &*self.center;
        for attempt in 0..2 {
            match center.take(least, most, CHUNK_BYTES) {
                Ok(grant) => {
                    let got = grant.min(most);
                    self.credit.put(grant - got);
                    return Ok(got);
                }
                // Other lanes, of this account or of others, may sit on credit that nobody uses.
                Err(_) if attempt == 0 => center.sweep(),
                Err(bound) => return Err(center.refusal(least, bound)),
            }
        }
        Err(center.refusal(least, Bound::Ledger))
    }

    pub(super) fn force(&self, bytes: u64) {
        let center = &*self.center;
        if self.credit.spend(bytes) {
            return;
        }
        if let Ok(grant) = center.take(bytes, bytes, CHUNK_BYTES) {
            self.credit.put(grant - bytes);
            return;
        }
        center.sweep();
        if center.take(bytes, bytes, 0).is_ok() {
            return;
        }
        center.pool.force(bytes);
        center.total.force(bytes);
        center.forced_over_cap.fetch_add(bytes, Ordering::Relaxed);
    }

    #[inline]
    pub(super) fn release(&self, bytes: u64) {
        if self.is_over() || bytes > MOST_AT_ONCE {
            self.center.give_back(bytes);
        } else if self.credit.put(bytes) > 2 * CHUNK_BYTES {
            self.center.give_back(self.credit.trim(CHUNK_BYTES));
        }
    }
}

impl Lane {
    fn is_over(&self) -> bool {
        self.center.pool.is_over() || self.center.total.is_over()
    }

    /// Releases the bytes of a lease and ends it: in one operation while the credit has room for them. True: the lane is to be freed.
    #[inline]
    pub(super) fn end_lease(&self, bytes: u64) -> bool {
        if self.credit.bytes().saturating_add(bytes) > 2 * CHUNK_BYTES || self.is_over() {
            return self.end_dear_lease(bytes);
        }
        self.credit.put_last(bytes)
    }

    #[cold]
    fn end_dear_lease(&self, bytes: u64) -> bool {
        self.release(bytes);
        self.credit.put_last(0)
    }
}

impl Center {
    /// Grants between `least` and `most` + `spare` bytes from account and ledger.
    fn take(&self, least: u64, most: u64, spare: u64) -> Result<u64, Bound> {
        let wish = most.saturating_add(spare);
        let Some(own) = self.pool.take(least, wish) else {
            return Err(self.own_bound());
        };
        let granted = self.total.take(least, own);
        self.pool.give(own - granted.unwrap_or(0));
        granted.ok_or(Bound::Ledger)
    }

    /// Which of the account's own bounds holds.
    fn own_bound(&self) -> Bound {
        let clamped = self.clamp.load(Ordering::Relaxed) < self.cap.load(Ordering::Relaxed);
        if clamped { Bound::Clamp } else { Bound::Account }
    }

    fn give_back(&self, bytes: u64) {
        if bytes > 0 {
            self.pool.give(bytes);
            self.total.give(bytes);
        }
    }

    fn sweep(&self) {
        if let Some(registry) = self.registry.upgrade() {
            registry.accounts().for_each(Account::sweep);
        }
    }

    fn refusal(&self, wanted_bytes: u64, bound: Bound) -> Refused {
        self.refused.fetch_add(1, Ordering::Relaxed);
        let (bound_bytes, held_bytes) = match bound {
            Bound::Ledger => (self.total.cap(), self.total.granted()),
            Bound::Account | Bound::Clamp => (self.pool.cap(), self.pool.granted()),
        };
        let mut holders: Vec<(Arc<str>, u64)> = Vec::new();
        if let Some(registry) = self.registry.upgrade() {
            holders.extend(registry.accounts().map(|account| (Arc::clone(account.name()), account.held_bytes())));
            holders.sort_by_key(|(_, bytes)| std::cmp::Reverse(*bytes));
            holders.truncate(TOP_HOLDERS);
            holders.retain(|(_, bytes)| *bytes > 0);
        }
        Refused { account: Arc::clone(&self.name), wanted_bytes, bound, bound_bytes, held_bytes, holders }
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::super::Ledger;
    use super::*;

    fn lanes(account: &Account) -> Vec<Weak<Lane>> {
        account.lanes.0.iter().map(Arc::downgrade).collect()
    }

    fn alive(lanes: &[Weak<Lane>]) -> usize {
        lanes.iter().filter(|lane| lane.strong_count() > 0).count()
    }

    #[test]
    fn a_lane_lives_until_its_account_and_its_last_charge_have_gone() {
        let ledger = Ledger::new();
        let account = ledger.account("short-lived").expect("the first");
        let lanes = lanes(&account);
        let mut kept = account.try_charge(1_000).expect("no cap");
        let split = kept.split(400);
        let empty = account.try_charge(0).expect("no cap");
        drop((account, ledger));
        assert_eq!(alive(&lanes), 1, "the lane with charges on it");
        assert_eq!((kept.bytes(), split.bytes()), (600, 400));
        drop(kept);
        std::thread::spawn(move || drop(split)).join().expect("no panic");
        assert_eq!(alive(&lanes), 1, "a charge of nothing may still grow");
        drop(empty);
        assert_eq!(alive(&lanes), 0);
    }

    #[test]
    fn an_account_without_charges_frees_its_lanes_at_once() {
        let ledger = Ledger::new();
        let account = ledger.account("idle").expect("the first");
        drop(account.try_charge(1_000).expect("no cap"));
        let lanes = lanes(&account);
        drop(account);
        assert_eq!(alive(&lanes), lanes.len(), "the ledger has it still");
        drop(ledger);
        assert_eq!(alive(&lanes), 0);
    }

    #[test]
    fn charges_beyond_what_a_lane_can_count_work_as_the_others_do() {
        let ledger = Ledger::with_cap(1 << 20);
        let account = ledger.account("crowded").expect("the first");
        account.lane().credit.count_all_but(1);
        let last = account.try_charge(10).expect("fits");
        let mut beyond = account.try_charge(20).expect("fits");
        let split = beyond.split(5);
        let mut last = last;
        let from_lease = last.split(4);
        assert_eq!(account.held_bytes(), 30);
        assert_eq!([last.bytes(), from_lease.bytes(), beyond.bytes(), split.bytes()], [6, 4, 15, 5]);
        drop((last, from_lease, beyond, split));
        assert_eq!(account.held_bytes(), 0);
    }
}
