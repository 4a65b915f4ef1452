//! Names for the functions of a profile that has none: `heap_v2` of jemalloc and pprof of native programs tell addresses. They are looked
//! up in the program's own file and its libraries, where those lie on this machine and are the ones that the profile was taken of.
//!
//! A wrong name is worse than none: a file that was replaced since is not asked, and that is said. Each file is read once, memory is
//! bounded by the frames of the profile (`elf`).

mod elf;

use std::collections::HashSet;
use std::fs::{File, Metadata};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use plimsoll_heap::profile::{Mapped, Profile, is_plumbing_file};

use crate::supervise::files;

/// Where the files of a program are looked for.
#[derive(Clone, Debug, Default, clap::Args)]
pub(crate) struct Symbols {
    /// The program, or a library, of a profile without symbols, when it is not where the profile says
    #[arg(long = "binary", value_name = "FILE")]
    binaries: Vec<PathBuf>,

    /// The directory that is the root of the program's own paths; of a running one `/proc/PID/root`
    #[arg(long, value_name = "DIR", hide = true)]
    root: Option<PathBuf>,
}

/// What became of a profile's addresses.
#[derive(Debug, Default)]
pub(crate) struct Naming {
    /// Frames that have a name now.
    pub(crate) named: usize,
    /// What a reader must know: files that are not there or are not the ones.
    pub(crate) notes: Vec<String>,
}

impl Symbols {
    /// Names the frames of `profile`, taken at `taken_ns` (since 1970; 0: not known), that are addresses in a file.
    pub(crate) fn name(&self, profile: &mut Profile, taken_ns: u64) -> Naming {
        let mut naming = Naming::default();
        let mut names: HashSet<Arc<str>> = HashSet::new();
        for mapped in std::mem::take(&mut profile.mapped) {
            let at: Vec<usize> = (0..profile.frames.len())
                .filter(|at| profile.frames[*at].offset > 0 && *profile.frames[*at].file == *mapped.file)
                .collect();
            if !mapped.file.starts_with('/') || at.is_empty() {
                continue;
            }
            let offsets: Vec<u64> = at.iter().map(|at| profile.frames[*at].offset).collect();
            let (why, found) = match self.functions(&mapped, taken_ns, &offsets) {
                Ok((found, doubt)) => (doubt, found),
                Err(why) => (Some(why), elf::Found::default()),
            };
            if !found.build.is_empty() {
                profile.builds.push(found.build);
            }
            for (at, name) in at.iter().zip(found.names) {
                let Some(name) = name else { continue };
                let frame = &mut profile.frames[*at];
                // Many addresses are in one function.
                let name = names.get(name.as_str()).cloned().unwrap_or_else(|| Arc::from(name));
                names.insert(Arc::clone(&name));
                (frame.name, frame.offset, frame.file) = (name, 0, Arc::default());
                naming.named += 1;
            }
            // Whoever hunts a leak does not look for it in the C library.
            naming.notes.extend(why.filter(|_| !is_plumbing_file(&mapped.file)));
            profile.mapped.push(mapped);
        }
        profile.builds.sort();
        profile.builds.dedup();
        let unused = |binary: &&PathBuf| !profile.mapped.iter().any(|mapped| is_named(binary, mapped));
        // A supervisor names the program's file whether it is needed or not.
        let said = self.binaries.iter().filter(|_| self.root.is_none());
        for binary in said.filter(unused) {
            naming.notes.push(match profile.mapped.first() {
                Some(mapped) => format!(
                    "{} has the name of no file whose functions lack one; such is {}",
                    binary.display(),
                    mapped.file
                ),
                None => format!("{} is not needed: no function lacks a name", binary.display()),
            });
        }
        naming
    }

    /// The functions at these offsets of a mapped file, and a doubt where there is one.
    fn functions(
        &self,
        mapped: &Mapped,
        taken_ns: u64,
        offsets: &[u64],
    ) -> Result<(elf::Found, Option<String>), String> {
        let given = self.binaries.iter().find(|binary| is_named(binary, mapped));
        let path = match (given, &self.root) {
            (Some(path), _) => path.clone(),
            (None, Some(root)) => root.join(mapped.file.trim_start_matches('/')),
            (None, None) => PathBuf::from(&mapped.file),
        };
        let name = Path::new(&mapped.file).file_name().unwrap_or_default().display().to_string();
        let refused = |why: String| {
            format!(
                "{}: {why}; its functions are shown as {name}+offset (--binary names the file they are of)",
                path.display()
            )
        };
        let (file, facts) = open(&path).map_err(|error| refused(error.to_string()))?;
        let found = elf::functions(&file, offsets).map_err(&refused)?;
        let mut doubt = None;
        match (mapped.build.as_str(), found.build.as_str()) {
            (theirs, own) if !theirs.is_empty() && !own.is_empty() => {
                if !theirs.eq_ignore_ascii_case(own) {
                    return Err(refused(format!("its build id is {own}, the profile is of {theirs}")));
                }
            }
            // Whoever names a file knows which one it is.
            _ if given.is_some() => {}
            _ => doubt = same_file(mapped, &facts, taken_ns).map_err(&refused)?,
        }
        let doubt = doubt.map(|doubt| format!("{}: {doubt}", path.display()));
        let stripped = || {
            let stripped = found.is_stripped && found.names.iter().any(Option::is_none);
            stripped.then(|| format!("{}: stripped of its symbols, only what it exports has a name", path.display()))
        };
        let doubt = doubt.or_else(stripped);
        Ok((found, doubt))
    }
}

/// Opens a regular file; a pipe or a device would hold us up.
fn open(path: &Path) -> std::io::Result<(File, Metadata)> {
    if !std::fs::metadata(path)?.is_file() {
        return Err(std::io::Error::other("no regular file"));
    }
    let file = File::open(path)?;
    let facts = file.metadata()?;
    Ok((file, facts))
}

/// Whether the file of this path is meant by its name; `/proc/PID/exe` has that of what it leads to.
fn is_named(binary: &Path, mapped: &Mapped) -> bool {
    let leads_to = std::fs::read_link(binary).ok();
    let name = Path::new(&mapped.file).file_name();
    let is_it = |path: &Path| {
        let own = path.file_name().and_then(|own| own.to_str());
        own.map(files::without_deleted) == name.and_then(|name| name.to_str())
    };
    name.is_some() && (is_it(binary) || leads_to.is_some_and(|path| is_it(&path)))
}

/// Whether a file is the one that was mapped, as far as its inode and times tell; a doubt where they do not quite.
fn same_file(mapped: &Mapped, facts: &Metadata, taken_ns: u64) -> Result<Option<String>, String> {
    if mapped.is_deleted {
        return Err("was replaced while the program ran".to_owned());
    }
    let taken = i128::from(taken_ns);
    let at = |seconds: i64, ns: i64| i128::from(seconds) * 1_000_000_000 + i128::from(ns);
    if taken > 0 && at(facts.mtime(), facts.mtime_nsec()) > taken {
        return Err("was changed after the profile was taken".to_owned());
    }
    if mapped.inode == 0 || mapped.inode == facts.ino() {
        return Ok(None);
    }
    // Overlay file systems show processes another inode than `stat` does.
    if taken == 0 || at(facts.ctime(), facts.ctime_nsec()) > taken {
        return Err("is another file than the profile was taken of (its inode differs)".to_owned());
    }
    Ok(Some("its inode is not the one in the profile: if it was replaced meanwhile, names are wrong".to_owned()))
}

#[cfg(test)]
mod tests;
