//! Immediate dominators: which node, if it went, would free which others.
//!
//! Semi-NCA (Georgiadis, Tarjan & Werneck, "Finding Dominators in Practice", 2006) over places, so that semidominators need only the
//! edges from higher places: those from lower ones gave `lowest` during the walk. The edges are gathered for a few slices of the targets
//! at a time, so that they need half as much memory as one array of places, however many they are. Iterative; O(edges × log nodes): the last step,
//! which can be quadratic on long chains in the published form, climbs by skew-binary jumps (Myers 1983) once it has climbed too far.
//!
//! Peak: 4 words a place beside the graph, and the sources of one slice (about half a word a place).

use super::order::Order;
use super::tables::{LOOSE, TO};
use crate::column::Column;

/// Slices of targets, at most: each costs one walk over all edges.
const MAX_SLICES: usize = 12;
/// Steps per node that the last step may climb one by one.
const PATIENCE: usize = 8;

/// The immediate dominator of each place; the root's is itself. Always lower than the place itself.
pub(crate) fn dominators(order: Order, starts: &[u32], to: &[u32]) -> (Vec<u32>, Vec<u32>) {
    let Order { place, parent, lowest, higher, .. } = order;
    // The last step needs the parents once more, in order; until then they are a column of about a byte each.
    let mut above = Column::<false>::new();
    for (node, parent) in (0_u32..).zip(&parent) {
        above.push(u64::from(node - parent));
    }
    let nodes = parent.len();
    let mut forest = Forest { ancestor: parent, label: higher, path: Vec::new() };
    let mut semi = lowest;
    let crossing: u64 = forest.label.iter().map(|count| u64::from(*count)).sum();
    let slices = (crossing as usize * 3 / nodes.max(1)).clamp(1, MAX_SLICES);
    let mut sources = Vec::new();
    let mut high = nodes;
    for slice in (0..slices).rev() {
        // Each slice has about the same number of edges.
        let mut edges = 0_u64;
        let share = crossing / slices as u64 + 1;
        let mut low = high;
        while low > 0 && (slice == 0 || edges < share) {
            low -= 1;
            edges += u64::from(forest.label[low]);
        }
        gather(&place, starts, to, low..high, &mut forest.label, &mut sources);
        // A label is where the sources of its node begin, until the node is handled; nodes above are, so theirs end there.
        let mut end = sources.len();
        for node in (low.max(1)..high).rev() {
            let mut lowest = semi[node];
            let begin = forest.label[node] as usize;
            for source in &sources[begin..end] {
                if lowest == 0 {
                    break;
                }
                lowest = lowest.min(forest.eval(*source, node as u32));
            }
            end = begin;
            semi[node] = lowest;
            forest.label[node] = lowest;
        }
        high = low;
    }
    drop(sources);
    let Forest { ancestor, label, .. } = forest;
    (climb(&above, &semi, ancestor, label), place)
}

/// Of the edges from higher places to those in `slice`: their sources, by target. `labels` has how many each target has, and
/// afterwards where they begin.
fn gather(
    place: &[u32],
    starts: &[u32],
    to: &[u32],
    slice: std::ops::Range<usize>,
    labels: &mut [u32],
    sources: &mut Vec<u32>,
) {
    let labels = &mut labels[slice.clone()];
    let mut sum = 0_u32;
    for label in &mut *labels {
        sum += *label;
        *label = sum;
    }
    sources.clear();
    sources.resize(sum as usize, 0);
    let low = slice.start as u32;
    for (from, range) in place.iter().zip(starts.windows(2)) {
        for word in &to[range[0] as usize..range[1] as usize] {
            let index = (word & TO).wrapping_sub(low);
            if index < labels.len() as u32 && word & LOOSE == 0 && *from > index + low {
                let slot = &mut labels[index as usize];
                *slot -= 1;
                sources[*slot as usize] = *from;
            }
        }
    }
}

struct Forest {
    ancestor: Vec<u32>,
    /// Of a place that was handled: the lowest semidominator on the way to its ancestor.
    label: Vec<u32>,
    path: Vec<u32>,
}

