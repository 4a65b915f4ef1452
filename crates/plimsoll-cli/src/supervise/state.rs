//! What the next supervisor needs to know: `state.json` (written by rename, 0600) and `last-exit.json`, and the lock.
//!
//! The lock is a `flock` on `DIR/NAME/lock`, held for the supervisor's life and gone with it, however it dies; the file
//! holds the pid as text, for the error message only. Both JSON files carry a version from the first byte on.

use std::fs::{File, OpenOptions};
use std::io::{self, Read as _, Seek as _, Write as _};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::PathBuf;

use rustix::fs::FlockOperation;
use serde::{Deserialize, Serialize};

use super::files;
use crate::layout::Layout;
use crate::snapshot::ExitView;

/// The version of `state.json`.
pub(crate) const VERSION: u32 = 1;

/// `state.json`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct State {
    /// [`VERSION`] of the writer.
    pub(crate) version: u32,
    /// Version of the Plimsoll that wrote it.
    pub(crate) plimsoll: String,
    /// `/proc/sys/kernel/random/boot_id`: start times are ticks since this boot.
    pub(crate) boot_id: String,
    /// The supervisor.
    pub(crate) supervisor: Process,
    /// The child, while there is one.
    pub(crate) child: Option<Process>,
    /// Unix seconds at which the child started.
    pub(crate) child_started_unix: f64,
    /// [`digest`] of the command, in hexadecimal.
    pub(crate) argv_digest: String,
    /// Number of its arguments, the program included.
    pub(crate) argv_count: usize,
    /// The child's own cgroup directories, memory first.
    pub(crate) groups: Vec<GroupState>,
    /// The budget in force.
    pub(crate) budget_bytes: Option<u64>,
    /// The reserve in force.
    pub(crate) reserve_bytes: u64,
    /// The child's stdout and stderr.
    pub(crate) fifos: Vec<PathBuf>,
    /// True when the child has a pseudo-terminal, which died with its supervisor.
    pub(crate) pty: bool,
    /// Restarts so far.
    pub(crate) restarts: u64,
    /// The group's `oom_kill` counter when the child started.
    pub(crate) oom_kills_before: Option<u64>,
}

/// A process that no later process of the same number can be taken for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Process {
    /// Its number.
    pub(crate) pid: i32,
    /// Its start in clock ticks since boot.
    pub(crate) start_ticks: u64,
}

/// A cgroup that Plimsoll made.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct GroupState {
    /// `v1` or `v2`.
    pub(crate) version: String,
    /// Its directory.
    pub(crate) dir: PathBuf,
}

impl State {
    /// Reads the state of `layout`; `None` when there is none.
    ///
    /// # Errors
    /// A sentence with the path when it is there and cannot be read or understood.
    pub(crate) fn load(layout: &Layout) -> Result<Option<State>, String> {
        let path = layout.state();
        let bytes = match files::read_bounded(&path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(format!("cannot read {}: {error}", path.display())),
        };
        let state: State =
            serde_json::from_slice(&bytes).map_err(|error| format!("cannot understand {}: {error}", path.display()))?;
        if state.version > VERSION {
            return Err(format!(
                "{} was written by a newer plimsoll ({}, state version {}); this one knows version {VERSION}",
                path.display(),
                state.plimsoll,
                state.version
            ));
        }
        Ok(Some(state))
    }

    /// Writes it.
    pub(crate) fn save(&self, layout: &Layout) -> io::Result<()> {
        files::replace(&layout.state(), &serde_json::to_vec_pretty(self)?)
    }
}

/// Writes `last-exit.json`.
pub(crate) fn save_last_exit(layout: &Layout, exit: &ExitView) -> io::Result<()> {
    files::replace(&layout.last_exit(), &serde_json::to_vec_pretty(exit)?)
}

/// Reads `last-exit.json`; what cannot be read is none.
pub(crate) fn load_last_exit(layout: &Layout) -> Option<ExitView> {
    serde_json::from_slice(&files::read_bounded(&layout.last_exit()).ok()?).ok()
}

