//! V8 snapshots: truth, blind spots, damage.

use std::fs::File;
use std::io::{BufReader, Read};
use std::path::{Path, PathBuf};

use flate2::bufread::GzDecoder;
use plimsoll_heap::diff::{self, Diff};
use plimsoll_heap::digest::{Digest, Kind};
use plimsoll_heap::graph::classes::instances;
use plimsoll_heap::graph::paths::{self, Paths};
use plimsoll_heap::parse::v8;
use plimsoll_heap::summary::{MAX_RETAINED_CLASSES, Summary};
use proptest::prelude::*;
use serde_json::Value;

fn data(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata/v8").join(name)
}

fn open(name: &str) -> impl Read {
    let file = File::open(data(&format!("{name}.heapsnapshot.gz"))).expect(name);
    GzDecoder::new(BufReader::new(file))
}

fn bytes(name: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    open(name).read_to_end(&mut bytes).expect(name);
    bytes
}

fn summary(name: &str) -> Summary {
    let (graph, warnings) = v8::read(open(name)).expect(name);
    assert_eq!(warnings, [], "{name}");
    Summary::of(&graph, MAX_RETAINED_CLASSES)
}

fn compared(before: &str, after: &str) -> Diff {
    diff::v8(open(before), open(after)).expect("two snapshots")
}

/// Every class with its count, own and retained bytes, and the hundred objects that retain most.
#[test]
fn figures_are_those_of_devtools() {
    for name in ["leak-before", "leak-after", "inplace-after"] {
        let file = File::open(data(&format!("{name}.devtools.json"))).expect(name);
        let theirs: Value = serde_json::from_reader(BufReader::new(file)).expect(name);
        let ours = summary(name);
        assert_eq!(theirs["nodes"].as_u64(), Some(ours.nodes), "{name}");
        let figures = |row: &Value| ["count", "bytes", "retained_bytes"].map(|key| row[key].as_u64().expect(key));
        let mut expected: Vec<(String, [u64; 3])> = theirs["classes"]
            .as_array()
            .expect("classes")
            .iter()
            .map(|row| (row["key"].as_str().expect("key").into(), figures(row)))
            .collect();
        let mut found: Vec<(String, [u64; 3])> = ours
            .classes
            .iter()
            .map(|row| {
                let place = row.class.place.map(|[script, line, column]| format!("{script},{line},{column}"));
                let key = format!("{},{}", place.unwrap_or_default(), row.class.name);
                (key, [row.count, row.bytes, row.retained_bytes.expect("asked for")])
            })
            .collect();
        expected.sort();
        found.sort();
        assert_eq!(found, expected, "{name}");
        for (row, large) in theirs["largest"].as_array().expect("largest").iter().zip(&ours.largest) {
            assert_eq!(row["retained_bytes"].as_u64(), Some(large.retained_bytes), "{name}: {row} {large:?}");
            let same = ours.largest.iter().find(|large| Some(large.id) == row["id"].as_u64());
            if let Some(large) = same {
                assert_eq!(row["bytes"].as_u64(), Some(large.bytes), "{name}: {row}");
            }
        }
    }
}

#[test]
fn shares_of_owners_are_the_heap() {
    for name in ["leak-before", "leak-after", "inplace-before", "inplace-after", "restarted-after"] {
        let summary = summary(name);
        let shares: u64 = summary.owners.iter().map(|owner| owner.bytes).sum();
        let classes: u64 = summary.classes.iter().map(|row| row.bytes).sum();
        assert_eq!((shares, classes), (summary.total_bytes, summary.total_bytes), "{name}");
    }
}

