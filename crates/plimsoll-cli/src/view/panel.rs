//! One supervised program as a block of lines: what matters first, then what explains it; and several as a table.

use jiff::tz::TimeZone;

use super::bar::{self, Scale};
use super::report;
use super::text::{Line, Tone};
use super::{heap, trend, volume, words};
use crate::snapshot::{DecisionView, RunState, Snapshot};

/// Where the facts begin, after their labels.
const LABEL_COLUMNS: usize = 12;
/// The widest bar; beyond it, more columns say nothing more.
const BAR_COLUMNS_MAX: usize = 120;

/// For whom it is drawn.
pub(crate) struct Frame<'a> {
    /// Columns of the terminal.
    pub(crate) width: usize,
    /// Whose times of day.
    pub(crate) zone: &'a TimeZone,
}

fn row(label: &str, facts: Line) -> Line {
    Line::new().plain("  ").add(Tone::Dim, label).pad_to(LABEL_COLUMNS).join(facts)
}

/// Columns of a bar in a terminal of `width`.
pub(crate) fn bar_columns(width: usize) -> usize {
    width.saturating_sub(4).min(BAR_COLUMNS_MAX)
}

/// Name, state and age; who supervises at the right.
pub(crate) fn headline(snapshot: &Snapshot, frame: &Frame<'_>) -> Line {
    let (tone, state) = words::state(snapshot);
    let mut line = Line::new().plain("  ").add(Tone::Strong, &snapshot.name).plain("  ").add(tone, state);
    if let Some(child) = snapshot.child.as_ref().filter(|_| alive(snapshot)) {
        line = line.add(Tone::Dim, format!("  up {}", words::seconds(child.uptime_seconds)));
    }
    let adopted = if snapshot.supervisor.adopted { ", adopted" } else { "" };
    let supervisor = format!("plimsoll {} · pid {}{adopted}", snapshot.supervisor.version, snapshot.supervisor.pid);
    line.right(Line::new().add(Tone::Dim, supervisor), right_edge(frame))
}

/// The column at which bars and what is at the right end.
fn right_edge(frame: &Frame<'_>) -> usize {
    bar_columns(frame.width) + 2
}

/// Whether what is shown is of now.
pub(crate) fn alive(snapshot: &Snapshot) -> bool {
    !matches!(snapshot.state, RunState::Exited | RunState::Stale)
}

/// Level, figures, growth; the bar and its marks under it. Nothing of a program that nobody measures now.
pub(crate) fn budget(snapshot: &Snapshot, frame: &Frame<'_>) -> Vec<Line> {
    if !alive(snapshot) && snapshot.memory.charged_bytes.is_none() {
        return Vec::new();
    }
    let governor = &snapshot.governor;
    let level = match (alive(snapshot), governor.mode()) {
        (false, _) => Line::new().add(Tone::Dim, "last known  "),
        (true, "blind") => Line::new().add(Tone::Critical, " BLIND "),
        (true, "observes") => Line::new().add(Tone::Note, "OBSERVES"),
        (true, _) => Line::new().add(words::level_tone(&governor.level), governor.level.to_uppercase()),
    };
    let mut line = Line::new().plain("  ").join(level).pad_to(LABEL_COLUMNS).join(words::charged(&snapshot.memory));
    if alive(snapshot) {
        line = line.plain("   ").join(words::growth(governor));
    }
    if let Some(peak) = snapshot.memory.peak_bytes {
        line = line.right(Line::new().add(Tone::Dim, format!("peak {}", words::size(peak))), right_edge(frame));
    }
    let mut lines = vec![line];
    if let (Some(scale), Some(charged)) = (Scale::of(&snapshot.memory), snapshot.memory.charged_bytes) {
        let columns = bar_columns(frame.width);
        let kernel = snapshot.memory.kernel_limit_bytes.map(|bytes| format!("kernel kills at {}", words::size(bytes)));
        lines.push(Line::new().plain("  ").join(scale.bar(charged, columns)));
        lines.push(Line::new().plain("  ").join(scale.legend(columns, kernel.as_deref())));
    }
    lines
}

/// Columns at the right of a chart for what its height means.
const SCALE_COLUMNS: usize = 18;

