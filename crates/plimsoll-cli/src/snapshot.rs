//! What a supervisor knows at one moment: the one shape behind `status`, `top`, the API and `/metrics`.
//!
//! Bytes are `u64`, times are Unix seconds (`f64`) or seconds of age; what cannot be measured is `null` with a reason
//! beside it, never 0. The shape carries [`VERSION`]; fields are added, never changed.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

pub(crate) mod found;
mod heap;
pub(crate) mod report;
#[cfg(test)]
pub(crate) mod sample;
pub(crate) mod volume;

pub(crate) use heap::{CaptureView, HeapView};

/// The version of the JSON shape.
pub(crate) const VERSION: u32 = 1;

/// One supervisor, whole.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Snapshot {
    pub version: u32,
    pub name: String,
    /// When this snapshot was taken, Unix seconds.
    pub at_unix: f64,
    pub state: RunState,
    pub supervisor: SupervisorView,
    pub child: Option<ChildView>,
    pub memory: MemoryView,
    pub governor: GovernorView,
    pub limits: Vec<LimitView>,
    /// Path of the limit file that binds, when one does.
    pub binding: Option<String>,
    pub group: GroupView,
    pub stages: Vec<StageView>,
    /// What the program has between SIGTERM and SIGKILL; absent where nobody said it (state read from files).
    pub grace_seconds: Option<f64>,
    pub restarts: RestartView,
    pub last_exit: Option<ExitView>,
    pub logs: LogsView,
    /// Heap captures; absent where they are off.
    pub heap: Option<HeapView>,
    /// What the program said of itself.
    pub reports: report::ReportsView,
    pub pressure: Option<PressureView>,
    pub host: Option<HostView>,
    /// Variables derived from the budget: name, value, and why or why not.
    pub derived: Vec<DerivedView>,
    /// What the HTTP face did; absent where nobody asked it (state read from files).
    pub http: Option<HttpView>,
    /// Whether a figure leaks, one verdict each, leaks first; empty until there is a history.
    pub verdicts: Vec<VerdictView>,
    /// One-line warnings that hold now (degraded log store, blind governor, no cgroup and why, …).
    pub warnings: Vec<String>,
}

/// Where the life of the child stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum RunState {
    #[default]
    Starting,
    Running,
    Stopping,
    Killing,
    BackingOff,
    Exited,
    /// Only ever produced by a reader: the supervisor is dead or hung. See `supervisor.heartbeat_age_seconds`.
    Stale,
}

impl RunState {
    /// All states, in the order of a life.
    pub(crate) const ALL: [RunState; 7] = [
        RunState::Starting,
        RunState::Running,
        RunState::Stopping,
        RunState::Killing,
        RunState::BackingOff,
        RunState::Exited,
        RunState::Stale,
    ];

    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            RunState::Starting => "starting",
            RunState::Running => "running",
            RunState::Stopping => "stopping",
            RunState::Killing => "killing",
            RunState::BackingOff => "backing-off",
            RunState::Exited => "exited",
            RunState::Stale => "stale",
        }
    }
}

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct SupervisorView {
    pub pid: u32,
    pub version: String,
    pub started_unix: f64,
    pub uptime_seconds: f64,
    /// Plimsoll's own resident and private memory.
    pub rss_bytes: Option<u64>,
    pub private_bytes: Option<u64>,
    pub cpu_seconds: Option<f64>,
    pub open_fds: Option<u64>,
    pub heartbeat_age_seconds: Option<f64>,
    /// True when this supervisor took over a child of a dead predecessor.
    pub adopted: bool,
}

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct ChildView {
    pub pid: u32,
    pub started_unix: f64,
    pub uptime_seconds: f64,
    /// Name from /proc/PID/comm; never argv.
    pub comm: String,
    pub processes: Option<u64>,
    pub threads: Option<u64>,
    pub fds: Option<FdsView>,
}

/// Open descriptors by kind, summed over the tree.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct FdsView {
    pub total: u64,
    pub file: u64,
    pub socket: u64,
    pub pipe: u64,
    pub anon_inode: u64,
    /// Handles below /proc: the leak of incident 4.
    pub proc: u64,
    pub device: u64,
    pub other: u64,
    /// The kind that grew most since the child started, when it grew by more than 100.
    pub growing: Option<String>,
    /// True when more processes or descriptors exist than the bounded scan visits.
    pub truncated: bool,
}

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct MemoryView {
    /// What is compared with the budget.
    pub charged_bytes: Option<u64>,
    pub anon_bytes: Option<u64>,
    pub shmem_bytes: Option<u64>,
    pub swap_bytes: Option<u64>,
    pub unevictable_bytes: Option<u64>,
    pub kernel_bytes: Option<u64>,
    pub file_bytes: Option<u64>,
    /// Why the protected number cannot be read, when it cannot.
    pub unread: Option<String>,
    pub budget_bytes: Option<u64>,
    pub reserve_bytes: u64,
    /// The kernel's limit for the child: budget + reserve.
    pub kernel_limit_bytes: Option<u64>,
    /// The highest charged figure of this life of the child.
    pub peak_bytes: Option<u64>,
    /// Bytes at which elevated, high and critical are entered.
    pub marks_bytes: Option<[u64; 3]>,
}

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct GovernorView {
    pub level: String,
    pub level_since_unix: f64,
    pub governs: bool,
    pub growth_bytes_per_second: Option<f64>,
    pub growth_confidence_ratio: Option<f64>,
    pub time_to_limit_seconds: Option<f64>,
    pub blind: bool,
    pub reading_age_seconds: Option<f64>,
    pub samples_total: u64,
    pub confirms_total: u64,
    pub missed_ticks_total: u64,
    pub wakes_total: BTreeMap<String, u64>,
    pub sample_cost_seconds: Option<f64>,
    pub confirm_cost_seconds: Option<f64>,
    pub scheduling: String,
    /// Level entries by level name.
    pub entered_total: BTreeMap<String, u64>,
}

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct LimitView {
    pub bytes: u64,
    pub usage_bytes: Option<u64>,
    pub consequence: String,
    pub source: String,
}

