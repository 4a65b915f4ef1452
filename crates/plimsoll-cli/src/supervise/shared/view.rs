//! The snapshot that every face shows, put together from what is shared and what `/proc` says now. On the asker's thread.

use std::time::Duration;

use plimsoll::clock::{Clock as _, wall};
use plimsoll::gauge::group::Version;
use plimsoll::gauge::process::read_process;
use plimsoll::gauge::{Root, host, pressure};
use plimsoll::governor::GovernorStatus;
use plimsoll::level::Level;
use plimsoll::limit;

use super::super::facts;
use super::super::reach::Bond;
use super::super::table::State;
use super::Shared;
use crate::capture::due::Trigger;
use crate::capture::shelf::Shelf;
use crate::history::named::NAMED_MAX;
use crate::snapshot::{
    ChildView, Control, DecisionView, GovernorView, GroupView, HostView, LimitView, LogsView, MemoryView, PressureView,
    RestartView, Snapshot, SupervisorView, VERSION,
};

/// Descriptors are counted again for a face when the last count is older.
const COUNT_AGE: Duration = Duration::from_secs(2);
/// A rate of lines is told over at least this long.
const RATE_SPAN: Duration = Duration::from_millis(900);

impl Control for Shared {
    fn snapshot(&self) -> Snapshot {
        let root = Root::default();
        let now = self.clock.now();
        let at_unix = wall().as_secs_f64();
        let logs = self.logs_view(now);
        let inner = self.inner.lock();
        let status = inner.watch.as_ref().map(|seen| seen.governor.status());
        let tree = inner.watch.as_ref().and_then(|seen| match &seen.bond {
            Bond::Tree(monitor) => Some(monitor.status()),
            Bond::Group(_) => None,
        });
        let child = inner.child;
        let mut snapshot = Snapshot {
            version: VERSION,
            name: self.fixed.name.clone(),
            at_unix,
            state: inner.state.unwrap_or(State::Starting).view(),
            supervisor: SupervisorView {
                pid: self.fixed.pid,
                version: env!("CARGO_PKG_VERSION").to_owned(),
                started_unix: self.fixed.started_unix,
                uptime_seconds: now.saturating_sub(self.fixed.started).as_secs_f64(),
                adopted: inner.adopted,
                ..SupervisorView::default()
            },
            memory: MemoryView {
                budget_bytes: inner.budget_bytes,
                reserve_bytes: inner.reserve_bytes,
                kernel_limit_bytes: inner
                    .budget_bytes
                    .filter(|_| self.fixed.group.is_some())
                    .map(|budget| budget.saturating_add(inner.reserve_bytes)),
                ..MemoryView::default()
            },
            stages: inner.stages.clone(),
            grace_seconds: Some(self.fixed.grace.as_secs_f64()),
            restarts: RestartView {
                policy: self.fixed.policy_name.clone(),
                total: inner.restarts_total,
                by_reason: inner.restarts_by_reason.clone(),
                next_in_seconds: inner
                    .next_start
                    .filter(|_| inner.state == Some(State::BackingOff))
                    .map(|at| at.saturating_sub(now).as_secs_f64()),
                crash_loop: inner.crash_loop,
            },
            last_exit: inner.last_exit.clone(),
            logs,
            derived: inner.derived.iter().chain(&inner.offered).cloned().collect(),
            heap: self.heap.get().map(|(desk, _)| desk.view()),
            warnings: inner.standing.clone(),
            ..Snapshot::default()
        };
        drop(inner);
        snapshot.supervisor.heartbeat_age_seconds = Some(self.beat.age().as_secs_f64());
        facts::own(&mut snapshot.supervisor);
        self.memory(&mut snapshot.memory, status.as_ref());
        let began = child.map_or(self.fixed.started_unix, |child| child.started_unix.max(self.fixed.started_unix));
        snapshot.governor = self.governor(status.as_ref(), now, at_unix, began);
        self.child(&mut snapshot, &root, child.map(|c| (c.pid, c.started_unix)), at_unix);
        self.surroundings(&mut snapshot, &root);
        if let Some(reports) = self.reports() {
            snapshot.reports = reports.view(child.map(|child| child.pid));
        }
        snapshot.verdicts = self.verdicts();
        if let Some(tree) = tree {
            if tree.overflow > 0 {
                snapshot
                    .warnings
                    .push(format!("{} processes of the tree are not seen: there are too many", tree.overflow));
            }
            if tree.denied > 0 {
                snapshot
                    .warnings
                    .push(format!("{} processes of the tree may not be read exactly: their RSS counts", tree.denied));
            }
        }
        let dropped = self.mailbox.dropped_total();
        if dropped > 0 {
            snapshot.warnings.push(format!("{dropped} reports of the governor had no room and are in no log"));
        }
        let forgotten = self.past.unwritten_total();
        if forgotten > 0 {
            snapshot.warnings.push(format!("{forgotten} lines of the history could not be written"));
        }
        let unfollowed = self.past.unfollowed();
        if unfollowed > 0 {
            snapshot.warnings.push(format!(
                "{unfollowed} accounts, queues and stores are not in the history: it follows {NAMED_MAX}"
            ));
        }
        let unwritten = self.journal.unwritten_total();
        if unwritten > 0 {
            snapshot.warnings.push(format!("{unwritten} entries of the decision log could not be written"));
        }
        if let Some(logs) = self.logs.get() {
            snapshot.warnings.extend(logs.warnings());
        }
        snapshot.own_up();
        snapshot
    }

