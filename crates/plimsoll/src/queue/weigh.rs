//! What a value weighs against a queue's limit in bytes.

/// What a value weighs against the queue's byte limit.
pub trait Weigh {
    /// The bytes it holds: what would be freed by dropping it, as well as it knows. Asked once, before it is queued.
    fn weight_bytes(&self) -> u64;
}

impl Weigh for Vec<u8> {
    fn weight_bytes(&self) -> u64 {
        self.capacity() as u64
    }
}

impl Weigh for String {
    fn weight_bytes(&self) -> u64 {
        self.capacity() as u64
    }
}

impl Weigh for Box<[u8]> {
    fn weight_bytes(&self) -> u64 {
        self.len() as u64
    }
}

impl Weigh for Box<str> {
    fn weight_bytes(&self) -> u64 {
        self.len() as u64
    }
}
