//! What many snapshots or a history say together: one verdict a key, and one over all. At most [`FILES_MAX`] (10,000) files of a
//! directory, the newest; of each a digest is kept, a few KB.

pub(crate) mod json;
pub(crate) mod markdown;

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use plimsoll_heap::digest::{Digest, Kind};
use plimsoll_heap::series::{Series, Unit, of_digests, of_one_time};
use plimsoll_heap::trend::Setup;
use plimsoll_heap::verdict::{self, State};

use crate::exit::Failure;
use crate::history::judge::{rank, view};
use crate::snapshot::VerdictView;

/// Files of a directory that are read.
pub(crate) const FILES_MAX: usize = 10_000;
/// Lives whose newest sample is asked for the life of one that does not know its own.
const LIVES_ASKED: usize = 16;
/// Verdicts that are kept of each kind.
const KEPT: usize = 50;

/// One file that was read.
#[derive(Clone, Debug)]
pub(crate) struct Sample {
    pub(crate) path: PathBuf,
    pub(crate) unix_ns: u64,
    pub(crate) size_bytes: u64,
    pub(crate) digest: Digest,
}

/// The verdicts on keys of one kind.
#[derive(Clone, Debug)]
pub(crate) struct Judged {
    pub(crate) kind: Kind,
    /// Leaks first, the fastest first; at most [`KEPT`].
    pub(crate) verdicts: Vec<VerdictView>,
    /// How many keys were judged.
    pub(crate) keys: usize,
}

/// A file that was judged, without what it says of keys.
#[derive(Clone, Debug)]
pub(crate) struct Seen {
    pub(crate) path: PathBuf,
    pub(crate) unix_ns: u64,
    /// Which figure says what the program held, and how much: see [`json::held`].
    pub(crate) figure: &'static str,
    pub(crate) held_bytes: u64,
}

/// What many samples say.
#[derive(Clone, Debug, Default)]
pub(crate) struct Analysis {
    /// In order of time; empty for a history.
    pub(crate) samples: Vec<Seen>,
    /// Samples of another time that were left out: [`of_one_time`].
    pub(crate) left_out: usize,
    pub(crate) judged: Vec<Judged>,
    /// The word over all.
    pub(crate) overall: State,
    /// Lives of the program among the samples.
    pub(crate) lives: usize,
}

/// Judges samples, in whatever order they come; `now` since 1970.
pub(crate) fn analyse(mut samples: Vec<Sample>, limit_bytes: Option<u64>, now: Duration) -> Analysis {
    samples.sort_by_key(|sample| sample.unix_ns);
    let times: Vec<f64> = samples.iter().map(|sample| sample.unix_ns as f64 / 1e9).collect();
    let of_one_time = of_one_time(&times, now.as_secs_f64());
    samples.truncate(of_one_time.end);
    samples.drain(..of_one_time.start);
    let left_out = times.len() - samples.len();
    let lives = number_lives(&mut samples);
    let kinds = [Kind::Total, Kind::Owner, Kind::Stack, Kind::Class, Kind::Mapping];
    let held = samples.last().map_or(0, |sample| json::held(sample).1) as f64;
    let judged: Vec<Judged> = kinds.into_iter().filter_map(|kind| judge(&samples, kind, held, limit_bytes)).collect();
    let overall = overall(&judged);
    let samples = samples.into_iter().map(seen).collect();
    Analysis { samples, left_out, judged, overall, lives }
}

fn seen(sample: Sample) -> Seen {
    let (figure, held_bytes) = json::held(&sample);
    Seen { path: sample.path, unix_ns: sample.unix_ns, figure, held_bytes }
}

/// What is said of samples that were left out; nothing where there are none.
pub(crate) fn said_of_left_out(left_out: usize) -> Option<String> {
    let readings = crate::view::words::plural(left_out as u64, "reading", "readings");
    (left_out > 0).then(|| format!("{readings} of another time left out: dated after now, or before a gap of a month"))
}

