//! Where the heap leads: the verdicts of `docs/trend.md` over the digests on the shelf. Keys, and the reasons that may name them, are
//! for who is authorised.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use axum::http::StatusCode;
use plimsoll::units;
use plimsoll_heap::digest::Kind;
use serde_json::Value;
use tokio::sync::Mutex;

use super::super::guard::Asker;
use super::{Answer, Wrong, digests};
use crate::capture::shelf::Shelf;
use crate::trend::{self, Analysis, Sample};

/// The trend of the captures as they are, made once: the next asker gets it, too, until there is another capture or another limit. One at
/// a time is made; who asks meanwhile waits for it, and where it takes longer than an answer may, it is there for who asks again.
#[derive(Clone, Default)]
pub(in crate::web) struct Trends {
    kept: Arc<Mutex<Option<Kept>>>,
}

struct Kept {
    /// What it was made of: the digests by name, and the limit.
    of: (Vec<PathBuf>, Option<u64>),
    analysis: Arc<Analysis>,
}

impl Trends {
    /// The trend of what is on `shelf`, `now` since 1970.
    pub(super) async fn get(&self, shelf: Shelf, limit_bytes: Option<u64>, now: Duration) -> Answer<Arc<Analysis>> {
        let mut kept = Arc::clone(&self.kept).lock_owned().await;
        // The lock goes along: it is free when the work is done, not when the asker has gone.
        super::read(move || {
            let digests: Vec<PathBuf> = digests::items(&shelf)?.into_iter().filter_map(|item| item.digest).collect();
            let of = (digests, limit_bytes);
            if let Some(kept) = kept.as_ref().filter(|kept| kept.of == of) {
                return Ok(Arc::clone(&kept.analysis));
            }
            let analysis = Arc::new(analyse(&shelf, limit_bytes, now)?);
            *kept = Some(Kept { of, analysis: Arc::clone(&analysis) });
            Ok(analysis)
        })
        .await
    }
}

fn analyse(shelf: &Shelf, limit_bytes: Option<u64>, now: Duration) -> Answer<Analysis> {
    let (found, _) = digests::newest(shelf)?;
    let samples = found
        .into_iter()
        .map(|(item, digest)| Sample {
            unix_ns: digest.unix_ns,
            size_bytes: item.file.as_ref().map_or(0, |(.., bytes)| *bytes),
            path: item.id.into(),
            digest,
        })
        .collect();
    Ok(trend::analyse(samples, limit_bytes, now))
}

/// As it is told over HTTP: `key` is null where the asker may not know it.
pub(super) fn json(analysis: &Analysis, asker: Asker) -> Value {
    let mut told = trend::json::of(analysis);
    if asker != Asker::Authorised {
        let judged = told["judged"].as_array_mut().into_iter().flatten();
        for judged in judged.filter(|judged| judged["kind"] != Kind::Total.word()) {
            for verdict in judged["verdicts"].as_array_mut().into_iter().flatten() {
                verdict["key"] = Value::Null;
            }
        }
    }
    told
}

/// The same for people to read and to keep.
///
/// # Errors
/// No captures.
pub(super) fn markdown(name: &str, analysis: &Analysis, asker: Asker) -> Answer<String> {
    if analysis.samples.is_empty() {
        let what = "no captures with a digest yet; ask for one (plimsoll heap snapshot NAME), or wait for the next";
        return Err(Wrong(StatusCode::NOT_FOUND, what.to_owned()));
    }
    let when = match (analysis.samples.first(), analysis.samples.last()) {
        (Some(first), Some(last)) => {
            let span = std::time::Duration::from_nanos(last.unix_ns.saturating_sub(first.unix_ns));
            format!("{} captures over {}", analysis.samples.len(), units::duration(span))
        }
        _ => "no captures".to_owned(),
    };
    let mut told = analysis.clone();
    if asker != Asker::Authorised {
        let of_program = told.judged.iter_mut().filter(|judged| judged.kind != Kind::Total);
        of_program.flat_map(|judged| &mut judged.verdicts).for_each(|one| "(needs the token)".clone_into(&mut one.key));
    }
    Ok(trend::markdown::page(&told, name, &when))
}

#[cfg(test)]
mod tests {
    use plimsoll_heap::digest::{Digest, Row};
    use plimsoll_heap::format::Format;

