//! A memory group for one test: `plimsoll-test-<pid>-<n>-<tag>` below the group this process is in.
//!
//! cgroup v1 wherever a memory hierarchy is mounted, else v2 where the memory controller can be handed down. Dropping the group
//! kills every process in it and below it (never ourselves) and removes it, with [`REMOVE_TRIES`] tries [`REMOVE_PAUSE`] apart:
//! the kernel refuses while the last process is still being torn down.

use crate::files;
use rustix::process::{Pid, Signal, kill_process};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

/// How often the removal of a group is tried.
pub const REMOVE_TRIES: u32 = 100;
/// The pause between two tries.
pub const REMOVE_PAUSE: Duration = Duration::from_millis(20);

/// Which of the kernel's two interfaces a group has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Version {
    /// Separate hierarchies; `memory.limit_in_bytes`.
    V1,
    /// The unified hierarchy; `memory.max`.
    V2,
}

/// A memory group that is removed, with everything in it, when dropped.
#[derive(Debug)]
pub struct TestGroup {
    path: PathBuf,
    version: Version,
}

impl TestGroup {
    /// Makes a group with a hard limit in bytes, or without one.
    ///
    /// # Errors
    /// A sentence that says why no group can be made here; tests print it and skip.
    pub fn new(tag: &str, limit_bytes: Option<u64>) -> Result<TestGroup, String> {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let (parent, version) = own_group()?;
        let name = format!("plimsoll-test-{}-{}-{tag}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let path = parent.join(name);
        fs::create_dir(&path).map_err(|error| format!("no memory group can be made: {}: {error}", path.display()))?;
        let group = TestGroup { path, version };
        if group.oom_kills().is_none() {
            return Err(format!("{} has no memory controller", group.path.display()));
        }
        if let Some(bytes) = limit_bytes {
            group
                .set_limit(bytes)
                .map_err(|error| format!("no limit can be set on {}: {error}", group.path.display()))?;
        }
        Ok(group)
    }

    /// The group's directory.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Which interface it has.
    pub fn version(&self) -> Version {
        self.version
    }

    /// The file that a process is moved into the group by.
    pub fn procs_file(&self) -> PathBuf {
        self.path.join("cgroup.procs")
    }

    /// Sets the hard limit; swap is not to soften it (where the kernel accounts swap).
    ///
    /// # Errors
    /// What writing the limit's file says.
    pub fn set_limit(&self, bytes: u64) -> io::Result<()> {
        match self.version {
            Version::V1 => {
                fs::write(self.path.join("memory.limit_in_bytes"), bytes.to_string())?;
                // Missing where swap is not accounted; then there is nothing to forbid.
                fs::write(self.path.join("memory.memsw.limit_in_bytes"), bytes.to_string()).or(Ok(()))
            }
            Version::V2 => {
                fs::write(self.path.join("memory.max"), bytes.to_string())?;
                fs::write(self.path.join("memory.swap.max"), "0").or(Ok(()))
            }
        }
    }

    /// What the kernel has charged, in bytes.
    pub fn usage_bytes(&self) -> Option<u64> {
        let file = match self.version {
            Version::V1 => "memory.usage_in_bytes",
            Version::V2 => "memory.current",
        };
        files::text(&self.path.join(file)).ok()?.trim().parse().ok()
    }

    /// How many processes the kernel's OOM killer has killed in this group (v1: in it; v2: in it and below).
    pub fn oom_kills(&self) -> Option<u64> {
        oom_kills(&self.path, self.version)
    }

    /// Kernel OOM kills in this group and in every group that exists below it now.
    pub fn oom_kills_below(&self) -> u64 {
        subtree(&self.path).iter().filter_map(|path| oom_kills(path, self.version)).sum()
    }

    /// The processes in this group and below it.
    pub fn processes(&self) -> Vec<u32> {
        subtree(&self.path).iter().flat_map(|path| members(path)).collect()
    }

    /// The groups below this one, deepest first, without itself.
    pub fn groups_below(&self) -> Vec<PathBuf> {
        let mut all = subtree(&self.path);
        all.pop();
        all
    }
}

impl Drop for TestGroup {
    fn drop(&mut self) {
        for _ in 0..REMOVE_TRIES {
            for pid in self.processes().into_iter().filter(|&pid| pid != std::process::id()) {
                // Gone in the meantime is as good as killed.
                Pid::from_raw(pid as i32).map(|pid| kill_process(pid, Signal::KILL).ok());
            }
            if subtree(&self.path).iter().all(|path| fs::remove_dir(path).is_ok()) {
                return;
            }
            std::thread::sleep(REMOVE_PAUSE);
        }
        eprintln!("could not remove {}", self.path.display());
    }
}

fn oom_kills(group: &Path, version: Version) -> Option<u64> {
    let file = match version {
        Version::V1 => "memory.oom_control",
        Version::V2 => "memory.events",
    };
    files::field(&files::text(&group.join(file)).ok()?, "oom_kill")
}

fn members(group: &Path) -> Vec<u32> {
    let text = files::text(&group.join("cgroup.procs")).unwrap_or_default();
    text.lines().filter_map(|line| line.parse().ok()).collect()
}

/// The group and all below it, deepest first, itself last.
fn subtree(path: &Path) -> Vec<PathBuf> {
    let mut all = Vec::new();
    if let Ok(entries) = fs::read_dir(path) {
        for entry in entries.flatten().filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir())) {
            all.extend(subtree(&entry.path()));
        }
        all.push(path.to_path_buf());
    }
    all
}

