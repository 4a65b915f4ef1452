//! Programs that print: numbered lines as fast as they can or at a rate, access logs, garbage, a line without an end.
//!
//! Lines are made in blocks of [`BLOCK_LINES`] before they are written, so that with `--mode line` the time between two
//! `write(2)` is the write's. The access logs are synthetic: real formats, plausible distributions, no real users.

use crate::evidence::Evidence;
use crate::parse::{Rate, Size};
use crate::sys;
use plimsoll_incidents::clock;
use plimsoll_incidents::lines::LineMaker;
use plimsoll_incidents::words::Random;
use std::fs::File;
use std::io::{self, Read, Write};
use std::path::PathBuf;
use std::time::Duration;

/// Lines made ahead of writing them.
const BLOCK_LINES: u64 = 256;

/// One write for each line, or one for 64 KiB of lines.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Mode {
    /// One `write(2)` a line.
    Line,
    /// One `write(2)` for up to 64 KiB of whole lines.
    Block,
}

/// What the lines look like.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Format {
    /// Numbered words, all of one length: the ones that can be accounted for byte by byte.
    Words,
    /// nginx "combined" access log, synthetic.
    Nginx,
    /// A JSON request log, synthetic.
    Json,
    /// One and the same line: an accept loop that spins.
    Accept,
    /// The same, but for a token that nothing can compress.
    Retry,
}

/// Print lines to stdout.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Lines {
    /// How many
    #[arg(long)]
    count: u64,
    /// What they look like
    #[arg(long, value_enum, default_value = "words")]
    format: Format,
    /// Length of a line of words, accept or retry in bytes, line feed included
    #[arg(long, default_value_t = 200)]
    bytes: usize,
    /// What determines every one of them
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Lines a second; 0: as fast as they go
    #[arg(long, default_value_t = 0)]
    rate: u64,
    /// How they are written
    #[arg(long, value_enum, default_value = "line")]
    mode: Mode,
    /// Note the longest single write
    #[arg(long)]
    time_writes: bool,
    /// Write an event of progress for every so many lines; 0: none
    #[arg(long, default_value_t = 0)]
    progress: u64,
    /// Wait before the first line, in milliseconds
    #[arg(long, default_value_t = 0)]
    delay_ms: u64,
    /// Stay afterwards, in milliseconds
    #[arg(long, default_value_t = 0)]
    hold_ms: u64,
}

/// Print bytes that are no text: control bytes, NUL, broken UTF-8, a line feed now and then.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Garbage {
    /// How much
    #[arg(long, default_value = "1M")]
    bytes: Size,
    /// What determines it
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

/// Print one line that is very long.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct LongLine {
    /// How long, without its line feed
    #[arg(long, default_value = "100M")]
    bytes: Size,
}

/// Print a file, as a program would that logs so much.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Replay {
    /// Which file
    #[arg(long)]
    file: PathBuf,
    /// How fast, in MiB a second
    #[arg(long, default_value = "20")]
    rate: Rate,
    /// Stay afterwards, in milliseconds
    #[arg(long, default_value_t = 0)]
    hold_ms: u64,
}

/// Prints a file in blocks of 64 KiB, at a pace; SIGTERM ends it between two blocks.
pub(crate) fn replay(plan: &Replay, evidence: &Evidence) -> io::Result<i32> {
    sys::catch(libc::SIGTERM)?;
    evidence.start("main");
    let mut file = File::open(&plan.file)?;
    let mut out = Writer { time: false, longest_ns: 0 };
    let mut block = vec![0; 64 << 10];
    let (started, mut written) = (clock::monotonic_ns(), 0);
    while sys::signal_ns() == 0 {
        let length = file.read(&mut block)?;
        if length == 0 {
            break;
        }
        out.put(&block[..length])?;
        written += length as u64;
        keep_pace(started, written, plan.rate.0.max(1));
    }
    evidence.done(0, 0, "");
    crate::ramp::hold(Duration::from_millis(plan.hold_ms));
    Ok(0)
}

