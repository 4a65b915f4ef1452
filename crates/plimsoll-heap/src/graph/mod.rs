//! A heap as a graph: who holds whom, and how many bytes would go if one went.
//!
//! About 0.45 bytes a byte of snapshot at rest, 0.7 at the peak of `Graph::build`. Nodes are numbered by *place*, the order of a
//! depth-first walk; what is kept a node: type, name, id, size, retained size, dominator. Memory ends with the graph.

pub(crate) mod bits;
pub mod classes;
mod dominators;
mod order;
pub(crate) mod own;
pub mod owners;
pub mod paths;
pub(crate) mod strings;
pub(crate) mod tables;

use std::borrow::Cow;

use crate::column::Column;
use crate::parse::v8::Warning;
use tables::{EdgeKind, LOOSE, NodeKind, Sizes, TO, Tables};

/// One object of a graph. Only meaningful with the graph that gave it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Node(pub(crate) u32);

/// A heap.
#[derive(Debug)]
pub struct Graph {
    pub(crate) tables: Tables,
    /// Sizes after backing stores went to their owners, by ordinal.
    pub(crate) shallow: Column<false>,
    /// Of each ordinal its place, and the other way round.
    place: Column<true>,
    pub(crate) ordinal: Vec<u32>,
    /// Of each place how far below it its immediate dominator is.
    below: Column<false>,
    /// Of each place the bytes that it retains.
    pub(crate) retained: Sizes,
    total_bytes: u64,
}

/// An edge of a graph.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Edge {
    pub(crate) kind: EdgeKind,
    /// Index of a string or of an element, by kind.
    pub(crate) name: u64,
    pub(crate) to: Node,
}

impl Graph {
    /// Computes sizes, dominators and retained sizes.
    pub(crate) fn build(mut tables: Tables, warnings: &mut Vec<Warning>) -> Graph {
        own::mark_ephemerons(&mut tables);
        own::move_sizes_to_owners(&mut tables);
        let nodes = tables.types.len();
        let mut shallow = Column::new();
        let mut total_bytes = 0_u64;
        for ordinal in 0..nodes {
            let bytes = tables.sizes.get(ordinal);
            shallow.push(bytes);
            total_bytes = total_bytes.saturating_add(bytes);
        }
        shallow.shrink();
        tables.sizes = Sizes::default();
        let order = order::walk(&mut tables);
        if order.unreachable > 0 {
            warnings.push(Warning::Unreachable(order.unreachable));
        }
        let (dominator, place) = dominators::dominators(order, &tables.starts, &tables.to);
        let mut ordinal = vec![0; nodes];
        let mut retained = Sizes::zeros(nodes);
        for ((at, place), bytes) in (0_u32..).zip(&place).zip(shallow.iter()) {
            ordinal[*place as usize] = at;
            retained.set(*place as usize, bytes);
        }
        for node in (1..nodes).rev() {
            retained.add(dominator[node] as usize, retained.get(node));
        }
        // From here on these two are read in order, or seldom: as columns they take half.
        let mut below = Column::new();
        for (node, dominator) in (0_u32..).zip(dominator) {
            below.push(u64::from(node - dominator));
        }
        let mut places = Column::new();
        for place in place {
            places.push(u64::from(place));
        }
        places.shrink();
        below.shrink();
        Graph { tables, shallow, place: places, ordinal, below, retained, total_bytes }
    }

    /// How many nodes there are, the runtime's own included.
    #[must_use]
    pub fn node_count(&self) -> usize {
        self.tables.types.len()
    }

    /// The sum of all sizes.
    #[must_use]
    pub fn total_bytes(&self) -> u64 {
        self.total_bytes
    }

    /// The root: it holds everything.
    #[must_use]
    pub fn root(&self) -> Node {
        Node(0)
    }

    /// The node that the file gives this id.
    #[must_use]
    pub fn by_id(&self, id: u64) -> Option<Node> {
        self.tables.ids.iter().position(|found| found == id).map(|ordinal| Node(self.place.get(ordinal) as u32))
    }

    /// The nodes of many ids at once, each with what `wanted` says of it.
    pub(crate) fn find_ids(&self, wanted: &std::collections::HashMap<u64, usize>) -> Vec<(usize, Node)> {
        let ids = self.places().zip(self.tables.ids.iter());
        ids.filter_map(|(place, id)| wanted.get(&id).map(|index| (*index, Node(place)))).collect()
    }

    /// Gives back what only retained sizes and paths need. What is left answers for ids, sizes and classes.
    pub(crate) fn forget_retained(&mut self) {
        self.place = Column::new();
        self.ordinal = Vec::new();
        self.below = Column::new();
        self.retained = Sizes::default();
    }

    /// The two columns that are kept when the rest goes.
    pub(crate) fn into_ids_and_sizes(self) -> (Column<true>, Column<false>) {
        (self.tables.ids, self.shallow)
    }

    pub(crate) fn ordinal_of(&self, node: Node) -> u32 {
        self.ordinal[node.0 as usize]
    }

    /// The id that the file gives it: the same in every snapshot of one life of the process.
    #[must_use]
    pub fn id(&self, node: Node) -> u64 {
        self.tables.ids.get(self.ordinal_of(node) as usize)
    }

    /// The file's name of it: of an object its class, of a string its text, of a closure its function's name.
    #[must_use]
    pub fn name(&self, node: Node) -> Cow<'_, str> {
        self.tables.strings.get(self.tables.names.get(self.ordinal_of(node) as usize))
    }

    /// The file's word for its type: `object`, `closure`, `string`, …
    #[must_use]
    pub fn type_name(&self, node: Node) -> &str {
        &self.tables.type_names[usize::from(self.tables.types[self.ordinal_of(node) as usize])]
    }

    pub(crate) fn kind(&self, node: Node) -> NodeKind {
        self.tables.kind(self.ordinal_of(node))
    }

    /// Its own bytes, with the backing stores that only it owns.
    #[must_use]
    pub fn shallow_bytes(&self, node: Node) -> u64 {
        self.shallow.get(self.ordinal_of(node) as usize)
    }

    /// The bytes that would go if it went: its own and those of everything that it dominates. Never sum these of nodes that
    /// hold each other.
    #[must_use]
    pub fn retained_bytes(&self, node: Node) -> u64 {
        self.retained.get(node.0 as usize)
    }

    /// The nearest node without which it would go; the root's is the root.
    #[must_use]
    pub fn dominator(&self, node: Node) -> Node {
        Node(node.0 - self.below.get(node.0 as usize) as u32)
    }

    /// The place of each ordinal, in order.
    pub(crate) fn places(&self) -> impl Iterator<Item = u32> + '_ {
        self.place.iter().map(|place| place as u32)
    }

    /// The dominator of each place, in order: always lower, but for the root's, which is itself.
    pub(crate) fn dominators(&self) -> impl Iterator<Item = u32> + '_ {
        (0_u32..).zip(self.below.iter()).map(|(node, below)| node - below as u32)
    }

    /// What it leads to, weak edges left out; with those that do not hold (`LOOSE`) only when `all`.
    pub(crate) fn edges(&self, node: Node, all: bool) -> impl Iterator<Item = Edge> + '_ {
        let range = self.tables.edges(self.ordinal_of(node));
        let names = self.tables.edge_names.iter_from(range.start);
        let words = self.tables.to[range].iter();
        words.zip(names).filter(move |(word, _)| all || **word & LOOSE == 0).map(|(word, name)| Edge {
            kind: EdgeKind::unpack(*word),
            name,
            to: Node(word & TO),
        })
    }
}
