//! The supervise loop: waits for signals, reports and timers, feeds the table, does what it says. Dull on purpose.
//!
//! Asleep it costs nothing: no timer runs except those of a stop, a back-off, one descriptor scan every 30 s while the
//! child runs, and, only while there is no governor, one sign of life a second. At most four descriptors are polled.

mod gone;
mod heard;

use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use plimsoll::clock::{Clock, MonotonicClock, wall};
use plimsoll::units;
use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::process::Signal;

use super::actions::Helpers;
use super::child::Child;
use super::logs::Logs;
use super::mailbox::{Mailbox, Report, Stop};
use super::options::Options;
use super::reach::{Reach, processes};
use super::reason::{Status, signal_name};
use super::restart::{Restarts, Why};
use super::shared::Shared;
use super::signals::{Signals, Waker};
use super::start::Starter;
use super::table::{self, Action, Event, State};
use super::tty::Terminal;
use super::watch::Watch;
use super::{actions, ends, sys};

/// SIGKILL is sent again to what survived it after this long (something forked meanwhile, or cannot be interrupted).
const KILL_CHECK: Duration = Duration::from_millis(100);
/// After so many rounds it is said that something cannot be killed.
const KILL_ROUNDS_SAID: u32 = 50;
/// Time between two scans of the child's descriptors.
const SCAN_INTERVAL: Duration = Duration::from_secs(30);
/// The first one, which growth is measured from.
const FIRST_SCAN: Duration = Duration::from_secs(2);
/// The longest wait while no governor shows signs of life for the supervisor.
const BEAT_INTERVAL: Duration = Duration::from_secs(1);

/// When things are due, on the monotonic clock.
#[derive(Debug, Default)]
struct Timers {
    grace: Option<Duration>,
    kill_check: Option<Duration>,
    backoff: Option<Duration>,
    scan: Option<Duration>,
    leftovers: Option<Duration>,
    oom_told: Option<Duration>,
    /// The exit status of an adopted child is given up.
    status: Option<Duration>,
}

/// What is known about the life that runs.
#[derive(Debug, Default)]
pub(crate) struct Facts {
    /// When it started, on the monotonic clock.
    pub(crate) started: Duration,
    /// How the main process ended.
    pub(crate) status: Option<Status>,
    /// SIGTERM for memory went out.
    pub(crate) stop: Option<Stop>,
    /// SIGKILL went out.
    pub(crate) killed: bool,
    /// SIGKILL rounds so far.
    kill_rounds: u32,
    /// The main process ended before the others.
    main_gone: bool,
    /// The group's `oom_kill` counter when it started.
    pub(crate) oom_kills_before: Option<u64>,
    /// What of its growth has been told.
    oom_kills_told: u64,
    /// A ^C or ^\ of the terminal went to the child, not to us.
    interrupted: bool,
    /// We took the governor's right to stop it away, because another stop is under way.
    disarmed: bool,
}

/// What a supervisor is made of.
pub(crate) struct Parts {
    pub(crate) options: Options,
    pub(crate) shared: Arc<Shared>,
    pub(crate) mailbox: Arc<Mailbox>,
    pub(crate) starter: Starter,
    pub(crate) terminal: Option<Terminal>,
    pub(crate) logs: Arc<Logs>,
    pub(crate) waker: Waker,
    pub(crate) signals: Signals,
}

/// A running supervisor.
pub(crate) struct Lives {
    pub(crate) options: Options,
    pub(crate) shared: Arc<Shared>,
    pub(crate) mailbox: Arc<Mailbox>,
    pub(crate) starter: Starter,
    pub(crate) helpers: Helpers,
    pub(crate) restarts: Restarts,
    pub(crate) terminal: Option<Terminal>,
    waker: Waker,
    signals: Signals,
    clock: MonotonicClock,
    state: State,
    timers: Timers,
    pub(crate) child: Option<Child>,
    pub(crate) watch: Option<Watch>,
    pub(super) reach: Option<Reach>,
    pub(crate) facts: Facts,
    /// The signal with which we were asked to end.
    pub(super) asked: Option<i32>,
    pub(super) next_delay: Duration,
    pub(super) end: Option<Why>,
    pub(super) ended: Option<ends::Ended>,
    pub(super) exit_code: u8,
    logs: Arc<Logs>,
    /// The pages of code that only the start needed were given back.
    trimmed: bool,
}

