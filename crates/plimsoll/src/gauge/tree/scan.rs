//! Finds a tree's processes by reading every `/proc/PID/stat` (3–10 µs each): this is what works on kernels without
//! `/proc/PID/task/TID/children`, and it alone sees sessions and process groups.
//!
//! All tables are reserved at the start and never grow. Address space that is not used costs no memory.

use std::mem::MaybeUninit;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};

use super::scope::{MAX_EXCLUDED, TreeScope};
use crate::gauge::files;
use crate::gauge::process::{self, Identity};
use crate::gauge::{Root, Unread};

/// How many processes of the machine one look goes through.
pub const MAX_PROCESSES: usize = 32_768;

/// How many processes a tree may have.
pub const MAX_MEMBERS: usize = 8_192;

/// How many sessions and process groups of the tree are remembered beyond the life of their leaders.
const MAX_OWN_IDS: usize = 1_024;

/// A process of the machine, as one look saw it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Process {
    pub(super) pid: i32,
    parent: i32,
    group: i32,
    session: i32,
    pub(super) start_ticks: u64,
    part: Part,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Part {
    Unknown,
    Member,
    /// Excluded, or below something that is.
    Barred,
}

impl Process {
    fn new(identity: &Identity) -> Process {
        Process {
            pid: identity.pid,
            parent: identity.parent,
            group: identity.process_group,
            session: identity.session,
            start_ticks: identity.start_ticks,
            part: Part::Unknown,
        }
    }

    pub(super) fn is_member(&self) -> bool {
        self.part == Part::Member
    }
}

/// Looks for the members of one tree.
pub(super) struct Scanner {
    scope: TreeScope,
    /// The root's own start time, session and group: the last two it may have inherited from outside.
    root: Identity,
    proc_dir: OwnedFd,
    listing: OwnedFd,
    /// By pid.
    processes: Vec<Process>,
    /// The members of the last look, by pid, with their start times.
    known: Vec<(i32, u64)>,
    /// Sessions and groups that were made inside the tree, sorted.
    own_ids: Vec<i32>,
    /// What was excluded at the last look.
    excluded: [i32; MAX_EXCLUDED],
}

impl Scanner {
    pub(super) fn open(root: &Root, scope: TreeScope) -> Result<Scanner, Unread> {
        let proc_dir = files::open_dir(&root.proc, "/proc")?;
        // A descriptor of its own: listing moves its offset.
        let listing = files::open_dir(&root.proc, "/proc")?;
        let identity = process::identity_at(proc_dir.as_fd(), scope.root())?;
        Ok(Scanner {
            scope,
            root: identity,
            proc_dir,
            listing,
            processes: Vec::with_capacity(MAX_PROCESSES),
            known: Vec::with_capacity(MAX_MEMBERS),
            own_ids: Vec::with_capacity(MAX_OWN_IDS),
            excluded: [0; MAX_EXCLUDED],
        })
    }

    pub(super) fn scope(&self) -> &TreeScope {
        &self.scope
    }

