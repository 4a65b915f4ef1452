//! `plimsoll logs --top`: who printed how much, and what, in a time range; of programs that run and of dead ones, from what is stored.
//!
//! Every line is looked at, so lines, bytes and repeats are exact; templates are kept in a sketch of [`TEMPLATES_KEPT`] for each stream,
//! and a count that may be too high says by how much. Costs what reading everything costs, and some 0.2 us a line that is not the same as
//! the one before. Memory: the reader's, and 256 templates of at most 240 bytes for each stream of each name.

use std::io::Write as _;
use std::ops::ControlFlow;
use std::process::ExitCode;

use plimsoll_store::volume::{Counted, Sketch, template};
use plimsoll_store::{Entry, EntryKind, Query, Reader, Stream};
use serde_json::{Value, json};

use crate::exit::Failure;
use crate::layout::Layout;
use crate::output::LocalClock;
use crate::snapshot::volume::shown;
use crate::view::text::{self, Line, Tone};
use crate::view::volume::{figure, percent};
use crate::view::words;

/// Templates shown of each stream without a number.
pub(super) const SHOWN_TEXT: &str = "5";
/// Templates kept of each stream.
const TEMPLATES_KEPT: usize = 256;
/// Columns where the output is no terminal.
const PLAIN_COLUMNS: usize = 120;

/// What one stream of one name printed.
struct Source {
    name: String,
    stream: Stream,
    lines: u64,
    bytes: u64,
    /// Lines that are the same as the one before.
    repeated: u64,
    /// Lines that are missing, as far as gaps know.
    missing: u64,
    first_unix_ns: u64,
    last_unix_ns: u64,
    sketch: Sketch,
    run: Run,
    longest: Run,
    /// The template of `run`'s line.
    made: Vec<u8>,
}

/// One line, so often in a row.
#[derive(Clone, Default)]
struct Run {
    text: Vec<u8>,
    times: u64,
    first_unix_ns: u64,
    last_unix_ns: u64,
}

impl Source {
    fn new(name: &str, stream: Stream) -> Source {
        Source {
            name: name.to_owned(),
            stream,
            lines: 0,
            bytes: 0,
            repeated: 0,
            missing: 0,
            first_unix_ns: u64::MAX,
            last_unix_ns: 0,
            sketch: Sketch::new(TEMPLATES_KEPT),
            run: Run::default(),
            longest: Run::default(),
            made: Vec::new(),
        }
    }

    fn take(&mut self, entry: &Entry<'_>) {
        let at = entry.at_unix_ns;
        let EntryKind::Line { text, continued, .. } = entry.kind else {
            if let EntryKind::Gap { lines, .. } = entry.kind {
                self.missing += lines;
            }
            return;
        };
        self.first_unix_ns = self.first_unix_ns.min(at);
        self.last_unix_ns = self.last_unix_ns.max(at);
        // A piece of a long line is counted where the line ends, but its bytes here.
        let (lines, bytes) = (u64::from(!continued), text.len() as u64 + u64::from(!continued));
        self.lines += lines;
        self.bytes += bytes;
        if self.run.times > 0 && self.run.text == text {
            self.repeated += lines;
            self.run.times += 1;
            self.run.last_unix_ns = at;
        } else {
            self.end_run();
            self.run.text.clear();
            self.run.text.extend_from_slice(text);
            (self.run.times, self.run.first_unix_ns, self.run.last_unix_ns) = (1, at, at);
            template(text, &mut self.made);
        }
        self.sketch.add(&self.made, lines, bytes);
    }

    fn end_run(&mut self) {
        if self.run.times > self.longest.times.max(1) {
            self.longest = self.run.clone();
        }
    }

    /// `web/stderr`.
    fn label(&self) -> String {
        format!("{}/{}", self.name, self.stream)
    }
}

