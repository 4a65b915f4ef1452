//! What passes between the governor and the stores that give back: plain values, no I/O, so that neither knows the other.
//!
//! All sizes in bytes. A [`Supply`] is what stores hold together, a [`Want`] what the law asks of them. To one store, an [`Ask`] says how much, how deep to cut and until when; an [`Outcome`] what was done; a [`Profile`] what a store is
//! like. [`DEADLINE`] (1 s) and [`MAX_PART`] (a quarter) are the defaults.

use std::time::Duration;

/// How long a store may take for one ask before it is called late. 1 s.
pub const DEADLINE: Duration = Duration::from_secs(1);
/// The largest part of what it holds that a store is asked for in one pass: a quarter.
pub const MAX_PART: f64 = 0.25;

/// How deep a cut is: a pass is only begun when those before it did not give enough.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Pass {
    /// Gives back what nobody uses: spare capacity, free lists. Loses nothing.
    Compact,
    /// Drops what is cheaply made again.
    Benign,
    /// Drops what was not used for long.
    Idle,
    /// Drops what is wanted and dear, or cannot be made again.
    Destructive,
}

impl Pass {
    /// All of them, in their order.
    pub const ALL: [Pass; 4] = [Pass::Compact, Pass::Benign, Pass::Idle, Pass::Destructive];

    /// The name used in logs, metrics and JSON.
    pub const fn as_str(self) -> &'static str {
        match self {
            Pass::Compact => "compact",
            Pass::Benign => "benign",
            Pass::Idle => "idle",
            Pass::Destructive => "destructive",
        }
    }
}

impl std::fmt::Display for Pass {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(self.as_str())
    }
}

/// What a store is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Ask {
    /// Give back so many bytes.
    pub bytes: u64,
    /// By cutting no deeper than this.
    pub pass: Pass,
    /// Within this time from now; what takes longer is late and counted as not done.
    pub deadline: Duration,
}

impl Ask {
    /// An ask with the default deadline.
    pub fn new(bytes: u64, pass: Pass) -> Ask {
        Ask { bytes, pass, deadline: DEADLINE }
    }
}

/// What a store did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Outcome {
    /// Bytes given back, to its knowledge.
    pub claimed_bytes: u64,
    /// Whether this pass could give more.
    pub more: bool,
}

impl Outcome {
    /// So many bytes given back; `more`: the same pass could give more.
    pub fn new(claimed_bytes: u64, more: bool) -> Outcome {
        Outcome { claimed_bytes, more }
    }
}

/// What a store is like. `Profile::default()` is one that costs 1, keeps nothing and can be cut in every pass.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub struct Profile {
    /// What it costs to make a byte again, beside other stores: who costs twice as much is asked for half. Above 0; default 1.
    pub cost_ratio: f64,
    /// What it keeps in any case, in bytes. Default 0.
    pub floor_bytes: u64,
    /// The largest part of what it holds that it is asked for in one pass, 0..=1. Default [`MAX_PART`].
    pub max_part_ratio: f64,
    /// In which passes it has something to give; default all.
    pub passes: [bool; 4],
}

impl Profile {
    /// With another cost.
    #[must_use]
    pub fn cost(mut self, ratio: f64) -> Profile {
        self.cost_ratio = ratio;
        self
    }

    /// With a floor.
    #[must_use]
    pub fn floor(mut self, bytes: u64) -> Profile {
        self.floor_bytes = bytes;
        self
    }

    /// With something to give in these passes only.
    #[must_use]
    pub fn only(mut self, passes: &[Pass]) -> Profile {
        self.passes = Pass::ALL.map(|pass| passes.contains(&pass));
        self
    }

    /// Whether it has something to give in `pass`.
    pub fn offers(&self, pass: Pass) -> bool {
        self.passes[pass as usize]
    }
}

impl Default for Profile {
    fn default() -> Profile {
        Profile { cost_ratio: 1.0, floor_bytes: 0, max_part_ratio: MAX_PART, passes: [true; 4] }
    }
}

/// The stores, taken together, at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Supply {
    /// What they hold now, in bytes.
    pub held_bytes: u64,
    /// What they say they have evicted on order since the start, in bytes.
    pub claimed_bytes_total: u64,
    /// What was ordered and will not be carried out (late, or nothing left), since the start, in bytes.
    pub withdrawn_bytes_total: u64,
    /// What they keep in any case, in bytes.
    pub floor_bytes: u64,
}

impl Supply {
    /// Claimed or withdrawn: not in flight any more.
    pub(crate) fn done_bytes(&self) -> u64 {
        self.claimed_bytes_total.saturating_add(self.withdrawn_bytes_total)
    }
}

/// What became of orders that were judged: they were claimed, had the time to show, and the protected number did fall or did not.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Effect {
    /// Nothing was judged with this reading.
    #[default]
    Open,
    /// What was claimed is gone.
    Helped,
    /// What was claimed is still there: kept by the allocator, or never freed.
    Fruitless,
}

impl Effect {
    /// The name used in logs and JSON.
    pub const fn as_str(self) -> &'static str {
        match self {
            Effect::Open => "open",
            Effect::Helped => "helped",
            Effect::Fruitless => "fruitless",
        }
    }
}

/// What the stores are asked for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Want {
    /// Evict so much more than what was ordered before.
    pub evict_bytes: u64,
    /// The sum of all orders so far, this one included, in bytes: who missed one sees it here.
    pub ordered_bytes_total: u64,
    /// Hold at most so much until the next word.
    pub hold_bytes: u64,
    /// Ordered and neither claimed nor withdrawn yet.
    pub in_flight_bytes: u64,
    /// What is not the stores', at the least: the base that was reckoned with.
    pub base_bytes: u64,
    /// The room kept free for a base that moves, beside what the fill mark leaves.
    pub spread_bytes: u64,
    /// How late readings are, as learnt.
    pub delay: Duration,
    /// Time from an order to its claim, as measured last.
    pub lag: Duration,
    /// What became of earlier orders.
    pub effect: Effect,
    /// Purge the allocator once.
    pub purge: bool,
    /// Eviction does not help: the next stage is due.
    pub stuck: bool,
}
