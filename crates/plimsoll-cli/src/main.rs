//! The command `plimsoll`: runs any program under a memory budget, keeps its logs, shows what it does.

use std::process::ExitCode;

use clap::Parser;

mod args;
mod capture;
mod commands;
mod exit;
mod history;
mod layout;
mod output;
mod say;
mod snapshot;
mod supervise;
mod symbols;
mod tail;
mod trend;
mod view;
mod web;

use args::{Args, Command};

fn main() -> ExitCode {
    let args = match Args::try_parse() {
        Ok(args) => args,
        Err(error) => {
            // clap prints help and version to stdout with success; everything else is a usage error.
            let code = if error.use_stderr() { exit::USAGE } else { 0 };
            return if error.print().is_ok() { ExitCode::from(code) } else { ExitCode::from(exit::FAILURE) };
        }
    };
    let result = match args.command {
        Command::Run(args) => commands::run::run(*args),
        Command::Status(args) => commands::status::run(&args),
        Command::Top(args) => commands::top::run(args),
        Command::Logs(args) => commands::logs::run(args),
        Command::Set(args) => commands::set::run(args),
        Command::Heap(args) => commands::heap::run(args),
        Command::Doctor(args) => commands::doctor::run(args),
        Command::Replay(args) => commands::replay::run(&args),
        Command::Report(args) => commands::report::run(&args),
        Command::Stop(args) => commands::stop::run(&args),
        Command::MetricsNames => commands::metrics_names::run(),
        Command::Demo(args) => commands::demo::run(&args),
        Command::DemoService(args) => commands::demo::service::run(&args),
    };
    result.unwrap_or_else(|failure| {
        say::note(&failure);
        failure.exit_code()
    })
}
