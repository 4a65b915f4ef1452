//! `plimsoll run`: any program under a memory budget.

use std::ffi::OsString;
use std::net::SocketAddr;
use std::process::ExitCode;
use std::time::Duration;

use plimsoll::units;

use crate::args::Place;
use crate::capture;
use crate::capture::mode::Mode;
use crate::capture::shelf::{self, Keep};
use crate::commands::keep::KeepArgs;
use crate::commands::rate;
use crate::exit::Failure;
use crate::layout::Layout;
use crate::supervise::logs::LOG_DISK_MIN_BYTES;
use crate::supervise::options::{self, Options};
use crate::supervise::restart::{self, Policy};
use crate::supervise::stage::{MAX_STAGES, Stage};
use crate::web::token::Token;

/// Where `--http` without an address listens.
pub(crate) const HTTP_DEFAULT: &str = "127.0.0.1:7117";
/// What `--grace` and `--backoff` may be.
const LONGEST_WAIT: Duration = Duration::from_secs(24 * 3600);

/// Arguments of `plimsoll run`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example: plimsoll run --memory 300M --on high=signal:USR1 -- node server.js")]
pub(crate) struct Args {
    #[command(flatten)]
    place: Place,

    /// Budget: what the program may hold before it is asked to stop (300M, 1.5G) [default: what the limit found here leaves]
    #[arg(long, value_name = "SIZE", value_parser = size)]
    memory: Option<u64>,

    /// Room between the budget and the kernel's limit, for stopping in order [default: 64M, or an eighth of the budget]
    #[arg(long, value_name = "SIZE", value_parser = size)]
    reserve: Option<u64>,

    /// Time between SIGTERM and SIGKILL
    #[arg(long, value_name = "DUR", value_parser = wait, default_value = "10s")]
    grace: Duration,

    /// never, always, on-memory, on-failure, or both of the last two joined by a comma
    #[arg(long, value_name = "POLICY", default_value = "on-memory,on-failure")]
    restart: Policy,

    /// Restart at most so often, then end [default: no bound; five ends in a minute are always the last]
    #[arg(long, value_name = "N")]
    max_restarts: Option<u32>,

    /// First wait before a restart; doubled each time, at most 30 s
    #[arg(long, value_name = "DUR", value_parser = wait, default_value = "100ms")]
    backoff: Duration,

    /// Do something at a level: LEVEL[ for DUR]=ACTION. LEVEL: elevated (75 %), high (88 %), critical (100 % of the
    /// budget). ACTION: note, snapshot, signal:NAME, exec:CMD, stop
    #[arg(long = "on", value_name = "LEVEL=ACTION")]
    on: Vec<Stage>,

    /// Name under which status, logs and set find it [default: the command's file name]
    #[arg(long, value_name = "NAME")]
    name: Option<String>,

    /// Serve status, a page and /metrics over HTTP, on loopback only [default address: 127.0.0.1:7117]
    #[arg(long, value_name = "ADDR", num_args = 0..=1, require_equals = true, default_missing_value = HTTP_DEFAULT, value_parser = address)]
    http: Option<SocketAddr>,

    /// Token of the HTTP port: who sends it (Authorization: Bearer) may ask for heap captures and read what they name.
    /// A file of mode 0600
    #[arg(long, value_name = "FILE", value_parser = token, requires = "http")]
    http_token_file: Option<Token>,

    /// Give the program a pseudo-terminal instead of pipes
    #[arg(long)]
    pty: bool,

    /// Do not echo the program's output, and say only what is wrong and how it ended
    #[arg(long, short)]
    quiet: bool,

    /// Keep at most so much of each stream of its output: 1M/s, 200K/s:4M (4M at once), 500lines/s. What is above is counted in the
    /// log and not kept; the program never waits. Once for bytes, once for lines [default: everything]
    #[arg(long, value_name = "RATE", value_parser = rate::parse)]
    log_rate: Vec<rate::Given>,

    /// Disk that the log of its output may take in all, at least 32M: when it is full, the oldest lines go
    #[arg(long, value_name = "SIZE", value_parser = log_disk, default_value = "1G")]
    log_disk: u64,

