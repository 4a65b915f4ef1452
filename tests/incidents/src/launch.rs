//! Starts one program with its output in files and waits for it, never longer than told; what still runs is killed on drop.

use crate::cgroup::TestGroup;
use crate::clock;
use crate::evidence::Evidence;
use crate::files;
use crate::product;
use rustix::process::{Pid, Signal, kill_process};
use std::ffi::OsStr;
use std::fs::File;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

/// A program that is running, or was.
#[derive(Debug)]
pub struct Running {
    child: Child,
    stdout: PathBuf,
    stderr: PathBuf,
    status: Option<ExitStatus>,
}

/// Prepares `program args…`. With a group, a shell moves itself into it and then becomes the program: same pid, and not a
/// single page is charged elsewhere.
pub fn command(
    program: &Path,
    args: impl IntoIterator<Item = impl AsRef<OsStr>>,
    group: Option<&TestGroup>,
) -> Command {
    let mut command = match group {
        None => Command::new(program),
        Some(group) => {
            let mut shell = Command::new("sh");
            shell.args(["-c", r#"echo $$ > "$0" && exec "$@""#]).arg(group.procs_file()).arg(program);
            shell
        }
    };
    command.args(args);
    command
}

impl Running {
    /// Starts a command in its own process group, stdin empty, its output in `dir/stdout` and `dir/stderr`.
    ///
    /// # Errors
    /// What creating the files or starting says, as a sentence.
    pub fn start(mut command: Command, dir: &Path) -> Result<Running, String> {
        let (stdout, stderr) = (dir.join("stdout"), dir.join("stderr"));
        let create = |path: &Path| File::create(path).map_err(|error| format!("{}: {error}", path.display()));
        command.stdin(Stdio::null()).stdout(create(&stdout)?).stderr(create(&stderr)?).process_group(0);
        let child = command.spawn().map_err(|error| format!("{command:?} does not start: {error}"))?;
        Ok(Running { child, stdout, stderr, status: None })
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Waits until it has ended, at most `deadline`; `None` when it still runs then.
    pub fn wait(&mut self, deadline: Duration) -> Option<ExitStatus> {
        if self.status.is_none() {
            self.status = clock::wait_for(deadline, Duration::from_millis(5), || self.child.try_wait().ok().flatten());
        }
        self.status
    }

    /// Sends it a signal, unless it has ended.
    pub fn signal(&self, signal: Signal) {
        if self.status.is_none()
            && let Some(pid) = Pid::from_raw(self.child.id() as i32)
        {
            // It may have ended this instant; then there is nothing to signal.
            kill_process(pid, signal).ok();
        }
    }

    /// What it has written to stdout so far.
    pub fn stdout(&self) -> String {
        files::text(&self.stdout).unwrap_or_default()
    }

    /// What it has written to stderr so far.
    pub fn stderr(&self) -> String {
        files::text(&self.stderr).unwrap_or_default()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if self.wait(Duration::ZERO).is_none() {
            self.signal(Signal::KILL);
            self.wait(Duration::from_secs(5));
        }
    }
}

/// How an unprotected run ended.
#[derive(Debug)]
pub struct Control {
    /// `None`: it still ran at the deadline and was killed by the harness.
    pub status: Option<ExitStatus>,
    /// What it wrote about itself.
    pub evidence: Evidence,
    /// Kernel OOM kills in its group.
    pub oom_kills: u64,
}

impl Control {
    /// Whether the kernel's OOM killer ended it: SIGKILL, counted by its group.
    pub fn killed_by_kernel(&self) -> bool {
        let killed = |status: ExitStatus| status.signal() == Some(9) || status.code() == Some(137);
        self.oom_kills > 0 && self.status.is_some_and(killed)
    }
}

/// The control: the load alone in a group with the limit, nobody watching.
///
/// # Errors
/// A sentence that says why it cannot be run here.
pub fn control(load: &[&str], limit_bytes: u64, deadline: Duration) -> Result<Control, String> {
    let group = TestGroup::new("control", Some(limit_bytes))?;
    let dir = tempfile::tempdir().map_err(|error| format!("no temporary directory: {error}"))?;
    let evidence = dir.path().join("evidence");
    let mut command = command(&product::load()?, load, Some(&group));
    command.arg("--evidence").arg(&evidence);
    let mut running = Running::start(command, dir.path())?;
    let status = running.wait(deadline);
    let oom_kills = group.oom_kills().unwrap_or(0);
    let evidence = Evidence::read(&evidence).map_err(|error| format!("evidence: {error}"))?;
    Ok(Control { status, evidence, oom_kills })
}
