//! From `--memory`, `--reserve` and the limits that hold here: budget, reserve and the kernel's limit for the child.
//! [`decide`] is pure; every number in bytes.
//!
//! Reserve: max(64 MiB, budget ÷ 8). Kernel limit = budget + reserve. Together they stay [`OWN_BYTES`] (32 MiB, what
//! Plimsoll itself may need) below the tightest limit found; if `--memory` asks for more, the budget is lowered and that
//! is said. Without `--memory` the limit found is the source; with neither, Plimsoll observes.

use plimsoll::gauge::Root;
use plimsoll::limit::{self, Consequence};
use plimsoll::units;

/// What Plimsoll itself may need beside the child, below the same limit.
pub(crate) const OWN_BYTES: u64 = 32 << 20;
/// The smallest default reserve.
pub(crate) const MIN_RESERVE_BYTES: u64 = 64 << 20;
/// A budget below this is refused: no runtime starts in it.
pub(crate) const MIN_BUDGET_BYTES: u64 = 4 << 20;
/// How long a drain is assumed to take in "survives growth up to …".
pub(crate) const ASSUMED_DRAIN_MS: u64 = 300;

/// The tightest limit that kills, found on this machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Ceiling {
    /// Its bytes.
    pub(crate) bytes: u64,
    /// The file that says so.
    pub(crate) source: String,
}

/// The tightest limit that kills Plimsoll and what runs beside it; the one place of this file that looks at the machine.
pub(crate) fn ceiling(root: &Root) -> Option<Ceiling> {
    let own = rustix::process::getpid().as_raw_nonzero().get();
    let killing = limit::discover(root, own).all.into_iter().filter(|limit| limit.consequence == Consequence::Kill);
    killing
        .min_by_key(|limit| limit.bytes)
        .map(|limit| Ceiling { bytes: limit.bytes, source: limit.source.display().to_string() })
}

/// What holds for the child.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Budget {
    /// `None`: observe only.
    pub(crate) budget_bytes: Option<u64>,
    /// Between the budget and the kernel's limit.
    pub(crate) reserve_bytes: u64,
    /// What was decided and why, one line each, for the start banner.
    pub(crate) notes: Vec<String>,
    /// What a person should know because it is not what was asked for.
    pub(crate) warnings: Vec<String>,
}

impl Budget {
    /// Budget + reserve, where there is a budget.
    pub(crate) fn kernel_limit_bytes(&self) -> Option<u64> {
        self.budget_bytes.map(|budget| budget.saturating_add(self.reserve_bytes))
    }
}

/// The default reserve for a budget.
pub(crate) fn default_reserve(budget_bytes: u64) -> u64 {
    MIN_RESERVE_BYTES.max(budget_bytes / 8)
}