/// Gives each digest the number of its life, by what it says itself, else by its marks, else that of the one before; several processes
/// may take turns. How many there are.
fn number_lives(samples: &mut [Sample]) -> usize {
    let told = samples.iter().filter(|sample| sample.digest.life != 0).count();
    let same = |pair: &[Sample]| pair[0].digest.same_life(&pair[1].digest).is_some();
    if told < 2 && !samples.windows(2).any(same) {
        // Nobody knows: then the course itself is asked, by life 0.
        samples.iter_mut().for_each(|sample| sample.digest.life = 0);
        return 1;
    }
    let mut numbers: HashMap<u64, u64> = HashMap::new();
    // The newest sample of each life, the one read last at the end, at most [`LIVES_ASKED`].
    let mut newest: Vec<(u64, usize)> = Vec::new();
    let (mut count, mut given) = (0, Vec::with_capacity(samples.len()));
    for (at, sample) in samples.iter().enumerate() {
        let own = sample.digest.life;
        let known = match numbers.get(&own) {
            Some(number) if own != 0 => Some(*number),
            _ => by_marks(samples, at, &newest),
        };
        let number = known.unwrap_or_else(|| {
            count += 1;
            count
        });
        if own != 0 {
            numbers.insert(own, number);
        }
        newest.retain(|(other, _)| *other != number);
        newest.push((number, at));
        let beyond = newest.len().saturating_sub(LIVES_ASKED);
        newest.drain(..beyond);
        given.push(number);
    }
    samples.iter_mut().zip(given).for_each(|(sample, number)| sample.digest.life = number);
    usize::try_from(count).unwrap_or(usize::MAX).max(1)
}

/// The life that a sample surely is of; where the one before cannot tell, its; `None` where it is of none that is known.
fn by_marks(samples: &[Sample], at: usize, newest: &[(u64, usize)]) -> Option<u64> {
    let same = |other: usize| samples[other].digest.same_life(&samples[at].digest);
    let sure = newest.iter().rev().find(|(_, other)| same(*other) == Some(true));
    let before = newest.last().filter(|(_, other)| same(*other).is_none());
    sure.or(before).map(|(number, _)| *number)
}

fn judge(samples: &[Sample], kind: Kind, held: f64, limit_bytes: Option<u64>) -> Option<Judged> {
    let series = of_digests(samples.iter().map(|sample| &sample.digest), kind);
    if series.is_empty() {
        return None;
    }
    let setup = Setup::default();
    let is_whole =
        |series: &Series| kind == Kind::Total && ["rss", "heap", "live", "memory"].contains(&series.key.as_str());
    // What the process holds is told from what lives of it, where both were captured.
    let live = series.iter().find(|one| kind == Kind::Total && ["heap", "live"].contains(&one.key.as_str()));
    let mut verdicts: Vec<VerdictView> = verdict::judge_all(&series, &setup)
        .into_iter()
        .zip(&series)
        .map(|(verdict, series)| {
            let limit = limit_bytes.filter(|_| is_whole(series)).map(|bytes| bytes as f64);
            let (verdict, retention) = match live.filter(|_| series.key == "rss" || series.key == "anon") {
                Some(live) => {
                    let split = verdict::split(verdict, series, live, &setup);
                    (split.rss, split.is_retention)
                }
                None => (verdict, false),
            };
            let verdict = if kind == Kind::Total { verdict } else { verdict.of_part(held, Unit::Bytes) };
            VerdictView { retention, ..view(series, &verdict.with_limit(limit)) }
        })
        .collect();
    let keys = verdicts.len();
    sort(&mut verdicts);
    verdicts.truncate(KEPT);
    Some(Judged { kind, verdicts, keys })
}

/// Leaks first; among them, the fastest; among what does not grow, the largest.
pub(crate) fn sort(verdicts: &mut [VerdictView]) {
    verdicts.sort_by(|a, b| {
        let rate = |v: &VerdictView| v.per_hour.unwrap_or(0.0);
        rank(&b.state)
            .cmp(&rank(&a.state))
            .then(rate(b).total_cmp(&rate(a)))
            .then(b.now.total_cmp(&a.now))
            .then(a.key.cmp(&b.key))
    });
}

/// The word over all: that of the figures of the whole process where it is the worse, or a key that leaks.
fn overall(judged: &[Judged]) -> State {
    let states = [State::InsufficientData, State::Stable, State::Plateau, State::Growing, State::Leaking];
    let worst = judged.iter().flat_map(|judged| &judged.verdicts).map(|verdict| rank(&verdict.state)).max();
    states[usize::from(worst.unwrap_or(0)).min(states.len() - 1)]
}

/// Judges the history of a program.
pub(crate) fn of_history(path: &Path, budget_bytes: Option<u64>, now: Duration) -> Analysis {
    let mut verdicts = crate::history::judge::of_file(path, budget_bytes, now);
    let keys = verdicts.len();
    sort(&mut verdicts);
    let judged = vec![Judged { kind: Kind::Total, verdicts, keys }];
    Analysis { overall: overall(&judged), judged, samples: Vec::new(), left_out: 0, lives: 1 }
}

