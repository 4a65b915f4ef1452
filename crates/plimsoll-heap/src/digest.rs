//! The digest of a snapshot: what is kept when the file itself is dropped, and what trends are made of. A few KB, bounded in rows.

/// What the keys of a digest's rows name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Kind {
    /// Objects of one class, with their shallow bytes.
    Class,
    /// A path from the roots that survives restarts (`global.__app.sessionCache → Map`), with the bytes it retains.
    Owner,
    /// A call stack, with the bytes allocated there and still live.
    Stack,
    /// A mapping of a process, with its resident bytes.
    Mapping,
    /// A figure of the process: RSS, live bytes, descriptors, threads.
    Total,
}

/// One key with its figures in one snapshot.
#[derive(Clone, Debug, PartialEq)]
pub struct Row {
    /// What `key` names.
    pub kind: Kind,
    /// The name, the same in every snapshot and every life of the program.
    pub key: String,
    /// Bytes (or the figure itself for what is not bytes).
    pub bytes: u64,
    /// Objects, samples or mappings behind it.
    pub count: u64,
    /// Variance of `bytes`, in bytes²: 0 for what was counted, sampling rate × bytes for what was sampled.
    pub variance: f64,
}

/// What is kept of one snapshot.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Digest {
    /// When it was taken, in nanoseconds since 1970; 0 when the file does not say.
    pub unix_ns: u64,
    /// Tells one process life from another where the format can: a fingerprint of its ids; 0 when it cannot.
    pub life: u64,
    /// The largest keys of each kind.
    pub rows: Vec<Row>,
}
