//! Reads V8's `.heapsnapshot`, from a stream, in one pass, into tables of about 0.45 bytes a byte of file.
//!
//! Node, Chrome, Electron and Deno write it; so do Bun, Hermes, Julia and others in their own ways. Field positions and counts come
//! from `snapshot.meta`: Node 20 has seven fields a node, Node 26 six. Sections that are not needed (traces, samples, scopes) are
//! stepped over. Weak edges are left out: they retain nothing. A file that ends early is an error with its offset, never a small heap.
//!
//! Bounds: 268 million nodes, 4.29 billion edges, 4 EiB of heap, a header of 1 MiB; memory grows with what was read, never with what the header claims.

mod header;
mod scan;

use std::collections::HashMap;
use std::io::{self, Read};

use crate::graph::Graph;
use crate::graph::tables::{EdgeKind, MAX_NODES, NodeKind, Tables};
use header::Header;
use scan::Scanner;

/// Bytes of the `snapshot` object that are read; more is an error.
pub const MAX_HEADER_BYTES: usize = 1 << 20;
/// Bytes of one key of the outer object.
const MAX_KEY_BYTES: usize = 1 << 10;
/// Bytes of one string; more is an error. V8 cuts names at 1,024 characters, others do not.
const MAX_STRING_BYTES: usize = 1 << 30;
/// Bytes of all objects in sum, so that no sum of them overflows.
const MAX_TOTAL_BYTES: u64 = 1 << 62;
/// Records that room is made for on the header's word alone.
const MAX_TRUSTED_RECORDS: u64 = 32 << 20;

/// Why a snapshot could not be read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum V8Error {
    /// The reader failed.
    #[error("cannot read after byte {offset}: {error}")]
    Io {
        /// Bytes read before.
        offset: u64,
        /// The reader's error.
        error: io::Error,
    },
    /// Not one byte. A writer that was killed leaves such files.
    #[error("the file is empty: the snapshot failed")]
    Empty,
    /// The file ends before the snapshot does: the writer was killed, or the disk was full.
    #[error("the file ends at byte {offset}, inside {part}: the snapshot was not finished")]
    Truncated {
        /// Which part.
        part: &'static str,
        /// Bytes of the file.
        offset: u64,
    },
    /// Bytes that are not the format.
    #[error("byte {offset}, in {part}: {what}")]
    Invalid {
        /// Which part.
        part: &'static str,
        /// What is wrong.
        what: &'static str,
        /// Where.
        offset: u64,
    },
    /// The header lacks what the rest cannot be read without.
    #[error("the header is not one of a heap snapshot: {0}")]
    Header(String),
}

/// What was read differently from what the file says.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Warning {
    /// The header counts other than what the file holds.
    #[error("the header says {said} {what}, the file has {found}")]
    Count {
        /// Nodes or edges.
        what: &'static str,
        /// By the header.
        said: u64,
        /// In the file.
        found: u64,
    },
    /// Edges that lead to no node; they are left out.
    #[error("{0} edges lead to no node and were left out")]
    BadEdges(u64),
    /// Edges beyond the sum of what the nodes claim; they are left out.
    #[error("{0} edges belong to no node and were left out")]
    SpareEdges(u64),
    /// Edges that the nodes claim and the file lacks.
    #[error("nodes claim {0} edges more than the file has")]
    MissingEdges(u64),
    /// Nodes that nothing reaches from the root; they count as held by the root.
    #[error("{0} nodes cannot be reached from the root and count as held by it")]
    Unreachable(u64),
    /// Something after the end.
    #[error("something follows the snapshot and was not read")]
    Trailing,
    /// Sections of another version of the format.
    #[error("section {0:?} is not known and was stepped over")]
    Section(String),
    /// More plain objects with a set of properties of their own than are told apart.
    #[error("{0} plain objects are shown as Object: too many kinds of them")]
    Interfaces(u64),
    /// Objects with ids from 2^36 on, in a comparison of two snapshots of one life.
    #[error(
        "{0} objects have ids from 2^36 on and are not compared one by one: in the sums, but neither new, gone nor grown"
    )]
    LargeIds(u64),
}

