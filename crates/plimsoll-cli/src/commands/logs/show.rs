//! How an entry looks: columns for people, one JSON object a line for programs, or the program's own bytes.
//!
//! | form | a line | a gap |
//! |---|---|---|
//! | terminal | `07:01:02.123 err text`, coloured; a line with the date where it changes | `-- 4,211 lines (1.2 MiB) of stderr missing … --` |
//! | text (piped) | `2026-11-21 07:01:02.123 err text` | the same, after the date |
//! | JSON | `{"at":…,"position":…,"stream":…,"level":…,"text":…}` | `{…,"gap":{"lines":…,"bytes":…,"from":…,"to":…,"reason":…}}` |
//! | raw | the bytes as they were written | nothing here: the caller says it on stderr |
//!
//! In all but raw, whatever the bytes are, a line stays one line and nothing reaches the terminal but text and colours
//! (`safe.rs`). A line longer than the store keeps in one piece is shown in pieces: `…` at the end of each but the last
//! and at the beginning of each but the first; in JSON `"continued":true` for each but the last.

use plimsoll::units;
use plimsoll_store::{Entry, EntryKind, GapReason, LogLevel, Stream};

use super::{json, safe};
use crate::output::{self, LocalClock, Palette, Style};

/// Which of the forms above.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Form {
    Terminal(Palette),
    Text,
    Json,
    Raw,
}

/// Turns entries into bytes; remembers what the entry before looked like.
pub(super) struct Show {
    form: Form,
    clock: LocalClock,
    /// The date that a reader takes for granted: today's, or that of the last line with a date.
    date: String,
    scratch: String,
    /// Of each stream: its last entry was a piece of a line that goes on.
    goes_on: [bool; Stream::ALL.len()],
    /// Raw: the stream whose line is unfinished on the screen.
    unfinished: Option<Stream>,
    /// The query picks lines: the next one that is shown need not be the next piece of a long one.
    picks: bool,
    /// Runs of one line are shown as one and a count.
    folds: bool,
    run: Run,
}

/// The line that was shown last, and how often it came again.
#[derive(Default)]
struct Run {
    stream: Option<Stream>,
    text: Vec<u8>,
    level: Option<LogLevel>,
    began_unix_ns: u64,
    until_unix_ns: u64,
    again: u64,
}

impl Show {
    /// Shows in `form`, with times of `clock`'s zone; `now_unix_ns` says which date is today's.
    pub(super) fn new(form: Form, mut clock: LocalClock, now_unix_ns: u64) -> Show {
        let date = clock.date(now_unix_ns).to_owned();
        let folds = matches!(form, Form::Terminal(_));
        Show {
            form,
            picks: false,
            clock,
            date,
            scratch: String::new(),
            goes_on: Default::default(),
            unfinished: None,
            folds,
            run: Run::default(),
        }
    }

    /// Shows what a query picked: each piece of a long line by itself.
    pub(super) fn picking(mut self) -> Show {
        self.picks = true;
        self
    }

    /// Shows every line, also where people read.
    pub(super) fn unfolded(mut self) -> Show {
        self.folds = false;
        self
    }

    /// Appends `entry` to `out`, line end included; where people read, a line that is the same as the one before only counts, until
    /// [`Show::end`] or another entry.
    pub(super) fn entry(&mut self, entry: &Entry<'_>, out: &mut Vec<u8>) {
        if self.folds {
            if self.run.takes(entry) {
                return;
            }
            self.end(out);
            self.run.begin(entry);
        }
        self.one(entry, out);
    }

