//! Starting one life of the program with what the supervisor has ready: group, streams, environment, governor.

use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::path::PathBuf;
use std::sync::Arc;

use plimsoll::clock::wall;
use plimsoll::gauge::Root;
use plimsoll::gauge::offered::WATCH_VAR;
use plimsoll::gauge::tree::{Excluded, TreeGauge};

use super::child::{self, Child, NotStarted, Spec};
use super::derive::{self, Change, Derived};
use super::group::ChildGroup;
use super::mailbox::Mailbox;
use super::options::Options;
use super::pty;
use super::reach::{self, Bond, Reach};
use super::recorder::Recorder;
use super::reports::offer;
use super::shared::Shared;
use super::stage::Stage;
use super::state::{Process, State, VERSION};
use super::sys::{self, Prelude};
use super::tty::Terminal;
use super::watch::{self, Subject, Watch};
use crate::capture::Capture;
use crate::snapshot::DerivedView;

/// Where the program's streams go.
#[derive(Debug)]
pub(crate) enum Streams {
    /// FIFOs, opened anew for each life.
    Fifos { stdout: PathBuf, stderr: PathBuf },
    /// The program's end of its own terminal.
    Pty(OwnedFd),
}

/// What every life is started with.
pub(crate) struct Starter {
    pub(crate) streams: Streams,
    pub(crate) group: Option<Arc<ChildGroup>>,
    pub(crate) stages: Arc<[Stage]>,
    /// Plimsoll's own children that are not the program.
    pub(crate) helpers: Excluded,
    /// The `oom_score_adj` that Plimsoll was started with.
    pub(crate) inherited_score: Option<i32>,
    /// The state file as far as it stays the same.
    pub(crate) state: State,
    pub(crate) layout: crate::layout::Layout,
    /// Heap captures, unless they are off.
    pub(crate) capture: Option<Capture>,
    /// The decision log.
    pub(crate) recorder: Arc<Recorder>,
}

impl Starter {
    /// Starts the program.
    pub(crate) fn start(
        &mut self,
        options: &Options,
        terminal: Option<&Terminal>,
        shared: &Shared,
    ) -> Result<Child, NotStarted> {
        let mut derived = environment(options, shared);
        derived.extend(self.for_captures(&derived, shared));
        derived.extend(self.offers(options, shared));
        let no_stream = |what: &str, error: &io::Error| NotStarted {
            code: 126,
            what: format!("cannot give the program its {what}: {error}"),
            hint: "see the directory that --dir names".to_owned(),
        };
        let duplicate = |fd: &OwnedFd| sys::duplicate(fd).map_err(|error| no_stream("terminal", &error));
        let mut prelude =
            Prelude { oom_score_adj: child::child_oom_score_adj(self.inherited_score), ..Prelude::default() };
        let (stdin, stdout, stderr) = match &self.streams {
            Streams::Fifos { stdout, stderr } => {
                prelude.terminal = terminal.and_then(Terminal::for_child);
                let open = |path: &PathBuf| child::open_fifo(path).map_err(|error| no_stream("output", &error));
                (None, open(stdout)?, open(stderr)?)
            }
            Streams::Pty(slave) => {
                prelude.pty = Some(duplicate(slave)?);
                (Some(duplicate(slave)?), duplicate(slave)?, duplicate(slave)?)
            }
        };
        if let Some(group) = &self.group {
            if let Err(error) = shared.apply_limit() {
                shared.warn(&format!("the kernel's limit cannot be set: {error}"));
            }
            match group.joiners() {
                Ok(joiners) => prelude.cgroups = joiners,
                Err(error) => shared.warn(&format!("the program cannot be put into its cgroup: {error}")),
            }
        }
        let child = child::spawn(Spec { argv: &options.argv, derived: &derived, stdin, stdout, stderr, prelude })?;
        if let Some(group) = &self.group {
            let pid = child.pid.as_raw_nonzero().get();
            // Gone already is no finding; alive and elsewhere is.
            if !group.holds(pid) && child::identify(child.pid).is_some() {
                shared
                    .warn(&format!("pid {pid} is not in the cgroup that was made for it: its memory is not governed"));
            }
        }
        self.state.child_started_unix = wall().as_secs_f64();
        Ok(child)
    }

    /// What captures need in the program's environment, on top of what is derived.
    fn for_captures(&self, derived: &[Derived], shared: &Shared) -> Vec<Derived> {
        let Some(capture) = &self.capture else { return Vec::new() };
        let lookup = |name: &str| match derived.iter().find(|one| one.name == name).map(|one| &one.change) {
            Some(Change::Set(value)) => Some(value.clone()),
            // Opted out by an empty value: of captures by this variable, too.
            Some(Change::Remove) => Some(String::new()),
            Some(Change::Keep | Change::Skip) | None => {
                std::env::var_os(name).map(|value| value.to_string_lossy().into_owned())
            }
        };
        capture.environment(lookup).unwrap_or_else(|why| {
            shared.stand(&format!("no heap captures: {why}"));
            Vec::new()
        })
    }

