//! The labelled corpus: series of memory figures as services show them, drawn from a seed. [`SERIES`] (448) of them, half of
//! which leak; values in bytes, times in seconds.
//!
//! A series is a level, times what its class does, times a daily rhythm or a collector's sawtooth where it has one, plus noise
//! that remembers itself (AR(1)), spikes, samples that are missing and gaps. Every figure of it is drawn: interval 1 to 30
//! minutes, length 2 hours to 14 days, level 8 MB to 16 GB.

use plimsoll_heap::series::{Point, Series, Unit};

use super::rng::Rng;

pub(crate) const HOUR: f64 = 3_600.0;
pub(crate) const DAY: f64 = 86_400.0;

/// What a series does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Class {
    Stable,
    Noisy,
    Diurnal,
    SawtoothGc,
    WarmUp,
    Step,
    Plateau,
    Retention,
    LinearLeak,
    StairLeak,
    LeakWithRestarts,
}

impl Class {
    pub(crate) const ALL: [(Class, usize); 11] = [
        (Class::Stable, 28),
        (Class::Noisy, 28),
        (Class::Diurnal, 28),
        (Class::SawtoothGc, 28),
        (Class::WarmUp, 28),
        (Class::Step, 28),
        (Class::Plateau, 28),
        (Class::Retention, 28),
        (Class::LinearLeak, 112),
        (Class::StairLeak, 56),
        (Class::LeakWithRestarts, 56),
    ];

    pub(crate) fn leaks(self) -> bool {
        matches!(self, Class::LinearLeak | Class::StairLeak | Class::LeakWithRestarts)
    }
}

/// Series in the corpus of one seed.
pub(crate) const SERIES: usize = 448;

/// One labelled series.
pub(crate) struct Labelled {
    pub(crate) class: Class,
    /// Of the level, a day; 0 where nothing leaks.
    pub(crate) rate_per_day: f64,
    /// When the leak begins, seconds since 1970; the beginning of the series where nothing leaks.
    pub(crate) leak_from: f64,
    /// What the process holds: RSS.
    pub(crate) series: Series,
    /// What the program itself holds of it, for the class [`Class::Retention`].
    pub(crate) live: Option<Series>,
}

/// The corpus of a seed.
pub(crate) fn draw(seed: u64) -> Vec<Labelled> {
    let mut rng = Rng::new(seed);
    let mut all = Vec::with_capacity(SERIES);
    for (class, n) in Class::ALL {
        for _ in 0..n {
            let mut own = Rng::new((rng.unit() * 1e15) as u64);
            all.push(one(class, &mut own));
        }
    }
    all
}

/// When samples are taken.
struct Times {
    start: f64,
    interval: f64,
    length: f64,
}

fn times(class: Class, rng: &mut Rng) -> Times {
    let interval = rng.pick(&[1.0, 2.0, 5.0, 10.0, 15.0, 30.0]) * 60.0;
    // A quarter is shorter than a day. What needs a day to show has one.
    let short = rng.chance(0.25) && !matches!(class, Class::StairLeak | Class::LeakWithRestarts | Class::Plateau);
    let length = if short { rng.log_between(2.0, 24.0) } else { rng.log_between(26.0, 14.0 * 24.0) } * HOUR;
    Times { start: 1_790_000_000.0 + rng.between(0.0, 7.0) * DAY, interval, length }
}

