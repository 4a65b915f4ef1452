//! What can be known about one name now: asked over its socket while a supervisor lives, else told by its files.
//!
//! Never lies: what no living supervisor confirms reads `stale` (or `exited`, when the last one ended in order), with the
//! age of its last sign of life and the reason of the last exit. One question takes at most the client's deadline (1 s);
//! every file is read up to 256 KiB.

use std::io::{Read as _, Seek as _, SeekFrom};
use std::path::Path;

use plimsoll::clock::wall;
use rustix::process::Pid;

use super::{ChildView, DecisionView, ExitView, RunState, Snapshot, VERSION};
use crate::history::judge;
use crate::layout::Layout;
use crate::supervise::state::State;
use crate::supervise::{child, files};
use crate::web::client::{Client, ClientError};

/// The most of the decision log that is read from its end, in bytes.
const DECISIONS_BYTES_MAX: u64 = 64 << 10;

/// The state of one name, and whether its supervisor itself said so.
#[derive(Clone, Debug)]
pub(crate) struct Found {
    pub(crate) snapshot: Snapshot,
    pub(crate) answered: bool,
}

/// Looks at the name of `layout`; `client` asks its socket.
pub(crate) fn look(layout: &Layout, client: &Client) -> Found {
    match client.status() {
        Ok(snapshot) => Found { snapshot, answered: true },
        Err(why) => Found { snapshot: from_files(layout, &why), answered: false },
    }
}

/// The newest `max` decisions, oldest first: of the supervisor when it `answered`, else of its file.
pub(crate) fn decisions(layout: &Layout, client: &Client, answered: bool, max: usize) -> Vec<DecisionView> {
    if answered && let Ok(decisions) = client.decisions(max) {
        return decisions;
    }
    let mut decisions: Vec<DecisionView> =
        end_of(&layout.decisions()).lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
    decisions.split_off(decisions.len().saturating_sub(max))
}

/// The end of a text file; its first line is whole or missing.
fn end_of(path: &Path) -> String {
    let read = || -> std::io::Result<Vec<u8>> {
        let mut file = std::fs::File::open(path)?;
        let length = file.metadata()?.len();
        let skipped = length.saturating_sub(DECISIONS_BYTES_MAX);
        file.seek(SeekFrom::Start(skipped))?;
        let mut bytes = Vec::new();
        file.take(DECISIONS_BYTES_MAX).read_to_end(&mut bytes)?;
        if skipped > 0 {
            let first_end = bytes.iter().position(|b| *b == b'\n').map_or(bytes.len(), |at| at + 1);
            bytes.drain(..first_end);
        }
        Ok(bytes)
    };
    read().map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default()
}

/// How the last life ended, as far as its file tells.
fn last_exit(layout: &Layout) -> Option<ExitView> {
    serde_json::from_slice(&files::read_bounded(&layout.last_exit()).ok()?).ok()
}

fn from_files(layout: &Layout, why: &ClientError) -> Snapshot {
    let now = wall().as_secs_f64();
    let mut warnings = Vec::new();
    let state = State::load(layout).unwrap_or_else(|problem| {
        warnings.push(problem);
        None
    });
    let mut snapshot = Snapshot {
        version: VERSION,
        name: layout.name().to_owned(),
        at_unix: now,
        last_exit: last_exit(layout),
        ..Snapshot::default()
    };
    let alive = |process: crate::supervise::state::Process| {
        Pid::from_raw(process.pid).and_then(child::identify).is_some_and(|found| found == process)
    };
    let supervised = state.as_ref().is_some_and(|state| alive(state.supervisor));
    let child = state.as_ref().and_then(|state| state.child);
    snapshot.state = match (&state, child, supervised) {
        (Some(_), _, true) | (Some(_), Some(_), false) => RunState::Stale,
        (Some(_), None, false) | (None, ..) => RunState::Exited,
    };
    if let Some(state) = &state {
        snapshot.supervisor.pid = u32::try_from(state.supervisor.pid).unwrap_or(0);
        snapshot.supervisor.version.clone_from(&state.plimsoll);
        snapshot.memory.budget_bytes = state.budget_bytes;
        snapshot.memory.reserve_bytes = state.reserve_bytes;
        snapshot.memory.kernel_limit_bytes =
            state.budget_bytes.map(|budget| budget.saturating_add(state.reserve_bytes));
        snapshot.restarts.total = state.restarts;
        if let Some(group) = state.groups.first() {
            snapshot.group.kind = format!("cgroup-{}", group.version);
            snapshot.group.path = Some(group.dir.display().to_string());
        }
    }
    snapshot.verdicts = judge::of_file(&layout.history(), snapshot.memory.budget_bytes, wall());
    if snapshot.state == RunState::Stale {
        snapshot.supervisor.heartbeat_age_seconds = last_sign_seconds(layout, now);
        snapshot.memory.unread = Some("nobody reads it now".to_owned());
        warnings.push(match (supervised, why) {
            (true, ClientError::Gone(_)) => {
                format!("{who} lives, but has no socket (yet)", who = supervisor(&snapshot))
            }
            (true, ClientError::Silent(waited)) => {
                let who = supervisor(&snapshot);
                format!("{who} is stopped or hung: it does not answer in {:.1} s", waited.as_secs_f64())
            }
            (true, why) => format!("{who} lives, but: {why}", who = supervisor(&snapshot)),
            (false, _) => format!("{who} is dead", who = supervisor(&snapshot)),
        });
        if let (Some(child), Some(state)) = (child, &state) {
            if alive(child) {
                snapshot.child = Some(ChildView {
                    pid: u32::try_from(child.pid).unwrap_or(0),
                    started_unix: state.child_started_unix,
                    uptime_seconds: (now - state.child_started_unix).max(0.0),
                    ..ChildView::default()
                });
                if !supervised {
                    warnings.push(format!(
                        "the program (pid {}) still runs, ungoverned; the same `plimsoll run` command takes it over",
                        child.pid
                    ));
                }
            } else if !supervised {
                warnings.push(format!("the program (pid {}) is gone too; how it ended is unknown", child.pid));
            }
        }
    } else if let ClientError::Garbled(_) | ClientError::Io(_) = why {
        warnings.push(why.to_string());
    }
    snapshot.warnings = warnings;
    snapshot
}

