//! Where a supervisor keeps its files: one directory per name below one state directory, all 0700.
//!
//! `DIR` is `--dir`, else `$XDG_STATE_HOME/plimsoll`, else `~/.local/state/plimsoll`. Names are 1–64 characters of
//! `[A-Za-z0-9._-]` and do not begin with a dot, so that a name is always one plain path component.

use std::path::{Path, PathBuf};

/// The files of one supervised name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Layout {
    dir: PathBuf,
    name: String,
}

impl Layout {
    /// The files of `name` below the state directory `dir`.
    ///
    /// # Errors
    /// A sentence with the name and the rule it breaks.
    pub(crate) fn new(dir: impl Into<PathBuf>, name: &str) -> Result<Layout, String> {
        let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
        if name.is_empty() || name.len() > 64 || name.starts_with('.') || !name.chars().all(plain) {
            return Err(format!("name {name:?}: expected 1 to 64 of A-Z a-z 0-9 . _ - and no leading dot"));
        }
        Ok(Layout { dir: dir.into(), name: name.to_owned() })
    }

    /// The state directory when none is given.
    pub(crate) fn default_dir() -> PathBuf {
        let from = |key: &str| std::env::var_os(key).filter(|v| !v.is_empty()).map(PathBuf::from);
        match (from("XDG_STATE_HOME").filter(|p| p.is_absolute()), from("HOME")) {
            (Some(state), _) => state.join("plimsoll"),
            (None, Some(home)) => home.join(".local/state/plimsoll"),
            (None, None) => PathBuf::from("/var/lib/plimsoll"),
        }
    }

    /// The names that have a directory below `dir`, sorted.
    pub(crate) fn names(dir: &Path) -> std::io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in std::fs::read_dir(dir)? {
            let entry = entry?;
            if entry.file_type()?.is_dir()
                && let Ok(name) = entry.file_name().into_string()
                && Layout::new(dir, &name).is_ok()
            {
                names.push(name);
            }
        }
        names.sort();
        Ok(names)
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// `DIR/NAME`, the directory that everything below is in; also the store's directory.
    pub(crate) fn home(&self) -> PathBuf {
        self.dir.join(&self.name)
    }

    /// Held with `flock` while a supervisor lives; holds its pid as text.
    pub(crate) fn lock(&self) -> PathBuf {
        self.home().join("lock")
    }

    /// What the next supervisor needs to adopt the child.
    pub(crate) fn state(&self) -> PathBuf {
        self.home().join("state.json")
    }

    /// How the last life of the child ended.
    pub(crate) fn last_exit(&self) -> PathBuf {
        self.home().join("last-exit.json")
    }

    /// The decision log of the last run, for `plimsoll replay`; the one before is `decisions.log.1`.
    pub(crate) fn decision_log(&self) -> PathBuf {
        self.home().join("decisions.log")
    }

    /// The journal, one JSON object a line, at most two files of 256 KiB.
    pub(crate) fn decisions(&self) -> PathBuf {
        self.home().join("decisions.jsonl")
    }

    /// The figures of days, for verdicts: at most two files of 2 MiB.
    pub(crate) fn history(&self) -> PathBuf {
        self.home().join("history.log")
    }

    /// The FIFO that is the child's stdout.
    pub(crate) fn stdout_fifo(&self) -> PathBuf {
        self.home().join("stdout.fifo")
    }

    /// The FIFO that is the child's stderr.
    pub(crate) fn stderr_fifo(&self) -> PathBuf {
        self.home().join("stderr.fifo")
    }

    /// Heap captures: files, digests, reports.
    pub(crate) fn heap(&self) -> PathBuf {
        self.home().join("heap")
    }

    /// The datagram socket (0600) that the program reports to.
    pub(crate) fn report_socket(&self) -> PathBuf {
        self.home().join("report.sock")
    }

    /// The Unix socket (0600) that `status` and `top` ask.
    pub(crate) fn socket(&self) -> PathBuf {
        self.home().join("control.sock")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_one_plain_path_component() {
        for good in ["web", "web-1", "a.b_c", &"x".repeat(64)] {
            assert!(Layout::new("/d", good).is_ok(), "{good}");
        }
        for bad in ["", ".", "..", ".hidden", "a/b", "a b", "ü", &"x".repeat(65)] {
            assert!(Layout::new("/d", bad).is_err(), "{bad}");
        }
    }
}
