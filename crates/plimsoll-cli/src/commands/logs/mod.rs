//! `plimsoll logs`.

mod json;
mod safe;
mod when;

use std::process::ExitCode;

use crate::args::Place;
use crate::exit::Failure;

/// Arguments of `plimsoll logs`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    place: Place,
}

pub(crate) fn run(args: Args) -> Result<ExitCode, Failure> {
    Err(Failure::internal(format!("logs in {} is not built yet", args.place.dir().display())))
}