/// How the child is held together: its own cgroup, or its process tree.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct GroupView {
    /// `cgroup-v1`, `cgroup-v2` or `tree`.
    pub kind: String,
    pub path: Option<String>,
    /// Why no cgroup of its own could be made.
    pub why_not: Option<String>,
    pub oom_kills: Option<u64>,
}

/// One configured stage: what happens at which level.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct StageView {
    pub level: String,
    pub action: String,
    pub sustain_seconds: f64,
    pub fired_total: u64,
    pub skipped_total: u64,
    pub last_fired_unix: Option<f64>,
    pub last_skip_reason: Option<String>,
}

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct RestartView {
    pub policy: String,
    pub total: u64,
    pub by_reason: BTreeMap<String, u64>,
    pub next_in_seconds: Option<f64>,
    pub crash_loop: bool,
}

/// How a life of the child ended.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct ExitView {
    /// `memory | oom-kill | signal | exit | usage | unknown`.
    pub reason: String,
    pub code: Option<i32>,
    pub signal: Option<i32>,
    pub at_unix: f64,
    pub uptime_seconds: f64,
    /// The figures in one line for people.
    pub detail: String,
    pub charged_bytes: Option<u64>,
    pub peak_bytes: Option<u64>,
    /// True when SIGKILL was needed after the grace period.
    pub killed_after_grace: bool,
    /// The exit code that `plimsoll run` ends with when it does not restart.
    pub plimsoll_code: i32,
    /// What it said before it left, when it embeds a watchdog that did.
    pub last_words: Option<report::LastWordsView>,
}

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct LogsView {
    pub streams: BTreeMap<String, StreamView>,
    pub lines_per_second: Option<f64>,
    pub bytes_per_second: Option<f64>,
    pub ring_used_bytes: u64,
    pub ring_capacity_bytes: u64,
    pub spool_bytes: u64,
    pub database_bytes: u64,
    pub chunks_total: u64,
    pub merged_chunks_total: u64,
    /// Lines in all chunks.
    pub kept_lines: u64,
    /// Lines that were kept once and deleted since the start, by the bound that they were beyond.
    pub retired_lines_total: BTreeMap<String, u64>,
    pub echo_dropped_lines_total: u64,
    pub volume: volume::VolumeView,
    /// Why the store is degraded (disk full, locked, …), when it is.
    pub degraded: Option<String>,
}

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct StreamView {
    pub lines_total: u64,
    pub bytes_total: u64,
    pub dropped_lines_total: u64,
    pub dropped_bytes_total: u64,
    /// Of the dropped ones, those above the stream's rate limit.
    pub limited_lines_total: u64,
    pub limited_bytes_total: u64,
}

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct PressureView {
    pub some_avg10: f64,
    pub full_avg10: f64,
    pub source: String,
}

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct HostView {
    pub total_bytes: u64,
    pub available_bytes: u64,
}

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct DerivedView {
    pub name: String,
    pub value: Option<String>,
    pub note: String,
}

/// The HTTP face: both the Unix socket and, when it is on, the TCP port.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct HttpView {
    /// Where the TCP port listens, when it does.
    pub address: Option<String>,
    /// Open now.
    pub connections: u64,
    pub requests_total: u64,
    /// Connections closed because they were idle; no refusal.
    pub idle_closed_total: u64,
    /// By reason: busy, method, host, origin, body, slow, malformed, accept.
    pub refused_total: BTreeMap<String, u64>,
}

/// What the trend of one figure says.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct VerdictView {
    /// `memory`, `anonymous`, `live`, `threads`, `fds`, `fds socket`, …
    pub key: String,
    /// `bytes` or `count`.
    pub unit: String,
    /// `insufficient-data | stable | plateau | growing | leaking`.
    pub state: String,
    pub confidence_ratio: f64,
    /// In plain words, the deciding one first.
    pub reasons: Vec<String>,
    /// The newest reading.
    pub now: f64,
    /// Growth with its 95 % interval; absent where it does not grow.
    pub per_hour: Option<f64>,
    pub per_hour_low: Option<f64>,
    pub per_hour_high: Option<f64>,
    /// To the budget, at this rate and at the ends of its interval; no latest: perhaps never.
    pub time_to_limit_seconds: Option<f64>,
    pub soonest_seconds: Option<f64>,
    pub latest_seconds: Option<f64>,
    /// What it rests on.
    pub span_seconds: f64,
    pub readings: u64,
    /// It grows, and what the program holds of it does not: kept by allocator or runtime.
    pub retention: bool,
}

