//! A second labelled corpus that shares no process with the first, for a law that was set on the first: 448 series of a seed.
//!
//! Clocks are irregular and lose whole stretches; noise has heavy tails (Student's t of 3) or is a walk that returns within hours;
//! weeks have office hours and weekends; batch jobs stand on top for minutes to hours; values come in whole MiB or in whole
//! percents; caches fill as t / (t + c); a leak grows with the traffic, in doubling or uneven steps, or from restart to restart.

use plimsoll_heap::series::{Point, Series, Unit};

use super::corpus::{Class, DAY, HOUR, Labelled};
use super::rng::Rng;

/// The corpus of a seed.
pub(crate) fn draw(seed: u64) -> Vec<Labelled> {
    let mut rng = Rng::new(seed ^ 0xADFE_55E5);
    let classes = Class::ALL.iter().flat_map(|(class, n)| std::iter::repeat_n(*class, *n));
    classes.map(|class| one(class, &mut Rng::new((rng.unit() * 1e15) as u64))).collect()
}

fn one(class: Class, rng: &mut Rng) -> Labelled {
    let interval = rng.pick(&[15.0, 60.0, 300.0, 600.0, 1_800.0]);
    let length = if rng.chance(0.3) { 26.0 * HOUR } else { rng.log_between(26.0, 240.0) * HOUR };
    let start = 1_790_000_000.0 + rng.between(0.0, 7.0) * DAY;
    let level = rng.log_between(20e6, 32e9);
    let rate = if class.leaks() { rng.pick(&[0.1, 0.2, 0.3, 0.5, 0.8]) } else { 0.0 };
    let grain = rng.pick(&[1.0, 1_048_576.0_f64.min(level / 50.0), level / 100.0]);
    let growth = Growth::draw(class, rate, length, rng);
    let office = if class == Class::Diurnal || rng.chance(0.2) { rng.between(0.03, 0.2) } else { 0.0 };
    let mut noise = Noise::draw(class, rng);
    let jobs = jobs(length, rng);
    let holes = Vec::from_iter((0..3).filter_map(|_| {
        let from = rng.between(0.0, length);
        rng.chance(0.3).then(|| (from, from + rng.log_between(0.2, 3.0) * HOUR))
    }));
    let mut collector = Collector { floor: 0.0, height: rng.between(0.1, 0.6), rise: rng.log_between(0.3, 8.0) * HOUR };
    let (mut points, mut live) = (Vec::new(), Vec::new());
    let (mut at, mut busy) = (0.0, 0.0);
    while at <= length {
        let traffic = office_hours(start + at);
        // A leak grows with the traffic, where there is a rhythm of it.
        busy += if office > 0.0 { 0.4 + 1.2 * traffic } else { 1.0 } * interval;
        let (grown, life) = growth.at(at, busy);
        let job: f64 = jobs.iter().filter(|(from, until, _)| (*from..*until).contains(&at)).map(|j| j.2).sum();
        let saw = if class == Class::SawtoothGc { collector.next(interval, rng) } else { 0.0 };
        let calm = 1.0 + office * traffic + job + saw + noise.next(interval, rng);
        let point = |value: f64| Point {
            unix_seconds: start + at,
            value: ((level * value) / grain).round().max(0.0) * grain,
            variance: 0.0,
            life,
        };
        if !holes.iter().any(|(from, until)| (*from..*until).contains(&at)) {
            points.push(point(calm + grown));
            if class == Class::Retention {
                live.push(point(0.6 * calm));
            }
        }
        at += interval * if rng.chance(0.02) { rng.between(1.0, 8.0) } else { rng.between(0.7, 1.3) };
    }
    Labelled {
        class,
        rate_per_day: rate,
        leak_from: start,
        series: Series::new("rss", Unit::Bytes, points),
        live: (class == Class::Retention).then(|| Series::new("live", Unit::Bytes, live)),
    }
}

/// From 0 at night to 1 at work, weekends at a third.
fn office_hours(unix: f64) -> f64 {
    let hour = unix.rem_euclid(DAY) / HOUR;
    let weekend = (unix / DAY + 4.0).rem_euclid(7.0) >= 5.0;
    let day = 1.0 / (1.0 + (-(hour - 8.0) * 1.5).exp()) / (1.0 + ((hour - 18.0) * 1.5).exp());
    day * if weekend { 0.33 } else { 1.0 }
}

/// Batch jobs: from, until, how much; nightly or at random.
fn jobs(length: f64, rng: &mut Rng) -> Vec<(f64, f64, f64)> {
    if rng.chance(0.6) {
        return Vec::new();
    }
    let (nightly, by, lasts) = (rng.chance(0.5), rng.between(0.05, 0.4), rng.log_between(0.15, 3.0) * HOUR);
    let mut from = rng.between(0.0, DAY);
    let mut jobs = Vec::new();
    while from < length {
        jobs.push((from, from + lasts * rng.between(0.8, 1.2), by * rng.between(0.9, 1.1)));
        from += if nightly { DAY } else { rng.log_between(2.0, 40.0) * HOUR };
    }
    jobs
}

