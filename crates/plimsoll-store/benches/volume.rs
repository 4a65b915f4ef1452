//! What it costs to say who prints: a line's template, and the meter at the rate of a flood, beside counting the lines only.
//!
//! `cargo bench -p plimsoll-store --bench volume -- [lines]`; default 3,000,000 lines of 200 bytes in reads of 64 KiB, at a million a second.
#![allow(clippy::disallowed_methods)] // a benchmark reads the clock
#![allow(missing_docs)]

use std::time::{Duration, Instant};

use plimsoll_store::volume::{Meter, Sketch, template};

fn main() {
    let lines: u64 = std::env::args().skip(1).find_map(|a| a.parse().ok()).unwrap_or(3_000_000);
    let line = |n: u64| {
        let mut text = format!("2026-05-01T07:00:00Z ERROR accept on [::]:8080 failed: EMFILE, connection {n}");
        text.extend(std::iter::repeat_n('x', 199 - text.len()));
        text + "\n"
    };
    let read: String = (0..327).map(line).collect();
    let (data, each) = (read.as_bytes(), 327);
    let reads = lines / each;

    let mut made = Vec::new();
    measured("template of a line", 327 * 1000, || {
        for _ in 0..1000 {
            data.split(|b| *b == b'\n').for_each(|line| template(line, &mut made));
        }
    });
    let mut sketch = Sketch::new(256);
    measured("a line in a sketch of 256 templates", 1_000_000, || {
        for n in 0..1_000_000_u64 {
            sketch.add(&(n % 256).to_le_bytes(), 1, 200);
        }
    });
    measured("the meter, a million lines a second", reads * each, || {
        let mut meter = Meter::new(Duration::ZERO);
        for n in 0..reads {
            meter.see(data, each, Duration::from_micros(n * each));
        }
    });
    measured("the meter, a thousand lines a second", 100_000, || {
        let mut meter = Meter::new(Duration::ZERO);
        for n in 0..100_000_u64 {
            meter.see(&data[200 * (n as usize % 300)..][..200], 1, Duration::from_millis(n));
        }
    });
}

fn measured(what: &str, lines: u64, work: impl FnOnce()) {
    let start = Instant::now();
    work();
    println!("{what:<40} {:>8.1} ns a line", start.elapsed().as_secs_f64() * 1e9 / lines as f64);
}
