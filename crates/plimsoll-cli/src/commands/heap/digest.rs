//! `plimsoll heap digest`: what a supervisor runs after a capture, as a process of its own: the file is read, its digest written,
//! and, when asked to, the file packed (zstd, level 1). Niced, so that the program it tells of is not held up by it.
//!
//! Both appear by rename once they are complete and on the disk. Memory: what reading the format takes (a V8 snapshot: below its size).

use std::fs::File;
use std::io::{self, BufReader, BufWriter, Read as _, Seek as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use plimsoll_heap::digest::{Digest, Kind, Row};
use plimsoll_heap::format::Format;
use plimsoll_heap::parse::smaps;

use super::input::Input;
use crate::exit::Failure;
use crate::supervise::files;
use crate::symbols::Symbols;

/// How its last words begin where the file is none of what Plimsoll reads, or a damaged one.
pub(crate) const UNREADABLE: &str = "cannot be read: ";
/// How far behind everybody else it runs.
const NICE: i32 = 10;
/// zstd's level: 10 to 12 % of a V8 snapshot at some 300 MB/s.
const LEVEL: i32 = 1;

/// Bytes in which a capture's last line is looked for.
const TAIL_BYTES: u64 = 64;

/// Arguments of `plimsoll heap digest`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// A snapshot or profile of any format that Plimsoll reads
    #[arg(value_name = "FILE")]
    file: PathBuf,

    /// Where the digest goes
    #[arg(long, value_name = "DIGEST")]
    out: PathBuf,

    /// Where what is not complete lies meanwhile, on the same filesystem [default: where it goes]
    #[arg(long, value_name = "DIR")]
    parts: Option<PathBuf>,

    /// When it was taken, in milliseconds since 1970 [default: when the file was written]
    #[arg(long, value_name = "MS")]
    at_ms: Option<u64>,

    /// A number of the process life that it is of
    #[arg(long, value_name = "N", default_value_t = 0)]
    life: u64,

    /// A figure of the process to keep with it, such as rss=123456
    #[arg(long = "total", value_name = "NAME=BYTES", value_parser = total)]
    totals: Vec<(String, u64)>,

    #[command(flatten)]
    symbols: Symbols,

    /// Pack the file: FILE becomes FILE.zst
    #[arg(long)]
    compress: bool,
}

fn total(text: &str) -> Result<(String, u64), String> {
    let wrong = || format!("{text:?}: expected NAME=BYTES");
    let (name, bytes) = text.split_once('=').ok_or_else(wrong)?;
    Ok((name.to_owned(), bytes.parse().map_err(|_| wrong())?))
}

pub(crate) fn run(args: &Args) -> Result<ExitCode, Failure> {
    // Refused only where somebody set a limit to it; then it runs as it is.
    rustix::process::nice(NICE).ok();
    let path = args.file.display();
    // From here on it is the file's fault.
    File::open(&args.file).map_err(|error| Failure::new(format!("cannot open {path}: {error}")))?;
    let mut format = None;
    let read = Input::open(&args.file).and_then(|input| {
        format = input.format;
        super::open::digest(input, &args.symbols)
    });
    let mut digest = read.map_err(|why| Failure::new(format!("{UNREADABLE}{why}")))?;
    if format == Some(Format::Smaps) {
        ends(&args.file).map_err(|why| Failure::new(format!("{UNREADABLE}{path}: {why}")))?;
    }
    if let Some(at_ms) = args.at_ms {
        digest.unix_ns = at_ms.saturating_mul(1_000_000);
    }
    if digest.life == 0 {
        digest.life = args.life;
    }
    for (name, bytes) in &args.totals {
        digest.rows.retain(|row| row.kind != Kind::Total || row.key != *name);
        digest.rows.push(Row { kind: Kind::Total, key: name.clone(), bytes: *bytes, count: 1, variance: 0.0 });
    }
    write(args, &digest)?;
    if args.compress {
        compress(args)?;
    }
    Ok(ExitCode::SUCCESS)
}

/// Mappings that were captured end with a line that says so; where it is missing the file was cut, which a reader need not see.
fn ends(file: &Path) -> Result<(), String> {
    let mut tail = Vec::new();
    let mut read = || -> io::Result<()> {
        let mut file = File::open(file)?;
        let from = file.metadata()?.len().saturating_sub(TAIL_BYTES);
        file.seek(io::SeekFrom::Start(from))?;
        file.take(TAIL_BYTES).read_to_end(&mut tail).map(|_| ())
    };
    read().map_err(|error| error.to_string())?;
    let tail = String::from_utf8_lossy(&tail);
    let last = tail.trim_end().rsplit('\n').next().unwrap_or_default();
    if last.starts_with(smaps::END) { Ok(()) } else { Err("the capture was cut: its last line is missing".to_owned()) }
}

/// Where `path` lies until it is complete.
fn parts<'a>(args: &'a Args, path: &'a Path) -> &'a Path {
    let own = || path.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."));
    args.parts.as_deref().unwrap_or_else(own)
}

fn write(args: &Args, digest: &Digest) -> Result<(), Failure> {
    let mut bytes = Vec::new();
    let filled = digest
        .write(&mut bytes)
        .and_then(|()| files::replace_through(parts(args, &args.out), &args.out, |file| file.write_all(&bytes)));
    filled.map_err(|error| Failure::new(format!("cannot write {}: {error}", args.out.display())))
}

