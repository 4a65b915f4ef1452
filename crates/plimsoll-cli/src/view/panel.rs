//! One supervised program as a block of lines: what matters first, then what explains it; and several as a table.

use jiff::tz::TimeZone;

use super::bar::{self, Scale};
use super::text::{Line, Tone};
use super::words;
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
    line.right(Line::new().add(Tone::Dim, supervisor), frame.width.min(BAR_COLUMNS_MAX + 4) - 2)
}

fn alive(snapshot: &Snapshot) -> bool {
    !matches!(snapshot.state, RunState::Exited | RunState::Stale)
}

/// Level, figures, growth; the bar and its marks under it.
pub(crate) fn budget(snapshot: &Snapshot, frame: &Frame<'_>) -> Vec<Line> {
    let governor = &snapshot.governor;
    let level = match (alive(snapshot), governor.mode()) {
        (false, _) => Line::new().add(Tone::Dim, "last known"),
        (true, "blind") => Line::new().add(Tone::Critical, " BLIND "),
        (true, "observes") => Line::new().add(Tone::Note, "OBSERVES"),
        (true, _) => Line::new().add(words::level_tone(&governor.level), governor.level.to_uppercase()),
    };
    let mut line = Line::new().plain("  ").join(level).pad_to(LABEL_COLUMNS).join(words::charged(&snapshot.memory));
    if alive(snapshot) {
        line = line.plain("   ").join(words::growth(governor));
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

/// The course of the charged figure, newest at the right, with its peak.
pub(crate) fn course(snapshot: &Snapshot, samples: &[u64], columns: usize, rows: usize) -> Vec<Line> {
    let chart = match Scale::of(&snapshot.memory) {
        Some(scale) => scale.chart(samples, columns, rows),
        None => bar::free_chart(samples, columns, rows),
    };
    let mut lines: Vec<_> = chart.into_iter().map(|line| Line::new().plain("  ").join(line)).collect();
    let beside = [("peak", snapshot.memory.peak_bytes), ("kernel", snapshot.memory.kernel_limit_bytes)];
    for (line, (label, bytes)) in lines.iter_mut().zip(beside) {
        if let Some(bytes) = bytes {
            *line = std::mem::take(line).add(Tone::Dim, format!("  {label:<6} {}", words::size(bytes)));
        }
    }
    lines
}

/// The facts that both `status` and `top` show.
pub(crate) fn facts(snapshot: &Snapshot) -> Vec<Line> {
    let mut lines = vec![
        row("memory", words::split(&snapshot.memory)),
        row("process", words::process(snapshot)),
        row("fds", words::descriptors(snapshot)),
        row("logs", words::logs(&snapshot.logs)),
        row("restarts", words::restarts(&snapshot.restarts)),
    ];
    if let Some(exit) = &snapshot.last_exit {
        lines.push(row("last exit", words::exit(exit, snapshot.at_unix)));
    }
    lines
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
        lines.push(row(label, facts.add(Tone::Dim, format!(" · {} · {}", limit.consequence, limit.source))));
    }
    for stage in &snapshot.stages {
        let mut facts =
            Line::new().add(words::level_tone(&stage.level), &stage.level).plain(format!(" → {}", stage.action));
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

/// The newest decisions, as many as there are lines.
pub(crate) fn decisions(entries: &[DecisionView], now_unix: f64, rows: usize, frame: &Frame<'_>) -> Vec<Line> {
    let newest = &entries[entries.len().saturating_sub(rows)..];
    newest.iter().map(|entry| Line::new().plain("  ").join(words::decision(entry, now_unix, frame.zone))).collect()
}

/// The head of the table of several programs.
pub(crate) fn table_head() -> Line {
    let mut line = Line::new();
    for (title, column) in [("NAME", 2), ("STATE", 20), ("LEVEL", 38), ("MEMORY", 48), ("BUDGET", 60), ("RESTARTS", 72)]
    {
        line = line.pad_to(column).add(Tone::Dim, title);
    }
    line.pad_to(82).add(Tone::Dim, "GROWTH")
}

/// One program as a row of the table; `selected` is marked.
pub(crate) fn table_row(snapshot: &Snapshot, selected: bool) -> Line {
    let (tone, state) = words::state(snapshot);
    let name = Line::new().add(Tone::Note, if selected { "▸ " } else { "  " });
    let name = name.add(if selected { Tone::Strong } else { Tone::Plain }, &snapshot.name).clip(19);
    let line = name.pad_to(20).join(Line::new().add(tone, state).clip(17)).pad_to(38);
    let bytes = |bytes: Option<u64>| bytes.map_or_else(|| "–".to_owned(), words::size);
    let level = if alive(snapshot) { snapshot.governor.level.as_str() } else { "–" };
    let line = line.add(words::level_tone(level), level).pad_to(48).plain(bytes(snapshot.memory.charged_bytes));
    let line = line.pad_to(60).plain(bytes(snapshot.memory.budget_bytes)).pad_to(72);
    let line = line.plain(words::count(snapshot.restarts.total)).pad_to(82);
    if alive(snapshot) { line.join(words::growth(&snapshot.governor)) } else { line }
}