/// The course of the charged figure, newest at the right, as wide as the bar; beside it what its height means.
pub(crate) fn course(snapshot: &Snapshot, samples: &[u64], rows: usize, frame: &Frame<'_>) -> Vec<Line> {
    let columns = bar_columns(frame.width).saturating_sub(SCALE_COLUMNS);
    let mut beside = vec![String::new(); rows];
    let chart = match Scale::of(&snapshot.memory) {
        Some(scale) => {
            let memory = &snapshot.memory;
            let labels = [
                (scale.budget_row(rows), "budget", memory.budget_bytes),
                (rows - 1, "kernel", memory.kernel_limit_bytes),
            ];
            for (row, label, bytes) in labels {
                if let (Some(bytes), Some(beside)) = (bytes, beside.get_mut(rows - 1 - row)) {
                    *beside = format!("  {label} {:>9}", words::size(bytes));
                }
            }
            scale.chart(samples, columns, rows)
        }
        None => bar::free_chart(samples, columns, rows),
    };
    let lines = chart.into_iter().zip(beside);
    lines.map(|(line, beside)| Line::new().plain("  ").join(line).add(Tone::Dim, beside)).collect()
}

/// The facts that both `status` and `top` show; of a program whose supervisor does not answer, only what is known.
pub(crate) fn facts(snapshot: &Snapshot) -> Vec<Line> {
    let mut lines = Vec::new();
    if alive(snapshot) || snapshot.memory.charged_bytes.is_some() {
        lines.push(row("memory", words::split(&snapshot.memory)));
        lines.push(row("process", words::process(snapshot)));
        lines.push(row("fds", words::descriptors(snapshot)));
        lines.push(row("logs", words::logs(&snapshot.logs)));
        lines.extend(trend::facts(&snapshot.verdicts).map(|facts| row("trend", facts)));
        lines.extend(volume::most(&snapshot.logs.volume).map(|most| row("most", most)));
    } else if let Some(child) = &snapshot.child {
        let runs_on = match snapshot.memory.budget_bytes {
            Some(budget) => format!(", without its governor; budget {}", words::size(budget)),
            None => ", unobserved".to_owned(),
        };
        lines.push(row("process", Line::new().plain(format!("pid {}", child.pid)).add(Tone::Dim, runs_on)));
    }
    lines.extend(report::facts(snapshot).into_iter().map(|(label, line)| row(label, line)));
    lines.push(row("restarts", words::restarts(&snapshot.restarts)));
    if let Some(exit) = &snapshot.last_exit {
        lines.push(row("last exit", words::exit(exit, snapshot.at_unix)));
    }
    lines.extend(report::holders(snapshot).map(|holders| row("words", holders)));
    lines
}

/// The rest of a program's last words; `status` shows them also when nobody runs any more.
pub(crate) fn last_words(snapshot: &Snapshot) -> Vec<Line> {
    report::words(snapshot).into_iter().map(|line| row("", line)).collect()
}

/// What `status` adds: what was decided about this program, and what Plimsoll itself takes.
pub(crate) fn details(snapshot: &Snapshot) -> Vec<Line> {
    let mut lines = Vec::new();
    let group = match (&snapshot.group.path, &snapshot.group.why_not) {
        (Some(path), _) => Some(Line::new().plain(&snapshot.group.kind).add(Tone::Dim, format!("  {path}"))),
        (None, Some(why)) => Some(Line::new().plain(&snapshot.group.kind).add(Tone::Dim, format!("  {why}"))),
        (None, None) => None,
    };
    lines.extend(group.map(|group| row("group", group)));
    for limit in &snapshot.limits {
        let binds = snapshot.binding.as_deref() == Some(limit.source.as_str());
        let label = if binds { "limit" } else { "also" };
        let mut facts = Line::new().plain(words::size(limit.bytes));
        if let Some(used) = limit.usage_bytes {
            facts = facts.add(Tone::Dim, format!(", {} used", words::size(used)));
        }
        // The group's path stands in the line above.
        let group = snapshot.group.path.as_deref().unwrap_or("\0");
        let source =
            limit.source.strip_prefix(group).map_or(limit.source.as_str(), |file| file.trim_start_matches('/'));
        lines.push(row(label, facts.add(Tone::Dim, format!(" · {} · {source}", limit.consequence))));
    }
    for stage in &snapshot.stages {
        let mut facts = Line::new().add(Tone::Strong, &stage.level).plain(format!(" → {}", stage.action));
        if stage.sustain_seconds > 0.0 {
            facts = facts.plain(format!(" after {}", words::seconds(stage.sustain_seconds)));
        }
        facts = facts.add(Tone::Dim, format!(" · fired {}", words::count(stage.fired_total)));
        if stage.skipped_total > 0 {
            let why = stage.last_skip_reason.as_deref().unwrap_or("unknown");
            facts = facts.add(Tone::Warn, format!(" · skipped {}: {why}", words::count(stage.skipped_total)));
        }
        lines.push(row("stage", facts));
    }
    for derived in &snapshot.derived {
        let facts = match &derived.value {
            Some(value) => {
                Line::new().plain(format!("{}={value}", derived.name)).add(Tone::Dim, format!("  {}", derived.note))
            }
            None => Line::new().add(Tone::Dim, format!("{}  {}", derived.name, derived.note)),
        };
        lines.push(row("derived", facts));
    }
    for (i, line) in volume::table(&snapshot.logs.volume).into_iter().enumerate() {
        lines.push(row(if i == 0 { "volume" } else { "" }, line));
    }
    lines.extend(report::details(snapshot).into_iter().map(|(label, line)| row(label, line)));
    lines.extend(trend::reasons(&snapshot.verdicts).into_iter().map(|reason| row("trend", reason)));
    lines.extend(snapshot.heap.as_ref().map(|captures| row("heap", heap::facts(captures, snapshot.at_unix))));
    lines.push(row("store", store(snapshot)));
    lines.push(row("plimsoll", itself(snapshot)));
    lines.extend(warnings(snapshot));
    lines
}

