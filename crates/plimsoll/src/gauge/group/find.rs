//! Which directory is a process's memory group: from `/proc/PID/cgroup`, the mounts, and what is really there.
//!
//! | machine | lines of `/proc/PID/cgroup` | group |
//! |---|---|---|
//! | v1 | `4:memory:/a` | the v1 memory mount + `/a` |
//! | v2 | `0::/a` | the unified mount + `/a` |
//! | hybrid | both | the v1 one: a controller is on one hierarchy only |
//!
//! Runs when a target is opened, not per reading: it allocates. Reads at most 1 MiB of `mountinfo` and 64 KiB of
//! `/proc/PID/cgroup`.

use std::fs::File;
use std::io::{BufRead as _, BufReader, Read as _};
use std::path::{Component, Path, PathBuf};

use rustix::io::Errno;

use super::{Group, Version};
use crate::gauge::files::{self, KeptFile};
use crate::gauge::{Root, Unread};

const MOUNTINFO_BYTES: u64 = 1 << 20;
const CGROUP_FILE_BYTES: u64 = 64 << 10;
/// Where a mount table calls the cgroup mounts; [`Root::cgroup`] plays this directory.
const CONVENTION: &str = "/sys/fs/cgroup";

/// A mounted hierarchy: where, and which part of it the mount shows.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Mount {
    dir: PathBuf,
    shows: PathBuf,
}

/// The two lines of `/proc/PID/cgroup` that matter.
#[derive(Debug, Default)]
struct Paths {
    memory_v1: Option<PathBuf>,
    unified: Option<PathBuf>,
}

pub(super) fn memory_group(root: &Root, pid: i32) -> Result<Group, Unread> {
    let paths = paths_of(root, pid)?;
    if let Some(path) = paths.memory_v1 {
        let mount = mount_of(root, Version::V1).ok_or(Unread::Missing("mount of the v1 memory controller"))?;
        return resolve(Version::V1, &mount, &path, pid);
    }
    unified(root, paths.unified, pid)
}

pub(super) fn unified_group(root: &Root, pid: i32) -> Result<Group, Unread> {
    unified(root, paths_of(root, pid)?.unified, pid)
}

fn unified(root: &Root, path: Option<PathBuf>, pid: i32) -> Result<Group, Unread> {
    let path = path.ok_or(Unread::Missing("memory controller in /proc/PID/cgroup"))?;
    let mount = mount_of(root, Version::V2).ok_or(Unread::Missing("cgroup2 mount"))?;
    resolve(Version::V2, &mount, &path, pid)
}

/// The top of the hierarchy that holds `dir`; `dir` itself if it is below no mount.
pub(super) fn top_of(root: &Root, version: Version, dir: &Path) -> PathBuf {
    mount_of(root, version).map(|mount| mount.dir).filter(|top| dir.starts_with(top)).unwrap_or_else(|| dir.to_owned())
}

fn paths_of(root: &Root, pid: i32) -> Result<Paths, Unread> {
    const WHAT: &str = "/proc/PID/cgroup";
    let file = File::open(root.proc.join(pid.to_string()).join("cgroup")).map_err(|e| io_unread(WHAT, &e))?;
    let mut paths = Paths::default();
    for line in BufReader::new(file.take(CGROUP_FILE_BYTES)).lines() {
        let line = line.map_err(|e| io_unread(WHAT, &e))?;
        // `id:controllers:path`; a path may hold colons.
        let mut parts = line.splitn(3, ':');
        let (Some(_), Some(controllers), Some(path)) = (parts.next(), parts.next(), parts.next()) else { continue };
        // The kernel marks the path of a group that was removed under a process.
        let path = path.strip_suffix(" (deleted)").unwrap_or(path);
        if controllers.is_empty() {
            paths.unified = Some(path.into());
        } else if controllers.split(',').any(|name| name == "memory") {
            paths.memory_v1 = Some(path.into());
        }
    }
    if paths.memory_v1.is_none() && paths.unified.is_none() {
        return Err(Unread::Malformed(WHAT));
    }
    Ok(paths)
}

fn io_unread(what: &'static str, error: &std::io::Error) -> Unread {
    match Errno::from_io_error(error) {
        Some(errno) => files::unread(what, errno),
        None => Unread::Malformed(what),
    }
}

fn mount_of(root: &Root, version: Version) -> Option<Mount> {
    mounted(root, version).or_else(|| conventional(root, version))
}

