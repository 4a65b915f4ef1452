//! The leak is not in the process that was started; and copy-on-write memory that only looks like a leak.
//!
//! Each shape runs with a cgroup of the child's own, and again where none can be made and the limit is only found.

use crate::reaction::assert_caught;
use crate::support::{KERNEL, start, turn};
use plimsoll_incidents::cgroup::TestGroup;
use plimsoll_incidents::judge;
use plimsoll_incidents::protected::Setup;
use std::time::Duration;

const SHAPES: [&str; 3] = ["grandchild", "detached", "three-children"];
const DEADLINE: Duration = Duration::from_secs(60);

#[test]
fn a_leak_anywhere_in_the_tree_is_caught_and_everybody_is_told() {
    let _turn = turn();
    for shape in SHAPES {
        let flags = ["--memory", "300M", "--reserve", "100M", "--restart", "never", "--quiet"];
        // The load counts what leaks; the processes that only wait have some 300 KiB each.
        let load = ["tree", shape, "--rate", "200", "--forever", "--mark", "299M"];
        let Some(mut service) = start(Setup::new(shape, &flags).load(&load)) else { return };
        assert_caught(&mut service, shape);
        assert!(service.evidence().all_signalled(), "{shape}: {:#?}", service.evidence());
    }
}

#[test]
fn the_same_without_a_cgroup_of_its_own_and_the_limit_only_found() {
    let _turn = turn();
    for shape in SHAPES {
        let flags = ["--no-cgroup", "--restart", "never", "--quiet"];
        let load = ["tree", shape, "--rate", "200", "--forever"];
        let Some(mut service) = start(Setup::new(shape, &flags).found_limit(KERNEL).load(&load)) else { return };
        let status = service.wait(DEADLINE).unwrap_or_else(|| panic!("{shape}: still runs: {}", service.stderr()));
        let (evidence, exit) = (service.evidence(), service.last_exit());
        assert_eq!(service.group().map(TestGroup::oom_kills_below), Some(0), "{shape}: {exit:#}");
        assert!(
            evidence.all_done() && evidence.all_signalled(),
            "{shape}: {evidence:#?}\n{exit:#}\n{}",
            service.stderr()
        );
        assert_eq!((status.code(), exit["reason"].as_str()), (Some(2), Some("memory")), "{shape}: {exit:#}");
        assert_eq!(judge::left(&evidence), Vec::<u32>::new(), "{shape}: left running");
    }
}

#[test]
fn copy_on_write_workers_are_never_signalled() {
    let _turn = turn();
    let limited: [&[&str]; 2] = [&["--memory", "300M"], &["--memory", "300M", "--no-cgroup"]];
    for flags in limited {
        let flags = [flags, &["--restart", "never", "--quiet"]].concat();
        let Some(mut service) = start(Setup::new("cow", &flags).load(&["cow", "--run-ms", "4000"])) else { return };
        let status = service.wait(DEADLINE).expect("it ends by itself");
        let evidence = service.evidence();
        assert_eq!(evidence.all("signal").count(), 0, "{flags:?}: {evidence:#?}\n{}", service.stderr());
        assert_eq!((status.code(), evidence.all_done()), (Some(0), true), "{flags:?}: {}", service.stderr());
    }
}
