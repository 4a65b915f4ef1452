//! A frame: what the ring holds and what the spool files hold, byte for byte.
//!
//! Header 32 bytes, little endian, 8-byte aligned, then up to 65,536 bytes of payload, then zeros up to the next multiple of 8:
//!
//! | bytes | field |
//! |---|---|
//! | 0..2 | `P` `f` |
//! | 2 | version, 1 |
//! | 3 | kind: 1 data, 2 gap, 3 break |
//! | 4 | stream: 1 stdout, 2 stderr, 3 plimsoll |
//! | 5 | flags: break 1 = the line goes on (it was only cut to let its spool segment go) |
//! | 6..8 | zero |
//! | 8..12 | payload length |
//! | 12..16 | CRC-32 of bytes 0..12, 16..32 and the payload |
//! | 16..24 | position of the frame in the store's one address space |
//! | 24..32 | when it was read, nanoseconds since 1970-01-01 UTC |
//!
//! A frame carries its own position, so a stale or foreign frame never passes for the one that is expected.

use crate::{GapReason, Stream};

/// Length of a frame's header.
pub(crate) const HEADER_BYTES: usize = 32;
/// The longest payload: one read of a pipe.
pub(crate) const MAX_PAYLOAD_BYTES: usize = 64 * 1024;
/// The longest frame, header and padding included.
pub(crate) const MAX_FRAME_BYTES: usize = HEADER_BYTES + MAX_PAYLOAD_BYTES;
/// Set on a break that cuts a line which goes on.
pub(crate) const FLAG_GOES_ON: u8 = 1;
/// Length of a gap's payload.
pub(crate) const GAP_BYTES: usize = 40;

/// What a frame holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Data,
    Gap,
    Break,
}

/// A decoded header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Frame {
    pub(crate) kind: Kind,
    pub(crate) stream: Stream,
    pub(crate) flags: u8,
    pub(crate) len: usize,
    pub(crate) position: u64,
    pub(crate) at_unix_ns: u64,
}

/// Why bytes are not a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum BadFrame {
    /// The bytes end before the frame does.
    Short,
    /// Magic, version, kind, stream or length are not those of a frame.
    NotAFrame,
    /// A frame, but of another position.
    Elsewhere,
    /// Header and payload do not give the checksum.
    Checksum,
    /// The disk cannot read them (`EIO`).
    Unreadable,
}

impl std::fmt::Display for BadFrame {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            BadFrame::Short => "the frame is cut off",
            BadFrame::NotAFrame => "no frame begins here",
            BadFrame::Elsewhere => "the frame belongs to another position",
            BadFrame::Checksum => "the frame's checksum does not match",
            BadFrame::Unreadable => "the disk cannot read it",
        })
    }
}

/// Length of a frame with `payload` bytes, padding included.
pub(crate) const fn frame_bytes(payload: usize) -> usize {
    HEADER_BYTES + payload.next_multiple_of(8)
}

impl Frame {
    /// Length of this frame in ring and spool.
    pub(crate) fn total(&self) -> u64 {
        frame_bytes(self.len) as u64
    }

    /// Position right behind this frame.
    pub(crate) fn end(&self) -> u64 {
        self.position + self.total()
    }

    /// Position of byte `at` of the payload.
    pub(crate) fn byte(&self, at: usize) -> u64 {
        self.position + (HEADER_BYTES + at) as u64
    }

    /// The header that goes before `payload`.
    pub(crate) fn header(&self, payload: &[u8]) -> [u8; HEADER_BYTES] {
        let mut h = [0u8; HEADER_BYTES];
        h[0] = b'P';
        h[1] = b'f';
        h[2] = 1;
        h[3] = match self.kind {
            Kind::Data => 1,
            Kind::Gap => 2,
            Kind::Break => 3,
        };
        h[4] = self.stream.number();
        h[5] = self.flags;
        h[8..12].copy_from_slice(&u32::try_from(payload.len()).unwrap_or(u32::MAX).to_le_bytes());
        h[16..24].copy_from_slice(&self.position.to_le_bytes());
        h[24..32].copy_from_slice(&self.at_unix_ns.to_le_bytes());
        let sum = checksum(&h, payload);
        h[12..16].copy_from_slice(&sum.to_le_bytes());
        h
    }

    /// Reads the header at the start of `bytes` without looking at the payload.
    pub(crate) fn peek(bytes: &[u8], position: u64) -> Result<Frame, BadFrame> {
        if bytes.len() < HEADER_BYTES {
            return Err(BadFrame::Short);
        }
        if bytes[..3] != [b'P', b'f', 1] || bytes[6..8] != [0, 0] {
            return Err(BadFrame::NotAFrame);
        }
        let kind = match bytes[3] {
            1 => Kind::Data,
            2 => Kind::Gap,
            3 => Kind::Break,
            _ => return Err(BadFrame::NotAFrame),
        };
        let stream = Stream::from_number(bytes[4]).ok_or(BadFrame::NotAFrame)?;
        let len = u32::from_le_bytes(array(&bytes[8..12])) as usize;
        if len > MAX_PAYLOAD_BYTES {
            return Err(BadFrame::NotAFrame);
        }
        let frame =
            Frame { kind, stream, flags: bytes[5], len, position: word(bytes, 16), at_unix_ns: word(bytes, 24) };
        if frame.position == position { Ok(frame) } else { Err(BadFrame::Elsewhere) }
    }