/// FNV-1a (64 bit) over the arguments, each with its length before it: the same command gives the same digest, and
/// `a b` differs from `"a b"`. It guards against mistakes, not against malice.
pub(crate) fn digest(argv: &[std::ffi::OsString]) -> String {
    let mut hash = 0xcbf2_9ce4_8422_2325_u64;
    let mut eat = |bytes: &[u8]| {
        for byte in bytes {
            hash = (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
        }
    };
    for argument in argv {
        eat(&(argument.len() as u64).to_le_bytes());
        eat(argument.as_bytes());
    }
    format!("{hash:016x}")
}

/// The identity of this boot; empty where the kernel does not tell.
pub(crate) fn boot_id() -> String {
    let mut buffer = [0_u8; 64];
    files::read_small("/proc/sys/kernel/random/boot_id", &mut buffer).unwrap_or_default().trim().to_owned()
}

/// The lock of one name; released when dropped, or when the process dies.
#[derive(Debug)]
pub(crate) struct Lock(#[expect(dead_code, reason = "held, never used: closing it is the release")] File);

/// Why the lock was not taken.
#[derive(Debug)]
pub(crate) enum Locked {
    /// A living supervisor holds it: its pid, when the file tells.
    Held(Option<i32>),
    /// It cannot be opened.
    Failed(io::Error),
}

impl Lock {
    /// Takes the lock, at once or not at all.
    pub(crate) fn take(layout: &Layout) -> Result<Lock, Locked> {
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(layout.lock())
            .map_err(Locked::Failed)?;
        match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(rustix::io::Errno::WOULDBLOCK) => {
                let mut text = String::new();
                let read = (&mut file).take(16).read_to_string(&mut text);
                return Err(Locked::Held(read.ok().and_then(|_| text.trim().parse().ok())));
            }
            Err(error) => return Err(Locked::Failed(error.into())),
        }
        let write = |file: &mut File| {
            file.set_len(0)?;
            file.rewind()?;
            writeln!(file, "{}", std::process::id())
        };
        write(&mut file).map_err(Locked::Failed)?;
        Ok(Lock(file))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn layout(dir: &tempfile::TempDir) -> Layout {
        let layout = Layout::new(dir.path(), "web").unwrap();
        files::make_private_dir(&layout.home()).unwrap();
        layout
    }

    #[test]
    fn the_state_reads_back_as_written_and_a_newer_one_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let layout = layout(&dir);
        assert_eq!(State::load(&layout), Ok(None));
        let mut state = State {
            version: VERSION,
            child: Some(Process { pid: 7, start_ticks: 99 }),
            argv_digest: digest(&["a".into()]),
            ..State::default()
        };
        state.save(&layout).unwrap();
        assert_eq!(State::load(&layout), Ok(Some(state.clone())));
        state.version = VERSION + 1;
        state.save(&layout).unwrap();
        assert!(State::load(&layout).unwrap_err().contains("newer plimsoll"));
        files::replace(&layout.state(), b"{").unwrap();
        assert!(State::load(&layout).unwrap_err().contains("cannot understand"));
    }

    #[test]
    fn a_digest_tells_arguments_apart() {
        let d = |args: &[&str]| digest(&args.iter().map(Into::into).collect::<Vec<_>>());
        assert_eq!(d(&["a", "b"]), d(&["a", "b"]));
        for other in [&["a b"][..], &["b", "a"], &["a", "b", ""], &["ab"], &["a"]] {
            assert_ne!(d(&["a", "b"]), d(other), "{other:?}");
        }
        assert_eq!(d(&["true"]), "b74beaf6c20d49e9", "stable over releases: adoption compares it");
    }

    #[test]
    fn the_second_lock_is_refused_with_the_pid_of_the_first() {
        let dir = tempfile::tempdir().unwrap();
        let layout = layout(&dir);
        let first = Lock::take(&layout).unwrap();
        let own = i32::try_from(std::process::id()).unwrap();
        assert!(matches!(Lock::take(&layout), Err(Locked::Held(Some(pid))) if pid == own));
        drop(first);
        assert!(Lock::take(&layout).is_ok());
    }
}
