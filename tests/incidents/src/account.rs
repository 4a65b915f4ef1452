//! Byte-exact accounting of a log: every byte a known stream had is stored once, or lies in a gap of exactly its length.
//!
//! The stream is `count` lines of [`LineMaker`], so byte *b* of it can be made again. [`Account`] walks the stored lines and gap
//! records in reading order and keeps one number, the position in the stream: text must be the stream's bytes at that position,
//! a gap moves it by the gap's bytes. Whatever does not fit is a finding: lost without record, stored twice, torn, altered.

use crate::lines::LineMaker;

/// How many findings are kept as text; the rest are only counted.
pub const MAX_FINDINGS: usize = 12;

/// Walks a stored stream. Holds one made line and at most [`MAX_FINDINGS`] findings, whatever the stream's length.
pub struct Account {
    maker: LineMaker,
    count: u64,
    /// Position in the stream, in bytes.
    at: u64,
    /// A gap that does not know its length precedes: the next numbered line says where the stream goes on.
    adrift: bool,
    made: (u64, Vec<u8>),
    summary: Summary,
}

/// What an [`Account`] found.
#[derive(Clone, Debug, Default)]
pub struct Summary {
    /// Whole lines stored, each with exactly the bytes it was written with.
    pub whole_lines: u64,
    /// Pieces of lines beside a gap, stored with the right bytes.
    pub pieces: u64,
    /// Gap records.
    pub gaps: u64,
    /// Bytes that gap records account for.
    pub gap_bytes: u64,
    /// Lines that gap records account for, as they say themselves.
    pub gap_lines: u64,
    /// Gap records that only bound their length.
    pub inexact_gaps: u64,
    /// Position reached in the stream, in bytes.
    pub reached_bytes: u64,
    /// Findings in all.
    pub finding_count: u64,
    /// The first findings.
    pub findings: Vec<String>,
}

impl Account {
    /// Accounts for `count` lines that `maker` makes.
    pub fn new(maker: LineMaker, count: u64) -> Account {
        Account { maker, count, at: 0, adrift: false, made: (0, Vec::new()), summary: Summary::default() }
    }

    /// One stored line or piece of a line, without its line feed.
    pub fn text(&mut self, text: &[u8]) {
        if self.adrift || !self.matches(self.at, text) {
            self.find_again(text);
        }
        let length = self.maker.line_bytes() as u64;
        let end = self.at + text.len() as u64;
        let ends_line = (end + 1).is_multiple_of(length);
        if ends_line && self.at.is_multiple_of(length) {
            self.summary.whole_lines += 1;
        } else {
            self.summary.pieces += 1;
        }
        self.at = end + u64::from(ends_line);
    }

    /// A gap record. `exact` is false when the record says that its bytes are a bound and not a count.
    pub fn gap(&mut self, lines: u64, bytes: u64, exact: bool) {
        self.summary.gaps += 1;
        self.summary.gap_bytes += bytes;
        self.summary.gap_lines += lines;
        if !exact {
            self.summary.inexact_gaps += 1;
            self.adrift = true;
        } else if bytes == 0 {
            self.finding(format!("gap of no bytes ({lines} lines) at byte {}", self.at));
        } else if lines.abs_diff(bytes / self.maker.line_bytes() as u64) > 1 {
            self.finding(format!("gap at byte {} says {lines} lines for {bytes} bytes", self.at));
        }
        self.at += bytes;
    }

    /// The end of what is stored. `complete`: the writer has ended, so the whole stream must be accounted for.
    pub fn finish(mut self, complete: bool) -> Summary {
        let length = self.count * self.maker.line_bytes() as u64;
        // The last line's feed may be what a gap at the very end began with.
        let off = self.at.abs_diff(length);
        if complete && off != 0 && !(off == 1 && self.summary.gaps > 0) && !self.adrift {
            self.finding(format!("the log ends at byte {} of {length}", self.at));
        }
        self.summary.reached_bytes = self.at;
        self.summary
    }

