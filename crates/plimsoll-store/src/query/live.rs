//! What is not sealed yet, from any process: frames in the spool's files up to the ring's tail, then in the ring. The writer goes on
//! meanwhile: bytes of the ring are copied first, and count only if the tail has not passed them afterwards; frames are checked by
//! their own position and checksum besides.
//!
//! Memory: one buffer of 1 MiB while there is something to copy, none between two calls.

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use crate::StoreError;
use crate::frame::{BadFrame, Frame, MAX_FRAME_BYTES};
use crate::ring::{RingView, at};
use crate::segment::{self, FrameReader};

/// Most that is copied from the ring at a time.
const COPY_BYTES: usize = 1 << 20;

/// Spool and ring of one directory.
pub(crate) struct Live {
    dir: PathBuf,
    spool: PathBuf,
    ring: Option<(PathBuf, RingView)>,
}

/// Where a walk ended.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Walked {
    /// At the horizon, or where nothing follows.
    End,
    /// The frame that should follow is not there (any more), or is damaged.
    Hole,
    /// The sink had enough.
    Enough,
}

impl Live {
    pub(crate) fn new(dir: &Path) -> Live {
        Live { dir: dir.to_path_buf(), spool: dir.join(crate::open::SPOOL_DIR), ring: None }
    }

    /// Looks where the ring is now: a supervisor may have come or gone.
    pub(crate) fn refresh(&mut self) -> Result<(), StoreError> {
        let file = self.dir.join(crate::open::RING_PATH_FILE);
        let Some(path) = crate::open::read_ring_path(&self.dir).map_err(StoreError::io("read", file))? else {
            self.ring = None;
            return Ok(());
        };
        if !self.ring.as_ref().is_some_and(|(known, ring)| *known == path && ring.is_still(&path)) {
            let ring = RingView::open(&path).map_err(StoreError::io("open", &path))?;
            self.ring = ring.map(|ring| (path, ring));
        }
        Ok(())
    }

    pub(crate) fn ring(&self) -> Option<&RingView> {
        self.ring.as_ref().map(|(_, ring)| ring)
    }

    /// Position behind the last committed frame; without a ring that is not known before the spool was read.
    pub(crate) fn horizon(&self) -> u64 {
        self.ring().map_or(u64::MAX, |ring| ring.get(at::HEAD))
    }

    /// The oldest position that spool or ring have, and the ring's tail.
    pub(crate) fn oldest(&self) -> Result<(u64, Option<u64>), StoreError> {
        let tail = self.ring().map(|ring| ring.get(at::TAIL));
        let first = segment::list(&self.spool).map_err(StoreError::io("list", &self.spool))?.first().copied();
        Ok((first.or(tail).unwrap_or(0), tail))
    }

    /// Where frames go on behind a hole at `position`, if they do.
    pub(crate) fn behind(&self, position: u64) -> Result<Option<u64>, StoreError> {
        let tail = self.ring().map(|ring| ring.get(at::TAIL));
        let starts = segment::list(&self.spool).map_err(StoreError::io("list", &self.spool))?;
        let next = starts.into_iter().find(|start| *start > position);
        let ring =
            self.ring().and_then(|ring| [ring.get(at::TAIL), ring.get(at::HEAD)].into_iter().find(|p| *p > position));
        Ok(match (next, tail) {
            (Some(next), Some(tail)) if tail > position => Some(next.min(tail)),
            (Some(next), None) => Some(next),
            _ => ring,
        })
    }

    /// Hands out the frames from `from` on, up to `horizon`.
    pub(crate) fn walk(
        &self,
        from: u64,
        horizon: u64,
        each: &mut dyn FnMut(&Frame, &[u8]) -> ControlFlow<()>,
    ) -> Result<Walked, StoreError> {
        let mut frames = FrameReader::new(&self.spool, from);
        let mut copied = Vec::new();
        let mut position = from;
        while position < horizon {
            let tail = self.ring().map_or(u64::MAX, |ring| ring.get(at::TAIL));
            let walked = match &self.ring {
                Some((path, ring)) if position >= tail => {
                    let whole = ring.copy(position, COPY_BYTES, &mut copied).map_err(StoreError::io("read", path))?;
                    if !whole && ring.get(at::HEAD) >= position {
                        // The spooler has taken it meanwhile.
                        continue;
                    }
                    ring_frames(&copied, &mut position, each)
                }
                _ => {
                    frames.seek(position);
                    self.spooled(&mut frames, tail, &mut position, each)?
                }
            };
            if let Some(end) = walked {
                return Ok(end);
            }
        }
        Ok(Walked::End)
    }

    fn spooled(
        &self,
        frames: &mut FrameReader,
        tail: u64,
        position: &mut u64,
        each: &mut dyn FnMut(&Frame, &[u8]) -> ControlFlow<()>,
    ) -> Result<Option<Walked>, StoreError> {
        use segment::Stop;
        loop {
            match frames.step(tail).map_err(StoreError::io("read", &self.spool))? {
                Ok(()) => {
                    *position = frames.position();
                    if each(&frames.frame(), frames.payload()).is_break() {
                        return Ok(Some(Walked::Enough));
                    }
                }
                Err(Stop::End) if self.ring.is_some() => return Ok(None),
                Err(Stop::End) if self.behind(*position)?.is_some() => return Ok(Some(Walked::Hole)),
                Err(Stop::End) => return Ok(Some(Walked::End)),
                // Without a ring nobody vouches for the end of the newest segment: a power cut may have torn it.
                Err(Stop::Bad { segment, .. }) if self.ring.is_none() && self.is_newest(segment)? => {
                    return Ok(Some(Walked::End));
                }
                Err(Stop::Hole | Stop::Bad { .. }) => return Ok(Some(Walked::Hole)),
            }
        }
    }

    fn is_newest(&self, segment: u64) -> Result<bool, StoreError> {
        let starts = segment::list(&self.spool).map_err(StoreError::io("list", &self.spool))?;
        Ok(starts.last().is_none_or(|newest| *newest <= segment))
    }
}

/// Hands out the whole frames of a copy that begins at `position`. `None`: there may be more.
fn ring_frames(
    copied: &[u8],
    position: &mut u64,
    each: &mut dyn FnMut(&Frame, &[u8]) -> ControlFlow<()>,
) -> Option<Walked> {
    if copied.is_empty() {
        return Some(Walked::End);
    }
    let mut rest = copied;
    while !rest.is_empty() {
        match Frame::decode(rest, *position) {
            Ok((frame, payload)) => {
                *position = frame.end();
                rest = &rest[usize::try_from(frame.total()).unwrap_or(rest.len()).min(rest.len())..];
                if each(&frame, payload).is_break() {
                    return Some(Walked::Enough);
                }
            }
            // Cut by the size of the copy, or really cut.
            Err(BadFrame::Short) if copied.len() >= MAX_FRAME_BYTES && rest.len() < copied.len() => return None,
            Err(_) => return Some(Walked::Hole),
        }
    }
    None
}
