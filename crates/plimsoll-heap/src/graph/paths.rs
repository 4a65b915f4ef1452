//! How the root reaches an object: the shortest way that a reader would take, and the same way as a name that survives restarts.
//!
//! Breadth first from the user's globals, at first past hidden classes and code (they lead everywhere and explain nothing), then over
//! everything, then from the runtime's own roots. One word a node, and the widest level; it stops when all that is asked for is found.

use std::borrow::Cow;
use std::collections::{HashMap, VecDeque};

use super::bits::Bits;
use super::tables::{EdgeKind, LOOSE, NodeKind, TO};
use super::{Edge, Graph, Node};

/// Steps of a path that are written out; the middle of a longer one is left out.
pub const MAX_STEPS: usize = 40;
/// Steps of a path that are kept, half of them at each end.
const MAX_WAY: usize = 512;
/// Steps that are walked to find a path; what is farther from the root counts as not reached.
const MAX_CLIMB: u32 = 2_000_000;
/// Characters of a name of a property in a path.
const MAX_NAME_CHARS: usize = 80;

const NONE: u32 = u32::MAX;

/// One step of a path: the edge, and what it leads to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    /// As it is written in a path: `.sessionCache`, `[3]`, `{table}`; of the first step the name of the root.
    pub words: String,
    /// The same without what differs from life to life: `[*]` for an index; empty for what only V8 knows of.
    pub key: String,
    /// What it leads to.
    pub to: Node,
    /// The edge's own kind and name, to find it in another snapshot.
    pub(crate) edge: (EdgeKind, String),
}

/// Shortest paths from the root to some nodes.
#[derive(Debug)]
pub struct Paths {
    /// Of each place: from which it was reached.
    from: Vec<u32>,
}

impl Paths {
    /// Finds a way to each of `wanted`.
    #[must_use]
    pub fn to(graph: &Graph, wanted: &[Node]) -> Paths {
        let mut search =
            Search { graph, from: vec![NONE; graph.node_count()], wanted: Bits::new(graph.node_count()), left: 0 };
        for node in wanted {
            search.left += usize::from(search.wanted.insert(node.0));
        }
        let root = Node(0);
        search.reach(0, 0);
        let (users, rest): (Vec<Edge>, Vec<Edge>) = graph
            .edges(root, false)
            .partition(|edge| super::own::is_user_root(&graph.tables, graph.ordinal_of(edge.to)));
        let mut dull = Vec::new();
        search.reach_from_root(&users, Some(&mut dull));
        search.all(dull, None);
        search.reach_from_root(&rest, None);
        Paths { from: search.from }
    }

    /// The places on the way, the root first; the node alone when nothing leads to it. Of a way longer than [`MAX_WAY`] both ends.
    fn places(&self, node: Node) -> Vec<Node> {
        let (mut end, mut begin) = (vec![node], VecDeque::new());
        let mut at = node.0;
        let mut climbed = 0;
        while at != 0 && self.from[at as usize] != NONE && climbed < MAX_CLIMB {
            at = self.from[at as usize];
            climbed += 1;
            if end.len() < MAX_WAY / 2 {
                end.push(Node(at));
            } else {
                begin.push_back(Node(at));
                if begin.len() > MAX_WAY / 2 {
                    begin.pop_front();
                }
            }
        }
        if at != 0 {
            return vec![node];
        }
        end.extend(begin);
        end.reverse();
        end
    }