    #[command(flatten)]
    keep: KeepArgs,

    /// Make no cgroup for the program: its process tree is summed instead
    #[arg(long)]
    no_cgroup: bool,

    /// Derive no runtime limits (GOMEMLIMIT, NODE_OPTIONS, …). One of them: set it to an empty value
    #[arg(long)]
    no_derive: bool,

    /// Let the program swap beyond the kernel's limit
    #[arg(long)]
    swap: bool,

    /// Heap captures: auto (figures every 30 min, a full snapshot when asked for and safe), profile, full, jemalloc,
    /// pprof=URL, off
    #[arg(long, value_name = "MODE", default_value = "auto")]
    heap: Mode,

    /// Time between two captures
    #[arg(long, value_name = "DUR", value_parser = interval, default_value = "30m")]
    heap_every: Duration,

    /// Keep at most so many captures of each format
    #[arg(long, value_name = "N", default_value_t = shelf::KEEP_COUNT)]
    heap_keep: usize,

    /// Keep none longer than this
    #[arg(long, value_name = "DUR", value_parser = age, default_value = "30d")]
    heap_max_age: Duration,

    /// Keep at most so many bytes of them; the newest of each format is kept in any case
    #[arg(long, value_name = "SIZE", value_parser = size, default_value = "10G")]
    heap_max_size: u64,

    /// The program and its arguments, after --
    #[arg(last = true, required = true, value_name = "CMD")]
    command: Vec<OsString>,
}

pub(super) fn size(text: &str) -> Result<u64, String> {
    units::parse_size(text).map_err(|error| error.to_string())
}

fn log_disk(text: &str) -> Result<u64, String> {
    let bytes = size(text)?;
    if bytes < LOG_DISK_MIN_BYTES { Err(format!("at least {}", units::size(LOG_DISK_MIN_BYTES))) } else { Ok(bytes) }
}

fn wait(text: &str) -> Result<Duration, String> {
    let wait = units::parse_duration(text).map_err(|error| error.to_string())?;
    if wait > LONGEST_WAIT { Err("longer than 24 h".to_owned()) } else { Ok(wait) }
}

fn token(path: &str) -> Result<Token, String> {
    Token::from_file(path.as_ref())
}

/// An interval of captures: a second to a day.
fn interval(text: &str) -> Result<Duration, String> {
    let interval = wait(text)?;
    if interval < Duration::from_secs(1) { Err("shorter than 1 s".to_owned()) } else { Ok(interval) }
}

fn age(text: &str) -> Result<Duration, String> {
    units::parse_duration(text).map_err(|error| error.to_string())
}

pub(super) fn address(text: &str) -> Result<SocketAddr, String> {
    let full = match text.strip_prefix("localhost:") {
        Some(port) => format!("127.0.0.1:{port}"),
        None if text.parse::<u16>().is_ok() => format!("127.0.0.1:{text}"),
        None if text.starts_with(':') => format!("127.0.0.1{text}"),
        None => text.to_owned(),
    };
    let address: SocketAddr =
        full.parse().map_err(|_| format!("{text:?} is no address: expected IP:PORT, such as {HTTP_DEFAULT}"))?;
    crate::web::socket::loopback_only(address).map_err(|error| error.to_string())?;
    Ok(address)
}

