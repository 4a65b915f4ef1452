//! What people call the objects of a heap: the class of each node.
//!
//! After DevTools: an object's constructor, told apart by where it is defined; `Function`, `RegExp`, `(string)`, `(array)` and so on for
//! the rest; a plain `Object` by the properties it has, `{id, user, cart}`, when at least two objects and one in a thousand have them,
//! at most 120 characters of them. The kinds of plain objects of the newer snapshot are used for the older one too.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};
use std::sync::Arc;

use super::tables::{EdgeKind, LOOSE, NodeKind};
use super::{Graph, Node};
use crate::parse::v8::Warning;
use crate::profile::cut;

/// Characters of a name made of properties; one more property than fits is left out.
const MAX_INTERFACE_CHARS: usize = 120;
/// An interface is shared by this many objects, at least.
const MIN_OBJECTS: u64 = 2;
/// One object in so many has it, at least.
const MIN_OBJECTS_IN: u64 = 1000;
/// Properties of one object that are looked at.
const MAX_PROPERTIES: usize = 256;
/// The longest name of a class; what is longer is cut.
const NAME_BYTES_MAX: usize = 4 << 10;
/// Different lists of properties that are told apart.
const MAX_SHAPES: usize = 1 << 16;

/// A class.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Class {
    /// Its name: `Session`, `(string)`, `{id, user, cart}`; at most 4 KiB of it. Shared by all classes that are called so.
    pub name: Arc<str>,
    /// Script, line and column of its definition, where the file has them.
    pub place: Option<[u64; 3]>,
}

/// All classes that were met, in one snapshot or two; a class is its index.
#[derive(Clone, Debug, Default)]
pub struct Classes {
    known: Vec<Class>,
    /// Each name once, with its number.
    names: HashMap<Arc<str>, u32>,
    index: HashMap<(u32, Option<[u64; 3]>), u32>,
}

impl Classes {
    /// The class of an index that a graph gave.
    pub(crate) fn get(&self, class: u32) -> &Class {
        &self.known[class as usize]
    }

    pub(crate) fn len(&self) -> usize {
        self.known.len()
    }

    fn of(&mut self, name: &str, place: Option<[u64; 3]>) -> u32 {
        let name = cut(name, NAME_BYTES_MAX);
        let (name, number) = match self.names.get_key_value(name) {
            Some((name, number)) => (Arc::clone(name), *number),
            None => {
                let (name, number) = (Arc::<str>::from(name), self.names.len() as u32);
                self.names.insert(Arc::clone(&name), number);
                (name, number)
            }
        };
        *self.index.entry((number, place)).or_insert_with(|| {
            self.known.push(Class { name, place });
            self.known.len() as u32 - 1
        })
    }
}

/// Kinds of plain objects, by their properties.
#[derive(Clone, Debug, Default)]
pub struct Interfaces {
    /// Name and properties, the most frequent first.
    known: Vec<(String, Vec<String>)>,
}

/// Hashes small integers by one multiplication.
#[derive(Default)]
pub(crate) struct NumberHasher(u64);

impl Hasher for NumberHasher {
    fn finish(&self) -> u64 {
        self.0 ^ (self.0 >> 29)
    }
    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.write_u64(u64::from(*byte));
        }
    }
    fn write_u32(&mut self, number: u32) {
        self.write_u64(u64::from(number));
    }
    fn write_u64(&mut self, number: u64) {
        self.0 = (self.0.rotate_left(5) ^ number).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    }
    fn write_usize(&mut self, number: usize) {
        self.write_u64(number as u64);
    }
}

pub(crate) type NumberMap<K, V> = HashMap<K, V, BuildHasherDefault<NumberHasher>>;

/// Lists of names of properties, numbered as they are met, each once; at most [`MAX_SHAPES`].
///
/// Not a map of lists: those hash by bytes and compare by vectors, and wait for the list that was written a moment before.
#[derive(Default)]
struct Shapes {
    /// By hash: the number of the latest list.
    latest: NumberMap<u64, u32>,
    /// By number: the list, and the number of the one of the same hash before it.
    lists: Vec<(Box<[u32]>, Option<u32>)>,
}

