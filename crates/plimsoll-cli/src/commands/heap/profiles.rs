//! Profiles of every format but V8's graph, and digests of any: who holds the most, and two of them compared, with error bars. What
//! differs by no more than sampling makes it is below a line of its own.

use std::path::Path;
use std::process::ExitCode;

use plimsoll_heap::digest::{Digest, Kind};
use plimsoll_heap::format::Format;
use plimsoll_heap::profile::Profile;
use plimsoll_heap::profile::diff::{Change, Diff, Fate, NOISE_WIDTH, diff, of_rows};
use serde_json::{Value, json};

use super::input::Input;
use super::open::{digest, profile};
use super::table::Table;
use crate::exit::{self, Failure};
use crate::say;
use crate::symbols::Symbols;
use crate::view::heap::ChangeRow;
use crate::view::text::{Line, Tone};
use crate::view::words;

/// What digests of graphs and of profiles have rows of.
const KINDS: [Kind; 4] = [Kind::Owner, Kind::Class, Kind::Stack, Kind::Mapping];

/// Whether a file of this format is a profile.
pub(super) fn reads(format: Option<Format>) -> bool {
    use Format::{Jemalloc, JvmHistogram, Pprof, Smaps, V8Profile};
    matches!(format, Some(Jemalloc | JvmHistogram | Pprof | Smaps | V8Profile))
}

/// What a comparison is asked for.
pub(super) struct Asked<'a> {
    pub(super) before: &'a Path,
    pub(super) after: &'a Path,
    pub(super) limit: usize,
    pub(super) fail_on_growth: Option<u64>,
    pub(super) symbols: &'a Symbols,
    pub(super) json: bool,
}

/// Compares two profiles.
pub(super) fn compare(asked: &Asked<'_>, before: Input, after: Input) -> Result<ExitCode, Failure> {
    let (before, after) = (profile(before, asked.symbols)?, profile(after, asked.symbols)?);
    let found = diff(&before, &after).map_err(|why| Failure::new(format!("these do not compare: {why}")))?;
    answer(asked, &[found])
}

/// Compares what is left of two captures, or one of them with a file: a table for each kind of row that both have.
pub(super) fn compare_digests(asked: &Asked<'_>, before: Input, after: Input) -> Result<ExitCode, Failure> {
    let (before, after) = (digest(before, asked.symbols)?, digest(after, asked.symbols)?);
    let has = |digest: &Digest, kind: Kind| digest.rows.iter().any(|row| row.kind == kind);
    let both: Vec<Kind> = KINDS.into_iter().filter(|kind| has(&before, *kind) && has(&after, *kind)).collect();
    if both.is_empty() {
        let of = |digest: &Digest| {
            let kinds: Vec<&str> = KINDS.into_iter().filter(|kind| has(digest, *kind)).map(Kind::word).collect();
            if kinds.is_empty() { "nothing".to_owned() } else { kinds.join(" and ") }
        };
        let why = format!("one is by {}, the other by {}", of(&before), of(&after));
        return Err(Failure::new(format!("these do not compare: {why}")));
    }
    let notes = match before.same_life(&after) {
        Some(false) => vec!["of two lives of the program".to_owned()],
        _ => Vec::new(),
    };
    let diffs: Vec<Diff> =
        both.into_iter().map(|kind| of_rows(kind, &before.rows, &after.rows, notes.clone())).collect();
    answer(asked, &diffs)
}

