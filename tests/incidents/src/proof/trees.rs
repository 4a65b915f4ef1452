//! `trees`, `descriptors` and `oom`: leaks that are not in the first process, many descendants, and a kernel that was faster.

use crate::report::{Must, Report};
use plimsoll_incidents::judge::{self, Caught};
use plimsoll_incidents::protected::{Service, Setup};
use plimsoll_incidents::{clock, usage};
use std::path::PathBuf;
use std::time::Duration;

/// Where the load notes the crossing, 1 MiB below the budget: it counts what leaks, and the processes that only wait have some
/// 300 KiB each.
const MARK: &str = "299M";
const MARK_BYTES: u64 = 299 << 20;
const KERNEL_BYTES: u64 = 400 << 20;
const DEADLINE: Duration = Duration::from_secs(90);
const SHAPES: [&str; 3] = ["grandchild", "detached", "three-children"];
const WITH_CGROUP: [&str; 6] = ["--memory", "300M", "--reserve", "100M", "--restart", "never"];
/// What a question over the socket and a turn of the log spool may have open for a moment.
const SLACK: u64 = 6;

/// How often.
#[derive(Debug, clap::Args)]
pub(crate) struct Plan {
    /// Runs of each load
    #[arg(long, default_value_t = 5)]
    runs: usize,
    /// Append one JSON object a row to this file
    #[arg(long)]
    raw: Option<PathBuf>,
}

/// How many.
#[derive(Debug, clap::Args)]
pub(crate) struct StormPlan {
    /// Short-lived descendants
    #[arg(long, default_value_t = 10_000)]
    count: u32,
    /// Append one JSON object a row to this file
    #[arg(long)]
    raw: Option<PathBuf>,
}

/// Leaks anywhere in the tree; copy-on-write workers; the same without a cgroup of the child's own.
pub(crate) fn run(plan: &Plan) -> Result<bool, String> {
    let mut report =
        Report::new("Trees: --memory 300M; without a cgroup: the limit of 400 MiB is only found", plan.raw.as_deref())?;
    for cgroup in [true, false] {
        for shape in SHAPES {
            leaks(plan.runs, shape, cgroup, &mut report)?;
        }
        let flags: &[&str] = if cgroup { &[] } else { &["--no-cgroup"] };
        let flags = [&["--memory", "300M", "--restart", "never", "--quiet"], flags].concat();
        let mut findings = Vec::new();
        for _ in 0..plan.runs {
            let mut service = Setup::new("cow", &flags).load(&["cow", "--run-ms", "4000"]).start()?;
            let code = service.wait(DEADLINE).and_then(|status| status.code());
            findings
                .extend(judge::undisturbed(&service.evidence()).err().map(|reason| format!("{reason}, code {code:?}")));
        }
        let what = format!("200 MiB and four copy-on-write workers, {}: not signalled", place(cgroup));
        report.counted(&what, plan.runs - findings.len(), plan.runs, &findings);
    }
    Ok(report.finish())
}

fn place(cgroup: bool) -> &'static str {
    if cgroup { "own cgroup" } else { "no cgroup" }
}

fn leaks(runs: usize, shape: &str, cgroup: bool, report: &mut Report) -> Result<(), String> {
    let (mut lags, mut findings) = (Vec::new(), Vec::new());
    for _ in 0..runs {
        let judged = if cgroup { own_cgroup(shape)? } else { found_limit(shape)? };
        match judged {
            Ok(caught) => lags.extend(caught.map(|caught| caught.lag_ms)),
            Err(reason) => findings.push(reason),
        }
    }
    let what = format!("{shape}, {}", place(cgroup));
    report.counted(&format!("{what}: caught, everybody told"), runs - findings.len(), runs, &findings);
    if cgroup {
        report.measured(&format!("{what}: lag behind 299 MiB"), "ms", &lags, Must::Report);
    }
    Ok(())
}

type Judged = Result<Option<Caught>, String>;

fn told(service: &Service) -> Result<(), String> {
    if service.evidence().all_signalled() {
        Ok(())
    } else {
        Err(format!("not everybody was told: {:?}", service.evidence()))
    }
}

fn own_cgroup(shape: &str) -> Result<Judged, String> {
    let load = ["tree", shape, "--rate", "200", "--forever", "--mark", MARK];
    let mut service = Setup::new(shape, &[&WITH_CGROUP[..], &["--quiet"]].concat()).load(&load).start()?;
    service.wait(DEADLINE);
    Ok(judge::caught_whole(&service, MARK_BYTES).and_then(|caught| told(&service).map(|()| Some(caught))))
}

