//! One capture of a program that passes for Node: a shell that answers the signal as each case says.

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Child, Command};
use std::sync::Arc;

use plimsoll::gauge::tree::Excluded;
use rustix::process::Pid;

use super::super::due::EVERY;
use super::super::mode::Mode;
use super::super::shelf::{Keep, Shelf};
use super::super::{Context, Desk};
use super::*;
use crate::supervise::child;
use crate::supervise::shared::Shared;

/// What makes a digest of a file that can be read: `heap digest FILE --out DIGEST`.
const WELL: &str = "printf 'plimsoll-digest 1\\nunix_ns 1\\nlife 0\\nend 0\\n' > $5";
const SNAPSHOT: &str = "Heap.20261126.130501.$$.0.001.heapsnapshot";

/// An executable of these lines.
fn script(dir: &Path, name: &str, lines: &str) -> PathBuf {
    let path = dir.join(name);
    std::fs::write(&path, format!("#!/bin/sh\n{lines}\n")).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o700)).unwrap();
    path
}

/// A program that runs, ended with the test.
struct Program {
    child: Child,
}

impl Program {
    /// A shell under the name of `node` that does `on_signal` and writes its snapshots to `out`.
    fn node(dir: &Path, out: &Path, on_signal: &str) -> Program {
        let (shell, ready) = (dir.join("node"), dir.join("ready"));
        std::fs::copy("/bin/sh", &shell).unwrap();
        std::fs::set_permissions(&shell, std::fs::Permissions::from_mode(0o700)).unwrap();
        let script = format!("trap '{on_signal}' USR2; : > {}; while :; do sleep 0.05; done", ready.display());
        let options = format!("--heapsnapshot-signal=SIGUSR2 --diagnostic-dir={}", out.display());
        let child =
            Command::new(&shell).arg("-c").arg(script).env("NODE_OPTIONS", options).current_dir(out).spawn().unwrap();
        while !ready.exists() {
            std::thread::sleep(Duration::from_millis(5));
        }
        Program { child }
    }

    fn pid(&self) -> i32 {
        i32::try_from(self.child.id()).unwrap()
    }

