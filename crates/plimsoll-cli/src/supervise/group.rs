//! A cgroup of the child's own, with Plimsoll outside it: `plimsoll-NAME-PID` below Plimsoll's own memory cgroup.
//!
//! Limit = budget + reserve, no swap unless asked for, v2 `memory.oom.group` = 1, `memory.high` untouched (it would
//! throttle the drain). Where none can be made, the reason is a sentence and the process tree is summed instead. A group
//! is removed when its supervisor ends; one that a killed supervisor left behind is removed by the next of that name.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::time::Duration;

use plimsoll::gauge::Root;
use plimsoll::gauge::group::{Group, Version};
use rustix::process::{Pid, Signal};

use super::files::{read_small, write_kernel};
use super::state::GroupState;

/// How long removing waits for the last processes to be gone.
const REMOVE_PATIENCE: Duration = Duration::from_millis(500);
/// Groups that a child made below its own are followed this deep, …
const MAX_DEPTH: usize = 4;
/// … and at most so many of them.
const MAX_GROUPS: usize = 256;
/// Groups of one name and pid, from other pid namespaces, that are stepped around.
const MAX_NAMESAKES: usize = 8;

/// The child's cgroup.
#[derive(Debug)]
pub(crate) struct ChildGroup {
    group: Group,
    /// v1: a v2 group of the same name, for the child's own PSI.
    sibling: Option<Group>,
    /// v2: Plimsoll moved itself into this leaf of its former group, to be undone at the end.
    leaf: Option<PathBuf>,
    swap: bool,
}

impl ChildGroup {
    /// Makes the group. `swap`: the child may use swap beyond its limit.
    ///
    /// # Errors
    /// A sentence that says why there can be none.
    pub(crate) fn make(root: &Root, name: &str, limit_bytes: Option<u64>, swap: bool) -> Result<ChildGroup, String> {
        let own_pid = rustix::process::getpid().as_raw_nonzero().get();
        let own = Group::of_pid(root, own_pid).map_err(|why| format!("no memory cgroup is visible: {why}"))?;
        let leaf = match own.version() {
            Version::V1 => None,
            Version::V2 => prepare_v2(&own, own_pid)?,
        };
        let group = match make_dir(&own, &format!("plimsoll-{name}-{own_pid}")) {
            Ok(group) => group,
            Err(why) => {
                if let Some(leaf) = &leaf {
                    leave_leaf(leaf);
                }
                return Err(why);
            }
        };
        let sibling = match own.version() {
            Version::V1 => make_sibling(root, own_pid, &format!("plimsoll-{name}-{own_pid}")),
            Version::V2 => None,
        };
        let child = ChildGroup { group, sibling, leaf, swap };
        match child.set_up(limit_bytes) {
            Ok(()) => Ok(child),
            Err(error) => {
                let why = format!("cannot set up {}: {error}", child.group.dir().display());
                child.remove();
                Err(why)
            }
        }
    }

    /// The group that a dead supervisor made for the child that is taken over.
    pub(crate) fn adopt(root: &Root, states: &[GroupState], swap: bool) -> Option<ChildGroup> {
        let (memory, others) = states.split_first()?;
        let group = of_state(root, memory)?;
        let sibling = others.first().and_then(|state| of_state(root, state));
        Some(ChildGroup { group, sibling, leaf: None, swap })
    }

    fn set_up(&self, limit_bytes: Option<u64>) -> io::Result<()> {
        if let Some(limit) = limit_bytes {
            self.set_limit(limit)?;
        }
        let dir = self.group.dir();
        match self.group.version() {
            Version::V1 if !self.swap => {
                // Absent on kernels without swap accounting; the memsw limit is what counts.
                write_kernel(&dir.join("memory.swappiness"), "0").ok();
            }
            Version::V1 => {}
            Version::V2 => {
                write_kernel(&dir.join("memory.oom.group"), "1").ok();
                if !self.swap {
                    write_kernel(&dir.join("memory.swap.max"), "0").ok();
                }
            }
        }
        Ok(())
    }