impl Forest {
    /// The lowest semidominator on the way from `place` up to, and without, the first place that is not above `linked`.
    #[inline]
    fn eval(&mut self, place: u32, linked: u32) -> u32 {
        let mut at = place;
        if self.ancestor[at as usize] <= linked {
            return self.label[at as usize];
        }
        self.path.clear();
        while self.ancestor[at as usize] > linked {
            self.path.push(at);
            at = self.ancestor[at as usize];
        }
        let mut lowest = self.label[at as usize];
        let top = self.ancestor[at as usize];
        while let Some(node) = self.path.pop() {
            let label = &mut self.label[node as usize];
            lowest = lowest.min(*label);
            *label = lowest;
            self.ancestor[node as usize] = top;
        }
        lowest
    }
}

/// From semidominators to dominators: of each node, the nearest dominator of its parent that is not above its semidominator.
/// `above` says how far below a node its parent is; `depth` and `jump` are room for two words a node, whatever is in them.
fn climb(above: &Column<false>, semi: &[u32], mut depth: Vec<u32>, mut jump: Vec<u32>) -> Vec<u32> {
    let nodes = semi.len();
    let mut dominator = std::mem::take(&mut depth);
    let mut patience = nodes.saturating_mul(PATIENCE) + 1000;
    let mut known = 0;
    for (node, above) in above.iter().enumerate() {
        let mut at = (node as u64 - above) as u32;
        while at > semi[node] && node > 0 {
            at = dominator[at as usize];
            patience = patience.saturating_sub(1);
        }
        dominator[node] = at;
        known = node + 1;
        if patience == 0 {
            break;
        }
    }
    if known == nodes {
        return dominator;
    }
    depth = vec![0; nodes];
    jump[0] = 0;
    for (node, above) in above.iter().enumerate().skip(1) {
        if node >= known {
            let mut at = (node as u64 - above) as u32;
            while at > semi[node] {
                at = if jump[at as usize] > semi[node] { jump[at as usize] } else { dominator[at as usize] };
            }
            dominator[node] = at;
        }
        let up = dominator[node] as usize;
        let (over, far) = (jump[up] as usize, jump[jump[up] as usize]);
        depth[node] = depth[up] + 1;
        let even = depth[up] - depth[over] == depth[over] - depth[far as usize];
        jump[node] = if even { far } else { up as u32 };
    }
    dominator
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::order;
    use super::super::tables::{EdgeKind, NodeKind, Tables};
    use super::*;

    /// A graph of plain nodes with the root 0.
    fn graph(nodes: u32, edges: &[(u32, u32)]) -> Tables {
        let mut tables = Tables { kinds: vec![NodeKind::Other], starts: vec![0], ..Tables::default() };
        let mut sorted = edges.to_vec();
        sorted.sort_by_key(|edge| edge.0);
        let mut rest = sorted.into_iter().peekable();
        for node in 0..nodes {
            tables.types.push(0);
            tables.names.push(0);
            tables.ids.push(u64::from(node));
            tables.sizes.push(1);
            while let Some(edge) = rest.next_if(|edge| edge.0 == node) {
                tables.to.push(EdgeKind::Property.pack(edge.1));
                tables.edge_names.push(0);
            }
            tables.starts.push(tables.to.len() as u32);
        }
        tables
    }

    /// The dominator of each node, by ordinal.
    fn found(nodes: u32, edges: &[(u32, u32)]) -> Vec<u32> {
        let mut tables = graph(nodes, edges);
        let order = order::walk(&mut tables);
        let (dominator, place) = dominators(order, &tables.starts, &tables.to);
        let mut node_at = vec![0; place.len()];
        for (node, place) in (0..).zip(&place) {
            node_at[*place as usize] = node;
        }
        place.iter().map(|place| node_at[dominator[*place as usize] as usize]).collect()
    }

    /// By definition: what cannot be reached without `d` is dominated by `d`.
    fn by_definition(nodes: u32, edges: &[(u32, u32)]) -> Vec<u32> {
        let without = |gone: u32| {
            let mut seen = vec![false; nodes as usize];
            let mut list = if gone == 0 { vec![] } else { vec![0] };
            while let Some(node) = list.pop() {
                if node != gone && !std::mem::replace(&mut seen[node as usize], true) {
                    list.extend(edges.iter().filter(|edge| edge.0 == node).map(|edge| edge.1));
                }
            }
            seen
        };
        let reachable = without(u32::MAX);
        let cut: Vec<Vec<bool>> = (0..nodes).map(without).collect();
        let dominates = |d: u32, node: u32| d == node || (reachable[node as usize] && !cut[d as usize][node as usize]);
        let immediate = |node: u32| {
            let strict: Vec<u32> = (0..nodes).filter(|d| *d != node && dominates(*d, node)).collect();
            strict.iter().copied().find(|d| strict.iter().all(|other| dominates(*other, *d))).unwrap_or(0)
        };
        (0..nodes).map(immediate).collect()
    }

    #[test]
    fn a_chain_of_ten_million_needs_no_stack() {
        const NODES: u32 = 10_000_000;
        let edges: Vec<(u32, u32)> = (1..NODES).map(|node| (node - 1, node)).collect();
        let dominator = found(NODES, &edges);
        assert!((1..NODES).all(|node| dominator[node as usize] == node - 1));
    }

    /// Leaves at the end of a chain that its beginning holds as well: the published last step climbs the chain for each.
    #[test]
    fn a_long_chain_with_many_leaves_is_not_quadratic() {
        const CHAIN: u32 = 300_000;
        let mut edges: Vec<(u32, u32)> = (1..CHAIN).map(|node| (node - 1, node)).collect();
        let leaves = CHAIN..2 * CHAIN;
        edges.extend(leaves.clone().flat_map(|leaf| [(CHAIN - 1, leaf), (1, leaf)]));
        let dominator = found(2 * CHAIN, &edges);
        assert!(leaves.clone().all(|leaf| dominator[leaf as usize] == 1));
    }

    #[test]
    fn a_clique_that_nothing_holds_is_held_by_the_root() {
        // 3 ↔ 4 are unreachable; 5 is below them; 6 is alone.
        assert_eq!(found(7, &[(0, 1), (1, 2), (3, 4), (4, 3), (4, 5)]), [0, 0, 1, 0, 3, 4, 0]);
    }

    #[test]
    fn a_complete_graph_is_dominated_by_its_entry() {
        let edges: Vec<(u32, u32)> =
            (1..40).flat_map(|a| (1..40).map(move |b| (a, b))).chain(std::iter::once((0, 7))).collect();
        let expected: Vec<u32> = (0..40).map(|node| if node == 0 || node == 7 { 0 } else { 7 }).collect();
        assert_eq!(found(40, &edges), expected);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(300))]
        #[test]
        fn dominators_are_what_the_definition_says(
            nodes in 1_u32..24,
            edges in proptest::collection::vec((0_u32..24, 0_u32..24), 0..60),
        ) {
            let mut edges: Vec<(u32, u32)> = edges.into_iter().map(|(a, b)| (a % nodes, b % nodes)).collect();
            edges.extend((1..nodes).filter(|node| node % 3 == 0).map(|node| (node / 2, node)));
            let mut reach = vec![false; nodes as usize];
            let mut list = vec![0];
            while let Some(node) = list.pop() {
                if !std::mem::replace(&mut reach[node as usize], true) {
                    list.extend(edges.iter().filter(|edge| edge.0 == node).map(|edge| edge.1));
                }
            }
            // What cannot be reached counts as held by the root, and so does what it leads to: that is another test.
            edges.retain(|edge| reach[edge.0 as usize]);
            let (expected, dominator) = (by_definition(nodes, &edges), found(nodes, &edges));
            for node in (0..nodes as usize).filter(|node| reach[*node]) {
                prop_assert_eq!(dominator[node], expected[node], "node {} of {:?}", node, edges);
            }
        }
    }
}