fn supervisor(snapshot: &Snapshot) -> String {
    format!("the supervisor (pid {})", snapshot.supervisor.pid)
}

/// Seconds since the last sign of life that a dead or silent supervisor left: the heartbeat in its ring, exact to a
/// second, else the newest of its files.
fn last_sign_seconds(layout: &Layout, now_unix: f64) -> Option<f64> {
    let heartbeat = || plimsoll_store::Reader::open(&layout.home()).ok()?.heartbeat_age().ok()?;
    if let Some(age) = heartbeat() {
        return Some(age.as_secs_f64());
    }
    let modified = |path: &Path| {
        let at = path.metadata().ok()?.modified().ok()?.duration_since(std::time::UNIX_EPOCH).ok()?;
        Some((now_unix - at.as_secs_f64()).max(0.0))
    };
    let signs = [modified(&layout.state()), modified(&layout.decisions()), modified(&layout.last_exit())];
    signs.into_iter().flatten().reduce(f64::min)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::supervise::state::{self, Process};

    fn own() -> Process {
        let pid = Pid::from_raw(i32::try_from(std::process::id()).unwrap()).unwrap();
        child::identify(pid).unwrap()
    }

    /// A process that has been: this one's number with another start.
    fn dead() -> Process {
        Process { start_ticks: 1, ..own() }
    }

    fn layout(dir: &tempfile::TempDir, supervisor: Process, child: Option<Process>) -> Layout {
        let layout = Layout::new(dir.path(), "web").unwrap();
        files::make_private_dir(&layout.home()).unwrap();
        let state = State {
            version: state::VERSION,
            supervisor,
            child,
            budget_bytes: Some(300 << 20),
            reserve_bytes: 64 << 20,
            restarts: 3,
            ..State::default()
        };
        state.save(&layout).unwrap();
        let exit = ExitView { reason: "memory".into(), ..ExitView::default() };
        state::save_last_exit(&layout, &exit).unwrap();
        layout
    }

    fn seen(layout: &Layout) -> Snapshot {
        let found = look(layout, &Client::new(layout.socket()));
        assert!(!found.answered);
        assert_eq!(found.snapshot.last_exit.as_ref().map(|exit| exit.reason.as_str()), Some("memory"));
        assert_eq!((found.snapshot.restarts.total, found.snapshot.memory.budget_bytes), (3, Some(300 << 20)));
        found.snapshot
    }

    #[test]
    fn a_dead_supervisor_is_stale_with_an_age_and_says_whether_the_program_still_runs() {
        let dir = tempfile::tempdir().unwrap();
        let snapshot = seen(&layout(&dir, dead(), Some(own())));
        assert_eq!(snapshot.state, RunState::Stale);
        assert!(snapshot.supervisor.heartbeat_age_seconds.is_some());
        assert!(snapshot.warnings[0].ends_with("is dead"), "{:?}", snapshot.warnings);
        assert!(snapshot.warnings[1].contains("takes it over"), "{:?}", snapshot.warnings);
        assert_eq!(snapshot.child.unwrap().pid, std::process::id());

        let snapshot = seen(&layout(&dir, dead(), Some(dead())));
        assert_eq!((snapshot.state, snapshot.child.is_none()), (RunState::Stale, true));
        assert!(snapshot.warnings[1].contains("unknown"), "{:?}", snapshot.warnings);
    }

    #[test]
    fn one_that_ended_in_order_has_exited() {
        let dir = tempfile::tempdir().unwrap();
        let snapshot = seen(&layout(&dir, dead(), None));
        assert_eq!((snapshot.state, snapshot.warnings.len()), (RunState::Exited, 0));
    }

    #[test]
    fn a_living_one_that_does_not_answer_is_stale_within_the_deadline() {
        let dir = tempfile::tempdir().unwrap();
        let layout = layout(&dir, own(), Some(own()));
        let _hung = crate::web::socket::bind(&layout.socket()).unwrap();
        let client = Client::new(layout.socket()).deadline(std::time::Duration::from_millis(100));
        let snapshot = look(&layout, &client).snapshot;
        assert_eq!(snapshot.state, RunState::Stale);
        assert!(snapshot.warnings[0].contains("does not answer"), "{:?}", snapshot.warnings);
    }

    #[test]
    fn the_decisions_of_a_dead_one_come_from_its_file_newest_last() {
        let dir = tempfile::tempdir().unwrap();
        let layout = layout(&dir, dead(), None);
        let line = |n: usize| {
            let entry = DecisionView { text: format!("entry {n}"), ..DecisionView::default() };
            serde_json::to_string(&entry).unwrap() + "\n"
        };
        let text: String = (0..2_000).map(line).collect();
        assert!(text.len() as u64 > DECISIONS_BYTES_MAX);
        std::fs::write(layout.decisions(), text + "{\"torn").unwrap();
        let client = Client::new(layout.socket());
        let newest = decisions(&layout, &client, false, 3);
        let words: Vec<_> = newest.iter().map(|d| d.text.as_str()).collect();
        assert_eq!(words, ["entry 1997", "entry 1998", "entry 1999"]);
        assert!(decisions(&layout, &client, false, 5_000).len() < 2_000, "the read is bounded");
    }
}