    /// Appends what is still to be said about a run of one line.
    pub(super) fn end(&mut self, out: &mut Vec<u8>) {
        let run = std::mem::take(&mut self.run);
        let Some(stream) = run.stream.filter(|_| run.again > 0) else {
            self.run = run;
            return;
        };
        if run.again == 1 {
            let kind = EntryKind::Line { text: &run.text, level: run.level, continued: false, unterminated: false };
            self.one(&Entry { at_unix_ns: run.until_unix_ns, stream, position: 0, kind }, out);
        } else if let Form::Terminal(palette) = self.form {
            self.short_time(run.until_unix_ns, palette, out);
            let since = self.moment(run.began_unix_ns, false);
            let words = format!("⋮   the same line {} times more, since {since}", output::count(run.again));
            out.extend_from_slice(palette.paint(Style::Dim, words).to_string().as_bytes());
            out.push(b'\n');
        }
        self.run = Run { again: 0, began_unix_ns: run.until_unix_ns, ..run };
    }

    fn one(&mut self, entry: &Entry<'_>, out: &mut Vec<u8>) {
        match self.form {
            Form::Json => return self.json(entry, out),
            Form::Raw => return self.raw(entry, out),
            Form::Terminal(palette) => self.short_time(entry.at_unix_ns, palette, out),
            Form::Text => {
                self.scratch.clear();
                self.clock.date_and_time(entry.at_unix_ns, &mut self.scratch);
                out.extend_from_slice(self.scratch.as_bytes());
                out.push(b' ');
            }
        }
        let palette = if let Form::Terminal(palette) = self.form { palette } else { Palette::PLAIN };
        match entry.kind {
            EntryKind::Line { text, level, continued, .. } => {
                let goes_on = continued && !self.picks;
                let before = std::mem::replace(&mut self.goes_on[index(entry.stream)], goes_on);
                line(entry.stream, text, level, [before, continued], palette, out);
            }
            EntryKind::Gap { .. } => {
                self.goes_on[index(entry.stream)] = false;
                if let Some(words) = self.gap(entry) {
                    out.extend_from_slice(
                        palette.paint(Style::Bad, format_args!("-- {words} --")).to_string().as_bytes(),
                    );
                }
            }
        }
        out.push(b'\n');
    }

    /// What to say on stderr about a gap that the form itself does not show.
    pub(super) fn gap_beside(&mut self, entry: &Entry<'_>) -> Option<String> {
        if self.form == Form::Raw { self.gap(entry) } else { None }
    }

    /// What a gap says: `4,211 lines (1.2 MiB) of stderr missing between 07:01:02.123 and 07:01:03.456: the ring was full`.
    fn gap(&mut self, entry: &Entry<'_>) -> Option<String> {
        let EntryKind::Gap { lines, bytes, from_unix_ns, to_unix_ns, reason } = entry.kind else { return None };
        let what = match (reason.is_exact(), lines) {
            (true, _) => format!("{} ({}) of {}", output::counted(lines, "line"), units::size(bytes), entry.stream),
            (false, 0) => format!("an unknown number of lines of {}", entry.stream),
            (false, _) => {
                format!("at least {} ({}) of {}", output::counted(lines, "line"), units::size(bytes), entry.stream)
            }
        };
        let first_day = self.clock.date(from_unix_ns).to_owned();
        let same_day = first_day == self.clock.date(to_unix_ns);
        let when = if from_unix_ns == 0 {
            format!("before {}", self.moment(to_unix_ns, true))
        } else if from_unix_ns == to_unix_ns {
            format!("at {}", self.moment(from_unix_ns, false))
        } else {
            format!("between {} and {}", self.moment(from_unix_ns, !same_day), self.moment(to_unix_ns, !same_day))
        };
        Some(format!("{what} missing {when}: {}", why(reason)))
    }

    fn moment(&mut self, unix_ns: u64, with_date: bool) -> String {
        let mut text = String::new();
        if with_date {
            self.clock.date_and_time(unix_ns, &mut text);
        } else {
            self.clock.time(unix_ns, &mut text);
        }
        text
    }

    /// `07:01:02.123 `, and before it a line with the date if that has changed.
    fn short_time(&mut self, unix_ns: u64, palette: Palette, out: &mut Vec<u8>) {
        let (dim, end) = palette.codes(Style::Dim);
        let date = self.clock.date(unix_ns);
        if date != self.date {
            date.clone_into(&mut self.date);
            push_all(out, [dim, "-- ", date, " --", end, "\n"]);
        }
        self.scratch.clear();
        self.clock.time(unix_ns, &mut self.scratch);
        push_all(out, [dim, &self.scratch, end, " "]);
    }

