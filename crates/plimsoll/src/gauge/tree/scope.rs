//! Which processes make up a tree.

use std::sync::Arc;
use std::sync::atomic::{AtomicI32, Ordering};

/// How many processes an [`Excluded`] list holds.
pub const MAX_EXCLUDED: usize = 32;

/// Which processes a tree gauge counts.
///
/// Both kinds follow descent by parent, and keep what once belonged to the tree when its parent dies: by its number and
/// start time, and by the sessions and process groups that were made inside the tree. What double-forks into a session of
/// its own between two looks is only found by [`TreeScope::Below`] a subreaper, to which the kernel hands orphans.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum TreeScope {
    /// A process and everything that descends from it.
    Descendants {
        /// The process at the root of the tree.
        root: i32,
    },
    /// Everything that descends from a process, which itself does not count: a supervisor that is a subreaper gives its
    /// own pid, and excludes its helpers.
    Below {
        /// The process above the tree.
        parent: i32,
        /// Processes that do not count, with all that descends from them.
        excluded: Excluded,
    },
}

impl TreeScope {
    /// The process that everything is found from.
    pub(super) fn root(&self) -> i32 {
        match self {
            TreeScope::Descendants { root } => *root,
            TreeScope::Below { parent, .. } => *parent,
        }
    }

    /// Whether the root is part of the tree: then an empty tree means that the target is gone.
    pub(super) fn counts_root(&self) -> bool {
        matches!(self, TreeScope::Descendants { .. })
    }

    /// All excluded pids, 0 for a free slot.
    pub(super) fn excluded(&self) -> [i32; MAX_EXCLUDED] {
        match self {
            TreeScope::Descendants { .. } => [0; MAX_EXCLUDED],
            TreeScope::Below { excluded, .. } => std::array::from_fn(|at| excluded.0[at].load(Ordering::SeqCst)),
        }
    }

    pub(super) fn excludes(&self, pid: i32) -> bool {
        match self {
            TreeScope::Descendants { .. } => false,
            TreeScope::Below { excluded, .. } => excluded.contains(pid),
        }
    }
}

/// A bounded list of processes that a tree does not count; clones share it, so it can change while the gauge runs.
#[derive(Clone, Debug)]
pub struct Excluded(Arc<[AtomicI32; MAX_EXCLUDED]>);

impl Default for Excluded {
    fn default() -> Self {
        Excluded(Arc::new([const { AtomicI32::new(0) }; MAX_EXCLUDED]))
    }
}

impl Excluded {
    /// Leaves a process out, with all that descends from it, from the next look on. `false`: the list is full.
    #[must_use]
    pub fn exclude(&self, pid: i32) -> bool {
        let free = |slot: &AtomicI32| slot.compare_exchange(0, pid, Ordering::SeqCst, Ordering::SeqCst).is_ok();
        self.contains(pid) || self.0.iter().any(free)
    }

    /// Takes a process off the list: it ended, and its number may be given to another.
    pub fn readmit(&self, pid: i32) {
        for slot in self.0.iter() {
            // Only fails where the slot holds another pid, which is then not ours to clear.
            slot.compare_exchange(pid, 0, Ordering::SeqCst, Ordering::SeqCst).ok();
        }
    }

    /// Whether a process is on the list.
    pub fn contains(&self, pid: i32) -> bool {
        pid != 0 && self.0.iter().any(|slot| slot.load(Ordering::SeqCst) == pid)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_list_is_bounded_and_shared() {
        let list = Excluded::default();
        let other = list.clone();
        let pids = 1..=i32::try_from(MAX_EXCLUDED).unwrap();
        for pid in pids {
            assert!(list.exclude(pid));
        }
        assert!(!other.exclude(1000), "full");
        assert!(other.exclude(7), "already on it");
        other.readmit(7);
        assert!(!list.contains(7));
        assert!(list.exclude(1000));
        assert!(!list.contains(0), "an empty slot is nobody");
    }
}
