//! Plimsoll's control law beside those of others, on the plant simulator: a table over delay, lazy eviction, inflow and base.
//! Needs no time of a real clock: it is the same on every machine.
//!
//! `cargo bench -p plimsoll --bench laws --features testkit -- [--seed N] [--cells] [--plot FILE] [--cost]`: with `--seed`, the cells'
//! parameters are drawn at random within the ranges (384 of them); `--cells` prints every cell; `--plot` writes one cell's course as SVG;
//! `--cost` measures what one call of our law takes.

mod ours;
mod plot;
mod rivals;
mod run;

use std::time::Duration;

use ours::Plimsoll;
use rivals::{Hysteresis, Law, RisingWave, Seed, ThresholdGc};
use run::{Cell, Outcome};

/// A name and what makes a fresh law.
type Entry = (&'static str, fn() -> Box<dyn Law>);

const LAWS: [Entry; 5] = [
    ("plimsoll", || Box::new(Plimsoll::default())),
    ("risingwave", || Box::new(RisingWave)),
    ("seed (1/N)·0.9", || Box::new(Seed)),
    ("hysteresis", || Box::new(Hysteresis::default())),
    ("threshold+gc", || Box::new(ThresholdGc::default())),
];

fn main() {
    let mut seed = None;
    let mut all = false;
    let mut file = None;
    let mut args = std::env::args().skip(1);
    while let Some(arg) = args.next() {
        match arg.as_str() {
            "--seed" => {
                let value = args.next().and_then(|text| text.parse::<u64>().ok());
                seed = Some(value.expect("--seed takes a whole number"));
            }
            "--cells" => all = true,
            "--cost" => return cost(),
            "--plot" => file = Some(args.next().expect("--plot takes a file")),
            // What cargo itself passes.
            "--bench" => {}
            other => panic!("unknown argument {other:?}: expected --seed N, --cells or --plot FILE"),
        }
    }
    if let Some(file) = file {
        std::fs::write(&file, plot::svg()).expect("the plot is written");
        println!("{file}");
        return;
    }
    let cells = seed.map_or_else(grid, drawn);
    println!(
        "{} cells, 300 s each{}",
        cells.len(),
        seed.map(|seed| format!(", drawn with seed {seed}")).unwrap_or_default()
    );
    let table: Vec<Vec<Outcome>> =
        cells.iter().map(|cell| LAWS.iter().map(|(_, law)| run::run(law().as_mut(), cell)).collect()).collect();
    if all {
        for (cell, outcomes) in cells.iter().zip(&table) {
            println!("{cell}");
            for ((name, _), o) in LAWS.iter().zip(outcomes) {
                println!(
                    "  {name:<16} peak {:6.1}  swing {:5.1}  store {:5.1}  beyond {:6.1} %",
                    o.peak, o.swing, o.store, o.beyond
                );
            }
        }
    }
    summary(&table);
    lost(&cells, &table);
}

/// Nanoseconds for one call of our law, with a full memory, the state taken and given back by value: the median of 101 runs.
#[allow(clippy::disallowed_methods)] // The one thing here that is measured in real time.
fn cost() {
    use plimsoll::governor::law::{LawState, Supply, law};
    const CALLS: u32 = 10_000;
    for spacing in [Duration::from_millis(1), Duration::from_millis(100)] {
        let mut nanos: Vec<u128> = (0..101)
            .map(|_| {
                let mut state = LawState::default();
                let begun = std::time::Instant::now();
                for n in 0..CALLS {
                    let held_bytes = 600_000_000 + u64::from(n * 7_919 % 100_003);
                    let supply = Supply { held_bytes, ..Supply::default() };
                    let (next, want) = law(state, spacing * n, 900_000_000, 950_000_000, 1_000_000_000, supply);
                    std::hint::black_box(want);
                    state = next;
                }
                begun.elapsed().as_nanos() / u128::from(CALLS)
            })
            .collect();
        nanos.sort_unstable();
        println!("law, called every {spacing:?}: {} ns", nanos[50]);
    }
    println!("its state: {} bytes", size_of::<LawState>());
}

/// The cells in which another law, staying below the limit, kept more than ours.
fn lost(cells: &[Cell], table: &[Vec<Outcome>]) {
    let mut shown = 0;
    for (cell, outcomes) in cells.iter().zip(table) {
        let rival = (1..LAWS.len())
            .filter(|i| outcomes[*i].peak <= 100.0)
            .max_by(|a, b| outcomes[*a].store.total_cmp(&outcomes[*b].store));
        let ours = outcomes[0];
        if let Some(rival) = rival.filter(|rival| outcomes[*rival].store > ours.store + 0.05 || ours.peak > 100.0) {
            shown += 1;
            println!("lost: {cell}: store {:.1}, {} {:.1}", ours.store, LAWS[rival].0, outcomes[rival].store);
        }
    }
    println!("{shown} cells lost");
}

fn summary(table: &[Vec<Outcome>]) {
    let cells = table.len() as f64;
    let best =
        |outcomes: &[Outcome]| outcomes.iter().filter(|o| o.peak <= 100.0).map(|o| o.store).fold(f64::MIN, f64::max);
    println!(
        "\n{:<16} {:>9} {:>9} {:>9} {:>9} {:>10} {:>9} {:>10}",
        "law", "over", "mean", "largest", "mean", "swing ≤ 2", "best", "beyond"
    );
    println!(
        "{:<16} {:>9} {:>9} {:>9} {:>9} {:>10} {:>9} {:>10}",
        "", "limit", "swing", "swing", "store", "", "store", "(mean)"
    );
    for (i, (name, _)) in LAWS.iter().enumerate() {
        let of = |f: fn(&Outcome) -> f64| table.iter().map(move |row| f(&row[i]));
        let over = of(|o| o.peak).filter(|peak| *peak > 100.0).count();
        let calm = of(|o| o.swing).filter(|swing| *swing <= 2.0).count();
        let wins = table.iter().filter(|row| row[i].peak <= 100.0 && row[i].store >= best(row) - 0.05).count();
        let mean = |f: fn(&Outcome) -> f64| of(f).sum::<f64>() / cells;
        println!(
            "{name:<16} {over:>9} {:>9.1} {:>9.1} {:>9.1} {:>9.0} % {:>7.0} % {:>8.1} %",
            mean(|o| o.swing),
            of(|o| o.swing).fold(0.0, f64::max),
            mean(|o| o.store),
            calm as f64 / cells * 100.0,
            wins as f64 / cells * 100.0,
            mean(|o| o.beyond)
        );
    }
}

/// Every combination of the corners and some between.
fn grid() -> Vec<Cell> {
    let seconds = [0.0, 0.5, 1.0, 2.0].map(Duration::from_secs_f64);
    let mut cells = Vec::new();
    for delay in seconds {
        for lazy in seconds {
            for inflow in [0.01, 0.05, 0.10, 0.20] {
                cells.extend([0.0, 0.15, 0.30, 0.60, 0.75, 0.90].map(|base| Cell { delay, lazy, inflow, base }));
            }
        }
    }
    cells
}

/// As many cells, anywhere in the ranges.
fn drawn(seed: u64) -> Vec<Cell> {
    let mut state = seed;
    let mut unit = move || {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) >> 11) as f64 / (1_u64 << 53) as f64
    };
    let mut cell = || Cell {
        delay: Duration::from_secs_f64(unit() * 2.0),
        lazy: Duration::from_secs_f64(unit() * 2.0),
        inflow: 0.01 + unit() * 0.19,
        base: unit() * 0.90,
    };
    std::iter::repeat_with(&mut cell).take(384).collect()
}