impl Shapes {
    /// The number of a list, and whether it is new; `None` when it is new and there are too many.
    #[inline]
    fn number(&mut self, list: &[u32]) -> Option<(usize, bool)> {
        let mut hasher = NumberHasher::default();
        list.iter().for_each(|name| hasher.write_u32(*name));
        let latest = self.latest.get(&hasher.finish()).copied();
        let mut at = latest;
        while let Some(number) = at {
            let (known, before) = &self.lists[number as usize];
            if known.len() == list.len() && known.iter().zip(list).all(|(a, b)| a == b) {
                return Some((number as usize, false));
            }
            at = *before;
        }
        let number = self.lists.len();
        if number >= MAX_SHAPES {
            return None;
        }
        self.lists.push((list.into(), latest));
        self.latest.insert(hasher.finish(), number as u32);
        Some((number, true))
    }
}

/// Every plain object's properties, in one walk over all edges. `see` gets the ordinal, the name and the properties' names in order.
fn each_node(graph: &Graph, mut see: impl FnMut(u32, u64, Option<&[u32]>)) {
    let tables = &graph.tables;
    let plain = tables.strings.find("Object");
    let mut edge_names = tables.edge_names.iter();
    let mut properties = Vec::new();
    for ((ordinal, name), range) in (0_u32..).zip(tables.names.iter()).zip(tables.starts.windows(2)) {
        let words = &tables.to[range[0] as usize..range[1] as usize];
        if Some(name) == plain && tables.kind(ordinal) == NodeKind::Object {
            properties.clear();
            for (word, name) in words.iter().zip(edge_names.by_ref()) {
                if EdgeKind::unpack(*word & !LOOSE) == EdgeKind::Property && properties.len() < MAX_PROPERTIES {
                    properties.push(u32::try_from(name).unwrap_or(u32::MAX));
                }
            }
            see(ordinal, name, Some(&properties));
        } else {
            edge_names.skip_values(words.len());
            see(ordinal, name, None);
        }
    }
}

impl Interfaces {
    /// The kinds of plain objects of one snapshot.
    #[must_use]
    pub fn infer(graph: &Graph, warnings: &mut Vec<Warning>) -> Interfaces {
        let proto = graph.tables.strings.find("__proto__").and_then(|index| u32::try_from(index).ok());
        let (mut shapes, mut counts) = (Shapes::default(), Vec::<u64>::new());
        let (mut objects, mut beyond) = (0_u64, 0_u64);
        let mut list = Vec::new();
        each_node(graph, |_, _, properties| {
            let Some(properties) = properties else { return };
            objects += 1;
            list.clear();
            list.extend(properties.iter().copied().filter(|name| Some(*name) != proto));
            match shapes.number(&list) {
                Some((_, true)) => counts.push(1),
                Some((number, false)) => counts[number] += 1,
                None => beyond += 1,
            }
        });
        if beyond > objects / MIN_OBJECTS_IN {
            warnings.push(Warning::Interfaces(beyond));
        }
        // Lists that differ only beyond the 120 characters are one.
        let mut names: HashMap<String, usize> = HashMap::new();
        let mut found: Vec<(String, Vec<String>, u64)> = Vec::new();
        for ((list, _), count) in shapes.lists.iter().zip(counts) {
            let (name, properties) = interface(graph, list);
            if properties.is_empty() {
                continue;
            }
            let index = *names.entry(name).or_insert(found.len());
            if index == found.len() {
                found.push((interface_name(&properties), properties, 0));
            }
            found[index].2 += count;
        }
        found.sort_by_key(|(.., count)| std::cmp::Reverse(*count));
        let least = |count: u64| count >= MIN_OBJECTS && count * MIN_OBJECTS_IN >= objects;
        let known =
            found.into_iter().take_while(|(.., count)| least(*count)).map(|(name, list, _)| (name, list)).collect();
        Interfaces { known }
    }
}

/// The name and properties of an object with these names of properties.
fn interface(graph: &Graph, list: &[u32]) -> (String, Vec<String>) {
    let mut properties = Vec::new();
    let mut chars = 1;
    for name in list {
        let name = graph.tables.strings.get(u64::from(*name));
        let length = property(&name).chars().count();
        if chars > 1 && chars + length > MAX_INTERFACE_CHARS {
            break;
        }
        chars += length + if chars > 1 { 2 } else { 0 };
        properties.push(name.into_owned());
    }
    (interface_name(&properties), properties)
}

