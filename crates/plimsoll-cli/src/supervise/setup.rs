//! What happens before the first life and after the last one, in order: directory, lock, state, budget, group, streams,
//! faces; then the loop; then all of it backwards. Whatever is only nice to have is left out with a warning.

use std::io;
use std::os::fd::AsFd as _;
use std::sync::Arc;
use std::time::Duration;

use plimsoll::clock::{Clock, MonotonicClock, wall};
use plimsoll::gauge::group::{Group, Version};
use plimsoll::gauge::tree::Excluded;
use plimsoll::gauge::{Root, host};
use plimsoll::policy::Policy;
use plimsoll::report::notify::Notify;
use plimsoll::units;
use rustix::process::Pid;

use super::adopt::{self, Adoption, Now};
use super::budget::{self, ASSUMED_DRAIN_MS, Budget};
use super::child::{self, Child};
use super::group::{self, ChildGroup};
use super::journal::Journal;
use super::lives::{Lives, Parts};
use super::logs::{Kept, Logs, RETRY};
use super::mailbox::Mailbox;
use super::options::Options;
use super::pty::{Pty, Typing};
use super::recorder::Recorder;
use super::reports::Reports;
use super::reports::relay::Relay;
use super::shared::{Fixed, Past, Shared};
use super::signals::{Signals, Waker};
use super::speak::{self, Mouth};
use super::stage;
use super::start::{self, Starter, Streams};
use super::state::{self, Lock, Locked, Process, State};
use super::tty::Terminal;
use super::{ends, files, sys};
use crate::capture::{Capture, CaptureHandle};
use crate::exit::Failure;
use crate::snapshot::{Control, ExitView};
use crate::tail::Inputs;
use crate::tail::echo::Echo;
use crate::tail::fifo::{Fifo, FifoError};
use crate::web::{self, WebHandle};

/// How long the last output may take to be read and shown.
const DRAIN: Duration = Duration::from_secs(3);
/// The reaction that "survives growth up to" allows for.
const REACTION: Duration = Duration::from_millis(5);