#[test]
fn a_map_that_nobody_evicts_is_the_first_row() {
    let diff = compared("leak-before", "leak-after");
    assert_eq!(diff.same_life, Some(true));
    let leak = diff.largest_growth().expect("a leak");
    assert_eq!(leak.key, "global.__app.sessionCache → Map");
    assert_eq!(leak.survived, Some(true));
    let path: String = leak.steps.iter().map(|step| step.words.as_str()).collect();
    assert_eq!(path, "global.__app.sessionCache");
    // 160 sessions came; what holds them is nearly all that grew.
    assert!(leak.delta_bytes() * 100 > diff.delta_bytes() * 90, "{} of {}", leak.delta_bytes(), diff.delta_bytes());
    let sessions = diff.classes.iter().find(|row| &*row.class.name == "Session").expect("sessions");
    let moves = sessions.moves.expect("one life");
    assert_eq!((sessions.before.count, sessions.after.count, moves.new.count, moves.gone.count), (40, 200, 160, 0));
    let sum: i64 = diff.owners.iter().map(diff::OwnerDiff::delta_bytes).sum();
    assert_eq!(sum, diff.delta_bytes(), "what owners grew by is what the heap grew by");
    // And the other way round: what shrinks is last.
    let back = compared("leak-after", "leak-before");
    let last = back.owners.last().expect("owners");
    assert_eq!(last.key, "global.__app.sessionCache → Map");
    assert!(last.delta_bytes() <= -leak.delta_bytes());
    // What is left of it is too little for an owner and counts to the one above.
    let above = back.largest_growth().map_or(0, diff::OwnerDiff::delta_bytes);
    assert!((above + last.delta_bytes() + leak.delta_bytes()).abs() < 1024);
}

#[test]
fn what_grows_where_it_is_is_seen_without_one_new_object() {
    let diff = compared("inplace-before", "inplace-after");
    assert_eq!(diff.same_life, Some(true));
    let keys: Vec<&str> = diff.owners.iter().take(2).map(|owner| owner.key.as_str()).collect();
    assert_eq!(keys, ["global.__app.counters → Map", "global.__app.series → Array"]);
    assert!(diff.owners.iter().take(2).all(|owner| owner.survived == Some(true) && owner.after.count == 1));
    for name in ["Map", "Array"] {
        let row = diff.classes.iter().find(|row| *row.class.name == *name).expect(name);
        let moves = row.moves.expect("one life");
        assert_eq!((moves.new.count, moves.grown.count), (0, 1), "{name}");
        assert_eq!(i64::try_from(moves.grown.bytes), Ok(row.delta_bytes()), "{name}");
    }
}

#[test]
fn a_restart_in_between_is_noticed_and_paths_still_hold() {
    let diff = compared("leak-before", "restarted-after");
    assert_eq!(diff.same_life, Some(false));
    let leak = diff.largest_growth().expect("a leak");
    assert_eq!((leak.key.as_str(), leak.survived), ("global.__app.sessionCache → Map", None));
    assert!(leak.before.bytes > 0, "it is found by its path: {leak:?}");
    assert!(diff.classes.iter().all(|row| row.moves.is_none() && row.class.place.is_none()));
    let sum: i64 = diff.owners.iter().map(diff::OwnerDiff::delta_bytes).sum();
    assert_eq!(sum, diff.delta_bytes());
}

#[test]
fn a_snapshot_does_not_differ_from_itself() {
    let diff = compared("leak-after", "leak-after");
    assert_eq!((diff.same_life, diff.delta_bytes()), (Some(true), 0));
    assert!(diff.owners.iter().all(|owner| owner.delta_bytes() == 0));
    assert!(diff.classes.iter().all(|row| row.before == row.after && row.moves == Some(diff::Moves::default())));
}