fn interface_name(properties: &[String]) -> String {
    let list: Vec<String> = properties.iter().map(|name| property(name)).collect();
    format!("{{{}}}", list.join(", "))
}

/// A property as it stands in an interface's name: quoted when it could be taken for more than one.
fn property(name: &str) -> String {
    if name.contains([',', '\'', '"', '{', '}']) { format!("{name:?}") } else { name.to_owned() }
}

/// Gives the class of every node, in order of ordinals.
pub(crate) fn each_class(
    graph: &Graph,
    classes: &mut Classes,
    interfaces: &Interfaces,
    mut see: impl FnMut(&Classes, u32),
) {
    let mut namer = Namer::new(graph, classes, interfaces);
    each_node(graph, |ordinal, name, properties| {
        let class = namer.class(classes, ordinal, name, properties);
        see(classes, class);
    });
}

/// All objects of a class by its name, those without bytes included, in the file's order.
#[must_use]
pub fn instances(graph: &Graph, name: &str) -> Vec<Node> {
    let interfaces = Interfaces::infer(graph, &mut Vec::new());
    let name = cut(name, NAME_BYTES_MAX);
    let (mut found, mut places) = (Vec::new(), graph.places());
    each_class(graph, &mut Classes::default(), &interfaces, |classes, class| {
        let place = places.next().unwrap_or(0);
        if *classes.get(class).name == *name {
            found.push(Node(place));
        }
    });
    found
}

/// Finds classes, remembering what it found.
struct Namer<'a> {
    graph: &'a Graph,
    interfaces: &'a Interfaces,
    /// By type: the class of everything of that type; `None` where the name decides.
    by_type: Vec<Option<u32>>,
    /// By name, and place + 1.
    by_name: NumberMap<(u64, u32), u32>,
    latest: (u64, u32, u32),
    /// The number of each of the interfaces' properties; and, as names are met, which of them they are.
    numbers: HashMap<&'a str, u16>,
    wanted: NumberMap<u32, Option<u16>>,
    /// By interface: its class, where no place tells it apart.
    by_interface: Vec<Option<u32>>,
    /// By interface: its properties, as numbers, ascending.
    needs: Vec<Vec<u16>>,
    /// By the list of properties of an object.
    shapes: Shapes,
    by_shape: Vec<Option<usize>>,
    /// By the properties that an object has of those that interfaces need.
    by_properties: HashMap<Box<[u16]>, Option<usize>>,
    scratch: Vec<u16>,
    places: std::iter::Peekable<std::slice::Iter<'a, (u32, u32)>>,
}

