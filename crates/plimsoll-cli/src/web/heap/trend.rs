//! Where the heap leads: the verdicts of `docs/trend.md` over the digests on the shelf. Keys, and the reasons that may name them, are
//! for who is authorised.

use plimsoll::units;

use super::super::guard::Asker;
use super::{Answer, digests};
use crate::capture::shelf::Shelf;
use crate::trend::{self, Analysis, Sample};

pub(super) fn analyse(shelf: &Shelf, limit_bytes: Option<u64>, asker: Asker) -> Answer<Analysis> {
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
    let mut analysis = trend::analyse(samples, limit_bytes);
    if asker != Asker::Authorised {
        let of_program = analysis.judged.iter_mut().filter(|judged| judged.kind != plimsoll_heap::digest::Kind::Total);
        for verdict in of_program.flat_map(|judged| &mut judged.verdicts) {
            verdict.key.clear();
        }
    }
    Ok(analysis)
}

/// The same for people to read and to keep.
pub(super) fn markdown(name: &str, analysis: &Analysis) -> String {
    let when = match (analysis.samples.first(), analysis.samples.last()) {
        (Some(first), Some(last)) => {
            let span = std::time::Duration::from_nanos(last.unix_ns.saturating_sub(first.unix_ns));
            format!("{} captures over {}", analysis.samples.len(), units::duration(span))
        }
        _ => "no captures".to_owned(),
    };
    trend::markdown::page(analysis, name, &when)
}

#[cfg(test)]
mod tests {
    use plimsoll_heap::digest::{Digest, Kind, Row};
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

    fn analysed(shelf: &Shelf, asker: Asker) -> Analysis {
        analyse(shelf, Some(300 << 20), asker).unwrap_or_else(|wrong| panic!("{}", wrong.1))
    }

    #[test]
    fn the_owner_that_grows_is_named_to_who_is_authorised() {
        let dir = tempfile::tempdir().unwrap();
        let shelf = Shelf::new(dir.path().join("heap"), Keep::default());
        assert_eq!(analysed(&shelf, Asker::Authorised).overall.as_str(), "insufficient-data");
        day(&shelf);
        let found = analysed(&shelf, Asker::Authorised);
        assert_eq!((found.overall.as_str(), found.samples.len()), ("leaking", 49));
        let owners = found.judged.iter().find(|judged| judged.kind == Kind::Owner).unwrap();
        assert_eq!(
            (owners.verdicts[0].key.as_str(), owners.verdicts[0].state.as_str()),
            ("global.cache → Map", "leaking")
        );
        assert!((owners.verdicts[0].per_hour.unwrap() / 2_000_000.0 - 1.0).abs() < 0.05, "{owners:?}");
        assert!(markdown("shop", &found).contains("global.cache"));
        let open = analysed(&shelf, Asker::Anybody);
        assert!(!markdown("shop", &open).contains("global"), "names are for the authorised");
        assert!(open.judged.iter().any(|judged| judged.verdicts.iter().any(|one| one.key == "rss")));
    }
}