/// What is added to the level, as a part of it.
#[derive(Default)]
struct Growth {
    /// Cache: how much, half full after.
    cache: Option<(f64, f64)>,
    steps: Vec<(f64, f64)>,
    slope: f64,
    lives: Vec<f64>,
    marked: bool,
}

impl Growth {
    fn draw(class: Class, rate: f64, length: f64, rng: &mut Rng) -> Growth {
        let mut growth = Growth { lives: vec![0.0], marked: rng.chance(0.5), ..Growth::default() };
        match class {
            Class::Stable | Class::Noisy | Class::Diurnal | Class::SawtoothGc => {}
            Class::WarmUp => growth.cache = Some((rng.between(0.3, 2.0), rng.log_between(0.02, 0.5) * HOUR)),
            Class::Plateau => growth.cache = Some((rng.between(0.2, 1.0), rng.log_between(0.5, 3.0) * HOUR)),
            Class::Step => {
                let n = rng.pick(&[1, 2, 3]);
                growth.steps = Vec::from_iter(
                    (0..n).map(|i| (rng.between(0.05, 0.95) * length, rng.between(0.04, 0.3) * [1.0, -0.7][i % 2])),
                );
            }
            Class::Retention | Class::LinearLeak => {
                growth.slope = if class == Class::Retention { rng.between(0.1, 0.8) } else { rate } / DAY;
            }
            Class::StairLeak => {
                let every = (rng.log_between(1.0, 8.0) * HOUR).min(length / 8.0);
                let mut at = every * rng.unit();
                while at < length {
                    growth.steps.push((at, rate * every / DAY * rng.between(0.3, 1.7)));
                    at += every * rng.between(0.5, 1.5);
                }
            }
            Class::LeakWithRestarts => {
                growth.slope = rate / DAY;
                let mut at = rng.log_between(12.0, 48.0) * HOUR;
                while at < length {
                    growth.lives.push(at);
                    at += rng.log_between(12.0, 48.0) * HOUR;
                }
            }
        }
        growth
    }

    /// At so many seconds, of which so many were busy, and the life; 0 where nobody knows it.
    fn at(&self, at: f64, busy: f64) -> (f64, u64) {
        let life = self.lives.partition_point(|start| *start <= at).max(1);
        let born = self.lives[life - 1];
        let cache = self.cache.map_or(0.0, |(by, half)| by * at / (at + half));
        let steps: f64 = self.steps.iter().filter(|(when, _)| *when <= at).map(|(_, by)| by).sum();
        let grown = self.slope * (busy * (at - born) / at.max(1.0)).max(0.0);
        (cache + steps + grown, if self.marked { life as u64 } else { 0 })
    }
}

/// Noise of one of two kinds.
struct Noise {
    sd: f64,
    memory: f64,
    heavy: bool,
    now: f64,
}

impl Noise {
    fn draw(class: Class, rng: &mut Rng) -> Noise {
        let walk = class == Class::Noisy || rng.chance(0.4);
        let sd = if class == Class::Noisy { rng.between(0.02, 0.06) } else { rng.log_between(0.001, 0.02) };
        let memory = if walk { rng.log_between(0.5, 3.0) } else { rng.log_between(0.005, 0.3) } * HOUR;
        Noise { sd, memory, heavy: !walk, now: 0.0 }
    }

    fn next(&mut self, after: f64, rng: &mut Rng) -> f64 {
        let kept = (-after / self.memory).exp();
        self.now = self.now * kept + self.sd * (1.0 - kept * kept).sqrt() * rng.normal();
        if !self.heavy {
            return self.now;
        }
        // Student's t of three degrees of freedom, of the same spread, beside it.
        let chi: f64 = (0..3).map(|_| rng.normal().powi(2)).sum();
        self.now + 0.5 * self.sd * rng.normal() / (chi / 3.0).sqrt().max(0.05)
    }
}

/// A collector that frees when it likes, and sometimes only half.
struct Collector {
    floor: f64,
    height: f64,
    rise: f64,
}

impl Collector {
    fn next(&mut self, after: f64, rng: &mut Rng) -> f64 {
        self.floor += self.height * after / self.rise;
        if self.floor > self.height * 0.6 && rng.chance((after / self.rise * 3.0).min(1.0)) {
            self.floor = if rng.chance(0.3) { self.floor * 0.4 } else { 0.0 };
        }
        self.floor.min(self.height * 1.3)
    }
}