    /// Sets the kernel's limit, up or down.
    ///
    /// # Errors
    /// What the kernel says; v1 refuses (`EBUSY`) what it cannot reclaim down to.
    pub(crate) fn set_limit(&self, bytes: u64) -> io::Result<()> {
        let dir = self.group.dir();
        let text = bytes.to_string();
        let limit = dir.join(self.group.limit_file());
        if self.group.version() == Version::V2 || self.swap {
            return write_kernel(&limit, &text);
        }
        // v1 keeps limit ≤ memsw limit at every moment, so growing and shrinking need different orders.
        let memsw = dir.join("memory.memsw.limit_in_bytes");
        if !memsw.exists() {
            return write_kernel(&limit, &text);
        }
        let now = self.group.limit().ok().flatten().unwrap_or(u64::MAX);
        let (first, second) = if bytes > now { (&memsw, &limit) } else { (&limit, &memsw) };
        write_kernel(first, &text)?;
        write_kernel(second, &text)
    }

    /// The group for gauges.
    pub(crate) fn group(&self) -> &Group {
        &self.group
    }

    /// For `state.json`.
    pub(crate) fn states(&self) -> Vec<GroupState> {
        let state =
            |group: &Group| GroupState { version: group.version().as_str().to_owned(), dir: group.dir().to_owned() };
        std::iter::once(&self.group).chain(&self.sibling).map(state).collect()
    }

    /// The child's own PSI for memory, where the kernel has one.
    pub(crate) fn pressure_file(&self) -> Option<PathBuf> {
        self.sibling.as_ref().unwrap_or(&self.group).pressure_file()
    }

    /// The files into which the child writes itself between fork and exec.
    pub(crate) fn joiners(&self) -> io::Result<Vec<OwnedFd>> {
        let join = |group: &Group| OpenOptions::new().write(true).open(group.dir().join("cgroup.procs"));
        let mut joiners = vec![File::into(join(&self.group)?)];
        // Without its own PSI the machine's is shown.
        joiners.extend(self.sibling.as_ref().and_then(|sibling| join(sibling).ok()).map(OwnedFd::from));
        Ok(joiners)
    }

    /// Whether `pid` is in it.
    pub(crate) fn holds(&self, pid: i32) -> bool {
        let mut pids = Vec::new();
        self.members(&mut pids);
        pids.contains(&pid)
    }

    /// Replaces `pids` with every process of the group and of groups the child made below it.
    pub(crate) fn members(&self, pids: &mut Vec<i32>) {
        members(&self.group, pids);
    }

    /// The `oom_kill` counter, where the kernel has one.
    pub(crate) fn oom_kills(&self) -> Option<u64> {
        self.group.oom_kills().ok()
    }

    /// SIGKILL to every process in it: v2 `cgroup.kill` where the kernel has it, else one by one. Returns how many were left.
    pub(crate) fn kill(&self) -> usize {
        let mut pids = Vec::new();
        self.members(&mut pids);
        if self.group.version() == Version::V2 && write_kernel(&self.group.dir().join("cgroup.kill"), "1").is_ok() {
            return pids.len();
        }
        for pid in &pids {
            if let Some(pid) = Pid::from_raw(*pid) {
                rustix::process::kill_process(pid, Signal::KILL).ok();
            }
        }
        pids.len()
    }

    /// Removes the group, killing what may be left in it, and puts Plimsoll back where it was. False: it could not be.
    pub(crate) fn remove(self) -> bool {
        let removed = remove(&self.group) && self.sibling.as_ref().is_none_or(remove);
        if let Some(leaf) = &self.leaf {
            leave_leaf(leaf);
        }
        removed
    }
}

/// Makes the directory. One of that name that is empty was left by a supervisor that had our pid; one that holds processes
/// belongs to a supervisor with the same pid in another pid namespace, and ours gets a number.
fn make_dir(own: &Group, name: &str) -> Result<Group, String> {
    for number in 1..=MAX_NAMESAKES {
        let group = own.child(&if number == 1 { name.to_owned() } else { format!("{name}.{number}") });
        match std::fs::create_dir(group.dir()) {
            Ok(()) => return Ok(group),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                let mut pids = Vec::new();
                members(&group, &mut pids);
                if pids.is_empty() {
                    return Ok(group);
                }
            }
            Err(error) => return Err(format!("cannot make {}: {error}", group.dir().display())),
        }
    }
    Err(format!("{MAX_NAMESAKES} groups named {name} hold processes"))
}

