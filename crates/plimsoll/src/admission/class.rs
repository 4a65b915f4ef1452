//! What a request is: how much it matters, and whether it is heavy.

/// How much it matters that a request is answered.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Class {
    /// Probes, metrics, administration: never refused, never waits, takes no slot. Must be cheap.
    Exempt,
    /// Refused last.
    Important,
    /// Everything else.
    #[default]
    Ordinary,
    /// Refused first: prefetching, bulk work that can come again later.
    Background,
}

impl Class {
    /// All of them, in the order of [`Stats::admitted`](super::Stats::admitted).
    pub const ALL: [Class; 4] = [Class::Exempt, Class::Important, Class::Ordinary, Class::Background];

    /// The name used in logs, metrics and JSON.
    pub const fn as_str(self) -> &'static str {
        match self {
            Class::Exempt => "exempt",
            Class::Important => "important",
            Class::Ordinary => "ordinary",
            Class::Background => "background",
        }
    }
}

/// Whether a request takes a slot of the heavy pool: reads that cost O(N), scripts, exports.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Work {
    /// Takes a slot of the light lane.
    #[default]
    Light,
    /// Takes a slot of the heavy pool.
    Heavy,
}

impl Work {
    /// The name used in logs, metrics and JSON.
    pub const fn as_str(self) -> &'static str {
        match self {
            Work::Light => "light",
            Work::Heavy => "heavy",
        }
    }
}

/// What a request is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Kind {
    /// How much it matters.
    pub class: Class,
    /// Which slot it takes.
    pub work: Work,
}

impl Kind {
    /// A probe.
    pub const EXEMPT: Kind = Kind { class: Class::Exempt, work: Work::Light };
    /// Ordinary and light.
    pub const LIGHT: Kind = Kind { class: Class::Ordinary, work: Work::Light };
    /// Ordinary and heavy.
    pub const HEAVY: Kind = Kind { class: Class::Ordinary, work: Work::Heavy };
}
