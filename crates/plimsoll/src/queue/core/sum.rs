//! The queue's part of a cap over many queues: bytes charged to a [ledger](crate::reclaim::ledger) account ahead of need.
//!
//! Charged in chunks of [`CHUNK_BYTES`] or a sixteenth of the queue, whichever is less, so that most sends touch no account. At
//! most two chunks are charged and unused. After a refusal the account is not asked again in the same millisecond, unless
//! something has left this queue.

use std::time::Duration;

use crate::reclaim::ledger::{Account, CHUNK_BYTES, Charge};

pub(super) struct Sum {
    account: Account,
    charge: Charge<'static>,
    chunk_bytes: u64,
    not_before: Duration,
}

impl Sum {
    pub(super) fn new(account: Account, max_bytes: u64) -> Sum {
        let chunk_bytes = CHUNK_BYTES.min(max_bytes / 16);
        Sum { charge: account.charge(0), account, chunk_bytes, not_before: Duration::ZERO }
    }

    /// What may be queued as it is, in bytes.
    #[inline]
    pub(super) fn covered_bytes(&self) -> u64 {
        self.charge.bytes()
    }

    /// Charges until `bytes` are covered; false when the account refuses.
    #[cold]
    pub(super) fn cover(&mut self, bytes: u64, now: Duration) -> bool {
        let lack = bytes.saturating_sub(self.charge.bytes());
        if now < self.not_before {
            return lack == 0;
        }
        match self.account.reserve(lack..=lack.saturating_add(self.chunk_bytes)) {
            // Merging fails only between accounts; this one is its own.
            Ok(more) => self.charge.merge(more).is_ok(),
            Err(_) => {
                self.not_before = now + Duration::from_millis(1);
                false
            }
        }
    }

    /// As [`Sum::cover`], also right after a refusal: this is another question.
    #[cold]
    pub(super) fn cover_after_all(&mut self, bytes: u64) -> bool {
        match bytes.saturating_sub(self.charge.bytes()) {
            0 => true,
            lack => self.account.reserve(lack..=lack).is_ok_and(|more| self.charge.merge(more).is_ok()),
        }
    }

    /// Gives back what `used_bytes` do not need.
    pub(super) fn uncover(&mut self, used_bytes: u64) {
        self.not_before = Duration::ZERO;
        let spare = self.charge.bytes().saturating_sub(used_bytes);
        if spare > 2 * self.chunk_bytes {
            self.charge.shrink(spare - self.chunk_bytes);
        }
    }
}
