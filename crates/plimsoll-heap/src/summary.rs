//! What one snapshot says: its classes, its owners, its digest.
//!
//! Beside the graph: two bytes a node for classes, a word a node while paths are searched, two bytes a node while shares are
//! divided, never at the same time; what is kept is a few rows.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};

use crate::digest::{Digest, Kind, MARKS, Mark, Row};
use crate::graph::classes::{Class, Classes, Interfaces, each_class};
use crate::graph::owners::{self, Owner};
use crate::graph::{Graph, Node};
use crate::parse::v8::Warning;

/// Rows of a digest, of each kind.
pub const DIGEST_ROWS: usize = 200;
/// Classes whose retained bytes are computed in one pass: a bit each.
const CLASSES_A_PASS: usize = 8;
/// Classes whose retained bytes are computed, at most.
pub const MAX_RETAINED_CLASSES: usize = 1000;
/// Ids below this one are as old as the process, nearly: half of the marks are among them.
const OLD_IDS: u64 = 1 << 17;

/// The objects of one class.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClassRow {
    /// The class.
    pub class: Class,
    /// Objects that take bytes.
    pub count: u64,
    /// Their own bytes.
    pub bytes: u64,
    /// What would go if they all went, counted once where they hold each other; `None` beyond the classes asked for.
    pub retained_bytes: Option<u64>,
}

/// An object by what it retains. These hold each other: never sum them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Large {
    /// Its id in the file.
    pub id: u64,
    /// The file's name of it.
    pub name: String,
    /// Its own bytes.
    pub bytes: u64,
    /// What would go if it went.
    pub retained_bytes: u64,
}

/// What one snapshot says.
#[derive(Clone, Debug)]
pub struct Summary {
    /// Nodes of the graph.
    pub nodes: u64,
    /// Bytes of the heap.
    pub total_bytes: u64,
    /// All classes, the most bytes first.
    pub classes: Vec<ClassRow>,
    /// All owners, the most bytes first, what no owner holds at the end. Their sum is the heap.
    pub owners: Vec<Owner>,
    /// The objects that retain most.
    pub largest: Vec<Large>,
    /// Some objects by id and name, to tell one life of a process from another.
    pub marks: Vec<Mark>,
    /// What was found strange meanwhile.
    pub warnings: Vec<Warning>,
}

impl Summary {
    /// Sums a graph up; with the retained bytes of the `retained` largest classes and objects, at most [`MAX_RETAINED_CLASSES`].
    ///
    /// # Examples
    ///
    /// ```no_run
    /// use plimsoll_heap::{parse::v8, summary::Summary};
    ///
    /// let (graph, _) = v8::read(std::fs::File::open("after.heapsnapshot")?)?;
    /// let summary = Summary::of(&graph, 20);
    /// println!("{} holds {} bytes", summary.owners[0].key, summary.owners[0].bytes);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn of(graph: &Graph, retained: usize) -> Summary {
        let mut warnings = Vec::new();
        let interfaces = Interfaces::infer(graph, &mut warnings);
        let retained = retained.min(MAX_RETAINED_CLASSES);
        let mut classes = Classes::default();
        let mut sums: Vec<(u64, u64)> = Vec::new();
        let mut figures = graph.places().zip(graph.shallow.iter());
        // The class of each place, while there are few enough for two bytes; the largest are asked for again.
        let mut class_at = vec![u16::MAX; if retained > 0 { graph.node_count() } else { 0 }];
        each_class(graph, &mut classes, &interfaces, |_, class| {
            let (place, bytes) = figures.next().unwrap_or_default();
            if sums.len() <= class as usize {
                sums.resize(class as usize + 1, (0, 0));
            }
            let sum = &mut sums[class as usize];
            sum.0 += u64::from(bytes > 0);
            sum.1 += bytes;
            if retained > 0 && bytes > 0 {
                class_at[place as usize] = u16::try_from(class).unwrap_or(u16::MAX);
            }
        });
        let mut by_bytes: Vec<u32> = (0..sums.len() as u32).filter(|class| sums[*class as usize].0 > 0).collect();
        by_bytes.sort_by_key(|class| (Reverse(sums[*class as usize].1), *class));
        let asked = by_bytes[..retained.min(by_bytes.len())].iter().map(|class| u16::try_from(*class).ok());
        let retained_bytes = retained_by_class(graph, &class_at, &asked.collect::<Vec<_>>());
        drop(class_at);
        let row = |(index, class): (usize, &u32)| ClassRow {
            class: classes.get(*class).clone(),
            count: sums[*class as usize].0,
            bytes: sums[*class as usize].1,
            retained_bytes: retained_bytes.get(index).copied().flatten(),
        };
        let rows = by_bytes.iter().enumerate().map(row).collect();
        let shares = owners::divide(graph, &owners::find(graph, owners::least_bytes(graph.total_bytes())));
        Summary {
            nodes: graph.node_count() as u64,
            total_bytes: graph.total_bytes(),
            classes: rows,
            owners: owners::name(graph, &shares),
            largest: largest(graph, retained),
            marks: marks(graph),
            warnings,
        }
    }

    /// A few KB of it: the largest rows of each kind, and the marks.
    #[must_use]
    pub fn digest(&self, unix_ns: u64) -> Digest {
        let row = |kind, key: String, bytes, count| Row { kind, key, bytes, count, variance: 0.0 };
        let total = row(Kind::Total, "heap".into(), self.total_bytes, self.nodes);
        let classes = joined_by_name(&self.classes);
        let classes = classes.into_iter().map(|(name, bytes, count)| row(Kind::Class, name, bytes, count));
        let owners = self.owners.iter().map(|owner| row(Kind::Owner, owner.key.clone(), owner.bytes, owner.objects));
        let rows = std::iter::once(total).chain(classes.take(DIGEST_ROWS)).chain(owners.take(DIGEST_ROWS));
        Digest { unix_ns, life: 0, marks: self.marks.clone(), rows: rows.collect() }
    }
}

