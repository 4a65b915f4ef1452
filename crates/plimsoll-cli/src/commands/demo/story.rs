//! The story as lines: what the decision log says, when it says it, and once for each kind of event what it means.
//!
//! Pure: snapshots and decisions in, lines out; no clock, no terminal. At most [`SHOWN_MAX`] events are told after each
//! other; what comes between two looks beyond that is counted.

use std::net::SocketAddr;
use std::time::Duration;

use plimsoll::units;

use super::Spoken;
use crate::snapshot::{DecisionView, ExitView, RunState, Snapshot};
use crate::view::bar::Scale;
use crate::view::text::{Line, Tone, width};
use crate::view::words;

/// Events told at one look.
pub(super) const SHOWN_MAX: usize = 50;
/// Columns before the words of an event: time and kind.
const INDENT: usize = 19;
/// Columns of the live bar.
const BAR: usize = 36;

/// What is going to be shown.
#[derive(Clone, Debug)]
pub(super) struct Plan {
    pub(super) rate_bytes: u64,
    pub(super) backoff: Duration,
    pub(super) length: Option<Duration>,
    pub(super) http: SocketAddr,
    pub(super) spoken: Spoken,
}

/// What has been told so far.
pub(super) struct Story {
    plan: Plan,
    columns: usize,
    began_unix: f64,
    told_unix: f64,
    pid: Option<u32>,
    explained: Vec<&'static str>,
    /// Ends of a life by reason memory, and the last one.
    stops: u64,
    last_exit: Option<ExitView>,
    last: Option<Snapshot>,
}

impl Story {
    pub(super) fn new(plan: Plan, columns: usize, began_unix: f64) -> Story {
        Story {
            plan,
            columns: columns.clamp(60, 120),
            began_unix,
            told_unix: began_unix,
            pid: None,
            explained: Vec::new(),
            stops: 0,
            last_exit: None,
            last: None,
        }
    }

    /// The short introduction.
    pub(super) fn introduction(&self, now: &Snapshot) -> Vec<Line> {
        let memory = &now.memory;
        let budget = memory.budget_bytes.map_or_else(|| "?".to_owned(), words::size);
        let kernel = match (memory.kernel_limit_bytes, &now.group.why_not) {
            (Some(limit), None) => format!("the kernel would kill it at {}", words::size(limit)),
            (_, Some(why)) => format!("no cgroup of its own ({why}): its process tree is summed"),
            (None, None) => "the kernel has no limit for it".to_owned(),
        };
        let page = match now.http.as_ref().and_then(|http| http.address.as_ref()) {
            Some(address) => format!("http://{address}/"),
            None => format!("none: {} is taken", self.plan.http),
        };
        let end = match self.plan.length {
            Some(length) => format!("in {}, or Ctrl-C", units::duration(length)),
            None => "Ctrl-C".to_owned(),
        };
        let fact = |what: &str, text: String| {
            let line = Line::new().plain("  ").add(Tone::Dim, what).pad_to(14);
            line.plain(text).clip(self.columns.max(100))
        };
        vec![
            Line::new().add(Tone::Strong, "A service with a memory leak, kept from the kernel's OOM killer."),
            Line::new(),
            fact("service", format!("HTTP on loopback, leaks {}/s", words::size(self.plan.rate_bytes))),
            fact(
                "budget",
                format!("{budget}, and {} more in which to stop; {kernel}", words::size(memory.reserve_bytes)),
            ),
            fact("page", page),
            fact("look", format!("{}   (in another terminal)", self.plan.spoken.line("top"))),
            fact("end", end),
            Line::new(),
        ]
    }

    /// What happened since the last look. `url`: where the service said that it serves.
    pub(super) fn hear(&mut self, now: &Snapshot, decisions: &[DecisionView], url: Option<&str>) -> Vec<Line> {
        let mut lines = Vec::new();
        let fresh: Vec<&DecisionView> = decisions.iter().filter(|entry| entry.at_unix > self.told_unix).collect();
        for entry in &fresh {
            self.told_unix = self.told_unix.max(entry.at_unix);
            self.event(entry, now, &mut lines);
        }
        if fresh.len() >= SHOWN_MAX {
            lines.push(Line::new().add(Tone::Dim, format!("  more than {SHOWN_MAX} at once: the log has them all")));
        }
        if let (Some(child), Some(url)) = (&now.child, url)
            && self.pid != Some(child.pid)
        {
            self.pid = Some(child.pid);
            let text = format!("pid {} serves {url}", child.pid);
            self.say(child.started_unix.max(self.began_unix), Tone::Good, "running", &text, &mut lines);
        }
        if self.last_exit != now.last_exit {
            self.last_exit.clone_from(&now.last_exit);
        }
        self.last = Some(now.clone());
        lines
    }

