//! `plimsoll heap diff`: what changed between two snapshots of one program, the leak in the first row.

use std::path::PathBuf;
use std::process::ExitCode;

use plimsoll_heap::diff::{self, Amount, ClassDiff, Diff, DiffError, OwnerDiff};
use plimsoll_heap::format::Format;
use serde_json::{Value, json};

use super::input::{Input, unreadable};
use super::profiles::{self, Asked};
use super::table::Table;
use super::top::{class_name, several};
use crate::exit::{self, Failure};
use crate::say;
use crate::symbols::Symbols;
use crate::view::text::{Line, Tone};
use crate::view::words;

/// Arguments of `plimsoll heap diff`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The older snapshot or profile
    #[arg(value_name = "BEFORE")]
    before: PathBuf,

    /// The newer one
    #[arg(value_name = "AFTER")]
    after: PathBuf,

    /// Rows of each table
    #[arg(long, short = 'n', value_name = "ROWS", default_value_t = 12)]
    limit: usize,

    /// Exit code 1 when the heap, or what one owner holds, grew by more (20M, 1.5G)
    #[arg(long, value_name = "SIZE", value_parser = plimsoll::units::parse_size)]
    fail_on_growth: Option<u64>,

    #[command(flatten)]
    symbols: Symbols,

    /// One JSON object, with all owners and classes
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(args: &Args) -> Result<ExitCode, Failure> {
    let (before, after) = (Input::open(&args.before)?, Input::open(&args.after)?);
    let is_digest = |input: &Input| input.format == Some(Format::Digest);
    let digests = is_digest(&before) || is_digest(&after);
    if digests || profiles::reads(before.format) && profiles::reads(after.format) {
        let Args { before: from, after: to, limit, fail_on_growth, symbols, json } = args;
        let asked =
            Asked { before: from, after: to, limit: *limit, fail_on_growth: *fail_on_growth, symbols, json: *json };
        let compare = if digests { profiles::compare_digests } else { profiles::compare };
        return compare(&asked, before, after);
    }
    before.expect_v8()?;
    after.expect_v8()?;
    let found = diff::v8(before.stream, after.stream).map_err(|error| match error {
        DiffError::Before(error) => unreadable(&args.before, &error),
        DiffError::After(error) => unreadable(&args.after, &error),
    })?;
    super::warn(&args.before, &found.before.warnings);
    super::warn(&args.after, &found.after.warnings);
    let exceeded = args.fail_on_growth.and_then(|limit| exceeded(&found, limit));
    if args.json {
        let mut value = as_json(&found);
        value["exceeded"] = json!(exceeded);
        super::print_json(&value)?;
    } else {
        say::lines(&told(args, &found))?;
    }
    if let Some(what) = exceeded {
        say::note(what);
        return Ok(ExitCode::from(exit::FAILURE));
    }
    Ok(ExitCode::SUCCESS)
}

/// What grew by more than `limit`, if anything did.
fn exceeded(found: &Diff, limit: u64) -> Option<String> {
    let over = |bytes: i64| u64::try_from(bytes).is_ok_and(|bytes| bytes > limit);
    let most = found.largest_growth().filter(|owner| over(owner.delta_bytes()));
    let limit = words::size(limit);
    match most {
        Some(owner) => Some(format!(
            "{} grew by {}, more than {limit}",
            owner.key,
            words::size(owner.delta_bytes().unsigned_abs())
        )),
        None if over(found.delta_bytes()) => {
            Some(format!("the heap grew by {}, more than {limit}", words::size(found.delta_bytes().unsigned_abs())))
        }
        None => None,
    }
}

fn told(args: &Args, found: &Diff) -> Vec<Line> {
    let mut lines = vec![headline(args, found)];
    lines.extend(explained(found));
    lines.push(Line::new());
    lines.extend(owners(found, args.limit));
    lines.push(Line::new());
    lines.extend(classes(found, args.limit));
    lines
}

