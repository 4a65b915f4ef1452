//! This crate's own parts as sources of gauges: for [`Report::gauges`](super::Report::gauges).

use super::Gauges;
use crate::admission;
use crate::broadcast::{Reason, Stats};

/// A broadcast's figures: subscribers, bytes, messages, and who was removed for what reason.
///
/// `stats` is called on the report's thread. A clone of the broadcast in it keeps the broadcast open as any other does.
///
/// # Examples
/// ```
/// use plimsoll::broadcast::Stats;
/// use plimsoll::report::{Report, of_broadcast};
///
/// # let stats = || Stats::default();
/// let report = Report::from_env().gauges("chat", of_broadcast(stats));
/// # let _ = report;
/// ```
pub fn of_broadcast(mut stats: impl FnMut() -> Stats + Send + 'static) -> Gauges {
    Box::new(move |tell| {
        let stats = stats();
        let figures = [
            ("subscribers_count", stats.subscribers),
            ("alive_bytes", stats.alive_bytes),
            ("published_total", stats.published.items),
            ("delivered_total", stats.delivered_total),
            ("refused_total", stats.refused.iter().sum()),
            ("turned_away_total", stats.turned_away.iter().sum()),
        ];
        figures.into_iter().for_each(|(name, value)| tell(name, value as f64));
        for reason in Reason::ALL {
            let name = format!("removed_{}_total", reason.as_str().replace('-', "_"));
            tell(&name, stats.removed_for(reason) as f64);
        }
    })
}

/// An admission gate's figures: requests in flight and waiting in both lanes, let in and refused in sum and by class, and refused for what
/// reason. Of each class only what is not 0 is told (a counter never goes back to it): at most 34 figures, of a report's
/// [`wire::PARTS_MAX`](super::wire::PARTS_MAX) datagrams about a thirtieth, and commonly half of that.
///
/// # Examples
/// ```
/// use plimsoll::admission::Stats;
/// use plimsoll::report::{Report, of_admission};
///
/// # let stats = || Stats::default();
/// let report = Report::from_env().gauges("http", of_admission(stats));
/// # let _ = report;
/// ```
pub fn of_admission(mut stats: impl FnMut() -> admission::Stats + Send + 'static) -> Gauges {
    Box::new(move |tell| {
        let stats = stats();
        let figures = [
            ("light_in_flight_count", stats.light.in_flight),
            ("light_waiting_count", stats.light.waiting),
            ("heavy_in_flight_count", stats.heavy.in_flight),
            ("heavy_waiting_count", stats.heavy.waiting),
            ("peers_count", stats.peers),
            ("admitted_total", stats.admitted_total()),
            ("abandoned_total", stats.abandoned_total),
            ("unknown_peers_total", stats.unknown_peers_total),
            ("waker_panics_total", stats.waker_panics_total),
            ("level_silent_count", u64::from(stats.is_level_silent)),
        ];
        figures.into_iter().for_each(|(name, value)| tell(name, value as f64));
        for reason in admission::Reason::ALL {
            let refused: u64 = admission::Class::ALL.iter().map(|class| stats.refused_for(*class, reason)).sum();
            tell(&format!("refused_{}_total", reason.as_str()), refused as f64);
        }
        let mut of_class = |name: String, value: u64| {
            if value > 0 {
                tell(&name, value as f64);
            }
        };
        for class in admission::Class::ALL {
            of_class(format!("admitted_{}_total", class.as_str()), stats.admitted[class as usize]);
            for reason in admission::Reason::ALL {
                let name = format!("refused_{}_{}_total", class.as_str(), reason.as_str());
                of_class(name, stats.refused_for(class, reason));
            }
        }
    })
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn a_gate_tells_no_more_than_it_says_and_each_name_once() {
        let stats = admission::Stats { refused: [[1; 5]; 4], admitted: [1; 4], ..admission::Stats::default() };
        let mut names = std::collections::BTreeSet::new();
        of_admission(move || stats)(&mut |name, _| assert!(names.insert(name.to_owned()), "{name} twice"));
        // No exempt request is ever refused.
        names.retain(|name| !name.starts_with("refused_exempt"));
        assert_eq!(names.len(), 34, "{names:?}");
    }

    #[test]
    fn every_figure_has_a_unit_and_reasons_are_told_apart() {
        let stats = Stats { subscribers: 3, removed: [1, 0, 2], ..Stats::default() };
        let mut told = Vec::new();
        of_broadcast(move || stats)(&mut |name, value| told.push((name.to_owned(), value)));
        let mut stats = admission::Stats { peers: 4, ..admission::Stats::default() };
        (stats.refused[0][1], stats.refused[2][1]) = (3, 4);
        (stats.unknown_peers_total, stats.is_level_silent) = (6, true);
        let mut gate = Vec::new();
        of_admission(move || stats)(&mut |name, value| gate.push((name.to_owned(), value)));
        let of_gate = |name: &str| gate.iter().find(|(known, _)| known == name).map(|(_, value)| *value);
        assert_eq!((of_gate("peers_count"), of_gate("refused_peer_total")), (Some(4.0), Some(7.0)), "{gate:?}");
        let classes = ["refused_exempt_peer_total", "refused_ordinary_peer_total", "refused_ordinary_busy_total"];
        assert_eq!(classes.map(of_gate), [Some(3.0), Some(4.0), None], "{gate:?}");
        assert_eq!((of_gate("unknown_peers_total"), of_gate("level_silent_count")), (Some(6.0), Some(1.0)));
        let of = |name: &str| told.iter().find(|(known, _)| known == name).map(|(_, value)| *value);
        assert_eq!(
            (of("subscribers_count"), of("removed_behind_total"), of("removed_sum_total")),
            (Some(3.0), Some(1.0), Some(2.0))
        );
        assert!(
            told.iter()
                .chain(&gate)
                .all(|(name, _)| ["_count", "_bytes", "_total"].iter().any(|unit| name.ends_with(unit))),
            "{told:?}"
        );
    }
}
