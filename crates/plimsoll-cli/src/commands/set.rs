//! `plimsoll set`: changes budget and reserve of a running program, over its supervisor's socket. Nothing is restarted.
//!
//! The kernel's limit of the program's group follows (budget + reserve), and the state file, so that a next supervisor
//! knows; runtime limits that were derived at the start (`GOMEMLIMIT`, …) stay what they are until the next restart.
//! A budget below what the program holds would stop it at once: that needs `--force`.

use std::process::ExitCode;

use plimsoll::units;

use crate::args::Place;
use crate::exit::Failure;
use crate::layout::Layout;
use crate::say;
use crate::snapshot::Snapshot;
use crate::web::client::{Client, ClientError};

/// Arguments of `plimsoll set`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example: plimsoll set web --memory 500M")]
pub(crate) struct Args {
    #[command(flatten)]
    place: Place,

    /// Which program [default: the only one there is]
    #[arg(value_name = "NAME")]
    name: Option<String>,

    /// The new budget (300M, 1.5G) [default: as it is]
    #[arg(long, value_name = "SIZE", value_parser = super::run::size, required_unless_present = "reserve")]
    memory: Option<u64>,

    /// The new reserve [default: by the rule in force]
    #[arg(long, value_name = "SIZE", value_parser = super::run::size)]
    reserve: Option<u64>,

    /// Set it even where the program holds more already and is stopped at once
    #[arg(long)]
    force: bool,
}

pub(crate) fn run(args: Args) -> Result<ExitCode, Failure> {
    let Args { place, name, memory, reserve, force } = args;
    let layout = layout(&place, name)?;
    let name = layout.name().to_owned();
    let client = Client::new(layout.socket());
    let failed = |error: ClientError| match error {
        ClientError::Gone(_) => Failure::new(format!("{name}: no supervisor runs")).hint("see: plimsoll status"),
        error => Failure::new(format!("{name}: {error}")),
    };
    let before = client.status().map_err(failed)?;
    let budget = match memory.or(before.memory.budget_bytes) {
        Some(budget) => budget,
        None => return Err(Failure::usage(format!("{name} has no budget yet: --memory is needed"))),
    };
    refuse_sudden_stop(&before, budget, force)?;
    let after = client.set_memory(budget, reserve).map_err(failed)?;
    say::print(format!("{}\n", told(&before, &after)).as_bytes())?;
    Ok(ExitCode::SUCCESS)
}

fn layout(place: &Place, name: Option<String>) -> Result<Layout, Failure> {
    let dir = place.dir();
    let name = match name {
        Some(name) => name,
        None => {
            let names =
                Layout::names(&dir).map_err(|error| Failure::new(format!("cannot read {}: {error}", dir.display())))?;
            match names.as_slice() {
                [only] => only.clone(),
                [] => return Err(Failure::new(format!("nothing was ever run in {}", dir.display()))),
                many => return Err(Failure::usage(format!("which one? {}", many.join(" ")))),
            }
        }
    };
    Layout::new(dir, &name).map_err(Failure::usage)
}

fn refuse_sudden_stop(before: &Snapshot, budget: u64, force: bool) -> Result<(), Failure> {
    match before.memory.charged_bytes {
        Some(charged) if charged >= budget && !force => Err(Failure::new(format!(
            "{} holds {}, which is not below a budget of {}: it would be stopped at once",
            before.name,
            units::size(charged),
            units::size(budget)
        ))
        .hint("--force sets it all the same")),
        _ => Ok(()),
    }
}

fn told(before: &Snapshot, after: &Snapshot) -> String {
    let size = |bytes: Option<u64>| bytes.map_or_else(|| "none".to_owned(), |bytes| units::size(bytes).to_string());
    let mut text = format!(
        "{}: budget {} (was {}), reserve {} (was {})",
        after.name,
        size(after.memory.budget_bytes),
        size(before.memory.budget_bytes),
        units::size(after.memory.reserve_bytes),
        units::size(before.memory.reserve_bytes),
    );
    if let Some(limit) = after.memory.kernel_limit_bytes {
        text.push_str(&format!("; the kernel's limit is {}", units::size(limit)));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::snapshot::MemoryView;

    fn holding(charged: Option<u64>) -> Snapshot {
        let memory = MemoryView {
            charged_bytes: charged,
            budget_bytes: Some(300 << 20),
            reserve_bytes: 64 << 20,
            kernel_limit_bytes: Some(364 << 20),
            ..MemoryView::default()
        };
        Snapshot { name: "web".into(), memory, ..Snapshot::default() }
    }

    #[test]
    fn a_budget_that_stops_the_program_at_once_needs_force() {
        let refused = refuse_sudden_stop(&holding(Some(200 << 20)), 200 << 20, false).unwrap_err().to_string();
        assert!(refused.contains("200.0 MiB") && refused.contains("--force"), "{refused}");
        assert!(refuse_sudden_stop(&holding(Some(200 << 20)), 200 << 20, true).is_ok());
        assert!(refuse_sudden_stop(&holding(Some(199 << 20)), 200 << 20, false).is_ok());
        assert!(refuse_sudden_stop(&holding(None), 1, false).is_ok(), "what is not known is not guessed");
    }

    #[test]
    fn what_changed_is_told_with_what_was() {
        let mut after = holding(None);
        after.memory.budget_bytes = Some(500 << 20);
        let told = told(&holding(None), &after);
        assert_eq!(
            told,
            "web: budget 500.0 MiB (was 300.0 MiB), reserve 64.0 MiB (was 64.0 MiB); the kernel's limit is 364.0 MiB"
        );
    }
}