/// Kills what is left in a stale group of a dead supervisor and removes it.
pub(crate) fn remove_stale(root: &Root, states: &[GroupState]) {
    for state in states {
        if let Some(stale) = ChildGroup::adopt(root, std::slice::from_ref(state), true) {
            stale.remove();
        }
    }
}

/// A group that `state.json` names.
fn of_state(root: &Root, state: &GroupState) -> Option<Group> {
    let version = match state.version.as_str() {
        "v1" => Version::V1,
        "v2" => Version::V2,
        _ => return None,
    };
    is_ours(&state.dir).then(|| Group::at(root, version, &state.dir))
}

/// The v2 group beside a v1 one; `None` where there is no v2 hierarchy, or it has no PSI.
fn make_sibling(root: &Root, own_pid: i32, name: &str) -> Option<Group> {
    let own = Group::unified_of_pid(root, own_pid).ok()?;
    own.pressure_file()?;
    make_dir(&own, name).ok()
}

/// A path from `state.json` is only touched when it names a group as Plimsoll makes them.
fn is_ours(dir: &Path) -> bool {
    let named = dir.file_name().and_then(|name| name.to_str()).is_some_and(|name| name.starts_with("plimsoll-"));
    named && dir.join("cgroup.procs").exists()
}

fn members(group: &Group, pids: &mut Vec<i32>) {
    if group.procs(pids).is_err() {
        pids.clear();
    }
    let mut below = Vec::new();
    subgroups(group, 0, &mut below);
    let mut more = Vec::new();
    for group in &below {
        if group.procs(&mut more).is_ok() {
            pids.extend_from_slice(&more);
        }
    }
}

/// Groups below `group`, nearest first.
fn subgroups(group: &Group, depth: usize, found: &mut Vec<Group>) {
    if depth == MAX_DEPTH {
        return;
    }
    let Ok(entries) = std::fs::read_dir(group.dir()) else { return };
    for entry in entries.flatten() {
        if found.len() == MAX_GROUPS {
            return;
        }
        if entry.file_type().is_ok_and(|kind| kind.is_dir())
            && let Some(name) = entry.file_name().to_str()
        {
            let child = group.child(name);
            found.push(child.clone());
            subgroups(&child, depth + 1, found);
        }
    }
}

fn remove(group: &Group) -> bool {
    let mut pids = Vec::new();
    let step = Duration::from_millis(5);
    let mut waited = Duration::ZERO;
    loop {
        members(group, &mut pids);
        for pid in pids.iter().filter_map(|pid| Pid::from_raw(*pid)) {
            rustix::process::kill_process(pid, Signal::KILL).ok();
        }
        let mut below = Vec::new();
        subgroups(group, 0, &mut below);
        for child in below.iter().rev() {
            // What cannot be removed yet is tried again with its parent.
            std::fs::remove_dir(child.dir()).ok();
        }
        match std::fs::remove_dir(group.dir()) {
            Ok(()) => return true,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return true,
            Err(_) if waited < REMOVE_PATIENCE => {
                std::thread::sleep(step);
                waited += step;
            }
            Err(_) => return false,
        }
    }
}

/// What cgroup v2 asks for before a controlled group can be made below one's own.
#[derive(Debug, PartialEq, Eq)]
enum Preparation {
    /// Nothing: memory is already handed down.
    Ready,
    /// Hand memory down.
    Enable,
    /// Move Plimsoll, the only process, into a leaf; then hand memory down.
    MoveAndEnable,
    /// It cannot be.
    Refuse(String),
}

/// Decides from the files of Plimsoll's own group. `others`: processes in it besides Plimsoll. `top`: the true root,
/// which is exempt from the rule that a group with processes hands nothing down.
fn plan_v2(controllers: &str, handed_down: &str, others: usize, top: bool) -> Preparation {
    let has = |list: &str| list.split_whitespace().any(|word| word == "memory");
    if has(handed_down) {
        Preparation::Ready
    } else if !has(controllers) {
        Preparation::Refuse("the memory controller is not handed down to Plimsoll's own cgroup".to_owned())
    } else if top {
        Preparation::Enable
    } else if others == 0 {
        Preparation::MoveAndEnable
    } else {
        Preparation::Refuse(format!(
            "Plimsoll shares its cgroup with {others} other processes, and cgroup v2 allows no controlled group below one \
             that holds processes (try: systemd-run --user --scope -p Delegate=yes plimsoll run …)"
        ))
    }
}

