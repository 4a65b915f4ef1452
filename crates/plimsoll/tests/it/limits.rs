//! Groups and limits over all fixture trees, as one table.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use plimsoll::gauge::group::Group;
use plimsoll::gauge::{Root, Unread};
use plimsoll::limit::{self, Limits};

use crate::fixture::{PID, Tree, trees};

/// What is expected of one tree: the group, its figures, every limit (`*` marks the binding one).
const TABLE: &[(&str, &str)] = &[
    (
        "v1-plain",
        "group v1 cgroup/memory/app as /app
usage 380 MiB limit 400 MiB oom_kills 2
program 160 MiB kernel 6 MiB file 220 MiB
* kill 400 MiB, usage 380 MiB, protected 166 MiB, level 0, cgroup/memory/app/memory.limit_in_bytes
",
    ),
    (
        "v1-nested",
        "group v1 cgroup/memory/slice/app/web as /slice/app/web
usage 120 MiB limit none oom_kills 0
program 100 MiB kernel ? file 20 MiB
  kill 428 MiB, usage 120 MiB, protected 100 MiB, level 0, cgroup/memory/slice/app/web/memory.memsw.limit_in_bytes
  kill 512 MiB, usage 200 MiB, protected 180 MiB, level 1, cgroup/memory/slice/app/memory.limit_in_bytes
* kill 300 MiB, usage 290 MiB, protected 258 MiB, level 2, cgroup/memory/slice/memory.limit_in_bytes
",
    ),
    (
        "v1-no-hierarchy",
        "group v1 cgroup/memory/old/app as /old/app
usage 150 MiB limit 200 MiB oom_kills 0
program 130 MiB kernel ? file 20 MiB
* kill 200 MiB, usage 150 MiB, protected 130 MiB, level 0, cgroup/memory/old/app/memory.limit_in_bytes
",
    ),
    (
        "v1-no-limit",
        "group v1 cgroup/memory/app as /app
usage 50 MiB limit none oom_kills 0
program 50 MiB kernel ? file 0 MiB
  refuse 1024 MiB, usage 781 MiB, protected 781 MiB, process, proc/42/limits
  refuse 512 MiB, usage 390 MiB, protected 390 MiB, process, proc/42/limits
",
    ),
    (
        "v1-hidden",
        "group v1 cgroup/memory as /
usage 150 MiB limit none oom_kills 0
program 100 MiB kernel ? file 50 MiB
* kill 256 MiB, usage ?, protected 100 MiB, level 1, cgroup/memory/memory.stat
",
    ),
    (
        "v1-namespaced",
        "group v1 cgroup/memory/inner as /inner
usage 100 MiB limit none oom_kills 0
program 80 MiB kernel ? file 20 MiB
* kill 300 MiB, usage 150 MiB, protected 100 MiB, level 1, cgroup/memory/memory.limit_in_bytes
",
    ),
    (
        "v1-namespaced-no-table",
        "group v1 cgroup/memory/inner as /inner
usage 100 MiB limit none oom_kills 0
program 80 MiB kernel ? file 20 MiB
* kill 300 MiB, usage 150 MiB, protected 100 MiB, level 1, cgroup/memory/memory.limit_in_bytes
",
    ),
    ("v1-wrong-tail", "no group: the process's group (outside of the mounted hierarchy): missing\n"),
    (
        "v1-malformed",
        "group v1 cgroup/memory/app as /app
usage ? limit ? oom_kills ?
program ?
",
    ),
    (
        "v2-plain",
        "group v2 cgroup/app as /app
usage 380 MiB limit 400 MiB oom_kills 3
program 162 MiB kernel 9 MiB file 220 MiB
* kill 400 MiB, usage 380 MiB, protected 171 MiB, level 0, cgroup/app/memory.max
  refuse 0 MiB, usage 0 MiB, protected 0 MiB, level 0, cgroup/app/memory.swap.max
",
    ),
    (
        "v2-nested",
        "group v2 cgroup/a/b/c as /a/b/c
usage 100 MiB limit none oom_kills 0
program 106 MiB kernel 0 MiB file 10 MiB
  refuse 64 MiB, usage 16 MiB, protected 16 MiB, level 0, cgroup/a/b/c/memory.swap.max
  kill 1024 MiB, usage 300 MiB, protected 280 MiB, level 1, cgroup/a/b/memory.max
* kill 512 MiB, usage 500 MiB, protected 440 MiB, level 2, cgroup/a/memory.max
  throttle 400 MiB, usage 500 MiB, protected 440 MiB, level 2, cgroup/a/memory.high
",
    ),
    ("v2-outside", "no group: the process's group (outside of the mounted hierarchy): missing\n"),
    (
        "v2-missing",
        "group v2 cgroup/app as /app
usage 100 MiB limit 200 MiB oom_kills ?
program ?
* kill 200 MiB, usage 100 MiB, protected 100 MiB, level 0, cgroup/app/memory.max
",
    ),
    (
        "hybrid",
        "group v1 cgroup/memory/app as /app
usage 100 MiB limit 400 MiB oom_kills 0
program 80 MiB kernel ? file 20 MiB
* kill 400 MiB, usage 100 MiB, protected 80 MiB, level 0, cgroup/memory/app/memory.limit_in_bytes
",
    ),
    (
        "hybrid-memory-on-v2",
        "group v2 cgroup/unified/app as /app
usage 100 MiB limit 200 MiB oom_kills 0
program 80 MiB kernel 0 MiB file 20 MiB
* kill 200 MiB, usage 100 MiB, protected 80 MiB, level 0, cgroup/unified/app/memory.max
",
    ),
    ("none", "no group: /proc/PID/cgroup: missing\n"),
];