/// Reads what `query` wants of all `layouts`, and shows who printed it: `most` templates of each stream.
///
/// # Errors
/// A log that cannot be read, or standard output that cannot be written.
pub(super) fn run(layouts: &[Layout], query: &Query, most: usize, as_json: bool) -> Result<ExitCode, Failure> {
    let mut sources = Vec::new();
    for layout in layouts {
        sources.extend(read(layout, query)?);
    }
    sources.sort_by(|a, b| (b.bytes, a.label()).cmp(&(a.bytes, b.label())));
    let range = Range::of(&sources, query);
    let said = if as_json {
        let all = Value::Array(sources.iter().map(|source| object(source, &range, most)).collect());
        format!("{all:#}\n")
    } else {
        let columns = text::columns_of_stdout().unwrap_or(PLAIN_COLUMNS);
        let lines = table(&sources, &range, most, &mut LocalClock::system());
        let lines: Vec<Line> = lines.into_iter().map(|line| line.clip(columns)).collect();
        text::write_lines(&lines, text::colour_for_stdout())
    };
    // A reader that went away has seen what it wanted.
    std::io::stdout().write_all(said.as_bytes()).unwrap_or_default();
    Ok(ExitCode::SUCCESS)
}

fn read(layout: &Layout, query: &Query) -> Result<Vec<Source>, Failure> {
    let failed = Failure::from;
    let mut sources = Stream::ALL.map(|stream| Source::new(layout.name(), stream));
    let mut reader = Reader::open(&layout.home()).map_err(failed)?;
    let mut take = |entry: Entry<'_>| {
        if let Some(source) = sources.iter_mut().find(|source| source.stream == entry.stream) {
            source.take(&entry);
        }
        ControlFlow::Continue(())
    };
    reader.read(query, None, &mut take).map_err(failed)?;
    sources.iter_mut().for_each(Source::end_run);
    Ok(sources.into_iter().filter(|source| source.lines > 0 || source.missing > 0).collect())
}

/// The time that the figures are about, and all of it.
struct Range {
    from_unix_ns: u64,
    to_unix_ns: u64,
    lines: u64,
    bytes: u64,
}

impl Range {
    fn of(sources: &[Source], query: &Query) -> Range {
        let first = sources.iter().map(|source| source.first_unix_ns).min().unwrap_or(0);
        let last = sources.iter().map(|source| source.last_unix_ns).max().unwrap_or(0);
        Range {
            // A range that was asked for is what a rate is of; an open end is where the lines end.
            from_unix_ns: query.since_unix_ns.unwrap_or(first).min(last),
            to_unix_ns: query.until_unix_ns.unwrap_or(last).min(last.max(first)),
            lines: sources.iter().map(|source| source.lines).sum(),
            bytes: sources.iter().map(|source| source.bytes).sum(),
        }
    }

    #[allow(clippy::cast_precision_loss)] // a figure for people
    fn seconds(&self) -> f64 {
        (self.to_unix_ns.saturating_sub(self.from_unix_ns) as f64 / 1e9).max(1.0)
    }
}

#[allow(clippy::cast_precision_loss)] // figures for people
fn ratio(part: u64, whole: u64) -> f64 {
    if whole == 0 { 0.0 } else { (part as f64 / whole as f64).min(1.0) }
}

const TITLES: [&str; 6] = ["SOURCE", "LINES", "BYTES", "SHARE", "LINES/S", "REPEATED"];