/// Reads a snapshot and computes what every question needs: sizes, dominators, retained sizes.
///
/// At the limit: memory is about 0.7 bytes a byte of file at its peak; a file beyond the bounds above is an error. `input` is read
/// in pieces of up to 1 MiB; no buffer is needed around it.
///
/// # Errors
///
/// [`V8Error`]: the reader's own, an empty or truncated file, or bytes that are not the format, with their offset.
///
/// # Examples
///
/// ```
/// use plimsoll_heap::parse::v8;
///
/// let file = br#"{"snapshot":{"meta":{"node_fields":["type","name","id","self_size","edge_count"],
///   "node_types":[["synthetic","object"]],"edge_fields":["type","name_or_index","to_node"],"edge_types":[["property"]]},
///   "node_count":2,"edge_count":1},
///   "nodes":[0,0,1,0,1, 1,1,3,40,0],"edges":[0,2,5],"strings":["","Session","cache"]}"#;
/// let (graph, warnings) = v8::read(file.as_slice())?;
/// assert_eq!((graph.node_count(), graph.total_bytes()), (2, 40));
/// assert!(warnings.is_empty());
/// assert!(matches!(v8::read(&file[..300]), Err(v8::V8Error::Truncated { .. })));
/// # Ok::<(), v8::V8Error>(())
/// ```
pub fn read(input: impl Read) -> Result<(Graph, Vec<Warning>), V8Error> {
    let (tables, mut warnings) = read_tables(input)?;
    let graph = Graph::build(tables, &mut warnings);
    Ok((graph, warnings))
}

/// Reads the tables alone.
pub(crate) fn read_tables(input: impl Read) -> Result<(Tables, Vec<Warning>), V8Error> {
    let mut scanner = Scanner::new(input);
    if scanner.peek()?.is_none() {
        return Err(V8Error::Empty);
    }
    let mut reading = Reading::default();
    scanner.expect(b'{', "expected an object")?;
    let mut key = Vec::new();
    loop {
        key.clear();
        scanner.raw_string(&mut key, MAX_KEY_BYTES)?;
        scanner.expect(b':', "expected a colon")?;
        reading.section(&key, &mut scanner)?;
        scanner.part = "the outer object";
        if !scanner.take(b',')? {
            scanner.expect(b'}', "expected a comma or the end")?;
            break;
        }
    }
    match scanner.peek_token() {
        Err(V8Error::Truncated { .. }) => {}
        Ok(_) => reading.warnings.push(Warning::Trailing),
        Err(error) => return Err(error),
    }
    reading.finish()
}

/// What was read so far.
#[derive(Default)]
struct Reading {
    header: Option<Header>,
    tables: Tables,
    warnings: Vec<Warning>,
    has_nodes: bool,
    has_edges: bool,
    has_strings: bool,
}

impl Reading {
    fn section<R: Read>(&mut self, key: &[u8], scanner: &mut Scanner<R>) -> Result<(), V8Error> {
        match key {
            b"snapshot" if self.header.is_none() => {
                scanner.part = "the header";
                let mut text = Vec::new();
                scanner.raw_value(&mut text, MAX_HEADER_BYTES)?;
                let header = Header::parse(&text)?;
                self.tables.kinds = header.node_types.iter().map(|name| NodeKind::of(name)).collect();
                self.tables.type_names.clone_from(&header.node_types);
                self.tables.root = header.root;
                self.header = Some(header);
                Ok(())
            }
            b"nodes" if !self.has_nodes => {
                scanner.part = "nodes";
                self.has_nodes = true;
                self.nodes(scanner)
            }
            b"edges" if !self.has_edges => {
                scanner.part = "edges";
                self.has_edges = true;
                self.edges(scanner)
            }
            b"strings" if !self.has_strings => {
                scanner.part = "strings";
                self.has_strings = true;
                self.strings(scanner)
            }
            b"locations" if self.has_nodes => {
                scanner.part = "locations";
                self.locations(scanner)
            }
            b"trace_function_infos"
            | b"trace_tree"
            | b"samples"
            | b"scopes"
            | b"scope_context_vars"
            | b"scope_uses" => {
                scanner.part = "traces, samples or scopes";
                scanner.skip_value()
            }
            _ => {
                scanner.part = "an unknown section";
                let name: String = String::from_utf8_lossy(key).chars().take(40).collect();
                self.warnings.push(Warning::Section(name));
                scanner.skip_value()
            }
        }
    }

    fn header<R: Read>(&self, scanner: &Scanner<R>) -> Result<Header, V8Error> {
        self.header.clone().ok_or_else(|| scanner.invalid("nodes before the header that explains them"))
    }