impl Args {
    /// The same as options of the supervisor.
    ///
    /// # Errors
    /// A usage error for what only shows in combination.
    fn understood(self) -> Result<Options, Failure> {
        let program = self.command.first().ok_or_else(|| Failure::usage("no command given"))?;
        let name = self.name.unwrap_or_else(|| options::default_name(program));
        let layout = Layout::new(self.place.dir(), &name).map_err(Failure::usage)?;
        if self.on.len() > MAX_STAGES {
            return Err(Failure::usage(format!("{} times --on: at most {MAX_STAGES}", self.on.len())));
        }
        if self.backoff > restart::MAX_BACKOFF {
            let most = units::duration(restart::MAX_BACKOFF);
            return Err(Failure::usage(format!("--backoff {}: at most {most}", units::duration(self.backoff))));
        }
        Ok(Options {
            layout,
            argv: self.command,
            memory_bytes: self.memory,
            reserve_bytes: self.reserve,
            grace: self.grace,
            restart: self.restart,
            max_restarts: self.max_restarts,
            backoff: self.backoff,
            stages: self.on,
            http: self.http,
            http_token: self.http_token_file,
            pty: self.pty,
            quiet: self.quiet,
            silent: false,
            cgroup: !self.no_cgroup,
            derive: !self.no_derive,
            swap: self.swap,
            keep: self.keep.understood(),
            heap: capture::Settings {
                mode: self.heap,
                every: self.heap_every,
                keep: Keep { count: self.heap_keep.max(1), age: self.heap_max_age, bytes: self.heap_max_size },
            },
            log_disk_bytes: self.log_disk,
            log_rate: rate::limit(&self.log_rate).map_err(Failure::usage)?,
        })
    }
}

/// Runs the program until it is over.
pub(crate) fn run(args: Args) -> Result<ExitCode, Failure> {
    crate::supervise::run(args.understood()?)
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;
    use crate::args::{Args as All, Command};

    fn parse(line: &[&str]) -> Result<Options, String> {
        let all = All::try_parse_from(["plimsoll", "run"].iter().chain(line)).map_err(|e| e.to_string())?;
        let Command::Run(args) = all.command else { return Err("another command".into()) };
        args.understood().map_err(|e| e.to_string())
    }

    #[test]
    fn the_defaults_are_those_of_the_help() {
        let got = parse(&["--", "/usr/bin/node", "server.js"]).unwrap();
        assert_eq!((got.layout.name(), got.grace, got.backoff), ("node", options::GRACE, restart::FIRST_BACKOFF));
        assert_eq!((got.memory_bytes, got.reserve_bytes, got.http, got.restart), (None, None, None, Policy::default()));
        assert!(got.cgroup && got.derive && !got.swap && !got.quiet && !got.pty);
        assert_eq!(got.argv, ["/usr/bin/node", "server.js"]);
    }

    #[test]
    fn what_is_given_is_taken() {
        let got = parse(&[
            "--memory",
            "300M",
            "--reserve",
            "100M",
            "--restart",
            "never",
            "--http",
            "--on",
            "high for 30s=stop",
            "--name",
            "web",
            "--",
            "x",
        ])
        .unwrap();
        assert_eq!((got.memory_bytes, got.reserve_bytes), (Some(300 << 20), Some(100 << 20)));
        assert_eq!(got.http, Some(HTTP_DEFAULT.parse().unwrap()));
        assert_eq!((got.stages.len(), got.layout.name(), got.restart.to_string().as_str()), (1, "web", "never"));
        for (given, port) in
            [("--http=localhost:80", 80), ("--http=:81", 81), ("--http=82", 82), ("--http=[::1]:83", 83)]
        {
            assert_eq!(parse(&[given, "--", "x"]).unwrap().http.map(|a| a.port()), Some(port), "{given}");
        }
    }

    #[test]
    fn what_cannot_be_meant_is_refused_with_its_value() {
        let cases: [(&[&str], &str); 12] = [
            (&["--log-disk", "1M", "--", "x"], "at least 32.0 MiB"),
            (&["--log-rate", "fast", "--", "x"], "500lines/s"),
            (&["--log-rate=1M/s", "--log-rate=2M/s", "--", "x"], "twice"),
            (&["x"], "--"),
            (&[], "CMD"),
            (&["--memory", "300", "--", "x"], "300"),
            (&["--http=0.0.0.0:80", "--", "x"], "loopback"),
            (&["--http=nonsense", "--", "x"], "nonsense"),
            (&["--name", "a/b", "--", "x"], "a/b"),
            (&["--on", "loud=note", "--", "x"], "loud"),
            (&["--grace", "48h", "--", "x"], "24 h"),
            (&["--backoff", "2m", "--", "x"], "at most"),
        ];
        for (line, needle) in cases {
            let error = parse(line).expect_err(&line.join(" "));
            assert!(error.contains(needle), "{line:?}: {error}");
        }
    }
}
