//! V8 snapshots: no panic, and whatever is read, every byte of the heap has one class and one owner.
#![no_main]

use libfuzzer_sys::fuzz_target;
use plimsoll_heap::digest::Digest;
use plimsoll_heap::graph::paths::Paths;
use plimsoll_heap::parse::v8;
use plimsoll_heap::summary::Summary;

fuzz_target!(|data: &[u8]| {
    let Ok((graph, _)) = v8::read(data) else { return };
    assert_eq!(graph.retained_bytes(graph.root()), graph.total_bytes());
    let summary = Summary::of(&graph, 20);
    if graph.total_bytes() < u64::MAX {
        assert_eq!(summary.owners.iter().map(|owner| owner.bytes).sum::<u64>(), graph.total_bytes());
        assert_eq!(summary.classes.iter().map(|row| row.bytes).sum::<u64>(), graph.total_bytes());
    }
    let nodes: Vec<_> = summary.owners.iter().filter_map(|owner| owner.node).collect();
    assert_eq!(Paths::to(&graph, &nodes).steps(&graph, &nodes).len(), nodes.len());
    let mut file = Vec::new();
    summary.digest(7).write(&mut file).expect("a vector");
    Digest::read(file.as_slice()).expect("our own digest");
    let diff = plimsoll_heap::diff::v8(data, data).expect("it was read before");
    assert_eq!(diff.delta_bytes(), 0);
    // Where ids are given twice, an owner may be taken for another; what they hold in sum is the heap all the same.
    assert_eq!(diff.owners.iter().map(|owner| i128::from(owner.delta_bytes())).sum::<i128>(), 0);
});