    /// What was still to be told when it was over.
    pub(super) fn ended(&mut self, exit: Option<ExitView>, decisions: &[DecisionView]) -> Vec<Line> {
        let Some(mut last) = self.last.take() else { return Vec::new() };
        if exit.is_some() {
            last.last_exit = exit;
        }
        self.hear(&last, decisions, None)
    }

    fn event(&mut self, entry: &DecisionView, now: &Snapshot, lines: &mut Vec<Line>) {
        let at = entry.at_unix;
        match (entry.kind.as_str(), entry.text.strip_prefix("memory: ")) {
            // Said in the introduction, or nothing that a newcomer needs.
            ("start" | "derived", _) => {}
            ("level", _) => {
                let figures = entry.text.split_once("): ").map_or(entry.text.as_str(), |(_, figures)| figures);
                self.say(at, words::level_tone(&entry.level), &entry.level, figures, lines);
                match entry.level.as_str() {
                    "elevated" => {
                        self.explain("elevated", "three quarters of the budget: noted, nothing is done yet", lines);
                    }
                    "high" => self.explain(
                        "high",
                        "88 %: here --on high=signal:USR1 or exec:CMD could ask it to free memory",
                        lines,
                    ),
                    _ => {}
                }
            }
            ("stage", Some(figures)) => {
                let figures = figures.split_once(": critical stop: ").map_or(figures, |(_, done)| done);
                self.say(at, Tone::Alarm, "stop", figures, lines);
                match (now.memory.kernel_limit_bytes, &now.group.why_not) {
                    (Some(limit), None) => self.explain(
                        "stop",
                        &format!(
                            "asked to end while it still can; at {} the kernel would kill it outright",
                            words::size(limit)
                        ),
                        lines,
                    ),
                    _ => self.explain(
                        "stop",
                        "asked to end while it still can, before the machine runs out of memory",
                        lines,
                    ),
                }
            }
            ("restart", _) => {
                let (reason, wait) = entry.text.rsplit_once("; restart").unwrap_or((&entry.text, ""));
                self.stops += u64::from(reason.starts_with("reason memory"));
                self.say(at, Tone::Note, "ended", reason, lines);
                if reason.contains("exited with code 0") {
                    self.explain("ended", "it finished its requests and left by itself: nothing was lost", lines);
                }
                self.say(at, Tone::Warn, "back-off", &format!("restart{wait}"), lines);
                let first = units::duration(self.plan.backoff);
                self.explain(
                    "back-off",
                    &format!("about {first} at first (run: 100 ms), doubled each time; a calm minute resets it"),
                    lines,
                );
            }
            ("exit", _) => self.say(at, Tone::Note, "ended", &entry.text, lines),
            ("adopt", _) if entry.text.contains("taken over") => {
                self.say(at, Tone::Note, "adopted", &entry.text, lines);
                self.explain("adopt", "a supervisor that is killed neither kills its program nor loses its log", lines);
            }
            ("adopt", _) => self.say(at, Tone::Warn, "lost", &entry.text, lines),
            ("warning", _) => self.say(at, Tone::Warn, "warning", &entry.text, lines),
            (kind, _) => self.say(at, Tone::Note, kind, &entry.text, lines),
        }
    }

    /// One event.
    fn say(&self, at_unix: f64, tone: Tone, kind: &str, text: &str, lines: &mut Vec<Line>) {
        let time = format!("{:>6.1} s  ", (at_unix - self.began_unix).max(0.0));
        self.wrap(Line::new().add(Tone::Dim, time).add(tone, kind), INDENT, Tone::Plain, text, lines);
    }

    /// What an event means, the first time that it happens.
    fn explain(&mut self, what: &'static str, text: &str, lines: &mut Vec<Line>) {
        if !self.explained.contains(&what) {
            self.explained.push(what);
            self.wrap(Line::new(), INDENT, Tone::Dim, text, lines);
        }
    }