/// Packs the file beside itself, then removes it.
fn compress(args: &Args) -> Result<(), Failure> {
    let path = &args.file;
    let mut packed = path.as_os_str().to_owned();
    packed.push(".zst");
    let packed = PathBuf::from(packed);
    let pack = || -> io::Result<()> {
        let from = BufReader::with_capacity(1 << 20, File::open(path)?);
        files::replace_through(parts(args, &packed), &packed, |file| {
            let mut to = BufWriter::with_capacity(1 << 20, file);
            zstd::stream::copy_encode(from, &mut to, LEVEL)?;
            to.flush()
        })?;
        std::fs::remove_file(path)
    };
    // Where it fails, the file itself is still whole.
    pack().map_err(|error| Failure::new(format!("cannot pack {}: {error}", path.display())))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn args(dir: &Path, text: &str) -> Args {
        let file = dir.join("x.smaps");
        std::fs::write(&file, text).unwrap();
        Args {
            out: dir.join("x.digest"),
            file,
            parts: None,
            at_ms: Some(1_700_000_000_000),
            life: 7,
            totals: vec![("rss".into(), 4096)],
            symbols: Symbols::default(),
            compress: true,
        }
    }

    #[test]
    fn a_capture_becomes_a_digest_and_a_packed_file() {
        let dir = tempfile::tempdir().unwrap();
        let mut room = vec![0; 256 << 10];
        let own = crate::supervise::files::read_small("/proc/self/smaps", &mut room).unwrap();
        // Whole mappings: a last one that was cut is no mapping.
        let lines: Vec<&str> = own.split_inclusive('\n').collect();
        let until = lines.iter().rposition(|line| line.starts_with("VmFlags") && line.ends_with('\n')).unwrap();
        let own = lines[..=until].concat();
        let own = format!("{own}{}{}\n", smaps::END, own.len());
        // Without that last line it may have been cut.
        let cut = run(&args(dir.path(), lines[..=until].concat().as_str())).unwrap_err().to_string();
        assert!(cut.starts_with(UNREADABLE) && cut.ends_with("its last line is missing"), "{cut}");
        let args = args(dir.path(), &own);
        run(&args).unwrap();
        let digest = Digest::read(File::open(&args.out).unwrap()).unwrap();
        assert_eq!((digest.unix_ns, digest.life), (1_700_000_000_000_000_000, 7));
        assert!(digest.rows.iter().any(|row| row.kind == Kind::Total && row.key == "rss" && row.bytes == 4096));
        assert!(digest.rows.iter().any(|row| row.kind == Kind::Mapping && row.bytes > 0));
        assert!(!args.file.exists());
        let packed = File::open(dir.path().join("x.smaps.zst")).unwrap();
        assert_eq!(zstd::stream::decode_all(packed).unwrap(), own.as_bytes());
    }

    #[test]
    fn what_is_not_complete_lies_elsewhere_and_a_packer_that_fails_leaves_the_file() {
        let dir = tempfile::tempdir().unwrap();
        let whole = "1: 2 64 [B\nTotal 2 64\n num     #instances         #bytes  class name\n";
        let args = Args { parts: Some(dir.path().join("tmp")), ..args(dir.path(), whole) };
        let left = || {
            let entries = std::fs::read_dir(dir.path()).unwrap();
            let mut names: Vec<String> = entries.map(|one| one.unwrap().file_name().into_string().unwrap()).collect();
            names.sort();
            names
        };
        assert!(run(&args).unwrap_err().to_string().starts_with("cannot write "), "there is no such directory");
        assert_eq!(left(), ["x.smaps"]);
        std::fs::create_dir_all(dir.path().join("tmp/x.smaps.zst.part")).unwrap();
        assert!(run(&args).unwrap_err().to_string().starts_with("cannot pack "), "something lies in its way");
        assert_eq!(left(), ["tmp", "x.digest", "x.smaps"]);
        std::fs::remove_dir(dir.path().join("tmp/x.smaps.zst.part")).unwrap();
        run(&args).unwrap();
        assert_eq!(left(), ["tmp", "x.digest", "x.smaps.zst"]);
        assert_eq!(std::fs::read_dir(dir.path().join("tmp")).unwrap().count(), 0);
    }

    #[test]
    fn what_cannot_be_read_leaves_the_file_and_no_digest() {
        let damaged: [&[u8]; 4] =
            [b"{\"snapshot\":{\"meta\":{\"node_fields\":[\"type\",", b"<html>", b"", b"\x1f\x8bdamaged"];
        for text in damaged {
            let dir = tempfile::tempdir().unwrap();
            let args = args(dir.path(), "");
            std::fs::write(&args.file, text).unwrap();
            let why = run(&args).unwrap_err().to_string();
            assert!(why.starts_with(UNREADABLE), "{text:?}: {why}");
            assert!(args.file.exists() && !args.out.exists(), "{text:?}");
        }
        let dir = tempfile::tempdir().unwrap();
        let args = Args { file: dir.path().join("none"), ..args(dir.path(), "") };
        assert!(run(&args).unwrap_err().to_string().starts_with("cannot open "));
    }

    #[test]
    fn totals_are_read_as_written() {
        assert_eq!(total("rss=12"), Ok(("rss".to_owned(), 12)));
        for bad in ["rss", "rss=", "rss=x", ""] {
            assert!(total(bad).is_err(), "{bad}");
        }
    }
}