fn answer(asked: &Asked<'_>, diffs: &[Diff]) -> Result<ExitCode, Failure> {
    let over = |change: &&Change| {
        let grew = u64::try_from(change.delta_bytes()).ok().filter(|_| !change.is_noise());
        asked.fail_on_growth.is_some_and(|limit| grew.is_some_and(|grew| grew > limit))
    };
    let exceeded = diffs.iter().flat_map(|found| found.changes.iter().chain([&found.total])).find(over);
    let exceeded = exceeded.map(|change| format!("{} grew by {}", change.key, signed(change.delta_bytes())));
    if asked.json {
        match diffs {
            [found] => super::print_json(&as_json(found, exceeded.as_deref()))?,
            all => super::print_json(&json!({
                "diffs": all.iter().map(|found| as_json(found, None)).collect::<Vec<_>>(),
                "exceeded": exceeded,
            }))?,
        }
    } else {
        say::lines(&told(asked, diffs))?;
    }
    match exceeded {
        Some(what) => {
            say::note(what);
            Ok(ExitCode::from(exit::FAILURE))
        }
        None => Ok(ExitCode::SUCCESS),
    }
}

/// Who holds the most in one profile: `heap top` of what has no graph.
pub(super) fn top(input: Input, limit: usize, symbols: &Symbols, json: bool) -> Result<ExitCode, Failure> {
    // V8 tells bytes of a function, and of how many samples, not of how many objects.
    let is_sampled_only = input.format == Some(Format::V8Profile);
    let (name, format) = (input.path.display().to_string(), input.format.map_or("profile", Format::name));
    let profile = profile(input, symbols)?;
    if json {
        super::print_json(&top_as_json(&profile))?;
        return Ok(ExitCode::SUCCESS);
    }
    let rows = profile.rows();
    let total = profile.bytes();
    let error = |variance: f64| match (NOISE_WIDTH * variance.max(0.0).sqrt()) as u64 {
        0 => String::new(),
        bytes => format!(" ± {}", words::size(bytes)),
    };
    let whole = format!("{}{}", words::size(total as u64), error(profile.sampling.variance(total)));
    let objects = words::plural(profile.count() as u64, "object", "objects");
    let counts_objects = profile.kind.word() != "mapping" && !is_sampled_only;
    let said = if counts_objects { format!("{whole} in {objects}") } else { whole };
    let mut lines = vec![
        Line::new().add(Tone::Strong, name).plain(format!(": {said}")).add(Tone::Dim, format!(", {format}")),
        Line::new(),
    ];
    let mut table =
        Table::new(&["HELD", "SHARE", if is_sampled_only { "SAMPLES" } else { "COUNT" }, head(profile.kind.word())]);
    let share = |bytes: u64| format!("{:.1} %", 100.0 * bytes as f64 / total.max(1.0));
    for row in rows.iter().take(limit) {
        table.row(vec![
            (Tone::Plain, format!("{}{}", words::size(row.bytes), error(row.variance))),
            (Tone::Plain, share(row.bytes)),
            (Tone::Dim, words::count(row.count)),
            (Tone::Strong, row.key.clone()),
        ]);
    }
    let rest = &rows[rows.len().min(limit)..];
    if !rest.is_empty() {
        let bytes = rest.iter().map(|row| row.bytes).fold(0, u64::saturating_add);
        table.row(vec![
            (Tone::Dim, words::size(bytes)),
            (Tone::Dim, share(bytes)),
            (Tone::Dim, words::count(rest.iter().map(|row| row.count).fold(0, u64::saturating_add))),
            (Tone::Dim, format!("({} more)", words::count(rest.len() as u64))),
        ]);
    }
    lines.extend(table.lines());
    say::lines(&lines)?;
    Ok(ExitCode::SUCCESS)
}

fn top_as_json(profile: &Profile) -> Value {
    let row = |row: &plimsoll_heap::digest::Row| {
        json!({
            "key": row.key,
            "bytes": row.bytes,
            "count": row.count,
            "noise_bytes": NOISE_WIDTH * row.variance.max(0.0).sqrt(),
        })
    };
    json!({
        "kind": profile.kind.word(),
        "total_bytes": profile.bytes() as u64,
        "objects": profile.count() as u64,
        "rows": profile.rows().iter().map(row).collect::<Vec<_>>(),
    })
}