    pub(super) fn proc_dir(&self) -> BorrowedFd<'_> {
        self.proc_dir.as_fd()
    }

    /// All processes of the last look, by pid.
    pub(super) fn processes(&self) -> &[Process] {
        &self.processes
    }

    /// Whether the scope excludes the same processes as at the last look.
    pub(super) fn is_scope_unchanged(&self) -> bool {
        self.scope.excluded() == self.excluded
    }

    /// Looks once. Returns how many processes did not fit into the tables.
    pub(super) fn scan(&mut self) -> Result<usize, Unread> {
        self.excluded = self.scope.excluded();
        let mut overflow = self.read_all()?;
        self.processes.sort_unstable_by_key(|process| process.pid);
        self.seed();
        overflow += self.spread();
        self.forget_unused_ids();
        self.known.clear();
        let members = self.processes.iter().filter(|process| process.is_member());
        self.known.extend(members.take(MAX_MEMBERS).map(|process| (process.pid, process.start_ticks)));
        Ok(overflow)
    }

    fn read_all(&mut self) -> Result<usize, Unread> {
        self.processes.clear();
        let (processes, proc_dir) = (&mut self.processes, self.proc_dir.as_fd());
        let (mut overflow, mut trouble) = (0, None);
        let mut buffer = [MaybeUninit::uninit(); 8192];
        files::each_number(self.listing.as_fd(), &mut buffer, "/proc", |pid| {
            if processes.len() == MAX_PROCESSES {
                overflow += 1;
                return;
            }
            match process::identity_at(proc_dir, pid) {
                Ok(identity) => processes.push(Process::new(&identity)),
                // One that ended meanwhile is none; one that another user hides from us (hidepid) is not ours.
                Err(Unread::Missing(_) | Unread::Denied(_)) => {}
                // No descriptor left, say: then we do not know who is there, and a tree that looks empty is not.
                Err(why) => trouble = Some(why),
            }
        })?;
        trouble.map_or(Ok(overflow), Err)
    }

    /// Marks what is known before descent is looked at: the root, what is excluded, and the members of the last look.
    fn seed(&mut self) {
        for process in &mut self.processes {
            if self.scope.excludes(process.pid) {
                process.part = Part::Barred;
            } else if process.pid == self.root.pid && process.start_ticks == self.root.start_ticks {
                process.part = if self.scope.counts_root() { Part::Member } else { Part::Unknown };
            }
        }
    }

    /// Spreads membership from parents to children and through sessions and groups until nothing changes. Parents
    /// mostly have smaller numbers, so two rounds are the rule. Exclusion beats everything and is spread first.
    fn spread(&mut self) -> usize {
        while self.round(Scanner::bar) {}
        let mut overflow = 0;
        for index in 0..self.processes.len() {
            let process = self.processes[index];
            let known = self.known.binary_search(&(process.pid, process.start_ticks)).is_ok();
            if process.part == Part::Member || (known && process.part == Part::Unknown) {
                self.processes[index].part = Part::Member;
                overflow += self.own(process);
            }
        }
        loop {
            let mut lost = 0;
            let changed = self.round(|scanner, process| {
                let joins = process.part == Part::Unknown && scanner.belongs(process);
                if joins {
                    lost += scanner.own(process);
                }
                joins.then_some(Part::Member)
            });
            overflow += lost;
            if !changed {
                return overflow;
            }
        }
    }

    /// Gives each process the part that `rule` says; tells whether one changed.
    fn round(&mut self, mut rule: impl FnMut(&mut Scanner, Process) -> Option<Part>) -> bool {
        let mut changed = false;
        for index in 0..self.processes.len() {
            let process = self.processes[index];
            if let Some(part) = rule(self, process) {
                self.processes[index].part = part;
                changed = true;
            }
        }
        changed
    }

    fn bar(&mut self, process: Process) -> Option<Part> {
        let barred = process.part != Part::Barred && self.part_of(process.parent) == Some(Part::Barred);
        barred.then_some(Part::Barred)
    }

    fn part_of(&self, pid: i32) -> Option<Part> {
        let index = self.processes.binary_search_by_key(&pid, |process| process.pid).ok()?;
        Some(self.processes[index].part)
    }

    fn belongs(&self, process: Process) -> bool {
        if process.pid == self.root.pid {
            return false;
        }
        let below_root = !self.scope.counts_root() && process.parent == self.root.pid;
        below_root
            || self.part_of(process.parent) == Some(Part::Member)
            || self.own_ids.binary_search(&process.session).is_ok()
            || self.own_ids.binary_search(&process.group).is_ok()
    }

    /// Remembers the session and group of a member, if they were made inside the tree: a session that the root did not
    /// inherit, and a group that is in such a session or led by the member itself. Returns how many did not fit.
    fn own(&mut self, member: Process) -> usize {
        let inherited =
            if self.scope.counts_root() && self.root.session == self.root.pid { 0 } else { self.root.session };
        let own_session = member.session != inherited && member.session != 0;
        let own_group = member.group != 0 && (own_session || member.group == member.pid);
        let mut lost = 0;
        for (own, id) in [(own_session, member.session), (own_group, member.group)] {
            if let (true, Err(at)) = (own, self.own_ids.binary_search(&id)) {
                if self.own_ids.len() < MAX_OWN_IDS {
                    self.own_ids.insert(at, id);
                } else {
                    lost += 1;
                }
            }
        }
        lost
    }

    /// A number that no process has as its session or group any more can be given to a stranger.
    fn forget_unused_ids(&mut self) {
        let Scanner { own_ids, processes, .. } = self;
        own_ids.retain(|id| processes.iter().any(|p| p.is_member() && (p.session == *id || p.group == *id)));
    }
}

impl std::fmt::Debug for Scanner {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Scanner").field("scope", &self.scope).finish_non_exhaustive()
    }
}