fn one(class: Class, rng: &mut Rng) -> Labelled {
    let mut times = times(class, rng);
    if class == Class::Plateau {
        times.length = times.length.max(2.0 * DAY);
    }
    if matches!(class, Class::StairLeak | Class::LeakWithRestarts) {
        times.length = times.length.max(36.0 * HOUR);
    }
    let level = rng.log_between(8e6, 16e9);
    let rate = if class.leaks() { rng.pick(&[0.05, 0.1, 0.2, 0.3, 0.4, 0.6, 0.8]) } else { 0.0 };
    let shape = Shape::draw(class, rate, &times, rng);
    let (noise_sd, spikes) = match class {
        Class::Noisy => (rng.between(0.04, 0.12), 0.02),
        _ => (rng.log_between(0.002, 0.03), if rng.chance(0.3) { 0.01 } else { 0.0 }),
    };
    let rhythm = Rhythm::draw(class, rng);
    let teeth = Teeth::draw(class, rng);
    let mut noise = Noise::new(noise_sd, rng.log_between(0.02, 2.0) * HOUR);
    let missing = if rng.chance(0.5) { rng.between(0.0, 0.1) } else { 0.0 };
    let gap = rng.chance(0.3).then(|| {
        let from = rng.between(0.1, 0.8) * times.length;
        (from, from + rng.between(0.01, 0.1) * times.length)
    });
    let (mut points, mut live) = (Vec::new(), Vec::new());
    let mut tooth = teeth.map(|teeth| teeth.start(rng));
    for i in 0.. {
        let at = f64::from(i) * times.interval;
        if at > times.length {
            break;
        }
        let jitter = noise.next(times.interval, rng);
        let spike = if rng.chance(spikes) { rng.between(0.05, 0.4) } else { 0.0 };
        let saw = tooth.as_mut().map_or(0.0, |tooth| tooth.at(at, rng));
        let (growth, life) = shape.at(at);
        let calm = rhythm.at(times.start + at) + saw + jitter + spike;
        if rng.chance(missing) || gap.is_some_and(|(from, until)| (from..until).contains(&at)) {
            continue;
        }
        let point = |value: f64| Point {
            unix_seconds: times.start + at,
            value: (level * value).max(0.0).round(),
            variance: 0.0,
            life,
        };
        points.push(point(1.0 + calm + growth));
        if class == Class::Retention {
            live.push(point(0.7 * (1.0 + calm)));
        }
    }
    Labelled {
        class,
        rate_per_day: rate,
        leak_from: times.start + shape.leak_from,
        series: Series::new("rss", Unit::Bytes, points),
        live: (class == Class::Retention).then(|| Series::new("live", Unit::Bytes, live)),
    }
}

/// What the class adds to the level, as a part of it.
#[derive(Default)]
struct Shape {
    /// Rise at the start: how much, within how long, linear or saturating.
    warm: Option<(f64, f64, bool)>,
    /// Steps: when, how much.
    steps: Vec<(f64, f64)>,
    /// Linear growth from `leak_from` on, per second.
    slope: f64,
    leak_from: f64,
    /// Starts of lives; the first is 0.
    lives: Vec<f64>,
}

impl Shape {
    fn draw(class: Class, rate: f64, times: &Times, rng: &mut Rng) -> Shape {
        let length = times.length;
        let mut shape = Shape { lives: vec![0.0], ..Shape::default() };
        let starts_cold = class == Class::WarmUp || (class != Class::Plateau && rng.chance(0.3));
        if starts_cold {
            let within = rng.log_between(0.15, 2.0) * HOUR;
            shape.warm = Some((rng.between(0.2, 1.5), within.min(length * 0.3), rng.chance(0.5)));
        }
        match class {
            Class::Stable | Class::Noisy | Class::Diurnal | Class::SawtoothGc | Class::WarmUp => {}
            Class::Step => {
                for _ in 0..rng.pick(&[1, 1, 2]) {
                    let by = rng.between(0.05, 0.6) * if rng.chance(0.75) { 1.0 } else { -0.5 };
                    shape.steps.push((rng.between(0.1, 0.9) * length, by));
                }
            }
            Class::Plateau => {
                let linear = rng.chance(0.4);
                let within = rng.log_between(3.0, 24.0) * HOUR;
                shape.warm = Some((rng.between(0.2, 2.0), within.min(length / 4.0), linear));
            }
            Class::Retention => {
                shape.slope = rng.between(0.1, 0.8) / DAY;
            }
            Class::LinearLeak => {
                shape.slope = rate / DAY;
                shape.leak_from =
                    if rng.chance(0.25) && length > 2.0 * DAY { rng.between(0.1, 0.4) * length } else { 0.0 };
            }
            Class::StairLeak => {
                // At least six steps, uneven in time and height.
                let every = (rng.log_between(2.0, 12.0) * HOUR).min(length / 7.0);
                let mut at = every * rng.unit();
                while at < length {
                    shape.steps.push((at, rate * every / DAY * rng.between(0.6, 1.4)));
                    at += every * rng.between(0.7, 1.3);
                }
            }
            Class::LeakWithRestarts => {
                shape.slope = rate / DAY;
                let every = rng.log_between(10.0, 72.0) * HOUR;
                let mut at = every * rng.between(0.5, 1.0);
                while at < length {
                    shape.lives.push(at);
                    at += every * rng.between(0.7, 1.3);
                }
            }
        }
        shape
    }

