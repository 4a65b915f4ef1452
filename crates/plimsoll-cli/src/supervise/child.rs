//! Starting the child: own process group, own cgroup, stdout and stderr on FIFOs that it holds open at both ends.
//!
//! Between fork and exec it writes itself into its cgroup, raises its `oom_score_adj` by [`OOM_SCORE_STEP`] (200, at most
//! 1000) and takes the terminal if Plimsoll has it. A command that cannot be started ends with the shell's code: 127 not
//! found, 126 not executable.

use std::ffi::OsString;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use rustix::process::{Pid, Signal};

use super::derive::{Change, Derived};
use super::files;
use super::state::Process;
use super::sys::{self, Prelude};

/// How much more eager the kernel's OOM killer is to take the child than what Plimsoll was started with.
pub(crate) const OOM_SCORE_STEP: i32 = 200;

/// A child: started by us, or adopted.
#[derive(Debug)]
pub(crate) struct Child {
    /// Its number; also that of its process group.
    pub(crate) pid: Pid,
    /// Pid and start time.
    pub(crate) process: Process,
    /// Names this process and no later one. `None` on kernels before 5.3.
    pub(crate) pidfd: Option<OwnedFd>,
    /// It is not our child in the kernel's sense: its end is learnt from the pidfd.
    pub(crate) adopted: bool,
}

/// How to start it.
pub(crate) struct Spec<'a> {
    /// Program and arguments; never empty.
    pub(crate) argv: &'a [OsString],
    /// What becomes of the derived variables.
    pub(crate) derived: &'a [Derived],
    /// The child's stdin where it is not ours.
    pub(crate) stdin: Option<OwnedFd>,
    /// The child's stdout.
    pub(crate) stdout: OwnedFd,
    /// The child's stderr.
    pub(crate) stderr: OwnedFd,
    /// What it does to itself before exec.
    pub(crate) prelude: Prelude,
}

/// Why it did not start.
#[derive(Debug)]
pub(crate) struct NotStarted {
    /// 127 or 126, as a shell would say.
    pub(crate) code: i32,
    /// What failed, with the path.
    pub(crate) what: String,
    /// What to do.
    pub(crate) hint: String,
}

/// Starts it.
pub(crate) fn spawn(spec: Spec<'_>) -> Result<Child, NotStarted> {
    let (program, arguments) = spec.argv.split_first().ok_or_else(|| NotStarted {
        code: 127,
        what: "no command given".to_owned(),
        hint: "plimsoll run [OPTIONS] -- COMMAND".to_owned(),
    })?;
    let mut command = Command::new(program);
    command.args(arguments).stdout(Stdio::from(spec.stdout)).stderr(Stdio::from(spec.stderr));
    if let Some(stdin) = spec.stdin {
        command.stdin(Stdio::from(stdin));
    }
    for derived in spec.derived {
        match &derived.change {
            Change::Set(value) => drop(command.env(derived.name, value)),
            Change::Remove => drop(command.env_remove(derived.name)),
            Change::Keep | Change::Skip => {}
        }
    }
    if spec.prelude.pty.is_none() {
        command.process_group(0);
    }
    sys::before_exec(&mut command, spec.prelude);
    let started = command.spawn().map_err(|error| not_started(Path::new(program), &error))?;
    let raw = i32::try_from(started.id()).ok().and_then(Pid::from_raw);
    // Dropping std's handle neither waits nor kills; this loop reaps every child itself.
    drop(started);
    let pid = raw.ok_or_else(|| NotStarted {
        code: 126,
        what: "the kernel gave an impossible pid".to_owned(),
        hint: "please report this".to_owned(),
    })?;
    Ok(Child { pid, process: identify(pid).unwrap_or_default(), pidfd: sys::pidfd(pid).ok(), adopted: false })
}

/// Takes a running child over.
///
/// # Errors
/// When it ended meanwhile.
pub(crate) fn adopt(process: Process) -> io::Result<Child> {
    let pid = Pid::from_raw(process.pid).ok_or(io::ErrorKind::InvalidInput)?;
    let pidfd = sys::pidfd(pid)?;
    // Looked at again with the pidfd in hand: from here on the number cannot become another process.
    if identify(pid) != Some(process) {
        return Err(io::ErrorKind::NotFound.into());
    }
    Ok(Child { pid, process, pidfd: Some(pidfd), adopted: true })
}

/// Pid and start time of a living process; zombies do not count.
pub(crate) fn identify(pid: Pid) -> Option<Process> {
    let raw = pid.as_raw_nonzero().get();
    let identity = plimsoll::gauge::process::read_identity(&plimsoll::gauge::Root::default(), raw).ok()?;
    (identity.state != b'Z').then_some(Process { pid: raw, start_ticks: identity.start_ticks })
}

impl Child {
    /// Sends a signal to the main process.
    pub(crate) fn signal(&self, signal: Signal) -> io::Result<()> {
        match &self.pidfd {
            Some(pidfd) => Ok(rustix::process::pidfd_send_signal(pidfd, signal)?),
            None => Ok(rustix::process::kill_process(self.pid, signal)?),
        }
    }
}

/// Opens the child's end of a FIFO: blocking, both ways.
pub(crate) fn open_fifo(path: &Path) -> io::Result<OwnedFd> {
    use rustix::fs::{CWD, FileType, Mode, OFlags};
    let flags = OFlags::RDWR | OFlags::CLOEXEC | OFlags::NOFOLLOW | OFlags::NOCTTY;
    let fd = rustix::fs::openat(CWD, path, flags, Mode::empty())?;
    if FileType::from_raw_mode(rustix::fs::fstat(&fd)?.st_mode) != FileType::Fifo {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, format!("{} is no FIFO any more", path.display())));
    }
    Ok(fd)
}

