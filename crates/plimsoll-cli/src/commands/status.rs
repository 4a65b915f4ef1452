//! `plimsoll status`: one program in detail, or all of a state directory as a table; for programs with `--json`.
//!
//! Asks each supervisor over its own socket and waits at most 1 s for it; what no living supervisor confirms reads
//! `stale, N s`. Exit code 0: all is well; 1: a finding (see [`finding`]); 64: no such name.

use std::process::ExitCode;

use jiff::tz::TimeZone;

use crate::args::Place;
use crate::exit::{self, Failure};
use crate::layout::Layout;
use crate::say;
use crate::snapshot::found::{self, Found};
use crate::snapshot::{RunState, Snapshot};
use crate::view::panel::{self, Frame};
use crate::view::table;
use crate::view::text::{self, Line, Tone};
use crate::web::client::Client;

/// Decisions shown of one program.
const DECISIONS: usize = 5;
/// Columns of the bar where the output is no terminal.
const PLAIN_COLUMNS: usize = 100;
/// Supervisors asked at the same time, so that one that hangs delays 15 others by 1 s, not all.
const ASKED_AT_ONCE: usize = 16;

/// Arguments of `plimsoll status`.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Exit code: 0 all is well; 1 a finding: stale, critical, blind, a crash loop, a log store that \
                        loses lines, or a last exit that was no success; 64 no such name."
)]
pub(crate) struct Args {
    /// The program [default: all of the state directory]
    #[arg(value_name = "NAME")]
    name: Option<String>,

    /// Print JSON: one snapshot for a NAME, else an array (docs/api.md)
    #[arg(long)]
    json: bool,

    #[command(flatten)]
    place: Place,
}

/// What asks for a person's attention, in a few words; the first that holds.
pub(crate) fn finding(snapshot: &Snapshot) -> Option<&'static str> {
    let failed = |s: &Snapshot| s.last_exit.as_ref().is_none_or(|exit| !exit.is_success());
    match snapshot.state {
        RunState::Stale => Some("stale"),
        RunState::Exited if failed(snapshot) => Some("exited"),
        RunState::Exited => None,
        _ if snapshot.governor.blind => Some("blind"),
        _ if snapshot.restarts.crash_loop => Some("crash loop"),
        _ if snapshot.governor.level == "critical" => Some("critical"),
        _ if snapshot.logs.degraded.is_some() => Some("log store degraded"),
        _ => None,
    }
}

/// Shows what is asked for.
pub(crate) fn run(args: &Args) -> Result<ExitCode, Failure> {
    let dir = args.place.dir();
    let layouts = layouts(&dir, args.name.as_deref())?;
    let found = look_at_all(&layouts);
    let colour = text::colour_for_stdout();
    let text = if args.json {
        json(&found, args.name.is_some())?
    } else if args.name.is_some() {
        detail(&layouts, &found, colour)
    } else if found.is_empty() {
        format!("nothing is supervised in {}\n", dir.display())
    } else {
        text::write_lines(&table::programs(found.iter().map(|f| &f.snapshot), None, columns() >= PLAIN_COLUMNS), colour)
    };
    say::print(text.as_bytes())?;
    let findings = found.iter().any(|f| finding(&f.snapshot).is_some());
    Ok(if findings { ExitCode::from(exit::FAILURE) } else { ExitCode::SUCCESS })
}

/// The layouts of one name, or of all names below `dir`; a directory that is not there holds none.
///
/// # Errors
/// A usage error for a name that is not there, with those that are.
pub(crate) fn layouts(dir: &std::path::Path, name: Option<&str>) -> Result<Vec<Layout>, Failure> {
    let names = match Layout::names(dir) {
        Ok(names) => names,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Vec::new(),
        Err(error) => return Err(Failure::new(format!("cannot read {}: {error}", dir.display()))),
    };
    let Some(name) = name else {
        return names.iter().map(|name| Layout::new(dir, name).map_err(Failure::internal)).collect();
    };
    let layout = Layout::new(dir, name).map_err(Failure::usage)?;
    if names.iter().any(|known| known == name) {
        return Ok(vec![layout]);
    }
    let known = match names.as_slice() {
        [] => "no program has been run there".to_owned(),
        names => format!("known: {}", names.join(", ")),
    };
    Err(Failure::usage(format!("no program {name:?} in {}", dir.display())).hint(known))
}