fn headline(args: &Args, found: &Diff) -> Line {
    let (before, after) = (found.before.total_bytes, found.after.total_bytes);
    let ratio = 100.0 * found.delta_bytes() as f64 / before.max(1) as f64;
    Line::new().add(Tone::Strong, format!("{} → {}", args.before.display(), args.after.display())).plain(format!(
        ": {} → {} ({}, {ratio:+.1} %)",
        words::size(before),
        words::size(after),
        signed(found.delta_bytes())
    ))
}

/// What may be compared, and the finding in a sentence.
fn explained(found: &Diff) -> Vec<Line> {
    let mut lines = Vec::new();
    match found.same_life {
        Some(true) => {}
        Some(false) => lines.push(
            Line::new()
                .add(Tone::Warn, "The program was restarted in between")
                .plain(": ids mean nothing across lives, so owners are compared by path and classes by name."),
        ),
        None => lines.push(
            Line::new()
                .add(Tone::Warn, "The two may be of different processes")
                .plain(": too few objects are in both, so owners are compared by path and classes by name."),
        ),
    }
    let growth = found.delta_bytes();
    if let Some(owner) = found.largest_growth().filter(|owner| growth > 0 && owner.delta_bytes() > 0) {
        let share = 100.0 * owner.delta_bytes() as f64 / growth as f64;
        let share = if share > 100.0 { "More than all".to_owned() } else { format!("{share:.1} %") };
        let in_place = match owner.owners {
            _ if !grew_in_place(owner) => "",
            1 => ", the same object as before",
            _ => ", the same objects as before",
        };
        lines.push(
            Line::new()
                .plain(format!("{share} of the growth is held by "))
                .add(Tone::Strong, &owner.key)
                .plain(format!("{in_place}.")),
        );
    } else if growth <= 0 {
        lines.push(Line::new().add(Tone::Good, "The heap did not grow."));
    }
    lines
}

/// No other object came in its stead: what it holds is more.
fn grew_in_place(owner: &OwnerDiff) -> bool {
    owner.survived == Some(true) && owner.before.bytes > 0 && owner.delta_bytes() > 0
}

fn owners(found: &Diff, limit: usize) -> Vec<Line> {
    let moved = |owner: &&OwnerDiff| owner.delta_bytes() != 0;
    let shown: Vec<&OwnerDiff> = both_ends(&found.owners.iter().filter(moved).collect::<Vec<_>>(), limit);
    let mut table = Table::new(&["GROWTH", "BEFORE", "AFTER", "OBJECTS", "HELD BY"]);
    for owner in &shown {
        let objects = i128::from(owner.after.count) - i128::from(owner.before.count);
        table.row(vec![
            (tone(owner.delta_bytes(), found), signed(owner.delta_bytes())),
            (Tone::Plain, size_or_dash(owner.before.bytes)),
            (Tone::Plain, size_or_dash(owner.after.bytes)),
            (Tone::Plain, signed_count(objects)),
            (Tone::Strong, several(&owner.key, owner.owners)),
        ]);
    }
    let left = found.owners.iter().filter(moved).count() - shown.len();
    let unmoved = found.owners.len() - left - shown.len();
    let rest = found.delta_bytes() - shown.iter().map(|owner| owner.delta_bytes()).sum::<i64>();
    let mut lines =
        if table.is_empty() { vec![Line::new().add(Tone::Dim, "No owner changed.")] } else { table.lines() };
    if left > 0 {
        lines.push(
            Line::new().add(Tone::Dim, format!("{left} more changed, {} in sum; {unmoved} did not.", signed(rest))),
        );
    }
    lines
}

/// The first rows and, when they are losses, the last ones too: what shrank is as true as what grew.
fn both_ends<'a, T>(rows: &[&'a T], limit: usize) -> Vec<&'a T> {
    if rows.len() <= limit {
        return rows.to_vec();
    }
    let tail = (limit / 4).min(rows.len());
    let head = limit - tail;
    rows[..head].iter().chain(&rows[rows.len() - tail..]).copied().collect()
}

