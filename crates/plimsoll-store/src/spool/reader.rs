//! The end that replays, in order, and says what is done.

use std::sync::Arc;
use std::time::Duration;

use super::core::{Core, Mark, Stats};
use crate::StoreError;
use crate::frame::FLAG_GOES_ON;
use crate::segment::{Content, FrameReader, SEGMENT_HEADER, Stop};

/// Says which records are done: that with which it came, and all before it. May be kept as long as wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Receipt(pub(super) Mark);

impl Receipt {
    /// The number of the record with which it came, counted from 0 since the spool was made: what a sink that must not take a record
    /// twice, even after a power cut, keeps beside it.
    pub fn number(&self) -> u64 {
        self.0.records - 1
    }
}

/// A record as it was appended.
#[derive(Clone, Copy, Debug)]
pub struct Record<'a> {
    /// Its bytes.
    pub data: &'a [u8],
    /// What was said at `append`.
    pub at_unix_ns: u64,
    /// For [`Reader::ack`], once the sink has it.
    pub receipt: Receipt,
}

/// Reads a spool's records in the order in which they were appended, from the oldest that is not acknowledged.
pub struct Reader {
    core: Arc<Core>,
    frames: FrameReader,
    /// Behind the last record that was handed out.
    at: Mark,
    /// A record of more than one frame.
    long: Vec<u8>,
}

impl std::fmt::Debug for Reader {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Reader").field("at", &self.at).finish_non_exhaustive()
    }
}

impl Reader {
    pub(super) fn new(core: Arc<Core>) -> Reader {
        let (at, _) = core.bounds();
        let frames = FrameReader::of(Content::Records, core.segments.dir(), at.position);
        Reader { core, frames, at, long: Vec::new() }
    }

    /// The next record; `None`: there is no more now. It stays in the spool until it is acknowledged. Records that made room for others
    /// meanwhile ([`AtBudget::DropOldest`](super::AtBudget::DropOldest)) are passed over; they are counted.
    ///
    /// # Errors
    /// [`StoreError::Damaged`] with file and offset, again at each call: nothing is passed over in silence. [`StoreError::Io`].
    #[allow(clippy::should_implement_trait)] // a record borrows from the reader: an iterator cannot hand it out
    pub fn next(&mut self) -> Result<Option<Record<'_>>, StoreError> {
        let at_unix_ns = loop {
            let (done, end) = self.core.bounds();
            if self.at.position < done.position {
                self.go_to(done);
            }
            if self.at.position >= end.position {
                return Ok(None);
            }
            let read = self.record(end.position);
            if let Ok(Ok(at_unix_ns)) = read {
                if self.at == done {
                    self.core.saw_oldest(done, at_unix_ns);
                }
                break at_unix_ns;
            }
            // Half a record may have been read.
            self.frames.seek(self.at.position);
            if let Err(stop) = read? {
                let (done, _) = self.core.bounds();
                if done.position <= self.at.position {
                    return Err(self.damaged(&stop));
                }
            }
        };
        let data = if self.long.is_empty() { self.frames.payload() } else { &self.long };
        self.at.position = self.frames.position();
        self.at.records += 1;
        self.at.bytes += data.len() as u64;
        Ok(Some(Record { data, at_unix_ns, receipt: Receipt(self.at) }))
    }

    /// Reads one record's frames: its time, or why not.
    fn record(&mut self, end: u64) -> Result<Result<u64, Stop>, StoreError> {
        self.long = Vec::new();
        loop {
            if let Err(stop) = self.frames.step(end).map_err(StoreError::io("read", self.core.segments.dir()))? {
                return Ok(Err(stop));
            }
            let frame = self.frames.frame();
            let goes_on = frame.flags & FLAG_GOES_ON != 0;
            if goes_on || !self.long.is_empty() {
                self.long.extend_from_slice(self.frames.payload());
            }
            if !goes_on {
                return Ok(Ok(frame.at_unix_ns));
            }
        }
    }

    fn damaged(&self, stop: &Stop) -> StoreError {
        let dir = self.core.segments.dir();
        let position = self.at.position;
        let (path, offset, what) = match stop {
            Stop::Bad { segment, offset, why } => (crate::segment::path(dir, *segment), *offset, why.to_string()),
            Stop::Hole | Stop::End => {
                let what = format!("the segment with position {position:#x} is missing");
                (dir.to_path_buf(), SEGMENT_HEADER, what)
            }
        };
        StoreError::Damaged { path, offset, what }
    }

    fn go_to(&mut self, mark: Mark) {
        self.at = mark;
        self.frames.seek(mark.position);
    }

    /// Says that the sink has the record with which `receipt` came, and all before it. Once this returns, none of them is handed out
    /// again, whatever happens to the process; after a power cut those acknowledged since the last sync may be. Disk is given back, a
    /// segment at a time. Costs one `pwrite(2)`.
    ///
    /// # Errors
    /// [`StoreError::Io`]; then they are not acknowledged, or a segment could not be removed, which the next call tries again.
    pub fn ack(&mut self, receipt: Receipt) -> Result<(), StoreError> {
        self.core.ack(receipt)
    }

    /// Goes back to the oldest record that is not acknowledged: the sink has failed, and what it was given will be given again.
    pub fn rewind(&mut self) {
        let (done, _) = self.core.bounds();
        self.go_to(done);
    }

    /// Waits until there is a record to hand out, at most so long; whether there is.
    pub fn wait(&self, limit: Duration) -> bool {
        self.core.wait(self.at, limit)
    }

    /// The figures of this moment. Waits for at most one write, or sync, of the other end.
    pub fn stats(&self) -> Stats {
        self.core.stats()
    }
}
