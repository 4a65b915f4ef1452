//! The digest of a capture: made by a process of its own (`plimsoll heap digest`), niced, where there is room for it. At most
//! [`PATIENCE`] (5 min), and for a V8 snapshot below the file's size of memory. What it cannot read is no capture; where it could not
//! be made for another reason, the capture stays without one, which is counted (`digest`) and noted.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use plimsoll::units;
use plimsoll_heap::digest::{Digest, MAX_BYTES};
use plimsoll_heap::format::Format;

use super::shelf::Item;
use super::take::{Target, room};
use super::{Context, wait};
use crate::commands::heap::UNREADABLE;
use crate::supervise::files;

/// How long it may take.
const PATIENCE: Duration = Duration::from_secs(300);
/// What a digest of a V8 snapshot needs, as a part of the file, and beside it.
const RATIO: f64 = 0.9;
const FIXED_BYTES: u64 = 32 << 20;

/// Makes the digest of `item`, and has a V8 snapshot packed. Returns what is worth knowing.
///
/// # Errors
/// Why it is no capture: what was written cannot be read.
pub(super) fn make(context: &Context, item: &Item, target: &Target) -> Result<Vec<String>, String> {
    let mut notes = Vec::new();
    let Some((format, file, bytes)) = &item.file else { return Ok(notes) };
    if *format == Format::V8Snapshot {
        let own = rustix::process::getpid().as_raw_nonzero().get();
        let need = (*bytes as f64 * RATIO) as u64 + FIXED_BYTES;
        match room(own, &context.shelf.tmp()) {
            Ok(room) if room.headroom_bytes > need => {}
            Ok(room) => {
                notes.push(format!(
                    "no digest: it needs {}, and {} are free; see it elsewhere: plimsoll heap top {}",
                    units::size(need),
                    units::size(room.headroom_bytes),
                    file.display()
                ));
                context.desk.show(|view| *view.refused_total.entry("digest".into()).or_default() += 1);
                return Ok(notes);
            }
            Err(why) => notes.push(why),
        }
    }
    let made = context.shelf.digest_path(item);
    let errors = context.shelf.tmp().join("digest.err");
    let ran =
        wait::run(command(context, item, target, *format, file, &errors), PATIENCE, &context.excluded, &*context.desk);
    let said = files::read_bounded(&errors).unwrap_or_default();
    std::fs::remove_file(&errors).ok();
    let said = String::from_utf8_lossy(&said);
    // Warnings come first, then what ended it, then perhaps a hint.
    let last = said.lines().rev().find_map(|line| line.strip_prefix("plimsoll: ")).unwrap_or_default();
    if let Some(why) = last.strip_prefix(UNREADABLE) {
        return Err(format!("what was written cannot be read: {why}"));
    }
    let read = files::read_whole(&made, MAX_BYTES).map_err(|error| error.to_string());
    match read.and_then(|bytes| Digest::read(&bytes[..]).map_err(|error| error.to_string())) {
        // It is there, and the file as it was.
        Ok(_) if last.starts_with("cannot pack ") => notes.push(last.to_owned()),
        Ok(_) => {}
        Err(unread) => {
            let why = match ran {
                Err(why) => why,
                Ok(()) if last.is_empty() => format!("{}: {unread}", made.display()),
                Ok(()) => last.to_owned(),
            };
            notes.push(format!("no digest: {why}"));
            context.desk.show(|view| *view.failed_total.entry("digest".into()).or_default() += 1);
        }
    }
    Ok(notes)
}

fn command(context: &Context, item: &Item, target: &Target, format: Format, file: &Path, errors: &Path) -> Command {
    let mut command = Command::new(&context.own);
    command.args(["heap", "digest"]).arg(file).arg("--out").arg(context.shelf.digest_path(item));
    command.arg("--parts").arg(context.shelf.tmp());
    command.args(["--at-ms", &item.unix_ms.to_string(), "--life", &target.life.to_string()]);
    let totals = [("rss", target.resident_bytes), ("anon", target.anon_bytes)];
    for (name, bytes) in totals {
        command.args(["--total", &format!("{name}={bytes}")]);
    }
    if format == Format::V8Snapshot {
        command.arg("--compress");
    }
    if matches!(format, Format::Jemalloc | Format::Pprof) {
        // Its own files while it runs, whatever lies at their paths by now and wherever its root is.
        command.arg("--binary").arg(format!("/proc/{}/exe", target.pid));
        command.arg("--root").arg(format!("/proc/{}/root", target.pid));
    }
    command.stdout(Stdio::null());
    if let Ok(file) = std::fs::File::create(errors) {
        command.stderr(file);
    }
    command
}
