//! Figures to the right, the name last: a long name ends where the terminal does, and the figures stay below each other.

use crate::view::text::{Line, Tone};

/// Blanks between two columns.
const GAP: usize = 2;

/// A table of figures, each row ending in a name.
pub(super) struct Table {
    heads: Vec<&'static str>,
    rows: Vec<Vec<(Tone, String)>>,
}

impl Table {
    pub(super) fn new(heads: &[&'static str]) -> Table {
        Table { heads: heads.to_vec(), rows: Vec::new() }
    }

    /// Adds a row; as many cells as there are heads.
    pub(super) fn row(&mut self, cells: Vec<(Tone, String)>) {
        self.rows.push(cells);
    }

    pub(super) fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// The lines: the head, then the rows.
    pub(super) fn lines(&self) -> Vec<Line> {
        let last = self.heads.len().saturating_sub(1);
        let width = |column: usize| {
            let cells =
                self.rows.iter().filter_map(|row| row.get(column)).map(|cell| crate::view::text::width(&cell.1));
            cells.max().unwrap_or(0).max(self.heads[column].len())
        };
        let widths: Vec<usize> = (0..last).map(width).collect();
        let heads = self.heads.iter().map(|head| (Tone::Dim, (*head).to_owned())).collect();
        let line = |cells: &Vec<(Tone, String)>| {
            let mut line = Line::new();
            let mut end = 0;
            for (column, (tone, words)) in cells.iter().enumerate() {
                if column < last {
                    end += widths[column] + GAP * usize::from(column > 0);
                    line = line.pad_to(end.saturating_sub(crate::view::text::width(words)));
                } else if column > 0 {
                    line = line.pad_to(end + GAP);
                }
                line = line.add(*tone, words);
            }
            line
        };
        std::iter::once(&heads).chain(&self.rows).map(line).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::view::text::write_lines;

    #[test]
    fn figures_end_below_each_other() {
        let mut table = Table::new(&["GROWTH", "AFTER", "HELD BY"]);
        table.row(vec![
            (Tone::Alarm, "+59.1 MiB".into()),
            (Tone::Plain, "133.8 MiB".into()),
            (Tone::Strong, "a → Map".into()),
        ]);
        table.row(vec![(Tone::Plain, "–".into()), (Tone::Plain, "2 B".into()), (Tone::Plain, "b".into())]);
        let expected = "   GROWTH      AFTER  HELD BY\n+59.1 MiB  133.8 MiB  a → Map\n        –        2 B  b\n";
        assert_eq!(write_lines(&table.lines(), false), expected);
    }
}
