//! Small files: bounded reads, and writes that are whole or not there.

use std::fs::{File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::Path;

/// The longest state file that is read, in bytes.
pub(crate) const MAX_BYTES: u64 = 256 << 10;

/// Reads the beginning of a small file into `buffer`; what does not fit is left out.
pub(crate) fn read_small(path: impl AsRef<Path>, buffer: &mut [u8]) -> io::Result<&str> {
    let mut file = File::open(path)?;
    let mut filled = 0;
    while filled < buffer.len() {
        match file.read(&mut buffer[filled..]) {
            Ok(0) => break,
            Ok(n) => filled += n,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    let text = &buffer[..filled];
    match std::str::from_utf8(text) {
        Ok(text) => Ok(text),
        // Cut inside a character: what is before it stands.
        Err(error) => Ok(std::str::from_utf8(&text[..error.valid_up_to()]).unwrap_or_default()),
    }
}

/// Reads a file of at most [`MAX_BYTES`].
///
/// # Errors
/// What the system says, or `InvalidData` when it is longer.
pub(crate) fn read_bounded(path: &Path) -> io::Result<Vec<u8>> {
    read_whole(path, MAX_BYTES)
}

/// Reads a file of at most `most` bytes.
///
/// # Errors
/// What the system says, or `InvalidData` when it is longer.
pub(crate) fn read_whole(path: &Path, most: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    File::open(path)?.take(most.saturating_add(1)).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > most {
        return Err(io::Error::new(io::ErrorKind::InvalidData, format!("longer than {most} bytes")));
    }
    Ok(bytes)
}

/// Writes a file (0600) by rename: a reader sees the old one or the new one, never a part.
pub(crate) fn replace(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let new = path.with_extension("new");
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&new)?;
    file.write_all(bytes)?;
    std::fs::rename(&new, path)
}

/// As [`replace`], for what is filled bit by bit: until it is whole it lies as `NAME.part` in `parts`, a directory of the same filesystem.
/// It is on the disk, and so is its name, when this returns.
///
/// # Errors
/// What the system says, or `fill`; then nothing of it is left, and what was there before still is.
pub(crate) fn replace_through(
    parts: &Path,
    path: &Path,
    fill: impl FnOnce(&mut File) -> io::Result<()>,
) -> io::Result<()> {
    let mut name = path.file_name().ok_or(io::ErrorKind::InvalidInput)?.to_owned();
    name.push(".part");
    let part = parts.join(name);
    let filled = || {
        let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&part)?;
        fill(&mut file)?;
        file.sync_all()?;
        std::fs::rename(&part, path)
    };
    filled().inspect_err(|_| {
        std::fs::remove_file(&part).ok();
    })?;
    let dir = path.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."));
    File::open(dir)?.sync_all()
}

/// The name of a file as links of `/proc` tell it, without the ` (deleted)` of one that was removed or replaced since.
pub(crate) fn without_deleted(name: &str) -> &str {
    name.strip_suffix(" (deleted)").unwrap_or(name)
}

/// Makes a directory and those above it, 0700 where it makes them.
pub(crate) fn make_private_dir(path: &Path) -> io::Result<()> {
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(path)
}

/// Writes one short text to a kernel file such as `memory.max`.
pub(crate) fn write_kernel(path: &Path, text: &str) -> io::Result<()> {
    OpenOptions::new().write(true).open(path)?.write_all(text.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_replaced_file_is_whole_and_private_and_a_long_one_is_refused() {
        use std::os::unix::fs::PermissionsExt as _;
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("state.json");
        replace(&path, b"one").unwrap();
        replace(&path, b"two").unwrap();
        assert_eq!(read_bounded(&path).unwrap(), b"two");
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
        replace(&path, &vec![b'x'; usize::try_from(MAX_BYTES).unwrap() + 1]).unwrap();
        assert!(read_bounded(&path).is_err());
        let parts = dir.path().join("parts");
        let one = |file: &mut File| file.write_all(b"one");
        assert!(replace_through(&parts, &path, one).is_err(), "there is no such directory");
        std::fs::create_dir(&parts).unwrap();
        let new = dir.path().join("new");
        replace_through(&parts, &new, one).unwrap();
        let torn = |file: &mut File| file.write_all(b"t").and(Err(io::ErrorKind::StorageFull.into()));
        assert!(replace_through(&parts, &new, torn).is_err());
        assert_eq!((read_bounded(&new).unwrap(), std::fs::read_dir(&parts).unwrap().count()), (b"one".to_vec(), 0));
        assert_eq!(std::fs::metadata(&new).unwrap().permissions().mode() & 0o777, 0o600);
        let mut buffer = [0; 4];
        assert_eq!(read_small(&path, &mut buffer).unwrap(), "xxxx");
    }
}