/// Prints lines; SIGTERM ends it between two writes.
pub(crate) fn lines(plan: &Lines, evidence: &Evidence) -> io::Result<i32> {
    sys::catch(libc::SIGTERM)?;
    evidence.start("main");
    let maker = LineMaker::new(plan.seed, plan.bytes);
    let mut out = Writer { time: plan.time_writes, longest_ns: 0 };
    let (mut block, mut ends) = (Vec::new(), Vec::new());
    crate::ramp::hold(Duration::from_millis(plan.delay_ms));
    let started = clock::monotonic_ns();
    let mut written = 0;
    if plan.progress > 0 {
        evidence.write("progress", started, "\"lines\":0");
    }
    while written < plan.count && sys::signal_ns() == 0 {
        let batch = BLOCK_LINES.min(plan.count - written);
        block.clear();
        ends.clear();
        for number in written + 1..=written + batch {
            match plan.format {
                Format::Words => maker.append(number, &mut block),
                Format::Nginx => nginx(plan.seed, number, &mut block)?,
                Format::Json => json(plan.seed, number, &mut block)?,
                Format::Accept => accept(None, plan.bytes, &mut block),
                Format::Retry => accept(Some(plan.seed ^ number), plan.bytes, &mut block),
            }
            ends.push(block.len());
        }
        let before = written;
        match plan.mode {
            Mode::Block => {
                out.put(&block)?;
                written += batch;
                if plan.rate > 0 {
                    keep_pace(started, written, plan.rate);
                }
            }
            Mode::Line => {
                let mut start = 0;
                for &end in &ends {
                    if sys::signal_ns() != 0 {
                        break;
                    }
                    out.put(&block[start..end])?;
                    start = end;
                    written += 1;
                    if plan.rate > 0 {
                        keep_pace(started, written, plan.rate);
                    }
                }
            }
        }
        if plan.progress > 0 && before / plan.progress != written / plan.progress {
            evidence.write("progress", clock::monotonic_ns(), &format!("\"lines\":{written}"));
        }
    }
    let took = clock::monotonic_ns() - started;
    evidence.done(0, 0, &format!("\"lines\":{written},\"longest_write_ns\":{},\"load_ns\":{took}", out.longest_ns));
    crate::ramp::hold(Duration::from_millis(plan.hold_ms));
    Ok(0)
}

fn keep_pace(started_ns: u64, written: u64, rate: u64) {
    let due = started_ns + written * 1_000_000_000 / rate;
    let now = clock::monotonic_ns();
    if due > now + 200_000 {
        std::thread::sleep(Duration::from_nanos(due - now));
    }
}

/// Prints garbage.
pub(crate) fn garbage(plan: &Garbage, evidence: &Evidence) -> io::Result<i32> {
    evidence.start("main");
    let mut out = Writer { time: false, longest_ns: 0 };
    let mut random = Random::new(plan.seed);
    let mut left = plan.bytes.0 as usize;
    while left > 0 {
        let block: Vec<u8> = (0..left.min(4096)).map(|_| random.bits() as u8).collect();
        out.put(&block)?;
        left -= block.len();
    }
    evidence.done(0, 0, "");
    Ok(0)
}

/// Prints a line of decimal offsets (`0000000016 0000000032 …`), so that a piece of it says where it was.
pub(crate) fn long_line(plan: &LongLine, evidence: &Evidence) -> io::Result<i32> {
    evidence.start("main");
    let mut out = Writer { time: false, longest_ns: 0 };
    let mut at = 0;
    while at < plan.bytes.0 {
        let mut block = Vec::with_capacity(64 << 10);
        while block.len() < 64 << 10 {
            write!(block, "{:015} ", at + block.len() as u64)?;
        }
        block.truncate((plan.bytes.0 - at).min(block.len() as u64) as usize);
        out.put(&block)?;
        at += block.len() as u64;
    }
    out.put(b"\n")?;
    evidence.done(0, 0, "\"lines\":1");
    Ok(0)
}

struct Writer {
    time: bool,
    longest_ns: u64,
}

impl Writer {
    /// Writes everything to descriptor 1, a signal or a short write notwithstanding.
    fn put(&mut self, mut bytes: &[u8]) -> io::Result<()> {
        let started = if self.time { clock::monotonic_ns() } else { 0 };
        while !bytes.is_empty() {
            match rustix::io::write(rustix::stdio::stdout(), bytes) {
                Ok(count) => bytes = &bytes[count..],
                Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
        if self.time {
            self.longest_ns = self.longest_ns.max(clock::monotonic_ns() - started);
        }
        Ok(())
    }
}

const METHODS: [&str; 8] = ["GET", "GET", "GET", "GET", "GET", "POST", "POST", "PUT"];
const PATHS: [&str; 10] = [
    "/",
    "/api/v1/nodes",
    "/api/v1/packets",
    "/api/v1/channels",
    "/health",
    "/static/app.js",
    "/static/site.css",
    "/login",
    "/api/v1/users",
    "/favicon.ico",
];
const STATUSES: [u16; 12] = [200, 200, 200, 200, 200, 200, 200, 204, 304, 304, 404, 502];
const AGENTS: [&str; 6] = [
    "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/124.0.0.0 Safari/537.36",
    "Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15_7) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/17.4 Safari/605.1.15",
    "Mozilla/5.0 (X11; Linux x86_64; rv:125.0) Gecko/20100101 Firefox/125.0",
    "Mozilla/5.0 (iPhone; CPU iPhone OS 17_4 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) Mobile/15E148",
    "curl/8.5.0",
    "Prometheus/2.51.0",
];

fn pick<'a, T>(random: &mut Random, from: &'a [T]) -> &'a T {
    // The smaller of two draws: the front of each table is hit more often, as in real traffic.
    let draw = random.below(from.len() as u32).min(random.below(from.len() as u32));
    &from[draw as usize]
}

