//! A comparison in words: a table for each life, and one sentence.

use std::fmt;
use std::time::Duration;

use super::{Comparison, Life, Summary};
use crate::level::Level;
use crate::units::{duration, size};

impl fmt::Display for Comparison {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (n, life) in (1..).zip(&self.lives) {
            let many = if self.lives.len() > 1 { format!("life {n}: ") } else { String::new() };
            write!(f, "{many}{} readings over {}", life.readings, duration(life.lasted))?;
            if life.missing > 0 {
                write!(f, ", {} not in the log", life.missing)?;
            }
            if life.began_unix.is_none() {
                f.write_str(", from the middle of a life")?;
            }
            f.write_str("\n")?;
            if life.recorded.changes == 0
                && life.replayed.changes == 0
                && life.recorded.orders + life.replayed.orders == 0
            {
                writeln!(f, "  nothing was reached, and nothing would have been")?;
                continue;
            }
            table(f, life)?;
        }
        if self.changed.is_empty() {
            return writeln!(f, "the policy changes nothing");
        }
        for life in &self.lives {
            if let Some(modelled) = life.modelled {
                let error = modelled.error_ratio * 100.0;
                writeln!(f, "stores are modelled, to {error:.1} % of the budget under the policy that held")?;
                break;
            }
        }
        writeln!(f, "{}", self.sentence())
    }
}

impl Comparison {
    /// The difference in one sentence: when something would have been done, and whether it would have come to leaving. Acting is the first
    /// order to a store, or High; draining is Critical, or eviction that is stuck.
    pub fn sentence(&self) -> String {
        let told: Vec<String> = self.changed.iter().map(|(key, _, to)| format!("{key} = {to}")).collect();
        // What follows an enter mark by itself is not said again.
        let said: Vec<&str> = (told.iter().zip(&self.changed))
            .filter(|(_, (key, ..))| !self.follows(key))
            .map(|(text, _)| text.as_str())
            .collect();
        let with = if said.is_empty() { "this policy".to_owned() } else { said.join(", ") };
        let outcome = |of: fn(&Summary) -> Option<Duration>| {
            self.lives.iter().map(move |life| (of(&life.recorded), of(&life.replayed)))
        };
        let first = |mut all: Box<dyn Iterator<Item = (Option<Duration>, Option<Duration>)> + '_>| {
            all.find(|(was, would)| was != would)
        };
        let acted = first(Box::new(outcome(|sum| sum.acted_at)));
        let drained = first(Box::new(outcome(|sum| sum.drained_at)));
        let lives = |which: fn(&Summary) -> Option<Duration>| {
            let drains = |of: fn(&Life) -> &Summary| self.lives.iter().filter(|life| which(of(life)).is_some()).count();
            (drains(|life| &life.recorded), drains(|life| &life.replayed))
        };
        let mut parts: Vec<String> = Vec::new();
        parts.extend(acted.and_then(|(was, would)| moved("acted", was, would)));
        match (self.lives.len(), lives(|sum| sum.drained_at)) {
            (1, _) => parts.extend(drained.and_then(|(was, would)| moved("drained", was, would))),
            (_, (was, would)) if was != would => parts.push(format!("drained {would} times instead of {was}")),
            _ => parts.extend(drained.and_then(|(was, would)| moved("drained", was, would))),
        }
        match parts.as_slice() {
            [] => format!("with {with} you would have acted and drained at the same times"),
            parts => format!("with {with} you would have {}", parts.join(" and ")),
        }
    }

    /// Whether a key only differs because another one is set.
    fn follows(&self, key: &str) -> bool {
        let leads = match key {
            "kernel-allowance" => "reserve",
            _ => match key.strip_suffix("-leave") {
                Some(level) => level,
                None => return false,
            },
        };
        self.changed.iter().any(|(key, ..)| *key == leads)
    }
}

fn moved(what: &str, was: Option<Duration>, would: Option<Duration>) -> Option<String> {
    match (was, would) {
        (Some(was), Some(would)) if would < was => Some(format!("{what} {} earlier", seconds(was - would))),
        (Some(was), Some(would)) if would > was => Some(format!("{what} {} later", seconds(would - was))),
        (Some(_), None) => Some(format!("never {what}")),
        (None, Some(would)) => Some(format!("{what}, {} after the begin, where nothing was", seconds(would))),
        _ => None,
    }
}

fn seconds(time: Duration) -> String {
    if time < Duration::from_secs(1) { duration(time).to_string() } else { format!("{:.1} s", time.as_secs_f64()) }
}

fn table(f: &mut fmt::Formatter<'_>, life: &Life) -> fmt::Result {
    let (was, would) = (&life.recorded, &life.replayed);
    writeln!(f, "  {:24} {:>14} {:>14}   difference", "", "recorded", "replayed")?;
    for level in [Level::Elevated, Level::High, Level::Critical] {
        let i = level as usize;
        row(f, &format!("{level} reached"), was.reached_at[i], would.reached_at[i])?;
    }
    if was.stuck_at.is_some() || would.stuck_at.is_some() {
        row(f, "eviction stuck", was.stuck_at, would.stuck_at)?;
    }
    let above = Level::High as usize;
    let (held, holds) = (was.held_for[above], would.held_for[above]);
    writeln!(f, "  {:24} {:>14} {:>14}", "time at high or above", seconds(held), seconds(holds))?;
    writeln!(f, "  {:24} {:>14} {:>14}", "changes of level", was.changes, would.changes)?;
    if life.modelled.is_some() {
        let bytes = |sum: &Summary| size(sum.ordered_bytes).to_string();
        writeln!(f, "  {:24} {:>14} {:>14}", "orders to stores", was.orders, would.orders)?;
        writeln!(f, "  {:24} {:>14} {:>14}", "ordered", bytes(was), bytes(would))?;
        writeln!(f, "  {:24} {:>14} {:>14}", "purges", was.purges, would.purges)?;
    }
    let peak = |sum: &Summary| size(sum.peak_bytes).to_string();
    writeln!(f, "  {:24} {:>14} {:>14}", "peak", peak(was), peak(would))
}

fn row(f: &mut fmt::Formatter<'_>, what: &str, was: Option<Duration>, would: Option<Duration>) -> fmt::Result {
    let at = |time: Option<Duration>| time.map_or_else(|| "never".to_owned(), |time| format!("+{}", seconds(time)));
    let difference = match (was, would) {
        (Some(was), Some(would)) if would < was => format!("{} earlier", seconds(was - would)),
        (Some(was), Some(would)) if would > was => format!("{} later", seconds(would - was)),
        (Some(_), None) => "no more".to_owned(),
        (None, Some(_)) => "new".to_owned(),
        _ => "–".to_owned(),
    };
    writeln!(f, "  {what:24} {:>14} {:>14}   {difference}", at(was), at(would))
}
