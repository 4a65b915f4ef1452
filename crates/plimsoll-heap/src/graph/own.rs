//! Whose bytes are whose: backing stores belong to the one object that owns them, and one half of each WeakMap pair holds nothing.
//!
//! After DevTools (`HeapSnapshot.ts`, `calculateShallowSizes`, `computeIsEssentialEdge`): the size of a `hidden` or `array` node, or of
//! a string's external data, moves to its owner when exactly one other object reaches it through such nodes only. So a Map that doubled
//! its table is a Map that grew. Skipped when there are no user roots: then internals were asked for.

use super::bits::Bits;
use super::tables::{EdgeKind, NodeKind, TO, Tables};

const UNVISITED: u32 = u32::MAX;
const SHARED: u32 = u32::MAX - 1;

/// Moves the sizes of owned backing stores to their owners.
pub(crate) fn move_sizes_to_owners(tables: &mut Tables) {
    if !has_user_roots(tables) {
        return;
    }
    let nodes = tables.types.len();
    let external = tables.strings.find("system / ExternalStringData");
    let mut movable = Bits::new(nodes);
    for (ordinal, name) in (0_u32..).zip(tables.names.iter()) {
        let kind = tables.kind(ordinal);
        let is_external = kind == NodeKind::Native && Some(name) == external;
        if matches!(kind, NodeKind::Hidden | NodeKind::Array) || is_external {
            movable.set(ordinal);
        }
    }
    let mut owners = vec![UNVISITED; nodes];
    let mut list = Vec::new();
    // What follows from one owner at `node`: its movable targets are that owner's, or nobody's.
    let spread = |node: u32, owner: u32, owners: &mut Vec<u32>, list: &mut Vec<u32>| {
        for word in &tables.to[tables.edges(node)] {
            let target = word & TO;
            if !movable.has(target) {
                continue;
            }
            let found = owners[target as usize];
            if found == UNVISITED {
                owners[target as usize] = owner;
                list.push(target);
            } else if found != owner && found != SHARED {
                owners[target as usize] = SHARED;
                list.push(target);
            }
        }
    };
    for node in 0..nodes as u32 {
        if !movable.has(node) {
            spread(node, node, &mut owners, &mut list);
        }
    }
    while let Some(node) = list.pop() {
        spread(node, owners[node as usize], &mut owners, &mut list);
    }
    for (node, owner) in owners.iter().enumerate().filter(|(_, owner)| **owner < SHARED) {
        if *owner != tables.root && tables.kind(*owner) != NodeKind::Synthetic {
            let bytes = tables.sizes.get(node);
            tables.sizes.set(node, 0);
            tables.sizes.add(*owner as usize, bytes);
        }
    }
}

/// Whether the root leads to anything but the runtime's own lists.
fn has_user_roots(tables: &Tables) -> bool {
    tables.to[tables.edges(tables.root)].iter().any(|word| is_user_root(tables, word & TO))
}

/// A root that a user would know: the global object, or a document.
pub(crate) fn is_user_root(tables: &Tables, node: u32) -> bool {
    tables.kind(node) != NodeKind::Synthetic
        || tables.strings.get(tables.names.get(node as usize)) == "(Document DOM trees)"
}

/// Marks the edges from the tables of WeakMaps to their values.
///
/// V8 writes such a pair as two edges, from the key and from the table, both called
/// `N / part of key (… @id) -> value (… @id) pair in WeakMap (table @id)`.
pub(crate) fn mark_ephemerons(tables: &mut Tables) {
    let mut named = Bits::new(tables.strings.len());
    let mut any = false;
    let mut table_of = std::collections::HashMap::new();
    for index in tables.strings.containing(" pair in WeakMap (table @") {
        if let Some(table) = table_id(tables.strings.raw(index)) {
            named.set(index as u32);
            table_of.insert(index as u64, table);
            any = true;
        }
    }
    if !any {
        return;
    }
    let mut ids = tables.ids.iter();
    let mut names = tables.edge_names.iter();
    let strings = tables.strings.len() as u64;
    for range in tables.starts.windows(2) {
        let id = ids.next();
        for word in &mut tables.to[range[0] as usize..range[1] as usize] {
            let Some(name) = names.next() else { return };
            if EdgeKind::unpack(*word) == EdgeKind::Internal
                && name < strings
                && named.has(name as u32)
                && table_of.get(&name).copied() == id
            {
                *word = EdgeKind::EphemeronTable.pack(*word & TO);
            }
        }
    }
}

/// The table that a name of a pair names.
fn table_id(name: &[u8]) -> Option<u64> {
    let name = std::str::from_utf8(name).ok()?;
    let (pair, table) = name.strip_suffix(')')?.rsplit_once(" pair in WeakMap (table @")?;
    let (number, pair) = pair.split_once(" / part of key (")?;
    let is_number = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let (key, value) = pair.split_once(") -> value (")?;
    let ends_in_id = |text: &str| text.rsplit_once(" @").is_some_and(|(_, id)| is_number(id.trim_end_matches(')')));
    (is_number(number) && ends_in_id(key) && ends_in_id(value)).then(|| table.parse().ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_of_a_weak_pair_is_read_from_its_name() {
        for (name, table) in [
            ("12 / part of key (Object @101) -> value (system / X @103) pair in WeakMap (table @77)", Some(77)),
            ("12 / part of key (f() @1) -> value (a (b) @2) pair in WeakMap (table @77)", Some(77)),
            ("x / part of key (Object @101) -> value (X @103) pair in WeakMap (table @77)", None),
            ("12 / part of key (Object) -> value (X @103) pair in WeakMap (table @77)", None),
            ("12 / part of key (Object @101) -> value (X @103) pair in WeakMap (table @)", None),
            (" pair in WeakMap (table @77)", None),
        ] {
            assert_eq!(table_id(name.as_bytes()), table, "{name}");
        }
    }
}
