//! `plimsoll heap open`: what a file is and what is in it, whatever its format; and its digest, to keep when the file goes.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use plimsoll_heap::digest::{Digest, Kind};
use plimsoll_heap::format::{Format, Packing};
use plimsoll_heap::parse;
use plimsoll_heap::profile::Profile;
use plimsoll_heap::profile::diff::NOISE_WIDTH;
use plimsoll_heap::summary::Summary;
use serde_json::{Value, json};

use super::input::{Input, unreadable};
use super::table::Table;
use crate::exit::Failure;
use crate::say;
use crate::symbols::Symbols;
use crate::trend;
use crate::view::text::{Line, Tone};
use crate::view::words;

/// Arguments of `plimsoll heap open`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// A snapshot or profile of any format that Plimsoll reads; `-` for stdin
    #[arg(value_name = "FILE")]
    file: PathBuf,

    /// Rows of each kind
    #[arg(long, short = 'n', value_name = "ROWS", default_value_t = 10)]
    limit: usize,

    /// Also write its digest there: a few KB that trends are made of
    #[arg(long, value_name = "DIGEST")]
    save_digest: Option<PathBuf>,

    #[command(flatten)]
    symbols: Symbols,

    /// One JSON object
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(args: &Args) -> Result<ExitCode, Failure> {
    let Args { file, limit, save_digest, symbols, json } = args;
    answer(Input::open(file)?, *limit, save_digest.as_deref(), symbols, *json)
}

/// What is in a file, as its digest has it.
pub(super) fn answer(
    input: Input,
    limit: usize,
    save_digest: Option<&Path>,
    symbols: &Symbols,
    json: bool,
) -> Result<ExitCode, Failure> {
    let (format, packing, file_bytes, name) =
        (input.format, input.packing, input.file_bytes, input.path.display().to_string());
    let digest = digest(input, symbols)?;
    if let Some(path) = save_digest {
        save(path, &digest)?;
    }
    let format = format.map_or("unknown", Format::name);
    if json {
        super::print_json(&as_json(format, packing, file_bytes, &digest))?;
    } else {
        let mut lines = vec![headline(&name, format, packing, file_bytes)];
        lines.extend(rows(&digest, limit));
        say::lines(&lines)?;
    }
    Ok(ExitCode::SUCCESS)
}

/// The digest of a file of any format.
pub(crate) fn digest(input: Input, symbols: &Symbols) -> Result<Digest, Failure> {
    let (path, unix_ns) = (input.path.clone(), input.unix_ns);
    match input.format {
        Some(Format::Digest) => {
            Digest::read(input.stream).map_err(|error| Failure::new(format!("{}: {error}", path.display())))
        }
        Some(Format::V8Snapshot) | None => {
            input.expect_v8()?;
            let (graph, mut warnings) =
                plimsoll_heap::parse::v8::read(input.stream).map_err(|error| unreadable(&path, &error))?;
            let summary = Summary::of(&graph, 0);
            warnings.extend(summary.warnings.iter().cloned());
            super::warn(&path, &warnings);
            Ok(summary.digest(unix_ns))
        }
        Some(_) => {
            let profile = profile(input, symbols)?;
            let mut digest = profile.digest();
            if digest.unix_ns == 0 {
                digest.unix_ns = unix_ns;
            }
            Ok(digest)
        }
    }
}