fn store(snapshot: &Snapshot) -> Line {
    let logs = &snapshot.logs;
    Line::new()
        .plain(format!("{} in the database", words::size(logs.database_bytes)))
        .add(Tone::Dim, format!(", {}", words::plural(logs.chunks_total, "chunk", "chunks")))
        .add(Tone::Dim, format!(" · spool {}", words::size(logs.spool_bytes)))
        .add(
            Tone::Dim,
            format!(" · ring {} of {}", words::size(logs.ring_used_bytes), words::size(logs.ring_capacity_bytes)),
        )
}

fn itself(snapshot: &Snapshot) -> Line {
    let supervisor = &snapshot.supervisor;
    let mut line = Line::new().plain(match supervisor.rss_bytes {
        Some(bytes) => words::size(bytes),
        None => "memory unknown".to_owned(),
    });
    if let Some(private) = supervisor.private_bytes {
        line = line.add(Tone::Dim, format!(", {} private", words::size(private)));
    }
    if let Some(cpu) = supervisor.cpu_seconds {
        line = line.add(
            Tone::Dim,
            format!(" · {} of CPU in {}", words::seconds(cpu), words::seconds(supervisor.uptime_seconds)),
        );
    }
    if !snapshot.governor.scheduling.is_empty() {
        line = line.add(Tone::Dim, format!(" · {}", snapshot.governor.scheduling));
    }
    match snapshot.http.as_ref().and_then(|http| http.address.as_deref()) {
        Some(address) => line.add(Tone::Dim, " · ").plain(format!("http://{address}")),
        None => line,
    }
}

/// The warnings that hold now, one a line.
pub(crate) fn warnings(snapshot: &Snapshot) -> Vec<Line> {
    snapshot.warnings.iter().map(|warning| row("warning", Line::new().add(Tone::Warn, warning))).collect()
}

/// The newest decisions that `rows` hold, oldest first; long ones are broken into at most `lines_each` lines.
pub(crate) fn decisions(
    entries: &[DecisionView],
    now_unix: f64,
    rows: usize,
    lines_each: usize,
    frame: &Frame<'_>,
) -> Vec<Line> {
    let mut newest: Vec<Vec<Line>> = Vec::new();
    let mut left = rows;
    for entry in entries.iter().rev() {
        let line = Line::new().plain("  ").join(words::decision(entry, now_unix, frame.zone));
        let mut lines = line.clone().wrap(right_edge(frame), words::DECISION_COLUMNS + 2);
        let most = lines_each.min(left);
        if lines.len() > most && most == 1 {
            lines = vec![line.clip(right_edge(frame))];
        } else if lines.len() > most {
            lines.truncate(most);
            let Some(last) = lines.pop() else { break };
            lines.push(last.clip(right_edge(frame) - 1).add(Tone::Dim, "…"));
        }
        left -= lines.len();
        newest.push(lines);
    }
    newest.into_iter().rev().flatten().collect()
}

/// Lines of facts as they are, or with long ones broken where the terminal ends.
pub(crate) fn wrapped(lines: Vec<Line>, frame: &Frame<'_>) -> Vec<Line> {
    lines.into_iter().flat_map(|line| line.wrap(frame.width, LABEL_COLUMNS)).collect()
}
