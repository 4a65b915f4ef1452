//! One frame of `top`: what is known about the programs, laid out for a terminal of so many columns and rows.
//!
//! Pure. Fills at most `rows` lines of at most `columns`; with less room the chart goes first, then the decisions, then the
//! facts, and the budget bar stays. Works from 40 x 8 on.

use std::collections::VecDeque;

use jiff::tz::TimeZone;

use crate::snapshot::{DecisionView, Snapshot};
use crate::view::panel::{self, Frame};
use crate::view::text::{Line, Tone};

/// Samples kept and shown: a minute at the default interval.
pub(super) const SAMPLES: usize = 60;
/// Rows of the chart where there is room for it.
const CHART_ROWS: usize = 3;

/// One program as last seen.
#[derive(Clone, Debug, Default)]
pub(super) struct Program {
    pub(super) snapshot: Snapshot,
    /// The last [`SAMPLES`] charged figures, oldest first.
    pub(super) samples: VecDeque<u64>,
    /// The tail of its decision log, oldest first.
    pub(super) decisions: Vec<DecisionView>,
}

impl Program {
    /// Takes in a newer view of the program.
    pub(super) fn update(&mut self, snapshot: Snapshot, decisions: Option<Vec<DecisionView>>) {
        if let Some(charged) = snapshot.memory.charged_bytes {
            if self.samples.len() == SAMPLES {
                self.samples.pop_front();
            }
            self.samples.push_back(charged);
        }
        self.snapshot = snapshot;
        if let Some(decisions) = decisions {
            self.decisions = decisions;
        }
    }
}

/// What a frame shows.
pub(super) struct Model<'a> {
    pub(super) programs: &'a [Program],
    /// Index of the selected one.
    pub(super) selected: usize,
    /// Where they were looked for, for the case that there are none.
    pub(super) place: &'a str,
    pub(super) now_unix: f64,
    pub(super) zone: &'a TimeZone,
    /// Whether keys do something, so that they are named.
    pub(super) live: bool,
}

/// The lines of a frame.
pub(super) fn draw(model: &Model<'_>, columns: usize, rows: usize) -> Vec<Line> {
    let footer = usize::from(model.live);
    let room = rows.saturating_sub(footer);
    let mut lines = match model.programs.get(model.selected) {
        Some(program) => body(model, program, columns, room),
        None => nothing(model.place),
    };
    lines.truncate(room);
    if model.live {
        lines.resize_with(room, Line::new);
        lines.push(keys(model));
    }
    lines.into_iter().map(|line| line.clip(columns)).collect()
}

fn body(model: &Model<'_>, program: &Program, columns: usize, room: usize) -> Vec<Line> {
    let frame = Frame { width: columns, zone: model.zone };
    let mut lines = if model.programs.len() > 1 { table(model, room) } else { Vec::new() };
    lines.push(panel::headline(&program.snapshot, &frame));
    let budget = panel::budget(&program.snapshot, &frame);
    let mut facts = panel::facts(&program.snapshot);
    facts.extend(panel::warnings(&program.snapshot).into_iter().take(2));

    // What is left decides how airy it gets and what is shown at all.
    let needed = lines.len() + budget.len() + facts.len();
    let mut left = room.saturating_sub(needed);
    let mut spend = |n: usize| {
        let affordable = left >= n;
        left -= if affordable { n } else { 0 };
        affordable
    };
    let air = |yes: bool, lines: &mut Vec<Line>| lines.extend(yes.then(Line::new));
    let chart = spend(CHART_ROWS + 1);
    let airy = spend(3);
    air(airy, &mut lines);
    lines.extend(budget);
    if chart {
        air(true, &mut lines);
        let samples: Vec<u64> = program.samples.iter().copied().collect();
        let width = SAMPLES.min(columns.saturating_sub(20));
        lines.extend(panel::course(&program.snapshot, &samples, width, CHART_ROWS));
    }
    air(airy, &mut lines);
    lines.extend(facts);
    air(airy, &mut lines);
    if left >= 2 && !program.decisions.is_empty() {
        let rule = "─".repeat(panel::bar_columns(columns).saturating_sub("decisions ".len()));
        lines.push(Line::new().plain("  ").add(Tone::Dim, format!("decisions {rule}")));
        lines.extend(panel::decisions(&program.decisions, model.now_unix, left - 1, &frame));
    }
    lines
}