    /// What it is offered beside the derived limits; the pressure to watch is shown, the sockets are not.
    fn offers(&self, options: &Options, shared: &Shared) -> Vec<Derived> {
        let pressure = self.group.as_ref().and_then(|group| group.pressure_file());
        let socket = shared.reports().map(|reports| reports.path());
        let env = |name: &str| std::env::var_os(name).map(|value| value.to_string_lossy().into_owned());
        let offers = offer::offers(socket, pressure.as_deref(), options.derive, env);
        shared.set_offered(offers.iter().filter(|one| one.name == WATCH_VAR).map(view).collect());
        offers
    }

    /// Starts watching a life.
    pub(crate) fn watch(&self, child: &Child, shared: &Shared, mailbox: &Arc<Mailbox>) -> io::Result<Watch> {
        watch::start(&Subject {
            main: child.pid,
            adopted: child.adopted,
            group: self.group.as_ref(),
            helpers: &self.helpers,
            policy: shared.policy(),
            stages: &self.stages,
            mailbox,
            recorder: &self.recorder,
            beat: &shared.beat,
        })
    }

    /// How signals reach a life that cannot be watched.
    pub(crate) fn reach_without_watch(&self, child: &Child) -> Option<Reach> {
        let bond = match &self.group {
            Some(group) => Bond::Group(Arc::clone(group)),
            None => {
                let scope = reach::scope(child.pid, child.adopted, &self.helpers);
                Bond::Tree(TreeGauge::open(&Root::default(), scope).ok()?.monitor())
            }
        };
        Some(Reach::new(child.pid, child.adopted, bond, self.helpers.clone()))
    }

    /// Writes the state file: what the next supervisor needs if this one dies now.
    pub(crate) fn save_state(
        &mut self,
        child: Option<&Child>,
        shared: &Shared,
        restarts: u64,
        oom_kills_before: Option<u64>,
    ) {
        let (budget_bytes, reserve_bytes) = shared.budget();
        self.state.child = child.map(|child| child.process);
        self.state.budget_bytes = budget_bytes;
        self.state.reserve_bytes = reserve_bytes;
        self.state.restarts = restarts;
        self.state.oom_kills_before = oom_kills_before;
        if let Err(error) = self.state.save(&self.layout) {
            let path = self.layout.state();
            shared.warn(&format!(
                "cannot write {}: {error}; a next supervisor could not take the program over",
                path.display()
            ));
        }
    }

    /// Our terminal changed its size: so does the program's.
    pub(crate) fn resize_pty(&self, child: Option<&Child>) {
        match &self.streams {
            Streams::Pty(slave) => pty::resize(slave.as_fd()),
            Streams::Fifos { .. } => {
                if let Some(child) = child {
                    // It ended meanwhile: nobody has to know.
                    child.signal(rustix::process::Signal::WINCH).ok();
                }
            }
        }
    }
}

/// The state file of a new supervisor.
pub(crate) fn new_state(options: &Options, supervisor: Process, boot_id: String, argv_digest: String) -> State {
    State {
        version: VERSION,
        plimsoll: env!("CARGO_PKG_VERSION").to_owned(),
        boot_id,
        supervisor,
        argv_digest,
        argv_count: options.argv.len(),
        fifos: vec![options.layout.stdout_fifo(), options.layout.stderr_fifo()],
        pty: options.pty,
        ..State::default()
    }
}

/// The derived variables for the budget in force, shown as they are used.
fn environment(options: &Options, shared: &Shared) -> Vec<Derived> {
    if !options.derive {
        return Vec::new();
    }
    let lookup = |name: &str| std::env::var_os(name).map(|value| value.to_string_lossy().into_owned());
    let (derived, warnings) = match shared.budget().0 {
        Some(budget) => derive::derive(budget, lookup),
        None => (vec![derive::unbuffered(lookup)], Vec::new()),
    };
    let views = derived.iter().map(view).collect();
    if shared.set_derived(views) {
        for warning in warnings {
            shared.warn(&warning);
        }
        let set: Vec<String> = derived
            .iter()
            .filter_map(|one| match &one.change {
                Change::Set(value) if value.contains(' ') => Some(format!("{}={value:?}", one.name)),
                Change::Set(value) => Some(format!("{}={value}", one.name)),
                Change::Keep | Change::Remove | Change::Skip => None,
            })
            .collect();
        if !set.is_empty() {
            shared.tell("derived", &format!("derived for the program: {}", set.join(" ")));
        }
        let left: Vec<String> = derived
            .iter()
            .filter(|one| one.change != Change::Keep || one.name != derive::UNBUFFERED)
            .filter(|one| !matches!(one.change, Change::Set(_)))
            .map(|one| format!("{} ({})", one.name, one.note))
            .collect();
        if !left.is_empty() {
            shared.tell("derived", &format!("not derived: {}", left.join(", ")));
        }
    }
    derived
}

fn view(one: &Derived) -> DerivedView {
    let value = match &one.change {
        Change::Set(value) => Some(value.clone()),
        Change::Keep | Change::Remove | Change::Skip => None,
    };
    DerivedView { name: one.name.to_owned(), value, note: one.note.clone() }
}
