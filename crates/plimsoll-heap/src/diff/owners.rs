//! Owners of two snapshots beside each other: each owner of the newer one is sought in the older one, by its id within one life, along
//! its path otherwise, so that both are divided among the same objects however small they were. The other way round there is nothing
//! to seek in: an owner of the older snapshot that fell below the least share counts as gone, and what is left of it to the one above.

use std::collections::{HashMap, HashSet};

use super::{Amount, OwnerDiff};
use crate::graph::owners::{self, REST, Share};
use crate::graph::paths::{self, Paths, Step};
use crate::graph::{Graph, Node};

/// One owner, named.
struct Named {
    key: String,
    steps: Vec<Step>,
    id: u64,
    share: Amount,
}

/// The owners of one snapshot; the last is what none of them holds.
pub(super) struct OwnerSide {
    owners: Vec<Named>,
    total_bytes: u64,
    /// Of the newer snapshot's owners: those that were found in the older one. Empty on the newer side.
    found: HashSet<usize>,
}

impl OwnerSide {
    /// Of the newer snapshot: its own owners.
    pub(super) fn newer(graph: &Graph) -> OwnerSide {
        let nodes = owners::find(graph, owners::least_bytes(graph.total_bytes()));
        OwnerSide::named(graph, &nodes, &HashMap::new(), HashSet::new())
    }

    /// Of the older one: the newer one's as far as they are there, and those that hold as much as an owner there must.
    pub(super) fn older(graph: &Graph, newer: &OwnerSide, by_id: bool) -> OwnerSide {
        let sought = if by_id { newer.by_id(graph) } else { newer.by_path(graph) };
        let keys: HashMap<Node, &str> =
            sought.iter().map(|(index, node)| (*node, newer.owners[*index].key.as_str())).collect();
        let mut nodes: Vec<Node> = sought.iter().map(|(_, node)| *node).collect();
        let total = graph.total_bytes().max(newer.total_bytes);
        nodes.extend(
            owners::find(graph, owners::least_bytes(total)).into_iter().filter(|node| !keys.contains_key(node)),
        );
        let mut seen = HashSet::new();
        nodes.retain(|node| seen.insert(*node));
        OwnerSide::named(graph, &nodes, &keys, sought.iter().map(|(index, _)| *index).collect())
    }

    fn named(graph: &Graph, nodes: &[Node], keys: &HashMap<Node, &str>, found: HashSet<usize>) -> OwnerSide {
        let shares = owners::divide(graph, nodes);
        let to_name: Vec<Node> = nodes.iter().copied().filter(|node| !keys.contains_key(node)).collect();
        let mut steps = Paths::to(graph, &to_name).steps(graph, &to_name).into_iter();
        let name = |share: &Share| {
            let amount = Amount { count: share.objects, bytes: share.bytes };
            let Some(node) = share.node else {
                return Named { key: REST.into(), steps: Vec::new(), id: 0, share: amount };
            };
            let id = graph.id(node);
            if let Some(key) = keys.get(&node) {
                return Named { key: (*key).to_owned(), steps: Vec::new(), id, share: amount };
            }
            let steps = steps.next().unwrap_or_default();
            Named { key: paths::key(graph, &steps, node), steps, id, share: amount }
        };
        OwnerSide { owners: shares.iter().map(name).collect(), total_bytes: graph.total_bytes(), found }
    }

    /// The same objects in the older snapshot of the same life.
    fn by_id(&self, older: &Graph) -> Vec<(usize, Node)> {
        let wanted: HashMap<u64, usize> = self
            .owners
            .iter()
            .enumerate()
            .filter(|(_, owner)| owner.id != 0)
            .map(|(index, owner)| (owner.id, index))
            .collect();
        older.find_ids(&wanted)
    }

    /// What stands at the same paths in a snapshot of another life.
    fn by_path(&self, older: &Graph) -> Vec<(usize, Node)> {
        let mut at: HashMap<Node, Vec<usize>> = HashMap::new();
        let with_path = self.owners.iter().enumerate().filter(|(_, owner)| !owner.steps.is_empty());
        at.insert(older.root(), with_path.map(|(index, _)| index).collect());
        let mut found = Vec::new();
        let mut depth = 0;
        // All paths at once, a step a round, so that a hub's edges are walked once a round.
        while !at.is_empty() {
            let mut next: HashMap<Node, Vec<usize>> = HashMap::new();
            for (node, indices) in at {
                // By name: those that seek it, each with its kind of edge.
                let mut wanted: HashMap<&str, Vec<usize>> = HashMap::new();
                for index in indices {
                    let step = &self.owners[index].steps[depth];
                    wanted.entry(if depth == 0 { &step.words } else { &step.edge.1 }).or_default().push(index);
                }
                for edge in older.edges(node, false) {
                    let name = if depth == 0 {
                        paths::root_name(older, edge.to).into()
                    } else {
                        paths::edge_name(older, &edge)
                    };
                    let Some(seekers) = wanted.get_mut(&*name) else { continue };
                    seekers.retain(|index| {
                        let steps = &self.owners[*index].steps;
                        if depth > 0 && steps[depth].edge.0 != edge.kind {
                            return true;
                        }
                        if steps.len() == depth + 1 {
                            found.push((*index, edge.to));
                        } else {
                            next.entry(edge.to).or_default().push(*index);
                        }
                        false
                    });
                }
            }
            at = next;
            depth += 1;
        }
        let mut taken = HashSet::new();
        found.retain(|(_, node)| taken.insert(*node));
        found
    }
}

/// Both sides by key: the largest growth first, the largest loss last.
pub(super) fn compare(before: &OwnerSide, after: &OwnerSide, by_id: bool) -> Vec<OwnerDiff> {
    let mut index: HashMap<&str, usize> = HashMap::new();
    let mut rows: Vec<OwnerDiff> = Vec::new();
    // How many owners of each row there are on either side, and the share of the largest, which stands for all.
    let mut largest: Vec<(u64, u64, u64)> = Vec::new();
    let sides = [(after, true), (before, false)];
    for (side, is_after) in sides {
        for (number, owner) in side.owners.iter().enumerate() {
            let at = *index.entry(&owner.key).or_insert(rows.len());
            if at == rows.len() {
                let nothing = Amount::default();
                let (key, steps, id) = (owner.key.clone(), owner.steps.clone(), owner.id);
                rows.push(OwnerDiff { key, steps, id, owners: 0, before: nothing, after: nothing, survived: None });
                largest.push((0, 0, 0));
            }
            let (row, largest) = (&mut rows[at], &mut largest[at]);
            if is_after {
                row.after.join(owner.share);
                largest.0 += u64::from(owner.id != 0);
                if by_id && owner.id != 0 {
                    row.survived = Some(row.survived.unwrap_or(true) && before.found.contains(&number));
                }
                if owner.share.bytes >= largest.2 {
                    largest.2 = owner.share.bytes;
                    (row.steps, row.id) = (owner.steps.clone(), owner.id);
                }
            } else {
                row.before.join(owner.share);
                largest.1 += u64::from(owner.id != 0);
            }
        }
    }
    for (row, largest) in rows.iter_mut().zip(&largest) {
        row.owners = largest.0.max(largest.1);
    }
    rows.retain(|row| row.before != row.after || row.before.bytes > 0);
    rows.sort_by_key(|row| (std::cmp::Reverse(row.delta_bytes()), row.key.clone()));
    rows
}