    /// `text` at column `indent` behind `line`; what does not fit into the columns goes on below.
    fn wrap(&self, line: Line, indent: usize, tone: Tone, text: &str, lines: &mut Vec<Line>) {
        let mut line = line.pad_to(indent);
        for word in text.split(' ') {
            if line.width() > indent && line.width() + 1 + width(word) > self.columns {
                lines.push(std::mem::replace(&mut line, Line::new().pad_to(indent)));
            } else if line.width() > indent {
                line.push(tone, " ");
            }
            line.push(tone, word);
        }
        lines.push(line);
    }

    /// The one line that moves.
    pub(super) fn live(&self, now: &Snapshot, columns: usize) -> Line {
        let elapsed = format!("{:>6.1} s  ", (now.at_unix - self.began_unix).max(0.0));
        let mut line = Line::new().add(Tone::Dim, elapsed);
        let charged = now.memory.charged_bytes;
        let words = match (now.state, now.restarts.next_in_seconds) {
            (RunState::BackingOff, Some(wait)) => {
                Line::new().add(Tone::Warn, format!("next start in {}", words::seconds(wait.max(0.0))))
            }
            (RunState::Running, _) => match charged {
                Some(bytes) => {
                    let tone = words::level_tone(&now.governor.level);
                    let figures = Line::new().add(tone, words::size(bytes)).plain("  ");
                    figures.join(words::growth(&now.governor))
                }
                None => words::charged(&now.memory),
            },
            _ => {
                let (tone, word) = words::state(now);
                Line::new().add(tone, word)
            }
        };
        let room = columns.saturating_sub(line.width() + words.width() + 3);
        if let Some(scale) = Scale::of(&now.memory).filter(|_| room >= 10) {
            let filled = if now.child.is_some() { charged.unwrap_or(0) } else { 0 };
            line = line.join(scale.bar(filled, room.min(BAR))).plain("  ");
        }
        line.join(words).clip(columns.saturating_sub(1))
    }

    /// The same where nothing can move.
    pub(super) fn progress(&self, now: &Snapshot) -> Option<Line> {
        let line = Line::new().add(Tone::Dim, format!("{:>6.1} s  ", (now.at_unix - self.began_unix).max(0.0)));
        match (now.state, now.memory.charged_bytes, now.memory.budget_bytes) {
            (RunState::Running, Some(bytes), Some(budget)) => Some(
                line.plain(&now.governor.level)
                    .pad_to(INDENT)
                    .plain(format!("{} of {}, ", words::size(bytes), words::size(budget)))
                    .join(words::growth(&now.governor)),
            ),
            _ => None,
        }
    }