    /// Text that is not what the position says: find where it belongs, and say what that means.
    fn find_again(&mut self, text: &[u8]) {
        if !self.adrift && self.at > 0 && self.matches(self.at - 1, text) && self.summary.gaps > 0 {
            self.at -= 1;
            return;
        }
        let length = self.maker.line_bytes() as u64;
        let here = LineMaker::number(text)
            .filter(|&number| (1..=self.count).contains(&number))
            .map(|number| (number - 1) * length);
        match here {
            Some(position) if self.matches(position, text) => {
                if !self.adrift {
                    let (from, to) = (self.at / length + 1, position / length + 1);
                    self.finding(match position.cmp(&self.at) {
                        std::cmp::Ordering::Greater => format!(
                            "{} bytes lost without a record before line {to} (expected line {from})",
                            position - self.at
                        ),
                        _ => format!("line {to} stored again (expected line {from})"),
                    });
                }
                self.at = position;
                self.adrift = false;
            }
            _ if self.adrift => {} // the piece that the gap left of a line: its number is in the gap
            _ => {
                let shown = String::from_utf8_lossy(&text[..text.len().min(60)]).into_owned();
                self.finding(format!(
                    "bytes at {} (line {}) are not what was written: {shown:?}",
                    self.at,
                    self.at / length + 1
                ));
            }
        }
    }

    /// Whether the stream has exactly `text` at `position`, up to the line's feed.
    fn matches(&mut self, position: u64, text: &[u8]) -> bool {
        let length = self.maker.line_bytes();
        let (number, offset) = (position / length as u64 + 1, (position % length as u64) as usize);
        if number > self.count || offset + text.len() > length {
            return false;
        }
        if self.made.0 != number {
            self.made.1.clear();
            self.maker.append(number, &mut self.made.1);
            self.made.0 = number;
        }
        self.made.1[offset..offset + text.len()] == *text
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

    #[test]
    fn complete_stream_has_no_findings() {
        let summary = account(|account, lines| lines.iter().for_each(|line| account.text(line)));
        assert_eq!((summary.whole_lines, summary.finding_count, summary.gaps), (COUNT, 0, 0));
    }

    #[test]
    fn exact_gap_and_torn_lines_beside_it_are_accounted_for() {
        let summary = account(|account, lines| {
            lines[..9].iter().for_each(|line| account.text(line));
            account.text(&lines[9][..40]);
            account.gap(2, 60 + 100 + 30, true);
            account.text(&lines[11][30..]);
            lines[12..].iter().for_each(|line| account.text(line));
        });
        assert_eq!(
            (summary.finding_count, summary.pieces, summary.whole_lines),
            (0, 2, COUNT - 3),
            "{:?}",
            summary.findings
        );
    }

    #[test]
    fn gap_that_begins_with_a_line_feed_is_accounted_for() {
        let summary = account(|account, lines| {
            lines[..10].iter().for_each(|line| account.text(line));
            account.gap(1, 1 + 100, true);
            lines[11..].iter().for_each(|line| account.text(line));
        });
        assert_eq!(summary.finding_count, 0, "{:?}", summary.findings);
    }

    #[test]
    fn what_is_wrong_is_found() {
        let lost = account(|account, lines| {
            lines[..20].iter().chain(&lines[21..]).for_each(|line| account.text(line));
        });
        assert!(lost.findings[0].contains("100 bytes lost"), "{:?}", lost.findings);
        let twice = account(|account, lines| lines.iter().chain([&lines[49]]).for_each(|line| account.text(line)));
        assert!(twice.findings[0].contains("again"), "{:?}", twice.findings);
        let altered = account(|account, lines| {
            lines[..49].iter().for_each(|line| account.text(line));
            account.text(&[b'x'; 99]);
        });
        assert!(altered.findings[0].contains("not what was written"), "{:?}", altered.findings);
        let short = account(|account, lines| lines[..48].iter().for_each(|line| account.text(line)));
        assert!(short.findings[0].contains("ends at byte"), "{:?}", short.findings);
        let wrong_gap = account(|account, lines| {
            lines[..10].iter().for_each(|line| account.text(line));
            account.gap(2, 200, true);
            lines[13..].iter().for_each(|line| account.text(line));
        });
        assert_eq!(wrong_gap.finding_count, 1, "{:?}", wrong_gap.findings);
    }

    #[test]
    fn inexact_gap_takes_up_the_stream_at_the_next_number() {
        let summary = account(|account, lines| {
            lines[..10].iter().for_each(|line| account.text(line));
            account.gap(0, 65_536, false);
            lines[20..].iter().for_each(|line| account.text(line));
        });
        assert_eq!((summary.finding_count, summary.inexact_gaps), (0, 1), "{:?}", summary.findings);
    }
}
