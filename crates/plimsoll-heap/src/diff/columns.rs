//! What is kept of a snapshot to compare its objects: id, class and size, sorted by id, about four bytes an object.

use std::collections::HashMap;

use super::{Amount, ClassDiff, Moves};
use crate::column::Column;
use crate::graph::Graph;
use crate::graph::classes::{Class, Classes, Interfaces, each_class};

/// Bits of a sort key that an ordinal takes; ids from 2^36 on are not compared.
const ORDINAL_BITS: u32 = 28;

/// The objects of a snapshot that take bytes.
pub(super) struct Columns {
    ids: Column<true>,
    classes: Column<false>,
    sizes: Column<false>,
    /// By class, those included whose ids are not compared.
    sums: Vec<Amount>,
    /// Objects whose ids are not compared.
    pub(super) beyond: u64,
}

impl Columns {
    /// Reduces a graph.
    pub(super) fn of(mut graph: Graph, classes: &mut Classes, interfaces: &Interfaces) -> Columns {
        graph.forget_retained();
        let mut class_of = Vec::with_capacity(graph.node_count());
        each_class(&graph, classes, interfaces, |_, class| class_of.push(class));
        let (all_ids, all_sizes) = graph.into_ids_and_sizes();
        let mut sums = vec![Amount::default(); classes.len()];
        let mut keys = Vec::with_capacity(class_of.len());
        let mut sizes = Vec::with_capacity(class_of.len());
        let mut beyond = 0;
        for ((ordinal, id), bytes) in (0_u64..).zip(all_ids.iter()).zip(all_sizes.iter()) {
            sizes.push(u32::try_from(bytes).unwrap_or(u32::MAX));
            if bytes > 0 {
                sums[class_of[ordinal as usize] as usize].add(bytes);
                if id >> (64 - ORDINAL_BITS) == 0 {
                    keys.push(id << ORDINAL_BITS | ordinal);
                } else {
                    beyond += 1;
                }
            }
        }
        keys.sort_unstable();
        let mut columns = Columns { ids: Column::new(), classes: Column::new(), sizes: Column::new(), sums, beyond };
        for key in keys {
            let ordinal = (key & ((1 << ORDINAL_BITS) - 1)) as usize;
            columns.ids.push(key >> ORDINAL_BITS);
            columns.classes.push(u64::from(class_of[ordinal]));
            let bytes = sizes[ordinal];
            columns.sizes.push(if bytes == u32::MAX { all_sizes.get(ordinal) } else { u64::from(bytes) });
        }
        columns.ids.shrink();
        columns.classes.shrink();
        columns.sizes.shrink();
        columns
    }

    /// Id, class and size of each object, ascending by id.
    fn iter(&self) -> impl Iterator<Item = (u64, usize, u64)> + '_ {
        let rest = self.classes.iter().zip(self.sizes.iter());
        self.ids.iter().zip(rest).map(|(id, (class, bytes))| (id, class as usize, bytes))
    }
}

/// Classes of both; what happened to their objects too when ids may be compared.
pub(super) fn compare_classes(before: &Columns, after: &Columns, classes: &Classes, by_id: bool) -> Vec<ClassDiff> {
    let mut moves = vec![Moves::default(); classes.len()];
    if by_id {
        let (mut old, mut new) = (before.iter().peekable(), after.iter().peekable());
        loop {
            match (old.peek().copied(), new.peek().copied()) {
                (None, None) => break,
                (Some((a, class, bytes)), Some((b, after_class, after_bytes))) if a == b => {
                    old.next();
                    new.next();
                    if class != after_class {
                        // A plain object that got another property is of another class.
                        moves[class].gone.add(bytes);
                        moves[after_class].new.add(after_bytes);
                    } else if after_bytes > bytes {
                        moves[class].grown.add(after_bytes - bytes);
                    } else if after_bytes < bytes {
                        moves[class].shrunk.add(bytes - after_bytes);
                    }
                }
                (Some((a, class, bytes)), b) if b.is_none_or(|b| a < b.0) => {
                    old.next();
                    moves[class].gone.add(bytes);
                }
                (_, Some((_, class, bytes))) => {
                    new.next();
                    moves[class].new.add(bytes);
                }
                (Some(_), None) => {
                    old.next();
                }
            }
        }
    }
    let sum = |columns: &Columns, class: usize| columns.sums.get(class).copied().unwrap_or_default();
    let mut rows: Vec<ClassDiff> = Vec::new();
    let mut index: HashMap<Class, usize> = HashMap::new();
    for (number, moves) in moves.into_iter().enumerate() {
        let mut class = classes.get(number as u32).clone();
        let (old, new) = (sum(before, number), sum(after, number));
        if old.count == 0 && new.count == 0 {
            continue;
        }
        if !by_id {
            // Numbers of scripts are a matter of one life; lines and columns are of the program, but names are enough.
            class.place = None;
        }
        let at = *index.entry(class.clone()).or_insert(rows.len());
        if at == rows.len() {
            let (before, after) = (Amount::default(), Amount::default());
            rows.push(ClassDiff { class, before, after, moves: by_id.then(Moves::default) });
        }
        rows[at].before.join(old);
        rows[at].after.join(new);
        if let Some(all) = &mut rows[at].moves {
            *all = moves;
        }
    }
    rows.sort_by_key(|row| (std::cmp::Reverse(row.delta_bytes()), row.class.name.clone()));
    rows
}
