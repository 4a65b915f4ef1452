//! A class histogram of a JVM: `jcmd PID GC.class_histogram`, at most [`PATIENCE`]. It has to run as the same user and to see the
//! same `/tmp` as the JVM (the attach protocol's socket lies there). Judged by its last line: `Total`.

use std::fs::File;
use std::io::{Read as _, Seek as _, SeekFrom};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use plimsoll::gauge::tree::Excluded;

use super::wait::{self, Pause};

/// How long the JVM may take: it stops for a garbage collection first.
const PATIENCE: Duration = Duration::from_secs(60);
/// What of a failed answer is shown.
const SHOWN_BYTES: u64 = 200;

/// Writes the histogram of `pid` to `path`. `live`: after a garbage collection.
///
/// # Errors
/// What `jcmd` said, or that it is not there.
pub(crate) fn histogram(
    pid: i32,
    path: &Path,
    live: bool,
    excluded: &Excluded,
    pause: &dyn Pause,
) -> Result<(), String> {
    let failed = |error| format!("{}: {error}", path.display());
    let out = File::create_new(path).map_err(failed)?;
    let also = out.try_clone().map_err(failed)?;
    let mut command = Command::new("jcmd");
    command.arg(pid.to_string()).arg("GC.class_histogram").stdout(Stdio::from(out)).stderr(Stdio::from(also));
    // The options of the program's JVM are not those of jcmd's own.
    command.env_remove("JAVA_TOOL_OPTIONS").env_remove("JDK_JAVA_OPTIONS");
    if !live {
        command.arg("-all");
    }
    wait::run(command, PATIENCE, excluded, pause)?;
    let mut file = File::open(path).map_err(failed)?;
    if tail(&mut file).map_err(failed)?.lines().last().is_some_and(|line| line.trim_start().starts_with("Total")) {
        return Ok(());
    }
    let mut said = String::new();
    file.seek(SeekFrom::Start(0)).map_err(failed)?;
    // What is no text is not shown; the rest of the sentence stands without it.
    file.take(SHOWN_BYTES).read_to_string(&mut said).ok();
    Err(format!("jcmd {pid} GC.class_histogram gave no histogram: {}", said.lines().collect::<Vec<_>>().join(" ")))
}

fn tail(file: &mut File) -> std::io::Result<String> {
    let length = file.seek(SeekFrom::End(0))?;
    file.seek(SeekFrom::Start(length.saturating_sub(256)))?;
    let mut bytes = Vec::with_capacity(256);
    file.take(256).read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).trim_end().to_owned())
}