    fn decisions(&self, max: usize) -> Vec<DecisionView> {
        self.journal.newest(max)
    }

    fn set_memory(&self, budget_bytes: u64, reserve_bytes: Option<u64>) -> Result<(), String> {
        self.change_budget(budget_bytes, reserve_bytes)
    }

    fn stop(&self) {
        self.request(|requests| requests.stop = true);
    }

    fn capture(&self) -> Result<u64, String> {
        let (desk, _) = self.heap.get().ok_or("captures are off (--heap=off)")?;
        desk.ask(Trigger::Asked, self.clock.now()).map_err(|refused| refused.to_string())
    }

    fn shelf(&self) -> Option<Shelf> {
        self.heap.get().map(|(_, shelf)| shelf.clone())
    }
}

impl Shared {
    fn memory(&self, view: &mut MemoryView, status: Option<&GovernorStatus>) {
        let policy = self.policy();
        let marks = [Level::Elevated, Level::High, Level::Critical].map(|level| policy.mark_bytes(level));
        if let [Some(elevated), Some(high), Some(critical)] = marks {
            view.marks_bytes = Some([elevated, high, critical]);
        }
        let Some(status) = status else {
            view.unread = Some("no program runs".to_owned());
            return;
        };
        view.charged_bytes = status.decision.and_then(|d| d.charged_bytes);
        view.peak_bytes = status.peak_bytes;
        if let Some(parts) = status.protected {
            view.anon_bytes = parts.anon_bytes;
            view.shmem_bytes = parts.shmem_bytes;
            view.swap_bytes = parts.swap_bytes;
            view.unevictable_bytes = parts.unevictable_bytes;
            view.kernel_bytes = parts.kernel_bytes;
            view.file_bytes = parts.file_bytes;
        }
        view.unread = match (status.decision.and_then(|d| d.unread), view.charged_bytes) {
            (Some(why), _) => Some(why.to_string()),
            (None, None) => Some("not read yet".to_owned()),
            (None, Some(_)) => None,
        };
    }

    fn governor(&self, status: Option<&GovernorStatus>, now: Duration, at_unix: f64, began_unix: f64) -> GovernorView {
        let governs = self.budget().0.is_some();
        let Some(status) = status else {
            let level = Level::Normal.as_str().to_owned();
            return GovernorView { level, level_since_unix: at_unix, governs, ..GovernorView::default() };
        };
        let growth = status.decision.and_then(|d| d.growth);
        let wakes = &status.wakes;
        let wakes = [
            ("timeout", wakes.timeout_total),
            ("nudge", wakes.nudge_total),
            ("threshold", wakes.threshold_total),
            ("pressure", wakes.pressure_total),
            ("events", wakes.events_total),
            ("muted", wakes.muted_total),
            ("dead", wakes.dead_total),
        ];
        let levels = [Level::Normal, Level::Elevated, Level::High, Level::Critical];
        GovernorView {
            level: status.level().as_str().to_owned(),
            // A level that never changed holds since the beginning, not since the clock's.
            level_since_unix: (at_unix - now.saturating_sub(status.level_since).as_secs_f64()).max(began_unix),
            governs,
            growth_bytes_per_second: growth.map(|g| g.bytes_per_second),
            growth_confidence_ratio: growth.map(|g| g.confidence),
            time_to_limit_seconds: status.decision.and_then(|d| d.time_to_limit).map(|t| t.as_secs_f64()),
            blind: status.blind_since.is_some(),
            reading_age_seconds: status.confirmed_age.map(|age| age.as_secs_f64()),
            samples_total: status.samples_total,
            confirms_total: status.confirms_total,
            missed_ticks_total: status.missed_ticks_total,
            wakes_total: wakes.into_iter().map(|(kind, n)| (kind.to_owned(), n)).collect(),
            sample_cost_seconds: Some(status.fast_cost.mean.as_secs_f64()),
            confirm_cost_seconds: Some(status.confirm_cost.mean.as_secs_f64()),
            scheduling: status.scheduling.as_str().to_owned(),
            entered_total: levels
                .iter()
                .zip(status.entered_total)
                .map(|(level, n)| (level.as_str().to_owned(), n))
                .collect(),
        }
    }

