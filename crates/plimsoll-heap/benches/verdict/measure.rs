//! The table: precision, recall and false alarms of the verdict and of each rival on the same corpora.

use std::collections::BTreeMap;
use std::process::ExitCode;

use plimsoll_heap::series::{Point, Series, Unit};
use plimsoll_heap::trend::{Setup, measure_restarted};
use plimsoll_heap::verdict::{self, State, judge};

use super::corpus::{Class, DAY, HOUR, Labelled};
use super::rivals;
use super::windows;

/// Leaks that must be found grow by at least this part of the level a day.
const RATE_MIN: f64 = 0.2;

/// What one rule did.
#[derive(Clone, Default)]
struct Score {
    true_alarms: usize,
    /// Without the linear leaks.
    true_alarms_otherwise: usize,
    false_alarms: usize,
    found: usize,
    to_find: usize,
    window_alarms: usize,
    windows: usize,
    /// Windows without and with an alarm.
    by_class: BTreeMap<Class, [usize; 2]>,
}

impl Score {
    /// `leaks` is asked about the figure, and told what is live of it where that was watched, too.
    fn add(&mut self, one: &Labelled, leaks: impl Fn(&Series, Option<&Series>) -> bool) {
        let says = leaks(&one.series, one.live.as_ref());
        if one.class.leaks() {
            let linear = one.class == Class::LinearLeak;
            self.true_alarms += usize::from(says);
            self.true_alarms_otherwise += usize::from(says && !linear);
            if one.rate_per_day >= RATE_MIN && long(one) {
                self.to_find += 1;
                self.found += usize::from(says);
            }
        } else {
            self.false_alarms += usize::from(says);
            for window in windows::days(&one.series) {
                self.windows += 1;
                let alarm = leaks(&window, one.live.as_ref());
                self.window_alarms += usize::from(alarm);
                self.by_class.entry(one.class).or_default()[usize::from(alarm)] += 1;
            }
        }
    }

    fn precision(&self) -> f64 {
        ratio(self.true_alarms, self.true_alarms + self.false_alarms)
    }

    fn precision_otherwise(&self) -> f64 {
        ratio(self.true_alarms_otherwise, self.true_alarms_otherwise + self.false_alarms)
    }

    fn recall(&self) -> f64 {
        ratio(self.found, self.to_find)
    }

    fn alarm_ratio(&self) -> f64 {
        ratio(self.window_alarms, self.windows)
    }

    fn row(&self, name: &str) {
        println!(
            "{name:<26} {:>9.3} {:>14.3} {:>7.3} {:>6}/{:<5} {:>7.2} %",
            self.precision(),
            self.precision_otherwise(),
            self.recall(),
            self.false_alarms,
            self.true_alarms,
            self.alarm_ratio() * 100.0
        );
    }
}

fn ratio(part: usize, whole: usize) -> f64 {
    if whole == 0 { 1.0 } else { part as f64 / whole as f64 }
}

/// At least a day of the leak was watched.
fn long(one: &Labelled) -> bool {
    one.series.points().last().is_some_and(|last| last.unix_seconds - one.leak_from >= DAY)
}

fn says_leak(rss: &Series, live: Option<&Series>) -> bool {
    state(rss, live) == State::Leaking
}

/// The word, with what is live where that is known.
fn state(rss: &Series, live: Option<&Series>) -> State {
    let verdict = judge(rss, &Setup::default());
    match live {
        Some(live) => verdict::split(verdict, rss, live, &Setup::default()).rss.state,
        None => verdict.state,
    }
}

