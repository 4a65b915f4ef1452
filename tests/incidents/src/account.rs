//! Accounting of a log, line by line: every number is stored once, with every byte it had, or lies in a gap record of exactly
//! its range.
//!
//! The stream is `count` lines of [`LineMaker`], so each can be made again. [`Account`] walks the stored lines and gap records in
//! reading order and keeps one number, the line that must come next: a line must be that one, byte for byte; a gap moves it by
//! the gap's lines. Whatever does not fit is a finding: lost without a record, stored twice, torn, altered. A gap that only
//! bounds its range (`exact` is false) may be followed by any later line, and may stand between two pieces of lines.

use crate::lines::LineMaker;
use std::cmp::Ordering;

/// How many findings are kept as text; the rest are only counted.
pub const MAX_FINDINGS: usize = 12;

/// Walks a stored stream. Holds one made line and at most [`MAX_FINDINGS`] findings, whatever the stream's length.
pub struct Account {
    maker: LineMaker,
    count: u64,
    /// The line that must come next; the first is 1.
    next: u64,
    /// A gap precedes that only bounds its range.
    adrift: bool,
    /// The head of line `next` was stored; an inexact gap must follow.
    torn: bool,
    made: (u64, Vec<u8>),
    summary: Summary,
}

/// What an [`Account`] found.
#[derive(Clone, Debug, Default)]
pub struct Summary {
    /// Whole lines stored, each with exactly the bytes it was written with.
    pub whole_lines: u64,
    /// Pieces of lines beside an inexact gap.
    pub pieces: u64,
    /// Gap records.
    pub gaps: u64,
    /// Bytes that gap records account for, as they say themselves.
    pub gap_bytes: u64,
    /// Lines that gap records account for.
    pub gap_lines: u64,
    /// Gap records that only bound their range.
    pub inexact_gaps: u64,
    /// The last line that is stored or lies in a gap.
    pub reached: u64,
    /// Findings in all.
    pub finding_count: u64,
    /// The first findings.
    pub findings: Vec<String>,
}

impl Account {
    /// Accounts for `count` lines that `maker` makes.
    pub fn new(maker: LineMaker, count: u64) -> Account {
        let (next, made, summary) = (1, (0, Vec::new()), Summary::default());
        Account { maker, count, next, adrift: false, torn: false, made, summary }
    }

    /// One stored line or piece of a line, without its line feed.
    pub fn text(&mut self, text: &[u8]) {
        if self.torn {
            self.finding(format!("line {} is torn and no gap follows", self.next));
            self.torn = false;
        }
        let number = LineMaker::number(text).filter(|number| (1..=self.count).contains(number));
        match number.filter(|&number| self.is_line(number, text)) {
            Some(number) => self.whole(number),
            None if self.is_head(text) => {
                self.summary.pieces += 1;
                self.torn = true;
            }
            // The piece that an inexact gap left of a line: its number is in the gap.
            None if self.adrift => self.summary.pieces += 1,
            None => {
                let shown = String::from_utf8_lossy(&text[..text.len().min(60)]).into_owned();
                self.finding(format!("instead of line {}: {shown:?} ({} bytes)", self.next, text.len()));
            }
        }
    }

    /// A gap record. `exact` is false when the record says that its figures are bounds and not counts.
    pub fn gap(&mut self, lines: u64, bytes: u64, exact: bool) {
        let length = self.maker.line_bytes() as u64;
        self.summary.gaps += 1;
        self.summary.gap_bytes += bytes;
        self.summary.gap_lines += lines;
        if !exact {
            self.summary.inexact_gaps += 1;
            self.adrift = true;
            self.torn = false;
        } else if self.torn {
            self.finding(format!("line {} is torn by an exact gap", self.next));
            self.torn = false;
        } else if lines == 0 {
            self.finding(format!("gap of no lines ({bytes} bytes) before line {}", self.next));
        } else if bytes > lines * length || bytes + 2 * length < lines * length {
            // The lines at both ends are counted whole, though a part of them was read.
            self.finding(format!("gap before line {} says {lines} lines for {bytes} bytes", self.next));
        }
        self.next += lines;
    }

    /// The end of what is stored. `complete`: the writer has ended, so every line must be accounted for.
    pub fn finish(mut self, complete: bool) -> Summary {
        self.summary.reached = self.next - 1;
        let ended = self.summary.reached == self.count || (self.adrift && self.next <= self.count);
        if complete && !ended {
            self.finding(format!("the log ends with line {} of {}", self.next - 1, self.count));
        }
        self.summary
    }