/// When a file was taken, if its name says so: `heap-1795253400000-periodic.heapsnapshot` (milliseconds).
pub(crate) fn time_in_name(path: &Path) -> Option<u64> {
    let name = path.file_name()?.to_str()?;
    let digits = name.split(|c: char| !c.is_ascii_digit()).find(|digits| digits.len() == 13)?;
    digits.parse::<u64>().ok()?.checked_mul(1_000_000)
}

/// The files of a directory, the newest [`FILES_MAX`] by name and time; how many there are.
pub(crate) fn files(dir: &Path) -> Result<Vec<PathBuf>, Failure> {
    let failed = |error: std::io::Error| Failure::new(format!("cannot read {}: {error}", dir.display()));
    let mut files = Vec::new();
    for entry in std::fs::read_dir(dir).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        // Through links, too: a directory of links to captures kept elsewhere. One that leads nowhere is no file.
        let Ok(meta) = std::fs::metadata(entry.path()) else { continue };
        let is_file = meta.is_file();
        let is_other = entry.path().extension().is_some_and(|e| ["part", "md", "json", "cjs"].iter().any(|o| e == *o));
        if is_file && !is_other && !has_digest(&entry.path()) {
            files.push((meta.modified().ok(), entry.path()));
        }
    }
    files.sort();
    let skipped = files.len().saturating_sub(FILES_MAX);
    Ok(files.split_off(skipped).into_iter().map(|(_, path)| path).collect())
}

