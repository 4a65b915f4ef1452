//! `peers`: the same flood and the same leak under plimsoll, pm2 and supervisord (with superlance's memmon), at their defaults.
//!
//! `bench/peers/install DIR` puts the two others into a directory of their own; nothing else on the machine is touched. Peers
//! that are not there are left out and named. What the others do is reported, never a verdict.

use crate::flood::{DEADLINE, bare, done, flooding, peak_mb, seconds};
use crate::report::{Must, Report, megabytes};
use plimsoll_incidents::account::Account;
use plimsoll_incidents::cgroup::TestGroup;
use plimsoll_incidents::evidence::Evidence;
use plimsoll_incidents::launch::{self, Running};
use plimsoll_incidents::lines::LineMaker;
use plimsoll_incidents::protected::Setup;
use plimsoll_incidents::{clock, files, judge, product, usage};
use rustix::process::Signal;
use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

const KERNEL_BYTES: u64 = 400 << 20;
const BUDGET_BYTES: u64 = 300 << 20;
/// The longest a manager may take to start its child.
const START_MAX: Duration = Duration::from_secs(30);
/// supervisord rotates at 50 MB and keeps ten files.
const ROTATED: u32 = 10;

/// Where the peers are, and how often.
#[derive(Debug, clap::Args)]
pub(crate) struct Plan {
    /// The directory that `bench/peers/install` filled
    #[arg(long, value_name = "DIR")]
    peers: PathBuf,
    /// Runs of each
    #[arg(long, default_value_t = 3)]
    runs: usize,
    /// Lines of one flood
    #[arg(long, default_value_t = 1_000_000)]
    count: u64,
    /// Rates of the leak in MiB a second
    #[arg(long, value_delimiter = ',', default_values_t = [50, 200, 1000])]
    rates: Vec<u32>,
    /// Append one JSON object a row to this file
    #[arg(long)]
    raw: Option<PathBuf>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Peer {
    Pm2,
    Supervisord,
}

impl Peer {
    fn name(self) -> &'static str {
        match self {
            Peer::Pm2 => "pm2",
            Peer::Supervisord => "supervisord",
        }
    }

    fn binary(self, peers: &Path) -> PathBuf {
        peers.join(match self {
            Peer::Pm2 => "pm2/node_modules/.bin/pm2",
            Peer::Supervisord => "supervisor/bin/supervisord",
        })
    }
}

/// A manager with one child; both end when dropped.
struct Managed {
    peer: Peer,
    binary: PathBuf,
    home: tempfile::TempDir,
    pid: u32,
    running: Option<Running>,
}

impl Managed {
    fn start(peer: Peer, peers: &Path, words: &[String]) -> Result<Managed, String> {
        let home = tempfile::tempdir().map_err(|error| error.to_string())?;
        let mut managed = Managed { peer, binary: peer.binary(peers), home, pid: 0, running: None };
        match peer {
            Peer::Pm2 => managed.start_pm2(words)?,
            Peer::Supervisord => managed.start_supervisord(peers, words)?,
        }
        Ok(managed)
    }

    fn pm2(&self, words: &[&str]) -> Result<(), String> {
        let mut command = Command::new(&self.binary);
        command.args(words).env("PM2_HOME", self.home.path().join("pm2")).env("PM2_DISCRETE_MODE", "true");
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        match command.status() {
            Ok(status) if status.success() => Ok(()),
            other => Err(format!("pm2 {words:?}: {other:?}")),
        }
    }

    fn start_pm2(&mut self, words: &[String]) -> Result<(), String> {
        let out = self.home.path().join("out");
        let app = serde_json::json!({ "apps": [{
            "name": "peer", "script": words[0], "args": &words[1..], "interpreter": "none", "autorestart": false,
            "max_memory_restart": "300M", "out_file": out, "error_file": self.home.path().join("err"),
        }]});
        let file = self.home.path().join("ecosystem.json");
        std::fs::write(&file, app.to_string()).map_err(|error| error.to_string())?;
        self.pm2(&["start", &file.display().to_string()])?;
        let pid = self.home.path().join("pm2/pm2.pid");
        let read = || files::text(&pid).ok()?.trim().parse().ok();
        self.pid = clock::wait_for(START_MAX, Duration::from_millis(20), read).ok_or("pm2 has no pid")?;
        Ok(())
    }