/// Does what [`plan_v2`] says; returns the leaf when Plimsoll moved into one.
fn prepare_v2(own: &Group, own_pid: i32) -> Result<Option<PathBuf>, String> {
    let read = |file: &str| {
        let mut buffer = [0_u8; 4096];
        read_small(own.dir().join(file), &mut buffer).map(str::to_owned).unwrap_or_default()
    };
    let mut pids = Vec::new();
    own.procs(&mut pids).map_err(|why| format!("cannot list the processes of {}: {why}", own.dir().display()))?;
    let others = pids.iter().filter(|pid| **pid != own_pid).count();
    let top = !own.dir().join("cgroup.type").exists();
    let enable = || {
        write_kernel(&own.dir().join("cgroup.subtree_control"), "+memory")
            .map_err(|error| format!("cannot hand the memory controller down in {}: {error}", own.dir().display()))
    };
    match plan_v2(&read("cgroup.controllers"), &read("cgroup.subtree_control"), others, top) {
        Preparation::Ready => Ok(None),
        Preparation::Enable => enable().map(|()| None),
        Preparation::Refuse(why) => Err(why),
        Preparation::MoveAndEnable => {
            let leaf = own.dir().join(format!("plimsoll-self-{own_pid}"));
            std::fs::create_dir(&leaf).map_err(|error| format!("cannot make {}: {error}", leaf.display()))?;
            let moved = write_kernel(&leaf.join("cgroup.procs"), &own_pid.to_string())
                .map_err(|error| format!("cannot move into {}: {error}", leaf.display()));
            match moved.and_then(|()| enable()) {
                Ok(()) => Ok(Some(leaf)),
                Err(why) => {
                    leave_leaf(&leaf);
                    Err(why)
                }
            }
        }
    }
}

/// Undoes the move: memory is no longer handed down, Plimsoll is back, the leaf is gone. Best effort, at the end.
fn leave_leaf(leaf: &Path) {
    let Some(own) = leaf.parent() else { return };
    write_kernel(&own.join("cgroup.subtree_control"), "-memory").ok();
    let pid = rustix::process::getpid().as_raw_nonzero().get();
    if write_kernel(&own.join("cgroup.procs"), &pid.to_string()).is_ok() {
        std::fs::remove_dir(leaf).ok();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_v2_asks_for_before_a_group_can_be_made() {
        let table = [
            ("cpu memory pids", "memory", 5, false, "Ready"),
            ("cpu memory", "", 0, true, "Enable"),
            ("cpu memory", "cpu", 7, true, "Enable"),
            ("memory", "", 0, false, "MoveAndEnable"),
            ("memory", "", 3, false, "3 other processes"),
            ("cpu pids", "", 0, false, "not handed down"),
            ("", "", 0, true, "not handed down"),
        ];
        for (controllers, handed_down, others, top, expected) in table {
            let plan = format!("{:?}", plan_v2(controllers, handed_down, others, top));
            assert!(plan.contains(expected), "{controllers:?} {handed_down:?} {others} {top}: {plan}");
        }
    }

    #[test]
    fn a_group_named_by_the_state_is_only_taken_when_plimsoll_made_it() {
        let dir = tempfile::tempdir().unwrap();
        for (name, procs, taken) in
            [("plimsoll-web-1", true, true), ("plimsoll-web-2", false, false), ("system.slice", true, false)]
        {
            let path = dir.path().join(name);
            std::fs::create_dir(&path).unwrap();
            if procs {
                std::fs::File::create(path.join("cgroup.procs")).unwrap();
            }
            let state = GroupState { version: "v1".into(), dir: path };
            assert_eq!(ChildGroup::adopt(&Root::default(), &[state], false).is_some(), taken, "{name}");
        }
    }
}
