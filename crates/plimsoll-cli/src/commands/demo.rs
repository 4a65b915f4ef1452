//! `plimsoll demo`: a built-in service that leaks, under a budget, through the same path as `plimsoll run`.
//!
//! This process is the supervisor; one more thread (`tell.rs`) looks at it through its own socket and log, as `status` and
//! `logs` would, and tells what happens (`story.rs`). Defaults: 200 MiB at 20 MiB/s, so the budget is reached after 10 s.
//! The service never keeps more than twice budget and reserve. Ends with 0 at Ctrl-C, SIGTERM or the end of `--for`.

pub(crate) mod service;
mod story;
mod tell;

use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use plimsoll::units;
use plimsoll_store::RateLimit;

use super::run::{HTTP_DEFAULT, address, size};
use crate::args::Place;
use crate::commands::keep::Keep;
use crate::exit::Failure;
use crate::layout::Layout;
use crate::say;
use crate::snapshot::found;
use crate::supervise::logs::LOG_DISK_BYTES;
use crate::supervise::options::Options;
use crate::supervise::restart::{LOOP_ENDS, LOOP_WINDOW, Policy};
use crate::web::client::Client;

/// Time between SIGTERM and SIGKILL: the service needs a third of a second.
const GRACE: Duration = Duration::from_secs(5);
/// The least first wait before a restart.
const BACKOFF_MIN: Duration = Duration::from_secs(2);
/// The least `--rate` and `--memory`: below, nothing happens that could be seen.
const LEAST_BYTES: u64 = 64 << 10;

/// Arguments of `plimsoll demo`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example: plimsoll demo --memory 100M --rate 50M --for 30s")]
pub(crate) struct Args {
    #[command(flatten)]
    place: Place,

    /// The service's budget
    #[arg(long, value_name = "SIZE", value_parser = size, default_value = "200M")]
    memory: u64,

    /// How much the service leaks in a second
    #[arg(long, value_name = "SIZE", value_parser = size, default_value = "20M")]
    rate: u64,

    /// End after this time, with a summary [default: at Ctrl-C]
    #[arg(long = "for", value_name = "DUR", value_parser = duration)]
    length: Option<Duration>,

    /// Where the page, status and /metrics are served, on loopback only
    #[arg(long, value_name = "ADDR", default_value = HTTP_DEFAULT, value_parser = address)]
    http: SocketAddr,

    /// Port of the service itself on 127.0.0.1; taken or 0: a free one
    #[arg(long, value_name = "PORT", default_value_t = 7118)]
    port: u16,

    /// Name under which status, logs and set find it
    #[arg(long, value_name = "NAME", default_value = "demo")]
    name: String,

    /// Make no cgroup for the service: its process tree is summed instead
    #[arg(long)]
    no_cgroup: bool,
}

fn duration(text: &str) -> Result<Duration, String> {
    let length = units::parse_duration(text).map_err(|error| error.to_string())?;
    if length.is_zero() { Err("longer than nothing, please".to_owned()) } else { Ok(length) }
}

impl Args {
    /// The service as a command. The same arguments give the same command, so that the next demo can take it over.
    fn argv(&self) -> Result<Vec<OsString>, Failure> {
        let own = std::env::current_exe()
            .map_err(|error| Failure::internal(format!("the path of this program is unknown: {error}")))?;
        let most = self.memory.saturating_add(64 << 20).saturating_mul(2);
        let words =
            ["demo-service", "--rate-bytes", &self.rate.to_string(), "--most-bytes", &most.to_string(), "--port"];
        let mut argv = vec![own.into_os_string()];
        argv.extend(words.map(OsString::from));
        argv.push(self.port.to_string().into());
        Ok(argv)
    }

    /// The first back-off: long enough to be seen, and that a leak which fills the budget in no time is no crash loop.
    #[allow(clippy::cast_precision_loss, reason = "seconds")]
    fn backoff(&self) -> Duration {
        let ends = LOOP_ENDS as f64;
        let life = self.memory as f64 / self.rate.max(1) as f64;
        // The waits between five ends are 1 + 2 + 4 + 8 first ones, each a fifth shorter at the least.
        let waits = (LOOP_WINDOW.as_secs_f64() * 1.02 - (ends - 1.0) * life).max(0.0) / 15.0 / 0.8;
        Duration::from_secs_f64(waits).max(BACKOFF_MIN)
    }
}