    /// The steps to each of `nodes`, the first being the root that a reader knows.
    #[must_use]
    pub fn steps(&self, graph: &Graph, nodes: &[Node]) -> Vec<Vec<Step>> {
        let ways: Vec<Vec<Node>> = nodes.iter().map(|node| self.places(*node)).collect();
        let mut hops: HashMap<u32, HashMap<u32, Option<Edge>>> = HashMap::new();
        for way in &ways {
            for pair in way.windows(2) {
                hops.entry(pair[0].0).or_default().insert(pair[1].0, None);
            }
        }
        // A hub's edges are walked once, whatever is asked of it.
        for (from, targets) in &mut hops {
            for edge in graph.edges(Node(*from), false) {
                if let Some(found) = targets.get_mut(&edge.to.0) {
                    let better = found.as_ref().is_none_or(|old| rank(edge.kind) < rank(old.kind));
                    if better {
                        *found = Some(edge);
                    }
                }
            }
        }
        let edge_of =
            |from: Node, to: Node| hops.get(&from.0).and_then(|targets| targets.get(&to.0).copied().flatten());
        let of_way = |way: &Vec<Node>| {
            let pairs = way.windows(2).enumerate();
            pairs.map(|(index, pair)| step(graph, index, pair[0], pair[1], edge_of(pair[0], pair[1]))).collect()
        };
        ways.iter().map(of_way).collect()
    }
}

/// Names that people gave come before those of V8.
fn rank(kind: EdgeKind) -> u8 {
    match kind {
        EdgeKind::Property => 0,
        EdgeKind::Context => 1,
        EdgeKind::Element => 2,
        EdgeKind::Shortcut => 3,
        EdgeKind::Internal => 4,
        EdgeKind::Hidden | EdgeKind::EphemeronTable => 5,
    }
}

struct Search<'a> {
    graph: &'a Graph,
    from: Vec<u32>,
    wanted: Bits,
    /// How many of the wanted are not reached yet.
    left: usize,
}

impl Search<'_> {
    /// Whether it is reached for the first time.
    #[inline]
    fn reach(&mut self, node: u32, from: u32) -> bool {
        let new = self.from[node as usize] == NONE;
        if new {
            self.from[node as usize] = from;
            self.left -= usize::from(self.wanted.has(node));
        }
        new
    }

    fn reach_from_root(&mut self, edges: &[Edge], dull: Option<&mut Vec<u32>>) {
        let level = edges.iter().map(|edge| edge.to.0).filter(|node| self.reach(*node, 0)).collect();
        self.all(level, dull);
    }

    /// Level by level, until nothing is left. What is dull is collected when there is where to, else walked like everything.
    fn all(&mut self, mut level: Vec<u32>, mut dull: Option<&mut Vec<u32>>) {
        let (graph, mut next) = (self.graph, Vec::new());
        while !level.is_empty() && self.left > 0 {
            for node in &level {
                let ordinal = graph.ordinal[*node as usize];
                if let Some(dull) = dull.as_mut().filter(|_| is_dull(graph, ordinal)) {
                    dull.push(*node);
                    continue;
                }
                for word in &graph.tables.to[graph.tables.edges(ordinal)] {
                    if word & LOOSE == 0 && self.reach(word & TO, *node) {
                        next.push(word & TO);
                    }
                }
            }
            std::mem::swap(&mut level, &mut next);
            next.clear();
        }
    }
}

/// Hidden classes and code.
fn is_dull(graph: &Graph, ordinal: u32) -> bool {
    let kind = usize::from(graph.tables.types[ordinal as usize]);
    graph.tables.kinds[kind] == NodeKind::Code || graph.tables.type_names[kind] == "object shape"
}

/// The path of what nothing leads to.
const UNREACHED: &str = "(unreachable)";

