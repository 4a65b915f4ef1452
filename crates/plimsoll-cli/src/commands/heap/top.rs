//! `plimsoll heap top`: who holds the most in one snapshot or profile.

use std::path::PathBuf;
use std::process::ExitCode;

use plimsoll_heap::format::Format;
use plimsoll_heap::graph::owners::Owner;
use plimsoll_heap::summary::{ClassRow, Large, Summary};
use serde_json::{Value, json};

use super::input::Input;
use super::profiles;
use super::table::Table;
use crate::exit::Failure;
use crate::say;
use crate::symbols::Symbols;
use crate::view::text::{Line, Tone};
use crate::view::words;

/// Arguments of `plimsoll heap top`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// A snapshot or profile of any format; `-` for stdin
    #[arg(value_name = "FILE")]
    file: PathBuf,

    /// Rows of each table
    #[arg(long, short = 'n', value_name = "ROWS", default_value_t = 20)]
    limit: usize,

    #[command(flatten)]
    symbols: Symbols,

    /// One JSON object, with all rows
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(args: &Args) -> Result<ExitCode, Failure> {
    let input = Input::open(&args.file)?;
    if profiles::reads(input.format) {
        return profiles::top(input, args.limit, &args.symbols, args.json);
    }
    if input.format == Some(Format::Digest) {
        return super::open::answer(input, args.limit, None, &args.symbols, args.json);
    }
    let file_bytes = input.file_bytes;
    let graph = input.graph()?;
    let summary = Summary::of(&graph, args.limit);
    drop(graph);
    super::warn(&args.file, &summary.warnings);
    if args.json {
        super::print_json(&as_json(&summary))?;
    } else {
        let mut lines = vec![headline(&args.file.display().to_string(), &summary, file_bytes), Line::new()];
        lines.extend(tables(&summary, args.limit));
        say::lines(&lines)?;
    }
    Ok(ExitCode::SUCCESS)
}

/// `after.heapsnapshot: 282.9 MiB in 9,209,379 objects`
pub(super) fn headline(name: &str, summary: &Summary, file_bytes: Option<u64>) -> Line {
    let of_file = file_bytes.map(|bytes| format!(", a file of {}", words::size(bytes))).unwrap_or_default();
    Line::new()
        .add(Tone::Strong, name)
        .plain(format!(
            ": {} in {}",
            words::size(summary.total_bytes),
            words::plural(summary.nodes, "object", "objects")
        ))
        .add(Tone::Dim, of_file)
}

/// Owners and classes, `limit` rows of each.
pub(super) fn tables(summary: &Summary, limit: usize) -> Vec<Line> {
    let share = |bytes: u64| format!("{:.1} %", 100.0 * bytes as f64 / summary.total_bytes.max(1) as f64);
    let mut owners = Table::new(&["HELD", "SHARE", "OBJECTS", "BY"]);
    for owner in summary.owners.iter().take(limit) {
        owners.row(vec![
            (Tone::Plain, words::size(owner.bytes)),
            (Tone::Plain, share(owner.bytes)),
            (Tone::Plain, words::count(owner.objects)),
            (Tone::Strong, several(&owner.key, owner.owners)),
        ]);
    }
    let rest = &summary.owners[summary.owners.len().min(limit)..];
    let rest_bytes = rest.iter().map(|owner| owner.bytes).fold(0, u64::saturating_add);
    if !rest.is_empty() {
        owners.row(vec![
            (Tone::Dim, words::size(rest_bytes)),
            (Tone::Dim, share(rest_bytes)),
            (Tone::Dim, words::count(rest.iter().map(|owner| owner.objects).fold(0, u64::saturating_add))),
            (Tone::Dim, format!("({} more)", words::count(rest.len() as u64))),
        ]);
    }
    let mut classes = Table::new(&["OBJECTS", "OWN", "WOULD FREE", "CLASS"]);
    for row in summary.classes.iter().take(limit) {
        classes.row(vec![
            (Tone::Plain, words::count(row.count)),
            (Tone::Plain, words::size(row.bytes)),
            (Tone::Plain, row.retained_bytes.map_or_else(|| "–".to_owned(), words::size)),
            (Tone::Strong, class_name(&row.class)),
        ]);
    }
    let mut lines = owners.lines();
    lines.push(Line::new());
    lines.extend(classes.lines());
    lines
}

/// A key, and how many objects stand behind it when they are several.
pub(super) fn several(key: &str, owners: u64) -> String {
    if owners > 1 { format!("{key}  ({} of them)", words::count(owners)) } else { key.to_owned() }
}

/// A class and where it is defined.
pub(super) fn class_name(class: &plimsoll_heap::graph::classes::Class) -> String {
    match class.place {
        // Lines and columns of the file count from 0.
        Some([script, line, column]) => format!("{}  (script {script}, {}:{})", class.name, line + 1, column + 1),
        None => class.name.to_string(),
    }
}

fn as_json(summary: &Summary) -> Value {
    json!({
        "total_bytes": summary.total_bytes,
        "objects": summary.nodes,
        "owners": summary.owners.iter().map(owner_json).collect::<Vec<_>>(),
        "classes": summary.classes.iter().map(class_json).collect::<Vec<_>>(),
        "largest": summary.largest.iter().map(large_json).collect::<Vec<_>>(),
        "warnings": summary.warnings.iter().map(ToString::to_string).collect::<Vec<_>>(),
    })
}

fn owner_json(owner: &Owner) -> Value {
    let path: String = owner.steps.iter().map(|step| step.words.as_str()).collect();
    json!({
        "key": owner.key,
        "path": path,
        "owners": owner.owners,
        "held_bytes": owner.bytes,
        "objects": owner.objects,
        "retained_bytes": owner.retained_bytes,
    })
}

/// These hold each other: their retained bytes must not be summed.
fn large_json(large: &Large) -> Value {
    json!({ "id": large.id, "name": large.name, "bytes": large.bytes, "retained_bytes": large.retained_bytes })
}

fn class_json(row: &ClassRow) -> Value {
    json!({
        "class": &*row.class.name,
        "defined_at": row.class.place,
        "objects": row.count,
        "bytes": row.bytes,
        "retained_bytes": row.retained_bytes,
    })
}