/// Supervises until the end; returns the exit code.
pub(crate) fn supervise(options: Options) -> Result<u8, Failure> {
    sys::one_arena();
    let layout = options.layout.clone();
    files::make_private_dir(&layout.home()).map_err(|error| {
        Failure::new(format!("cannot make {}: {error}", layout.home().display())).hint("choose another --dir")
    })?;
    let lock = lock(&options)?;
    let previous = State::load(&layout).map_err(|what| {
        Failure::new(what).hint(format!("if nothing of it runs any more: rm {}", layout.state().display()))
    })?;
    let argv_digest = state::digest(&options.argv);
    let boot_id = state::boot_id();
    let adoption = look_back(&options, previous.as_ref(), &argv_digest, &boot_id);
    if let Adoption::Refuse { what, hint } = adoption {
        return Err(Failure::new(what).hint(hint));
    }

    let waker = Waker::new().map_err(no_system)?;
    let signals = Signals::install(&waker).map_err(no_system)?;
    // Orphans of the program come to us: as pid 1 they do anyway.
    rustix::process::set_child_subreaper(Some(rustix::process::getpid())).map_err(|error| no_system(error.into()))?;
    let inherited_score = child::oom_score_adj();
    child::protect_self(inherited_score);

    let root = Root::default();
    let ceiling = budget::ceiling(&root);
    let budget =
        budget::decide(options.memory_bytes, options.reserve_bytes, ceiling.as_ref()).map_err(Failure::usage)?;
    let adopted = match &adoption {
        Adoption::Adopt(process) => child::adopt(*process).ok(),
        Adoption::Fresh | Adoption::Lost(_) | Adoption::Refuse { .. } => None,
    };
    // Last of what may fail: from here on a group would be left behind.
    let Ends { streams, inputs, typing, warning } = ends_of(&options)?;
    let (group, why_not) = hold(&root, &options, &budget, previous.as_ref(), adopted.as_ref());
    let stages: Arc<[stage::Stage]> = stage::in_force(&options.stages).into();
    let own = rustix::process::getpid();
    let mailbox = Arc::new(Mailbox::new(waker.clone()));
    let fixed = Fixed {
        name: layout.name().to_owned(),
        pid: own.as_raw_nonzero().get().unsigned_abs(),
        started_unix: wall().as_secs_f64(),
        started: MonotonicClock.now(),
        stages: Arc::clone(&stages),
        oom_counter: match &group {
            Some(group) => Some(group.group().clone()),
            None => Group::of_pid(&root, own.as_raw_nonzero().get()).ok(),
        },
        group: group.clone(),
        why_not: why_not.clone(),
        reserve_asked: options.reserve_bytes,
        policy_name: options.restart.to_string(),
        grace: options.grace,
    };
    let journal = Journal::open(layout.decisions());
    let past = Past::new(layout.history());
    let mouth = Mouth::new(options.quiet, options.silent);
    let shared = Arc::new(Shared::new(fixed, &budget, mouth, journal, Arc::clone(&mailbox), past, waker.clone()));
    shared.set_last_exit(state::load_last_exit(&layout));

    if let Some(warning) = warning {
        shared.stand(&warning);
    }
    let silent = options.silent;
    let echo = if options.quiet { None } else { echo(typing.is_some(), &shared) };
    let (logs, opened) = Logs::start(
        &layout,
        &shared.beat,
        inputs,
        echo,
        Kept { disk_bytes: options.log_disk_bytes, rate: options.log_rate, keep: options.keep, retry: RETRY },
        adopted.is_some(),
    )
    .map_err(no_system)?;
    let logs = Arc::new(logs);
    if let Some(notes) = logs.notes() {
        shared.log_to(notes);
    }
    shared.show_logs(Arc::clone(&logs));
    opened.warnings.iter().for_each(|warning| shared.stand(warning));
    opened.notes.iter().for_each(|note| shared.warn(note));
    banner(&options, &shared, &budget, &root);
    let settled = settle(&options, &adoption, adopted, previous.as_ref(), &shared);
    reports(&options, &shared);
    let helpers = Excluded::default();
    let capture = Capture::new(&options.heap, &layout);
    let captures = capture.as_ref().and_then(|capture| start_captures(capture, &shared, &helpers));
    let web = faces(&options, &shared);

    let recorder = Arc::new(Recorder::new(&layout));
    let starter = Starter {
        streams,
        group: group.clone(),
        stages,
        helpers,
        capture,
        inherited_score,
        state: State {
            groups: group.as_ref().map(|group| group.states()).unwrap_or_default(),
            child_started_unix: previous.as_ref().map_or(0.0, |state| state.child_started_unix),
            ..start::new_state(&options, child::identify(own).unwrap_or_default(), boot_id, argv_digest)
        },
        layout: layout.clone(),
        recorder: Arc::clone(&recorder),
    };
    let terminal = if options.pty { None } else { Terminal::detect() };
    let mut lives = Lives::new(Parts {
        options,
        shared: Arc::clone(&shared),
        mailbox,
        starter,
        terminal,
        logs: Arc::clone(&logs),
        waker,
        signals,
    });
    let code = lives.run(settled);

    let last = ends::last_line(&lives);
    drop(captures);
    drop(web);
    let said = logs.close(DRAIN);
    drop(typing);
    for warning in said {
        speak::direct(&warning);
    }
    drop(lives);
    if let Some(warning) = recorder.close(&layout) {
        speak::direct(&warning);
    }
    let mut left = None;
    if let Some(group) = group {
        let path = group.group().dir().to_owned();
        drop(shared);
        // The last hand on it, unless something is still being shown: then it is removed by the next of this name.
        left = match Arc::try_unwrap(group) {
            Ok(group) => (!group.remove()).then_some(path),
            Err(_) => Some(path),
        };
    }
    if let Some(path) = left {
        speak::direct(&format!("cannot remove {}: something is still in it", path.display()));
    }
    if !silent {
        speak::direct(&last);
    }
    drop(lock);
    Ok(code)
}

#[expect(clippy::needless_pass_by_value, reason = "map_err hands it over")]
fn no_system(error: io::Error) -> Failure {
    Failure::internal(format!("the system refuses what supervising needs: {error}"))
}

fn lock(options: &Options) -> Result<Lock, Failure> {
    let name = options.layout.name();
    Lock::take(&options.layout).map_err(|locked| match locked {
        Locked::Held(Some(pid)) => Failure::new(format!("{name} is already supervised by pid {pid}"))
            .hint(format!("see: plimsoll status {name}; to run a second one, give it another --name")),
        Locked::Held(None) => {
            Failure::new(format!("{name} is already supervised")).hint("give this one another --name")
        }
        Locked::Failed(error) => Failure::new(format!("cannot lock {}: {error}", options.layout.lock().display())),
    })
}

