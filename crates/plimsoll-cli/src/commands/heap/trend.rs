//! `plimsoll heap trend DIR`: judges all snapshots, profiles and digests of a directory, in order of their time. Exit code 1 when
//! something leaks, so that a job can act on it.
//!
//! Each file is read once; of a file only its digest is kept. What cannot be read is said and left out.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use plimsoll::clock::wall;
use plimsoll_heap::verdict::State;

use super::input::Input;
use super::open;
use super::table::Table;
use crate::exit::{self, Failure};
use crate::say;
use crate::symbols::Symbols;
use crate::trend::{self, Analysis, Sample};
use crate::view::text::{self, Line, Tone};
use crate::view::{trend as told, words};

/// Arguments of `plimsoll heap trend`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Exit code: 0 nothing leaks; 1 something does, or nothing could be read; 64 usage.")]
pub(crate) struct Args {
    /// A directory of snapshots, profiles or digests, of one program; packed by gzip or zstd or not
    #[arg(value_name = "DIR")]
    dir: PathBuf,

    /// The size that must not be reached, for the time left (512M, 2G)
    #[arg(long, value_name = "SIZE", value_parser = plimsoll::units::parse_size)]
    limit: Option<u64>,

    /// Rows of each table
    #[arg(long, short = 'n', value_name = "ROWS", default_value_t = 12)]
    rows: usize,

    #[command(flatten)]
    symbols: Symbols,

    /// One JSON object, in the words of the API (docs/trend.md)
    #[arg(long)]
    json: bool,
}

/// Judges a directory.
pub(crate) fn run(args: &Args) -> Result<ExitCode, Failure> {
    let analysis = trend::analyse(read(&args.dir, &args.symbols)?, args.limit, wall());
    if args.json {
        super::print_json(&trend::json::of(&analysis))?;
    } else {
        say::lines(&lines(args, &analysis))?;
    }
    Ok(if analysis.overall == State::Leaking { ExitCode::from(exit::FAILURE) } else { ExitCode::SUCCESS })
}

/// The digests of a directory's files.
///
/// # Errors
/// When the directory cannot be read, or none of its files can.
pub(crate) fn read(dir: &Path, symbols: &Symbols) -> Result<Vec<Sample>, Failure> {
    let mut samples = Vec::new();
    let mut failed = 0;
    for path in trend::files(dir)? {
        let sample = Input::open(&path).and_then(|input| {
            let (size_bytes, written_ns) = (input.file_bytes.unwrap_or(0), input.unix_ns);
            let digest = open::digest(input, symbols)?;
            let said = Some(digest.unix_ns).filter(|ns| *ns > 0 && *ns != written_ns);
            let unix_ns = said.or_else(|| trend::time_in_name(&path)).unwrap_or(written_ns);
            Ok(Sample { unix_ns, size_bytes, digest: plimsoll_heap::digest::Digest { unix_ns, ..digest }, path })
        });
        match sample {
            Ok(sample) => samples.push(sample),
            Err(why) => {
                failed += 1;
                say::note(format_args!("left out: {why}"));
            }
        }
    }
    if samples.is_empty() {
        let found = if failed > 0 { format!("none of {failed} files can be read") } else { "no files".to_owned() };
        return Err(Failure::new(format!("{}: {found}", dir.display()))
            .hint("a directory of .heapsnapshot, .heapprofile, pprof, heap_v2, class histograms, smaps or digests"));
    }
    Ok(samples)
}

fn lines(args: &Args, analysis: &Analysis) -> Vec<Line> {
    let samples = &analysis.samples;
    let span = match (samples.first(), samples.last()) {
        (Some(first), Some(last)) => last.unix_ns.saturating_sub(first.unix_ns) as f64 / 1e9,
        _ => 0.0,
    };
    let lives = if analysis.lives > 1 { format!(", {} lives", analysis.lives) } else { String::new() };
    let count = words::plural(samples.len() as u64, "snapshot", "snapshots");
    let word = analysis.overall.as_str();
    let mut lines = vec![
        Line::new()
            .add(Tone::Strong, args.dir.display().to_string())
            .plain(": ")
            .add(told::tone(word), word)
            .add(Tone::Dim, format!("  {count} over {}{lives}", words::seconds(span))),
    ];
    lines.extend(trend::said_of_left_out(analysis.left_out).map(|said| Line::new().add(Tone::Note, said)));
    if analysis.overall == State::InsufficientData {
        let longest = analysis.judged.iter().flat_map(|judged| &judged.verdicts).max_by_key(|verdict| verdict.readings);
        let why = longest.and_then(|verdict| verdict.reasons.first());
        lines.extend(why.map(|why| Line::new().plain(format!("{why}. Two of them compare: plimsoll heap diff"))));
        return lines;
    }
    for judged in &analysis.judged {
        let head = match judged.kind.word() {
            "owner" => "HELD BY",
            "stack" => "ALLOCATED AT",
            "mapping" => "MAPPING",
            "class" => "CLASS",
            _ => "FIGURE",
        };
        let mut table = Table::new(&["VERDICT", "SURE", "GROWTH", "BETWEEN", "NOW", head]);
        for verdict in judged.verdicts.iter().take(args.rows) {
            let rate = |rate: Option<f64>| rate.map_or_else(|| "–".to_owned(), |rate| told::rate(rate, &verdict.unit));
            let between = match (verdict.per_hour_low, verdict.per_hour_high) {
                (Some(low), Some(high)) => {
                    format!("{} to {}", told::value(low, &verdict.unit), told::value(high, &verdict.unit))
                }
                _ => "–".to_owned(),
            };
            table.row(vec![
                (told::tone(&verdict.state), verdict.state.clone()),
                (Tone::Dim, format!("{:.0} %", verdict.confidence_ratio * 100.0)),
                (Tone::Plain, rate(verdict.per_hour)),
                (Tone::Dim, between),
                (Tone::Plain, told::value(verdict.now, &verdict.unit)),
                (Tone::Strong, verdict.key.clone()),
            ]);
        }
        lines.push(Line::new());
        lines.extend(table.lines());
        let more = judged.keys.saturating_sub(args.rows);
        if more > 0 {
            lines.push(Line::new().add(Tone::Dim, format!("{more} more")));
        }
    }
    let why = analysis.judged.iter().flat_map(|judged| told::reasons(&judged.verdicts)).take(3);
    let why: Vec<Line> = why.flat_map(|line| line.wrap(text::columns_of_stdout().unwrap_or(120), 2)).collect();
    if !why.is_empty() {
        lines.push(Line::new());
        lines.extend(why);
    }
    lines
}