/// The directory of the memory group this process is in.
fn own_group() -> Result<(PathBuf, Version), String> {
    let read = |path: &str| files::text(Path::new(path)).map_err(|error| format!("{path}: {error}"));
    let (mounts, own) = (read("/proc/self/mountinfo")?, read("/proc/self/cgroup")?);
    let mut unified = None;
    for mount in mounts.lines() {
        let Some((left, right)) = mount.split_once(" - ") else { continue };
        let left: Vec<&str> = left.split(' ').collect();
        let right: Vec<&str> = right.split(' ').collect();
        let (&[_, _, _, root, point, ..], &[kind, _, options]) = (&left[..], &right[..]) else { continue };
        if kind == "cgroup" && options.split(',').any(|option| option == "memory") {
            return Ok((
                below(point, root, &own, |controllers| controllers.split(',').any(|name| name == "memory")),
                Version::V1,
            ));
        }
        if kind == "cgroup2" {
            unified = Some(below(point, root, &own, str::is_empty));
        }
    }
    let group = unified.ok_or("no cgroup file system with a memory controller is mounted")?;
    let handed_down = files::text(&group.join("cgroup.subtree_control")).unwrap_or_default();
    if !handed_down.split_whitespace().any(|name| name == "memory") {
        fs::write(group.join("cgroup.subtree_control"), "+memory")
            .map_err(|error| format!("{} does not hand the memory controller down: {error}", group.display()))?;
    }
    Ok((group, Version::V2))
}

/// Mount point + own path, less what of the path lies outside the mount.
fn below(point: &str, root: &str, own: &str, is_ours: impl Fn(&str) -> bool) -> PathBuf {
    let path = own.lines().find_map(|line| {
        let mut fields = line.splitn(3, ':').skip(1);
        let (controllers, path) = (fields.next()?, fields.next()?);
        is_ours(controllers).then_some(path)
    });
    let path = path.unwrap_or("/");
    let inside = if root == "/" { path } else { path.strip_prefix(root).unwrap_or("") };
    Path::new(point).join(inside.trim_start_matches('/'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn own_path_is_joined_to_its_mount() {
        let own = "4:cpu,memory:/a/b\n0::/c\n";
        let memory = |controllers: &str| controllers.split(',').any(|name| name == "memory");
        assert_eq!(below("/sys/fs/cgroup/memory", "/", own, memory), Path::new("/sys/fs/cgroup/memory/a/b"));
        assert_eq!(below("/sys/fs/cgroup/memory", "/a", own, memory), Path::new("/sys/fs/cgroup/memory/b"));
        assert_eq!(below("/sys/fs/cgroup", "/", own, str::is_empty), Path::new("/sys/fs/cgroup/c"));
    }

    #[test]
    fn a_group_goes_with_what_runs_in_it() {
        let group = match TestGroup::new("drop", Some(64 << 20)) {
            Ok(group) => group,
            Err(reason) => return eprintln!("skipped: {reason}"),
        };
        let path = group.path().to_path_buf();
        let mut child = std::process::Command::new("sleep").arg("60").spawn().unwrap();
        fs::write(group.procs_file(), child.id().to_string()).unwrap();
        assert_eq!(group.processes(), [child.id()]);
        assert_eq!(group.oom_kills_below(), 0);
        let reaper = std::thread::spawn(move || child.wait().unwrap());
        drop(group);
        assert!(!path.exists());
        assert!(!reaper.join().unwrap().success());
    }
}
