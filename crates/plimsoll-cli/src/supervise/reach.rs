//! Whom a signal reaches: everything of the child, and nothing else.
//!
//! With a cgroup: every process in it. Without: the child's process group and every process of its tree (Plimsoll is a
//! subreaper, so what double-forks away comes back to it; its own helpers are excluded). The process group gets the
//! signal in one system call first; the others one by one, each once.

use std::sync::Arc;

use plimsoll::gauge::Root;
use plimsoll::gauge::process::read_identity;
use plimsoll::gauge::tree::{Excluded, MAX_MEMBERS, TreeGauge, TreeMonitor, TreeProcess, TreeScope};
use rustix::process::{Pid, Signal};

use super::group::ChildGroup;

/// How the child is held together.
#[derive(Clone, Debug)]
pub(crate) enum Bond {
    /// A cgroup of its own.
    Group(Arc<ChildGroup>),
    /// Its process tree, as the governor's gauge sees it.
    Tree(TreeMonitor),
}

/// The scope in which a tree is looked for.
pub(crate) fn scope(main: Pid, adopted: bool, helpers: &Excluded) -> TreeScope {
    if adopted {
        TreeScope::Descendants { root: main.as_raw_nonzero().get() }
    } else {
        TreeScope::Below { parent: rustix::process::getpid().as_raw_nonzero().get(), excluded: helpers.clone() }
    }
}

/// Sends signals to everything of one life of the child. One per thread: it holds its own buffers.
#[derive(Debug)]
pub(crate) struct Reach {
    main: Pid,
    adopted: bool,
    bond: Bond,
    helpers: Excluded,
    pids: Vec<i32>,
    tree: Vec<TreeProcess>,
    /// The main process was reaped: its number, and its group's, may become another's.
    main_gone: bool,
}

impl Reach {
    /// For the life whose main process, and process group, is `main`. Reserves its buffers here.
    pub(crate) fn new(main: Pid, adopted: bool, bond: Bond, helpers: Excluded) -> Reach {
        let (pids, tree) = match &bond {
            Bond::Group(_) => (Vec::with_capacity(1024), Vec::new()),
            Bond::Tree(_) => (Vec::new(), Vec::with_capacity(MAX_MEMBERS)),
        };
        Reach { main, adopted, bond, helpers, pids, tree, main_gone: false }
    }

    /// The main process was reaped: from now on nobody is reached through the number of its process group.
    pub(crate) fn main_is_gone(&mut self) {
        self.main_gone = true;
    }

    /// Sends `signal` to everything, each process once. Returns how many got it beyond the process group, and whether the
    /// process group got it.
    pub(crate) fn signal(&mut self, signal: Signal) -> Sent {
        let group = !self.main_gone && rustix::process::kill_process_group(self.main, signal).is_ok();
        let mut others = 0;
        match &self.bond {
            Bond::Group(child) => {
                child.members(&mut self.pids);
                for pid in self.pids.iter().filter_map(|pid| Pid::from_raw(*pid)) {
                    others += usize::from(self.outside(pid) && rustix::process::kill_process(pid, signal).is_ok());
                }
            }
            Bond::Tree(monitor) => {
                monitor.processes(&mut self.tree);
                for process in &self.tree {
                    if let Some(pid) = Pid::from_raw(process.pid)
                        && self.outside(pid)
                        && is_still(*process)
                    {
                        others += usize::from(rustix::process::kill_process(pid, signal).is_ok());
                    }
                }
            }
        }
        Sent { group, others }
    }

    /// Whether a process is outside of the child's process group, which has the signal already.
    fn outside(&self, pid: Pid) -> bool {
        self.main_gone || rustix::process::getpgid(Some(pid)).is_ok_and(|group| group != self.main)
    }

    /// The living processes, looked for anew: at most as many as fit, zombies left out.
    pub(crate) fn left(&mut self) -> usize {
        match &self.bond {
            Bond::Group(child) => {
                child.members(&mut self.pids);
                self.pids.len()
            }
            Bond::Tree(monitor) => {
                monitor.processes(&mut self.tree);
                // A fresh look as well: what was forked since the gauge's last one.
                if let Ok(gauge) = TreeGauge::open(&Root::default(), scope(self.main, self.adopted, &self.helpers)) {
                    let mut fresh = Vec::new();
                    gauge.monitor().processes(&mut fresh);
                    self.tree.extend(fresh);
                }
                self.tree.sort_unstable_by_key(|process| (process.pid, process.start_ticks));
                self.tree.dedup();
                let living = self.tree.iter().filter(|process| is_still(**process)).count();
                let group =
                    !self.main_gone && rustix::process::test_kill_process_group(self.main).is_ok() && !self.is_zombie();
                living.max(usize::from(group))
            }
        }
    }

    /// A process group of zombies still takes signals; it is not a process that is left.
    fn is_zombie(&self) -> bool {
        let main = self.main.as_raw_nonzero().get();
        read_identity(&Root::default(), main).is_ok_and(|identity| identity.state == b'Z')
    }

    /// SIGKILL to everything that is left.
    pub(crate) fn kill(&mut self) -> usize {
        let sent = self.signal(Signal::KILL);
        match &self.bond {
            Bond::Group(child) => child.kill(),
            Bond::Tree(_) => {
                if let Ok(gauge) = TreeGauge::open(&Root::default(), scope(self.main, self.adopted, &self.helpers)) {
                    gauge.monitor().processes(&mut self.tree);
                    for process in self.tree.iter().filter(|process| is_still(**process)) {
                        if let Some(pid) = Pid::from_raw(process.pid) {
                            rustix::process::kill_process(pid, Signal::KILL).ok();
                        }
                    }
                }
                sent.others + usize::from(sent.group)
            }
        }
    }
}

/// What one round of signals reached.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Sent {
    /// The process group got it.
    pub(crate) group: bool,
    /// So many processes outside of the process group got it.
    pub(crate) others: usize,
}

impl std::fmt::Display for Sent {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match (self.group, self.others) {
            (true, 0) => f.write_str("to its process group"),
            (true, n) => write!(f, "to its process group and {} beyond it", processes(n)),
            (false, 0) => f.write_str("to nobody: everything has ended"),
            (false, n) => write!(f, "to {}", processes(n)),
        }
    }
}

/// "1 process", "3 processes".
pub(crate) fn processes(n: usize) -> String {
    if n == 1 { "1 process".to_owned() } else { format!("{n} processes") }
}

/// The same process as when it was seen, and no zombie.
fn is_still(process: TreeProcess) -> bool {
    read_identity(&Root::default(), process.pid)
        .is_ok_and(|identity| identity.start_ticks == process.start_ticks && identity.state != b'Z')
}
