//! Which limit binds, and which file says so.
//!
//! Every limit is a triple: its bytes, the usage **at the same level**, and its consequence. Among those that kill, the one
//! with the least headroom binds; all others are reported. A host's RAM is told as information and never binds. Looks at
//! every ancestor group that is visible (v1, v2, hybrid); costs a few files per level (0.3 ms for
//! three levels) and allocates, so it is for the start and for every few seconds, not for each reading.

use std::fmt;
use std::path::PathBuf;

use crate::gauge::group::{Group, Version};
use crate::gauge::{Protected, Root, Unread, host, process};
use crate::policy::Policy;
use crate::units::size;

mod rlimit;

/// What happens when usage reaches a limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Consequence {
    /// The kernel reclaims, then kills.
    Kill,
    /// The kernel slows every allocation down and reclaims; nothing is killed.
    Throttle,
    /// The kernel refuses: an allocation fails, or nothing more is swapped out.
    Refuse,
}

impl Consequence {
    /// `kill`, `throttle` or `refuse`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Consequence::Kill => "kill",
            Consequence::Throttle => "throttle",
            Consequence::Refuse => "refuse",
        }
    }
}

/// One limit, with the usage that counts against it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limit {
    /// The limit in bytes.
    pub bytes: u64,
    /// Raw usage at this limit's own level, page cache included.
    pub usage_bytes: Result<u64, Unread>,
    /// What of that usage the kernel cannot take back before it kills: program and kernel memory, and swap
    /// where the limit is one of memory and swap together. Raw usage where that cannot be told (and for limits of one process).
    pub protected_bytes: Result<u64, Unread>,
    /// What happens at the limit.
    pub consequence: Consequence,
    /// The file that says so.
    pub source: PathBuf,
    /// How many groups above the process's own one this is: 0 is its own. `None` for a limit of the process itself.
    pub level: Option<usize>,
}

impl Limit {
    /// What may still be used before the limit is reached; page cache does not count. `None` when usage is not known.
    pub fn headroom_bytes(&self) -> Option<u64> {
        self.protected_bytes.ok().map(|usage| self.bytes.saturating_sub(usage))
    }
}

/// `300.0 MiB, 120.0 MiB left, kill: /sys/fs/cgroup/web/memory.max`.
impl fmt::Display for Limit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}, ", size(self.bytes))?;
        match self.headroom_bytes() {
            Some(left) => write!(f, "{} left", size(left))?,
            None => f.write_str("usage unknown")?,
        }
        write!(f, ", {}: {}", self.consequence.as_str(), self.source.display())
    }
}

/// All limits of one process.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Limits {
    /// Every limit that was found, the process's own group first.
    pub all: Vec<Limit>,
    /// The index of the one that governs: the least headroom among those that kill. `None`: nothing to govern by.
    pub binding: Option<usize>,
    /// The host's RAM in bytes, for information: it never binds.
    pub host_bytes: Option<u64>,
    /// What was looked at and is no limit, and why.
    pub notes: Vec<String>,
}

impl Limits {
    /// The limit that governs.
    pub fn governing(&self) -> Option<&Limit> {
        self.binding.and_then(|index| self.all.get(index))
    }

    /// What a service may use when it has to stay below the governing limit: the limit less a reserve for draining, which is the larger
    /// of 64 MiB and an eighth of the budget, and at most half of the limit. For a watchdog's threshold or a governor's
    /// budget. `None`: no limit that kills was found, and none is guessed from the machine's memory.
    pub fn budget_bytes(&self) -> Option<u64> {
        let limit = self.governing()?.bytes;
        // budget + budget / 8 = limit: the reserve is a ninth of the limit.
        Some(limit - (limit / 9).max(Policy::default_reserve_bytes(0)).min(limit / 2))
    }
}

/// All limits of this very process: for a service that no supervisor of ours watches (systemd, a container, a shell).
///
/// # Examples
/// ```
/// use plimsoll::{limit, watchdog::{Config, Watchdog}};
///
/// let limits = limit::own();
/// match limits.governing() {
///     Some(limit) => eprintln!("memory limit: {limit}"),
///     None => eprintln!("no memory limit found: {}", limits.notes.join("; ")),
/// }
/// // Leave before it, with a reserve for the drain; without a limit there is no watchdog.
/// let watchdog = Watchdog::new(limits.budget_bytes().map(Config::new));
/// # drop(watchdog);
/// ```
pub fn own() -> Limits {
    discover(&Root::default(), rustix::process::getpid().as_raw_nonzero().get())
}

/// Finds all limits of a process: every ancestor's group limits, then the process's own.
///
/// Never fails: what cannot be read is a note.
pub fn discover(root: &Root, pid: i32) -> Limits {
    let mut limits = Limits::default();
    match Group::of_pid(root, pid) {
        Ok(group) => groups(&mut limits, &group),
        Err(why) => limits.notes.push(format!("no memory group for pid {pid}: {why}")),
    }
    process_limits(&mut limits, root, pid);
    match host::read(root) {
        Ok(host) => limits.host_bytes = Some(host.total_bytes),
        Err(why) => limits.notes.push(format!("host memory: {why}")),
    }
    limits.binding = binding(&limits.all);
    limits
}

/// The killing limit with the least headroom; one whose usage is unknown counts with its whole size. The nearest level
/// wins a tie.
fn binding(all: &[Limit]) -> Option<usize> {
    let killing = all.iter().enumerate().filter(|(_, limit)| limit.consequence == Consequence::Kill);
    killing.min_by_key(|(_, limit)| limit.headroom_bytes().unwrap_or(limit.bytes)).map(|(index, _)| index)
}