impl Lives {
    /// Everything is set up; no child runs yet.
    pub(crate) fn new(parts: Parts) -> Lives {
        let Parts { options, shared, mailbox, starter, terminal, logs, waker, signals } = parts;
        Lives {
            restarts: Restarts::new(options.restart, options.backoff, options.max_restarts),
            helpers: Helpers::new(starter.helpers.clone()),
            options,
            shared,
            mailbox,
            starter,
            terminal,
            waker,
            signals,
            clock: MonotonicClock,
            state: State::Starting,
            timers: Timers::default(),
            child: None,
            watch: None,
            reach: None,
            facts: Facts::default(),
            asked: None,
            next_delay: Duration::ZERO,
            end: None,
            ended: None,
            exit_code: 0,
            logs,
            trimmed: false,
        }
    }

    /// Where it stands.
    pub(super) fn state(&self) -> State {
        self.state
    }

    /// Now, on the monotonic clock.
    pub(super) fn now(&self) -> Duration {
        self.clock.now()
    }

    /// Runs until there is no further life; returns the exit code. `adopted`: begins with a child that is there already,
    /// its `oom_kill` counter at its start, and the restarts before it.
    pub(crate) fn run(&mut self, adopted: Option<(Child, Option<u64>, u64)>) -> u8 {
        self.shared.set_state(self.state);
        match adopted {
            Some((child, oom_kills_before, restarts)) => self.take_over(child, oom_kills_before, restarts),
            None => self.act(Action::Start),
        }
        while self.state != State::Exited {
            self.wait();
            self.shared.beat.busy();
            self.hear_signals();
            self.hear_governor();
            self.hear_reports();
            self.hear_requests();
            self.look_at_adopted();
            self.look_at_timers();
        }
        self.helpers.end();
        self.exit_code
    }

    /// Sleeps until something happens or is due.
    fn wait(&mut self) {
        self.shared.beat.idle();
        let now = self.clock.now();
        let timers = &self.timers;
        let due = [
            timers.grace,
            timers.kill_check,
            timers.backoff,
            timers.scan,
            timers.leftovers,
            timers.oom_told,
            timers.status,
            self.helpers.deadline(),
            self.reports_again(),
            self.alive_due(now),
        ];
        let beat = self.watch.is_none().then(|| now + BEAT_INTERVAL);
        let timeout = due.into_iter().flatten().chain(beat).min().map(|at| {
            let left = at.saturating_sub(now);
            Timespec { tv_sec: left.as_secs().try_into().unwrap_or(i64::MAX), tv_nsec: left.subsec_nanos().into() }
        });
        let adopted: Option<&OwnedFd> = match (&self.child, self.facts.status) {
            (Some(child), None) if child.adopted => child.pidfd.as_ref(),
            _ => None,
        };
        let mut fds = vec![PollFd::new(&self.waker, PollFlags::IN)];
        // A zombie stays readable; a hang-up, which needs no asking for, says that it was reaped.
        let of_interest = if timers.status.is_some() { PollFlags::empty() } else { PollFlags::IN };
        fds.extend(adopted.map(|pidfd| PollFd::new(pidfd, of_interest)));
        let reports = self.shared.reports().and_then(|reports| reports.poll().ok());
        fds.extend(reports.map(|socket| PollFd::from_borrowed_fd(socket, PollFlags::IN)));
        // EINTR is a signal that has set the waker as well; nothing else can fail with valid descriptors.
        rustix::event::poll(&mut fds, timeout.as_ref()).ok();
        self.waker.clear();
    }

    /// Feeds one event to the table and does what it says.
    fn feed(&mut self, event: Event) {
        let (state, actions) = table::next(self.state, event);
        if state != self.state {
            self.state = state;
            self.shared.set_state(state);
        }
        for action in actions {
            self.act(*action);
        }
    }

