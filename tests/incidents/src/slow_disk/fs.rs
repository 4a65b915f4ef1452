//! The pass-through: inode numbers are ours (a counter), paths are kept beside them, open files are kept by handle.
//!
//! Entries are never forgotten before the mount ends; a test makes some hundreds of them. Attributes are not cached by the
//! kernel ([`TTL`] is zero), so sizes are those of the backing file, also for another process.

use super::Knobs;
use fuser::{
    Errno, FileAttr, FileHandle, FileType, Filesystem, FopenFlags, Generation, INodeNo, LockOwner, OpenFlags,
    RenameFlags, ReplyAttr, ReplyCreate, ReplyData, ReplyDirectory, ReplyEmpty, ReplyEntry, ReplyOpen, ReplyStatfs,
    ReplyWrite, Request, TimeOrNow, WriteFlags,
};
use rustix::fs::{CWD, Dev, FileType as NodeType, Mode, mknodat, statvfs};
use std::collections::HashMap;
use std::ffi::OsStr;
use std::fs::{self, File, OpenOptions, Permissions};
use std::io;
use std::os::unix::fs::{FileExt, FileTypeExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// How long the kernel may believe an answer.
const TTL: Duration = Duration::ZERO;

/// The file system.
pub(super) struct Passed {
    knobs: Arc<Knobs>,
    state: Mutex<State>,
}

struct State {
    /// Root first: inode 1 is at index 0. A removed file keeps its number, without a path.
    paths: Vec<Option<PathBuf>>,
    numbers: HashMap<PathBuf, u64>,
    open: HashMap<u64, Arc<File>>,
    next_handle: u64,
}

impl Passed {
    pub(super) fn new(backing: PathBuf, knobs: Arc<Knobs>) -> Passed {
        let numbers = HashMap::from([(backing.clone(), 1)]);
        let state = State { paths: vec![Some(backing)], numbers, open: HashMap::new(), next_handle: 1 };
        Passed { knobs, state: Mutex::new(state) }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn path(&self, inode: INodeNo) -> Result<PathBuf, Errno> {
        let at = usize::try_from(u64::from(inode) - 1).map_err(|_| Errno::ENOENT)?;
        self.state().paths.get(at).cloned().flatten().ok_or(Errno::ENOENT)
    }

    fn child(&self, parent: INodeNo, name: &OsStr) -> Result<PathBuf, Errno> {
        Ok(self.path(parent)?.join(name))
    }

    /// The number of what is at `path`, a new one when it has none.
    fn number(&self, path: PathBuf) -> u64 {
        let mut state = self.state();
        if let Some(&number) = state.numbers.get(&path) {
            return number;
        }
        state.paths.push(Some(path.clone()));
        let number = state.paths.len() as u64;
        state.numbers.insert(path, number);
        number
    }

    fn entry(&self, path: PathBuf) -> Result<FileAttr, Errno> {
        let metadata = fs::symlink_metadata(&path)?;
        Ok(attributes(self.number(path), &metadata))
    }

    fn file(&self, handle: FileHandle) -> Result<Arc<File>, Errno> {
        self.state().open.get(&u64::from(handle)).cloned().ok_or(Errno::EBADF)
    }

    fn keep(&self, file: File) -> FileHandle {
        let mut state = self.state();
        let handle = state.next_handle;
        state.next_handle += 1;
        state.open.insert(handle, Arc::new(file));
        FileHandle(handle)
    }

    /// Forgets the path of something that was removed; its open files live on by handle.
    fn gone(&self, path: &PathBuf) {
        let mut state = self.state();
        if let Some(number) = state.numbers.remove(path) {
            state.paths[number as usize - 1] = None;
        }
    }

    fn moved(&self, from: &PathBuf, to: &PathBuf) {
        self.gone(to);
        let mut state = self.state();
        let inside: Vec<PathBuf> = state.numbers.keys().filter(|path| path.starts_with(from)).cloned().collect();
        for old in inside {
            let rest = old.strip_prefix(from).unwrap_or(&old);
            let new = if rest.as_os_str().is_empty() { to.clone() } else { to.join(rest) };
            if let Some(number) = state.numbers.remove(&old) {
                state.paths[number as usize - 1] = Some(new.clone());
                state.numbers.insert(new, number);
            }
        }
    }

    fn attr(&self, inode: INodeNo, handle: Option<FileHandle>) -> Result<FileAttr, Errno> {
        let metadata = match (self.path(inode), handle) {
            (Ok(path), _) => fs::symlink_metadata(path)?,
            (Err(_), Some(handle)) => self.file(handle)?.metadata()?,
            (Err(error), None) => return Err(error),
        };
        Ok(attributes(inode.into(), &metadata))
    }

    fn remove(&self, parent: INodeNo, name: &OsStr, how: impl Fn(&PathBuf) -> io::Result<()>) -> Result<(), Errno> {
        self.knobs.pass();
        let path = self.child(parent, name)?;
        how(&path)?;
        self.gone(&path);
        Ok(())
    }
}

fn attributes(number: u64, of: &fs::Metadata) -> FileAttr {
    let kind = of.file_type();
    let time = |seconds: i64, nanoseconds: i64| {
        UNIX_EPOCH + Duration::new(u64::try_from(seconds).unwrap_or(0), u32::try_from(nanoseconds).unwrap_or(0))
    };
    FileAttr {
        ino: INodeNo(number),
        size: of.size(),
        blocks: of.blocks(),
        atime: time(of.atime(), of.atime_nsec()),
        mtime: time(of.mtime(), of.mtime_nsec()),
        ctime: time(of.ctime(), of.ctime_nsec()),
        crtime: UNIX_EPOCH,
        kind: match () {
            () if kind.is_dir() => FileType::Directory,
            () if kind.is_symlink() => FileType::Symlink,
            () if kind.is_fifo() => FileType::NamedPipe,
            () if kind.is_socket() => FileType::Socket,
            () => FileType::RegularFile,
        },
        perm: (of.mode() & 0o7777) as u16,
        nlink: of.nlink() as u32,
        uid: of.uid(),
        gid: of.gid(),
        rdev: 0,
        blksize: 4096,
        flags: 0,
    }
}

/// Answers with what `work` says.
macro_rules! answer {
    ($reply:ident, $work:expr, $value:pat => $sent:expr) => {
        let outcome: Result<_, Errno> = $work;
        match outcome {
            Ok($value) => $sent,
            Err(error) => $reply.error(error),
        }
    };
}

impl Filesystem for Passed {
    fn lookup(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        answer!(reply, self.child(parent, name).and_then(|path| self.entry(path)), attr => reply.entry(&TTL, &attr, Generation(0)));
    }

    fn getattr(&self, _: &Request, inode: INodeNo, handle: Option<FileHandle>, reply: ReplyAttr) {
        answer!(reply, self.attr(inode, handle), attr => reply.attr(&TTL, &attr));
    }

    fn setattr(
        &self,
        _: &Request,
        inode: INodeNo,
        mode: Option<u32>,
        _uid: Option<u32>,
        _gid: Option<u32>,
        size: Option<u64>,
        _atime: Option<TimeOrNow>,
        _mtime: Option<TimeOrNow>,
        _ctime: Option<SystemTime>,
        handle: Option<FileHandle>,
        _crtime: Option<SystemTime>,
        _chgtime: Option<SystemTime>,
        _bkuptime: Option<SystemTime>,
        _flags: Option<fuser::BsdFileFlags>,
        reply: ReplyAttr,
    ) {
        self.knobs.pass();
        let work = || {
            if let Some(mode) = mode {
                fs::set_permissions(self.path(inode)?, Permissions::from_mode(mode & 0o7777))?;
            }
            match (size, handle) {
                (Some(size), Some(handle)) => self.file(handle)?.set_len(size)?,
                (Some(size), None) => OpenOptions::new().write(true).open(self.path(inode)?)?.set_len(size)?,
                (None, _) => {}
            }
            self.attr(inode, handle)
        };
        answer!(reply, work(), attr => reply.attr(&TTL, &attr));
    }

    fn mknod(&self, _: &Request, parent: INodeNo, name: &OsStr, mode: u32, umask: u32, _rdev: u32, reply: ReplyEntry) {
        self.knobs.pass();
        let work = || {
            let path = self.child(parent, name)?;
            let made = mknodat(
                CWD,
                &path,
                NodeType::from_raw_mode(mode),
                Mode::from_raw_mode(mode & !umask & 0o7777),
                Dev::default(),
            );
            made.map_err(io::Error::from)?;
            self.entry(path)
        };
        answer!(reply, work(), attr => reply.entry(&TTL, &attr, Generation(0)));
    }

    fn mkdir(&self, _: &Request, parent: INodeNo, name: &OsStr, mode: u32, umask: u32, reply: ReplyEntry) {
        self.knobs.pass();
        let work = || {
            let path = self.child(parent, name)?;
            fs::create_dir(&path)?;
            fs::set_permissions(&path, Permissions::from_mode(mode & !umask & 0o7777))?;
            self.entry(path)
        };
        answer!(reply, work(), attr => reply.entry(&TTL, &attr, Generation(0)));
    }

    fn unlink(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        answer!(reply, self.remove(parent, name, |path| fs::remove_file(path)), () => reply.ok());
    }

    fn rmdir(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        answer!(reply, self.remove(parent, name, |path| fs::remove_dir(path)), () => reply.ok());
    }

    fn rename(
        &self,
        _: &Request,
        from: INodeNo,
        name: &OsStr,
        to: INodeNo,
        new_name: &OsStr,
        _: RenameFlags,
        reply: ReplyEmpty,
    ) {
        self.knobs.pass();
        let work = || {
            let (old, new) = (self.child(from, name)?, self.child(to, new_name)?);
            fs::rename(&old, &new)?;
            self.moved(&old, &new);
            Ok(())
        };
        answer!(reply, work(), () => reply.ok());
    }

    fn create(
        &self,
        _: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        umask: u32,
        _flags: i32,
        reply: ReplyCreate,
    ) {
        self.knobs.pass();
        let work = || {
            let path = self.child(parent, name)?;
            let mut options = OpenOptions::new();
            // Whatever the caller may do with it is checked by the kernel; the backing file can do both.
            options.read(true).write(true).create(true).truncate(false).mode(mode & !umask & 0o7777);
            let handle = self.keep(options.open(&path)?);
            Ok((self.entry(path)?, handle))
        };
        answer!(reply, work(), (attr, handle) => reply.created(&TTL, &attr, Generation(0), handle, FopenFlags::empty()));
    }

    fn open(&self, _: &Request, inode: INodeNo, flags: OpenFlags, reply: ReplyOpen) {
        let work = || {
            let write = flags.acc_mode() != fuser::OpenAccMode::O_RDONLY;
            let file = OpenOptions::new().read(true).write(write).open(self.path(inode)?)?;
            Ok(self.keep(file))
        };
        answer!(reply, work(), handle => reply.opened(handle, FopenFlags::empty()));
    }

    fn read(
        &self,
        _: &Request,
        _: INodeNo,
        handle: FileHandle,
        offset: u64,
        size: u32,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyData,
    ) {
        let work = || {
            let file = self.file(handle)?;
            let mut bytes = vec![0; size as usize];
            let mut have = 0;
            while have < bytes.len() {
                match file.read_at(&mut bytes[have..], offset + have as u64)? {
                    0 => break,
                    count => have += count,
                }
            }
            bytes.truncate(have);
            Ok(bytes)
        };
        answer!(reply, work(), bytes => reply.data(&bytes));
    }

    fn write(
        &self,
        _: &Request,
        _: INodeNo,
        handle: FileHandle,
        offset: u64,
        data: &[u8],
        _: WriteFlags,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        let work = || {
            self.knobs.pass_bytes(data.len() as u64)?;
            self.file(handle)?.write_all_at(data, offset)?;
            Ok(data.len() as u32)
        };
        answer!(reply, work(), count => reply.written(count));
    }

    fn fallocate(
        &self,
        _: &Request,
        _: INodeNo,
        handle: FileHandle,
        offset: u64,
        length: u64,
        mode: i32,
        reply: ReplyEmpty,
    ) {
        let work = || {
            self.knobs.pass_bytes(0)?;
            let flags = rustix::fs::FallocateFlags::from_bits_truncate(mode.unsigned_abs());
            Ok(rustix::fs::fallocate(self.file(handle)?, flags, offset, length).map_err(io::Error::from)?)
        };
        answer!(reply, work(), () => reply.ok());
    }

    fn flush(&self, _: &Request, _: INodeNo, _: FileHandle, _: LockOwner, reply: ReplyEmpty) {
        reply.ok();
    }

    fn fsync(&self, _: &Request, _: INodeNo, _: FileHandle, _: bool, reply: ReplyEmpty) {
        // The backing disk's own sync would add a speed that was not asked for.
        self.knobs.pass();
        reply.ok();
    }

    fn fsyncdir(&self, _: &Request, _: INodeNo, _: FileHandle, _: bool, reply: ReplyEmpty) {
        self.knobs.pass();
        reply.ok();
    }

    fn release(
        &self,
        _: &Request,
        _: INodeNo,
        handle: FileHandle,
        _: OpenFlags,
        _: Option<LockOwner>,
        _: bool,
        reply: ReplyEmpty,
    ) {
        self.state().open.remove(&u64::from(handle));
        reply.ok();
    }

    fn readdir(&self, _: &Request, inode: INodeNo, _: FileHandle, offset: u64, mut reply: ReplyDirectory) {
        let work = || {
            let path = self.path(inode)?;
            let mut names: Vec<_> = fs::read_dir(&path)?.collect::<io::Result<Vec<_>>>()?;
            names.sort_by_key(fs::DirEntry::file_name);
            Ok(names)
        };
        match work() {
            Err(error) => reply.error(error),
            Ok(names) => {
                for (at, name) in names.iter().enumerate().skip(offset as usize) {
                    let number = self.number(name.path());
                    let kind = name.file_type().ok().and_then(FileType::from_std).unwrap_or(FileType::RegularFile);
                    if reply.add(INodeNo(number), at as u64 + 1, kind, name.file_name()) {
                        break;
                    }
                }
                reply.ok();
            }
        }
    }

    fn statfs(&self, _: &Request, _: INodeNo, reply: ReplyStatfs) {
        let work = || Ok(statvfs(self.path(INodeNo::ROOT)?).map_err(io::Error::from)?);
        answer!(reply, work(), of => reply.statfs(
            of.f_blocks, of.f_bfree, of.f_bavail, of.f_files, of.f_ffree, of.f_bsize as u32, 255, of.f_frsize as u32
        ));
    }
}