/// How an edge is written.
fn step(graph: &Graph, index: usize, from: Node, to: Node, edge: Option<Edge>) -> Step {
    let Some(edge) = edge else {
        // The gap between the two ends of a long way.
        return Step { words: "…".into(), key: "…".into(), to, edge: (EdgeKind::Hidden, String::new()) };
    };
    let name = edge_name(graph, &edge);
    let is_number = !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_digit());
    let in_store = matches!(graph.kind(from), NodeKind::Array | NodeKind::Hidden);
    let (words, key) = match edge.kind {
        _ if index == 0 => {
            let root = root_name(graph, to);
            (root.clone(), root)
        }
        EdgeKind::Property | EdgeKind::Shortcut | EdgeKind::Context => (dotted(&name), dotted(&name)),
        EdgeKind::Element => (format!("[{name}]"), "[*]".into()),
        EdgeKind::Internal if is_number && in_store => (format!("[{name}]"), "[*]".into()),
        EdgeKind::Internal if name.contains(" pair in WeakMap ") => {
            ("{value in WeakMap}".into(), "{value in WeakMap}".into())
        }
        EdgeKind::Internal if graph.kind(from) == NodeKind::Closure && name == "context" => {
            ("(closure)".into(), "(closure)".into())
        }
        EdgeKind::Internal if SILENT.contains(&&*name) => (format!("{{{name}}}"), String::new()),
        EdgeKind::Internal if !is_number => (format!("{{{}}}", cut(&name)), format!("{{{}}}", cut(&name))),
        _ => (format!("{{{name}}}"), "{*}".into()),
    };
    Step { words, key, to, edge: (edge.kind, name.into_owned()) }
}

/// The name of an edge, or its index in digits.
pub(crate) fn edge_name<'a>(graph: &'a Graph, edge: &Edge) -> Cow<'a, str> {
    match edge.kind {
        EdgeKind::Element | EdgeKind::Hidden => Cow::Owned(edge.name.to_string()),
        _ => graph.tables.strings.get(edge.name),
    }
}

/// What a reader calls something that the root holds: of `global / file://…` its first word.
pub(crate) fn root_name(graph: &Graph, node: Node) -> String {
    cut(graph.name(node).split(" / ").next().unwrap_or_default())
}

/// Stores that V8 keeps an object's contents in: the object itself says enough.
const SILENT: [&str; 6] = ["table", "elements", "properties", "backing_store", "previous", "external_data"];

/// `.name`, or `["na me"]` where it is no identifier.
fn dotted(name: &str) -> String {
    let plain =
        name.chars().enumerate().all(|(at, c)| c == '_' || c == '$' || c.is_alphabetic() || (at > 0 && c.is_numeric()));
    if plain && !name.is_empty() { format!(".{}", cut(name)) } else { format!("[{:?}]", cut(name)) }
}

fn cut(name: &str) -> String {
    if name.chars().nth(MAX_NAME_CHARS).is_none() {
        return name.to_owned();
    }
    name.chars().take(MAX_NAME_CHARS).chain(['…']).collect()
}

/// The path as one name: `global.__app.tenants[*].cache → Map`; its middle left out beyond [`MAX_STEPS`].
#[must_use]
pub fn key(graph: &Graph, steps: &[Step], node: Node) -> String {
    let mut path = String::new();
    if steps.is_empty() {
        path.push_str(UNREACHED);
    }
    let left_out = steps.len().saturating_sub(MAX_STEPS);
    for (at, step) in steps.iter().enumerate() {
        if left_out > 0 && at == MAX_STEPS / 2 {
            path.push('…');
        }
        let is_left_out = left_out > 0 && (MAX_STEPS / 2..MAX_STEPS / 2 + left_out).contains(&at);
        // An index of an index: the table of a Map, the elements of an array of arrays in one store.
        if !(is_left_out || (step.key == "[*]" && path.ends_with("[*]"))) {
            path.push_str(&step.key);
        }
    }
    format!("{path} → {}", title(graph, node))
}

/// What a node is, in a word or two.
#[must_use]
pub fn title(graph: &Graph, node: Node) -> String {
    let name = graph.name(node);
    match graph.kind(node) {
        NodeKind::Object | NodeKind::Native | NodeKind::Synthetic => cut(&name),
        NodeKind::Closure if name.is_empty() => "anonymous function".into(),
        NodeKind::Closure => format!("{}()", cut(&name)),
        _ if name.is_empty() => format!("({})", graph.type_name(node)),
        NodeKind::Array | NodeKind::Hidden | NodeKind::Code => cut(&name),
        _ => format!("({})", graph.type_name(node)),
    }
}
