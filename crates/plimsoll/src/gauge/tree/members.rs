//! The processes of a tree, with what each held when it was last read. The largest [`KEPT_PROCESSES`] stay open.

use std::os::fd::BorrowedFd;

use super::scan::{MAX_MEMBERS, Process};
use super::{KEPT_PROCESSES, TreeProcess};
use crate::gauge::Unread;
use crate::gauge::files::KeptFile;
use crate::gauge::process::{self, Statm};

/// One process of the tree.
#[derive(Debug)]
pub(super) struct Member {
    pid: i32,
    start_ticks: u64,
    kept: Option<KeptFile>,
    statm: Statm,
    /// `statm` sums file and shared memory pages. Of what it said when `status` was last read, this much was shared
    /// memory; what it grew since may be too.
    shared_at_split: u64,
    shmem_bytes: u64,
    swap_bytes: u64,
    /// Why it could not be read, though it lives.
    trouble: Option<Unread>,
}

impl Member {
    fn new(process: &Process, proc_dir: BorrowedFd<'_>) -> Member {
        let mut member = Member {
            pid: process.pid,
            start_ticks: process.start_ticks,
            kept: None,
            statm: Statm::default(),
            shared_at_split: 0,
            shmem_bytes: 0,
            swap_bytes: 0,
            trouble: None,
        };
        // One that has ended already holds nothing, and is gone at the next look.
        member.read(proc_dir);
        if let Ok(status) = process::status_at(proc_dir, process.pid) {
            member.split(status.shmem_bytes.unwrap_or(0), status.swap_bytes.unwrap_or(0));
        }
        member
    }

    pub(super) fn pid(&self) -> i32 {
        self.pid
    }

    pub(super) fn process(&self) -> TreeProcess {
        TreeProcess { pid: self.pid, start_ticks: self.start_ticks }
    }

    pub(super) fn trouble(&self) -> Option<Unread> {
        self.trouble
    }

    /// Takes over what `status` says.
    pub(super) fn split(&mut self, shmem_bytes: u64, swap_bytes: u64) {
        self.shared_at_split = self.statm.shared;
        self.shmem_bytes = shmem_bytes;
        self.swap_bytes = swap_bytes;
    }

    /// What the process holds at most: all that `statm` and the last `status` leave possible.
    pub(super) fn upper_bytes(&self, page_bytes: u64) -> u64 {
        let grown = self.statm.shared.saturating_sub(self.shared_at_split);
        let pages = self.statm.anon_pages().saturating_add(grown);
        pages.saturating_mul(page_bytes).saturating_add(self.shmem_bytes).saturating_add(self.swap_bytes)
    }

    /// Reads `statm`; `false` when the process is gone. Any other failure is trouble.
    fn read(&mut self, proc_dir: BorrowedFd<'_>) -> bool {
        let statm = match &self.kept {
            Some(file) => process::read_statm(file),
            None => process::statm_at(proc_dir, self.pid),
        };
        self.trouble = None;
        match statm {
            Ok(statm) => self.statm = statm,
            Err(Unread::Missing(_)) => {
                *self = Member { kept: None, statm: Statm::default(), shmem_bytes: 0, swap_bytes: 0, ..*self };
                return false;
            }
            Err(why) => self.trouble = Some(why),
        }
        true
    }

    pub(super) fn is_gone(&self) -> bool {
        self.statm == Statm::default() && self.kept.is_none() && self.trouble.is_none()
    }
}

/// All members, by pid.
#[derive(Debug)]
pub(super) struct Members {
    all: Vec<Member>,
    /// Where the next look's members are put together; the two change places.
    next: Vec<Member>,
    kept_open: usize,
    /// The next one to be read of those that are not kept open.
    turn: usize,
}

impl Members {
    pub(super) fn new() -> Members {
        let (all, next) = (Vec::with_capacity(MAX_MEMBERS), Vec::with_capacity(MAX_MEMBERS));
        Members { all, next, kept_open: 0, turn: 0 }
    }