fn classes(found: &Diff, limit: usize) -> Vec<Line> {
    let moved = |row: &&ClassDiff| row.before != row.after || row.moves.is_some_and(|moves| moves.grown.bytes > 0);
    let shown = both_ends(&found.classes.iter().filter(moved).collect::<Vec<_>>(), limit);
    let by_id = found.same_life == Some(true);
    let mut table = if by_id {
        Table::new(&["GROWTH", "BEFORE", "AFTER", "NEW", "GONE", "GROWN IN PLACE", "CLASS"])
    } else {
        Table::new(&["GROWTH", "BEFORE", "AFTER", "OBJECTS", "CLASS"])
    };
    for row in &shown {
        let mut cells = vec![
            (tone(row.delta_bytes(), found), signed(row.delta_bytes())),
            (Tone::Plain, size_or_dash(row.before.bytes)),
            (Tone::Plain, size_or_dash(row.after.bytes)),
        ];
        match row.moves.filter(|_| by_id) {
            Some(moves) => {
                cells.push((Tone::Plain, count_or_dash(moves.new.count)));
                cells.push((Tone::Plain, count_or_dash(moves.gone.count)));
                let grown = moves.grown;
                let in_place = format!("{} by {}", words::count(grown.count), words::size(grown.bytes));
                cells.push((Tone::Plain, if grown.count == 0 { "–".into() } else { in_place }));
            }
            None => cells.push((Tone::Plain, signed_count(i128::from(row.after.count) - i128::from(row.before.count)))),
        }
        cells.push((Tone::Strong, class_name(&row.class)));
        table.row(cells);
    }
    if table.is_empty() { vec![Line::new().add(Tone::Dim, "No class changed.")] } else { table.lines() }
}

/// Growth that matters to the whole stands out: a tenth of what the heap grew by.
fn tone(delta: i64, found: &Diff) -> Tone {
    match (delta, found.delta_bytes()) {
        (delta, growth) if delta > 0 && growth > 0 && delta >= growth / 10 => Tone::Alarm,
        (delta, _) if delta < 0 => Tone::Good,
        _ => Tone::Plain,
    }
}

fn signed(bytes: i64) -> String {
    let sign = if bytes < 0 { "−" } else { "+" };
    format!("{sign}{}", words::size(bytes.unsigned_abs()))
}

fn signed_count(number: i128) -> String {
    let sign = match number {
        0 => return "–".into(),
        number if number < 0 => "−",
        _ => "+",
    };
    format!("{sign}{}", words::count(u64::try_from(number.unsigned_abs()).unwrap_or(u64::MAX)))
}

fn size_or_dash(bytes: u64) -> String {
    if bytes == 0 { "–".into() } else { words::size(bytes) }
}

fn count_or_dash(count: u64) -> String {
    if count == 0 { "–".into() } else { words::count(count) }
}

fn as_json(found: &Diff) -> Value {
    let side = |side: &diff::Side| {
        let warnings: Vec<String> = side.warnings.iter().map(ToString::to_string).collect();
        json!({ "total_bytes": side.total_bytes, "objects": side.nodes, "warnings": warnings })
    };
    let amount = |amount: Amount| json!({ "bytes": amount.bytes, "objects": amount.count });
    let owner = |owner: &OwnerDiff| {
        let path: String = owner.steps.iter().map(|step| step.words.as_str()).collect();
        json!({
            "key": owner.key,
            "path": path,
            "id": owner.id,
            "owners": owner.owners,
            "growth_bytes": owner.delta_bytes(),
            "before": amount(owner.before),
            "after": amount(owner.after),
            "grew_in_place": grew_in_place(owner),
        })
    };
    let class = |row: &ClassDiff| {
        let moves = row.moves.map(|moves| {
            json!({
                "new": amount(moves.new),
                "gone": amount(moves.gone),
                "grown_in_place": amount(moves.grown),
                "shrunk_in_place": amount(moves.shrunk),
            })
        });
        json!({
            "class": &*row.class.name,
            "defined_at": row.class.place,
            "growth_bytes": row.delta_bytes(),
            "before": amount(row.before),
            "after": amount(row.after),
            "by_id": moves,
        })
    };
    json!({
        "before": side(&found.before),
        "after": side(&found.after),
        "growth_bytes": found.delta_bytes(),
        "same_life": found.same_life,
        "owners": found.owners.iter().map(owner).collect::<Vec<_>>(),
        "classes": found.classes.iter().map(class).collect::<Vec<_>>(),
    })
}