/// Decides.
///
/// # Errors
/// A sentence with the values when nothing useful fits below the limit found.
pub(crate) fn decide(memory: Option<u64>, reserve: Option<u64>, ceiling: Option<&Ceiling>) -> Result<Budget, String> {
    let mut notes = Vec::new();
    let mut warnings = Vec::new();
    let available = ceiling.map(|c| (c, c.bytes.saturating_sub(OWN_BYTES)));
    let fits = |budget: u64, reserve: u64, why: &str| {
        if budget >= MIN_BUDGET_BYTES {
            Ok(budget)
        } else {
            Err(format!(
                "{why}: a budget of {} with a reserve of {} is below the smallest useful budget of {}",
                units::size(budget),
                units::size(reserve),
                units::size(MIN_BUDGET_BYTES)
            ))
        }
    };
    let (budget_bytes, reserve_bytes) = match (memory, available) {
        (Some(asked), Some((ceiling, available))) => {
            let wanted = reserve.unwrap_or_else(|| default_reserve(asked));
            if asked.saturating_add(wanted) <= available {
                (Some(fits(asked, wanted, "--memory")?), wanted)
            } else {
                let lowered = fits(
                    available.saturating_sub(wanted),
                    wanted,
                    &format!("the limit of {} in {} is too tight", units::size(ceiling.bytes), ceiling.source),
                )?;
                warnings.push(format!(
                    "budget lowered from {} to {}: {} allows {}, less reserve {} and {} for Plimsoll itself",
                    units::size(asked),
                    units::size(lowered),
                    ceiling.source,
                    units::size(ceiling.bytes),
                    units::size(wanted),
                    units::size(OWN_BYTES)
                ));
                (Some(lowered), wanted)
            }
        }
        (Some(asked), None) => {
            let wanted = reserve.unwrap_or_else(|| default_reserve(asked));
            (Some(fits(asked, wanted, "--memory")?), wanted)
        }
        (None, Some((ceiling, available))) => {
            // budget / 8 + budget = available, so the default reserve is a ninth of what is available.
            let wanted = reserve.unwrap_or_else(|| MIN_RESERVE_BYTES.max(available / 9));
            let budget = fits(
                available.saturating_sub(wanted),
                wanted,
                &format!("the limit of {} in {} is too tight", units::size(ceiling.bytes), ceiling.source),
            )?;
            notes.push(format!(
                "no --memory: budget taken from {} ({}), less reserve and {} for Plimsoll itself",
                ceiling.source,
                units::size(ceiling.bytes),
                units::size(OWN_BYTES)
            ));
            (Some(budget), wanted)
        }
        (None, None) => {
            notes.push("no --memory given and no limit found: observing only, nothing will be stopped".to_owned());
            (None, reserve.unwrap_or(0))
        }
    };
    Ok(Budget { budget_bytes, reserve_bytes, notes, warnings })
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    fn ceiling(bytes: u64) -> Ceiling {
        Ceiling { bytes, source: "memory.max".into() }
    }

    #[test]
    fn budget_reserve_and_kernel_limit() {
        // (memory, reserve, ceiling) -> (budget, reserve, warned), all in MiB
        let table = [
            (Some(300), None, None, Some(300), 64, false),
            (Some(300), Some(100), None, Some(300), 100, false),
            (Some(300), Some(0), None, Some(300), 0, false),
            (Some(4096), None, None, Some(4096), 512, false),
            (Some(300), None, Some(396), Some(300), 64, false), // 300 + 64 + 32 just fits
            (Some(300), None, Some(395), Some(299), 64, true),
            (Some(300), Some(100), Some(400), Some(268), 100, true),
            (None, None, Some(512), Some(416), 64, false),
            (None, None, Some(932), Some(800), 100, false), // a ninth: budget ÷ 8
            (None, Some(10), Some(100), Some(58), 10, false),
            (None, None, None, None, 0, false),
        ];
        for (memory, reserve, limit, budget, expected_reserve, warned) in table {
            let limit = limit.map(|m| ceiling(m * MIB));
            let got = decide(memory.map(|m| m * MIB), reserve.map(|m| m * MIB), limit.as_ref()).expect("fits");
            assert_eq!(got.budget_bytes, budget.map(|m| m * MIB), "{memory:?} {reserve:?} {limit:?}");
            assert_eq!(got.reserve_bytes, expected_reserve * MIB, "{memory:?} {reserve:?} {limit:?}");
            assert_eq!(!got.warnings.is_empty(), warned, "{got:?}");
            if let (Some(kernel), Some(limit)) = (got.kernel_limit_bytes(), limit) {
                assert!(kernel + OWN_BYTES <= limit.bytes, "{got:?}");
            }
        }
    }

    #[test]
    fn what_does_not_fit_is_an_error_with_its_values() {
        let tight = ceiling(90 * MIB);
        let error = decide(Some(300 * MIB), None, Some(&tight)).expect_err("64 + 32 > 90");
        assert!(error.contains("90.0 MiB") && error.contains("memory.max"), "{error}");
        assert!(decide(None, None, Some(&tight)).is_err());
        assert!(decide(Some(MIB), None, None).is_err());
    }
}