    fn raw(&mut self, entry: &Entry<'_>, out: &mut Vec<u8>) {
        let EntryKind::Line { text, continued, .. } = entry.kind else { return };
        // Another stream's line must not run into the piece before.
        if self.unfinished.is_some_and(|stream| stream != entry.stream) {
            out.push(b'\n');
        }
        out.extend_from_slice(text);
        let goes_on = continued && !self.picks;
        self.unfinished = goes_on.then_some(entry.stream);
        if !goes_on {
            out.push(b'\n');
        }
    }

    fn json(&mut self, entry: &Entry<'_>, out: &mut Vec<u8>) {
        out.extend_from_slice(b"{\"at\":\"");
        self.push_rfc3339(entry.at_unix_ns, out);
        out.extend_from_slice(b"\",\"position\":");
        json::push_number(out, entry.position);
        push_all(out, [",\"stream\":\"", entry.stream.name(), "\""]);
        match entry.kind {
            EntryKind::Line { text, level, continued, .. } => {
                if let Some(level) = level {
                    push_all(out, [",\"level\":\"", level.name(), "\""]);
                }
                out.extend_from_slice(b",\"text\":");
                if !json::push_string(out, text) {
                    out.extend_from_slice(b",\"text_base64\":\"");
                    json::push_base64(out, text);
                    out.push(b'"');
                }
                if continued {
                    out.extend_from_slice(b",\"continued\":true");
                }
            }
            EntryKind::Gap { lines, bytes, from_unix_ns, to_unix_ns, reason } => {
                out.extend_from_slice(b",\"gap\":{\"lines\":");
                json::push_number(out, lines);
                out.extend_from_slice(b",\"bytes\":");
                json::push_number(out, bytes);
                out.extend_from_slice(b",\"from\":\"");
                self.push_rfc3339(from_unix_ns, out);
                out.extend_from_slice(b"\",\"to\":\"");
                self.push_rfc3339(to_unix_ns, out);
                push_all(out, ["\",\"reason\":\"", reason.name(), "\""]);
                if !reason.is_exact() {
                    out.extend_from_slice(b",\"inexact\":true");
                }
                out.push(b'}');
            }
        }
        out.extend_from_slice(b"}\n");
    }

    fn push_rfc3339(&mut self, unix_ns: u64, out: &mut Vec<u8>) {
        self.scratch.clear();
        self.clock.rfc3339(unix_ns, &mut self.scratch);
        out.extend_from_slice(self.scratch.as_bytes());
    }
}

impl Run {
    /// Whether `entry` is the same line once more.
    fn takes(&mut self, entry: &Entry<'_>) -> bool {
        let same = match entry.kind {
            EntryKind::Line { text, continued: false, .. } => self.stream == Some(entry.stream) && self.text == text,
            EntryKind::Line { .. } | EntryKind::Gap { .. } => false,
        };
        if same {
            self.again += 1;
            self.until_unix_ns = entry.at_unix_ns;
        }
        same
    }

    fn begin(&mut self, entry: &Entry<'_>) {
        self.stream = None;
        if let EntryKind::Line { text, level, continued: false, .. } = entry.kind {
            self.stream = Some(entry.stream);
            self.text.clear();
            self.text.extend_from_slice(text);
            (self.level, self.began_unix_ns, self.again) = (level, entry.at_unix_ns, 0);
        }
    }
}

