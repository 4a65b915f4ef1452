//! Readers, one folder or file a format. Input is untrusted: no panic, memory bounded by what is read, damage is an error with its offset.

pub mod heapprofile;
pub mod jemalloc;
pub mod jvm;
mod lines;
pub mod pprof;
pub mod smaps;
pub mod v8;

use std::io;

/// Stacks, classes or mappings of one file; more is an error.
pub const ENTRIES_MAX: usize = 1 << 20;
/// Frames, and strings, of one file; more is an error.
pub const FRAMES_MAX: usize = 1 << 20;
/// Frames of one stack that are kept, from the leaf on.
pub const STACK_MAX: usize = 64;
/// Bytes of one file after unpacking; more is an error.
pub const BYTES_MAX: u64 = 1 << 30;

/// Why a profile could not be read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ReadError {
    /// The reader failed.
    #[error("cannot read: {0}")]
    Io(#[from] io::Error),
    /// What is there is not of the format, or torn.
    #[error("at byte {offset}: {what}")]
    Damage {
        /// From the beginning of the unpacked file.
        offset: u64,
        /// What is wrong.
        what: &'static str,
    },
    /// More of something than is read.
    #[error("more than {most} {what}")]
    TooMany {
        /// The bound.
        most: u64,
        /// Of what.
        what: &'static str,
    },
}

impl ReadError {
    pub(crate) fn damage(offset: u64, what: &'static str) -> ReadError {
        ReadError::Damage { offset, what }
    }
}

/// Something that was skipped or guessed, and how often.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Warning {
    /// What, in plain words.
    pub what: &'static str,
    /// How often.
    pub times: u64,
    /// Where it was first met: bytes from the beginning of the unpacked file.
    pub first_offset: u64,
}

/// Collects warnings: one entry a kind.
#[derive(Debug, Default)]
pub(crate) struct Warnings(Vec<Warning>);

impl Warnings {
    pub(crate) fn add(&mut self, offset: u64, what: &'static str) {
        match self.0.iter_mut().find(|warning| warning.what == what) {
            Some(warning) => warning.times += 1,
            None => self.0.push(Warning { what, times: 1, first_offset: offset }),
        }
    }

    pub(crate) fn into_vec(self) -> Vec<Warning> {
        self.0
    }
}