/// How the reader calls this program.
#[derive(Clone, Debug)]
pub(super) struct Spoken {
    program: String,
    dir: String,
}

impl Spoken {
    /// `plimsoll` where a shell would find this very file under that name, else its path.
    fn here(dir: Option<&Path>) -> Spoken {
        let own = std::env::current_exe().unwrap_or_else(|_| "plimsoll".into());
        let paths = std::env::var_os("PATH").unwrap_or_default();
        let found = std::env::split_paths(&paths).map(|path| path.join("plimsoll")).find(|file| file.is_file());
        let program = if found.and_then(|file| file.canonicalize().ok()).is_some_and(|file| file == own) {
            "plimsoll".to_owned()
        } else {
            let near = std::env::current_dir().ok().and_then(|here| Some(own.strip_prefix(here).ok()?.to_owned()));
            near.unwrap_or(own).display().to_string()
        };
        let dir = dir.map(|dir| format!(" --dir {}", dir.display())).unwrap_or_default();
        Spoken { program, dir }
    }

    /// A command line to try.
    fn line(&self, words: &str) -> String {
        format!("{} {words}{}", self.program, self.dir)
    }
}

/// Runs the demo to its end.
///
/// # Errors
/// A budget or a rate too small to see anything, and whatever keeps `plimsoll run` from starting: a demo that runs already.
pub(crate) fn run(args: &Args) -> Result<ExitCode, Failure> {
    for (flag, value) in [("--memory", args.memory), ("--rate", args.rate)] {
        if value < LEAST_BYTES {
            let least = units::size(LEAST_BYTES);
            return Err(Failure::usage(format!("{flag} {}: at least {least}", units::size(value))));
        }
    }
    let layout = Layout::new(args.place.dir(), &args.name).map_err(Failure::usage)?;
    let spoken = Spoken::here(args.place.dir.as_deref());
    let plan = story::Plan {
        rate_bytes: args.rate,
        backoff: args.backoff(),
        length: args.length,
        http: args.http,
        spoken: spoken.clone(),
    };
    let options = Options {
        layout: layout.clone(),
        argv: args.argv()?,
        memory_bytes: Some(args.memory),
        reserve_bytes: None,
        grace: GRACE,
        restart: Policy::default(),
        max_restarts: None,
        backoff: plan.backoff,
        stages: Vec::new(),
        http: Some(args.http),
        pty: false,
        quiet: true,
        silent: true,
        cgroup: !args.no_cgroup,
        derive: false,
        swap: false,
        keep: Keep::default(),
        heap: crate::capture::Settings::default(),
        http_token: None,
        log_disk_bytes: LOG_DISK_BYTES,
        log_rate: RateLimit::default(),
    };
    let teller = tell::start(layout.clone(), plan)
        .map_err(|error| Failure::internal(format!("cannot start the thread that tells the story: {error}")))?;
    let ended = crate::supervise::run(options);
    let told = teller.end(ended.is_ok());
    let code = ended?;
    let last = found::look(&layout, &Client::new(layout.socket())).snapshot;
    // Told to end it ends well, however its last life did; a service that did not work is a failure of the demo.
    let well = last.last_exit.as_ref().is_none_or(|exit| {
        exit.reason == "memory" || exit.code == Some(0) || matches!(exit.signal, Some(libc::SIGTERM | libc::SIGINT))
    });
    match (told, well) {
        (Err(error), _) => Err(Failure::new(format!("the story could not be told: {error}"))),
        (Ok(()), true) => Ok(ExitCode::SUCCESS),
        (Ok(()), false) => {
            say::note(format_args!("the demo's service failed; see: {}", spoken.line(&format!("logs {}", args.name))));
            Ok(code)
        }
    }
}
