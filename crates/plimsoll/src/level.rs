//! How urgent it is: four levels, in order. A level says nothing about what to do; that is the policy's.

/// How close the protected number is to the budget. Ordered: `Normal < Elevated < High < Critical`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Level {
    /// Below every mark.
    #[default]
    Normal = 0,
    /// Above the first mark (75 % of the budget by default).
    Elevated = 1,
    /// Above the second mark (88 % by default).
    High = 2,
    /// At the budget itself, or above it.
    Critical = 3,
}

impl Level {
    /// All levels, lowest first.
    pub const ALL: [Level; 4] = [Level::Normal, Level::Elevated, Level::High, Level::Critical];

    /// The name used in arguments, logs, metrics and JSON.
    pub const fn as_str(self) -> &'static str {
        match self {
            Level::Normal => "normal",
            Level::Elevated => "elevated",
            Level::High => "high",
            Level::Critical => "critical",
        }
    }
}

impl std::fmt::Display for Level {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(self.as_str())
    }
}

impl std::str::FromStr for Level {
    type Err = UnknownLevel;

    fn from_str(s: &str) -> Result<Self, Self::Err> {
        Level::ALL.into_iter().find(|l| l.as_str() == s).ok_or_else(|| UnknownLevel(s.to_owned()))
    }
}

/// A name that is none of the four levels.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("unknown level {0:?}: expected normal, elevated, high or critical")]
pub struct UnknownLevel(String);
