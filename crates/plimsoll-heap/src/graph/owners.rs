//! Who holds the heap: a few hundred objects that everything else hangs from, each with its own share.
//!
//! An owner is where the dominator tree fans out: what hangs below it in small pieces is at least a thousandth of the heap. (Eclipse
//! MAT calls that an accumulation point.) Backing stores give way to their objects. Every byte of the heap belongs to the nearest
//! owner above it and to no other, so shares may be summed, which retained sizes must never be. Owners with one path
//! (`global.tenants[*].cache → Map`) are one row.

use std::collections::HashMap;

use super::paths::{self, Paths, Step};
use super::tables::NodeKind;
use super::{Graph, Node};

/// Owners that are looked for; the largest are kept.
pub const MAX_OWNERS: usize = 1000;
/// An owner holds one part in so many of the heap, at least.
pub const LEAST_SHARE: u64 = 1000;
/// Bytes that an owner holds, at least.
pub const LEAST_BYTES: u64 = 16 << 10;
/// Nodes between two links of a chain, at most.
const PERIOD: usize = 8;
/// Owners that are looked at before the largest are chosen.
const MAX_CANDIDATES: usize = 100_000;
/// The name of what belongs to no owner.
pub const REST: &str = "(everything else)";

/// A share of the heap.
#[derive(Clone, Debug)]
pub struct Share {
    /// Who holds it; `None` for what no owner holds.
    pub node: Option<Node>,
    /// Bytes below it and below no other owner.
    pub bytes: u64,
    /// Objects, likewise; those of no bytes are not counted.
    pub objects: u64,
}

/// An owner by its path, with all owners of the same path.
#[derive(Clone, Debug)]
pub struct Owner {
    /// `global.__app.sessionCache → Map`: the same in every life of the program.
    pub key: String,
    /// How the largest of them is reached.
    pub steps: Vec<Step>,
    /// The largest of them; `None` for [`REST`].
    pub node: Option<Node>,
    /// How many they are.
    pub owners: u64,
    /// Their shares in sum.
    pub bytes: u64,
    /// Objects in these shares.
    pub objects: u64,
    /// What retains most in the largest share, retained by itself.
    pub retained_bytes: u64,
}

/// What an owner of a heap of so many bytes holds, at least.
#[must_use]
pub fn least_bytes(total_bytes: u64) -> u64 {
    (total_bytes / LEAST_SHARE).max(LEAST_BYTES)
}

/// The owners of a heap that hold `least` bytes each, the largest first.
#[must_use]
pub fn find(graph: &Graph, least: u64) -> Vec<Node> {
    // Every dominator of a big node is big, so these are a tree of their own. Parents come before their children.
    let nodes = graph.node_count() as u32;
    let big: Vec<u32> = (0..nodes).filter(|node| graph.retained_bytes(Node(*node)) >= least).collect();
    let up: Vec<u32> =
        big.iter().map(|node| big.binary_search(&graph.dominator(Node(*node)).0).unwrap_or(0) as u32).collect();
    // What hangs below each in small pieces; too little goes to the one above, so that a chain of small things adds up.
    let mut own: Vec<u64> = big.iter().map(|node| graph.retained_bytes(Node(*node))).collect();
    for index in (1..big.len()).rev() {
        let retained = graph.retained_bytes(Node(big[index]));
        let above = &mut own[up[index] as usize];
        *above = above.saturating_sub(retained);
    }
    let heads = heads(graph, &big, &up);
    let mut found: HashMap<Node, u64> = HashMap::new();
    for index in (1..big.len()).rev() {
        let share = own[index];
        if share < least {
            own[up[index] as usize] += share;
        } else if found.len() < MAX_CANDIDATES {
            let object = lift(graph, &big, &up, index);
            *found.entry(Node(big[heads[object] as usize])).or_default() += share;
        }
    }
    let mut owners: Vec<(Node, u64)> = found.into_iter().collect();
    owners.sort_unstable_by_key(|(node, share)| (std::cmp::Reverse(*share), *node));
    owners.truncate(MAX_OWNERS);
    owners.into_iter().map(|(node, _)| node).collect()
}

/// Of a backing store the object that it is of, unless only the runtime holds it.
fn lift(graph: &Graph, big: &[u32], up: &[u32], mut index: usize) -> usize {
    while matches!(graph.kind(Node(big[index])), NodeKind::Array | NodeKind::Hidden) {
        let above = up[index] as usize;
        if above == 0 || graph.kind(Node(big[above])) == NodeKind::Synthetic {
            break;
        }
        index = above;
    }
    index
}

/// Of each big node the first of its chain: where `Link` holds `Link` holds `Link`, or a promise the next one through up to [`PERIOD`]
/// others, the first says more than the last.
fn heads(graph: &Graph, big: &[u32], up: &[u32]) -> Vec<u32> {
    let what: Vec<u64> = big
        .iter()
        .map(|node| {
            let ordinal = graph.ordinal_of(Node(*node)) as usize;
            graph.tables.names.get(ordinal) << 8 | u64::from(graph.tables.types[ordinal])
        })
        .collect();
    let mut heads: Vec<u32> = Vec::with_capacity(big.len());
    for index in 0..big.len() {
        let mut head = index as u32;
        let mut at = index;
        for _ in 0..PERIOD {
            at = up[at] as usize;
            if at == 0 {
                break;
            }
            if what[at] == what[index] {
                head = heads[at];
                break;
            }
        }
        heads.push(head);
    }
    heads
}

