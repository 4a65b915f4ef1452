//! What stages do on the supervise loop: a note, a signal to a program that catches it, a command of the operator's.
//!
//! At most [`MAX_HELPERS`] (4) commands run at once, one per stage; each is killed after `EXEC_LIMIT` (10 s). They run in
//! Plimsoll's own cgroup and do not count as the program's memory. Orphans that come to the subreaper are reaped here, too.

use std::os::fd::OwnedFd;
use std::os::unix::process::CommandExt as _;
use std::process::{Command, Stdio};
use std::time::Duration;

use plimsoll::clock::{Clock, MonotonicClock};
use plimsoll::gauge::Root;
use plimsoll::gauge::process::read_process;
use plimsoll::gauge::tree::Excluded;
use plimsoll::governor::Decision;
use plimsoll::units;
use rustix::process::{Pid, Signal, WaitStatus};

use super::child;
use super::lives::Lives;
use super::reason::signal_name;
use super::shared::Shared;
use super::stage::{Do, EXEC_LIMIT, Stage};
use super::table::State;
use crate::capture::due::Trigger;

/// Commands that run at one time.
pub(crate) const MAX_HELPERS: usize = 4;

/// A command that runs.
#[derive(Debug)]
struct Helper {
    pid: Pid,
    stage: usize,
    due: Option<Duration>,
}

/// The commands of the operator's stages.
#[derive(Debug)]
pub(crate) struct Helpers {
    excluded: Excluded,
    running: Vec<Helper>,
}

impl Helpers {
    /// None runs; `excluded` is what the tree gauge leaves out.
    pub(crate) fn new(excluded: Excluded) -> Helpers {
        Helpers { excluded, running: Vec::with_capacity(MAX_HELPERS) }
    }

    /// When the next one has to be killed.
    pub(crate) fn deadline(&self) -> Option<Duration> {
        self.running.iter().filter_map(|helper| helper.due).min()
    }

    /// Kills those whose time is over, with all that is in their process groups.
    pub(crate) fn look_at_deadline(&mut self, now: Duration, shared: &Shared) {
        for helper in &mut self.running {
            if helper.due.is_some_and(|due| due <= now) {
                helper.due = None;
                rustix::process::kill_process_group(helper.pid, Signal::KILL).ok();
                shared.tell("stage", &format!("exec: killed after {}", units::duration(EXEC_LIMIT)));
            }
        }
    }

    /// A process that is not the program's main one ended: a helper, or an orphan that came to us.
    pub(crate) fn reaped(&mut self, pid: Pid, status: WaitStatus, shared: &Shared) {
        self.excluded.readmit(pid.as_raw_nonzero().get());
        let Some(at) = self.running.iter().position(|helper| helper.pid == pid) else { return };
        self.running.swap_remove(at);
        // What it left in its group does not outlive it.
        rustix::process::kill_process_group(pid, Signal::KILL).ok();
        match (status.exit_status(), status.terminating_signal()) {
            (Some(0), _) => {}
            (Some(code), _) => shared.tell("stage", &format!("exec: ended with code {code}")),
            (None, Some(signal)) => shared.tell("stage", &format!("exec: ended by SIG{}", signal_name(signal))),
            (None, None) => {}
        }
    }

    /// Starts a command, or says why not.
    fn start(
        &mut self,
        stage: usize,
        line: &str,
        facts: &[(&str, String)],
        log: Option<&OwnedFd>,
    ) -> Result<(), String> {
        if self.running.iter().any(|helper| helper.stage == stage) {
            return Err("its command still runs".to_owned());
        }
        if self.running.len() == MAX_HELPERS {
            return Err(format!("{MAX_HELPERS} commands run already"));
        }
        let output = || log.and_then(|fd| fd.try_clone().ok()).map_or_else(Stdio::null, Stdio::from);
        let mut command = Command::new("/bin/sh");
        command.arg("-c").arg(line).stdin(Stdio::null()).stdout(output()).stderr(output()).process_group(0);
        command.envs(facts.iter().map(|(key, value)| (*key, value)));
        let started = command.spawn().map_err(|error| format!("cannot start /bin/sh: {error}"))?;
        let Some(pid) = i32::try_from(started.id()).ok().and_then(Pid::from_raw) else { return Ok(()) };
        if !self.excluded.exclude(pid.as_raw_nonzero().get()) {
            rustix::process::kill_process_group(pid, Signal::KILL).ok();
            return Err("too many commands".to_owned());
        }
        self.running.push(Helper { pid, stage, due: Some(MonotonicClock.now() + EXEC_LIMIT) });
        Ok(())
    }

