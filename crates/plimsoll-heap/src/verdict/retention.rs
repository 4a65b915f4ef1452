//! Leak or retention: when what the process holds (RSS) grows and what the program holds of it (live, heap used) does not, nothing
//! leaks; the allocator or the runtime keeps what was freed. Said only where both were watched at the same time.

use super::{State, Verdict, shown};
use crate::series::{Series, Unit};
use crate::trend::{Setup, measure};

/// Live bytes grow with RSS from this share of its growth on.
const SHARE_LEAKED: f64 = 0.5;

/// How the growth of what a process holds divides.
#[derive(Clone, Debug, PartialEq)]
pub struct Split {
    /// The verdict on RSS: as it was, or `growing` with the reason where it is retention.
    pub rss: Verdict,
    /// True: the growth is kept by the allocator, not by the program.
    pub is_retention: bool,
    /// Part of the growth that is live; `None` where RSS does not grow or live was not measured.
    pub live_share: Option<f64>,
}

/// Divides the growth of `rss`, judged as `verdict`, by `live` over the same time.
#[must_use]
pub fn split(verdict: Verdict, rss: &Series, live: &Series, setup: &Setup) -> Split {
    let unknown = |rss| Split { rss, is_retention: false, live_share: None };
    let Some(trend) = verdict.trend.filter(|_| verdict.state >= State::Growing) else { return unknown(verdict) };
    let same = rss.between(trend.from_unix, trend.until_unix).points().first().map(|p| p.unix_seconds);
    let live = live.between(same.unwrap_or(trend.from_unix), trend.until_unix);
    let Some(live) = measure(&live, setup) else { return unknown(verdict) };
    // The least that live can have grown, where it grows at all, is what counts against retention.
    let share = live.slope / trend.slope;
    let flat = share < SHARE_LEAKED && live.slope_high < trend.slope_low.max(trend.slope * SHARE_LEAKED);
    let mut verdict = verdict;
    let shares = format!(
        "of {} an hour that it grows, {} are live",
        shown(trend.slope * 3_600.0, Unit::Bytes),
        shown(live.slope * 3_600.0, Unit::Bytes)
    );
    if flat {
        verdict.state = State::Growing;
        verdict.reasons.insert(
            0,
            format!("not a leak: {shares}; the rest is freed memory that allocator or runtime keeps (fragmentation)"),
        );
    } else {
        verdict.reasons.push(shares);
    }
    Split { rss: verdict, is_retention: flat, live_share: Some(share) }
}