    use super::*;
    use crate::capture::due::Trigger;
    use crate::capture::shelf::Keep;

    /// A day of captures, each half hour: one owner that grows by 1 MB each, one that stays; a heap that grows, and a process that
    /// grows twice as fast.
    fn day(shelf: &Shelf) {
        shelf.make().unwrap();
        for n in 0..49_u64 {
            let unix_ms = 1_700_000_000_000 + n * 1_800_000;
            let part = shelf.tmp().join("part");
            std::fs::write(&part, "{}").unwrap();
            let item = shelf.put(&part, Format::V8Snapshot, unix_ms, Trigger::Periodic, 7).unwrap();
            let row = |kind, key: &str, bytes| Row { kind, key: key.into(), bytes, count: 1, variance: 0.0 };
            let rows = vec![
                row(Kind::Owner, "global.cache → Map", 10_000_000 + n * 1_000_000),
                row(Kind::Owner, "global.catalog", 5_000_000),
                row(Kind::Total, "heap", 15_000_000 + n * 1_000_000),
                row(Kind::Total, "rss", 60_000_000 + n * 1_500_000),
            ];
            let digest = Digest { unix_ns: unix_ms * 1_000_000, life: 1, rows, ..Digest::default() };
            digest.write(&mut std::fs::File::create(shelf.digest_path(&item)).unwrap()).unwrap();
        }
    }

    const NOW: Duration = Duration::from_secs(1_800_000_000);

    fn analysed(shelf: &Shelf) -> Analysis {
        analyse(shelf, Some(300 << 20), NOW).unwrap_or_else(|wrong| panic!("{}", wrong.1))
    }

    #[test]
    fn the_owner_that_grows_is_named_to_who_is_authorised() {
        let dir = tempfile::tempdir().unwrap();
        let shelf = Shelf::new(dir.path().join("heap"), Keep::default());
        let nothing = analysed(&shelf);
        assert_eq!(nothing.overall.as_str(), "insufficient-data");
        assert_eq!(
            markdown("shop", &nothing, Asker::Authorised).err().map(|wrong| wrong.0),
            Some(StatusCode::NOT_FOUND)
        );
        day(&shelf);
        let found = analysed(&shelf);
        assert_eq!((found.overall.as_str(), found.samples.len()), ("leaking", 49));
        let owners = found.judged.iter().find(|judged| judged.kind == Kind::Owner).unwrap();
        assert_eq!(
            (owners.verdicts[0].key.as_str(), owners.verdicts[0].state.as_str()),
            ("global.cache → Map", "leaking")
        );
        assert!((owners.verdicts[0].per_hour.unwrap() / 2_000_000.0 - 1.0).abs() < 0.05, "{owners:?}");
        for (asker, knows) in [(Asker::Authorised, true), (Asker::Anybody, false)] {
            let page = markdown("shop", &found, asker).unwrap_or_else(|wrong| panic!("{}", wrong.1));
            let told = json(&found, asker);
            assert_eq!((page.contains("global.cache"), told.to_string().contains("global.cache")), (knows, knows));
            let of = |kind: &str| told["judged"].as_array().unwrap().iter().find(|one| one["kind"] == kind).unwrap();
            assert_eq!(of("owner")["verdicts"][0]["key"].is_null(), !knows);
            assert_eq!(of("total")["verdicts"][0]["key"], "rss", "figures of the process have no secrets");
        }
    }

    #[test]
    fn a_trend_is_made_once_for_all_who_ask_until_the_shelf_changes() {
        let dir = tempfile::tempdir().unwrap();
        let shelf = Shelf::new(dir.path().join("heap"), Keep::default());
        day(&shelf);
        let trends = Trends::default();
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let get = |limit| {
            runtime.block_on(trends.get(shelf.clone(), limit, NOW)).unwrap_or_else(|wrong| panic!("{}", wrong.1))
        };
        let (first, second) = (get(None), get(None));
        assert!(Arc::ptr_eq(&first, &second));
        assert!(!Arc::ptr_eq(&first, &get(Some(1))), "another limit");
        let newest = shelf.items().unwrap().pop().unwrap();
        std::fs::remove_file(newest.digest.unwrap()).unwrap();
        let fewer = get(None);
        assert_eq!((first.samples.len(), fewer.samples.len()), (49, 48));
    }
}
