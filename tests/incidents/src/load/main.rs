//! `plimsoll-load`: the loads that incident tests and benches put on a machine. One file per family.
//!
//! Every load is bounded in time and memory by itself, leaves nothing behind, and writes what happened to `--evidence FILE`
//! (see `plimsoll_incidents::evidence`). Exit codes are the load's own; 64 for a command line that is not understood, 70 when
//! the load could not do what it was asked to.

mod cache;
mod descriptors;
mod evidence;
mod life;
mod log;
mod parse;
mod ramp;
mod serve;
mod sys;
mod tree;

use clap::{Parser, Subcommand};
use evidence::Evidence;
use std::io;
use std::path::PathBuf;
use std::process::ExitCode;

/// Loads that prove, or break, a supervisor.
#[derive(Debug, Parser)]
#[command(name = "plimsoll-load", max_term_width = 100)]
struct Args {
    /// Append what happened to this file, one JSON object a line
    #[arg(long, global = true, value_name = "FILE")]
    evidence: Option<PathBuf>,
    #[command(subcommand)]
    load: Load,
}

#[derive(Debug, Subcommand)]
enum Load {
    /// Allocate and touch memory at a rate
    Ramp(ramp::Ramp),
    /// A process tree that leaks somewhere else than in its first process
    Tree(tree::Tree),
    /// Copy-on-write workers that share their parent's memory
    Cow(tree::Cow),
    /// Hot page cache first, then a ramp
    PageCache(cache::PageCache),
    /// Leak descriptors of one kind
    Fds(descriptors::Fds),
    /// Short-lived descendants
    Forkstorm(descriptors::ForkStorm),
    /// Sleep
    Sleep(life::Sleep),
    /// Exit with a code or by a signal
    Exit(life::Exit),
    /// Ignore SIGTERM
    IgnoreTerm(life::IgnoreTerm),
    /// Become a daemon the old way
    DoubleFork(life::DoubleFork),
    /// Print lines
    Lines(log::Lines),
    /// Print a file at a pace
    Replay(log::Replay),
    /// Print bytes that are no text
    Garbage(log::Garbage),
    /// Print one very long line
    LongLine(log::LongLine),
    /// Serve HTTP on loopback
    Serve(serve::Serve),
    /// Print the committed word list as its generator makes it
    Words,
}

fn main() -> ExitCode {
    let args = match Args::try_parse() {
        Ok(args) => args,
        Err(error) => {
            // Nothing more can be said when stderr is closed.
            error.print().ok();
            return ExitCode::from(if error.use_stderr() { 64 } else { 0 });
        }
    };
    match run(&args) {
        Ok(code) => ExitCode::from(u8::try_from(code).unwrap_or(u8::MAX)),
        Err(error) => {
            eprintln!("plimsoll-load: {error}");
            ExitCode::from(70)
        }
    }
}

fn run(args: &Args) -> io::Result<i32> {
    let evidence = Evidence::open(args.evidence.as_deref())?;
    match &args.load {
        Load::Ramp(plan) => ramp::run(plan, "main", &evidence),
        Load::Tree(plan) => tree::run(plan, &evidence),
        Load::Cow(plan) => tree::cow(plan, &evidence),
        Load::PageCache(plan) => cache::run(plan, &evidence),
        Load::Fds(plan) => descriptors::fds(plan, &evidence),
        Load::Forkstorm(plan) => descriptors::forkstorm(plan, &evidence),
        Load::Sleep(plan) => life::sleep(plan, &evidence),
        Load::Exit(plan) => life::exit(plan, &evidence),
        Load::IgnoreTerm(plan) => life::ignore_term(plan, &evidence),
        Load::DoubleFork(plan) => life::double_fork(plan, &evidence),
        Load::Lines(plan) => log::lines(plan, &evidence),
        Load::Replay(plan) => log::replay(plan, &evidence),
        Load::Garbage(plan) => log::garbage(plan, &evidence),
        Load::LongLine(plan) => log::long_line(plan, &evidence),
        Load::Serve(plan) => serve::run(plan, &evidence),
        Load::Words => {
            let mut list = plimsoll_incidents::words::generate().join("\n");
            list.push('\n');
            io::Write::write_all(&mut io::stdout(), list.as_bytes())?;
            Ok(0)
        }
    }
}