fn table(sources: &[Source], range: &Range, most: usize, clock: &mut LocalClock) -> Vec<Line> {
    if sources.is_empty() {
        return vec![Line::new().plain("  no lines in this time")];
    }
    let (mut from, mut to) = (String::new(), String::new());
    clock.date_and_time(range.from_unix_ns, &mut from);
    clock.date_and_time(range.to_unix_ns, &mut to);
    let mut lines = vec![
        Line::new()
            .add(Tone::Strong, format!("  {}", words::plural(range.lines, "line", "lines")))
            .plain(format!(", {}", words::size(range.bytes)))
            .add(Tone::Dim, format!(" · {from} to {to}")),
        Line::new(),
    ];
    let rows: Vec<[String; 6]> = sources.iter().map(|source| row(source, range)).collect();
    let mut widths = TITLES.map(str::len);
    for row in &rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(text::width(cell));
        }
    }
    let aligned = |cells: &[String; 6], tone: Tone| {
        let mut line = Line::new().plain("  ");
        for (i, (cell, width)) in cells.iter().zip(widths).enumerate() {
            let blanks = " ".repeat(width.saturating_sub(text::width(cell)));
            // Names at the left, figures at the right.
            line = if i == 0 {
                line.add(tone, cell).plain(blanks)
            } else {
                line.plain("  ").plain(blanks).add(tone, cell)
            };
        }
        line
    };
    lines.push(aligned(&TITLES.map(str::to_owned), Tone::Dim));
    lines.extend(rows.iter().map(|row| aligned(row, Tone::Plain)));
    for source in sources.iter().filter(|source| source.lines > 0) {
        lines.push(Line::new());
        lines.extend(templates(source, most, clock));
    }
    lines
}

fn row(source: &Source, range: &Range) -> [String; 6] {
    #[allow(clippy::cast_precision_loss)] // a figure for people
    let rate = source.lines as f64 / range.seconds();
    [
        source.label(),
        words::count(source.lines),
        words::size(source.bytes),
        percent(ratio(source.bytes, range.bytes), 0.0),
        figure(rate),
        percent(ratio(source.repeated, source.lines), 0.0),
    ]
}

fn templates(source: &Source, most: usize, clock: &mut LocalClock) -> Vec<Line> {
    let all = source.sketch.counted();
    let width = all.iter().take(most).map(|counted| words::count(counted.lines).len()).max().unwrap_or(0);
    let mut lines = vec![Line::new().plain("  ").add(Tone::Strong, source.label())];
    for counted in all.iter().take(most) {
        let share = percent(ratio(counted.bytes, source.bytes), 0.0);
        let mut line = Line::new().plain(format!("  {share:>7}  {:>width$} × ", words::count(counted.lines)));
        line = match shown(&counted.template) {
            empty if empty.is_empty() => line.add(Tone::Dim, "(empty lines)"),
            text => line.plain(text),
        };
        if counted.over_lines > 0 {
            line = line.add(Tone::Dim, format!("  (at most {} too many)", words::count(counted.over_lines)));
        }
        lines.push(line);
    }
    if all.len() > most {
        let kept = if source.sketch.is_full() { "at least " } else { "" };
        let more = words::plural((all.len() - most) as u64, "template", "templates");
        lines.push(Line::new().add(Tone::Dim, format!("           and {kept}{more} more")));
    }
    if source.longest.times > 1 {
        let (mut from, mut to) = (String::new(), String::new());
        clock.time(source.longest.first_unix_ns, &mut from);
        clock.time(source.longest.last_unix_ns, &mut to);
        let times = words::count(source.longest.times);
        let said = format!("  longest run  {times} × from {from} to {to}  ");
        lines.push(Line::new().add(Tone::Dim, said).plain(shown(&source.longest.text)));
    }
    if source.missing > 0 {
        let missing = format!("  missing      {} in gaps", words::plural(source.missing, "line", "lines"));
        lines.push(Line::new().add(Tone::Alarm, missing));
    }
    lines
}

fn object(source: &Source, range: &Range, most: usize) -> Value {
    let template = |counted: &Counted| {
        json!({
            "template": shown(&counted.template),
            "lines": counted.lines,
            "bytes": counted.bytes,
            "share_ratio": ratio(counted.bytes, source.bytes),
            "at_most_too_many_lines": counted.over_lines,
        })
    };
    let longest = (source.longest.times > 1).then(|| {
        json!({
            "text": shown(&source.longest.text),
            "times": source.longest.times,
            "first_unix_ns": source.longest.first_unix_ns,
            "last_unix_ns": source.longest.last_unix_ns,
        })
    });
    #[allow(clippy::cast_precision_loss)] // a figure for people
    let per_second = |figure: u64| figure as f64 / range.seconds();
    json!({
        "name": source.name,
        "stream": source.stream.name(),
        "lines": source.lines,
        "bytes": source.bytes,
        "share_ratio": ratio(source.bytes, range.bytes),
        "lines_per_second": per_second(source.lines),
        "bytes_per_second": per_second(source.bytes),
        "repeated_lines": source.repeated,
        "missing_lines": source.missing,
        "templates_are_exact": !source.sketch.is_full(),
        "templates": source.sketch.counted().iter().take(most).map(template).collect::<Vec<_>>(),
        "longest_run": longest,
    })
}