    /// Reads and checks the frame at the start of `bytes`.
    pub(crate) fn decode(bytes: &[u8], position: u64) -> Result<(Frame, &[u8]), BadFrame> {
        let frame = Frame::peek(bytes, position)?;
        if bytes.len() < frame_bytes(frame.len) {
            return Err(BadFrame::Short);
        }
        let payload = &bytes[HEADER_BYTES..HEADER_BYTES + frame.len];
        if checksum(&bytes[..HEADER_BYTES], payload) != u32::from_le_bytes(array(&bytes[12..16])) {
            return Err(BadFrame::Checksum);
        }
        Ok((frame, payload))
    }
}

/// What a gap frame says. `newlines` counts the line ends among the dropped bytes; how many lines that makes depends on what
/// stands before and behind, and is the splitter's to decide.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct GapNote {
    pub(crate) newlines: u64,
    pub(crate) bytes: u64,
    pub(crate) from_unix_ns: u64,
    pub(crate) to_unix_ns: u64,
    /// The last dropped byte was not a line end: what follows is the rest of a line that has lost its beginning.
    pub(crate) open: bool,
    pub(crate) reason: GapReason,
}

impl GapNote {
    pub(crate) fn encode(&self) -> [u8; GAP_BYTES] {
        let mut b = [0u8; GAP_BYTES];
        for (at, value) in [(0, self.newlines), (8, self.bytes), (16, self.from_unix_ns), (24, self.to_unix_ns)] {
            b[at..at + 8].copy_from_slice(&value.to_le_bytes());
        }
        b[32] = u8::from(self.open);
        b[33] = self.reason.number();
        b
    }

    pub(crate) fn decode(payload: &[u8]) -> Option<GapNote> {
        if payload.len() != GAP_BYTES {
            return None;
        }
        Some(GapNote {
            newlines: word(payload, 0),
            bytes: word(payload, 8),
            from_unix_ns: word(payload, 16),
            to_unix_ns: word(payload, 24),
            open: payload[32] != 0,
            reason: GapReason::from_number(payload[33])?,
        })
    }
}

fn checksum(header: &[u8], payload: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&header[..12]);
    hasher.update(&header[16..HEADER_BYTES]);
    hasher.update(payload);
    hasher.finalize()
}

/// The little-endian word at `at`; the caller has checked the length.
pub(crate) fn word(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(array(&bytes[at..at + 8]))
}

fn array<const N: usize>(bytes: &[u8]) -> [u8; N] {
    let mut out = [0; N];
    out.copy_from_slice(bytes);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(payload: &[u8]) -> (Frame, Vec<u8>) {
        let frame = Frame {
            kind: Kind::Data,
            stream: Stream::Stderr,
            flags: 0,
            len: payload.len(),
            position: 4096,
            at_unix_ns: 77,
        };
        let mut bytes = frame.header(payload).to_vec();
        bytes.extend_from_slice(payload);
        bytes.resize(frame_bytes(payload.len()), 0);
        (frame, bytes)
    }

    #[test]
    fn what_is_encoded_is_decoded() {
        for payload in [&b""[..], b"x", b"12345678", b"a line\n"] {
            let (frame, bytes) = sample(payload);
            assert_eq!(Frame::decode(&bytes, 4096), Ok((frame, payload)));
            assert_eq!(bytes.len() as u64, frame.total());
        }
    }

    #[test]
    fn every_flipped_bit_is_noticed() {
        let (_, bytes) = sample(b"a line\nand one more\n");
        let meaningful = HEADER_BYTES + 20;
        for bit in 0..meaningful * 8 {
            let mut bad = bytes.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            assert!(Frame::decode(&bad, 4096).is_err(), "bit {bit} flipped unseen");
        }
    }

    #[test]
    fn a_cut_or_foreign_frame_is_named_as_such() {
        let (_, bytes) = sample(b"a line\n");
        assert_eq!(Frame::decode(&bytes[..bytes.len() - 1], 4096), Err(BadFrame::Short));
        assert_eq!(Frame::decode(&bytes, 4104), Err(BadFrame::Elsewhere));
    }

    #[test]
    fn a_gap_survives_its_frame() {
        let gap = GapNote {
            newlines: 7,
            bytes: 1400,
            from_unix_ns: 5,
            to_unix_ns: 9,
            open: true,
            reason: GapReason::RingFull,
        };
        assert_eq!(GapNote::decode(&gap.encode()), Some(gap));
        assert_eq!(GapNote::decode(b"short"), None);
    }
}
