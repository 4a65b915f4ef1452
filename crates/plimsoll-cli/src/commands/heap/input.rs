//! A file of any format, packed or not, as a stream: 1 MiB is buffered, nothing is read twice.

use std::fs::File;
use std::io::{self, BufReader, Read};
use std::path::{Path, PathBuf};
use std::time::UNIX_EPOCH;

use plimsoll_heap::format::{Format, Packing, SNIFF_BYTES};
use plimsoll_heap::graph::Graph;
use plimsoll_heap::parse::v8;

use crate::exit::Failure;

/// An open file.
pub(crate) struct Input {
    pub(crate) path: PathBuf,
    /// Bytes on disk; `None` for what is no file.
    pub(crate) file_bytes: Option<u64>,
    /// When it was written, in nanoseconds since 1970; 0 when that is not known.
    pub(crate) unix_ns: u64,
    pub(crate) packing: Option<Packing>,
    /// What is in it; `None` when that is none of ours.
    pub(crate) format: Option<Format>,
    pub(crate) stream: Box<dyn Read>,
}

impl Input {
    /// Opens a file; `-` is stdin. A capture may be named without its ending, as its id is.
    pub(crate) fn open(path: &Path) -> Result<Input, Failure> {
        let path = &by_id(path);
        let failed = |what: &str, error: &io::Error| Failure::new(format!("cannot {what} {}: {error}", path.display()));
        let is_stdin = path.as_os_str() == "-";
        let (mut file_bytes, mut unix_ns) = (None, 0);
        let mut raw: Box<dyn Read> = if is_stdin {
            Box::new(io::stdin())
        } else {
            let file = File::open(path).map_err(|error| failed("open", &error))?;
            let facts = file.metadata().map_err(|error| failed("look at", &error))?;
            if facts.is_dir() {
                return Err(Failure::new(format!("{} is a directory", path.display())).hint("name one of its files"));
            }
            file_bytes = facts.is_file().then_some(facts.len());
            let age = facts.modified().ok().and_then(|time| time.duration_since(UNIX_EPOCH).ok());
            unix_ns = age.and_then(|age| u64::try_from(age.as_nanos()).ok()).unwrap_or(0);
            Box::new(file)
        };
        let head = beginning(&mut raw).map_err(|error| failed("read", &error))?;
        let packing = Packing::sniff(&head);
        let raw: Box<dyn Read> = Box::new(io::Cursor::new(head).chain(raw));
        let unpacked = unpack(raw, packing).map_err(|error| failed("unpack", &error))?;
        let mut unpacked = unpacked;
        let head = beginning(&mut unpacked).map_err(|error| failed("read", &error))?;
        let format = Format::sniff(&head);
        let stream = Box::new(io::Cursor::new(head).chain(unpacked));
        Ok(Input { path: path.to_owned(), file_bytes, unix_ns, packing, format, stream })
    }

    /// The V8 snapshot in it, or why there is none. Warnings go to stderr.
    pub(crate) fn graph(self) -> Result<Graph, Failure> {
        self.expect_v8()?;
        let Input { path, stream, .. } = self;
        let (graph, warnings) = v8::read(stream).map_err(|error| unreadable(&path, &error))?;
        super::warn(&path, &warnings);
        Ok(graph)
    }

    /// Refuses what is no graph, saying what it is. An empty file is left to the reader, which says what that means.
    pub(crate) fn expect_v8(&self) -> Result<(), Failure> {
        let path = self.path.display();
        match self.format {
            Some(Format::V8Snapshot) => Ok(()),
            Some(other) => Err(Failure::new(format!("{path} is a {}: it has no graph of objects", other.name()))
                .hint("plimsoll heap open says what is in it")),
            None if self.file_bytes == Some(0) => Ok(()),
            None => Err(Failure::new(format!("{path} is of no format that Plimsoll reads"))
                .hint("V8 .heapsnapshot and .heapprofile, pprof, jemalloc heap_v2, JVM class histogram, smaps; also packed by gzip or zstd")),
        }
    }
}

/// The file of a capture that is named by its id, or its digest where only that is left; any other path as it is.
fn by_id(path: &Path) -> PathBuf {
    let id = path.file_name().and_then(|name| name.to_str()).filter(|_| !path.exists());
    let Some(id) = id else { return path.to_owned() };
    let formats = Format::CAPTURED.into_iter().chain([Format::Digest]);
    let names = formats.flat_map(|format| ["", ".zst"].map(|packed| format!("{id}.{}{packed}", format.extension())));
    names.map(|name| path.with_file_name(name)).find(|file| file.is_file()).unwrap_or_else(|| path.to_owned())
}

/// What a snapshot that cannot be read means to whoever asked for it.
pub(crate) fn unreadable(path: &Path, error: &v8::V8Error) -> Failure {
    let failure = Failure::new(format!("{}: {error}", path.display()));
    match error {
        v8::V8Error::Empty | v8::V8Error::Truncated { .. } => failure
            .hint("the program was killed while it wrote, or the disk was full; a snapshot needs some 420 bytes of memory an object"),
        _ => failure,
    }
}

/// The first bytes, enough to tell what it is; fewer when there are fewer.
fn beginning(input: &mut impl Read) -> io::Result<Vec<u8>> {
    let mut head = Vec::with_capacity(SNIFF_BYTES);
    input.by_ref().take(SNIFF_BYTES as u64).read_to_end(&mut head)?;
    Ok(head)
}

fn unpack(raw: Box<dyn Read>, packing: Option<Packing>) -> io::Result<Box<dyn Read>> {
    Ok(match packing {
        None => raw,
        Some(Packing::Gzip) => Box::new(flate2::bufread::MultiGzDecoder::new(BufReader::with_capacity(1 << 20, raw))),
        Some(Packing::Zstd) => Box::new(zstd::stream::read::Decoder::new(raw)?),
    })
}