/// The stream's column and the text.
fn line(
    stream: Stream,
    text: &[u8],
    level: Option<LogLevel>,
    [goes_before, goes_on]: [bool; 2],
    palette: Palette,
    out: &mut Vec<u8>,
) {
    let (column, style) = match stream {
        Stream::Stdout => ("out", Style::Dim),
        Stream::Stderr => ("err", Style::Warn),
        Stream::Plimsoll => ("---", Style::Name(0)),
    };
    let (begin, end) = palette.codes(style);
    push_all(out, [begin, column, end, " "]);
    let (cut, cut_end) = palette.codes(Style::Dim);
    if goes_before {
        push_all(out, [cut, "…", cut_end]);
    }
    let style = match (stream, level) {
        (Stream::Plimsoll, _) => Some(Style::Name(0)),
        (_, Some(LogLevel::Fatal | LogLevel::Error)) => Some(Style::Bad),
        (_, Some(LogLevel::Warn)) => Some(Style::Warn),
        (_, Some(LogLevel::Debug | LogLevel::Trace)) => Some(Style::Dim),
        (_, Some(LogLevel::Info) | None) => None,
    };
    // A program that chose its colours keeps them.
    let style = style.filter(|_| !text.contains(&b'\x1b'));
    let (begin, end) = style.map_or(("", ""), |style| palette.codes(style));
    out.extend_from_slice(begin.as_bytes());
    let is_coloured = safe::push(out, text, palette.is_on());
    out.extend_from_slice(if is_coloured { b"\x1b[0m" } else { end.as_bytes() });
    if goes_on {
        push_all(out, [cut, "…", cut_end]);
    }
}

/// What a reason means, in words.
fn why(reason: GapReason) -> &'static str {
    match reason {
        GapReason::RingFull => "the ring was full",
        GapReason::Interrupted => "a kill fell into a read",
        GapReason::RingLost => "the machine restarted, or the ring was removed",
        GapReason::SpoolDamaged => "a part of the spool was damaged",
        GapReason::DatabaseLost => "the database of older lines was damaged or removed",
        GapReason::RateLimited => "it printed more than --log-rate allows",
    }
}

fn index(stream: Stream) -> usize {
    usize::from(stream.number() - 1)
}

fn push_all<const N: usize>(out: &mut Vec<u8>, parts: [&str; N]) {
    parts.iter().for_each(|part| out.extend_from_slice(part.as_bytes()));
}

#[cfg(test)]
mod tests {
    use jiff::tz::TimeZone;

    use super::*;

    /// 2026-11-21T07:01:02.123456789Z
    const AT: u64 = 1_795_244_462_123_456_789;

