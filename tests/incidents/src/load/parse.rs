//! Sizes and rates as the command line of the loads takes them: `300M`, `1G`, `4096`; a bare rate is MiB a second.

use std::fmt::Display;
use std::str::FromStr;

/// Bytes. K, M, G are 1024-based; a bare number is bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Size(pub(crate) u64);

/// Bytes a second. A bare number is MiB a second.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Rate(pub(crate) u64);

impl FromStr for Size {
    type Err = String;

    fn from_str(text: &str) -> Result<Size, String> {
        bytes(text, 1).map(Size)
    }
}

impl FromStr for Rate {
    type Err = String;

    fn from_str(text: &str) -> Result<Rate, String> {
        bytes(text, 1 << 20).map(Rate)
    }
}

fn bytes(text: &str, bare: u64) -> Result<u64, String> {
    let refuse = |why: &dyn Display| format!("{text:?} is not a size such as 300M: {why}");
    let (digits, unit) = match text.as_bytes().last() {
        Some(b'K') => (&text[..text.len() - 1], 1 << 10),
        Some(b'M') => (&text[..text.len() - 1], 1 << 20),
        Some(b'G') => (&text[..text.len() - 1], 1 << 30),
        _ => (text, bare),
    };
    let number: u64 = digits.parse().map_err(|error| refuse(&error))?;
    number.checked_mul(unit).ok_or_else(|| refuse(&"too large"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_and_rates() {
        assert_eq!("300M".parse(), Ok(Size(300 << 20)));
        assert_eq!("4096".parse(), Ok(Size(4096)));
        assert_eq!("200".parse(), Ok(Rate(200 << 20)));
        assert_eq!("5M".parse(), Ok(Rate(5 << 20)));
        assert!("".parse::<Size>().is_err());
        assert!("12X".parse::<Size>().is_err());
        assert!("99999999999G".parse::<Size>().is_err());
    }
}