#[test]
fn ids_that_are_too_large_to_be_compared_are_said() {
    // A root that holds objects of one class: a number of them whose ids are small, and two of the largest.
    let snapshot = |count: u64, huge: u64| {
        let ids = (0..count).map(|at| 3 + 2 * at).chain((0..huge).map(|at| (1 << 36) + at)).collect::<Vec<u64>>();
        let nodes: String = ids.iter().map(|id| format!("\n,1,1,{id},16,0")).collect();
        let edges: Vec<String> = (1..=ids.len()).map(|at| format!("0,{at},{}", at * 5)).collect();
        let edges = edges.join("\n,");
        let (nodes_count, edge_count) = (ids.len() + 1, ids.len());
        format!(
            r#"{{"snapshot":{{"meta":{{"node_fields":["type","name","id","self_size","edge_count"],
"node_types":[["synthetic","object"],"string","number","number","number"],"edge_fields":["type","name_or_index","to_node"],
"edge_types":[["element"],"string_or_number","node"]}},"node_count":{nodes_count},"edge_count":{edge_count}}},
"nodes":[0,0,1,0,{edge_count}{nodes}],"edges":[{edges}],"strings":["","Session"]}}"#
        )
    };
    let found = diff::v8(snapshot(20, 2).as_bytes(), snapshot(25, 2).as_bytes()).expect("two snapshots");
    assert_eq!(found.same_life, Some(true));
    for side in [&found.before, &found.after] {
        assert_eq!(side.warnings, [v8::Warning::LargeIds(2)]);
    }
    let session = found.classes.iter().find(|row| &*row.class.name == "Session").expect("a row");
    assert_eq!((session.before.count, session.after.count, session.moves.unwrap().new.count), (22, 27, 5));
    let small = diff::v8(snapshot(20, 0).as_bytes(), snapshot(25, 0).as_bytes()).expect("two snapshots");
    assert!(small.before.warnings.is_empty() && small.after.warnings.is_empty(), "{:?}", small.after.warnings);
}

#[test]
fn a_digest_of_a_few_kilobytes_tells_lives_and_owners() {
    let digests: Vec<Digest> =
        ["leak-before", "leak-after", "restarted-after"].map(|name| summary(name).digest(7)).into_iter().collect();
    for digest in &digests {
        let mut file = Vec::new();
        digest.write(&mut file).expect("write");
        assert!(file.len() < 24 << 10, "{} bytes", file.len());
        assert_eq!(&Digest::read(file.as_slice()).expect("read"), digest);
    }
    for digest in &digests[1..] {
        assert!(digest.rows.iter().any(|row| row.kind == Kind::Owner && row.key == "global.__app.sessionCache → Map"));
    }
    assert_eq!(digests[0].same_life(&digests[1]), Some(true));
    assert_eq!(digests[1].same_life(&digests[2]), Some(false));
}

#[test]
fn paths_lead_from_the_global_object_to_each_of_a_class() {
    let (graph, _) = v8::read(open("leak-after")).expect("a snapshot");
    let sessions = instances(&graph, "Session");
    assert_eq!(sessions.len(), 200);
    let steps = Paths::to(&graph, &sessions).steps(&graph, &sessions);
    for (node, steps) in sessions.iter().zip(&steps) {
        let key = paths::key(&graph, steps, *node);
        assert!(key == "global.__app.sessionCache[*] → Session", "{key}");
        assert_eq!(steps.last().map(|step| step.to), Some(*node));
    }
}

#[test]
fn a_file_cut_anywhere_is_an_error_with_its_offset() {
    let whole = bytes("leak-before");
    for end in (1..whole.len()).step_by(997) {
        match v8::read(&whole[..end]) {
            Err(v8::V8Error::Truncated { offset, .. }) => assert_eq!(offset, end as u64),
            other => panic!("cut at {end}: {:?}", other.map(|(graph, _)| graph.node_count())),
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Any byte may be wrong: an error or another graph, whose sums still hold.
    #[test]
    fn damaged_bytes_neither_panic_nor_break_the_sums(hits in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6)) {
        let mut file = bytes("leak-before");
        for (at, byte) in hits {
            let at = at.index(file.len());
            file[at] = byte;
        }
        if let Ok((graph, _)) = v8::read(file.as_slice()) {
            prop_assert_eq!(graph.retained_bytes(graph.root()), graph.total_bytes());
            let summary = Summary::of(&graph, 20);
            prop_assert_eq!(summary.owners.iter().map(|owner| owner.bytes).sum::<u64>(), graph.total_bytes());
        }
    }
}