/// The line of incident 4, `bytes` long: the same each time, or with a token of its own.
fn accept(token: Option<u64>, bytes: usize, out: &mut Vec<u8>) {
    const TOKEN: &[u8; 64] = b"0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ+/";
    let start = out.len();
    out.extend_from_slice(b"ERROR accept on 0.0.0.0:8080 failed: too many open files (EMFILE), session=\"");
    let mut random = token.map(|token| Random::new(token.wrapping_mul(0xd6e8_feb8_6659_fd93)));
    while out.len() < start + bytes.saturating_sub(2) {
        out.push(random.as_mut().map_or(b'-', |random| TOKEN[random.below(64) as usize]));
    }
    out.extend_from_slice(b"\"\n");
}

/// One line of nginx's "combined" format; 40 requests a second of log time, some 3,000 clients.
fn nginx(seed: u64, number: u64, out: &mut Vec<u8>) -> io::Result<()> {
    let mut random = Random::new(seed ^ number.wrapping_mul(0xd6e8_feb8_6659_fd93));
    let client = random.below(3000).min(random.below(3000));
    let second = number / 40;
    let (method, path, status) = (pick(&mut random, &METHODS), pick(&mut random, &PATHS), pick(&mut random, &STATUSES));
    let agent = AGENTS[client as usize % AGENTS.len()];
    write!(
        out,
        "203.0.{}.{} - - [21/Nov/2026:{:02}:{:02}:{:02} +0000] ",
        client / 250,
        client % 250 + 1,
        second / 3600 % 24,
        second / 60 % 60,
        second % 60
    )?;
    let query = if path.starts_with("/api") { format!("?page={}&limit=50", random.below(40)) } else { String::new() };
    let bytes = if *status == 304 { 0 } else { 150 + random.below(20_000) };
    writeln!(out, "\"{method} {path}{query} HTTP/1.1\" {status} {bytes} \"https://example.org/\" \"{agent}\"")
}

/// One line of a JSON request log: request id, latency, user, the usual.
fn json(seed: u64, number: u64, out: &mut Vec<u8>) -> io::Result<()> {
    let mut random = Random::new(seed ^ number.wrapping_mul(0xd6e8_feb8_6659_fd93));
    let millisecond = number * 25;
    let (second, milli) = (millisecond / 1000, millisecond % 1000);
    let (method, path, status) = (pick(&mut random, &METHODS), pick(&mut random, &PATHS), pick(&mut random, &STATUSES));
    let level = if *status >= 500 { "error" } else { "info" };
    let micros = 200 + random.below(3000) * (1 + random.below(20));
    write!(
        out,
        "{{\"time\":\"2026-11-21T{:02}:{:02}:{:02}.{milli:03}Z\",\"level\":\"{level}\",",
        second / 3600 % 24,
        second / 60 % 60,
        second % 60
    )?;
    write!(
        out,
        "\"logger\":\"http.access\",\"msg\":\"handled request\",\"request\":{{\"id\":\"{:08x}\",\"method\":\"{method}\",",
        random.below(u32::MAX)
    )?;
    write!(out, "\"path\":\"{path}\",\"proto\":\"HTTP/1.1\",\"remote\":\"198.51.100.{}\"}},", random.below(254) + 1)?;
    writeln!(
        out,
        "\"status\":{status},\"bytes\":{},\"duration_ms\":{}.{:03},\"user\":{}}}",
        random.below(20_000),
        micros / 1000,
        micros % 1000,
        random.below(500)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn access_logs_are_whole_lines_and_the_json_is_json() {
        for number in [1, 77, 1_000_000] {
            let (mut plain, mut structured) = (Vec::new(), Vec::new());
            nginx(1, number, &mut plain).unwrap();
            json(1, number, &mut structured).unwrap();
            assert_eq!(plain.iter().filter(|&&byte| byte == b'\n').count(), 1);
            assert!(plain.starts_with(b"203.0."));
            let value: serde_json::Value = serde_json::from_slice(&structured).unwrap();
            assert!(value["status"].is_u64() && value["duration_ms"].is_f64());
        }
    }
}
