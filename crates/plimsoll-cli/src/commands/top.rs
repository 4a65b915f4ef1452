//! `plimsoll top`: supervised programs live in the terminal, drawn once a second from what their supervisors answer.
//!
//! Holds one snapshot, 120 samples and [`DECISIONS`] decisions per program. A supervisor has 1 s to answer, and 100 ms
//! while it is known to be silent, so that one that hangs does not stop the picture. `q`, Esc, ^C and signals end it; the
//! terminal is given back in every case (`screen.rs`).

mod frame;
mod screen;

use std::io::IsTerminal as _;
use std::process::ExitCode;
use std::time::Duration;

use jiff::tz::TimeZone;
use plimsoll::clock::{Clock, MonotonicClock, wall};
use plimsoll::units;

use super::status::layouts;
use crate::args::Place;
use crate::exit::Failure;
use crate::layout::Layout;
use crate::say;
use crate::snapshot::RunState;
use crate::snapshot::found;
use crate::view::text;
use crate::web::client::Client;
use frame::{Model, Program};
use screen::{Event, Screen};

/// Decisions fetched of the selected program.
const DECISIONS: usize = 50;
/// What `--every` may be.
const EVERY_MIN: Duration = Duration::from_millis(100);
const EVERY_MAX: Duration = Duration::from_secs(60);
/// What a supervisor that did not answer last time has for its next answer.
const PATIENCE_WITH_SILENCE: Duration = Duration::from_millis(100);
/// The size of a single frame that goes to no terminal.
const PLAIN: (usize, usize) = (100, 60);

/// Arguments of `plimsoll top`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Keys: q quit; up and down, or j and k, select. NO_COLOR is respected.")]
pub(crate) struct Args {
    /// Only this program [default: all of the state directory]
    #[arg(value_name = "NAME")]
    name: Option<String>,

    /// Draw one frame and end; also into a pipe
    #[arg(long)]
    once: bool,

    /// Time between two looks, 100ms to 60s
    #[arg(long, value_name = "DUR", value_parser = every, default_value = "1s")]
    every: Duration,

    #[command(flatten)]
    place: Place,
}

fn every(text: &str) -> Result<Duration, String> {
    let every = units::parse_duration(text).map_err(|error| error.to_string())?;
    if (EVERY_MIN..=EVERY_MAX).contains(&every) { Ok(every) } else { Err("expected 100ms to 60s".to_owned()) }
}

/// The programs that are watched.
struct Watched {
    dir: std::path::PathBuf,
    name: Option<String>,
    zone: TimeZone,
    programs: Vec<Program>,
    /// The selected one, by name: the list changes.
    selected: Option<String>,
}

impl Watched {
    fn index(&self) -> usize {
        let is_selected = |program: &Program| Some(&program.snapshot.name) == self.selected.as_ref();
        self.programs.iter().position(is_selected).unwrap_or(0)
    }

    fn select(&mut self, index: usize) {
        self.selected = self.programs.get(index).map(|program| program.snapshot.name.clone());
    }

    /// Asks every supervisor; of the selected program also the decisions.
    fn refresh(&mut self) -> Result<(), Failure> {
        let layouts = layouts(&self.dir, self.name.as_deref())?;
        let before = std::mem::take(&mut self.programs);
        let mut before: std::collections::BTreeMap<_, _> =
            before.into_iter().map(|program| (program.snapshot.name.clone(), program)).collect();
        for layout in &layouts {
            let mut program = before.remove(layout.name()).unwrap_or_default();
            let selected = self.selected.as_deref().is_none_or(|name| name == layout.name());
            look(&mut program, layout, selected);
            self.programs.push(program);
        }
        if self.selected.is_none() {
            let first = |wanted: fn(RunState) -> bool| self.programs.iter().position(|p| wanted(p.snapshot.state));
            let running = || first(|state| !matches!(state, RunState::Exited | RunState::Stale));
            self.select(running().or_else(|| first(|state| state == RunState::Stale)).unwrap_or(0));
        }
        Ok(())
    }

    fn model<'a>(&'a self, place: &'a str, live: bool) -> Model<'a> {
        Model {
            programs: &self.programs,
            selected: self.index(),
            place,
            now_unix: wall().as_secs_f64(),
            zone: &self.zone,
            live,
        }
    }
}

fn look(program: &mut Program, layout: &Layout, decisions: bool) {
    let client = Client::new(layout.socket());
    let silent = program.snapshot.state == RunState::Stale;
    let client = if silent { client.deadline(PATIENCE_WITH_SILENCE) } else { client };
    let found = found::look(layout, &client);
    let decisions = decisions.then(|| found::decisions(layout, &client, found.answered, DECISIONS));
    program.update(found.snapshot, decisions);
}

/// Shows the programs until it is ended.
pub(crate) fn run(args: Args) -> Result<ExitCode, Failure> {
    let mut watched = Watched {
        dir: args.place.dir(),
        selected: args.name.clone(),
        name: args.name,
        zone: TimeZone::system(),
        programs: Vec::new(),
    };
    let place = watched.dir.display().to_string();
    watched.refresh()?;
    if args.once {
        return once(&watched, &place);
    }
    if !std::io::stdout().is_terminal() || !std::io::stdin().is_terminal() {
        return Err(Failure::usage("top needs a terminal").hint("a single frame goes anywhere: plimsoll top --once"));
    }
    let failed = |error: std::io::Error| Failure::new(format!("the terminal cannot be used: {error}"));
    let colour = text::colour_for_stdout();
    let mut screen = Screen::open().map_err(failed)?;
    let mut due = MonotonicClock.now() + args.every;
    loop {
        let (columns, rows) = Screen::size();
        screen.show(&frame::draw(&watched.model(&place, true), columns, rows), colour).map_err(failed)?;
        match screen.wait(due.saturating_sub(MonotonicClock.now())).map_err(failed)? {
            Event::Quit => return Ok(ExitCode::SUCCESS),
            Event::Signal(signal) => return Ok(ExitCode::from(128 + u8::try_from(signal).unwrap_or(0))),
            Event::Resize => {}
            Event::Refresh => {
                watched.refresh()?;
                due = MonotonicClock.now() + args.every;
            }
            key @ (Event::Up | Event::Down) => {
                let index = watched.index();
                let last = watched.programs.len().saturating_sub(1);
                watched.select(if key == Event::Up { index.saturating_sub(1) } else { (index + 1).min(last) });
                watched.refresh()?;
            }
        }
    }
}

fn once(watched: &Watched, place: &str) -> Result<ExitCode, Failure> {
    let (columns, rows) = if std::io::stdout().is_terminal() { Screen::size() } else { PLAIN };
    let lines = frame::draw(&watched.model(place, false), columns, rows);
    say::lines(&lines)?;
    Ok(ExitCode::SUCCESS)
}
