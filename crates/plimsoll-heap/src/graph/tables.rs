//! What a snapshot is made of, as read: columns of nodes, edges in one array, strings in another.
//!
//! Bytes a node: 1 type, 4 size, 4 first edge, about 3 name and id; an edge: 4 target and kind, about 2 name.

use crate::column::Column;

/// Nodes that are read; the four bits above are what an edge's word says of its kind.
pub(crate) const MAX_NODES: usize = 1 << 28;

/// What a node is, as far as it is treated differently.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NodeKind {
    Hidden,
    Array,
    Object,
    Native,
    Code,
    Closure,
    RegExp,
    Synthetic,
    Other,
}

impl NodeKind {
    pub(crate) fn of(name: &str) -> NodeKind {
        match name {
            "hidden" => NodeKind::Hidden,
            "array" => NodeKind::Array,
            "object" => NodeKind::Object,
            "native" => NodeKind::Native,
            "code" => NodeKind::Code,
            "closure" => NodeKind::Closure,
            "regexp" => NodeKind::RegExp,
            "synthetic" => NodeKind::Synthetic,
            _ => NodeKind::Other,
        }
    }
}

/// What an edge is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum EdgeKind {
    Context,
    Element,
    Property,
    Internal,
    Hidden,
    Shortcut,
    /// The half of a WeakMap's pair that comes from its table: the key holds the value as well, and alone decides.
    EphemeronTable,
}

impl EdgeKind {
    const ALL: [EdgeKind; 8] = [
        EdgeKind::Context,
        EdgeKind::Element,
        EdgeKind::Property,
        EdgeKind::Internal,
        EdgeKind::Hidden,
        EdgeKind::Shortcut,
        EdgeKind::EphemeronTable,
        EdgeKind::Internal,
    ];

    /// By its name in the header; `None` for weak ones, which are left out.
    pub(crate) fn of(name: &str) -> Option<EdgeKind> {
        match name {
            "weak" => None,
            "context" => Some(EdgeKind::Context),
            "element" => Some(EdgeKind::Element),
            "property" => Some(EdgeKind::Property),
            "hidden" => Some(EdgeKind::Hidden),
            "shortcut" => Some(EdgeKind::Shortcut),
            _ => Some(EdgeKind::Internal),
        }
    }

    /// With where it leads, in one word.
    #[inline]
    pub(crate) fn pack(self, node: u32) -> u32 {
        node | (self as u32) << 28
    }

    #[inline]
    pub(crate) fn unpack(word: u32) -> EdgeKind {
        EdgeKind::ALL[(word >> 28 & 7) as usize]
    }
}

/// Of an edge's word: where it leads.
pub(crate) const TO: u32 = (1 << 28) - 1;
/// Of an edge's word: it does not hold what it leads to.
pub(crate) const LOOSE: u32 = 1 << 31;

/// Sizes in bytes: words of 32 bits until one needs more.
#[derive(Clone, Debug)]
pub(crate) enum Sizes {
    Narrow(Vec<u32>),
    Wide(Vec<u64>),
}

impl Default for Sizes {
    fn default() -> Sizes {
        Sizes::Narrow(Vec::new())
    }
}

impl Sizes {
    pub(crate) fn zeros(len: usize) -> Sizes {
        Sizes::Narrow(vec![0; len])
    }

    #[inline]
    pub(crate) fn push(&mut self, bytes: u64) {
        match (&mut *self, u32::try_from(bytes)) {
            (Sizes::Narrow(sizes), Ok(bytes)) => sizes.push(bytes),
            (Sizes::Wide(sizes), _) => sizes.push(bytes),
            (Sizes::Narrow(_), Err(_)) => {
                self.widen();
                self.push(bytes);
            }
        }
    }

    #[inline]
    pub(crate) fn get(&self, index: usize) -> u64 {
        match self {
            Sizes::Narrow(sizes) => u64::from(sizes[index]),
            Sizes::Wide(sizes) => sizes[index],
        }
    }

    pub(crate) fn set(&mut self, index: usize, bytes: u64) {
        match (&mut *self, u32::try_from(bytes)) {
            (Sizes::Narrow(sizes), Ok(bytes)) => sizes[index] = bytes,
            (Sizes::Wide(sizes), _) => sizes[index] = bytes,
            (Sizes::Narrow(_), Err(_)) => {
                self.widen();
                self.set(index, bytes);
            }
        }
    }

    #[inline]
    pub(crate) fn add(&mut self, index: usize, bytes: u64) {
        self.set(index, self.get(index).saturating_add(bytes));
    }

    #[cold]
    fn widen(&mut self) {
        if let Sizes::Narrow(sizes) = self {
            *self = Sizes::Wide(sizes.iter().map(|bytes| u64::from(*bytes)).collect());
        }
    }

    fn reserve(&mut self, room: usize) {
        if let Sizes::Narrow(sizes) = self {
            sizes.reserve(room);
        }
    }
}

/// A snapshot as read.
#[derive(Clone, Debug, Default)]
pub(crate) struct Tables {
    pub(crate) root: u32,
    /// Of each type of node: what it is, and what the file calls it.
    pub(crate) kinds: Vec<NodeKind>,
    pub(crate) type_names: Vec<String>,
    pub(crate) types: Vec<u8>,
    /// Indices of strings.
    pub(crate) names: Column<false>,
    pub(crate) ids: Column<true>,
    pub(crate) sizes: Sizes,
    /// Where the edges of each node begin in `to`; one more at the end.
    pub(crate) starts: Vec<u32>,
    /// `EdgeKind::pack`ed.
    pub(crate) to: Vec<u32>,
    /// Indices of strings, or of elements.
    pub(crate) edge_names: Column<false>,
    pub(crate) strings: crate::graph::strings::Strings,
    /// Script, line and column of definitions of classes.
    pub(crate) places: Vec<[u64; 3]>,
    /// Node and index into `places`, ascending by node.
    pub(crate) place_of: Vec<(u32, u32)>,
}

impl Tables {
    pub(crate) fn reserve_nodes(&mut self, room: usize) {
        self.types.reserve(room);
        self.sizes.reserve(room);
        self.starts.reserve(room + 1);
    }

    pub(crate) fn shrink(&mut self) {
        self.names.shrink();
        self.ids.shrink();
        self.edge_names.shrink();
        self.to.shrink_to_fit();
        self.types.shrink_to_fit();
        self.starts.shrink_to_fit();
        self.place_of.shrink_to_fit();
        self.strings.shrink();
    }

    pub(crate) fn kind(&self, ordinal: u32) -> NodeKind {
        self.kinds[usize::from(self.types[ordinal as usize])]
    }

    /// Where the edges of a node stand in `to`.
    #[inline]
    pub(crate) fn edges(&self, ordinal: u32) -> std::ops::Range<usize> {
        self.starts[ordinal as usize] as usize..self.starts[ordinal as usize + 1] as usize
    }
}