/// The table, with the selected program inside what is shown.
fn table(model: &Model<'_>, room: usize) -> Vec<Line> {
    let shown = (room / 3).clamp(1, model.programs.len());
    let first = model.selected.saturating_sub(shown - 1);
    let mut lines = vec![panel::table_head()];
    for (i, program) in model.programs.iter().enumerate().skip(first).take(shown) {
        lines.push(panel::table_row(&program.snapshot, i == model.selected));
    }
    let hidden = model.programs.len() - shown;
    lines.push(match hidden {
        0 => Line::new(),
        more => Line::new().add(Tone::Dim, format!("  {more} more")),
    });
    lines
}

fn nothing(place: &str) -> Vec<Line> {
    vec![
        Line::new(),
        Line::new().plain("  nothing is supervised in ").add(Tone::Strong, place),
        Line::new(),
        Line::new().add(Tone::Dim, "  begin with:  ").plain("plimsoll run --memory 300M -- CMD"),
    ]
}

fn keys(model: &Model<'_>) -> Line {
    let mut line = Line::new().plain("  ").add(Tone::Strong, "q").add(Tone::Dim, " quit");
    if model.programs.len() > 1 {
        line = line.add(Tone::Strong, "   ↑ ↓").add(Tone::Dim, " select");
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::snapshot::{RunState, sample};
    use crate::view::text::write_lines;

    fn program() -> Program {
        let mut program = Program::default();
        for i in 0..70_u64 {
            let mut snapshot = sample::leaking();
            snapshot.memory.charged_bytes = Some(271_056_896 - (69 - i) * (3 << 20));
            program.update(snapshot, Some(sample::decisions()));
        }
        program
    }

    fn model<'a>(programs: &'a [Program], selected: usize) -> Model<'a> {
        static UTC: TimeZone = TimeZone::UTC;
        Model { programs, selected, place: "/state", now_unix: sample::AT_UNIX, zone: &UTC, live: true }
    }

    #[test]
    fn a_frame_of_80_by_24() {
        let drawn = write_lines(&draw(&model(&[program()], 0), 80, 24), false);
        let golden = include_str!("golden_80x24.txt");
        assert_eq!(drawn, golden, "\n{drawn}");
    }

    #[test]
    fn a_frame_never_overflows_and_the_bar_stays() {
        let programs = vec![program(); 30];
        for shown in [0, 1, 2, 30] {
            for columns in [40, 63, 80, 132, 300] {
                for rows in [8, 16, 24, 50] {
                    let lines = draw(&model(&programs[..shown], shown / 2), columns, rows);
                    assert_eq!(lines.len(), rows, "{shown} programs, {columns} x {rows}");
                    assert!(lines.iter().all(|line| line.width() <= columns), "{shown} programs, {columns} x {rows}");
                    let bar = lines.iter().any(|line| write_lines(std::slice::from_ref(line), false).contains("██"));
                    assert!(shown == 0 || rows < 16 || bar, "{shown} programs, {columns} x {rows}");
                }
            }
        }
    }

    #[test]
    fn the_selected_one_is_marked_and_in_view() {
        let mut programs = vec![program(); 30];
        for (i, program) in programs.iter_mut().enumerate() {
            program.snapshot.name = format!("web-{i}");
        }
        let drawn = write_lines(&draw(&model(&programs, 27), 100, 30), false);
        assert!(drawn.contains("▸ web-27"), "{drawn}");
        assert!(drawn.contains("  web-27  running"), "its panel: {drawn}");
        assert!(drawn.contains("20 more"), "{drawn}");
    }

    #[test]
    fn a_hung_supervisor_reads_stale_with_its_age() {
        let mut program = program();
        program.snapshot.state = RunState::Stale;
        program.snapshot.supervisor.heartbeat_age_seconds = Some(42.0);
        let drawn = write_lines(&draw(&model(&[program], 0), 80, 24), false);
        assert!(drawn.contains("stale, 42 s"), "{drawn}");
        assert!(!drawn.contains("running") && !drawn.contains("up 9 min"), "{drawn}");
        assert!(drawn.contains("last known"), "{drawn}");
    }

    #[test]
    fn samples_are_bounded() {
        assert_eq!(program().samples.len(), SAMPLES);
    }
}
