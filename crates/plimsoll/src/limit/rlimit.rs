//! `/proc/PID/limits`: the soft limits of virtual size, which refuse and never kill.

use crate::gauge::files;
use crate::gauge::{Root, Unread};

/// Soft limits in bytes: `Some(None)` is "unlimited", `None` is not told or malformed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Rlimits {
    pub(super) address_space: Option<Option<u64>>,
    pub(super) data: Option<Option<u64>>,
}

pub(super) fn read(root: &Root, pid: i32) -> Result<Rlimits, Unread> {
    let mut buffer = [0; 4096];
    let dir = root.proc.join(pid.to_string());
    files::read_once(&dir, "limits", &mut buffer, "/proc/PID/limits").map(parse)
}

fn parse(text: &[u8]) -> Rlimits {
    Rlimits { address_space: soft(text, b"Max address space "), data: soft(text, b"Max data size ") }
}

fn soft(text: &[u8], name: &[u8]) -> Option<Option<u64>> {
    let line = files::lines(text).find_map(|line| line.strip_prefix(name))?;
    match files::fields(line).next()? {
        b"unlimited" => Some(None),
        number => files::parse_u64(number).map(Some),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_soft_limit_counts() {
        let text = b"Limit                     Soft Limit           Hard Limit           Units     \n\
            Max data size             unlimited            unlimited            bytes     \n\
            Max address space         1073741824           unlimited            bytes     \n";
        assert_eq!(parse(text), Rlimits { address_space: Some(Some(1 << 30)), data: Some(None) });
        assert_eq!(parse(b"Max address space         soon\n"), Rlimits { address_space: None, data: None });
    }
}
