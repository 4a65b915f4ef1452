//! Where the two binaries are: `plimsoll`, which is to be proven, and `plimsoll-load`, which makes it hard.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

/// The environment variable that names another `plimsoll` than the one beside the tests.
pub const BINARY_VARIABLE: &str = "PLIMSOLL_BIN";

/// The binary `plimsoll`: [`BINARY_VARIABLE`], else the one in the directory of this build, made once with `cargo build`, so
/// that a test never runs against an older one.
///
/// # Errors
/// A sentence that says what is missing.
pub fn plimsoll() -> Result<&'static Path, String> {
    static FOUND: OnceLock<Result<PathBuf, String>> = OnceLock::new();
    FOUND.get_or_init(find).as_deref().map_err(Clone::clone)
}

fn find() -> Result<PathBuf, String> {
    if let Some(path) = std::env::var_os(BINARY_VARIABLE) {
        let path = PathBuf::from(path);
        return path
            .is_file()
            .then_some(path.clone())
            .ok_or(format!("{BINARY_VARIABLE}={} is not a file", path.display()));
    }
    let profile_dir = profile_dir()?;
    let mut build = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    build.args(["build", "--quiet", "--package", "plimsoll-cli"]).current_dir(env!("CARGO_MANIFEST_DIR"));
    build.arg("--target-dir").arg(profile_dir.parent().unwrap_or(&profile_dir));
    if profile_dir.ends_with("release") {
        build.arg("--release");
    }
    // From nothing that takes minutes, and the caller may have a deadline.
    eprintln!("plimsoll of this build is made first, if it is missing or old; {BINARY_VARIABLE} names another");
    let status = build.status().map_err(|error| format!("cargo could not be run to build plimsoll: {error}"))?;
    let path = profile_dir.join("plimsoll");
    if !status.success() || !path.is_file() {
        return Err(format!("plimsoll could not be built ({status}), and {BINARY_VARIABLE} names no other"));
    }
    Ok(path)
}

/// The binary `plimsoll-load` of this build.
///
/// # Errors
/// A sentence that says where it was looked for.
pub fn load() -> Result<PathBuf, String> {
    built("plimsoll-load")
}

/// A binary of this build by its name.
///
/// # Errors
/// A sentence that says where it was looked for.
pub fn built(name: &str) -> Result<PathBuf, String> {
    let path = profile_dir()?.join(name);
    path.is_file().then_some(path.clone()).ok_or(format!("{} is not built", path.display()))
}

/// `target/debug` or `target/release`: where the running binary is, or one above for a test binary in `deps`.
fn profile_dir() -> Result<PathBuf, String> {
    let own = std::env::current_exe().map_err(|error| format!("the running binary has no path: {error}"))?;
    let dir = own.parent().ok_or("the running binary is in no directory")?;
    Ok(if dir.ends_with("deps") { dir.parent().unwrap_or(dir).to_path_buf() } else { dir.to_path_buf() })
}
