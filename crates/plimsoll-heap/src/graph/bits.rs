//! A set of small numbers, a bit each: for ten million nodes it stays in the processor's second cache.

#[derive(Clone, Debug)]
pub(crate) struct Bits(Vec<u64>);

impl Bits {
    pub(crate) fn new(len: usize) -> Bits {
        Bits(vec![0; len.div_ceil(64)])
    }

    #[inline]
    pub(crate) fn has(&self, index: u32) -> bool {
        self.0[(index >> 6) as usize] >> (index & 63) & 1 != 0
    }

    #[inline]
    pub(crate) fn set(&mut self, index: u32) {
        self.0[(index >> 6) as usize] |= 1 << (index & 63);
    }

    /// Adds it; whether it was new.
    #[inline]
    pub(crate) fn insert(&mut self, index: u32) -> bool {
        let word = &mut self.0[(index >> 6) as usize];
        let bit = 1 << (index & 63);
        let new = *word & bit == 0;
        *word |= bit;
        new
    }
}
