//! Memory cgroups, version 1 and 2: which group a process is in, what the group uses, and what bounds it.
//!
//! A [`Group`] is a path and a version; its methods open, read and close one file each (1–3 µs, one path allocated) and
//! are for what is asked seldom. What is read again and again goes through [`GroupGauge`], which keeps its files open:
//! at most 15 descriptors, whatever happens in the group.

use std::path::{Path, PathBuf};

use super::files::{self, BUFFER_BYTES, KeptFile};
use super::{Protected, Root, Unread};

mod find;
mod gauge;
mod stat;

pub use gauge::{GroupGauge, KEPT_MEMBERS, SCANNED_MEMBERS};

/// Which of the two cgroup interfaces the memory controller is on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Version {
    /// `memory.usage_in_bytes`, `memory.limit_in_bytes`, a hierarchy of its own.
    V1,
    /// `memory.current`, `memory.max`, the unified hierarchy.
    V2,
}

impl Version {
    /// `v1` or `v2`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Version::V1 => "v1",
            Version::V2 => "v2",
        }
    }
}

/// A memory cgroup: where it is, and of which version.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Group {
    version: Version,
    dir: PathBuf,
    top: PathBuf,
}

impl Group {
    /// The memory group of a process, on whichever version holds the memory controller.
    ///
    /// Follows a mount that shows only part of the hierarchy (containers): a path from `/proc/PID/cgroup` that is not
    /// below the mount is matched by the mount's own root, else by the longest tail whose `cgroup.procs` lists the process.
    ///
    /// # Errors
    /// `Missing` when the process is gone, no memory controller is mounted, or its group is outside of what is visible.
    pub fn of_pid(root: &Root, pid: i32) -> Result<Group, Unread> {
        find::memory_group(root, pid)
    }

    /// The v2 group of a process, also on a machine whose memory controller is on v1 (hybrid): there it has no
    /// `memory.max`, but a `memory.pressure` of its own.
    ///
    /// # Errors
    /// As for [`Group::of_pid`].
    pub fn unified_of_pid(root: &Root, pid: i32) -> Result<Group, Unread> {
        find::unified_group(root, pid)
    }

    /// A group by the directory it is; its ancestors end at the top of the hierarchy that `root` shows.
    pub fn at(root: &Root, version: Version, dir: impl Into<PathBuf>) -> Group {
        let dir = dir.into();
        let top = find::top_of(root, version, &dir);
        Group { version, dir, top }
    }

    pub(super) fn new(version: Version, dir: PathBuf, top: PathBuf) -> Group {
        Group { version, dir, top }
    }

    /// Which interface.
    pub fn version(&self) -> Version {
        self.version
    }

    /// The group's directory.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// The group's path below the top of its hierarchy, `/` for the top itself: what a person calls the group.
    pub fn path(&self) -> PathBuf {
        Path::new("/").join(self.dir.strip_prefix(&self.top).unwrap_or(Path::new("")))
    }

    /// A group below this one (which need not exist yet).
    pub fn child(&self, name: &str) -> Group {
        Group { version: self.version, dir: self.dir.join(name), top: self.top.clone() }
    }

    /// This group and all above it that are visible, nearest first.
    pub fn ancestors(&self) -> Vec<Group> {
        let below_top = |dir: &&Path| dir.starts_with(&self.top);
        let mut groups: Vec<Group> = self
            .dir
            .ancestors()
            .take_while(below_top)
            .map(|dir| Group { version: self.version, dir: dir.to_owned(), top: self.top.clone() })
            .collect();
        if groups.is_empty() {
            groups.push(self.clone());
        }
        groups
    }

    /// Raw usage in bytes, page cache included.
    ///
    /// # Errors
    /// `Missing` when the group is gone or has no memory controller (v2's top group).
    pub fn usage(&self) -> Result<u64, Unread> {
        files::read_u64_once(&self.dir, self.usage_file(), self.usage_file())
    }

    /// The hard limit in bytes: beyond it the kernel kills. `None` is "no limit".
    ///
    /// # Errors
    /// `Missing` when the group is gone or has no memory controller.
    pub fn limit(&self) -> Result<Option<u64>, Unread> {
        self.read_limit(self.limit_file())
    }

