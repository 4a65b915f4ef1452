//! How large a chunk, which codec, what a token filter costs: for files given, and for 200-byte lines of the 20,000-word list.
//!
//! `cargo bench -p plimsoll-store --bench chunk -- [FILE …]`; files come from `bench/real-logs` and `bench/java-traces`. Of each the first 64 MiB
//! are cut into chunks of several sizes and compressed at several levels. CPU is the scheduler's (`schedstat`), a line; *ratio* is with
//! the filter; *wrong* is how many of 20,000 words that are not there a filter lets through; *one word* is the time to look at every
//! chunk's filter, open those that may have a word that one line has, and find it, for 10 million lines of this kind.
#![allow(clippy::disallowed_methods)] // a benchmark reads the clock and its own files
#![allow(missing_docs)]
#![allow(dead_code)] // the filter's file is used as it is, and not all of it

use std::error::Error;
use std::io::Read;

#[path = "../src/filter.rs"]
mod filter;

use filter::{Needed, Tokens, token_hash};

const MOST_BYTES: u64 = 64 << 20;

fn main() -> Result<(), Box<dyn Error>> {
    let files = std::env::args().skip(1).filter(|arg| arg != "--bench");
    let mut logs = vec![("word list".to_owned(), words())];
    for file in files {
        let mut text = Vec::new();
        std::fs::File::open(&file)?.take(MOST_BYTES).read_to_end(&mut text)?;
        logs.push((file.rsplit('/').next().unwrap_or_default().to_owned(), text));
    }
    println!(
        "| log | chunk | codec | compress us/line | tokens | filter | decompress + find | ratio | of it filter | wrong | one word |"
    );
    println!("|---|---|---|---|---|---|---|---|---|---|---|");
    for (name, text) in &logs {
        for kib in [256, 512, 1024, 2048] {
            for level in [-1, 1, 3] {
                if level == 1 || kib == 1024 {
                    measure(name, text, kib << 10, level)?;
                }
            }
        }
    }
    Ok(())
}

fn measure(name: &str, text: &[u8], chunk_bytes: usize, level: i32) -> Result<(), Box<dyn Error>> {
    let lines = text.iter().filter(|byte| **byte == b'\n').count() as f64;
    let mut compressor = zstd::bulk::Compressor::new(level)?;
    let (mut squeezed, mut filters, mut rest) = (Vec::new(), Vec::new(), text);
    let [mut compressing, mut tokenising, mut filtering] = [0.0; 3];
    while !rest.is_empty() {
        let end = rest.len().min(chunk_bytes);
        let end = rest[..end].iter().rposition(|byte| *byte == b'\n').map_or(end, |at| at + 1);
        let mut chunk = rest[..end].to_vec();
        rest = &rest[end..];
        let start = cpu_seconds()?;
        let tokens = Tokens::of(&mut chunk);
        let tokenised = cpu_seconds()?;
        let filter = tokens.filter().unwrap_or_default();
        let filtered = cpu_seconds()?;
        squeezed.push((compressor.compress(&chunk)?, chunk.len()));
        compressing += cpu_seconds()? - filtered;
        filtering += filtered - tokenised;
        tokenising += tokenised - start;
        filters.push(filter);
    }
    let bytes: usize = squeezed.iter().map(|(blob, _)| blob.len()).sum();
    let filter_bytes: usize = filters.iter().map(Vec::len).sum();
    let start = cpu_seconds()?;
    let mut found = 0;
    for (blob, len) in &squeezed {
        let plain = zstd::bulk::decompress(blob, *len)?;
        found += usize::from(memchr::memmem::find(&plain, b"zq9xv7nowhere").is_some());
    }
    let opening = cpu_seconds()? - start;
    let start = cpu_seconds()?;
    let (mut asked, mut wrong) = (0u32, 0u32);
    for word in 0..20_000 {
        let filter = &filters[word % filters.len()];
        let hash = token_hash(format!("zq{word}nowhere").as_bytes()).unwrap_or(1);
        asked += 1;
        wrong += u32::from(has(filter, hash));
    }
    let asking = (cpu_seconds()? - start) / f64::from(asked);
    let chunks = squeezed.len() as f64 * 1e7 / lines;
    let one_chunk = opening / squeezed.len() as f64;
    let one_word = chunks * asking + (1.0 + chunks * f64::from(wrong) / f64::from(asked)) * one_chunk;
    let line = |seconds: f64| seconds * 1e6 / lines;
    println!(
        "| {name} | {} KiB | zstd {level} | {:.3} | {:.3} | {:.3} | {:.3} | {:.3} | {:.3} | {:.4} | {:.1} ms |",
        chunk_bytes >> 10,
        line(compressing),
        line(tokenising),
        line(filtering),
        line(opening),
        (bytes + filter_bytes) as f64 / text.len() as f64,
        filter_bytes as f64 / text.len() as f64,
        f64::from(wrong) / f64::from(asked),
        one_word * 1e3
    );
    if found > 0 { Err("what is nowhere was found".into()) } else { Ok(()) }
}

fn has(filter: &[u8], hash: u32) -> bool {
    let needed = Needed { any_of: vec![vec![hash]] };
    needed.may_be_in(&mut |into, at| {
        let Some(from) = filter.get(at..at + into.len()) else { return false };
        into.copy_from_slice(from);
        true
    })
}

/// 200-byte lines of words drawn uniformly from 20,000, each with a number.
fn words() -> Vec<u8> {
    let mut random = 0x9e37_79b9_7f4a_7c15_u64;
    let mut next = move |below: u64| {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        random % below
    };
    let words: Vec<Vec<u8>> = (0..20_000).map(|_| (0..3 + next(9)).map(|_| b'a' + next(26) as u8).collect()).collect();
    let mut text = Vec::new();
    for number in 0..160_000 {
        let start = text.len();
        text.extend_from_slice(format!("{number:08}").as_bytes());
        while text.len() - start < 199 {
            text.push(b' ');
            text.extend_from_slice(&words[next(20_000) as usize]);
        }
        text.truncate(start + 199);
        text.push(b'\n');
    }
    text
}

/// CPU of this thread.
fn cpu_seconds() -> Result<f64, Box<dyn Error>> {
    let stat = std::fs::read_to_string("/proc/thread-self/schedstat")?;
    Ok(stat.split_whitespace().next().unwrap_or_default().parse::<f64>()? / 1e9)
}