/// Judges the corpora of some seeds.
pub(crate) fn corpora(draw: fn(u64) -> Vec<Labelled>, seed: u64, seeds: u64, explain: bool) -> ExitCode {
    let mut own = Score::default();
    let mut others = vec![Score::default(); rivals::RULES.len()];
    let mut classes = BTreeMap::<Class, [usize; 5]>::new();
    let mut short = (0, 0);
    let mut retained = (0, 0);
    let mut unmarked = (0, 0);
    let mut parts = [0; 4];
    let mut latency = Vec::new();
    for seed in seed..seed + seeds {
        let corpus = draw(seed);
        for (sum, n) in parts.iter_mut().zip(heap(&corpus)) {
            *sum += n;
        }
        for one in corpus {
            let verdict = judge(&one.series, &Setup::default());
            own.add(&one, says_leak);
            for (score, (_, rule)) in others.iter_mut().zip(rivals::RULES) {
                score.add(&one, |rss, _| rule(rss));
            }
            if one.class == Class::LeakWithRestarts && one.rate_per_day >= RATE_MIN && long(&one) {
                let points = one.series.points().iter().map(|p| Point { life: 0, ..*p });
                let found = says_leak(&Series::new("rss", Unit::Bytes, points), None);
                unmarked = (unmarked.0 + usize::from(found), unmarked.1 + 1);
            }
            let said = state(&one.series, one.live.as_ref());
            classes.entry(one.class).or_default()[said as usize] += 1;
            if one.class.leaks() && one.rate_per_day >= RATE_MIN {
                if long(&one) {
                    latency.extend(hours_to_verdict(&one));
                } else {
                    short = (short.0 + usize::from(verdict.state == State::Leaking), short.1 + 1);
                }
            }
            if let Some(live) = &one.live {
                let judged = verdict::split(verdict.clone(), &one.series, live, &Setup::default());
                retained = (
                    retained.0 + usize::from(judged.is_retention),
                    retained.1 + usize::from(verdict.state >= State::Growing),
                );
            }
            let wrong = one.class.leaks() != (verdict.state == State::Leaking)
                && (!one.class.leaks() || one.rate_per_day >= RATE_MIN && long(&one));
            if explain && wrong {
                let first = one.series.points().first().map_or(0.0, |p| p.unix_seconds);
                println!(
                    "{seed} {:?} {:.0} %/day from {:.0} h, {} points over {:.0} h: {} {:?}\n    {}\n    {:?}",
                    one.class,
                    one.rate_per_day * 100.0,
                    (one.leak_from - first) / HOUR,
                    one.series.points().len(),
                    one.series.span_seconds() / HOUR,
                    verdict.state,
                    verdict.reasons,
                    windows::course(&one.series),
                    (verdict.trend, measure_restarted(&one.series, &Setup::default())),
                );
            }
        }
    }
    println!(
        "\n{:<26} {:>9} {:>14} {:>7} {:>12} {:>9}",
        "", "precision", "without linear", "recall", "false/true", "24-h alarms"
    );
    own.row("plimsoll");
    for (score, (name, _)) in others.iter().zip(rivals::RULES) {
        score.row(name);
    }
    println!(
        "\n{:<18} {:>12} {:>8} {:>8} {:>8} {:>8}",
        "class", "insufficient", "stable", "plateau", "growing", "leaking"
    );
    for (class, counts) in &classes {
        let [insufficient, stable, plateau, growing, leaking] = counts;
        let windows =
            own.by_class.get(class).map_or(String::new(), |[none, some]| format!("{some} of {}", none + some));
        println!(
            "{:<18} {insufficient:>12} {stable:>8} {plateau:>8} {growing:>8} {leaking:>8} {windows:>16}",
            format!("{class:?}")
        );
    }
    latency.sort_by(f64::total_cmp);
    let at = |q: f64| latency.get((q * latency.len() as f64) as usize).copied().unwrap_or(f64::NAN);
    println!(
        "\nleaks of 20 %/day and more: {} found of {} watched for a day or longer; {} of {} watched for less",
        own.found, own.to_find, short.0, short.1
    );
    println!("hours from the begin of the leak to the verdict: median {:.0}, 90th percentile {:.0}", at(0.5), at(0.9));
    println!("leaks with restarts, where no reading knows its life: {} found of {}", unmarked.0, unmarked.1);
    println!("retention: {} of {} growing RSS with flat live named as such", retained.0, retained.1);
    let [false_alone, false_beside, true_alone, true_beside] = parts;
    println!(
        "as keys of one heap: {false_alone} of the quiet ones called leaking, beside the whole {false_beside}; \
         of those that leak by a hundredth of it {true_alone}, and {true_beside}"
    );
    for points in [144, 1_440, 20_000] {
        println!("one verdict on {points} points: {:.2} ms of CPU", milliseconds_a_verdict(points));
    }
    let kept = own.precision() >= 0.97 && own.recall() >= 0.92 && own.alarm_ratio() <= 0.01;
    println!(
        "{}",
        if kept {
            "PASS: precision ≥ 0.97, recall ≥ 0.92, alarms ≤ 1 %"
        } else {
            "FAIL: precision ≥ 0.97, recall ≥ 0.92, alarms ≤ 1 %"
        }
    );
    if kept { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// A corpus as the keys of one heap, judged together: quiet keys called leaking, by themselves and beside the whole; and the same of keys
/// that do leak, by a hundredth of the whole or more over the time watched.
fn heap(corpus: &[Labelled]) -> [usize; 4] {
    let keys: Vec<Series> = corpus.iter().map(|one| one.series.clone()).collect();
    let last = |series: &Series| series.points().last().map_or(0.0, |p| p.value);
    let whole: f64 = keys.iter().map(last).sum();
    let mut counts = [0; 4];
    for (one, verdict) in corpus.iter().zip(verdict::judge_all(&keys, &Setup::default())) {
        let from = one.series.points().first().map_or(0.0, |p| p.value);
        let matters = one.rate_per_day >= RATE_MIN && last(&one.series) - from >= 0.01 * whole;
        let at = match one.class.leaks() {
            false if one.class != Class::Retention => 0,
            true if matters => 2,
            _ => continue,
        };
        counts[at] += usize::from(verdict.state == State::Leaking);
        counts[at + 1] += usize::from(verdict.of_part(whole, Unit::Bytes).state == State::Leaking);
    }
    counts
}

/// What a verdict costs, as the least of some runs: a two-week series with a rhythm and a leak.
fn milliseconds_a_verdict(points: u32) -> f64 {
    let at = |i: u32| f64::from(i) * 14.0 * DAY / f64::from(points);
    let value = |t: f64| {
        1e9 + 1e8 * (t / DAY * std::f64::consts::TAU).sin()
            + 100.0 * t
            + f64::from((t as u32).wrapping_mul(2_654_435_761) >> 8)
    };
    let series = Series::new("x", Unit::Bytes, (0..points).map(|i| Point::counted(at(i), value(at(i)))));
    let runs = (0..20).map(|_| {
        let began = std::time::Instant::now();
        std::hint::black_box(judge(&series, &Setup::default()));
        began.elapsed().as_secs_f64() * 1e3
    });
    runs.fold(f64::INFINITY, f64::min)
}

/// Asked every two hours, as long as there are data: when it first says so, and says so at the next time, too.
fn hours_to_verdict(one: &Labelled) -> Option<f64> {
    let (first, last) = (one.series.points().first()?.unix_seconds, one.series.points().last()?.unix_seconds);
    let mut before = false;
    let mut at = first.max(one.leak_from) + 2.0 * HOUR;
    // After three days it is found, or it is missed.
    while at <= last.min(one.leak_from + 3.0 * DAY) {
        let now = says_leak(&one.series.between(first, at), None);
        if now && before {
            return Some((at - one.leak_from) / HOUR);
        }
        before = now;
        at += 2.0 * HOUR;
    }
    None
}
