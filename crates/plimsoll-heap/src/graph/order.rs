//! Numbers the nodes in the order of a depth-first walk from the root: their *places*. All that follows works on places.
//!
//! Which edges count is DevTools' rule (`computeIsEssentialEdge`): not an edge to itself, not a shortcut unless from the root, not the
//! table's half of a WeakMap pair, and none from what only the runtime holds into what the user's globals hold. The user's globals are
//! walked first, so what they hold has the lower places. Iterative: 8 bytes of stack per node of the deepest path.

use super::bits::Bits;
use super::tables::{EdgeKind, LOOSE, NodeKind, TO, Tables};

const NONE: u32 = u32::MAX;

/// A walk's result.
pub(crate) struct Order {
    /// Of each node (by ordinal), its place.
    pub(crate) place: Vec<u32>,
    /// Of each place, the place from which it was first reached; the root's is 0.
    pub(crate) parent: Vec<u32>,
    /// Of each place, the lowest place with an edge to it.
    pub(crate) lowest: Vec<u32>,
    /// Of each place, how many edges from higher places lead to it.
    pub(crate) higher: Vec<u32>,
    /// Nodes that no edge from the root reaches; they count as held by it.
    pub(crate) unreachable: u64,
}

/// Walks the graph, then rewrites every edge's target to its place and marks the edges that do not count.
pub(crate) fn walk(tables: &mut Tables) -> Order {
    let nodes = tables.types.len();
    let mut walk = Walk {
        place: vec![NONE; nodes],
        parent: Vec::with_capacity(nodes),
        seen: Bits::new(nodes),
        users: Bits::new(nodes),
        stack: Vec::new(),
        tables,
    };
    let root = walk.tables.root;
    walk.seen.set(root);
    walk.place[root as usize] = 0;
    walk.parent.push(0);
    let late = walk.user_roots(root);
    let users_end = walk.parent.len() as u32;
    let users_late = walk.mark_late(late);
    for edge in walk.tables.edges(root) {
        let target = walk.tables.to[edge] & TO;
        walk.enter_from_root(target, |_| {});
    }
    // Roots of what is left: each has, besides what leads to it, an edge from the root.
    let extra_roots = walk.rest();
    let Walk { place, parent, users, .. } = walk;
    let unreachable = extra_roots.1;
    let mut order = Order { place, parent, lowest: vec![NONE; nodes], higher: vec![0; nodes], unreachable };
    for extra in extra_roots.0 {
        order.lowest[extra as usize] = 0;
    }
    order.relabel(tables, users_end, users_late.then_some(&users));
    order
}

struct Walk<'a> {
    tables: &'a Tables,
    place: Vec<u32>,
    parent: Vec<u32>,
    seen: Bits,
    /// What the user's globals hold only through edges that do not count.
    users: Bits,
    stack: Vec<(u32, u32)>,
}

impl Walk<'_> {
    /// Walks from the root's user entries; gives what was seen at the end of edges that do not count.
    fn user_roots(&mut self, root: u32) -> Vec<u32> {
        let mut late = Vec::new();
        for edge in self.tables.edges(root) {
            let word = self.tables.to[edge];
            let target = word & TO;
            let is_entry = match EdgeKind::unpack(word) {
                EdgeKind::Shortcut => true,
                EdgeKind::Element => {
                    self.tables.kind(target) == NodeKind::Synthetic && super::own::is_user_root(self.tables, target)
                }
                _ => false,
            };
            if is_entry {
                self.enter_from_root(target, |skipped| late.push(skipped));
            }
        }
        late
    }

    /// Walks from a node that the root holds, unless it was seen.
    fn enter_from_root(&mut self, node: u32, mut skipped: impl FnMut(u32)) {
        if !self.seen.insert(node) {
            return;
        }
        self.enter(node, 0);
        while let Some((node, cursor)) = self.stack.last_mut() {
            let (node, end) = (*node, self.tables.starts[*node as usize + 1]);
            let mut entered = NONE;
            let barred = !self.users.has(node);
            while *cursor < end {
                let word = self.tables.to[*cursor as usize];
                *cursor += 1;
                let target = word & TO;
                if self.seen.has(target) {
                    continue;
                }
                if matches!(EdgeKind::unpack(word), EdgeKind::Shortcut | EdgeKind::EphemeronTable) {
                    skipped(target);
                    continue;
                }
                if barred && self.users.has(target) {
                    continue;
                }
                entered = target;
                break;
            }
            if entered == NONE {
                self.stack.pop();
            } else {
                self.seen.set(entered);
                let from = self.place[node as usize];
                self.enter(entered, from);
            }
        }
    }

    fn enter(&mut self, node: u32, parent: u32) {
        self.place[node as usize] = self.parent.len() as u32;
        self.parent.push(parent);
        self.stack.push((node, self.tables.starts[node as usize]));
    }

    /// Marks what the user's globals hold only through edges that do not count. Whether there is any.
    fn mark_late(&mut self, mut list: Vec<u32>) -> bool {
        let mut any = false;
        while let Some(node) = list.pop() {
            if !self.seen.has(node) && self.users.insert(node) {
                any = true;
                list.extend(self.tables.to[self.tables.edges(node)].iter().map(|word| word & TO));
            }
        }
        any
    }

    /// Walks from what is left: first from what nothing leads to, then from the cycles. Their places, and how many nodes that were.
    fn rest(&mut self) -> (Vec<u32>, u64) {
        let nodes = self.place.len() as u32;
        let left = u64::from(nodes) - self.parent.len() as u64;
        let mut roots = Vec::new();
        if left == 0 {
            return (roots, 0);
        }
        let mut held = Bits::new(nodes as usize);
        for node in (0..nodes).filter(|node| !self.seen.has(*node)) {
            for word in &self.tables.to[self.tables.edges(node)] {
                let target = word & TO;
                let counts = !matches!(EdgeKind::unpack(*word), EdgeKind::Shortcut | EdgeKind::EphemeronTable);
                if counts && target != node && (self.users.has(node) || !self.users.has(target)) {
                    held.set(target);
                }
            }
        }
        for cycles in [false, true] {
            for node in 0..nodes {
                if !self.seen.has(node) && (cycles || !held.has(node)) {
                    roots.push(self.parent.len() as u32);
                    self.enter_from_root(node, |_| {});
                }
            }
        }
        (roots, left)
    }
}

impl Order {
    fn relabel(&mut self, tables: &mut Tables, users_end: u32, late: Option<&Bits>) {
        let root = tables.root;
        for (ordinal, from) in (0_u32..).zip(&self.place) {
            let from = *from;
            let user = from < users_end || late.is_some_and(|late| late.has(ordinal));
            for edge in tables.starts[ordinal as usize] as usize..tables.starts[ordinal as usize + 1] as usize {
                let word = tables.to[edge];
                let node = word & TO;
                let target = self.place[node as usize];
                let kind = EdgeKind::unpack(word);
                let loose = target == from
                    || (ordinal != root
                        && (matches!(kind, EdgeKind::Shortcut | EdgeKind::EphemeronTable)
                            || (!user && (target < users_end || late.is_some_and(|late| late.has(node))))));
                let mut packed = kind.pack(target);
                if loose {
                    packed |= LOOSE;
                } else if from < target {
                    let lowest = &mut self.lowest[target as usize];
                    *lowest = from.min(*lowest);
                } else {
                    self.higher[target as usize] += 1;
                }
                tables.to[edge] = packed;
            }
        }
    }
}