    /// Growth at so many seconds, and the life.
    fn at(&self, at: f64) -> (f64, u64) {
        let life = self.lives.partition_point(|start| *start <= at).max(1);
        let age = at - self.lives[life - 1];
        let warm = self.warm.map_or(0.0, |(by, within, linear)| {
            if linear { by * (age / within).min(1.0) - by } else { -by * (-3.0 * age / within).exp() }
        });
        let from = self.leak_from.max(self.lives[life - 1]);
        let steps: f64 = self.steps.iter().filter(|(when, _)| *when <= at).map(|(_, by)| by).sum();
        // The level is what it comes to after the warm-up.
        (warm * 0.6 / (0.6 + self.warm.map_or(0.0, |w| w.0)) + steps + self.slope * (at - from).max(0.0), life as u64)
    }
}

/// A day's rhythm: a wave, its first overtone, and quieter weekends.
struct Rhythm {
    amplitude: f64,
    overtone: f64,
    phase: f64,
    weekend: f64,
}

impl Rhythm {
    fn draw(class: Class, rng: &mut Rng) -> Rhythm {
        let amplitude = match class {
            Class::Diurnal => rng.between(0.05, 0.25),
            Class::LinearLeak | Class::StairLeak | Class::Retention if rng.chance(0.3) => rng.between(0.02, 0.12),
            _ => 0.0,
        };
        let weekend = if rng.chance(0.5) { rng.between(0.4, 1.0) } else { 1.0 };
        Rhythm { amplitude, overtone: rng.between(0.0, 0.4), phase: rng.between(0.0, std::f64::consts::TAU), weekend }
    }

    fn at(&self, unix: f64) -> f64 {
        let angle = std::f64::consts::TAU * unix / DAY;
        let weekday = (unix / DAY + 4.0).rem_euclid(7.0);
        let strength = if weekday >= 5.0 { self.weekend } else { 1.0 };
        self.amplitude
            * strength
            * ((angle + self.phase).sin() + self.overtone * (2.0 * angle + self.phase * 1.7).sin())
    }
}

/// A collector: memory rises to a top and falls back to the floor at once.
#[derive(Clone, Copy)]
struct Teeth {
    height: f64,
    period: f64,
}

impl Teeth {
    fn draw(class: Class, rng: &mut Rng) -> Option<Teeth> {
        let has = class == Class::SawtoothGc || (class == Class::LinearLeak && rng.chance(0.25));
        has.then(|| Teeth { height: rng.between(0.2, 0.8), period: rng.log_between(0.1, 4.0) * HOUR })
    }

    fn start(self, rng: &mut Rng) -> Tooth {
        Tooth { teeth: self, began: -self.period * rng.unit(), period: self.period }
    }
}

struct Tooth {
    teeth: Teeth,
    began: f64,
    period: f64,
}

impl Tooth {
    fn at(&mut self, at: f64, rng: &mut Rng) -> f64 {
        while at >= self.began + self.period {
            self.began += self.period;
            self.period = self.teeth.period * rng.between(0.8, 1.2);
        }
        self.teeth.height * (at - self.began) / self.teeth.period
    }
}

/// Noise that forgets itself within `memory` seconds.
struct Noise {
    sd: f64,
    memory: f64,
    now: f64,
}

impl Noise {
    fn new(sd: f64, memory: f64) -> Noise {
        Noise { sd, memory, now: 0.0 }
    }

    fn next(&mut self, after: f64, rng: &mut Rng) -> f64 {
        let kept = (-after / self.memory).exp();
        self.now = self.now * kept + self.sd * (1.0 - kept * kept).sqrt() * rng.normal();
        self.now
    }
}