/// The objects that retain most.
fn largest(graph: &Graph, most: usize) -> Vec<Large> {
    let mut heap = BinaryHeap::new();
    for node in 0..graph.node_count() as u32 {
        let retained = graph.retained_bytes(Node(node));
        if heap.len() < most {
            heap.push(Reverse((retained, Reverse(node))));
        } else if let Some(mut least) = heap.peek_mut()
            && least.0 < (retained, Reverse(node))
        {
            *least = Reverse((retained, Reverse(node)));
        }
    }
    let large = |Reverse((retained_bytes, Reverse(node)))| Large {
        id: graph.id(Node(node)),
        name: graph.name(Node(node)).into_owned(),
        bytes: graph.shallow_bytes(Node(node)),
        retained_bytes,
    };
    heap.into_sorted_vec().into_iter().map(large).collect()
}

/// Classes of one name are one: where they are defined may differ from life to life.
fn joined_by_name(rows: &[ClassRow]) -> Vec<(String, u64, u64)> {
    let mut index = HashMap::new();
    let mut joined: Vec<(String, u64, u64)> = Vec::new();
    for row in rows {
        let at = *index.entry(&row.class.name).or_insert(joined.len());
        if at == joined.len() {
            joined.push((row.class.name.to_string(), 0, 0));
        }
        joined[at].1 = u64::saturating_add(joined[at].1, row.bytes);
        joined[at].2 = u64::saturating_add(joined[at].2, row.count);
    }
    joined.sort_by_key(|(_, bytes, _)| Reverse(*bytes));
    joined
}

/// What would go with all objects of each of some classes: of those that hold each other, the outermost count. `None` for a class
/// that has no number of 16 bits.
fn retained_by_class(graph: &Graph, class_at: &[u16], asked: &[Option<u16>]) -> Vec<Option<u64>> {
    let mut sums = Vec::with_capacity(asked.len());
    for some in asked.chunks(CLASSES_A_PASS) {
        let mut bit_of = vec![0_u8; usize::from(u16::MAX) + 1];
        for (bit, class) in some.iter().enumerate() {
            if let Some(class) = class {
                bit_of[usize::from(*class)] = 1 << bit;
            }
        }
        let mut bytes = [0; CLASSES_A_PASS];
        // Bits of the classes above each node and of its own. Dominators come first, so they are known when a node is met.
        let mut bits = vec![0_u8; class_at.len()];
        for ((node, class), dominator) in class_at.iter().enumerate().zip(graph.dominators()) {
            let above = bits[dominator as usize];
            let own = bit_of[usize::from(*class)];
            if own & !above != 0 {
                bytes[own.trailing_zeros() as usize] += graph.retained_bytes(Node(node as u32));
            }
            bits[node] = above | own;
        }
        sums.extend(some.iter().zip(bytes).map(|(class, bytes)| class.map(|_| bytes)));
    }
    sums
}

/// The identities of a snapshot that its digest keeps: which ones, their hashes decide.
pub(crate) fn marks(graph: &Graph) -> Vec<Mark> {
    let mix = |number: u64| {
        let mixed = (number ^ (number >> 31)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        mixed ^ (mixed >> 29)
    };
    let mut lists = [const { BinaryHeap::<(u64, u64, u32)>::new() }; 2];
    for (ordinal, id) in (0_u32..).zip(graph.tables.ids.iter()) {
        // Even ids are those of the embedder's own objects, and may be addresses.
        let list = &mut lists[usize::from(id >= OLD_IDS)];
        let hash = mix(id);
        let full = list.len() >= MARKS / 2;
        if id % 2 == 1 && (!full || list.peek().is_some_and(|largest| hash < largest.0)) {
            if full {
                list.pop();
            }
            list.push((hash, id, ordinal));
        }
    }
    let mut marks: Vec<Mark> = lists
        .into_iter()
        .flatten()
        .map(|(_, id, ordinal)| {
            let tables = &graph.tables;
            let raw = tables.strings.raw(usize::try_from(tables.names.get(ordinal as usize)).unwrap_or(usize::MAX));
            let kind = tables.type_names[usize::from(tables.types[ordinal as usize])].as_bytes();
            Mark { id, what: fnv(kind.iter().chain(b" ").chain(raw)) }
        })
        .collect();
    marks.sort_unstable();
    marks
}

/// FNV-1a, folded to 32 bits.
fn fnv<'a>(bytes: impl Iterator<Item = &'a u8>) -> u32 {
    let hash =
        bytes.fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3));
    (hash ^ (hash >> 32)) as u32
}