/// The score that Plimsoll was started with, read before it changes its own.
pub(crate) fn oom_score_adj() -> Option<i32> {
    let mut buffer = [0_u8; 32];
    files::read_small("/proc/self/oom_score_adj", &mut buffer).ok()?.trim().parse().ok()
}

/// Makes the kernel less eager to take Plimsoll: refused without privilege, and then it stays as it was.
pub(crate) fn protect_self(inherited: Option<i32>) -> bool {
    let wanted = inherited.unwrap_or(0).saturating_sub(500).max(-1000);
    files::write_kernel(Path::new("/proc/self/oom_score_adj"), &wanted.to_string()).is_ok()
}

/// What the child writes into its own `oom_score_adj`.
pub(crate) fn child_oom_score_adj(inherited: Option<i32>) -> Option<String> {
    inherited.map(|score| score.saturating_add(OOM_SCORE_STEP).min(1000).to_string())
}

fn not_started(program: &Path, error: &io::Error) -> NotStarted {
    let shown = program.display();
    let found = find(program);
    match (error.kind(), found) {
        (io::ErrorKind::NotFound, None) if program.components().count() > 1 => NotStarted {
            code: 127,
            what: format!("cannot run {shown}: no such file"),
            hint: "check the path; it is taken relative to the current directory".to_owned(),
        },
        (io::ErrorKind::NotFound, None) => NotStarted {
            code: 127,
            what: format!("cannot run {shown}: not found in PATH"),
            hint: format!(
                "a program of the current directory is ./{shown}; a shell line is: plimsoll run -- sh -c '…'"
            ),
        },
        (io::ErrorKind::NotFound, Some(path)) => NotStarted {
            code: 127,
            what: format!(
                "cannot run {}: its interpreter (the #! line, or the dynamic loader) is missing",
                path.display()
            ),
            hint: format!("see: head -1 {}; file {}", path.display(), path.display()),
        },
        (io::ErrorKind::PermissionDenied, found) => {
            let path = found.unwrap_or_else(|| program.to_owned());
            let hint =
                if path.is_dir() { "it is a directory".to_owned() } else { format!("chmod +x {}", path.display()) };
            NotStarted { code: 126, what: format!("cannot run {}: permission denied", path.display()), hint }
        }
        _ => NotStarted {
            code: 126,
            what: format!("cannot run {shown}: {error}"),
            hint: "see the error above".to_owned(),
        },
    }
}

/// The file that a command name means: a path as it is, else the first match in `PATH`.
pub(crate) fn find(program: &Path) -> Option<PathBuf> {
    if program.components().count() > 1 {
        return program.exists().then(|| program.to_owned());
    }
    let path = std::env::var_os("PATH")?;
    let candidates: Vec<PathBuf> =
        std::env::split_paths(&path).map(|dir| dir.join(program)).filter(|p| p.is_file()).collect();
    let executable = |path: &&PathBuf| std::fs::metadata(path).is_ok_and(|meta| meta.permissions().mode() & 0o111 != 0);
    candidates.iter().find(executable).or(candidates.first()).cloned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fails(program: &Path) -> NotStarted {
        let null = || OwnedFd::from(std::fs::File::open("/dev/null").unwrap());
        let argv = [program.as_os_str().to_owned()];
        let spec = Spec {
            argv: &argv,
            derived: &[],
            stdin: None,
            stdout: null(),
            stderr: null(),
            prelude: Prelude::default(),
        };
        spawn(spec).expect_err("must not start")
    }

    #[test]
    fn a_command_that_cannot_be_started_says_why_with_the_codes_of_a_shell() {
        let dir = tempfile::tempdir().unwrap();
        let file = |name: &str, text: &str, mode: u32| {
            let path = dir.path().join(name);
            std::fs::write(&path, text).unwrap();
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
            path
        };
        let cases = [
            (PathBuf::from("plimsoll-no-such-program"), 127, "not found in PATH"),
            (dir.path().join("missing"), 127, "no such file"),
            (file("interpreter", "#!/nonexistent/python\n", 0o755), 127, "interpreter"),
            (file("plain", "#!/bin/sh\n", 0o644), 126, "permission denied"),
            (dir.path().to_owned(), 126, "permission denied"),
        ];
        for (program, code, words) in cases {
            let error = fails(&program);
            assert!(error.code == code && error.what.contains(words), "{}: {error:?}", program.display());
        }
    }

    #[test]
    fn a_zombie_or_a_reused_pid_is_not_adopted() {
        let mut sleeper = Command::new("sleep").arg("60").spawn().unwrap();
        let pid = Pid::from_raw(i32::try_from(sleeper.id()).unwrap()).unwrap();
        let process = identify(pid).unwrap();
        assert!(adopt(process).is_ok());
        assert!(adopt(Process { start_ticks: process.start_ticks + 1, ..process }).is_err());
        rustix::process::kill_process(pid, Signal::KILL).unwrap();
        rustix::process::waitid(
            rustix::process::WaitId::Pid(pid),
            rustix::process::WaitIdOptions::EXITED | rustix::process::WaitIdOptions::NOWAIT,
        )
        .unwrap();
        assert!(adopt(process).is_err(), "a zombie");
        sleeper.wait().unwrap();
    }

    #[test]
    fn the_childs_oom_score_is_raised_within_the_kernels_range() {
        for (inherited, expected) in [(0, "200"), (900, "1000"), (-1000, "-800"), (1000, "1000")] {
            assert_eq!(child_oom_score_adj(Some(inherited)).as_deref(), Some(expected));
        }
        assert_eq!(child_oom_score_adj(None), None);
    }
}
