//! Several programs as a table, one row each: columns as wide as what stands in them, two blanks apart.
//!
//! The order of columns is the order of interest, so that a narrow terminal cuts what matters least.

use plimsoll::units;

use super::bar::Scale;
use super::text::{Line, Tone};
use super::{volume, words};
use crate::snapshot::{RunState, Snapshot};

/// Blanks between two columns.
const GAP: usize = 2;
/// Columns of the bar beside the figures.
const BAR_COLUMNS: usize = 10;
const TITLES: [&str; 8] = ["NAME", "STATE", "LEVEL", "MEMORY", "GROWTH", "LOGS", "RESTARTS", "LAST EXIT"];

/// The head and one row per program, the one at index `selected` marked; with a small bar of its budget each when `bars`.
pub(crate) fn programs<'a>(
    programs: impl Iterator<Item = &'a Snapshot>,
    selected: Option<usize>,
    bars: bool,
) -> Vec<Line> {
    let programs: Vec<&Snapshot> = programs.collect();
    let all_logs: f64 = programs.iter().filter(|program| is_alive(program)).map(|program| printed(program)).sum();
    let head = TITLES.map(|title| Line::new().add(Tone::Dim, title));
    let cells = |(i, program): (usize, &Snapshot)| row(program, selected == Some(i), bars, all_logs);
    let rows: Vec<[Line; TITLES.len()]> =
        std::iter::once(head).chain(programs.into_iter().enumerate().map(cells)).collect();
    let mut widths = [0; TITLES.len()];
    for row in &rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = cell.width().max(*width);
        }
    }
    let aligned = rows.into_iter().enumerate().map(|(i, cells)| {
        let marked = i > 0 && selected == Some(i - 1);
        let mut line = Line::new().add(Tone::Note, if marked { "▸ " } else { "  " });
        let mut column = 2;
        for (cell, width) in cells.into_iter().zip(widths) {
            line = line.pad_to(column).join(cell);
            column += width + GAP;
        }
        line
    });
    aligned.collect()
}

fn is_alive(program: &Snapshot) -> bool {
    !matches!(program.state, RunState::Exited | RunState::Stale)
}

/// Bytes that a program prints in a second.
fn printed(program: &Snapshot) -> f64 {
    program.logs.volume.streams.values().map(|stream| stream.bytes_per_second).sum()
}

/// Rate of its logs, and their share of what all of them print.
fn logs(program: &Snapshot, all: f64) -> Line {
    let rate = printed(program);
    if rate <= 0.0 {
        return Line::new().add(Tone::Dim, "none");
    }
    let share = volume::percent(rate / all, 0.0);
    Line::new().plain(units::rate(rate).to_string().trim_start_matches('+')).add(Tone::Dim, format!("  {share}"))
}

fn row(program: &Snapshot, selected: bool, bars: bool, all_logs: f64) -> [Line; TITLES.len()] {
    let alive = is_alive(program);
    let dash = || Line::new().add(Tone::Dim, "–");
    let (tone, state) = words::state(program);
    let level = program.governor.level.as_str();
    let memory = match (program.memory.charged_bytes, program.memory.budget_bytes) {
        (Some(charged), Some(budget)) => {
            Line::new().plain(words::size(charged)).add(Tone::Dim, format!(" of {}", words::size(budget)))
        }
        (Some(charged), None) => Line::new().plain(words::size(charged)),
        (None, Some(budget)) => Line::new().add(Tone::Dim, format!("? of {}", words::size(budget))),
        (None, None) => dash(),
    };
    let memory = match (Scale::of(&program.memory), program.memory.charged_bytes) {
        (Some(scale), Some(charged)) if bars => scale.small(charged, BAR_COLUMNS).plain("  ").join(memory),
        _ if bars => Line::new().pad_to(BAR_COLUMNS + GAP).join(memory),
        _ => memory,
    };
    [
        Line::new().add(if selected { Tone::Strong } else { Tone::Plain }, &program.name),
        Line::new().add(tone, state),
        if alive && !level.is_empty() { Line::new().add(words::level_tone(level), level) } else { dash() },
        memory,
        if alive { words::growth_rate(&program.governor) } else { dash() },
        if alive { logs(program, all_logs) } else { dash() },
        Line::new().plain(words::count(program.restarts.total)),
        match &program.last_exit {
            Some(exit) if exit.is_success() => Line::new().plain(&exit.reason),
            Some(exit) => Line::new().add(Tone::Alarm, &exit.reason),
            None => dash(),
        },
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::snapshot::sample;
    use crate::view::text::write_lines;

    #[test]
    fn columns_are_as_wide_as_needed_and_the_dead_show_no_level() {
        let mut dead = sample::leaking();
        dead.name = "a-much-longer-name".into();
        dead.supervisor.heartbeat_age_seconds = Some(750.0);
        dead.own_up();
        dead.memory.charged_bytes = None;
        let lines = programs([&sample::leaking(), &dead].into_iter(), Some(1), false);
        let expected =
            "  NAME                STATE               LEVEL  MEMORY                  GROWTH     LOGS              RESTARTS  LAST EXIT
  shop                running             high   258.5 MiB of 300.0 MiB  +18 MiB/s  632 KiB/s  100 %  2         memory
▸ a-much-longer-name  stale, 12 min 30 s  –      ? of 300.0 MiB          –          –                 2         memory
";
        assert_eq!(write_lines(&lines, false), expected);
        let lines = programs([&sample::leaking(), &dead].into_iter(), None, true);
        let expected = "  NAME                STATE               LEVEL  MEMORY                              GROWTH     LOGS              RESTARTS  LAST EXIT
  shop                running             high   ████████▌░  258.5 MiB of 300.0 MiB  +18 MiB/s  632 KiB/s  100 %  2         memory
  a-much-longer-name  stale, 12 min 30 s  –                  ? of 300.0 MiB          –          –                 2         memory
";
        assert_eq!(write_lines(&lines, false), expected);
    }
}