    fn text(stream: Stream, at_unix_ns: u64, text: &[u8]) -> Entry<'_> {
        let level = LogLevel::detect(text);
        Entry {
            at_unix_ns,
            stream,
            position: 7,
            kind: EntryKind::Line { text, level, continued: false, unterminated: false },
        }
    }

    fn piece(stream: Stream, text: &[u8]) -> Entry<'_> {
        Entry {
            at_unix_ns: AT,
            stream,
            position: 7,
            kind: EntryKind::Line { text, level: None, continued: true, unterminated: false },
        }
    }

    fn gap(lines: u64, reason: GapReason) -> Entry<'static> {
        let kind = EntryKind::Gap { lines, bytes: 1_258_291, from_unix_ns: AT, to_unix_ns: AT + 1_333_000_000, reason };
        Entry { at_unix_ns: AT, stream: Stream::Stderr, position: 9, kind }
    }

    fn shown(form: Form, entries: &[Entry<'_>]) -> String {
        let mut show = Show::new(form, LocalClock::of(TimeZone::UTC), AT);
        let mut out = Vec::new();
        entries.iter().for_each(|entry| show.entry(entry, &mut out));
        String::from_utf8(out).expect("all forms but raw give UTF-8")
    }

    const DAY: u64 = 86_400_000_000_000;

    #[test]
    fn on_a_terminal_a_run_of_one_line_is_shown_once_and_counted() {
        let again = |n: u64| text(Stream::Stderr, AT + n * 1_000_000_000, b"accept: EMFILE");
        let mut entries: Vec<_> = (0..5).map(again).collect();
        entries.extend([text(Stream::Stdout, AT, b"twice"), text(Stream::Stdout, AT, b"twice"), again(6)]);
        let mut show = Show::new(Form::Terminal(Palette::PLAIN), LocalClock::of(TimeZone::UTC), AT);
        let mut out = Vec::new();
        entries.iter().for_each(|entry| show.entry(entry, &mut out));
        show.end(&mut out);
        show.entry(&again(7), &mut out);
        show.entry(&again(8), &mut out);
        show.end(&mut out);
        show.end(&mut out);
        let expected = "07:01:02.123 err accept: EMFILE\n\
                        07:01:06.123 ⋮   the same line 4 times more, since 07:01:02.123\n\
                        07:01:02.123 out twice\n\
                        07:01:02.123 out twice\n\
                        07:01:08.123 err accept: EMFILE\n\
                        07:01:10.123 ⋮   the same line 2 times more, since 07:01:08.123\n";
        assert_eq!(String::from_utf8(out).unwrap(), expected);
        assert_eq!(shown(Form::Text, &entries).lines().count(), 8, "programs get every line");
        let all = Show::new(Form::Terminal(Palette::PLAIN), LocalClock::of(TimeZone::UTC), AT).unfolded();
        assert!(!all.folds);
    }

    #[test]
    fn a_terminal_sees_time_stream_and_text_and_the_date_where_it_changes() {
        let entries = [
            text(Stream::Stdout, AT - DAY, b"yesterday"),
            text(Stream::Stdout, AT, b"listening"),
            text(Stream::Stderr, AT, b"careful"),
            text(Stream::Plimsoll, AT, b"started"),
            gap(4211, GapReason::RingFull),
        ];
        assert_eq!(
            shown(Form::Terminal(Palette::PLAIN), &entries),
            "-- 2026-11-20 --\n\
             07:01:02.123 out yesterday\n\
             -- 2026-11-21 --\n\
             07:01:02.123 out listening\n\
             07:01:02.123 err careful\n\
             07:01:02.123 --- started\n\
             07:01:02.123 -- 4,211 lines (1.2 MiB) of stderr missing between 07:01:02.123 and 07:01:03.456: the ring was full --\n"
        );
    }

    #[test]
    fn levels_colour_a_line_unless_it_has_colours_of_its_own() {
        let coloured = |text_: &[u8]| {
            let shown = shown(Form::Terminal(Palette::COLOURED), &[text(Stream::Stdout, AT, text_)]);
            shown
                .strip_prefix("\x1b[2m07:01:02.123\x1b[0m \x1b[2mout\x1b[0m ")
                .expect("time and stream are dim")
                .to_owned()
        };
        assert_eq!(coloured(b"ERROR no"), "\x1b[31mERROR no\x1b[0m\n");
        assert_eq!(coloured(b"WARN hm"), "\x1b[33mWARN hm\x1b[0m\n");
        assert_eq!(coloured(b"INFO ok"), "INFO ok\n");
        assert_eq!(coloured(b"\x1b[32mERROR\x1b[0m mine"), "\x1b[32mERROR\x1b[0m mine\x1b[0m\n");
        assert_eq!(coloured(b"\x1b[2Jgone"), "\\x1b[2Jgone\n");
    }

    #[test]
    fn piped_text_has_the_date_and_no_control_characters() {
        let garbage = text(Stream::Stdout, AT, b"\x1b[31mred\x1b[0m \xff\x00\x1b]0;t\x07");
        assert_eq!(shown(Form::Text, &[garbage]), "2026-11-21 07:01:02.123 out red \\xff\\x00\\x1b]0;t\\x07\n");
    }

    #[test]
    fn pieces_of_a_line_are_marked() {
        let entries = [
            piece(Stream::Stdout, b"one "),
            text(Stream::Stderr, AT, b"between"),
            piece(Stream::Stdout, b"two "),
            text(Stream::Stdout, AT, b"three"),
        ];
        let expected = "2026-11-21 07:01:02.123 out one …\n\
                        2026-11-21 07:01:02.123 err between\n\
                        2026-11-21 07:01:02.123 out …two …\n\
                        2026-11-21 07:01:02.123 out …three\n";
        assert_eq!(shown(Form::Text, &entries), expected);
        assert_eq!(shown(Form::Raw, &entries), "one \nbetween\ntwo three\n");
        assert!(shown(Form::Json, &entries[..1]).ends_with(",\"text\":\"one \",\"continued\":true}\n"));
    }

    #[test]
    fn a_picked_piece_of_a_long_line_does_not_run_into_the_next_line() {
        let entries = || {
            let mut piece = text(Stream::Stdout, AT, b"ERROR long");
            if let EntryKind::Line { continued, .. } = &mut piece.kind {
                *continued = true;
            }
            [piece, text(Stream::Stdout, AT, b"ERROR second")]
        };
        let mut out = Vec::new();
        let mut show = Show::new(Form::Raw, LocalClock::of(TimeZone::UTC), AT).picking();
        entries().iter().for_each(|entry| show.entry(entry, &mut out));
        assert_eq!(String::from_utf8(std::mem::take(&mut out)).unwrap(), "ERROR long\nERROR second\n");
        let mut show = Show::new(Form::Text, LocalClock::of(TimeZone::UTC), AT).picking();
        entries().iter().for_each(|entry| show.entry(entry, &mut out));
        let shown = String::from_utf8(out).unwrap();
        assert!(shown.contains("ERROR long…\n") && shown.contains("out ERROR second\n"), "{shown}");
    }

    #[test]
    fn raw_is_what_was_written_and_nothing_else() {
        let mut out = Vec::new();
        let mut show = Show::new(Form::Raw, LocalClock::of(TimeZone::UTC), AT);
        show.entry(&text(Stream::Stdout, AT, b"\x1b[2J\xff\r"), &mut out);
        show.entry(&gap(1, GapReason::RingFull), &mut out);
        assert_eq!(out, b"\x1b[2J\xff\r\n");
    }

    #[test]
    fn json_is_one_object_a_line_for_any_bytes() {
        let line = shown(Form::Json, &[text(Stream::Stdout, AT, b"level=warn \"q\" \xff\n\0")]);
        assert_eq!(
            line,
            "{\"at\":\"2026-11-21T07:01:02.123456789+00:00\",\"position\":7,\"stream\":\"stdout\",\"level\":\"warn\",\
             \"text\":\"level=warn \\\"q\\\" \u{fffd}\\n\\u0000\",\"text_base64\":\"bGV2ZWw9d2FybiAicSIg/woA\"}\n"
        );
        serde_json::from_str::<serde_json::Value>(&line).unwrap();
        let gaps = shown(Form::Json, &[gap(4211, GapReason::RingFull), gap(0, GapReason::RingLost)]);
        let mut gaps = gaps.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap());
        let exact = gaps.next().unwrap();
        assert_eq!((&exact["gap"]["lines"], &exact["gap"]["reason"]), (&4211.into(), &"ring-full".into()));
        assert_eq!(exact["gap"]["to"], "2026-11-21T07:01:03.456456789+00:00");
        assert!(exact["gap"].get("inexact").is_none());
        assert_eq!(gaps.next().unwrap()["gap"]["inexact"], true);
    }

    #[test]
    fn a_gap_says_what_is_known() {
        let mut show = Show::new(Form::Text, LocalClock::of(TimeZone::UTC), AT);
        let mut say = |entry: Entry<'_>| show.gap(&entry).unwrap();
        assert!(
            say(gap(1, GapReason::RingFull)).starts_with("1 line (1.2 MiB) of stderr missing between 07:01:02.123 and")
        );
        let unknown = say(gap(0, GapReason::RingLost));
        assert!(unknown.starts_with("an unknown number of lines of stderr missing"), "{unknown}");
        assert!(unknown.ends_with("07:01:03.456: the machine restarted, or the ring was removed"), "{unknown}");
        let mut overnight = gap(2, GapReason::RingFull);
        if let EntryKind::Gap { to_unix_ns, .. } = &mut overnight.kind {
            *to_unix_ns += DAY;
        }
        let overnight = say(overnight);
        assert!(overnight.contains("between 2026-11-21 07:01:02.123 and 2026-11-22 07:01:03.456"), "{overnight}");
    }
}