/// What is there already?
fn look_back(options: &Options, previous: Option<&State>, argv_digest: &str, boot_id: &str) -> Adoption {
    let ticks =
        |process: Process| Pid::from_raw(process.pid).and_then(child::identify).map(|process| process.start_ticks);
    let now = Now {
        supervisor_ticks: previous.and_then(|state| ticks(state.supervisor)),
        child_ticks: previous.and_then(|state| state.child).and_then(ticks),
        boot_id,
    };
    adopt::decide(options.layout.name(), previous, argv_digest, now)
}

/// The group of the program: the adopted child's, or a new one; `None` with the reason.
fn hold(
    root: &Root,
    options: &Options,
    budget: &Budget,
    previous: Option<&State>,
    adopted: Option<&Child>,
) -> (Option<Arc<ChildGroup>>, Option<String>) {
    let old = previous.map(|state| state.groups.as_slice()).unwrap_or_default();
    if adopted.is_some() {
        let found = ChildGroup::adopt(root, old, options.swap);
        let why_not = found.is_none().then(|| "the program that was taken over has none".to_owned());
        if let (Some(group), Some(limit)) = (&found, budget.kernel_limit_bytes()) {
            // Refused only where the program holds more already; then the old limit stays and the governor decides.
            group.set_limit(limit).ok();
        }
        return (found.map(Arc::new), why_not);
    }
    group::remove_stale(root, old);
    if !options.cgroup {
        return (None, Some("--no-cgroup was given".to_owned()));
    }
    match ChildGroup::make(root, options.layout.name(), budget.kernel_limit_bytes(), options.swap) {
        Ok(group) => (Some(Arc::new(group)), None),
        Err(why) => (None, Some(why)),
    }
}

/// The program's streams and our ends of them.
struct Ends {
    streams: Streams,
    inputs: Inputs,
    typing: Option<Typing>,
    warning: Option<String>,
}

fn ends_of(options: &Options) -> Result<Ends, Failure> {
    if options.pty {
        let pty = Pty::open().map_err(|error| Failure::new(format!("cannot make a pseudo-terminal: {error}")))?;
        let typing = Typing::start(&pty.master).map_err(no_system)?;
        let (streams, inputs) = (Streams::Pty(pty.slave), Inputs::Pty(pty.master));
        return Ok(Ends { streams, inputs, typing: Some(typing), warning: None });
    }
    let paths = (options.layout.stdout_fifo(), options.layout.stderr_fifo());
    let prepare = |path: &std::path::Path| {
        Fifo::prepare(path).map_err(|error: FifoError| Failure::new(error.to_string()).hint("choose another --dir"))
    };
    let (stdout, stderr) = (prepare(&paths.0)?, prepare(&paths.1)?);
    let warning = stdout.warning().or_else(|| stderr.warning());
    let inputs = Inputs::Fifos { stdout: stdout.into_reader(), stderr: stderr.into_reader() };
    Ok(Ends { streams: Streams::Fifos { stdout: paths.0, stderr: paths.1 }, inputs, typing: None, warning })
}

fn echo(raw: bool, shared: &Shared) -> Option<Echo> {
    match Echo::start(rustix::stdio::stdout().as_fd(), rustix::stdio::stderr().as_fd(), raw) {
        Ok(echo) => {
            shared.mouth.through(echo.voice());
            Some(echo)
        }
        Err(error) => {
            shared.stand(&format!("the output is not echoed: {error}"));
            None
        }
    }
}

/// What a person should know at the start, in a few lines.
fn banner(options: &Options, shared: &Shared, budget: &Budget, root: &Root) {
    let name = options.layout.name();
    for note in &budget.notes {
        shared.tell("start", note);
    }
    for warning in &budget.warnings {
        shared.warn(warning);
    }
    let (group, why_not) = (&shared.fixed.group, &shared.fixed.why_not);
    let held = match (group, why_not) {
        (Some(group), _) => {
            let version = if group.group().version() == Version::V1 { "v1" } else { "v2" };
            format!("cgroup {version} {}", group.group().dir().display())
        }
        (None, Some(why)) => format!("its process tree is summed (no cgroup: {why})"),
        (None, None) => "its process tree is summed".to_owned(),
    };
    match (budget.budget_bytes, budget.kernel_limit_bytes()) {
        (Some(bytes), Some(limit)) => {
            let kernel = match group {
                Some(_) => format!("the kernel's limit is {}", units::size(limit)),
                None => "the kernel has no limit for it alone".to_owned(),
            };
            let reserve = units::size(budget.reserve_bytes);
            shared
                .tell("start", &format!("{name}: budget {}, reserve {reserve}; {kernel}; {held}", units::size(bytes)));
            let drain = Duration::from_millis(ASSUMED_DRAIN_MS);
            let growth = Policy::new(bytes, budget.reserve_bytes).survives_bytes_per_second(drain, REACTION);
            let (mb, ms) = (growth / 1e6, ASSUMED_DRAIN_MS);
            shared.tell(
                "start",
                &format!("survives growth up to {mb:.0} MB/s with a {ms} ms drain (docs/guarantees.md)"),
            );
            let total = host::read(root).map(|host| host.total_bytes).unwrap_or(u64::MAX);
            if limit > total {
                shared.stand(&format!(
                    "budget and reserve, {}, are more than this machine's memory of {}",
                    units::size(limit),
                    units::size(total)
                ));
            }
        }
        _ => shared.tell("start", &format!("{name}: {held}")),
    }
}