    fn act(&mut self, action: Action) {
        let now = self.clock.now();
        match action {
            Action::Start => self.start(),
            Action::SendStop => self.send_stop(),
            Action::RepeatStop => {
                if let (Some(signal), Some(reach)) = (self.asked.and_then(Signal::from_named_raw), &mut self.reach) {
                    reach.signal(signal);
                }
            }
            Action::ArmGrace => self.timers.grace = Some(now + self.options.grace),
            Action::SendKill => self.send_kill(),
            Action::ArmKillCheck => {
                self.timers.grace = None;
                self.timers.kill_check = Some(now + KILL_CHECK);
            }
            Action::EndLife => ends::end_life(self),
            Action::ArmBackoff => {
                self.shared.set_next_start(Some(now + self.next_delay));
                self.timers.backoff = Some(now + self.next_delay);
            }
            Action::Disarm => {
                self.timers = Timers::default();
                self.shared.set_next_start(None);
            }
            // The loop ends because of the state; the last line is said when the logs are closed.
            Action::Finish => {}
        }
    }

    fn hear_signals(&mut self) {
        let signals: Vec<i32> = self.signals.take().collect();
        for signal in signals {
            match signal {
                libc::SIGCHLD => self.reap(),
                libc::SIGTERM | libc::SIGINT => self.ask_stop(signal),
                libc::SIGCONT => {
                    if let (Some(terminal), Some(child)) = (&self.terminal, &self.child) {
                        terminal.resume(child.pid);
                    }
                }
                libc::SIGWINCH => self.starter.resize_pty(self.child.as_ref()),
                // Meant for the program itself: others of its group may die of a signal that they do not catch.
                other => {
                    if let (Some(signal), Some(child)) = (Signal::from_named_raw(other), &self.child)
                        && child.signal(signal).is_ok()
                    {
                        self.shared
                            .tell("signal", &format!("SIG{} passed on to pid {}", signal_name(other), child.pid));
                    }
                }
            }
        }
    }

    /// Asked to end by a signal, or over the control socket.
    fn ask_stop(&mut self, signal: i32) {
        let first = self.asked.replace(signal).is_none();
        if first {
            self.shared.tell("signal", &format!("SIG{}: stopping", signal_name(signal)));
            self.say_above(&format!("STOPPING=1\nSTATUS=stopping: SIG{}", signal_name(signal)));
        }
        let already = first && self.state == State::Stopping;
        if !already {
            self.feed(Event::StopAsked);
        }
    }

    fn hear_governor(&mut self) {
        while let Some(report) = self.mailbox.take() {
            match report {
                Report::Changed(decision) => self.shared.level_changed(&decision),
                Report::Due(stages, decision) => actions::fire(self, stages, &decision),
            }
        }
        if let Some(stop) = self.mailbox.take_stop() {
            self.note_stop(stop);
            self.wake_stopped();
            self.feed(Event::MemoryStop);
        }
        self.look_for_oom_kills();
    }

    fn note_stop(&mut self, stop: Stop) {
        self.facts.stop = Some(stop);
        self.shared.stopped_for_memory(&stop, self.options.grace);
    }

    /// This life's streams are complete, and what the governor still had to say belongs to it.
    pub(super) fn child_ended(&mut self) {
        self.logs.child_ended();
        self.mailbox.empty();
    }

    fn hear_requests(&mut self) {
        let requests = self.shared.take_requests();
        if requests.limits_changed {
            self.starter.save_state(
                self.child.as_ref(),
                &self.shared,
                self.restarts.total,
                self.facts.oom_kills_before,
            );
        }
        if requests.stop {
            self.ask_stop(libc::SIGTERM);
        }
    }

    fn look_at_timers(&mut self) {
        let now = self.clock.now();
        let take = |timer: &mut Option<Duration>| timer.is_some_and(|at| at <= now) && timer.take().is_some();
        if take(&mut self.timers.grace) {
            self.feed(Event::GraceOver);
        }
        if take(&mut self.timers.kill_check) {
            self.look_whether_gone();
            self.feed(Event::KillOver);
        }
        if take(&mut self.timers.leftovers) {
            self.look_whether_gone();
        }
        if take(&mut self.timers.oom_told) {
            self.tell_oom_kills();
        }
        if take(&mut self.timers.backoff) {
            self.feed(Event::BackoffOver);
        }
        if take(&mut self.timers.scan) {
            if !std::mem::replace(&mut self.trimmed, true) {
                sys::forget_code();
            }
            self.shared.scan_descriptors();
            self.shared.remember();
            if let Some((desk, _)) = self.shared.heap.get() {
                desk.look(now, self.shared.charged_bytes());
            }
            self.timers.scan = Some(now + SCAN_INTERVAL);
        }
        self.helpers.look_at_deadline(now, &self.shared);
    }