/// What the last column of a table is called.
fn head(kind: &str) -> &'static str {
    match kind {
        "class" => "CLASS",
        "mapping" => "MAPPING",
        "owner" => "HELD BY",
        _ => "ALLOCATED AT",
    }
}

fn told(asked: &Asked<'_>, diffs: &[Diff]) -> Vec<Line> {
    let Some(first) = diffs.first() else { return Vec::new() };
    let total = &first.total;
    let headline =
        format!(": {} → {} ({})", words::size(total.before_bytes), words::size(total.after_bytes), with_error(total));
    let files = format!("{} → {}", asked.before.display(), asked.after.display());
    let mut lines = vec![Line::new().add(Tone::Strong, files).plain(headline)];
    lines.extend(first.notes.iter().map(|note| Line::new().add(Tone::Warn, note)));
    diffs.iter().for_each(|found| lines.extend(changes(asked, found)));
    lines
}

/// What surely changed, and what is within the noise.
fn changes(asked: &Asked<'_>, found: &Diff) -> Vec<Line> {
    let mut lines = Vec::new();
    let (noise, sure): (Vec<&Change>, Vec<&Change>) =
        found.changes.iter().filter(|change| change.delta_bytes() != 0).partition(|change| change.is_noise());
    if sure.is_empty() {
        let nothing = if noise.is_empty() { "Nothing changed" } else { "Nothing changed beyond the noise of sampling" };
        lines.push(Line::new().add(Tone::Good, format!("{nothing}: {}.", found.kind.word())));
    } else {
        lines.push(Line::new());
        lines.extend(table(found, &sure, asked.limit));
    }
    if !noise.is_empty() {
        let said = format!("Within the noise of sampling ({NOISE_WIDTH:.0} standard deviations):");
        lines.extend([Line::new(), Line::new().add(Tone::Dim, said)]);
        lines.extend(table(found, &noise, (asked.limit / 2).max(3)));
    }
    lines
}

fn table(found: &Diff, changes: &[&Change], limit: usize) -> Vec<Line> {
    let mut table = Table::new(&["GROWTH", "BEFORE", "AFTER", "COUNT", head(found.kind.word())]);
    for change in changes.iter().take(limit) {
        let grew = change.delta_bytes() > 0;
        let tone = match (change.is_noise(), grew) {
            (true, _) => Tone::Dim,
            (false, true) => Tone::Alarm,
            (false, false) => Tone::Good,
        };
        let name = match change.fate {
            Fate::New => format!("{}  (new)", change.key),
            Fate::Gone => format!("{}  (gone)", change.key),
            _ => change.key.clone(),
        };
        table.row(vec![
            (tone, with_error(change)),
            (Tone::Plain, words::size(change.before_bytes)),
            (Tone::Plain, words::size(change.after_bytes)),
            (Tone::Dim, format!("{:+}", change.delta_count())),
            (if change.is_noise() { Tone::Dim } else { Tone::Strong }, name),
        ]);
    }
    let mut lines = table.lines();
    if changes.len() > limit {
        lines.push(Line::new().add(Tone::Dim, format!("{} more", changes.len() - limit)));
    }
    lines
}

/// `+1.20 MiB ± 310 KiB`
fn with_error(change: &Change) -> String {
    let error = if change.error_bytes > 0.0 {
        format!(" ± {}", words::size(change.error_bytes as u64))
    } else {
        String::new()
    };
    format!("{}{error}", signed(change.delta_bytes()))
}

fn signed(bytes: i64) -> String {
    format!("{}{}", if bytes < 0 { "-" } else { "+" }, words::size(bytes.unsigned_abs()))
}

fn as_json(found: &Diff, exceeded: Option<&str>) -> Value {
    let row = |change: &Change| ChangeRow::of(found.kind, change, Some(change.key.clone()));
    json!({
        "kind": found.kind.word(),
        "total": row(&found.total),
        "notes": found.notes,
        "rows": found.changes.iter().map(row).collect::<Vec<_>>(),
        "exceeded": exceeded,
    })
}