#[cfg(test)]
mod tests {
    use jiff::tz::TimeZone;

    use super::*;

    /// 2026-11-21T07:01:02Z
    const AT: u64 = 1_795_244_462_000_000_000;

    fn source(name: &str, stream: Stream, lines: &[&str]) -> Source {
        let mut source = Source::new(name, stream);
        for (n, line) in lines.iter().enumerate() {
            let kind = EntryKind::Line { text: line.as_bytes(), level: None, continued: false, unterminated: false };
            let at_unix_ns = AT + n as u64 * 100_000_000;
            source.take(&Entry { at_unix_ns, stream, position: n as u64, kind });
        }
        source.end_run();
        source
    }

    fn sources() -> Vec<Source> {
        let mut flood = vec!["accept: EMFILE"; 190];
        flood.extend(["conn 1 gone", "conn 2 gone", "accept: EMFILE", "accept: EMFILE"]);
        let mut web = source("web", Stream::Stderr, &flood);
        let (lines, bytes, reason) = (4211, 1 << 20, plimsoll_store::GapReason::RateLimited);
        let kind = EntryKind::Gap { lines, bytes, from_unix_ns: AT, to_unix_ns: AT, reason };
        web.take(&Entry { at_unix_ns: AT, stream: Stream::Stderr, position: 1000, kind });
        vec![web, source("api", Stream::Stdout, &["GET /1", "", "GET /22"])]
    }

    #[test]
    fn the_table_names_who_and_what() {
        let sources = sources();
        let range = Range::of(&sources, &Query::default());
        let lines = table(&sources, &range, 2, &mut LocalClock::of(TimeZone::UTC));
        let expected = "  \
  197 lines, 2.9 KiB · 2026-11-21 07:01:02.000 to 2026-11-21 07:01:21.300

  SOURCE      LINES    BYTES   SHARE  LINES/S  REPEATED
  web/stderr    194  2.8 KiB  99.5 %       10      98 %
  api/stdout      3     16 B   < 1 %      0.2       0 %

  web/stderr
   99.2 %  192 × accept: EMFILE
    < 1 %    2 × conn # gone
  longest run  190 × from 07:01:02.000 to 07:01:20.900  accept: EMFILE
  missing      4,211 lines in gaps

  api/stdout
     94 %  2 × GET /#
      6 %  1 × (empty lines)
";
        let said = text::write_lines(&lines, false);
        assert_eq!(said.trim_start(), expected.trim_start(), "\n{said}");
        let nothing = Range::of(&[], &Query::default());
        assert_eq!(
            text::write_lines(&table(&[], &nothing, 2, &mut LocalClock::of(TimeZone::UTC)), false),
            "  no lines in this time\n"
        );
    }

    #[test]
    fn json_has_every_figure() {
        let sources = sources();
        let range = Range::of(&sources, &Query::default());
        let web = object(&sources[0], &range, 1);
        assert_eq!((&web["name"], &web["stream"], &web["lines"]), (&json!("web"), &json!("stderr"), &json!(194)));
        assert_eq!((&web["repeated_lines"], &web["missing_lines"]), (&json!(190), &json!(4211)));
        assert_eq!(
            web["templates"],
            json!([{"template": "accept: EMFILE", "lines": 192, "bytes": 2880,
            "share_ratio": 2880.0 / 2904.0, "at_most_too_many_lines": 0}])
        );
        assert_eq!(web["longest_run"]["times"], json!(190));
        assert_eq!(web["templates_are_exact"], json!(true));
    }
}
