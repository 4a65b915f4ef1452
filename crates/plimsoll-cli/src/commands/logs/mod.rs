//! `plimsoll logs`: what a program printed, while it runs or after it died, from the ring, the spool and the database.
//!
//! | stdout is | shown without `-n`, `--since`, `--until` |
//! |---|---|
//! | a terminal | the newest 100 lines |
//! | anything else | everything |
//! | either, with `-f` | the newest 10 lines, then what comes |
//!
//! A follower looks every 100 ms, and ends with SIGINT (128 + 2, like any program) or when its reader goes away (0).
//! Memory is bounded by what the store's reader needs (a chunk of 1 to 2 MiB per stream, a copy of 1 MiB of the ring) and
//! at most 1,000 entries; nothing is kept from one look to the next but a position.

mod choose;
mod count;
mod follow;
mod json;
mod out;
mod safe;
mod show;
mod top;
mod when;

use std::io::IsTerminal as _;
use std::process::ExitCode;

use jiff::tz::TimeZone;
use jiff::{Timestamp, Zoned};
use plimsoll::clock;
use plimsoll_store::{Find, LogLevel, Pattern, Query, Stream};

use crate::args::Place;
use crate::exit::Failure;
use crate::output::{LocalClock, Palette};
use crate::say;
use follow::Follower;
use out::{Ended, Out};
use show::{Form, Show};

/// What a terminal sees without `-n`, in lines.
const TERMINAL_LINES: u64 = 100;
/// What a follower sees before it follows, in lines.
const FOLLOW_LINES: u64 = 10;

/// Arguments of `plimsoll logs`.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Points in time: 10m, 2h, 7d (so long ago), today, 07:00, \"2026-11-21 07:00\", 2026-11-21T07:00:00Z\n\
    Examples: plimsoll logs web -f --level warn\n          plimsoll logs --top --since 1h"
)]
pub(crate) struct Args {
    #[command(flatten)]
    place: Place,

    /// Whose logs [default: the only name there is]
    #[arg(value_name = "NAME")]
    name: Option<String>,

    /// Go on showing what comes; Ctrl-C ends it
    #[arg(long, short)]
    follow: bool,

    /// Only the newest N lines, or "all" [default: 100 on a terminal, 10 with -f, else all]
    #[arg(long, short = 'n', value_name = "N", value_parser = how_many)]
    lines: Option<Lines>,

    /// Only lines at or after this point in time
    #[arg(long, value_name = "TIME")]
    since: Option<String>,

    /// Only lines before this point in time
    #[arg(long, value_name = "TIME", conflicts_with = "follow")]
    until: Option<String>,

    /// Only lines in which this regular expression is found
    #[arg(long, short, value_name = "RE")]
    grep: Option<String>,

    /// --grep takes upper and lower case as the same
    #[arg(long, short, requires = "grep")]
    ignore_case: bool,

    /// --grep takes whole words only: no letter, digit or _ right before or behind. Fast in a large log
    #[arg(long, short, requires = "grep")]
    word: bool,

    /// --grep takes a text as it stands, no regular expression
    #[arg(long, short = 'F', requires = "grep")]
    plain_text: bool,

    /// Only this stream: stdout, stderr, or plimsoll for the supervisor's own notes. May be given more than once
    #[arg(long, value_name = "STREAM", value_delimiter = ',', value_parser = stream)]
    stream: Vec<Stream>,

    /// Only lines that say their level, and that it is at least this: trace, debug, info, warn, error, fatal
    #[arg(long, value_name = "LEVEL", value_parser = level)]
    level: Option<LogLevel>,

    /// On a terminal, show every line: not a run of one line as one and a count
    #[arg(long)]
    no_fold: bool,

    /// Who printed how much: lines, bytes, rates and shares of each stream, and its N most frequent templates [default: 5]; without NAME
    /// of every program. Works on dead ones too
    #[arg(long, value_name = "N", num_args = 0..=1, require_equals = true, default_missing_value = top::SHOWN_TEXT, conflicts_with_all = ["follow", "lines", "raw"])]
    top: Option<usize>,

    /// Only how many lines there are; how many are missing is said on stderr
    #[arg(long, short, conflicts_with_all = ["follow", "lines", "raw", "top"])]
    count: bool,

    /// One JSON object a line
    #[arg(long, conflicts_with = "raw")]
    json: bool,

    /// The program's own bytes and nothing else: no time, no stream, nothing escaped
    #[arg(long)]
    raw: bool,
}