/// The profile, histogram or mappings in a file that is no graph; functions that it does not name are looked up in the program's
/// files. Warnings go to stderr.
pub(super) fn profile(input: Input, symbols: &Symbols) -> Result<Profile, Failure> {
    let Input { path, stream, format, unix_ns, .. } = input;
    let read = match format {
        Some(Format::V8Profile) => parse::heapprofile::read(stream),
        Some(Format::Pprof) => parse::pprof::read(stream),
        Some(Format::Jemalloc) => parse::jemalloc::read(stream),
        Some(Format::JvmHistogram) => parse::jvm::read(stream),
        Some(Format::Smaps) => parse::smaps::read(stream),
        other => {
            let what = other.map_or("of no format that Plimsoll reads", Format::name);
            return Err(Failure::new(format!("{} is no profile: {what}", path.display())));
        }
    };
    let (mut profile, mut warnings) = read.map_err(|error| Failure::new(format!("{}: {error}", path.display())))?;
    let taken_ns = Some(profile.unix_ns).filter(|ns| *ns > 0).or_else(|| trend::time_in_name(&path));
    let naming = symbols.name(&mut profile, taken_ns.unwrap_or(unix_ns));
    if naming.named > 0 {
        warnings.retain(|warning| warning.what != parse::jemalloc::NO_SYMBOLS);
    }
    super::warn(&path, &naming.notes);
    let told = |one: &parse::Warning| match (one.times, one.first_offset) {
        (1, 0) => one.what.to_owned(),
        (1, at) => format!("{} (at byte {at})", one.what),
        (times, at) => format!("{} ({times} times, first at byte {at})", one.what),
    };
    super::warn(&path, &warnings.iter().map(told).collect::<Vec<_>>());
    Ok(profile)
}

/// Writes a digest beside its place and renames it, so that there is never half of one.
fn save(path: &Path, digest: &Digest) -> Result<(), Failure> {
    let failed = |error: std::io::Error| Failure::new(format!("cannot write {}: {error}", path.display()));
    let mut part = path.as_os_str().to_owned();
    part.push(".part");
    let part = PathBuf::from(part);
    let mut bytes = Vec::new();
    digest.write(&mut bytes).map_err(failed)?;
    let mut file = std::fs::File::create(&part).map_err(failed)?;
    file.write_all(&bytes).and_then(|()| file.sync_all()).map_err(failed)?;
    std::fs::rename(&part, path).map_err(failed)
}

fn headline(name: &str, format: &str, packing: Option<Packing>, file_bytes: Option<u64>) -> Line {
    let packed = match packing {
        Some(Packing::Gzip) => ", packed by gzip",
        Some(Packing::Zstd) => ", packed by zstd",
        None => "",
    };
    let size = file_bytes.map(|bytes| format!(", {}", words::size(bytes))).unwrap_or_default();
    Line::new().add(Tone::Strong, name).plain(format!(": {format}{packed}{size}"))
}

/// A table for each kind of row that there is.
fn rows(digest: &Digest, limit: usize) -> Vec<Line> {
    let kinds = [
        (Kind::Total, "TOTAL"),
        (Kind::Owner, "HELD BY"),
        (Kind::Class, "CLASS"),
        (Kind::Stack, "ALLOCATED AT"),
        (Kind::Mapping, "MAPPING"),
    ];
    let mut lines = Vec::new();
    for (kind, head) in kinds {
        let mut table = Table::new(&["BYTES", "COUNT", head]);
        for row in digest.rows.iter().filter(|row| row.kind == kind).take(limit) {
            let error = if row.variance > 0.0 {
                format!(" ± {}", words::size((NOISE_WIDTH * row.variance.sqrt()) as u64))
            } else {
                String::new()
            };
            table.row(vec![
                (Tone::Plain, format!("{}{error}", words::size(row.bytes))),
                (Tone::Plain, words::count(row.count)),
                (Tone::Strong, row.key.clone()),
            ]);
        }
        if !table.is_empty() {
            lines.push(Line::new());
            lines.extend(table.lines());
        }
    }
    lines
}

fn as_json(format: &str, packing: Option<Packing>, file_bytes: Option<u64>, digest: &Digest) -> Value {
    let rows: Vec<Value> = digest
        .rows
        .iter()
        .map(|row| {
            json!({
                "kind": row.kind.word(), "key": row.key, "bytes": row.bytes, "count": row.count, "variance": row.variance,
            })
        })
        .collect();
    json!({
        "format": format,
        "packing": packing.map(|packing| match packing { Packing::Gzip => "gzip", Packing::Zstd => "zstd" }),
        "file_bytes": file_bytes,
        "unix_ns": digest.unix_ns,
        "rows": rows,
    })
}