fn mib(bytes: Result<u64, Unread>) -> String {
    bytes.map_or("?".to_owned(), |bytes| format!("{} MiB", bytes >> 20))
}

fn told(bytes: Option<u64>) -> String {
    bytes.map_or("?".to_owned(), |bytes| format!("{} MiB", bytes >> 20))
}

fn describe(tree: &Tree, root: &Root) -> String {
    let mut out = String::new();
    match Group::of_pid(root, PID) {
        Ok(group) => describe_group(&mut out, tree, &group),
        Err(why) => writeln!(out, "no group: {why}").unwrap(),
    }
    describe_limits(&mut out, tree, &limit::discover(root, PID));
    out
}

fn describe_group(out: &mut String, tree: &Tree, group: &Group) {
    let (version, dir, path) = (group.version().as_str(), tree.name(group.dir()), group.path());
    writeln!(out, "group {version} {dir} as {}", path.display()).unwrap();
    let limit = match group.limit() {
        Ok(None) => "none".to_owned(),
        Ok(Some(bytes)) => mib(Ok(bytes)),
        Err(_) => "?".to_owned(),
    };
    let kills = group.oom_kills().map_or("?".to_owned(), |n| n.to_string());
    writeln!(out, "usage {} limit {limit} oom_kills {kills}", mib(group.usage())).unwrap();
    match group.protected() {
        Ok(read) => {
            let (kernel, file) = (told(read.kernel_bytes), told(read.file_bytes));
            writeln!(out, "program {} kernel {kernel} file {file}", mib(Ok(read.program_bytes))).unwrap();
        }
        Err(_) => writeln!(out, "program ?").unwrap(),
    }
}

fn describe_limits(out: &mut String, tree: &Tree, limits: &Limits) {
    for (index, limit) in limits.all.iter().enumerate() {
        let mark = if limits.binding == Some(index) { '*' } else { ' ' };
        let level = limit.level.map_or("process".to_owned(), |level| format!("level {level}"));
        writeln!(
            out,
            "{mark} {} {}, usage {}, protected {}, {level}, {}",
            limit.consequence.as_str(),
            mib(Ok(limit.bytes)),
            mib(limit.usage_bytes),
            mib(limit.protected_bytes),
            tree.name(&limit.source),
        )
        .unwrap();
    }
}

#[test]
fn every_tree_is_read_as_the_table_says() {
    for (name, expected) in TABLE {
        let tree = Tree::unpack(name);
        assert_eq!(describe(&tree, &tree.root()), *expected, "tree {name}");
    }
}

#[test]
fn no_tree_is_forgotten() {
    let listed: BTreeSet<String> = TABLE.iter().map(|(name, _)| (*name).to_owned()).collect();
    let files = std::fs::read_dir(trees()).unwrap();
    let there: BTreeSet<String> =
        files.map(|f| f.unwrap().path().file_stem().unwrap().to_str().unwrap().to_owned()).collect();
    assert_eq!(listed, there);
}

#[test]
fn what_was_looked_at_is_noted() {
    let table = [
        ("v1-nested", "slice/app/web/memory.limit_in_bytes: no limit"),
        ("v1-no-hierarchy", "use_hierarchy is 0"),
        ("v1-no-hierarchy", "app/memory.memsw.limit_in_bytes: not there"),
        ("v1-hidden", "not visible from here"),
        ("v1-malformed", "memory.limit_in_bytes: malformed"),
        ("v1-malformed", "RLIMIT_DATA: not told"),
        ("v1-malformed", "host memory: /proc/meminfo: malformed"),
        ("v2-outside", "no memory group for pid 42"),
        ("v2-missing", "memory.high: not there"),
        ("v2-missing", "limits of pid 42: /proc/PID/limits: missing"),
        ("v2-plain", "RLIMIT_AS: unlimited"),
        ("none", "no memory group for pid 42"),
    ];
    for (name, expected) in table {
        let tree = Tree::unpack(name);
        let notes = limit::discover(&tree.root(), PID).notes;
        assert!(notes.iter().any(|note| note.contains(expected)), "tree {name}: no {expected:?} in {notes:#?}");
    }
}

