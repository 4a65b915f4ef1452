//! The three numbers and the two gaps between them, as one value. They have three jobs and are never mixed.
//!
//! **Protected** escalates (what the kernel would kill for), **live** sizes eviction (what the allocator has handed out),
//! **accounted** steers one component (what the ledger was told). `retained = protected − live` is the allocator's, and
//! `unaccounted = live − accounted` is nobody's yet. What is not known is `None`, and so is a gap that needs it.

/// Three numbers in bytes, taken as close to one moment as their readings allow.
///
/// # Examples
/// ```
/// use plimsoll::gauge::Numbers;
///
/// let numbers = Numbers { protected_bytes: Some(5000), live_bytes: Some(3000), accounted_bytes: Some(1200) };
/// assert_eq!(numbers.retained_bytes(), Some(2000));
/// assert_eq!(numbers.unaccounted_bytes(), Some(1800));
/// assert_eq!(Numbers { live_bytes: None, ..numbers }.unaccounted_bytes(), None);
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Numbers {
    /// What the kernel would kill for.
    pub protected_bytes: Option<u64>,
    /// What the allocator has handed out and not got back.
    pub live_bytes: Option<u64>,
    /// What the ledger was told.
    pub accounted_bytes: Option<u64>,
}

impl Numbers {
    /// Protected less live: kept by the allocator, fragmentation, stacks, mappings of other kinds. Negative when memory was
    /// handed out that nobody has touched yet, or when the figures are from different moments.
    pub fn retained_bytes(&self) -> Option<i64> {
        gap(self.protected_bytes, self.live_bytes)
    }

    /// Live less accounted: memory that no account was charged for. Negative when more was charged than there is.
    pub fn unaccounted_bytes(&self) -> Option<i64> {
        gap(self.live_bytes, self.accounted_bytes)
    }
}

fn gap(more: Option<u64>, less: Option<u64>) -> Option<i64> {
    let (more, less) = (more?, less?);
    let size = i64::try_from(more.abs_diff(less)).unwrap_or(i64::MAX);
    Some(if more >= less { size } else { -size })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gaps_have_a_sign_and_do_not_wrap() {
        let numbers = |protected, live| Numbers {
            protected_bytes: Some(protected),
            live_bytes: Some(live),
            accounted_bytes: None,
        };
        assert_eq!(numbers(10, 30).retained_bytes(), Some(-20));
        assert_eq!(numbers(u64::MAX, 0).retained_bytes(), Some(i64::MAX));
        assert_eq!(numbers(0, u64::MAX).retained_bytes(), Some(-i64::MAX));
        assert_eq!(numbers(1, 1).unaccounted_bytes(), None);
    }
}