    fn send_stop(&mut self) {
        if let Some(watch) = &self.watch {
            self.facts.disarmed = watch.life.armed.swap(false, Ordering::SeqCst);
        }
        let signal = self.asked.and_then(Signal::from_named_raw).unwrap_or(Signal::TERM);
        if let Some(reach) = &mut self.reach
            && !self.facts.interrupted
        {
            let sent = reach.signal(signal);
            let grace = units::duration(self.options.grace);
            self.shared.tell("stage", &format!("SIG{} sent {sent}; SIGKILL in {grace}", signal_name(signal.as_raw())));
        }
        self.wake_stopped();
    }

    /// A stopped process takes no SIGTERM before it is continued.
    fn wake_stopped(&mut self) {
        let Some(child) = &self.child else { return };
        let identity = plimsoll::gauge::process::read_identity(
            &plimsoll::gauge::Root::default(),
            child.pid.as_raw_nonzero().get(),
        );
        if identity.is_ok_and(|identity| identity.state == b'T')
            && let Some(reach) = &mut self.reach
        {
            reach.signal(Signal::CONT);
        }
    }

    fn send_kill(&mut self) {
        let Some(reach) = &mut self.reach else { return };
        self.facts.kill_rounds += 1;
        let killed = reach.kill();
        if !std::mem::replace(&mut self.facts.killed, true) {
            let grace = units::duration(self.options.grace);
            self.shared.tell(
                "stage",
                &format!("SIGKILL sent to {}: still there {grace} after the stop signal", processes(killed)),
            );
        } else if self.facts.kill_rounds == KILL_ROUNDS_SAID {
            self.shared.warn(&format!("{} left after SIGKILL (uninterruptible); still trying", processes(killed)));
        }
    }

    fn start(&mut self) {
        self.facts = Facts { started: self.clock.now(), oom_kills_before: self.shared.oom_kills(), ..Facts::default() };
        self.begin_to_hear();
        let first = self.restarts.total == 0;
        match self.starter.start(&self.options, self.terminal.as_ref(), &self.shared) {
            Ok(child) => {
                self.begin(child);
                self.feed(Event::Started);
            }
            Err(error) => {
                self.shared.warn(&format!("{}\n  hint: {}", error.what, error.hint));
                self.facts.status = Some(Status::NotStarted(error.code));
                // What never ran once is a mistake in the command, whatever the restart policy.
                let again = ends::judge(self) == Event::GoneRestart && !first;
                let event = if again { Event::StartFailedRetry } else { Event::StartFailedEnd };
                if !again {
                    ends::no_other(self);
                }
                self.feed(event);
            }
        }
    }

    fn take_over(&mut self, child: Child, oom_kills_before: Option<u64>, restarts: u64) {
        // It began before us: its life counts from there.
        let lived = wall().as_secs_f64() - self.starter.state.child_started_unix;
        let lived = Duration::try_from_secs_f64(lived).unwrap_or_default();
        let started = self.clock.now().saturating_sub(lived);
        self.facts = Facts { started, oom_kills_before, ..Facts::default() };
        self.restarts.total = restarts;
        self.shared.set_restarts(restarts);
        self.begin(child);
        self.feed(Event::Started);
    }

    /// A child runs: watch it.
    fn begin(&mut self, child: Child) {
        self.starter.save_state(Some(&child), &self.shared, self.restarts.total, self.facts.oom_kills_before);
        self.shared.child_started(&child, self.starter.state.child_started_unix);
        match self.starter.watch(&child, &self.shared, &self.mailbox) {
            Ok(watch) => {
                self.reach =
                    Some(Reach::new(child.pid, child.adopted, watch.bond.clone(), self.starter.helpers.clone()));
                self.shared.set_watch(&watch);
                self.watch = Some(watch);
            }
            Err(error) => {
                self.reach = self.starter.reach_without_watch(&child);
                self.shared.warn(&format!("cannot govern: {error}"));
            }
        }
        self.timers.scan = Some(self.clock.now() + FIRST_SCAN);
        if let Some((desk, _)) = self.shared.heap.get() {
            desk.life_began(self.clock.now());
        }
        self.child = Some(child);
    }
}