    /// Nothing of ours outlives Plimsoll.
    pub(crate) fn end(&mut self) {
        for helper in self.running.drain(..) {
            rustix::process::kill_process_group(helper.pid, Signal::KILL).ok();
            rustix::process::waitpid(Some(helper.pid), rustix::process::WaitOptions::empty()).ok();
            self.excluded.readmit(helper.pid.as_raw_nonzero().get());
        }
    }
}

/// Does what the stages in the bit set ask for.
pub(crate) fn fire(lives: &mut Lives, due: u32, decision: &Decision) {
    let stages = std::sync::Arc::clone(&lives.starter.stages);
    for (index, stage) in stages.iter().enumerate().filter(|(index, _)| due & 1 << index != 0) {
        let done = one(lives, index, stage, decision);
        lives.shared.stage_fired(index, done.err().as_deref());
    }
}

fn one(lives: &mut Lives, index: usize, stage: &Stage, decision: &Decision) -> Result<(), String> {
    let figures = super::facts::figures(decision);
    let label = format!("{} {}", stage.level, stage.action);
    if lives.state() != State::Running {
        return Err("the program is being stopped".to_owned());
    }
    let Some(child) = &lives.child else { return Err("there is no program".to_owned()) };
    match &stage.action {
        Do::Note => lives.shared.tell("stage", &format!("{label}: {figures}")),
        Do::Snapshot => {
            let (desk, _) = lives.shared.heap.get().ok_or("captures are off (--heap=off)")?;
            desk.ask(Trigger::Level, MonotonicClock.now()).map_err(|refused| refused.to_string())?;
            lives.shared.tell("stage", &format!("{label}: asked for; {figures}"));
        }
        Do::Stop => {
            // Done by the governor's thread; here only if it was disarmed meanwhile.
        }
        Do::Signal(number) => {
            let signal = Signal::from_named_raw(*number).ok_or_else(|| format!("no signal {number} here"))?;
            let always = matches!(signal, Signal::TERM | Signal::KILL | Signal::CONT);
            let raw = child.pid.as_raw_nonzero().get();
            let catches = always
                || read_process(&Root::default(), raw)
                    .map_err(|why| format!("cannot tell whether pid {raw} catches it: {why}"))?
                    .catches(*number);
            if !catches {
                let why = format!("pid {raw} does not catch SIG{}: it would end the program", signal_name(*number));
                lives.shared.tell("stage", &format!("{label} skipped: {why}"));
                return Err(why);
            }
            child.signal(signal).map_err(|error| format!("cannot signal pid {raw}: {error}"))?;
            lives.shared.tell("stage", &format!("{label}: sent to pid {raw}; {figures}"));
        }
        Do::Exec(line) => {
            let number = |bytes: Option<u64>| bytes.map(|b| b.to_string()).unwrap_or_default();
            let facts = [
                ("PLIMSOLL_NAME", lives.options.layout.name().to_owned()),
                ("PLIMSOLL_LEVEL", decision.level.as_str().to_owned()),
                ("PLIMSOLL_PID", child.pid.as_raw_nonzero().get().to_string()),
                ("PLIMSOLL_CHARGED_BYTES", number(decision.charged_bytes)),
                ("PLIMSOLL_BUDGET_BYTES", number(decision.budget_bytes)),
            ];
            let log = child::open_fifo(&lives.options.layout.stderr_fifo()).ok();
            lives.helpers.start(index, line, &facts, log.as_ref())?;
            lives.shared.tell("stage", &format!("{label}: started; {figures}"));
        }
    }
    Ok(())
}
