//! What a program says of itself by name, for the history: bytes held by its accounts, waiting in its queues, kept in its stores. At most
//! [`NAMED_MAX`] (24) names at a time, of at most [`NAME_BYTES_MAX`] (48) bytes; a name that is followed stays as long as it is reported,
//! so that its series has no holes, and what is free goes to the largest. What is not followed is counted.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::snapshot::report::ReportView;

/// Names that are followed at a time.
pub(crate) const NAMED_MAX: usize = 24;
/// A name ends here; what is then the same is one.
pub(crate) const NAME_BYTES_MAX: usize = 48;

/// Names with their bytes, in an order that only changes when names come or go.
pub(crate) type Named = Vec<(Arc<str>, u64)>;

/// Bytes by name, the processes' together.
pub(crate) fn present<'a>(reports: impl Iterator<Item = &'a ReportView>) -> BTreeMap<String, u64> {
    let mut present = BTreeMap::<String, u64>::new();
    let mut add = |kind: &str, name: &str, bytes: u64| {
        let key = format!("{kind} {name}");
        let end = (0..=NAME_BYTES_MAX.min(key.len())).rev().find(|at| key.is_char_boundary(*at)).unwrap_or(0);
        let sum = present.entry(key[..end].to_owned()).or_default();
        *sum = sum.saturating_add(bytes);
    };
    for report in reports {
        report.accounts.iter().for_each(|account| add("account", &account.name, account.held_bytes));
        report.queues.iter().for_each(|queue| add("queue", &queue.name, queue.bytes));
        let stores = report.reclaim.iter().flat_map(|reclaim| &reclaim.stores);
        stores.for_each(|store| add("store", &store.name, store.held_bytes));
    }
    present
}

/// Those of `present` that are followed, `before` being those of the last time; and how many are not.
pub(crate) fn follow(before: &[Arc<str>], mut present: BTreeMap<String, u64>) -> (Named, usize) {
    let mut named: Named =
        before.iter().filter_map(|name| Some((Arc::clone(name), present.remove(&**name)?))).collect();
    let mut rest: Vec<(String, u64)> = present.into_iter().collect();
    rest.sort_by(|a, b| b.1.cmp(&a.1).then_with(|| a.0.cmp(&b.0)));
    let free = NAMED_MAX.saturating_sub(named.len()).min(rest.len());
    named.extend(rest.drain(..free).map(|(name, bytes)| (name.into(), bytes)));
    (named, rest.len())
}

/// A name as a word of a line: spaces, per cent and what is no printable ASCII as `%XX`.
pub(crate) fn word(name: &str) -> String {
    let mut word = String::with_capacity(name.len());
    for byte in name.bytes() {
        match byte {
            b'!'..=b'~' if byte != b'%' => word.push(byte as char),
            _ => word.push_str(&format!("%{byte:02X}")),
        }
    }
    word
}

/// The name of a word; what is not well formed stays as it is.
pub(crate) fn name(word: &str) -> Arc<str> {
    let mut bytes = Vec::with_capacity(word.len());
    let mut rest = word.as_bytes();
    while let [first, tail @ ..] = rest {
        let hex = tail.get(..2).and_then(|hex| u8::from_str_radix(std::str::from_utf8(hex).ok()?, 16).ok());
        match hex.filter(|_| *first == b'%') {
            Some(byte) => (bytes.push(byte), rest = &tail[2..]),
            None => (bytes.push(*first), rest = tail),
        };
    }
    String::from_utf8_lossy(&bytes).into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::snapshot::report::{AccountView, QueueView, ReclaimView, StoreView};

    #[test]
    fn bytes_of_all_processes_are_summed_by_name() {
        let account = |name: &str, held_bytes| AccountView { name: name.into(), held_bytes, ..AccountView::default() };
        let queue = QueueView { name: "orders".into(), bytes: 7, ..QueueView::default() };
        let store = StoreView { name: "cache".into(), held_bytes: 9, ..StoreView::default() };
        let one = ReportView {
            accounts: vec![account("blocks", 5), account("é".repeat(40).as_str(), 1)],
            queues: vec![queue],
            reclaim: Some(ReclaimView { stores: vec![store], ..ReclaimView::default() }),
            ..ReportView::default()
        };
        let other = ReportView { accounts: vec![account("blocks", 10)], ..ReportView::default() };
        let found = present([one, other].iter());
        let of = |name: &str| found.get(name).copied();
        assert_eq!(
            (of("account blocks"), of("queue orders"), of("store cache"), found.len()),
            (Some(15), Some(7), Some(9), 4)
        );
        assert!(found.keys().all(|key| key.len() <= NAME_BYTES_MAX));
    }

    #[test]
    fn who_is_followed_stays_and_the_largest_come_next() {
        let present = |n: usize| (0..n).map(|i| (format!("queue {i:03}"), i as u64)).collect::<BTreeMap<_, _>>();
        let (first, left) = follow(&[], present(30));
        assert_eq!((first.len(), left, &*first[0].0), (NAMED_MAX, 6, "queue 029"));
        let before: Vec<Arc<str>> = first.into_iter().map(|one| one.0).collect();
        // Larger ones come: they wait for a place.
        let (second, left) = follow(&before, present(40));
        assert_eq!((second.iter().map(|one| one.0.clone()).collect::<Vec<_>>(), left), (before.clone(), 16));
        // All but the first ten go, and what is there takes their places.
        let (third, left) = follow(&before, present(10));
        assert_eq!((third.len(), left, &*third[0].0), (10, 0, "queue 009"));
    }

    #[test]
    fn names_become_words_and_names_again() {
        for text in ["queue orders", "account 100 % é\n", "", "%41"] {
            let word = word(text);
            assert!(word.bytes().all(|b| b.is_ascii_graphic()), "{word}");
            assert_eq!(&*name(&word), text);
        }
        assert_eq!(&*name("50%"), "50%");
        assert_eq!(&*name("%zz%é"), "%zz%é");
    }
}