/// `-n`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Lines {
    All,
    Newest(u64),
}

#[expect(clippy::needless_pass_by_value, reason = "as every command: the arguments are its own")]
pub(crate) fn run(args: Args) -> Result<ExitCode, Failure> {
    let stdout = std::io::stdout();
    let now = clock::wall();
    let now_ns = u64::try_from(now.as_nanos()).unwrap_or(u64::MAX);
    let query = args.query(&local(now_ns))?;
    if let Some(most) = args.top {
        let layouts = choose::choose_all(&args.place.dir(), args.name.as_deref())?;
        return top::run(&layouts, &query, most, args.json);
    }
    let layout = choose::choose(&args.place.dir(), args.name.as_deref())?;
    if args.count {
        return count::run(&layout, &query, args.json);
    }
    let form = if args.json {
        Form::Json
    } else if args.raw {
        Form::Raw
    } else if stdout.is_terminal() {
        Form::Terminal(Palette::of(&stdout))
    } else {
        Form::Text
    };
    let out = Out::new(rustix::stdio::stdout())
        .map_err(|cause| Failure::new(format!("cannot write to standard output: {cause}")))?;
    let lines = args.lines(stdout.is_terminal());
    let show = Show::new(form, LocalClock::system(), now_ns);
    let show = if args.picks() { show.picking() } else { show };
    let show = if args.no_fold { show.unfolded() } else { show };
    let mut follower = Follower::open(layout, query, show, out)?;
    let shown = match follower.first(lines, !args.follow) {
        Ok(shown) => shown,
        Err(end) => return ended(end),
    };
    if args.follow {
        return ended(follower.follow());
    }
    if stdout.is_terminal() && form != Form::Json {
        match lines {
            _ if shown == 0 => {
                say::note(format_args!("no lines{}", if args.is_filtered() { " match" } else { " yet" }));
            }
            Lines::Newest(most) if args.lines.is_none() && shown >= most => {
                say::note(format_args!("the newest {most} lines; -n all shows everything"));
            }
            Lines::Newest(_) | Lines::All => {}
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// What an end means for the exit code.
fn ended(end: follow::End) -> Result<ExitCode, Failure> {
    match end {
        follow::End::Out(Ended::Closed) => Ok(ExitCode::SUCCESS),
        follow::End::Out(Ended::Failed(cause)) => {
            Err(Failure::new(format!("cannot write to standard output: {cause}")))
        }
        follow::End::Store(error) => Err(error.into()),
    }
}

fn local(unix_ns: u64) -> Zoned {
    Timestamp::from_nanosecond(unix_ns.into()).unwrap_or(Timestamp::MAX).to_zoned(TimeZone::system())
}

impl Args {
    fn query(&self, now: &Zoned) -> Result<Query, Failure> {
        let moment = |name: &str, text: &Option<String>| {
            let parsed = text.as_deref().map(|text| when::parse(text, now)).transpose();
            parsed.map_err(|problem| Failure::usage(format!("{name}: {problem}")))
        };
        let (since, until) = (moment("--since", &self.since)?, moment("--until", &self.until)?);
        if let (Some(since), Some(until)) = (since, until)
            && since > until
        {
            return Err(Failure::usage("--since is after --until: nothing lies between"));
        }
        let streams = if !self.stream.is_empty() {
            self.stream.clone()
        } else if self.raw {
            vec![Stream::Stdout, Stream::Stderr]
        } else {
            Vec::new()
        };
        let pattern = self.pattern()?;
        Ok(Query { since_unix_ns: since, until_unix_ns: until, streams, min_level: self.level, pattern })
    }

    fn pattern(&self) -> Result<Option<Pattern>, Failure> {
        let Some(text) = &self.grep else { return Ok(None) };
        let find = Find {
            plain_text: self.plain_text,
            ignore_case: self.ignore_case,
            whole_words: self.word,
            ..Find::default()
        };
        Pattern::new(text, find).map(Some).map_err(|error| {
            Failure::usage(format!("--grep {text:?}: {error}"))
                .hint("a dot, bracket or star itself is written \\. \\[ \\*, or -F takes the text as it stands")
        })
    }

    fn lines(&self, is_terminal: bool) -> Lines {
        match self.lines {
            Some(lines) => lines,
            None if self.since.is_some() || self.until.is_some() => Lines::All,
            None if self.follow => Lines::Newest(FOLLOW_LINES),
            None if is_terminal => Lines::Newest(TERMINAL_LINES),
            None => Lines::All,
        }
    }

    /// Whether lines in the middle may be left out.
    fn picks(&self) -> bool {
        self.grep.is_some() || self.level.is_some()
    }

    fn is_filtered(&self) -> bool {
        self.picks() || self.since.is_some() || self.until.is_some() || !self.stream.is_empty()
    }
}

fn how_many(text: &str) -> Result<Lines, String> {
    match text {
        "all" => Ok(Lines::All),
        _ => text.parse().map(Lines::Newest).map_err(|_| "expected a number of lines, or \"all\"".to_owned()),
    }
}

fn stream(text: &str) -> Result<Stream, String> {
    let named = |stream: &Stream| stream.name() == text;
    Stream::ALL.into_iter().find(named).ok_or_else(|| "expected stdout, stderr or plimsoll".to_owned())
}

fn level(text: &str) -> Result<LogLevel, String> {
    LogLevel::from_word(text).ok_or_else(|| "expected trace, debug, info, warn, error or fatal".to_owned())
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;

    #[derive(clap::Parser)]
    struct Line {
        #[command(flatten)]
        args: Args,
    }

    fn args(line: &str) -> Result<Args, String> {
        let words = std::iter::once("logs").chain(line.split_whitespace());
        Line::try_parse_from(words).map(|line| line.args).map_err(|error| error.to_string())
    }

    fn refused(line: &str) -> String {
        match args(line) {
            Err(error) => error,
            Ok(args) => args.query(&local(1_795_244_462_000_000_000)).unwrap_err().to_string(),
        }
    }

    #[test]
    fn how_much_is_shown_depends_on_who_reads() {
        for (line, terminal, expected) in [
            ("", true, Lines::Newest(100)),
            ("", false, Lines::All),
            ("-f", true, Lines::Newest(10)),
            ("-f", false, Lines::Newest(10)),
            ("-f -n all", true, Lines::All),
            ("-n 5", false, Lines::Newest(5)),
            ("-f -n 0", true, Lines::Newest(0)),
            ("--since 10m", true, Lines::All),
            ("-f --since 10m", true, Lines::All),
            ("--grep x", true, Lines::Newest(100)),
        ] {
            assert_eq!(args(line).unwrap().lines(terminal), expected, "{line:?}");
        }
    }

    #[test]
    fn mistakes_are_told_with_what_would_do() {
        for (line, said) in [
            ("-n some", "expected a number of lines"),
            ("--stream out", "expected stdout, stderr or plimsoll"),
            ("--level loud", "expected trace, debug"),
            ("--grep (", "--grep \"(\": regex parse error"),
            ("--grep (a{999}){999}", "--grep"),
            ("--since soon", "--since: \"soon\" is no point in time"),
            ("--since 1h --until 2h", "--since is after --until"),
            ("-f --until 1h", "cannot be used with"),
            ("--json --raw", "cannot be used with"),
            ("-i", "--grep <RE>"),
            ("--top -f", "cannot be used with"),
            ("--count -n 5", "cannot be used with"),
            ("-w", "--grep <RE>"),
            ("-F", "--grep <RE>"),
        ] {
            let refused = refused(line);
            assert!(refused.contains(said), "{line}: {refused}");
        }
    }

    #[test]
    fn a_pattern_looks_as_it_is_told() {
        let finds = |line: &str, text: &str| {
            let query = args(line).unwrap().query(&local(0)).unwrap();
            query.pattern.unwrap().is_match(text.as_bytes())
        };
        for (line, text, found) in [
            ("--grep a.c", "xabcx", true),
            ("--grep a.c -F", "xabcx", false),
            ("--grep a.c -F", "xa.cx", true),
            ("--grep abc -w", "xabcx", false),
            ("--grep abc -w", "x abc", true),
            ("--grep abc -w", "x ABC", false),
            ("--grep abc -w -i", "x ABC", true),
        ] {
            assert_eq!(finds(line, text), found, "{line} in {text:?}");
        }
    }

    #[test]
    fn raw_leaves_out_what_the_program_did_not_write() {
        let streams = |line: &str| args(line).unwrap().query(&local(0)).unwrap().streams;
        assert_eq!(streams("--raw"), [Stream::Stdout, Stream::Stderr]);
        assert_eq!(streams(""), [], "none named is all");
        assert_eq!(streams("--stream stderr,plimsoll"), [Stream::Stderr, Stream::Plimsoll]);
    }
}
