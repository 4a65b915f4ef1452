//! Bars: the budget with its marks and the reserve behind it, and the course of the last samples.
//!
//! A bar covers 0 to the kernel's limit (budget + reserve), so that the room for draining is seen; without a kernel limit
//! it ends at the budget. Resolution is an eighth of a column.

use super::text::{Line, Tone};
use crate::snapshot::MemoryView;

const EIGHTHS: [&str; 8] = ["▏", "▎", "▍", "▌", "▋", "▊", "▉", "█"];
const HEIGHTS: [&str; 8] = ["▁", "▂", "▃", "▄", "▅", "▆", "▇", "█"];

/// Where the levels begin and the bar ends, in bytes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Scale {
    marks: [f64; 3],
    end: f64,
}

#[allow(clippy::cast_precision_loss, reason = "a picture: 53 bits are enough")]
fn float(bytes: u64) -> f64 {
    bytes as f64
}

/// A column of the bar; the value is clamped to it.
#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "clamped before")]
fn cell(value: f64, most: usize) -> usize {
    if value.is_finite() { (value.max(0.0) as usize).min(most) } else { most }
}

impl Scale {
    /// The scale of a governed program; `None` without a budget.
    pub(crate) fn of(memory: &MemoryView) -> Option<Scale> {
        let (budget, marks) = (memory.budget_bytes?, memory.marks_bytes?);
        let end = memory.kernel_limit_bytes.unwrap_or(budget).max(budget);
        (budget > 0).then(|| Scale { marks: marks.map(float), end: float(end) })
    }

    fn tone(&self, bytes: f64) -> Tone {
        let [elevated, high, critical] = self.marks;
        match bytes {
            b if b >= critical => Tone::Critical,
            b if b >= high => Tone::Alarm,
            b if b >= elevated => Tone::Warn,
            _ => Tone::Good,
        }
    }

    /// The column of each mark in a bar of `width`.
    #[allow(clippy::cast_precision_loss, reason = "columns")]
    fn columns(&self, width: usize) -> [usize; 3] {
        self.marks.map(|mark| cell(mark / self.end * width as f64, width.saturating_sub(1)))
    }

    /// The bar itself, `width` columns.
    #[allow(clippy::cast_precision_loss, reason = "columns")]
    pub(crate) fn bar(&self, charged_bytes: u64, width: usize) -> Line {
        let eighths = cell(float(charged_bytes) / self.end * width as f64 * 8.0, width * 8);
        let columns = self.columns(width);
        let mut line = Line::new();
        for column in 0..width {
            let tone = match self.tone((column as f64 + 0.5) / width as f64 * self.end) {
                // Inverse video would turn the block inside out.
                Tone::Critical => Tone::Cut("\x1b[1;35m"),
                tone => tone,
            };
            let filled = eighths.saturating_sub(column * 8).min(8);
            if columns.contains(&column) {
                match (filled, tone) {
                    (8, Tone::Warn) => line.push(Tone::Cut("\x1b[7;33m"), "│"),
                    (8, Tone::Alarm) => line.push(Tone::Cut("\x1b[7;31m"), "│"),
                    (8, Tone::Cut(_)) => line.push(Tone::Cut("\x1b[7;35m"), "│"),
                    (8, _) => line.push(Tone::Cut("\x1b[7;32m"), "│"),
                    _ => line.push(Tone::Strong, "│"),
                }
            } else if filled > 0 {
                line.push(tone, EIGHTHS[filled - 1]);
            } else {
                let beyond = column > columns[2];
                line.push(Tone::Dim, if beyond { "╌" } else { "░" });
            }
        }
        line
    }

    /// What the marks are, under them: percent of the budget, and the kernel's limit at the end.
    pub(crate) fn legend(&self, width: usize, kernel: Option<&str>) -> Line {
        let mut line = Line::new();
        for (column, mark) in self.columns(width).into_iter().zip(self.marks) {
            let label = format!("{:.0} %", mark / self.marks[2] * 100.0);
            let start = (column + 1).saturating_sub(label.len().div_ceil(2));
            if start > line.width() || line.width() == 0 {
                line = line.pad_to(start).add(Tone::Dim, label);
            }
        }
        match kernel {
            Some(kernel) => line.right(Line::new().add(Tone::Dim, kernel), width),
            None => line,
        }
    }