/// Settles the past: takes the child over, or closes the books on one that was lost.
fn settle(
    options: &Options,
    adoption: &Adoption,
    adopted: Option<Child>,
    previous: Option<&State>,
    shared: &Shared,
) -> Option<(Child, Option<u64>, u64)> {
    let lost = match (adoption, adopted, previous) {
        (Adoption::Adopt(_), Some(child), Some(state)) => {
            let pid = child.pid.as_raw_nonzero().get();
            let text = format!("pid {pid} taken over: its supervisor, pid {}, died", state.supervisor.pid);
            shared.enter("adopt", None, &text);
            shared.mouth.warn(&text);
            return Some((child, state.oom_kills_before, state.restarts));
        }
        (Adoption::Adopt(process) | Adoption::Lost(process), None, Some(_)) => process.pid,
        _ => return None,
    };
    let detail = format!("pid {lost} ended while nobody supervised it; its status could not be learnt");
    let exit = ExitView {
        reason: "unknown".to_owned(),
        at_unix: wall().as_secs_f64(),
        detail: detail.clone(),
        plimsoll_code: i32::from(crate::exit::FAILURE),
        ..ExitView::default()
    };
    if let Err(error) = state::save_last_exit(&options.layout, &exit) {
        shared.warn(&format!("cannot write {}: {error}", options.layout.last_exit().display()));
    }
    shared.set_last_exit(Some(exit));
    shared.tell("adopt", &detail);
    None
}

/// The thread that captures the heap: without it the program runs all the same.
fn start_captures(capture: &Capture, shared: &Arc<Shared>, helpers: &Excluded) -> Option<CaptureHandle> {
    match capture.start(shared, helpers.clone()) {
        Ok(handle) => {
            shared.heap.set((capture.desk(), capture.shelf())).ok();
            Some(handle)
        }
        Err(error) => {
            shared.stand(&format!("no heap captures: {error}"));
            None
        }
    }
}

/// The socket that the program reports to, and the manager above: without them the program runs as well.
fn reports(options: &Options, shared: &Shared) {
    let relay = Relay::new(Notify::from_env());
    if let Some(problem) = relay.problem() {
        shared.stand(&format!("a service manager is not told of the program: {problem}"));
    }
    match Reports::bind(&options.layout.report_socket(), relay) {
        Ok(reports) => shared.hear_through(Arc::new(reports)),
        Err(error) => shared.stand(&format!("no report socket, so the program cannot tell of itself: {error}")),
    }
}

/// The control socket and, when asked for, the port: neither keeps the program from running.
fn faces(options: &Options, shared: &Arc<Shared>) -> Option<WebHandle> {
    let unix = match web::socket::bind(&options.layout.socket()) {
        Ok(unix) => unix,
        Err(error) => {
            shared.stand(&format!("no control socket, so status, top and set cannot reach it: {error}"));
            return None;
        }
    };
    let tcp = options.http.and_then(|address| match web::socket::bind_tcp(address) {
        Ok(tcp) => Some(tcp),
        Err(error) => {
            shared.stand(&format!("no HTTP on {address}: {error}"));
            None
        }
    });
    let control: Arc<dyn Control> = Arc::clone(shared) as Arc<dyn Control>;
    match web::serve(control, unix, tcp, options.http_token.clone()) {
        Ok(web) => {
            if let Some(address) = web.tcp_addr() {
                shared.tell("start", &format!("http://{address}/ · metrics at http://{address}/metrics"));
            }
            Some(web)
        }
        Err(error) => {
            shared.stand(&format!("no faces: {error}"));
            None
        }
    }
}