/// One entry of the decision log, as shown.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct DecisionView {
    pub at_unix: f64,
    /// `level`, `stage`, `signal`, `exit`, `restart`, `adopt`, `limit`, `blind`, …
    pub kind: String,
    pub level: String,
    pub previous: Option<String>,
    pub charged_bytes: Option<u64>,
    pub budget_bytes: Option<u64>,
    pub growth_bytes_per_second: Option<f64>,
    pub time_to_limit_seconds: Option<f64>,
    /// What was done and why, in words with figures.
    pub text: String,
}

/// The supervise loop shows a sign of life every second; past this age nothing that it says is taken as the present.
pub(crate) const STALE_AFTER_SECONDS: f64 = 5.0;

impl Snapshot {
    /// How old the supervisor's last sign of life is, when that is too old to be believed.
    pub(crate) fn stale_seconds(&self) -> Option<f64> {
        self.supervisor.heartbeat_age_seconds.filter(|age| *age > STALE_AFTER_SECONDS)
    }

    /// A loop that gives no sign of life is not "running", whoever answers in its place.
    pub(crate) fn own_up(&mut self) {
        if self.stale_seconds().is_some() && self.state != RunState::Exited {
            self.state = RunState::Stale;
        }
    }

    /// Without what only the supervisor's own user may read: values of variables, commands, words of the program.
    pub(crate) fn redacted(mut self) -> Snapshot {
        for derived in &mut self.derived {
            derived.value = None;
            derived.note.clear();
        }
        for stage in &mut self.stages {
            redact_command(&mut stage.action);
            stage.last_skip_reason = None;
        }
        if let Some(heap) = &mut self.heap {
            heap.redact();
        }
        self.logs.volume.redact();
        self.reports.redact();
        if let Some(words) = self.last_exit.as_mut().and_then(|exit| exit.last_words.as_mut()) {
            words.redact();
        }
        self
    }
}

impl ExitView {
    /// Ended by itself with code 0.
    pub(crate) fn is_success(&self) -> bool {
        self.reason == "exit" && self.code == Some(0)
    }
}

impl FdsView {
    /// Kind and count, in a fixed order.
    pub(crate) fn by_kind(&self) -> [(&'static str, u64); 7] {
        [
            ("file", self.file),
            ("socket", self.socket),
            ("pipe", self.pipe),
            ("anon_inode", self.anon_inode),
            ("proc", self.proc),
            ("device", self.device),
            ("other", self.other),
        ]
    }
}

impl MemoryView {
    /// Kind and bytes, in a fixed order; `None` where it cannot be read.
    pub(crate) fn by_kind(&self) -> [(&'static str, Option<u64>); 6] {
        [
            ("anon", self.anon_bytes),
            ("shmem", self.shmem_bytes),
            ("swap", self.swap_bytes),
            ("unevictable", self.unevictable_bytes),
            ("kernel", self.kernel_bytes),
            ("file", self.file_bytes),
        ]
    }
}

impl GovernorView {
    /// `governs`, `observes` (no budget) or `blind` (the main number cannot be read).
    pub(crate) fn mode(&self) -> &'static str {
        match (self.blind, self.governs) {
            (true, _) => "blind",
            (false, true) => "governs",
            (false, false) => "observes",
        }
    }
}

impl DecisionView {
    /// As [`Snapshot::redacted`]: what a stage ran is not shown, only that it ran.
    pub(crate) fn redact(&mut self) {
        redact_command(&mut self.text);
    }
}

/// Cuts the command out of an action or a sentence: `exec:notify --token x` becomes `exec:…`.
fn redact_command(text: &mut String) {
    if let Some(at) = text.find("exec:") {
        text.truncate(at + "exec:".len());
        text.push('…');
    }
}

/// What the faces (socket, HTTP, top) may ask of a running supervisor. Every call is bounded in time and takes no lock
/// that the supervised path waits for.
pub(crate) trait Control: Send + Sync {
    /// The state now.
    fn snapshot(&self) -> Snapshot;
    /// The newest `max` entries of the decision log, oldest first.
    fn decisions(&self, max: usize) -> Vec<DecisionView>;
    /// Changes budget and, when given, reserve of the running child. The error is a sentence with value and hint.
    fn set_memory(&self, budget_bytes: u64, reserve_bytes: Option<u64>) -> Result<(), String>;
    /// Asks for a clean stop, as SIGTERM to the supervisor would.
    fn stop(&self);
    /// Asks for a heap capture; the ticket is served once `heap.served_total` has reached it. The error is a sentence.
    fn capture(&self) -> Result<u64, String>;
    /// Where captures are kept; `None` where they are off.
    fn shelf(&self) -> Option<crate::capture::shelf::Shelf>;
}