    fn start_supervisord(&mut self, peers: &Path, words: &[String]) -> Result<(), String> {
        let home = self.home.path().display();
        let quoted: Vec<String> = words.iter().map(|word| format!("'{}'", word.replace('%', "%%"))).collect();
        let memmon = peers.join("supervisor/bin/memmon");
        let config = format!(
            "[supervisord]\nnodaemon=true\nuser=root\ndirectory={home}\nlogfile={home}/log\npidfile={home}/pid\n\
             [unix_http_server]\nfile={home}/sock\n\
             [rpcinterface:supervisor]\nsupervisor.rpcinterface_factory=supervisor.rpcinterface:make_main_rpcinterface\n\
             [supervisorctl]\nserverurl=unix://{home}/sock\n\
             [program:peer]\ncommand={}\nautorestart=false\nstdout_logfile={home}/out\nstderr_logfile={home}/err\n\
             [eventlistener:memmon]\ncommand={} -a 300MB\nevents=TICK_60\n",
            quoted.join(" "),
            memmon.display()
        );
        let file = self.home.path().join("conf");
        std::fs::write(&file, config).map_err(|error| error.to_string())?;
        let scratch = self.home.path().join("own");
        std::fs::create_dir(&scratch).map_err(|error| error.to_string())?;
        let command = launch::command(&self.binary, ["-c".as_ref(), file.as_os_str()], None);
        let running = Running::start(command, &scratch)?;
        self.pid = running.pid();
        self.running = Some(running);
        Ok(())
    }

    /// What it stored of the child's output, oldest file first.
    fn stored(&self) -> Vec<PathBuf> {
        let rotated = (1..=ROTATED).rev().map(|number| self.home.path().join(format!("out.{number}")));
        rotated.chain([self.home.path().join("out")]).filter(|path| path.is_file()).collect()
    }
}

impl Drop for Managed {
    fn drop(&mut self) {
        match (self.peer, &mut self.running) {
            (Peer::Pm2, _) => drop(self.pm2(&["kill"])),
            (Peer::Supervisord, Some(running)) => {
                running.signal(Signal::TERM);
                running.wait(Duration::from_secs(20));
            }
            (Peer::Supervisord, None) => {}
        }
    }
}

fn load(words: &[&str], evidence: &Path) -> Result<Vec<String>, String> {
    let mut line = vec![product::load()?.display().to_string()];
    line.extend(words.iter().map(ToString::to_string));
    line.extend(["--evidence".into(), evidence.display().to_string()]);
    Ok(line)
}

/// Prints both tables.
pub(crate) fn run(plan: &Plan) -> Result<bool, String> {
    let (there, missing): (Vec<Peer>, Vec<Peer>) =
        [Peer::Pm2, Peer::Supervisord].into_iter().partition(|peer| peer.binary(&plan.peers).exists());
    for peer in missing {
        println!("{} is not in {}: left out", peer.name(), plan.peers.display());
    }
    let mut report = Report::new("Beside others: the same flood", plan.raw.as_deref())?;
    let bare = (0..plan.runs).map(|_| bare(plan.count)).collect::<Result<Vec<f64>, String>>()?;
    report.measured("bare file: child", "s", &bare, Must::Report);
    flood_plimsoll(plan, &mut report)?;
    for &peer in &there {
        flood(plan, peer, &mut report)?;
    }
    println!();
    for &rate in &plan.rates {
        leak_plimsoll(plan, rate, &mut report)?;
        for &peer in &there {
            leak(plan, peer, rate, &mut report)?;
        }
    }
    Ok(report.finish())
}

fn flood_plimsoll(plan: &Plan, report: &mut Report) -> Result<(), String> {
    let (mut child, mut cpu, mut peak, mut wrong) = (Vec::new(), Vec::new(), Vec::new(), 0);
    for _ in 0..plan.runs {
        let flags = ["--memory", "300M", "--restart", "never", "--quiet"];
        let service = flooding(Setup::new("peer", &flags), plan.count, &["--hold-ms", "8000"])?;
        let before = usage::of(service.pid()).unwrap_or_default();
        child.push(seconds(&done(&service)?));
        std::thread::sleep(Duration::from_secs(5));
        let after = usage::of(service.pid()).unwrap_or_default();
        cpu.push((after.cpu_ns - before.cpu_ns) as f64 / 1e9);
        peak.push(peak_mb(&service));
        wrong += service.account(1, 200, plan.count, true)?.finding_count;
    }
    rows(report, "plimsoll", [&child, &cpu, &peak], wrong);
    Ok(())
}

fn rows(report: &mut Report, who: &str, [child, cpu, peak]: [&[f64]; 3], wrong: u64) {
    report.measured(&format!("{who}: child"), "s", child, Must::Report);
    report.measured(&format!("{who}: manager's CPU"), "s", cpu, Must::Report);
    report.measured(&format!("{who}: manager's peak RSS"), "MB", peak, Must::Report);
    report.fact(&format!("{who}: lines lost, torn or doubled"), &wrong.to_string());
}