    fn child(&self, snapshot: &mut Snapshot, root: &Root, child: Option<(i32, f64)>, at_unix: f64) {
        let Some((pid, started_unix)) = child else { return };
        let pids = self.members();
        let now = self.clock.now();
        let old = {
            let descriptors = self.descriptors.lock();
            descriptors.newest.is_none() || now.saturating_sub(descriptors.at) > COUNT_AGE
        };
        if old {
            self.scan_descriptors();
        }
        let descriptors = self.descriptors.lock();
        let fds = match (&descriptors.newest, &descriptors.first) {
            (Some(newest), Some(first)) => Some(facts::fds_view(newest, first, descriptors.processes)),
            _ => None,
        };
        drop(descriptors);
        snapshot.child = Some(ChildView {
            pid: pid.unsigned_abs(),
            started_unix,
            uptime_seconds: (at_unix - started_unix).max(0.0),
            comm: read_process(root, pid).map(|p| p.identity.comm.to_string()).unwrap_or_default(),
            processes: Some(pids.len() as u64),
            threads: Some(facts::threads(&pids)),
            fds,
        });
    }

    fn surroundings(&self, snapshot: &mut Snapshot, root: &Root) {
        let own = i32::try_from(self.fixed.pid).unwrap_or(0);
        let pid = snapshot.child.as_ref().and_then(|c| i32::try_from(c.pid).ok()).unwrap_or(own);
        let limits = limit::discover(root, pid);
        snapshot.binding = limits.governing().map(|limit| limit.source.display().to_string());
        snapshot.limits = limits
            .all
            .iter()
            .map(|limit| LimitView {
                bytes: limit.bytes,
                usage_bytes: limit.usage_bytes.ok(),
                consequence: limit.consequence.as_str().to_owned(),
                source: limit.source.display().to_string(),
            })
            .collect();
        let group = self.fixed.group.as_ref().map(|group| group.group());
        snapshot.group = GroupView {
            kind: match group.map(plimsoll::gauge::group::Group::version) {
                Some(Version::V1) => "cgroup-v1",
                Some(Version::V2) => "cgroup-v2",
                None => "tree",
            }
            .to_owned(),
            path: group.map(|group| group.dir().display().to_string()),
            why_not: self.fixed.why_not.clone(),
            oom_kills: self.oom_kills(),
        };
        let source = self.fixed.group.as_ref().and_then(|group| group.pressure_file());
        let source = source.unwrap_or_else(|| root.proc.join("pressure/memory"));
        snapshot.pressure = pressure::read(&source).ok().map(|read| PressureView {
            some_avg10: read.some.avg10_ratio * 100.0,
            full_avg10: read.full.map_or(0.0, |full| full.avg10_ratio * 100.0),
            source: source.display().to_string(),
        });
        snapshot.host = host::read(root)
            .ok()
            .map(|host| HostView { total_bytes: host.total_bytes, available_bytes: host.available_bytes });
    }

    fn logs_view(&self, now: Duration) -> LogsView {
        let mut view = self.logs.get().map(|logs| logs.view()).unwrap_or_default();
        let lines: u64 = view.streams.values().map(|s| s.lines_total).sum();
        let bytes: u64 = view.streams.values().map(|s| s.bytes_total).sum();
        let mut inner = self.inner.lock();
        match inner.rate {
            Some((at, lines_then, bytes_then)) if now.saturating_sub(at) >= RATE_SPAN => {
                let span = now.saturating_sub(at).as_secs_f64();
                let per = |now: u64, then: u64| now.saturating_sub(then) as f64 / span;
                inner.rates = Some((per(lines, lines_then), per(bytes, bytes_then)));
                inner.rate = Some((now, lines, bytes));
            }
            Some(_) => {}
            None => inner.rate = Some((now, lines, bytes)),
        }
        view.lines_per_second = inner.rates.map(|(lines, _)| lines);
        view.bytes_per_second = inner.rates.map(|(_, bytes)| bytes);
        view
    }
}