    /// The newest of `samples` as a chart of `rows` lines, one column each, the newest at the right of `width`.
    #[allow(clippy::cast_precision_loss, reason = "columns")]
    pub(crate) fn chart(&self, samples: &[u64], width: usize, rows: usize) -> Vec<Line> {
        chart(samples, self.end, width, rows, |bytes| match self.tone(bytes) {
            Tone::Critical => Tone::Cut("\x1b[1;35m"),
            tone => tone,
        })
    }
}

/// A chart without a budget: scaled to its own highest sample.
pub(crate) fn free_chart(samples: &[u64], width: usize, rows: usize) -> Vec<Line> {
    let end = samples.iter().copied().max().unwrap_or(0);
    chart(samples, float(end.max(1)) * 1.1, width, rows, |_| Tone::Note)
}

#[allow(clippy::cast_precision_loss, reason = "columns")]
fn chart(samples: &[u64], end: f64, width: usize, rows: usize, tone: impl Fn(f64) -> Tone) -> Vec<Line> {
    let shown = &samples[samples.len().saturating_sub(width)..];
    let mut lines = Vec::with_capacity(rows);
    for row in (0..rows).rev() {
        let mut line = Line::new().add(Tone::Dim, if row == 0 { "·" } else { " " }.repeat(width - shown.len()));
        for bytes in shown {
            let eighths = cell((float(*bytes) / end * (rows * 8) as f64).ceil(), rows * 8).max(1);
            let filled = eighths.saturating_sub(row * 8).min(8);
            match filled {
                0 => line.push(Tone::Plain, " "),
                filled => line.push(tone(float(*bytes)), HEIGHTS[filled - 1]),
            }
        }
        lines.push(line);
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::view::text::write_lines;

    fn scale(kernel_limit: Option<u64>) -> Scale {
        let memory = MemoryView {
            budget_bytes: Some(100),
            marks_bytes: Some([75, 88, 100]),
            kernel_limit_bytes: kernel_limit,
            ..MemoryView::default()
        };
        Scale::of(&memory).unwrap()
    }

    fn plain(line: Line) -> String {
        write_lines(&[line], false).trim_end_matches('\n').to_owned()
    }

    #[test]
    fn a_bar_shows_the_fill_the_marks_and_the_reserve() {
        let table = [
            (0, "░░░░░░░░░░░░░░░│░│░░│╌╌╌╌"),
            (1, "▏░░░░░░░░░░░░░░│░│░░│╌╌╌╌"),
            (50, "██████████░░░░░│░│░░│╌╌╌╌"),
            (83, "███████████████│▋│░░│╌╌╌╌"),
            (100, "███████████████│█│██│╌╌╌╌"),
            (125, "███████████████│█│██│████"),
            (9_999, "███████████████│█│██│████"),
        ];
        for (charged, expected) in table {
            // 125 bytes over 25 columns: five a column.
            assert_eq!(plain(scale(Some(125)).bar(charged, 25)), expected, "{charged}");
        }
        assert_eq!(plain(scale(None).bar(60, 10)), "██████░│││");
        assert_eq!(plain(scale(None).bar(60, 0)), "");
    }

    #[test]
    fn the_legend_stands_under_its_marks() {
        let scale = scale(Some(125));
        let (bar, legend) = (plain(scale.bar(0, 90)), plain(scale.legend(90, Some("kernel 125"))));
        let marks: Vec<_> = bar.chars().enumerate().filter(|(_, c)| *c == '│').map(|(i, _)| i).collect();
        for (mark, label) in marks.iter().zip(["75 %", "88 %", "100 %"]) {
            let at = legend.find(label).unwrap();
            assert!((at..at + label.len()).contains(mark), "{bar}\n{legend}");
        }
        assert!(legend.ends_with("kernel 125"), "{legend}");
    }

    #[test]
    fn a_chart_grows_to_the_left_and_is_scaled_to_the_end_of_the_bar() {
        let lines = scale(None).chart(&[0, 25, 50, 75, 100], 8, 2);
        assert_eq!(write_lines(&lines, false), "      ▄█\n···▁▄███\n");
        assert_eq!(write_lines(&free_chart(&[], 4, 1), false), "····\n");
        assert_eq!(scale(None).chart(&[1; 500], 8, 1)[0].width(), 8);
    }

    #[test]
    fn without_a_budget_there_is_no_scale() {
        assert_eq!(Scale::of(&MemoryView::default()), None);
    }
}