    fn nodes<R: Read>(&mut self, scanner: &mut Scanner<R>) -> Result<(), V8Error> {
        let header = self.header(scanner)?;
        let room = header.node_count.min(MAX_TRUSTED_RECORDS) as usize;
        self.tables.reserve_nodes(room);
        match header.node_stride {
            4 => self.nodes_of::<4, R>(scanner, &header),
            5 => self.nodes_of::<5, R>(scanner, &header),
            6 => self.nodes_of::<6, R>(scanner, &header),
            7 => self.nodes_of::<7, R>(scanner, &header),
            8 => self.nodes_of::<8, R>(scanner, &header),
            9 => self.nodes_of::<9, R>(scanner, &header),
            10 => self.nodes_of::<10, R>(scanner, &header),
            fields => Err(V8Error::Header(format!("{fields} fields a node, expected 4 to 10"))),
        }?;
        let found = self.tables.types.len() as u64;
        if found != header.node_count {
            self.warnings.push(Warning::Count { what: "nodes", said: header.node_count, found });
        }
        Ok(())
    }

    fn nodes_of<const N: usize, R: Read>(&mut self, scanner: &mut Scanner<R>, at: &Header) -> Result<(), V8Error> {
        let tables = &mut self.tables;
        let types = tables.kinds.len() as u64;
        let mut total_bytes = 0_u64;
        let [kind, name, id, size, edges] = at.node_positions;
        if [kind, name, id, size, edges].iter().any(|position| *position >= N) {
            return Err(V8Error::Header("a field beyond the fields".into()));
        }
        // What is not wanted is 0 nearly always.
        let short = !(1 << name | 1 << id | 1 << size);
        scanner.records::<N>(short, |record| {
            if record[kind] >= types {
                return Err("a type of node that the header does not name");
            }
            if tables.types.len() >= MAX_NODES {
                return Err("more nodes than are read");
            }
            total_bytes = total_bytes.saturating_add(record[size]);
            if total_bytes > MAX_TOTAL_BYTES {
                return Err("sizes beyond any memory");
            }
            let Ok(count) = u32::try_from(record[edges]) else { return Err("more edges of one node than are read") };
            tables.types.push(record[kind] as u8);
            tables.names.push(record[name]);
            tables.ids.push(record[id]);
            tables.sizes.push(record[size]);
            tables.starts.push(count);
            Ok(())
        })
    }

    fn edges<R: Read>(&mut self, scanner: &mut Scanner<R>) -> Result<(), V8Error> {
        if !self.has_nodes {
            return Err(scanner.invalid("edges before the nodes that they belong to"));
        }
        let header = self.header(scanner)?;
        let room = header.edge_count.min(MAX_TRUSTED_RECORDS) as usize;
        self.tables.to.reserve(room);
        let found = match header.edge_stride {
            3 => self.edges_of::<3, R>(scanner, &header),
            4 => self.edges_of::<4, R>(scanner, &header),
            5 => self.edges_of::<5, R>(scanner, &header),
            fields => Err(V8Error::Header(format!("{fields} fields an edge, expected 3 to 5"))),
        }?;
        if found != header.edge_count {
            self.warnings.push(Warning::Count { what: "edges", said: header.edge_count, found });
        }
        Ok(())
    }

