//! A part of both corpora of one seed, judged: the promises hold on them. The whole, and the rivals: `cargo bench --bench verdict`.

#[path = "../../benches/verdict/adverse.rs"]
mod adverse;
#[path = "../../benches/verdict/corpus.rs"]
#[allow(dead_code, reason = "the bench uses the rest")]
mod corpus;
#[path = "../../benches/verdict/rng.rs"]
#[allow(dead_code, reason = "the bench uses the rest")]
mod rng;

use corpus::{DAY, Labelled};
use plimsoll_heap::trend::Setup;
use plimsoll_heap::verdict::{State, judge, split};

#[test]
fn a_fourth_of_a_corpus_is_judged_well() {
    judged_well(corpus::draw(7), 92);
}

/// Many of its leaks follow the traffic and are watched for hardly more than a day: fewer are found, and as few alarms are wrong.
#[test]
fn a_fourth_of_the_adverse_corpus_is_judged_well() {
    judged_well(adverse::draw(7), 85);
}

fn judged_well(corpus: Vec<Labelled>, recall_percent: usize) {
    let setup = Setup::default();
    let (mut right, mut alarms, mut found, mut to_find) = (0, 0, 0, 0);
    for one in corpus.into_iter().step_by(4) {
        let mut verdict = judge(&one.series, &setup);
        if let Some(live) = &one.live {
            verdict = split(verdict, &one.series, live, &setup).rss;
        }
        let leaks = verdict.state == State::Leaking;
        alarms += usize::from(leaks);
        right += usize::from(leaks && one.class.leaks());
        let watched = one.series.points().last().map_or(0.0, |last| last.unix_seconds - one.leak_from);
        if one.rate_per_day >= 0.2 && watched >= DAY {
            to_find += 1;
            found += usize::from(leaks);
        }
    }
    assert!(alarms > 30 && right * 100 >= alarms * 97, "{right} of {alarms} alarms are right");
    assert!(to_find > 25 && found * 100 >= to_find * recall_percent, "{found} of {to_find} leaks found");
}