    /// What happened, and what to try next.
    pub(super) fn summary(&self) -> Vec<Line> {
        let mut lines = vec![Line::new()];
        let Some(last) = &self.last else { return Vec::new() };
        let fact = |what: &str, text: String| Line::new().plain("  ").add(Tone::Dim, what).pad_to(14).plain(text);
        let budget = last.memory.budget_bytes.map_or_else(|| "?".to_owned(), words::size);
        let length = words::seconds(last.at_unix - self.began_unix);
        let times = words::plural(self.stops, "time", "times");
        lines.push(Line::new().add(Tone::Strong, format!("That was {length}.")));
        lines.push(Line::new());
        lines.push(fact(
            "stops",
            match self.stops {
                0 => format!("none: it did not reach its budget of {budget}"),
                _ => format!("{times} it reached its budget of {budget} and was asked to end: reason memory"),
            },
        ));
        if let Some(exit) = &self.last_exit {
            let begin = Line::new().plain("  ").add(Tone::Dim, "last end").pad_to(14);
            self.wrap(begin, 14, Tone::Plain, &format!("reason {}: {}", exit.reason, exit.detail), &mut lines);
        }
        lines.push(fact("restarts", words::count(last.restarts.total)));
        lines.push(fact(
            "kernel",
            match last.group.oom_kills {
                Some(0) => "its OOM killer was never needed".to_owned(),
                Some(n) => format!("its OOM killer took {n} processes"),
                None => "whether its OOM killer did anything cannot be read here".to_owned(),
            },
        ));
        let streams = last.logs.streams.values();
        let kept: u64 = streams.clone().map(|stream| stream.lines_total).sum();
        let lost: u64 = streams.map(|stream| stream.dropped_lines_total).sum();
        lines.push(fact("log", format!("{} lines kept, {} lost", words::count(kept), words::count(lost))));
        lines.push(Line::new());
        lines.push(Line::new().add(Tone::Strong, "What to try next"));
        lines.push(Line::new());
        let spoken = &self.plan.spoken;
        let page = last.http.as_ref().and_then(|http| http.address.as_ref());
        let again = if last.name == "demo" { "demo".to_owned() } else { format!("demo --name {}", last.name) };
        let mut tries = vec![
            ("the log that it left", spoken.line(&format!("logs {}", last.name))),
            ("the demo again", spoken.line(&again)),
        ];
        tries.push(("and meanwhile", spoken.line("top")));
        if let Some(page) = page {
            tries.push(("or in a browser", format!("http://{page}/")));
        }
        tries.push(("your own server", format!("{} run --memory 300M -- your-server its arguments", spoken.program)));
        for (what, line) in tries {
            lines.push(Line::new().plain("  ").add(Tone::Dim, what).pad_to(24).plain(line));
        }
        lines
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::snapshot::sample;
    use crate::view::text::write_lines;

    fn story() -> Story {
        let plan = Plan {
            rate_bytes: 20 << 20,
            backoff: Duration::from_secs(2),
            length: None,
            http: "127.0.0.1:7117".parse().unwrap(),
            spoken: Spoken { program: "plimsoll".into(), dir: String::new() },
        };
        Story::new(plan, 80, sample::AT_UNIX - 600.0)
    }

    fn entry(before: f64, kind: &str, level: &str, text: &str) -> DecisionView {
        DecisionView {
            at_unix: sample::AT_UNIX - before,
            kind: kind.into(),
            level: level.into(),
            text: text.into(),
            ..DecisionView::default()
        }
    }

    #[test]
    fn each_event_is_told_once_and_explained_once() {
        let mut story = story();
        let now = sample::leaking();
        let life = |before: f64| {
            vec![
                entry(before, "level", "elevated", "level elevated (was normal): 225.1 MiB of 300.0 MiB, +20 MiB/s"),
                entry(before - 1.0, "stage", "critical", "memory: 300 MiB: critical stop: SIGTERM sent to 1 process"),
                entry(before - 2.0, "restart", "", "reason memory: exited with code 0; restart 1 in 2 s"),
            ]
        };
        let first = life(500.0);
        let told = write_lines(&story.hear(&now, &first, Some("http://127.0.0.1:7118/")), false);
        assert_eq!(
            told,
            " 100.0 s  elevated 225.1 MiB of 300.0 MiB, +20 MiB/s
                   three quarters of the budget: noted, nothing is done yet
 101.0 s  stop     SIGTERM sent to 1 process
                   asked to end while it still can; at 364.0 MiB the kernel
                   would kill it outright
 102.0 s  ended    reason memory: exited with code 0
                   it finished its requests and left by itself: nothing was lost
 102.0 s  back-off restart 1 in 2 s
                   about 2.0 s at first (run: 100 ms), doubled each time; a calm
                   minute resets it
  48.0 s  running  pid 4711 serves http://127.0.0.1:7118/
"
        );
        assert!(story.hear(&now, &first, Some("x")).is_empty());
        let both: Vec<_> = first.into_iter().chain(life(300.0)).collect();
        let again = write_lines(&story.hear(&now, &both, None), false);
        assert_eq!(again.lines().count(), 4, "{again}");
        let summary = write_lines(&story.summary(), false);
        for word in ["2 times it reached", "reason memory", "restarts    2", "never needed", "plimsoll logs shop"] {
            assert!(summary.contains(word), "{word}: {summary}");
        }
    }

    #[test]
    fn the_line_that_moves_fits_and_long_words_go_on_below() {
        let story = story();
        let now = sample::leaking();
        for columns in [30, 60, 80, 200] {
            assert!(story.live(&now, columns).width() < columns, "{columns}");
        }
        let mut lines = Vec::new();
        story.say(story.began_unix, Tone::Plain, "x", &"word ".repeat(40), &mut lines);
        assert!(lines.len() > 2 && lines.iter().all(|line| line.width() <= 80));
    }
}