    /// Keeps every edge but the weak ones, and turns the nodes' counts into where the edges of each begin.
    fn edges_of<const N: usize, R: Read>(&mut self, scanner: &mut Scanner<R>, at: &Header) -> Result<u64, V8Error> {
        let Tables { starts, to, edge_names, .. } = &mut self.tables;
        let [kind, name, target] = at.edge_positions;
        if [kind, name, target].iter().any(|position| *position >= N) {
            return Err(V8Error::Header("a field beyond the fields".into()));
        }
        // Of each type of the file: what it is here; `None` for weak.
        let mut kinds = [None; 256];
        for (index, word) in at.edge_types.iter().take(kinds.len()).enumerate() {
            kinds[index] = EdgeKind::of(word);
        }
        let types = at.edge_types.len().min(kinds.len()) as u64;
        let nodes = starts.len() as u64;
        let stride = at.node_stride as u64;
        // Exact for what is below 2^60: the next multiple of 2^64 / stride.
        let inverse = u128::from(u64::MAX / stride + 1);
        let (mut found, mut bad, mut spare) = (0_u64, 0_u64, 0_u64);
        let mut node = 0_usize;
        let mut left = starts.first().copied().unwrap_or(0);
        if let Some(first) = starts.first_mut() {
            *first = 0;
        }
        let short = !(1 << name | 1 << target);
        scanner.records::<N>(short, |record| {
            found += 1;
            while left == 0 && node < starts.len() {
                node += 1;
                if let Some(start) = starts.get_mut(node) {
                    left = *start;
                    *start = to.len() as u32;
                }
            }
            if node >= starts.len() {
                spare += 1;
                return Ok(());
            }
            left -= 1;
            if record[kind] >= types {
                return Err("a type of edge that the header does not name");
            }
            let Some(kind) = kinds[(record[kind] & 0xff) as usize] else { return Ok(()) };
            let ordinal =
                if stride == 1 { record[target] } else { ((u128::from(record[target]) * inverse) >> 64) as u64 };
            if ordinal >= nodes || ordinal * stride != record[target] {
                bad += 1;
                return Ok(());
            }
            if to.len() >= u32::MAX as usize {
                return Err("more edges than are read");
            }
            to.push(kind.pack(ordinal as u32));
            edge_names.push(record[name]);
            Ok(())
        })?;
        let mut missing = u64::from(left);
        for start in starts.iter_mut().skip(node + 1) {
            missing += u64::from(*start);
            *start = to.len() as u32;
        }
        starts.push(to.len() as u32);
        let notes = [
            (bad, Warning::BadEdges(bad)),
            (spare, Warning::SpareEdges(spare)),
            (missing, Warning::MissingEdges(missing)),
        ];
        self.warnings.extend(notes.into_iter().filter(|(count, _)| *count > 0).map(|(_, warning)| warning));
        Ok(found)
    }

    fn locations<R: Read>(&mut self, scanner: &mut Scanner<R>) -> Result<(), V8Error> {
        let header = self.header(scanner)?;
        let Some([object, script, line, column]) = header.location_positions else { return scanner.skip_value() };
        let stride = header.node_stride as u64;
        let Tables { types, kinds, places, place_of, .. } = &mut self.tables;
        let mut known: HashMap<[u64; 3], u32> = HashMap::new();
        let mut latest = ([u64::MAX; 3], 0);
        scanner.records::<4>(0, |record| {
            let ordinal = record[object] / stride;
            let place = [record[script], record[line], record[column]];
            let kind = types.get(ordinal as usize).and_then(|kind| kinds.get(usize::from(*kind)));
            if kind != Some(&NodeKind::Object) {
                return Ok(());
            }
            if latest.0 != place {
                let next = places.len() as u32;
                let index = *known.entry(place).or_insert(next);
                if index == next {
                    places.push(place);
                }
                latest = (place, index);
            }
            place_of.push((ordinal as u32, latest.1));
            Ok(())
        })?;
        if !place_of.is_sorted_by_key(|(ordinal, _)| *ordinal) {
            place_of.sort_by_key(|(ordinal, _)| *ordinal);
        }
        Ok(())
    }

    fn strings<R: Read>(&mut self, scanner: &mut Scanner<R>) -> Result<(), V8Error> {
        scanner.expect(b'[', "expected an array")?;
        if scanner.take(b']')? {
            return Ok(());
        }
        loop {
            scanner.raw_string(self.tables.strings.arena(), MAX_STRING_BYTES)?;
            self.tables.strings.end_of_string();
            if !scanner.take(b',')? {
                return scanner.expect(b']', "expected a comma or the end of the strings");
            }
        }
    }

    fn finish(mut self) -> Result<(Tables, Vec<Warning>), V8Error> {
        let missing = match (&self.header, self.has_nodes, self.has_edges, self.has_strings) {
            (None, ..) => "no `snapshot`",
            (_, false, ..) => "no `nodes`",
            (_, _, false, _) => "no `edges`",
            (_, _, _, false) => "no `strings`",
            _ if self.tables.types.is_empty() => "no nodes at all",
            _ if self.tables.root as usize >= self.tables.types.len() => "a root that is no node",
            _ => {
                self.tables.shrink();
                return Ok((self.tables, self.warnings));
            }
        };
        Err(V8Error::Header(missing.into()))
    }
}

#[cfg(test)]
mod tests;
