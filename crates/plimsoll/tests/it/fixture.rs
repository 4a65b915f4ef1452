//! Fixture trees: one text file per machine in `testdata/trees`, unpacked into a directory of its own.
//!
//! The first lines say what the machine is like; `-- path --` begins a file of it. Process 42 is the target in all of them.

use std::path::{Path, PathBuf};

use plimsoll::gauge::Root;

/// The process that every tree is about.
pub(crate) const PID: i32 = 42;

/// An unpacked tree, removed when dropped.
pub(crate) struct Tree {
    dir: tempfile::TempDir,
}

impl Tree {
    pub(crate) fn unpack(name: &str) -> Tree {
        let path = trees().join(format!("{name}.txt"));
        let text = std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        let dir = tempfile::tempdir().expect("a temporary directory");
        let mut file: Option<(PathBuf, String)> = None;
        let write = |file: Option<(PathBuf, String)>| {
            let Some((path, content)) = file else { return };
            std::fs::create_dir_all(path.parent().expect("a file is in a directory")).expect("a writable directory");
            std::fs::write(path, content).expect("a writable file");
        };
        for line in text.split_inclusive('\n') {
            if let Some(path) = line.trim_end().strip_prefix("-- ").and_then(|rest| rest.strip_suffix(" --")) {
                write(file.replace((dir.path().join(path), String::new())));
            } else if let Some((_, content)) = &mut file {
                content.push_str(line);
            }
        }
        write(file);
        Tree { dir }
    }

    pub(crate) fn root(&self) -> Root {
        Root::at(self.dir.path())
    }

    pub(crate) fn path(&self) -> &Path {
        self.dir.path()
    }

    /// A path of this tree as the fixture names it.
    pub(crate) fn name<'p>(&self, path: &'p Path) -> &'p str {
        path.strip_prefix(self.dir.path()).expect("a path of this tree").to_str().expect("fixture paths are text")
    }

    /// Replaces a file of the tree.
    pub(crate) fn write(&self, path: &str, content: &str) {
        std::fs::write(self.dir.path().join(path), content).expect("a writable file");
    }
}

pub(crate) fn trees() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata/trees")
}
