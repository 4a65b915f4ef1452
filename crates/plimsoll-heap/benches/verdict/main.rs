//! How often the verdict is right: the labelled corpus of a seed, the rules in use elsewhere beside it, and 24-hour windows.
//!
//!     cargo bench -p plimsoll-heap --bench verdict [-- [--seed N] [--seeds N] [--adverse] [--csv FILE [--half even|odd]] [--explain]]
//!
//! `--seeds N` adds the corpora of N seeds from `--seed` on; `--adverse` draws them from the second generator. `--csv FILE` judges series of a file (series,unix_seconds,value[,life])
//! instead: how many of their 24-hour windows leak, as they are and with a linear leak added; `--half` takes every second series. Exit code 1: a promise is not kept.

#![allow(clippy::disallowed_methods, missing_docs, unreachable_pub)]

mod adverse;
mod corpus;
mod measure;
mod rivals;
mod rng;
mod windows;

use windows::Half;

fn main() -> std::process::ExitCode {
    let mut args = std::env::args().skip(1);
    let (mut seed, mut seeds, mut csv, mut half, mut explain) = (1, 1, None, Half::All, false);
    let mut draw: fn(u64) -> Vec<corpus::Labelled> = corpus::draw;
    while let Some(arg) = args.next() {
        let mut number = || args.next().and_then(|text| text.parse().ok()).unwrap_or(1);
        match arg.as_str() {
            "--seed" => seed = number(),
            "--seeds" => seeds = number(),
            "--adverse" => draw = adverse::draw,
            "--csv" => csv = args.next(),
            "--half" => {
                half = match args.next().as_deref() {
                    Some("even") => Half::Even,
                    Some("odd") => Half::Odd,
                    _ => Half::All,
                }
            }
            "--explain" => explain = true,
            // What cargo passes to every bench.
            _ => {}
        }
    }
    match csv {
        Some(path) => windows::of_file(&path, half, explain),
        None => measure::corpora(draw, seed, seeds, explain),
    }
}
