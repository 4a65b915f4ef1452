//! `plimsoll report NAME|DIR`: a page of markdown that says whether a program leaks, what, how fast and until when. Of a supervised
//! program from its history, also after it died; of a directory of snapshots from these. Printed, or saved with `--save`.

use std::io::Write as _;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use plimsoll::clock::wall;
use plimsoll_heap::verdict::State;

use super::heap;
use super::status::layouts;
use crate::args::Place;
use crate::exit::{self, Failure};
use crate::output::LocalClock;
use crate::say;
use crate::snapshot::found;
use crate::symbols::Symbols;
use crate::trend::{self, Analysis};
use crate::web::client::Client;

/// Arguments of `plimsoll report`.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Exit code: 0 nothing leaks; 1 something does, or there is nothing to report of; 64 no such name."
)]
pub(crate) struct Args {
    /// A supervised program, or a directory of snapshots (with a slash in it)
    #[arg(value_name = "NAME|DIR")]
    what: String,

    /// Also write it into DIR/reports, or below the program's own directory: trend-report-MILLISECONDS.md
    #[arg(long)]
    save: bool,

    /// One JSON object instead (docs/trend.md)
    #[arg(long, conflicts_with = "save")]
    json: bool,

    #[command(flatten)]
    place: Place,
}

/// Writes the report.
pub(crate) fn run(args: &Args) -> Result<ExitCode, Failure> {
    let is_dir = args.what.contains('/') || args.what == "." || args.what == "..";
    let (analysis, home, subject) = if is_dir { of_dir(Path::new(&args.what))? } else { of_name(args)? };
    let now = wall();
    let text = if args.json {
        serde_json::to_string_pretty(&trend::json::of(&analysis)).map_err(|e| Failure::internal(e.to_string()))? + "\n"
    } else {
        let mut when = String::new();
        LocalClock::system().date_and_time(u64::try_from(now.as_nanos()).unwrap_or(u64::MAX), &mut when);
        trend::markdown::page(&analysis, &subject, when.split('.').next().unwrap_or_default())
    };
    if args.save {
        let path = save(&home, now.as_millis(), &text)?;
        say::print(format!("{}\n", path.display()).as_bytes())?;
    } else {
        say::print(text.as_bytes())?;
    }
    Ok(if analysis.overall == State::Leaking { ExitCode::from(exit::FAILURE) } else { ExitCode::SUCCESS })
}

fn of_dir(dir: &Path) -> Result<(Analysis, PathBuf, String), Failure> {
    let samples = heap::trend::read(dir, &Symbols::default())?;
    let name = dir.canonicalize().ok().and_then(|dir| dir.file_name().map(|name| name.to_string_lossy().into_owned()));
    Ok((trend::analyse(samples, None, wall()), dir.to_owned(), name.unwrap_or_default()))
}

fn of_name(args: &Args) -> Result<(Analysis, PathBuf, String), Failure> {
    let layouts = layouts(&args.place.dir(), Some(&args.what))?;
    let layout = layouts.first().ok_or_else(|| Failure::usage(format!("no program {:?}", args.what)))?;
    let budget = found::look(layout, &Client::new(layout.socket())).snapshot.memory.budget_bytes;
    let analysis = trend::of_history(&layout.history(), budget, wall());
    if analysis.judged.iter().all(|judged| judged.verdicts.is_empty()) {
        return Err(Failure::new(format!("{}: no history yet", layout.name()))
            .hint("a supervised program is looked at every minute; ask again in a few"));
    }
    Ok((analysis, layout.home(), layout.name().to_owned()))
}

/// Writes beside its place and renames: there is never half a report.
fn save(home: &Path, unix_ms: u128, text: &str) -> Result<PathBuf, Failure> {
    let dir = home.join("reports");
    let path = dir.join(format!("trend-report-{unix_ms}.md"));
    let part = path.with_extension("md.part");
    let failed = |error: std::io::Error| Failure::new(format!("cannot write {}: {error}", path.display()));
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(&dir).map_err(failed)?;
    let mut file =
        std::fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&part).map_err(failed)?;
    file.write_all(text.as_bytes()).and_then(|()| file.sync_all()).map_err(failed)?;
    std::fs::rename(&part, &path).map_err(failed)?;
    Ok(path)
}