    /// What captures of it work with: everything in `dir`, a budget of 1 GiB.
    fn context(&self, dir: &Path, mode: Mode) -> Context {
        let shared = Shared::of_test(dir);
        let process = child::identify(Pid::from_raw(self.pid()).unwrap()).unwrap();
        shared.child_started(&child::adopt(process).unwrap(), 0.0);
        let desk = Arc::new(Desk::new("auto", EVERY));
        desk.life_began(Duration::ZERO);
        Context {
            mode,
            shelf: Shelf::new(dir.join("heap"), Keep::default()),
            desk,
            shared: Arc::new(shared),
            excluded: Excluded::default(),
            agents: None,
            learnt: None,
            newest: None,
            own: script(dir, "own", WELL),
            patience: node::Patience::default(),
            late: None,
            attributed: false,
        }
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

fn names(dir: &Path) -> Vec<String> {
    std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
}

#[test]
fn a_runtime_is_known_by_its_program() {
    let mut sleeper = Command::new("sleep").arg("60").spawn().unwrap();
    assert_eq!(runtime(i32::try_from(sleeper.id()).unwrap()), Runtime::Other);
    assert_eq!(runtime(i32::MAX), Runtime::Other);
    let dir = tempfile::tempdir().unwrap();
    let node = Program::node(dir.path(), dir.path(), ":");
    assert_eq!(runtime(node.pid()), Runtime::Node);
    std::fs::remove_file(dir.path().join("node")).unwrap();
    assert_eq!(runtime(node.pid()), Runtime::Node, "upgraded on disk");
    sleeper.kill().unwrap();
    sleeper.wait().unwrap();
}

#[test]
fn of_workers_that_are_about_equal_always_the_same_one_is_captured() {
    let of = |life: u64, runtime: Runtime, mib: u64| Target {
        pid: 1,
        runtime,
        connected: false,
        anon_bytes: mib << 20,
        resident_bytes: 0,
        life,
    };
    use Runtime::{Node, Other};
    /// Life, runtime, MiB.
    type Process = (u64, Runtime, u64);
    // (the processes, the one before, the one chosen)
    let table: [(&[Process], Option<u64>, Option<u64>); 9] = [
        (&[], Some(1), None),
        (&[(1, Node, 100), (2, Node, 101)], None, Some(2)),
        (&[(1, Node, 100), (2, Node, 101)], Some(1), Some(1)),
        (&[(1, Node, 68), (2, Node, 101)], Some(1), Some(1)),
        (&[(1, Node, 66), (2, Node, 101)], Some(1), Some(2)),
        // It has ended, and a new one has begun.
        (&[(3, Node, 20), (2, Node, 101)], Some(1), Some(2)),
        // A runtime that is known comes first, whatever was taken before it started.
        (&[(1, Other, 500), (2, Node, 20)], Some(1), Some(2)),
        (&[(1, Other, 500), (2, Node, 20)], None, Some(2)),
        (&[(1, Other, 500), (2, Other, 400)], Some(2), Some(2)),
    ];
    for (found, before, expected) in table {
        let targets: Vec<Target> = found.iter().map(|(life, runtime, mib)| of(*life, *runtime, *mib)).collect();
        assert_eq!(choose(&targets, before).map(|one| one.life), expected, "{found:?} after {before:?}");
    }
}

#[test]
fn a_snapshot_that_is_taken_is_on_the_shelf_and_nothing_stays_put_down_to_it() {
    let (dir, out) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let program = Program::node(dir.path(), out.path(), &format!("echo {{}} > {SNAPSHOT}"));
    let mut context = program.context(dir.path(), Mode::Auto);
    let view = at(&mut context, Trigger::Asked, 1_700_000_000_000);
    assert_eq!((view.method.as_str(), &view.failed, view.notes.len()), ("v8-snapshot", &None, 0), "{view:?}");
    assert_eq!(view.id, format!("1700000000000-asked-{}", program.pid()));
    assert_eq!(names(out.path()), Vec::<String>::new());
    assert_eq!((context.attributed, context.desk.view().attributed_bytes), (false, 0));
}

#[test]
fn a_capture_that_cannot_even_begin_is_counted_and_said() {
    let (dir, out) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let program = Program::node(dir.path(), out.path(), ":");
    let mut context = program.context(dir.path(), Mode::Auto);
    std::fs::write(dir.path().join("heap"), "no directory").unwrap();
    let view = at(&mut context, Trigger::Periodic, 1_700_000_000_000);
    assert!(view.failed.as_ref().is_some_and(|why| why.starts_with("cannot make ")), "{view:?}");
    assert_eq!(context.desk.view().failed_total["not-begun"], 1);
    let said = context.shared.journal.newest(1);
    assert!(said[0].text.starts_with("heap: no capture: cannot make "), "{said:?}");
}

#[test]
fn a_snapshot_that_cannot_be_put_on_the_shelf_has_failed_and_a_cheaper_one_is_taken() {
    let (dir, out) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let program = Program::node(dir.path(), out.path(), &format!("echo {{}} > {SNAPSHOT}"));
    let mut context = program.context(dir.path(), Mode::Auto);
    // Something lies where the snapshot is to go.
    let place = dir.path().join("heap").join(format!("1700000000000-asked-{}.heapsnapshot", program.pid()));
    std::fs::create_dir_all(place.join("x")).unwrap();
    let view = at(&mut context, Trigger::Asked, 1_700_000_000_000);
    assert_eq!((view.method.as_str(), &view.failed), ("smaps", &None), "{view:?}");
    assert!(view.notes[0].starts_with("v8-snapshot failed: cannot rename to "), "{view:?}");
    assert_eq!(context.desk.view().failed_total["v8-snapshot"], 1);
    assert_eq!(names(out.path()), Vec::<String>::new(), "nothing stays where nobody looks after it");
    assert_eq!((context.attributed, context.desk.view().attributed_bytes), (false, 0));
}

#[test]
fn what_cannot_be_read_has_failed_and_leaves_nothing_and_what_could_not_be_looked_at_stays() {
    let v8_is_bad = |otherwise: &str| format!("case $3 in *.heapsnapshot) {otherwise};; *) {WELL};; esac");
    // Half a megabyte, well within what a digest may have.
    let rows = "seq 20000 | sed 's/.*/class 1 1 0 a-class-of-number-&/'";
    let long = format!("(printf 'plimsoll-digest 1\\nunix_ns 1\\nlife 0\\n'; {rows}; echo end 20000) > $5");
    let unreadable = "echo warned >&2; echo plimsoll: cannot be read: at byte 4: no JSON >&2";
    // (what the digest's process does, the method that gave the capture, what is said)
    let cases = [
        (v8_is_bad(unreadable), "smaps", "v8-snapshot failed: what was written cannot be read: at byte 4: no JSON"),
        (
            v8_is_bad("echo plimsoll: cannot write it: disk full >&2"),
            "v8-snapshot",
            "no digest: cannot write it: disk full",
        ),
        (v8_is_bad("kill -9 $$"), "v8-snapshot", "no digest: /"),
        (v8_is_bad("echo half > $5"), "v8-snapshot", "no digest: /"),
        (long, "v8-snapshot", ""),
    ];
    for (own, method, said) in cases {
        let (dir, out) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let program = Program::node(dir.path(), out.path(), &format!("echo {{}} > {SNAPSHOT}"));
        let mut context = program.context(dir.path(), Mode::Auto);
        context.own = script(dir.path(), "own", &own);
        let view = at(&mut context, Trigger::Asked, 1_700_000_000_000);
        assert_eq!((view.method.as_str(), &view.failed), (method, &None), "{said}: {view:?}");
        assert!(view.notes.concat().starts_with(said) && view.notes.is_empty() == said.is_empty(), "{said}: {view:?}");
        let desk = context.desk.view();
        let is_kept = method == "v8-snapshot";
        assert_eq!(desk.taken_total.contains_key("v8-snapshot"), is_kept, "{said}: {desk:?}");
        assert_eq!(!desk.failed_total.contains_key("v8-snapshot"), is_kept, "{said}: {desk:?}");
        assert_eq!(desk.failed_total.contains_key("digest"), said.starts_with("no digest"), "{said}: {desk:?}");
        let kept = names(&dir.path().join("heap")).iter().any(|name| name.ends_with(".heapsnapshot"));
        assert_eq!(kept, is_kept, "{said}");
    }
}

#[test]
fn a_snapshot_that_begins_late_is_waited_for_and_asked_for_once() {
    let dir = tempfile::tempdir().unwrap();
    let (heap, name) = (dir.path().join("heap"), "Heap.20261126.130501.$$.0.001.heapsnapshot");
    let tmp = heap.join("tmp");
    std::fs::create_dir_all(&tmp).unwrap();
    let until = |file: &str| format!("while [ ! -e {}/{file} ]; do sleep 0.02; done", dir.path().display());
    let on_signal = format!(
        "echo x >> {}/signals; {}; printf {{ > {name}; {}; echo }} >> {name}",
        dir.path().display(),
        until("begin"),
        until("end")
    );
    let program = Program::node(dir.path(), &tmp, &on_signal);
    let mut context = program.context(dir.path(), Mode::Auto);
    context.patience.appear = Duration::from_millis(300);
    let go = |step: &str| std::fs::write(dir.path().join(step), "").unwrap();

    let view = at(&mut context, Trigger::Asked, 1_700_000_000_000);
    assert_eq!(view.method, "smaps", "the cheap one at once: {view:?}");
    assert!(view.notes[0].contains("began no snapshot within 0 s"), "{view:?}");
    let attributed = context.desk.view().attributed_bytes;
    assert!(context.attributed && attributed > 0, "what it is going to grow by is the snapshot's");
    assert_eq!(full::late(&mut context), None);

    // It begins. Whoever asks meanwhile neither asks it again nor removes what it writes.
    go("begin");
    while !names(&tmp).iter().any(|name| name.ends_with(".heapsnapshot")) {
        std::thread::sleep(Duration::from_millis(5));
    }
    let view = at(&mut context, Trigger::Asked, 1_700_000_001_000);
    assert!(view.method == "smaps" && view.notes[0].contains("a second one is not asked for"), "{view:?}");
    assert_eq!(context.desk.view().attributed_bytes, attributed);
    go("end");
    let view = full::late(&mut context).unwrap();
    assert_eq!((view.method.as_str(), view.trigger.as_str(), &view.failed), ("v8-snapshot", "asked", &None));
    assert!(view.notes.len() == 1 && view.notes[0].starts_with("begun late"), "{view:?}");
    assert!(names(&heap).contains(&format!("{}.heapsnapshot", view.id)), "{:?}", names(&heap));
    assert_eq!((context.attributed, context.desk.view().attributed_bytes), (false, 0));
    assert_eq!(std::fs::metadata(dir.path().join("signals")).unwrap().len(), 2, "one signal");
}

#[test]
fn a_snapshot_that_is_late_ends_with_its_process() {
    let (dir, out) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let program = Program::node(dir.path(), out.path(), ":");
    let mut context = program.context(dir.path(), Mode::Auto);
    context.patience.appear = Duration::ZERO;
    at(&mut context, Trigger::Asked, 1_700_000_000_000);
    assert!(context.late.is_some() && context.attributed);
    drop(program);
    assert_eq!(full::late(&mut context), None);
    assert!(context.late.is_none() && !context.attributed);
    assert_eq!(context.desk.view().attributed_bytes, 0);
}