    fn whole(&mut self, number: u64) {
        match number.cmp(&self.next) {
            Ordering::Greater if !self.adrift => {
                let (from, to) = (self.next, number - 1);
                self.finding(format!("lines {from} to {to} are lost without a record"));
            }
            Ordering::Less => self.finding(format!("line {number} is stored again (expected line {})", self.next)),
            Ordering::Equal | Ordering::Greater => {}
        }
        self.summary.whole_lines += 1;
        self.next = number + 1;
        self.adrift = false;
    }

    fn made(&mut self, number: u64) -> &[u8] {
        if self.made.0 != number {
            self.made.1.clear();
            self.maker.append(number, &mut self.made.1);
            self.made.0 = number;
        }
        &self.made.1[..self.made.1.len() - 1]
    }

    fn is_line(&mut self, number: u64, text: &[u8]) -> bool {
        self.made(number) == text
    }

    /// Whether `text` is the beginning of the line that must come next, and not all of it.
    fn is_head(&mut self, text: &[u8]) -> bool {
        self.next <= self.count && !text.is_empty() && self.made(self.next).starts_with(text)
    }

    fn finding(&mut self, text: String) {
        self.summary.finding_count += 1;
        if self.summary.findings.len() < MAX_FINDINGS {
            self.summary.findings.push(text);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const COUNT: u64 = 50;

    fn stream() -> Vec<Vec<u8>> {
        let maker = LineMaker::new(3, 100);
        (1..=COUNT)
            .map(|number| {
                let mut line = Vec::new();
                maker.append(number, &mut line);
                line.truncate(99);
                line
            })
            .collect()
    }

    fn account(walk: impl FnOnce(&mut Account, &[Vec<u8>])) -> Summary {
        let mut account = Account::new(LineMaker::new(3, 100), COUNT);
        walk(&mut account, &stream());
        account.finish(true)
    }

    fn all(account: &mut Account, lines: &[Vec<u8>]) {
        lines.iter().for_each(|line| account.text(line));
    }

    #[test]
    fn complete_stream_has_no_findings() {
        let summary = account(all);
        assert_eq!((summary.whole_lines, summary.reached, summary.finding_count, summary.gaps), (COUNT, COUNT, 0, 0));
    }

    #[test]
    fn lines_and_gaps_of_their_range_are_accounted_for() {
        for bytes in [300, 299, 170] {
            let summary = account(|account, lines| {
                all(account, &lines[..9]);
                account.gap(3, bytes, true);
                all(account, &lines[12..]);
            });
            assert_eq!((summary.finding_count, summary.whole_lines), (0, COUNT - 3), "{:?}", summary.findings);
        }
        let at_the_end = account(|account, lines| {
            all(account, &lines[..48]);
            account.gap(2, 200, true);
        });
        assert_eq!((at_the_end.finding_count, at_the_end.reached), (0, COUNT), "{:?}", at_the_end.findings);
    }

    #[test]
    fn an_inexact_gap_may_tear_lines_and_takes_up_the_stream_at_any_later_number() {
        let summary = account(|account, lines| {
            all(account, &lines[..10]);
            account.text(&lines[10][..40]);
            account.gap(0, 0, false);
            account.text(&lines[18][30..]);
            all(account, &lines[19..]);
        });
        assert_eq!((summary.finding_count, summary.pieces, summary.inexact_gaps), (0, 2, 1), "{:?}", summary.findings);
    }

    #[track_caller]
    fn check_found(word: &str, walk: impl FnOnce(&mut Account, &[Vec<u8>])) {
        let summary = account(walk);
        assert!(summary.findings.iter().any(|finding| finding.contains(word)), "{word}: {:?}", summary.findings);
    }

    #[test]
    fn what_is_wrong_is_found() {
        check_found("lines 21 to 21 are lost", |account, lines| {
            all(account, &lines[..20]);
            all(account, &lines[21..]);
        });
        check_found("again", |account, lines| {
            all(account, lines);
            account.text(&lines[49]);
        });
        check_found("instead of line 50", |account, lines| {
            all(account, &lines[..49]);
            account.text(&[b'x'; 99]);
        });
        check_found("ends with line 48", |account, lines| all(account, &lines[..48]));
        check_found("lines 13 to 13 are lost", |account, lines| {
            all(account, &lines[..10]);
            account.gap(2, 200, true);
            all(account, &lines[13..]);
        });
        check_found("2 lines for 900 bytes", |account, lines| {
            all(account, &lines[..10]);
            account.gap(2, 900, true);
            all(account, &lines[12..]);
        });
        check_found("torn", |account, lines| {
            all(account, &lines[..10]);
            account.text(&lines[10][..40]);
            all(account, &lines[11..]);
        });
        check_found("torn by an exact gap", |account, lines| {
            all(account, &lines[..10]);
            account.text(&lines[10][..40]);
            account.gap(1, 60, true);
            all(account, &lines[11..]);
        });
    }
}