fn look_at_all(layouts: &[Layout]) -> Vec<Found> {
    let look = |layout: &Layout| found::look(layout, &Client::new(layout.socket()));
    let mut all = Vec::with_capacity(layouts.len());
    for some in layouts.chunks(ASKED_AT_ONCE) {
        std::thread::scope(|scope| {
            let asked: Vec<_> = some.iter().map(|layout| scope.spawn(move || look(layout))).collect();
            all.extend(asked.into_iter().filter_map(|one| one.join().ok()));
        });
    }
    all
}

fn json(found: &[Found], one: bool) -> Result<String, Failure> {
    let snapshots: Vec<_> = found.iter().map(|f| &f.snapshot).collect();
    let text = match snapshots.as_slice() {
        [only] if one => serde_json::to_string_pretty(only),
        all => serde_json::to_string_pretty(all),
    };
    text.map(|text| text + "\n").map_err(|error| Failure::internal(error.to_string()))
}

fn columns() -> usize {
    text::columns_of_stdout().unwrap_or(PLAIN_COLUMNS)
}

fn detail(layouts: &[Layout], found: &[Found], colour: bool) -> String {
    let zone = TimeZone::system();
    let frame = Frame { width: columns(), zone: &zone };
    let mut lines = Vec::new();
    for (layout, Found { snapshot, answered }) in layouts.iter().zip(found) {
        lines.push(panel::headline(snapshot, &frame));
        lines.push(Line::new());
        let budget = panel::budget(snapshot, &frame);
        if !budget.is_empty() {
            lines.extend(budget);
            lines.push(Line::new());
        }
        let mut facts = panel::facts(snapshot);
        facts.extend(panel::last_words(snapshot));
        facts.extend(if *answered { panel::details(snapshot) } else { panel::warnings(snapshot) });
        lines.extend(panel::wrapped(facts, &frame));
        let client = Client::new(layout.socket());
        let decisions = found::decisions(layout, &client, *answered, DECISIONS);
        if !decisions.is_empty() {
            lines.push(Line::new());
            lines.push(Line::new().plain("  ").add(Tone::Dim, "last decisions"));
            lines.extend(panel::decisions(&decisions, snapshot.at_unix, usize::MAX, usize::MAX, &frame));
        }
    }
    text::write_lines(&lines, colour)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::snapshot::sample;

    #[test]
    fn what_is_a_finding() {
        type Change = fn(&mut Snapshot);
        let table: [(Change, Option<&str>); 9] = [
            (|_| {}, None),
            (|s| s.state = RunState::Stale, Some("stale")),
            (|s| s.state = RunState::Exited, Some("exited")),
            (
                |s| {
                    s.state = RunState::Exited;
                    s.last_exit.as_mut().unwrap().reason = "exit".into();
                },
                None,
            ),
            (|s| s.governor.blind = true, Some("blind")),
            (|s| s.restarts.crash_loop = true, Some("crash loop")),
            (|s| s.governor.level = "critical".into(), Some("critical")),
            (|s| s.governor.level = "elevated".into(), None),
            (|s| s.logs.degraded = Some("disk full".into()), Some("log store degraded")),
        ];
        for (change, expected) in table {
            let mut snapshot = sample::leaking();
            change(&mut snapshot);
            assert_eq!(finding(&snapshot), expected);
        }
    }

    #[test]
    fn a_name_that_is_not_there_is_refused_with_those_that_are() {
        let dir = tempfile::tempdir().unwrap();
        assert!(layouts(&dir.path().join("none"), None).unwrap().is_empty());
        for name in ["web", "api"] {
            std::fs::create_dir(dir.path().join(name)).unwrap();
        }
        assert_eq!(layouts(dir.path(), None).unwrap().len(), 2);
        assert_eq!(layouts(dir.path(), Some("web")).unwrap().len(), 1);
        let error = layouts(dir.path(), Some("wep")).unwrap_err().to_string();
        assert!(error.contains("\"wep\"") && error.contains("known: api, web"), "{error}");
        assert!(layouts(dir.path(), Some("../etc")).is_err());
    }

    #[test]
    fn many_are_asked_and_keep_their_order() {
        let dir = tempfile::tempdir().unwrap();
        for i in 0..40 {
            std::fs::create_dir(dir.path().join(format!("web-{i:02}"))).unwrap();
        }
        let found = look_at_all(&layouts(dir.path(), None).unwrap());
        let names: Vec<_> = found.iter().map(|f| f.snapshot.name.clone()).collect();
        assert_eq!(names.len(), 40);
        assert!(names.is_sorted());
        assert!(json(&found, false).unwrap().starts_with('['));
        assert!(json(&found[..1], true).unwrap().starts_with('{'));
    }
}