/// The mount table's answer, if there is a table and the mount is one that `root` plays.
fn mounted(root: &Root, version: Version) -> Option<Mount> {
    let file = File::open(root.proc.join("self/mountinfo")).ok()?;
    let lines = BufReader::new(file.take(MOUNTINFO_BYTES)).lines().map_while(Result::ok);
    // The last one wins: a later mount hides an earlier one.
    lines.filter_map(|line| mount_line(root, version, &line)).last()
}

/// `35 31 0:32 ROOT DIR OPTIONS [TAGS] - TYPE SOURCE SUPER_OPTIONS`
fn mount_line(root: &Root, version: Version, line: &str) -> Option<Mount> {
    let (left, right) = line.split_once(" - ")?;
    let mut left = left.split(' ').skip(3);
    let (shows, dir) = (unescape(left.next()?), unescape(left.next()?));
    let mut right = right.split(' ');
    let (kind, options) = (right.next()?, right.nth(1).unwrap_or(""));
    let fits = match version {
        Version::V1 => kind == "cgroup" && options.split(',').any(|option| option == "memory"),
        Version::V2 => kind == "cgroup2",
    };
    if !fits {
        return None;
    }
    let dir = match dir.strip_prefix(CONVENTION) {
        Ok(rest) => root.cgroup.join(rest),
        Err(_) if root.cgroup == Path::new(CONVENTION) => dir,
        Err(_) => return None,
    };
    dir.is_dir().then_some(Mount { dir, shows })
}

/// `\040` is how the mount table writes a space.
fn unescape(text: &str) -> PathBuf {
    ["\\040", "\\011", "\\012", "\\134"]
        .iter()
        .zip([" ", "\t", "\n", "\\"])
        .fold(text.to_owned(), |text, (from, to)| text.replace(from, to))
        .into()
}

/// Where the mounts are by convention, for a tree without a mount table.
fn conventional(root: &Root, version: Version) -> Option<Mount> {
    let candidates: &[&str] = match version {
        Version::V1 => &["memory"],
        Version::V2 => &["", "unified"],
    };
    let marker = match version {
        Version::V1 => "memory.limit_in_bytes",
        Version::V2 => "cgroup.controllers",
    };
    candidates
        .iter()
        .map(|name| if name.is_empty() { root.cgroup.clone() } else { root.cgroup.join(name) })
        .find(|dir| dir.join(marker).exists())
        .map(|dir| Mount { dir, shows: "/".into() })
}

fn resolve(version: Version, mount: &Mount, path: &Path, pid: i32) -> Result<Group, Unread> {
    const OUTSIDE: Unread = Unread::Missing("the process's group (outside of the mounted hierarchy)");
    // `/../x` is how a cgroup namespace shows a group that is not below its own root.
    if path.components().any(|part| part == Component::ParentDir) {
        return Err(OUTSIDE);
    }
    let group = |dir: PathBuf| Group::new(version, dir, mount.dir.clone());
    if let Ok(rest) = path.strip_prefix(&mount.shows) {
        let dir = join(&mount.dir, rest);
        if dir.is_dir() {
            return Ok(group(dir));
        }
    }
    // The mount shows another part than it says, or says nothing: the longest tail of the path whose group lists the
    // process. A tail that exists but does not list it would be another group of the same name.
    let names: Vec<_> = path.components().filter(|part| matches!(part, Component::Normal(_))).collect();
    (0..=names.len())
        .map(|from| join(&mount.dir, &names[from..].iter().collect::<PathBuf>()))
        .find(|dir| lists(dir, pid))
        .map(group)
        .ok_or(OUTSIDE)
}

fn join(dir: &Path, rest: &Path) -> PathBuf {
    let rest = rest.strip_prefix("/").unwrap_or(rest);
    if rest.as_os_str().is_empty() { dir.to_owned() } else { dir.join(rest) }
}

fn lists(dir: &Path, pid: i32) -> bool {
    let Ok(file) = KeptFile::open(dir, "cgroup.procs", "cgroup.procs") else { return false };
    let mut buffer = [0; 4096];
    let mut offset = 0;
    loop {
        match file.read_from(offset, &mut buffer) {
            Ok(text) if !text.is_empty() => {
                if files::lines(text).any(|line| files::parse_pid(line) == Some(pid)) {
                    return true;
                }
                offset += text.len() as u64;
            }
            Ok(_) | Err(_) => return false,
        }
    }
}
