//! The command line. Each command's own arguments stand in its file under `commands/`.

use std::path::PathBuf;

use clap::{Parser, Subcommand};

use crate::commands;

/// Keeps long-running programs from dying of memory.
#[derive(Debug, Parser)]
#[command(name = "plimsoll", version, max_term_width = 100, disable_help_subcommand = true)]
pub(crate) struct Args {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Run a program under a memory budget, keep its logs, stop it cleanly before the kernel kills it
    Run(Box<commands::run::Args>),
    /// Show how a supervised program is doing
    Status(commands::status::Args),
    /// Watch supervised programs live
    Top(commands::top::Args),
    /// Read the logs of a supervised program, while it runs or after it died
    Logs(commands::logs::Args),
    /// Change the memory budget of a running program
    Set(commands::set::Args),
    /// Write a report: does it leak, what, how fast, until when
    Report(commands::report::Args),
    /// Stop a supervised program and its supervisor, in order
    Stop(commands::stop::Args),
    /// Show what a recorded run would have been under another policy
    Replay(commands::replay::Args),
    /// Say what a heap snapshot holds, and what changed between two
    Heap(commands::heap::Args),
    /// Show which memory limits hold here, and which file says so
    Doctor(commands::doctor::Args),
    /// Watch the whole story in 30 seconds: a built-in service that leaks under a budget
    Demo(commands::demo::Args),
    /// Print the name of every metric, one a line, for checks of docs/metrics.md
    #[command(hide = true)]
    MetricsNames,
    /// The service that `demo` runs
    #[command(hide = true)]
    DemoService(commands::demo::service::Args),
}

/// Which state directory and, for most commands, which name.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Place {
    /// State directory [default: $XDG_STATE_HOME/plimsoll, else ~/.local/state/plimsoll]
    #[arg(long, value_name = "DIR")]
    pub(crate) dir: Option<PathBuf>,
}

impl Place {
    /// The state directory in force.
    pub(crate) fn dir(&self) -> PathBuf {
        self.dir.clone().unwrap_or_else(crate::layout::Layout::default_dir)
    }
}