fn groups(limits: &mut Limits, group: &Group) {
    let mut own_protected = Err(Unread::Missing("memory.stat"));
    for (level, group) in group.ancestors().into_iter().enumerate() {
        let protected = group.protected();
        if level == 0 {
            own_protected = protected;
        }
        // A kernel before 5.11 could leave an ancestor out of the accounting.
        if level > 0 && group.read_number("memory.use_hierarchy") == Ok(0) {
            let dir = group.dir().display();
            limits.notes.push(format!("{dir}: use_hierarchy is 0, so neither it nor any group above it counts"));
            break;
        }
        for rule in rules(group.version()) {
            one(limits, &group, level, rule, protected);
        }
    }
    hidden(limits, group, own_protected.map(|protected| held_bytes(&protected, false)));
}

/// A limit file, the usage file of the same level, and what it does.
struct Rule {
    limit: &'static str,
    usage: &'static str,
    consequence: Consequence,
}

const MEMORY_AND_SWAP: &str = "memory.memsw.limit_in_bytes";

fn rules(version: Version) -> &'static [Rule] {
    use Consequence::{Kill, Refuse, Throttle};
    const fn rule(limit: &'static str, usage: &'static str, consequence: Consequence) -> Rule {
        Rule { limit, usage, consequence }
    }
    const V1: &[Rule] = &[
        rule("memory.limit_in_bytes", "memory.usage_in_bytes", Kill),
        rule(MEMORY_AND_SWAP, "memory.memsw.usage_in_bytes", Kill),
    ];
    const V2: &[Rule] = &[
        rule("memory.max", "memory.current", Kill),
        rule("memory.high", "memory.current", Throttle),
        rule("memory.swap.max", "memory.swap.current", Refuse),
    ];
    match version {
        Version::V1 => V1,
        Version::V2 => V2,
    }
}

fn one(limits: &mut Limits, group: &Group, level: usize, rule: &Rule, protected: Result<Protected, Unread>) {
    let source = group.dir().join(rule.limit);
    match group.read_limit(rule.limit) {
        Ok(Some(bytes)) => {
            let usage_bytes = group.read_number(rule.usage);
            let protected_bytes = match rule.consequence {
                Consequence::Refuse => usage_bytes,
                Consequence::Kill | Consequence::Throttle => {
                    let with_swap = rule.limit == MEMORY_AND_SWAP;
                    protected.map(|protected| held_bytes(&protected, with_swap)).or(usage_bytes)
                }
            };
            let level = Some(level);
            limits.all.push(Limit {
                bytes,
                usage_bytes,
                protected_bytes,
                consequence: rule.consequence,
                source,
                level,
            });
        }
        Ok(None) => limits.notes.push(format!("{}: no limit", source.display())),
        // The top of a v2 hierarchy and groups without the controller have none; memsw needs swap accounting.
        Err(Unread::Missing(_)) => limits.notes.push(format!("{}: not there", source.display())),
        Err(why) => limits.notes.push(format!("{}: {why}", source.display())),
    }
}

/// Program and kernel memory of a group. What is swapped out only counts against a limit of memory and swap together.
fn held_bytes(protected: &Protected, with_swap: bool) -> u64 {
    let swap = if with_swap { 0 } else { protected.swap_bytes.unwrap_or(0) };
    protected.program_bytes.saturating_sub(swap).saturating_add(protected.kernel_bytes.unwrap_or(0))
}

/// v1 tells the tightest limit above, also where a container does not see the group that has it.
fn hidden(limits: &mut Limits, group: &Group, own_protected: Result<u64, Unread>) {
    let Some(bytes) = group.hierarchical_limit() else { return };
    let visible = limits.all.iter().filter(|limit| limit.source.ends_with("memory.limit_in_bytes"));
    if visible.map(|limit| limit.bytes).min().is_some_and(|tightest| tightest <= bytes) {
        return;
    }
    let source = group.dir().join("memory.stat");
    limits.notes.push(format!(
        "{}: hierarchical_memory_limit {bytes}: set by a group that is not visible from here; its usage is at least ours",
        source.display()
    ));
    limits.all.push(Limit {
        bytes,
        usage_bytes: Err(Unread::Missing("usage of a group that is not visible")),
        protected_bytes: own_protected,
        consequence: Consequence::Kill,
        source,
        level: Some(group.ancestors().len()),
    });
}

fn process_limits(limits: &mut Limits, root: &Root, pid: i32) {
    let found = match rlimit::read(root, pid) {
        Ok(found) => found,
        Err(why) => return limits.notes.push(format!("limits of pid {pid}: {why}")),
    };
    let reading = process::read_process(root, pid);
    let source = root.proc.join(pid.to_string()).join("limits");
    let usage = [reading.map(|r| r.virtual_bytes), reading.map(|r| r.data_bytes)];
    let named = [("RLIMIT_AS", found.address_space), ("RLIMIT_DATA", found.data)];
    for ((name, limit), usage_bytes) in named.into_iter().zip(usage) {
        match limit {
            Some(Some(bytes)) => limits.all.push(Limit {
                bytes,
                usage_bytes,
                protected_bytes: usage_bytes,
                consequence: Consequence::Refuse,
                source: source.clone(),
                level: None,
            }),
            Some(None) => limits.notes.push(format!("{name}: unlimited")),
            None => limits.notes.push(format!("{name}: not told by {}", source.display())),
        }
    }
}
