//! What a new supervisor does with the ring of a dead one, before any thread starts: finish or forget the read that the kill
//! interrupted, and see that every frame between tail and head is whole.

use crate::frame::{BadFrame, Frame, GapNote, HEADER_BYTES, MAX_PAYLOAD_BYTES};
use crate::ring::{Ring, SCRATCH_AT, at};
use crate::writer::{Writer, mode, pattern};
use crate::{GapReason, Stream};

/// What became of the read in flight.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Interrupted {
    /// No read was in flight.
    #[default]
    None,
    /// The read had not happened, or was already committed: nothing to do.
    Forgotten,
    /// The read had happened and was not committed: its bytes were stored (or counted) now.
    Finished {
        /// How many bytes.
        bytes: u64,
    },
}

/// Brings the ring to the state that the dead writer would have reached. Running it twice changes nothing.
pub(crate) fn finish_intent(ring: &Ring, writer: &mut Writer) -> Interrupted {
    let get = |word| ring.get(word);
    let intent = get(at::INTENT_MODE);
    let stream = u8::try_from(get(at::INTENT_STREAM)).ok().and_then(Stream::from_number);
    let (Some(stream), true) = (stream, (mode::STORE..=mode::GAP).contains(&intent)) else {
        ring.set(at::INTENT_MODE, mode::NONE);
        return Interrupted::None;
    };
    let base = at::stream(stream.number());
    let committed = ring.head() > get(at::INTENT_HEAD);
    let len = usize::try_from(get(at::INTENT_LEN)).unwrap_or(0).min(MAX_PAYLOAD_BYTES);
    let at_unix_ns = get(at::INTENT_TIME);
    let counted = get(base + at::GAP_EPOCH) != get(at::INTENT_EPOCH);
    let storing = intent == mode::STORE || intent == mode::STORE_PLAIN;
    let offset = if storing { ring.offset(ring.head()) + HEADER_BYTES } else { SCRATCH_AT };
    let mut outcome = Interrupted::Forgotten;
    match intent {
        mode::GAP => {
            if committed {
                ring.set(base + at::GAP_WRITTEN, get(at::INTENT_EPOCH));
            }
        }
        _ if storing && committed => recount(ring, stream),
        _ if !storing && counted => {}
        _ => {
            let bytes = arrived(ring, intent, offset, len);
            if bytes > 0 {
                outcome = Interrupted::Finished { bytes: bytes as u64 };
                if storing {
                    writer.commit_data(stream, bytes, at_unix_ns);
                } else {
                    let reason = u8::try_from(get(at::INTENT_REASON)).ok().and_then(GapReason::from_number);
                    writer.count_drop(stream, bytes, at_unix_ns, reason.unwrap_or(GapReason::RingFull));
                }
                if intent == mode::STORE_PLAIN || intent == mode::DROP_PLAIN {
                    writer.add_gap(stream, unknown(GapReason::Interrupted, at_unix_ns));
                }
            }
        }
    }
    ring.set(at::INTENT_MODE, mode::NONE);
    outcome
}

/// A gap of which only the time is known.
pub(crate) fn unknown(reason: GapReason, at_unix_ns: u64) -> GapNote {
    GapNote { newlines: 0, bytes: 0, from_unix_ns: at_unix_ns, to_unix_ns: at_unix_ns, open: false, reason }
}

/// How many bytes the interrupted read left at `offset`.
fn arrived(ring: &Ring, intent: u64, offset: usize, len: usize) -> usize {
    if len == 0 {
        return 0;
    }
    let there = ring.look(offset, len);
    if intent == mode::STORE || intent == mode::DROP {
        let mut sentinel = [0u8; 16];
        sentinel[..8].copy_from_slice(&ring.get(at::INTENT_SENTINEL).to_le_bytes());
        sentinel[8..].copy_from_slice(&ring.get(at::INTENT_SENTINEL + 8).to_le_bytes());
        let guard = len.min(sentinel.len());
        return if there[len - guard..] == sentinel[..guard] { 0 } else { len };
    }
    let mut expected = vec![0u8; len];
    pattern(ring.get(at::INTENT_SENTINEL), &mut expected);
    there.iter().zip(&expected).rposition(|(a, b)| a != b).map_or(0, |last| last + 1)
}

/// The counters after a commit whose counting the kill may have cut off.
fn recount(ring: &Ring, stream: Stream) {
    let from = ring.get(at::INTENT_HEAD);
    let base = at::stream(stream.number());
    let Ok(frame) = Frame::peek(ring.bytes(from, HEADER_BYTES), from) else { return };
    let payload = &ring.bytes(from, HEADER_BYTES + frame.len)[HEADER_BYTES..];
    let newlines = memchr::memchr_iter(b'\n', payload).count() as u64;
    ring.set(base + at::LINES_IN, ring.get(at::INTENT_LINES) + newlines);
    ring.set(base + at::BYTES_IN, ring.get(at::INTENT_BYTES) + frame.len as u64);
}

/// Walks the frames from `from` to head: the position where the first bad one stands, if any.
pub(crate) fn check_frames(ring: &Ring, from: u64) -> Result<(), (u64, BadFrame)> {
    let head = ring.head();
    let mut position = from;
    while position < head {
        let rest = usize::try_from(head - position).unwrap_or(usize::MAX);
        let len = rest.min(crate::frame::MAX_FRAME_BYTES);
        let (frame, _) = Frame::decode(ring.bytes(position, len), position).map_err(|e| (position, e))?;
        position = frame.end();
    }
    Ok(())
}

/// Whether the ring still holds, in memory that is already spooled, whole frames from `from` up to its tail.
pub(crate) fn still_holds(ring: &Ring, from: u64) -> bool {
    let oldest = ring.head().saturating_sub(ring.capacity()).max(ring.get(at::ORIGIN));
    let tail = ring.tail();
    if from < oldest || from > tail {
        return false;
    }
    let mut position = from;
    while position < tail {
        let rest = usize::try_from(tail - position).unwrap_or(usize::MAX);
        match Frame::decode(ring.bytes(position, rest.min(crate::frame::MAX_FRAME_BYTES)), position) {
            Ok((frame, _)) => position = frame.end(),
            Err(_) => return false,
        }
    }
    position == tail
}
