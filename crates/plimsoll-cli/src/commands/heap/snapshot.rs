//! `plimsoll heap snapshot NAME`: asks the supervisor of a program for a heap capture, and waits for what becomes of it.
//!
//! A full one where the program's runtime has one and it is safe, else the best that can be had; which, it says. Exit code 0: there
//! is one; 1: there is none, with every reason; 64: no such name. Waits at most `--wait`; the capture goes on without it.

use std::process::ExitCode;
use std::time::Duration;

use plimsoll::clock::{Clock as _, MonotonicClock};
use plimsoll::units;

use crate::args::Place;
use crate::commands::status::layouts;
use crate::exit::Failure;
use crate::say;
use crate::snapshot::CaptureView;
use crate::web::client::{Client, ClientError};

/// Between two looks at what became of it.
const LOOK: Duration = Duration::from_millis(200);

/// Arguments of `plimsoll heap snapshot`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Which program [default: the only one there is]
    #[arg(value_name = "NAME")]
    name: Option<String>,

    #[command(flatten)]
    place: Place,

    /// How long to wait for it
    #[arg(long, value_name = "DUR", value_parser = wait, default_value = "15m")]
    wait: Duration,

    /// One JSON object
    #[arg(long)]
    json: bool,
}

fn wait(text: &str) -> Result<Duration, String> {
    units::parse_duration(text).map_err(|error| error.to_string())
}

pub(crate) fn run(args: &Args) -> Result<ExitCode, Failure> {
    let layouts = layouts(&args.place.dir(), args.name.as_deref())?;
    let [layout] = layouts.as_slice() else {
        let names: Vec<&str> = layouts.iter().map(crate::layout::Layout::name).collect();
        return Err(Failure::usage(format!("which one? {}", names.join(" "))));
    };
    let name = layout.name();
    let client = Client::new(layout.socket());
    let failed = |error: ClientError| match error {
        ClientError::Gone(_) => Failure::new(format!("{name}: no supervisor runs")).hint("see: plimsoll status"),
        error => Failure::new(format!("{name}: {error}")),
    };
    let ticket = client.capture().map_err(failed)?;
    let until = MonotonicClock.now() + args.wait;
    loop {
        let heap = client.status().map_err(failed)?.heap.unwrap_or_default();
        if heap.served_total >= ticket {
            return told(args, name, &heap.answer.unwrap_or_default(), &layout.heap());
        }
        if MonotonicClock.now() > until {
            return Err(Failure::new(format!("{name}: not done within {}; it goes on", units::duration(args.wait)))
                .hint(format!("see: plimsoll status {name}")));
        }
        std::thread::sleep(LOOK);
    }
}

fn told(args: &Args, name: &str, answer: &CaptureView, dir: &std::path::Path) -> Result<ExitCode, Failure> {
    if args.json {
        super::print_json(answer)?;
        return Ok(if answer.failed.is_none() { ExitCode::SUCCESS } else { ExitCode::from(crate::exit::FAILURE) });
    }
    if let Some(why) = &answer.failed {
        return Err(Failure::new(format!("{name}: no heap capture: {}", why.replace("; ", "\n  "))));
    }
    let mut text = format!(
        "{name}: {} of pid {}, {}, in {:.1} s\n",
        answer.method,
        answer.pid,
        units::size(answer.bytes),
        answer.seconds,
    );
    answer.notes.iter().for_each(|note| text.push_str(&format!("  {note}\n")));
    // Its id is enough of a path for every command that reads it.
    text.push_str(&format!("see: plimsoll heap top {}\n", dir.join(&answer.id).display()));
    say::print(text.as_bytes())?;
    Ok(ExitCode::SUCCESS)
}