    /// The name of the file that holds the hard limit.
    pub fn limit_file(&self) -> &'static str {
        match self.version {
            Version::V1 => "memory.limit_in_bytes",
            Version::V2 => "memory.max",
        }
    }

    /// The name of the file that holds raw usage.
    pub fn usage_file(&self) -> &'static str {
        match self.version {
            Version::V1 => "memory.usage_in_bytes",
            Version::V2 => "memory.current",
        }
    }

    /// Any limit file of this group by name; `None` is "no limit".
    ///
    /// # Errors
    /// `Missing`, `Denied` or `Malformed`, with the file's name.
    pub fn read_limit(&self, file: &'static str) -> Result<Option<u64>, Unread> {
        let mut buffer = [0; 32];
        let text = files::read_once(&self.dir, file, &mut buffer, file)?;
        files::parse_limit(text).ok_or(Unread::Malformed(file))
    }

    /// Any file of this group that holds one number.
    ///
    /// # Errors
    /// `Missing`, `Denied` or `Malformed`, with the file's name.
    pub fn read_number(&self, file: &'static str) -> Result<u64, Unread> {
        files::read_u64_once(&self.dir, file, file)
    }

    /// One reading of the protected number, with files opened and closed. For a running measurement: [`GroupGauge`].
    ///
    /// # Errors
    /// `Missing` when the group is gone; `Malformed` when `memory.stat` holds none of the fields that are needed.
    pub fn protected(&self) -> Result<Protected, Unread> {
        let mut buffer = [0; BUFFER_BYTES];
        let usage = self.usage();
        let text = files::read_once(&self.dir, "memory.stat", &mut buffer, "memory.stat")?;
        let mut stat = stat::parse(self.version, text);
        match self.version {
            Version::V1 => stat.kernel_bytes = self.read_number("memory.kmem.usage_in_bytes").ok(),
            Version::V2 => stat.swap_bytes = self.read_number("memory.swap.current").ok(),
        }
        stat.protected(usage)
    }

    /// What v1's `hierarchical_memory_limit` says: the tightest limit of this group and all above it, also those that
    /// are not visible from here. `None`: no limit, or not told.
    pub fn hierarchical_limit(&self) -> Option<u64> {
        let mut buffer = [0; BUFFER_BYTES];
        let text = files::read_once(&self.dir, "memory.stat", &mut buffer, "memory.stat").ok()?;
        let line = files::lines(text).find_map(|line| line.strip_prefix(b"hierarchical_memory_limit "))?;
        files::parse_limit(line).flatten()
    }

    /// Replaces `pids` with the processes of this very group (not of groups below it).
    ///
    /// # Errors
    /// `Missing` when the group is gone; `Failed` for a v2 group of threads, whose processes the kernel does not list.
    pub fn procs(&self, pids: &mut Vec<i32>) -> Result<(), Unread> {
        pids.clear();
        let file = KeptFile::open(&self.dir, "cgroup.procs", "cgroup.procs")?;
        let mut buffer = [0; 4096];
        let mut offset = 0;
        loop {
            let text = file.read_from(offset, &mut buffer)?;
            if text.is_empty() {
                return Ok(());
            }
            pids.extend(files::lines(text).filter_map(files::parse_pid));
            offset += text.len() as u64;
        }
    }

    /// How many processes the kernel has killed for memory. v2 counts the groups below this one too; v1 counts those
    /// that were in this very group.
    ///
    /// # Errors
    /// `Missing` when the group is gone or the kernel has no counter (before Linux 4.13).
    pub fn oom_kills(&self) -> Result<u64, Unread> {
        let file = match self.version {
            Version::V1 => "memory.oom_control",
            Version::V2 => "memory.events",
        };
        let mut buffer = [0; 512];
        let text = files::read_once(&self.dir, file, &mut buffer, file)?;
        match files::pairs(text).find(|(key, _)| *key == b"oom_kill") {
            Some((_, count)) => count.ok_or(Unread::Malformed(file)),
            None => Err(Unread::Missing("oom_kill")),
        }
    }

    /// The group's PSI file, where the group has one (v2 only).
    pub fn pressure_file(&self) -> Option<PathBuf> {
        let path = self.dir.join("memory.pressure");
        (self.version == Version::V2 && path.exists()).then_some(path)
    }
}