fn flood(plan: &Plan, peer: Peer, report: &mut Report) -> Result<(), String> {
    let (mut child, mut cpu, mut peak, mut wrong) = (Vec::new(), Vec::new(), Vec::new(), 0);
    for _ in 0..plan.runs {
        let scratch = tempfile::tempdir().map_err(|error| error.to_string())?;
        let evidence = scratch.path().join("evidence");
        let count = plan.count.to_string();
        let words = load(&["lines", "--count", &count, "--delay-ms", "3000", "--hold-ms", "8000"], &evidence)?;
        let managed = Managed::start(peer, &plan.peers, &words)?;
        let event = |kind: &'static str| move |path: &Path| Evidence::read(path).ok()?.first(kind).cloned();
        clock::wait_for(START_MAX, Duration::from_millis(10), || event("start")(&evidence))
            .ok_or("the child does not start")?;
        let before = usage::of(managed.pid).unwrap_or_default();
        let end = clock::wait_for(DEADLINE, Duration::from_millis(10), || event("done")(&evidence))
            .ok_or("the flood does not end")?;
        std::thread::sleep(Duration::from_secs(5));
        let after = usage::of(managed.pid).unwrap_or_default();
        child.push(seconds(&end));
        cpu.push(after.cpu_ns.saturating_sub(before.cpu_ns) as f64 / 1e9);
        peak.push(megabytes(after.peak_bytes));
        wrong += wrong_lines(&managed.stored(), plan.count)?;
    }
    rows(report, peer.name(), [&child, &cpu, &peak], wrong);
    Ok(())
}

fn wrong_lines(files: &[PathBuf], count: u64) -> Result<u64, String> {
    let mut account = Account::new(LineMaker::new(1, 200), count);
    for path in files {
        let file = File::open(path).map_err(|error| format!("{}: {error}", path.display()))?;
        for line in BufReader::with_capacity(1 << 20, file).split(b'\n') {
            account.text(&line.map_err(|error| error.to_string())?);
        }
    }
    Ok(account.finish(true).finding_count)
}

fn leak_plimsoll(plan: &Plan, rate: u32, report: &mut Report) -> Result<(), String> {
    let (mut saved, rate_text) = (0, rate.to_string());
    for _ in 0..plan.runs {
        let flags = ["--memory", "300M", "--reserve", "100M", "--restart", "never", "--quiet"];
        let load = ["ramp", "--rate", &rate_text, "--forever", "--mark", "300M"];
        let mut service = Setup::new("peer", &flags).load(&load).start()?;
        service.wait(DEADLINE);
        saved += usize::from(judge::caught_whole(&service, BUDGET_BYTES).is_ok());
    }
    report
        .fact(&format!("{rate} MiB/s, kernel kills at 400 MiB: plimsoll saved"), &format!("{saved} of {}", plan.runs));
    Ok(())
}

/// The child alone is in a group of 400 MiB; its manager watches for 300 MB as its documentation says.
fn leak(plan: &Plan, peer: Peer, rate: u32, report: &mut Report) -> Result<(), String> {
    let (mut saved, mut killed) = (0, 0);
    for _ in 0..plan.runs {
        let group = TestGroup::new("peer", Some(KERNEL_BYTES))?;
        let scratch = tempfile::tempdir().map_err(|error| error.to_string())?;
        let evidence = scratch.path().join("evidence");
        let rate = rate.to_string();
        let ramp = ["ramp", "--rate", &rate, "--forever", "--mark", "300M", "--delay-ms", "3000"];
        let script = scratch.path().join("child");
        let line = load(&ramp, &evidence)?.join(" ");
        let text = format!("#!/bin/sh\necho $$ > {}\nexec {line}\n", group.procs_file().display());
        std::fs::write(&script, text).map_err(|error| error.to_string())?;
        let _managed = Managed::start(peer, &plan.peers, &["/bin/sh".into(), script.display().to_string()])?;
        let ended =
            || (group.oom_kills() > Some(0) || Evidence::read(&evidence).ok()?.first("done").is_some()).then_some(());
        clock::wait_for(DEADLINE, Duration::from_millis(20), ended);
        let told =
            Evidence::read(&evidence).is_ok_and(|evidence| evidence.first("signal").is_some() && evidence.all_done());
        killed += usize::from(group.oom_kills() > Some(0));
        saved += usize::from(told && group.oom_kills() == Some(0));
    }
    let shown = format!("{saved} of {}, killed by the kernel {killed}", plan.runs);
    report.fact(&format!("{rate} MiB/s, kernel kills at 400 MiB: {} saved", peer.name()), &shown);
    Ok(())
}
