//! One capture of a program that passes for Node: a shell that answers the signal as each case says.

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Child;
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

const SNAPSHOT: &str = "Heap.20261126.130501.$$.0.001.heapsnapshot";

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
    sleeper.kill().unwrap();
    sleeper.wait().unwrap();
}

#[test]
fn a_snapshot_that_is_taken_is_on_the_shelf_and_nothing_stays_put_down_to_it() {
    let (dir, out) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let program = Program::node(dir.path(), out.path(), &format!("echo {{}} > {SNAPSHOT}"));
    let mut context = program.context(dir.path(), Mode::Auto);
    let view = at(&mut context, Trigger::Asked, 1_700_000_000_000);
    assert_eq!(view.method, "v8-snapshot", "{view:?}");
    assert_eq!(view.id, format!("1700000000000-asked-{}", program.pid()));
    assert_eq!(names(out.path()), Vec::<String>::new());
    assert_eq!((context.attributed, context.desk.view().attributed_bytes), (false, 0));
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