#[test]
fn the_host_is_told_and_never_binds() {
    let tree = Tree::unpack("none");
    let limits = limit::discover(&tree.root(), PID);
    assert_eq!(limits.host_bytes, Some(8 << 30));
    assert_eq!(limits.governing(), None);
}

#[test]
fn page_cache_of_an_ancestor_does_not_make_it_bind() {
    // Raw usage leaves the grandparent 10 MiB; without page cache it still has 260, more than the own group.
    let tree = Tree::unpack("v1-nested");
    tree.write("cgroup/memory/slice/memory.stat", "total_rss 31457280\ntotal_shmem 0\n");
    let limits = limit::discover(&tree.root(), PID);
    assert_eq!(
        limits.governing().map(|limit| tree.name(&limit.source)),
        Some("cgroup/memory/slice/memory.limit_in_bytes")
    );
    assert_eq!(limits.governing().and_then(limit::Limit::headroom_bytes), Some((300 - 30 - 8) << 20));
    tree.write("cgroup/memory/slice/app/memory.limit_in_bytes", "209715200\n");
    let limits = limit::discover(&tree.root(), PID);
    assert_eq!(limits.governing().map(|limit| limit.level), Some(Some(1)), "20 MiB left against 262");
}

#[test]
fn a_hybrid_machine_has_two_groups() {
    let tree = Tree::unpack("hybrid");
    let unified = Group::unified_of_pid(&tree.root(), PID).unwrap();
    assert_eq!(tree.name(unified.dir()), "cgroup/unified/unified-app");
    assert_eq!(unified.limit(), Err(Unread::Missing("memory.max")));
    assert_eq!(unified.pressure_file(), Some(tree.path().join("cgroup/unified/unified-app/memory.pressure")));
    assert_eq!(Group::of_pid(&tree.root(), PID).unwrap().pressure_file(), None);
}

#[test]
fn ancestors_end_at_the_top_that_is_visible() {
    let tree = Tree::unpack("v2-nested");
    let names =
        |group: &Group| -> Vec<String> { group.ancestors().iter().map(|g| g.path().display().to_string()).collect() };
    let group = Group::of_pid(&tree.root(), PID).unwrap();
    assert_eq!(names(&group), ["/a/b/c", "/a/b", "/a", "/"]);
    assert_eq!(names(&group.child("new")), ["/a/b/c/new", "/a/b/c", "/a/b", "/a", "/"]);
    let same = Group::at(&tree.root(), group.version(), group.dir());
    assert_eq!(names(&same), names(&group));
}

#[test]
fn what_is_swapped_out_counts_against_memory_and_swap_only() {
    let tree = Tree::unpack("v1-nested");
    let dir = "cgroup/memory/slice/app/web";
    tree.write(&format!("{dir}/memory.stat"), "total_rss 104857600\ntotal_shmem 0\ntotal_swap 52428800\n");
    tree.write(&format!("{dir}/memory.limit_in_bytes"), "209715200\n");
    let limits = limit::discover(&tree.root(), PID);
    let own: Vec<_> = limits.all.iter().filter(|limit| limit.level == Some(0)).collect();
    let headroom: Vec<_> = own.iter().map(|limit| limit.headroom_bytes().map(|bytes| bytes >> 20)).collect();
    assert_eq!(headroom, [Some(200 - 100), Some(428 - 150)]);
}

#[test]
fn what_may_be_used_leaves_a_reserve_and_nothing_is_guessed_without_a_limit() {
    let of = |mib: u64| {
        let limit = limit::Limit {
            bytes: mib << 20,
            usage_bytes: Ok(0),
            protected_bytes: Ok(10 << 20),
            consequence: limit::Consequence::Kill,
            source: "/sys/fs/cgroup/web/memory.max".into(),
            level: Some(0),
        };
        Limits { all: vec![limit], binding: Some(0), ..Limits::default() }
    };
    for (limit, budget) in [(9 * 1024, 8 * 1024), (1024, 1024 - 113), (400, 336), (128, 64), (64, 32), (0, 0)] {
        let found = of(limit).budget_bytes().map(|bytes| bytes >> 20);
        assert!(found.is_some_and(|mib| mib.abs_diff(budget) <= 1), "{limit} MiB: {found:?}");
    }
    assert_eq!(Limits::default().budget_bytes(), None);
    let shown = of(300).governing().unwrap().to_string();
    assert_eq!(shown, "300.0 MiB, 290.0 MiB left, kill: /sys/fs/cgroup/web/memory.max");
    let own = limit::own();
    assert!(own.host_bytes.is_some() && (own.all.len() + own.notes.len()) > 0, "{own:?}");
}
