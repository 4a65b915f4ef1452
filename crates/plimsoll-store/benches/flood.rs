//! The whole log path under a flood: a child process prints lines, one `write(2)` each, into a pipe of 1 MiB; they go through ring,
//! spool and chunks. Prints what it cost.
//!
//! `cargo bench -p plimsoll-store --bench flood -- [lines] [bytes a line] [directory]`; default 1,000,000 lines of 200 bytes: words drawn
//! uniformly from 20,000 with a fixed seed, each line numbered. With a file name as the fourth argument, the lines of that file in turn.
#![allow(clippy::disallowed_methods)] // a benchmark reads the clock and its own files
#![allow(missing_docs)]

use std::error::Error;
use std::fs;
use std::io::{BufRead, Read, Write};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use plimsoll_store::{Settings, Stream};
use rustix::event::{PollFd, PollFlags, poll};

fn main() -> Result<(), Box<dyn Error>> {
    let mut args = std::env::args().skip(1).filter(|a| a != "--bench").peekable();
    if args.next_if(|a| a == "--child").is_some() {
        let (lines, bytes) = (args.next().unwrap_or_default().parse()?, args.next().unwrap_or_default().parse()?);
        return child(lines, bytes, args.next().as_deref());
    }
    let lines: u64 = args.next().map_or(Ok(1_000_000), |a| a.parse())?;
    let bytes: usize = args.next().map_or(Ok(200), |a| a.parse())?;
    let base = args.next().map_or_else(std::env::temp_dir, PathBuf::from);
    let file = args.next();
    let place = base.join(format!("plimsoll-flood-{}", std::process::id()));
    let outcome = flood(&place, lines, bytes, file.as_deref());
    fs::remove_dir_all(&place)?;
    outcome
}

fn flood(place: &Path, lines: u64, bytes: usize, file: Option<&str>) -> Result<(), Box<dyn Error>> {
    let ring = PathBuf::from(format!("/dev/shm/plimsoll-flood-{}.ring", std::process::id()));
    let (mut intake, store, _) = plimsoll_store::open(Settings::new(place, &ring, "flood"))?;
    let mut command = Command::new(std::env::current_exe()?);
    command.args(["--child", &lines.to_string(), &bytes.to_string()]).args(file);
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
    let mut pipe = child.stdout.take().ok_or("no stdout")?;
    rustix::pipe::fcntl_setpipe_size(&pipe, 1 << 20)?;
    let mut ready = [0u8; 1];
    pipe.read_exact(&mut ready)?;
    let cpu = cpu_seconds()?;
    let start = Instant::now();
    drop(child.stdin.take());
    let (mut reads, mut landed_bytes) = (0u64, 0u64);
    rustix::io::ioctl_fionbio(&pipe, true)?;
    loop {
        match intake.read_from(Stream::Stdout, pipe.as_fd(), unix_ns()) {
            Ok(landed) if landed.bytes == 0 => break,
            Ok(landed) => {
                reads += 1;
                landed_bytes += landed.bytes as u64;
            }
            Err(e) if e.kind() == std::io::ErrorKind::WouldBlock => {
                poll(&mut [PollFd::new(&pipe, PollFlags::IN)], None)?;
            }
            Err(e) => return Err(e.into()),
        }
    }
    let done = start.elapsed();
    child.wait()?;
    let intake_cpu = cpu_seconds()? - cpu;
    let stats = store.stats();
    let ring_bytes = stats.ring_used_bytes;
    let closed = store.close(Duration::from_secs(60));
    let all = start.elapsed();
    let cpu = cpu_seconds()? - cpu;
    let disk = du(place)?;
    let count = stats.stream(Stream::Stdout).lines_in_total;
    println!(
        "lines            {count} of {} bytes in {reads} reads; dropped {}",
        landed_bytes / count.max(1),
        stats.stream(Stream::Stdout).dropped_lines_total
    );
    println!(
        "child done after {:.3} s: {:.2} M lines/s, {:.0} MB/s",
        done.as_secs_f64(),
        count as f64 / done.as_secs_f64() / 1e6,
        landed_bytes as f64 / done.as_secs_f64() / 1e6
    );
    println!(
        "all sealed after {:.3} s (at the child's end {:.1} MB in ring and spool); complete: {}",
        all.as_secs_f64(),
        (ring_bytes + stats.spool_used_bytes) as f64 / 1e6,
        closed.complete
    );
    println!(
        "CPU              {:.2} us a line in all, {:.2} until the child was done",
        cpu * 1e6 / count as f64,
        intake_cpu * 1e6 / count as f64
    );
    println!("peak RSS         {} MB", peak_rss_kib()? / 1000);
    println!(
        "disk             {:.1} MB, {:.3} of {:.1} MB raw, {} chunks",
        disk as f64 / 1e6,
        disk as f64 / landed_bytes as f64,
        landed_bytes as f64 / 1e6,
        closed.stats.sealed_chunks_total
    );
    println!("trouble          {:?}", closed.stats.last_error);
    Ok(())
}

fn child(lines: u64, bytes: usize, file: Option<&str>) -> Result<(), Box<dyn Error>> {
    let mut random = 0x9e37_79b9_7f4a_7c15_u64;
    let mut next = move || {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        random
    };
    let mut text: Vec<Vec<u8>> = Vec::new();
    if let Some(file) = file {
        let all: Vec<Vec<u8>> =
            std::io::BufReader::new(fs::File::open(file)?).split(b'\n').collect::<Result<_, _>>()?;
        text.extend((0..lines as usize).map(|i| [all[i % all.len()].as_slice(), b"\n"].concat()));
    } else {
        let words: Vec<Vec<u8>> =
            (0..20_000).map(|_| (0..3 + next() % 9).map(|_| b'a' + (next() % 26) as u8).collect()).collect();
        for number in 0..lines {
            let mut line = format!("{number:08}").into_bytes();
            while line.len() < bytes - 1 {
                line.push(b' ');
                line.extend_from_slice(&words[(next() % 20_000) as usize]);
            }
            line.truncate(bytes - 1);
            line.push(b'\n');
            text.push(line);
        }
    }
    let mut out = fs::File::from(std::io::stdout().as_fd().try_clone_to_owned()?);
    out.write_all(b"r")?;
    std::io::stdin().read_to_end(&mut Vec::new())?;
    for line in &text {
        out.write_all(line)?;
    }
    Ok(())
}

fn unix_ns() -> u64 {
    std::time::SystemTime::UNIX_EPOCH.elapsed().map_or(0, |d| d.as_nanos() as u64)
}

/// CPU time of this process, all threads, from `/proc/self/schedstat` of each would be finer; ticks of 10 ms are enough here.
fn cpu_seconds() -> Result<f64, Box<dyn Error>> {
    let mut total = 0.0;
    let stat = fs::read_to_string("/proc/self/stat")?;
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
    for at in [11, 12] {
        total += fields[at].parse::<f64>()? / 100.0;
    }
    Ok(total)
}

fn peak_rss_kib() -> Result<u64, Box<dyn Error>> {
    let status = fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find(|l| l.starts_with("VmHWM:")).ok_or("no VmHWM")?;
    Ok(line.split_whitespace().nth(1).ok_or("no figure")?.parse()?)
}

fn du(dir: &Path) -> Result<u64, Box<dyn Error>> {
    use std::os::unix::fs::MetadataExt;
    let mut sum = 0;
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        let meta = entry.metadata()?;
        sum += if meta.is_dir() { du(&entry.path())? } else { meta.blocks() * 512 };
    }
    Ok(sum)
}
