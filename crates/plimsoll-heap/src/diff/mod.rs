//! Two snapshots of one program: what came, what went, what grew where it was, and who holds it.
//!
//! The newer one is read first, summed up and reduced to three columns (id, class, size; about four bytes a node); then the older one
//! is read. So two need little more than one. Ids mean something only within one life of a process: whether both are of one life is
//! found from what the ids name, and when they are not, classes and owner paths are compared instead, and that is said.

mod columns;
mod owners;

use std::io::Read;

use crate::digest::Digest;
use crate::graph::classes::{Class, Classes, Interfaces};
use crate::graph::paths::Step;
use crate::parse::v8::{self, V8Error, Warning};
use crate::summary;
use columns::{Columns, compare_classes};
use owners::OwnerSide;

/// A number of objects and their bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Amount {
    /// Objects.
    pub count: u64,
    /// Bytes.
    pub bytes: u64,
}

impl Amount {
    fn add(&mut self, bytes: u64) {
        self.count = self.count.saturating_add(1);
        self.bytes = self.bytes.saturating_add(bytes);
    }

    fn join(&mut self, other: Amount) {
        self.count = self.count.saturating_add(other.count);
        self.bytes = self.bytes.saturating_add(other.bytes);
    }
}

/// What happened to the objects of a class, by their ids. Only within one life of the process.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Moves {
    /// Only in the newer snapshot.
    pub new: Amount,
    /// Only in the older one.
    pub gone: Amount,
    /// In both, larger in the newer one: by how many bytes.
    pub grown: Amount,
    /// In both, smaller in the newer one: by how many bytes.
    pub shrunk: Amount,
}

/// A class in both snapshots.
#[derive(Clone, Debug)]
pub struct ClassDiff {
    /// The class; without its place where the snapshots are of two lives.
    pub class: Class,
    /// In the older snapshot.
    pub before: Amount,
    /// In the newer one.
    pub after: Amount,
    /// What happened by ids; `None` where they say nothing.
    pub moves: Option<Moves>,
}

impl ClassDiff {
    /// Bytes more in the newer snapshot.
    #[must_use]
    pub fn delta_bytes(&self) -> i64 {
        signed(self.after.bytes, self.before.bytes)
    }
}

/// An owner in both snapshots.
#[derive(Clone, Debug)]
pub struct OwnerDiff {
    /// Its path and title, `global.__app.sessionCache → Map`.
    pub key: String,
    /// How the largest of that path is reached, in the newer snapshot where it is in both.
    pub steps: Vec<Step>,
    /// Its id in that snapshot; 0 for what no owner holds.
    pub id: u64,
    /// How many owners have that path.
    pub owners: u64,
    /// Its share in the older snapshot; nothing when it was not there.
    pub before: Amount,
    /// Its share in the newer one.
    pub after: Amount,
    /// It was there before, the same object; of several, each of them. `None` where ids do not compare.
    pub survived: Option<bool>,
}

impl OwnerDiff {
    /// Bytes more in the newer snapshot.
    #[must_use]
    pub fn delta_bytes(&self) -> i64 {
        signed(self.after.bytes, self.before.bytes)
    }
}

/// One of two snapshots.
#[derive(Clone, Debug)]
pub struct Side {
    /// Nodes of the graph.
    pub nodes: u64,
    /// Bytes of the heap.
    pub total_bytes: u64,
    /// What was read differently from what the file says.
    pub warnings: Vec<Warning>,
}

/// What changed between two snapshots.
#[derive(Clone, Debug)]
pub struct Diff {
    /// The older one.
    pub before: Side,
    /// The newer one.
    pub after: Side,
    /// Both are of one life of one process; `None` when that cannot be told.
    pub same_life: Option<bool>,
    /// Owners of either, the largest growth first, the largest loss last. Their sum is the growth of the heap.
    pub owners: Vec<OwnerDiff>,
    /// Classes of either, likewise.
    pub classes: Vec<ClassDiff>,
}

impl Diff {
    /// Bytes more in the newer snapshot.
    #[must_use]
    pub fn delta_bytes(&self) -> i64 {
        signed(self.after.total_bytes, self.before.total_bytes)
    }

    /// The owner that grew most, if any grew.
    #[must_use]
    pub fn largest_growth(&self) -> Option<&OwnerDiff> {
        self.owners.first().filter(|owner| owner.delta_bytes() > 0)
    }
}

fn signed(after: u64, before: u64) -> i64 {
    i64::try_from(i128::from(after) - i128::from(before)).unwrap_or(if after > before { i64::MAX } else { i64::MIN })
}

/// Which of two files an error is about.
#[derive(Debug, thiserror::Error)]
pub enum DiffError {
    /// The older snapshot.
    #[error("the older snapshot: {0}")]
    Before(V8Error),
    /// The newer one.
    #[error("the newer snapshot: {0}")]
    After(V8Error),
}

/// Compares two V8 snapshots. Memory is that of the larger one and about four bytes a node of the newer one.
///
/// # Errors
///
/// [`DiffError`]: one of the two cannot be read.
///
/// # Examples
///
/// ```no_run
/// use std::fs::File;
///
/// let diff = plimsoll_heap::diff::v8(File::open("before.heapsnapshot")?, File::open("after.heapsnapshot")?)?;
/// if let Some(leak) = diff.largest_growth() {
///     println!("{} grew by {} bytes", leak.key, leak.delta_bytes());
/// }
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn v8(before: impl Read, after: impl Read) -> Result<Diff, DiffError> {
    let (graph, mut warnings) = v8::read(after).map_err(DiffError::After)?;
    let interfaces = Interfaces::infer(&graph, &mut warnings);
    let mut classes = Classes::default();
    let after_owners = OwnerSide::newer(&graph);
    let after_digest = Digest { marks: summary::marks(&graph), ..Digest::default() };
    let mut after_side = Side { nodes: graph.node_count() as u64, total_bytes: graph.total_bytes(), warnings };
    let after_columns = Columns::of(graph, &mut classes, &interfaces);

    let (graph, warnings) = v8::read(before).map_err(DiffError::Before)?;
    let before_digest = Digest { marks: summary::marks(&graph), ..Digest::default() };
    let same_life = before_digest.same_life(&after_digest);
    let by_id = same_life == Some(true);
    let before_owners = OwnerSide::older(&graph, &after_owners, by_id);
    let mut before_side = Side { nodes: graph.node_count() as u64, total_bytes: graph.total_bytes(), warnings };
    let before_columns = Columns::of(graph, &mut classes, &interfaces);

    for (side, columns) in [(&mut before_side, &before_columns), (&mut after_side, &after_columns)] {
        if by_id && columns.beyond > 0 {
            side.warnings.push(Warning::LargeIds(columns.beyond));
        }
    }
    let class_rows = compare_classes(&before_columns, &after_columns, &classes, by_id);
    let owners = owners::compare(&before_owners, &after_owners, by_id);
    Ok(Diff { before: before_side, after: after_side, same_life, owners, classes: class_rows })
}