impl<'a> Namer<'a> {
    fn new(graph: &'a Graph, classes: &mut Classes, interfaces: &'a Interfaces) -> Namer<'a> {
        let tables = &graph.tables;
        let of_type = |(kind, name): (&NodeKind, &String)| match kind {
            NodeKind::Object | NodeKind::Native => None,
            NodeKind::Hidden => Some(classes.of("(system)", None)),
            NodeKind::Code => Some(classes.of("(compiled code)", None)),
            NodeKind::Closure => Some(classes.of("Function", None)),
            NodeKind::RegExp => Some(classes.of("RegExp", None)),
            _ => Some(classes.of(&format!("({name})"), None)),
        };
        let by_type = tables.kinds.iter().zip(&tables.type_names).map(of_type).collect();
        let mut numbers: HashMap<&'a str, u16> = HashMap::new();
        let mut needs = Vec::new();
        for (_, properties) in &interfaces.known {
            let mut list: Vec<u16> = properties
                .iter()
                .map(|name| {
                    let next = u16::try_from(numbers.len()).unwrap_or(u16::MAX - 1);
                    *numbers.entry(name).or_insert(next)
                })
                .collect();
            list.sort_unstable();
            needs.push(list);
        }
        Namer {
            graph,
            interfaces,
            by_type,
            by_name: NumberMap::default(),
            latest: (u64::MAX, 0, 0),
            wanted: NumberMap::default(),
            numbers,
            by_interface: vec![None; needs.len()],
            needs,
            shapes: Shapes::default(),
            by_shape: Vec::new(),
            by_properties: HashMap::new(),
            scratch: Vec::new(),
            places: tables.place_of.iter().peekable(),
        }
    }

    fn class(&mut self, classes: &mut Classes, ordinal: u32, name: u64, properties: Option<&[u32]>) -> u32 {
        let tables = &self.graph.tables;
        if let Some(class) = self.by_type[usize::from(tables.types[ordinal as usize])] {
            return class;
        }
        while self.places.next_if(|(node, _)| *node < ordinal).is_some() {}
        let place = self.places.next_if(|(node, _)| *node == ordinal).map_or(0, |(_, place)| place + 1);
        if let Some(properties) = properties
            && let Some(interface) = self.interface(properties)
        {
            if let (0, Some(class)) = (place, self.by_interface[interface]) {
                return class;
            }
            let class = classes.of(&self.interfaces.known[interface].0, self.place(place));
            if place == 0 {
                self.by_interface[interface] = Some(class);
            }
            return class;
        }
        if (self.latest.0, self.latest.1) == (name, place) {
            return self.latest.2;
        }
        let class = match self.by_name.get(&(name, place)) {
            Some(class) => *class,
            None => {
                let class = classes.of(&element(&tables.strings.get(name)), self.place(place));
                self.by_name.insert((name, place), class);
                class
            }
        };
        self.latest = (name, place, class);
        class
    }

    fn place(&self, place: u32) -> Option<[u64; 3]> {
        place.checked_sub(1).map(|index| self.graph.tables.places[index as usize])
    }

    /// The interface with the most properties of those that an object has all of.
    fn interface(&mut self, properties: &[u32]) -> Option<usize> {
        if self.needs.is_empty() {
            return None;
        }
        match self.shapes.number(properties) {
            Some((number, false)) => self.by_shape[number],
            Some((_, true)) => {
                let found = self.best_interface(properties);
                self.by_shape.push(found);
                found
            }
            None => self.best_interface(properties),
        }
    }

    fn best_interface(&mut self, properties: &[u32]) -> Option<usize> {
        self.scratch.clear();
        for name in properties {
            let number = match self.wanted.get(name) {
                Some(number) => *number,
                None => {
                    let number = self.numbers.get(&*self.graph.tables.strings.get(u64::from(*name))).copied();
                    if self.wanted.len() < MAX_SHAPES {
                        self.wanted.insert(*name, number);
                    }
                    number
                }
            };
            self.scratch.extend(number);
        }
        self.scratch.sort_unstable();
        self.scratch.dedup();
        if let Some(found) = self.by_properties.get(self.scratch.as_slice()) {
            return *found;
        }
        let has = |needed: &Vec<u16>| needed.iter().all(|number| self.scratch.binary_search(number).is_ok());
        let mut best: Option<usize> = None;
        for (index, needed) in self.needs.iter().enumerate() {
            if has(needed) && best.is_none_or(|best| self.needs[best].len() < needed.len()) {
                best = Some(index);
            }
        }
        if self.by_properties.len() < MAX_SHAPES {
            self.by_properties.insert(self.scratch.as_slice().into(), best);
        }
        best
    }
}

/// `<div id="a">` is a `<div>`.
fn element(name: &str) -> String {
    let detached = name.strip_prefix("Detached ");
    let tag = detached.unwrap_or(name);
    match tag.split_once(' ') {
        Some((tag, _)) if tag.starts_with('<') => {
            format!("{}{tag}>", if detached.is_some() { "Detached " } else { "" })
        }
        _ => name.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn classes_of_one_name_share_it_however_many_places_define_it() {
        let mut classes = Classes::default();
        let long = "n".repeat(100_000);
        let of = |classes: &mut Classes, line: u64| classes.of(&long, Some([1, line, 2]));
        let (first, second) = (of(&mut classes, 7), of(&mut classes, 8));
        assert_eq!((of(&mut classes, 7), classes.of(&long, None), classes.len()), (first, 2, 3));
        assert!(Arc::ptr_eq(&classes.get(first).name, &classes.get(second).name));
        assert_eq!((classes.get(first).name.len(), classes.get(second).place), (NAME_BYTES_MAX, Some([1, 8, 2])));
    }
}