/// The budget follows from the limit that is found, so there is no mark to cross: told, whole, nobody killed, for memory.
fn found_limit(shape: &str) -> Result<Judged, String> {
    let load = ["tree", shape, "--rate", "200", "--forever"];
    let flags = ["--no-cgroup", "--restart", "never", "--quiet"];
    let mut service = Setup::new(shape, &flags).found_limit(KERNEL_BYTES).load(&load).start()?;
    let code = service.wait(DEADLINE).and_then(|status| status.code());
    let (evidence, exit) = (service.evidence(), service.last_exit());
    let oom_kills = service.group().map_or(0, plimsoll_incidents::cgroup::TestGroup::oom_kills_below);
    let whole =
        evidence.all_done() && oom_kills == 0 && exit["reason"] == "memory" && judge::left(&evidence).is_empty();
    if !whole || code != Some(2) {
        return Ok(Err(format!("code {code:?}, {oom_kills} oom kills, left {:?}, {exit}", judge::left(&evidence))));
    }
    Ok(told(&service).map(|()| None))
}

/// Ten thousand descendants come and go; the supervisor's own descriptors do not follow. Then a leak of `/proc` handles.
pub(crate) fn descriptors(plan: &StormPlan) -> Result<bool, String> {
    let mut report = Report::new("Own descriptors, and whose descriptors leak", plan.raw.as_deref())?;
    for cgroup in [true, false] {
        let more: &[&str] = if cgroup { &[] } else { &["--no-cgroup"] };
        let flags = [&["--memory", "300M", "--quiet", "--restart", "never"], more].concat();
        let count = plan.count.to_string();
        let service =
            Setup::new("storm", &flags).load(&["forkstorm", "--count", &count, "--hold-ms", "3000"]).start()?;
        service.child();
        // The governor and the store open theirs in the first moments.
        std::thread::sleep(Duration::from_millis(500));
        let before = usage::of(service.pid()).map_or(0, |usage| usage.descriptors);
        let mut seen = Vec::new();
        let end = clock::wait_for(DEADLINE * 4, Duration::from_millis(20), || {
            seen.extend(usage::of(service.pid()).map(|usage| usage.descriptors as f64));
            service.evidence().first("done").cloned()
        });
        let what = format!("{count} descendants, {}", place(cgroup));
        report.holds(
            &format!("{what}: came and went"),
            &end.as_ref().map_or(0, |end| end.lines).to_string(),
            &count,
            end.is_some(),
        );
        report.measured(
            &format!("{what}: own descriptors, {before} after 0.5 s"),
            "",
            &seen,
            Must::Max((before + SLACK) as f64),
        );
    }
    for kind in ["proc", "socket", "pipe", "file"] {
        let load = ["fds", "--kind", kind, "--count", "400", "--over-ms", "6000", "--hold-ms", "60000"];
        let service = Setup::new("fds", &["--memory", "300M", "--quiet"]).load(&load).start()?;
        let named = clock::wait_for(Duration::from_secs(30), Duration::from_millis(100), || {
            let fds = service.status()?["child"]["fds"].clone();
            (fds[kind].as_u64()? >= 400 && fds["growing"] == kind).then_some(())
        });
        let shown = service.status().map(|status| status["child"]["fds"].to_string()).unwrap_or_default();
        report.holds(&format!("400 {kind} descriptors leak: named"), &shown, kind, named.is_some());
    }
    Ok(report.finish())
}

/// No headroom and a child that does not obey: the kernel kills, and that is what is said.
pub(crate) fn oom(plan: &Plan) -> Result<bool, String> {
    let mut report = Report::new(
        "A kernel OOM kill is called one: --memory 300M --reserve 4M, a child that does not obey",
        plan.raw.as_deref(),
    )?;
    let flags = ["--memory", "300M", "--reserve", "4M", "--restart", "never"];
    let deaf = ["--obey-delay-ms", "5000", "--keep-rate", "1000"];
    let load = [&["ramp", "--rate", "1000", "--forever", "--mark", "300M"][..], &deaf].concat();
    let (mut findings, mut last) = (Vec::new(), String::new());
    for _ in 0..plan.runs {
        let mut service = Setup::new("oom", &flags).load(&load).start()?;
        let code = service.wait(DEADLINE).and_then(|status| status.code());
        let exit = service.last_exit();
        let status = service.status().map(|status| status["last_exit"]["reason"].clone()).unwrap_or_default();
        last = service.stderr().lines().last().unwrap_or_default().to_owned();
        let figures = exit["detail"].as_str().is_some_and(|detail| detail.contains("MiB"));
        let said = exit["reason"] == "oom-kill" && status == "oom-kill" && last.contains("oom-kill");
        if code.is_none_or(|code| code == 0) || !figures || !said {
            findings.push(format!("code {code:?}, status {status}, last line {last:?}, {exit}"));
        }
    }
    report.counted(
        "reason oom-kill in file, status and last line, with figures, code not 0",
        plan.runs - findings.len(),
        plan.runs,
        &findings,
    );
    report.fact("the last line", &last);
    Ok(report.finish())
}