/// Whether the digest of a file stands beside it, as a supervisor puts it there: then that is read, and the file is not.
fn has_digest(path: &Path) -> bool {
    let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    let stem = name.split('.').next().unwrap_or_default();
    let digest = path.with_file_name(format!("{stem}.digest"));
    digest != path && digest.is_file()
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use plimsoll_heap::digest::Row;

    fn sample(hour: u64, life: u64, rows: &[(Kind, &str, f64)]) -> Sample {
        let row = |(kind, key, bytes): &(Kind, &str, f64)| Row {
            kind: *kind,
            key: (*key).to_owned(),
            bytes: *bytes as u64,
            count: 1,
            variance: 0.0,
        };
        let unix_ns = 1_790_000_000_000_000_000 + hour * 3_600_000_000_000;
        let rows = rows.iter().map(row).collect();
        let digest = Digest { unix_ns, life, rows, ..Digest::default() };
        Sample { path: format!("/s/{hour}.digest").into(), unix_ns, size_bytes: 10, digest }
    }

    const NOW: Duration = Duration::from_secs(1_790_000_000 + 400 * 3_600);

    pub(crate) fn leaking() -> Analysis {
        let at = |hour: u64| {
            let grown = 1e6 * hour as f64 + 1e4 * (hour * 7 % 5) as f64;
            let rows = [
                (Kind::Owner, "app.cache → Map", 5e6 + grown),
                (Kind::Owner, "app.catalog → Array", 9e6),
                (Kind::Total, "heap", 20e6 + grown),
            ];
            sample(hour, 5 + hour / 20, &rows)
        };
        analyse((0..40).rev().map(at).collect(), Some(200_000_000), NOW)
    }

    #[test]
    fn the_leaking_owner_is_first_and_restarts_are_breaks() {
        let found = leaking();
        assert_eq!((found.overall, found.lives), (State::Leaking, 2));
        assert!(found.samples.is_sorted_by_key(|s| s.unix_ns));
        let owners = found.judged.iter().find(|j| j.kind == Kind::Owner).unwrap();
        assert_eq!((owners.verdicts[0].key.as_str(), owners.keys), ("app.cache → Map", 2));
        assert!((owners.verdicts[0].per_hour.unwrap() - 1e6).abs() < 5e4, "{owners:?}");
        assert_eq!(owners.verdicts[1].state, "stable");
        let heap = &found.judged[0].verdicts[0];
        assert!(heap.time_to_limit_seconds.is_some(), "{heap:?}");
    }

    #[test]
    fn a_key_that_creeps_beside_a_large_heap_is_no_leak() {
        let at = |hour: u64| {
            let rows = [
                (Kind::Owner, "small → Map", 8e3 + 300.0 * hour as f64),
                (Kind::Owner, "app.catalog → Array", 9e6),
                (Kind::Total, "heap", 9e6),
            ];
            sample(hour, 5, &rows)
        };
        let found = analyse((0..40).map(at).collect(), None, NOW);
        assert_eq!(found.overall, State::Stable, "{found:?}");
        let owners = found.judged.iter().find(|judged| judged.kind == Kind::Owner).unwrap();
        let small = owners.verdicts.iter().find(|verdict| verdict.key == "small → Map").unwrap();
        assert!(small.reasons[0].starts_with("creeps, by"), "{small:?}");
    }

    /// Two days, each half hour: an owner and the heap that hold 1 MB more each hour.
    fn grows(life: impl Fn(u64) -> u64) -> Analysis {
        let at = |n: u64| {
            let grown = 5e5 * n as f64 + 1e4 * (n * 7 % 5) as f64;
            let rows = [(Kind::Owner, "app.cache → Map", 5e6 + grown), (Kind::Total, "heap", 20e6 + grown)];
            let mut one = sample(0, life(n), &rows);
            one.unix_ns += n * 1_800_000_000_000;
            one.digest.unix_ns = one.unix_ns;
            one
        };
        analyse((0..96).map(at).collect(), None, NOW)
    }

    #[test]
    fn a_leak_in_several_processes_is_a_leak() {
        type Life = fn(u64) -> u64;
        let lives: [(&str, Life, usize); 4] = [
            ("one process", |_| 11, 1),
            ("two in turns", |n| 11 + n % 2, 2),
            ("two, five times each", |n| 11 + n / 5 % 2, 2),
            ("three, one of them restarted", |n| 11 + n % 3 + 40 * u64::from(n % 3 == 1 && n > 60), 4),
        ];
        for (name, life, count) in lives {
            let found = grows(life);
            assert_eq!((found.overall, found.lives), (State::Leaking, count), "{name}: {:?}", found.judged);
            for judged in &found.judged {
                assert_eq!(judged.verdicts[0].state, "leaking", "{name}: {judged:?}");
                assert!((judged.verdicts[0].per_hour.unwrap() - 1e6).abs() < 1e5, "{name}: {judged:?}");
                let base = if judged.kind == Kind::Owner { 5e6 } else { 20e6 };
                assert!((judged.verdicts[0].now - base - 47.5e6).abs() < 1e5, "{name}: {judged:?}");
            }
        }
    }

    #[test]
    fn a_clock_that_was_wrong_once_hides_no_leak() {
        let at = |hour: u64| sample(hour, 5, &[(Kind::Total, "heap", 20e6 + 1e6 * hour as f64 + (hour % 3) as f64)]);
        let ten_years = 87_600;
        let ahead = sample(ten_years, 5, &[(Kind::Total, "heap", 9e6)]);
        let samples: Vec<Sample> = (0..48).map(at).chain([ahead]).collect();
        let found = analyse(samples, None, NOW);
        assert_eq!((found.overall, found.samples.len(), found.left_out), (State::Leaking, 48, 1), "{found:?}");
        let said = said_of_left_out(1).unwrap();
        assert_eq!(said, "1 reading of another time left out: dated after now, or before a gap of a month");
        assert_eq!(said_of_left_out(0), None);
    }

    #[test]
    fn processes_are_told_by_marks_where_no_digest_knows_its_life() {
        use plimsoll_heap::digest::Mark;
        let mut samples: Vec<Sample> = (0..6).map(|hour| sample(hour, 0, &[(Kind::Total, "heap", 1e6)])).collect();
        for (at, sample) in samples.iter_mut().enumerate() {
            let process = at as u32 % 2;
            sample.digest.marks = (0..100).map(|id| Mark { id, what: id as u32 * 2 + process }).collect();
        }
        assert_eq!(number_lives(&mut samples), 2);
        assert_eq!(samples.iter().map(|one| one.digest.life).collect::<Vec<_>>(), [1, 2, 1, 2, 1, 2]);
    }

    #[test]
    fn nothing_is_insufficient() {
        assert_eq!(analyse(Vec::new(), None, NOW).overall, State::InsufficientData);
    }

    #[test]
    fn files_are_found_through_links_and_what_leads_nowhere_is_none() {
        let (kept, dir) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        std::fs::write(kept.path().join("one.heap"), "x").unwrap();
        std::fs::create_dir(kept.path().join("more")).unwrap();
        let link =
            |to: &str, name: &str| std::os::unix::fs::symlink(kept.path().join(to), dir.path().join(name)).unwrap();
        link("one.heap", "linked.heap");
        link("more", "directory");
        link("nothing", "broken.heap");
        link("one.heap", "report.md");
        let found = files(dir.path()).unwrap();
        assert_eq!(found, [dir.path().join("linked.heap")]);
    }

    #[test]
    fn names_may_tell_the_time() {
        for (name, time) in [
            ("/d/heap-1795253400123-periodic.heapsnapshot", Some(1_795_253_400_123_000_000)),
            ("/d/heap-12-x.heapsnapshot", None),
            ("/d/je.1795253400123.heap", Some(1_795_253_400_123_000_000)),
        ] {
            assert_eq!(time_in_name(Path::new(name)), time);
        }
    }
}