    pub(super) fn len(&self) -> usize {
        self.all.len()
    }

    /// Whether no member lives: those that ended stay listed until the next look.
    pub(super) fn all_gone(&self) -> bool {
        self.all.iter().all(Member::is_gone)
    }

    pub(super) fn kept_open(&self) -> usize {
        self.kept_open
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Member> {
        self.all.iter()
    }

    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = &mut Member> {
        self.all.iter_mut()
    }

    /// Takes over the members of a look (sorted by pid); returns how many did not fit.
    pub(super) fn update(&mut self, processes: &[Process], proc_dir: BorrowedFd<'_>) -> usize {
        let mut unseen = 0;
        self.next.clear();
        {
            let mut old = self.all.drain(..).peekable();
            for process in processes.iter().filter(|process| process.is_member()) {
                if self.next.len() == MAX_MEMBERS {
                    unseen += 1;
                    continue;
                }
                while old.next_if(|member| member.pid < process.pid).is_some() {}
                let same = |member: &Member| member.pid == process.pid && member.start_ticks == process.start_ticks;
                self.next.push(old.next_if(same).unwrap_or_else(|| Member::new(process, proc_dir)));
            }
        }
        std::mem::swap(&mut self.all, &mut self.next);
        self.keep_largest(proc_dir);
        unseen
    }

    /// Keeps the largest members open, and closes those that are not among them any more.
    fn keep_largest(&mut self, proc_dir: BorrowedFd<'_>) {
        let mut largest = [(0u64, usize::MAX); KEPT_PROCESSES];
        let mut filled = 0;
        for (index, member) in self.all.iter().enumerate() {
            let pages = member.statm.resident;
            let at = largest[..filled].partition_point(|&(kept, _)| kept >= pages);
            if at < KEPT_PROCESSES {
                filled = (filled + 1).min(KEPT_PROCESSES);
                largest[at..filled].rotate_right(1);
                largest[at] = (pages, index);
            }
        }
        let chosen = &mut largest[..filled];
        chosen.sort_unstable_by_key(|&(_, index)| index);
        let is_chosen = |index: usize| chosen.binary_search_by_key(&index, |&(_, index)| index).is_ok();
        // Close first, so that the bound holds at every moment.
        for (_, member) in self.all.iter_mut().enumerate().filter(|(index, _)| !is_chosen(*index)) {
            member.kept = None;
        }
        self.kept_open = 0;
        for &(_, index) in chosen.iter() {
            let member = &mut self.all[index];
            if member.kept.is_none() {
                member.kept = process::open_statm(proc_dir, member.pid).ok();
            }
            self.kept_open += usize::from(member.kept.is_some());
        }
    }

    /// Reads those that are kept open, and as many of the others in turn. Returns how many had ended.
    pub(super) fn refresh(&mut self, proc_dir: BorrowedFd<'_>) -> u64 {
        let mut vanished = 0;
        for member in self.all.iter_mut().filter(|member| member.kept.is_some()) {
            vanished += u64::from(!member.read(proc_dir));
        }
        let count = self.all.len();
        let mut left = if count > self.kept_open { KEPT_PROCESSES } else { 0 };
        for _ in 0..count {
            if left == 0 {
                break;
            }
            self.turn = if self.turn + 1 < count { self.turn + 1 } else { 0 };
            let member = &mut self.all[self.turn];
            if member.kept.is_none() && !member.is_gone() {
                left -= 1;
                vanished += u64::from(!member.read(proc_dir));
            }
        }
        vanished
    }

    /// Reads every member. Returns how many had ended.
    pub(super) fn refresh_all(&mut self, proc_dir: BorrowedFd<'_>) -> u64 {
        self.all.iter_mut().map(|member| u64::from(!member.read(proc_dir))).sum()
    }
}