/// Divides the heap among `owners`; the last share is what none of them holds.
#[must_use]
pub fn divide(graph: &Graph, owners: &[Node]) -> Vec<Share> {
    let rest = owners.len().min(usize::from(u16::MAX)) as u16;
    let mut shares: Vec<Share> =
        owners.iter().take(usize::from(rest)).map(|node| Share { node: Some(*node), bytes: 0, objects: 0 }).collect();
    shares.push(Share { node: None, bytes: 0, objects: 0 });
    let mut of = vec![rest; graph.node_count()];
    for (owner, index) in owners.iter().zip(0..rest) {
        of[owner.0 as usize] = index;
    }
    for (node, dominator) in graph.dominators().enumerate() {
        if of[node] == rest {
            of[node] = of[dominator as usize];
        }
    }
    for (place, bytes) in graph.places().zip(graph.shallow.iter()).filter(|(_, bytes)| *bytes > 0) {
        let share = &mut shares[usize::from(of[place as usize])];
        share.bytes += bytes;
        share.objects += 1;
    }
    shares
}

/// Names the shares and joins those of one path; the largest first, what no owner holds at the end.
#[must_use]
pub fn name(graph: &Graph, shares: &[Share]) -> Vec<Owner> {
    let nodes: Vec<Node> = shares.iter().filter_map(|share| share.node).collect();
    let paths = Paths::to(graph, &nodes);
    let mut steps = paths.steps(graph, &nodes).into_iter();
    let mut index: HashMap<String, usize> = HashMap::new();
    let mut named: Vec<Owner> = Vec::new();
    let mut by_size: Vec<(&Share, Vec<Step>)> =
        shares.iter().map(|share| (share, share.node.and_then(|_| steps.next()).unwrap_or_default())).collect();
    by_size.sort_by_key(|(share, _)| (share.node.is_none(), std::cmp::Reverse(share.bytes)));
    for (share, steps) in by_size {
        let key = share.node.map_or_else(|| REST.to_owned(), |node| paths::key(graph, &steps, node));
        let at = *index.entry(key.clone()).or_insert(named.len());
        if at == named.len() {
            let retained_bytes = share.node.map_or(0, |node| graph.retained_bytes(node));
            named.push(Owner { key, steps, node: share.node, owners: 0, bytes: 0, objects: 0, retained_bytes });
        }
        named[at].owners += u64::from(share.node.is_some());
        named[at].bytes += share.bytes;
        named[at].objects += share.objects;
    }
    named.sort_by_key(|owner| (owner.node.is_none(), std::cmp::Reverse(owner.bytes)));
    named
}

#[cfg(test)]
mod tests {
    use std::fmt::Write as _;

    use super::*;
    use crate::parse::v8;

    /// `global.chain` holds a list of 40-byte links, each third of another class when `mixed`.
    fn chain(links: usize, mixed: bool) -> String {
        let mut text = format!(
            "{{\"snapshot\":{{\"meta\":{{\"node_fields\":[\"type\",\"name\",\"id\",\"self_size\",\"edge_count\"],\
             \"node_types\":[[\"synthetic\",\"object\"]],\"edge_fields\":[\"type\",\"name_or_index\",\"to_node\"],\
             \"edge_types\":[[\"property\",\"shortcut\"]]}},\"node_count\":{0},\"edge_count\":{1}}},\"nodes\":[0,0,1,0,1,1,1,3,0,1",
            links + 2,
            links + 1
        );
        for link in 0..links {
            let name = if mixed && link % 3 == 1 { 5 } else { 2 };
            write!(text, ",1,{name},{},40,{}", 2 * link + 5, u8::from(link + 1 < links)).expect("a string");
        }
        text.push_str("],\"edges\":[1,4,5,0,3,10");
        for link in 1..links {
            write!(text, ",0,4,{}", 5 * (link + 2)).expect("a string");
        }
        text.push_str("],\"strings\":[\"\",\"global\",\"Link\",\"chain\",\"next\",\"Other\"]}");
        text
    }

    #[test]
    fn a_long_list_is_held_by_its_first_link() {
        for (links, mixed) in [(3000, false), (3000, true), (300_000, false)] {
            let text = chain(links, mixed);
            let (graph, warnings) = v8::read(text.as_bytes()).expect("a snapshot");
            assert_eq!(warnings, []);
            let shares = divide(&graph, &find(&graph, least_bytes(graph.total_bytes())));
            let named = name(&graph, &shares);
            // Each class of a mixed chain has a first of its own, no deeper than the second link.
            let firsts = ["global.chain → Link", "global.chain.next → Other"];
            let held = named.iter().filter(|owner| firsts.contains(&&*owner.key)).map(|owner| owner.bytes);
            let held = held.fold(0, u64::saturating_add);
            assert!(held * 1000 >= graph.total_bytes() * 998, "{held} of {}", graph.total_bytes());
            assert!(mixed || named[0].key == firsts[0], "{}", named[0].key);
        }
    }
}
