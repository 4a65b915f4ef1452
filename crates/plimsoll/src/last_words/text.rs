//! A text of fixed size, and figures written into it, without allocating.

use std::fmt;

use super::TEXT_BYTES_MAX;

/// Bytes in MiB with one decimal, cut off. `units::size` would allocate.
pub(super) struct Mib(pub(super) u64);

impl fmt::Display for Mib {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let tenths = (u128::from(self.0) * 10) >> 20;
        write!(f, "{}.{} MiB", tenths / 10, tenths % 10)
    }
}

pub(super) struct Signed(pub(super) i64);

impl fmt::Display for Signed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", if self.0 < 0 { '-' } else { '+' }, Mib(self.0.unsigned_abs()))
    }
}

pub(super) struct Told(pub(super) Option<u64>);

impl fmt::Display for Told {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(bytes) => Mib(bytes).fmt(f),
            None => f.write_str("unknown"),
        }
    }
}

pub(super) struct ToldSigned(pub(super) Option<i64>);

impl fmt::Display for ToldSigned {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(bytes) => Signed(bytes).fmt(f),
            None => f.write_str("unknown"),
        }
    }
}

/// A text of fixed size; what does not fit is cut at a character, and marked.
pub(super) struct Text {
    bytes: Box<[u8; TEXT_BYTES_MAX]>,
    len: usize,
    full: bool,
}

const CUT: &str = " …cut\n";

impl Text {
    pub(super) fn new() -> Text {
        Text { bytes: Box::new([0; TEXT_BYTES_MAX]), len: 0, full: false }
    }

    pub(super) fn clear(&mut self) {
        self.len = 0;
        self.full = false;
    }

    pub(super) fn close(&mut self) {
        if self.full {
            self.bytes[self.len..self.len + CUT.len()].copy_from_slice(CUT.as_bytes());
            self.len += CUT.len();
            self.full = false;
        }
    }

    pub(super) fn as_str(&self) -> &str {
        std::str::from_utf8(&self.bytes[..self.len]).unwrap_or("")
    }
}

impl fmt::Write for Text {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        if self.full {
            return Err(fmt::Error);
        }
        let room = TEXT_BYTES_MAX - CUT.len() - self.len;
        let taken = (0..=room.min(text.len())).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0);
        self.bytes[self.len..self.len + taken].copy_from_slice(&text.as_bytes()[..taken]);
        self.len += taken;
        self.full = taken < text.len();
        if self.full { Err(fmt::Error) } else { Ok(()) }
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use std::fmt::Write as _;

    use super::*;

    #[test]
    fn figures_have_one_decimal_and_never_round_up() {
        for (bytes, shown) in
            [(0, "0.0 MiB"), (104_857, "0.0 MiB"), (104_858, "0.1 MiB"), ((300 << 20) - 1, "299.9 MiB")]
        {
            assert_eq!(Mib(bytes).to_string(), shown);
        }
        assert_eq!(Mib(u64::MAX).to_string(), "17592186044415.9 MiB");
        assert_eq!((Signed(-(1 << 20)).to_string(), Signed(0).to_string()), ("-1.0 MiB".into(), "+0.0 MiB".into()));
        assert_eq!((Told(None).to_string(), ToldSigned(None).to_string()), ("unknown".into(), "unknown".into()));
    }

    #[test]
    fn what_does_not_fit_is_cut_at_a_character_and_marked() {
        let mut text = Text::new();
        let mut failed = false;
        for _ in 0..TEXT_BYTES_MAX {
            failed |= text.write_str("é€").is_err();
        }
        text.close();
        assert!(failed && text.as_str().len() <= TEXT_BYTES_MAX && text.as_str().len() > TEXT_BYTES_MAX - 4);
        assert!(text.as_str().ends_with(CUT), "{:?}", text.as_str().chars().last());
        text.clear();
        text.write_str("short").unwrap();
        text.close();
        assert_eq!(text.as_str(), "short");
    }
}
