//! The kernel's requests, each handed to what answers it.
//!
//! No panic leaves a request: it is reported, its caller gets EIO, and the next request is answered.

use std::cell::RefCell;
use std::ffi::OsStr;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::FileExt;
use std::panic::AssertUnwindSafe;
use std::path::Path;
use std::time::SystemTime;

use fuser::{
    AccessFlags, BsdFileFlags, CopyFileRangeFlags, Errno, FileHandle, Filesystem, FopenFlags, Generation,
    INodeNo, InitFlags, IoctlFlags, KernelConfig, LockOwner, OpenAccMode, OpenFlags, RenameFlags, ReplyAttr,
    ReplyCreate, ReplyData, ReplyDirectory, ReplyDirectoryPlus, ReplyEmpty, ReplyEntry, ReplyIoctl,
    ReplyLseek, ReplyOpen, ReplyStatfs, ReplyWrite, ReplyXattr, Request, TimeOrNow, WriteFlags,
};
use nix::unistd::Whence;

use super::answers::{Answer, Answers, LONG, NOT};

/// No number ever stands for something else, so one generation is enough.
const ALWAYS: Generation = Generation(0);

thread_local! {
    static BUFFER: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// Answers that the kernel asks for.
pub(super) struct Requests(pub(super) Answers);

/// Runs the answer to one request; a reply that a panic drops is EIO.
fn guarded(what: &'static str, answer: impl FnOnce()) {
    if std::panic::catch_unwind(AssertUnwindSafe(answer)).is_err() {
        tracing::error!(what, "a request ended in a panic: this is a bug");
    }
}

/// Sends what an answer says, or its error.
macro_rules! answer {
    ($self:ident, $what:literal, $reply:ident, $answer:expr, |$value:pat_param| $send:expr) => {
        $self.0.count();
        guarded($what, move || match attempt(|| $answer) {
            Ok($value) => $send,
            Err(error) => $reply.error(errno(&error)),
        })
    };
}

/// A place for `?`.
fn attempt<T>(answer: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
    answer()
}

fn errno(error: &io::Error) -> Errno {
    Errno::from_i32(error.raw_os_error().unwrap_or(libc::EIO))
}

impl Filesystem for Requests {
    fn init(&mut self, _: &Request, config: &mut KernelConfig) -> io::Result<()> {
        // Not FUSE_CACHE_SYMLINKS: `self` is asked for each time
        let wanted = [
            InitFlags::FUSE_DO_READDIRPLUS,
            InitFlags::FUSE_READDIRPLUS_AUTO,
            InitFlags::FUSE_PARALLEL_DIROPS,
            // The kernel reads a file's access list, and keeps to it
            InitFlags::FUSE_POSIX_ACL,
        ];
        for flag in wanted {
            if let Err(missing) = config.add_capabilities(flag) {
                tracing::debug!(?missing, "not in this kernel");
            }
        }
        Ok(())
    }

    fn lookup(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        answer!(self, "lookup", reply, self.0.lookup(&self.0.target(parent)?, name), |answer| match answer {
            Answer::Here(attr) => reply.entry(&LONG, &attr, ALWAYS),
            Answer::Nothing(NOT) => reply.error(Errno::ENOENT),
            Answer::Nothing(ttl) => reply.entry(&ttl, &self.0.nothing(), ALWAYS),
        });
    }

    fn forget(&self, _: &Request, number: INodeNo, lookups: u64) {
        guarded("forget", || self.0.forget(number, lookups));
    }

    fn getattr(&self, _: &Request, number: INodeNo, _: Option<FileHandle>, reply: ReplyAttr) {
        answer!(self, "getattr", reply, self.0.attributes(&self.0.target(number)?), |attr| reply
            .attr(&LONG, &attr));
    }

    fn readlink(&self, request: &Request, number: INodeNo, reply: ReplyData) {
        let caller = request.pid();
        answer!(self, "readlink", reply, self.0.read_link(&self.0.target(number)?, caller), |path| {
            reply.data(path.as_bytes());
        });
    }

    fn open(&self, _: &Request, number: INodeNo, flags: OpenFlags, reply: ReplyOpen) {
        if flags.acc_mode() != OpenAccMode::O_RDONLY || flags.0 & libc::O_TRUNC != 0 {
            return reply.error(Errno::EROFS);
        }
        answer!(self, "open", reply, self.0.open(&self.0.target(number)?), |handle| {
            // A number means the same bytes for ever: what the page cache has of it is true
            reply.opened(FileHandle(handle), FopenFlags::FOPEN_KEEP_CACHE | FopenFlags::FOPEN_NOFLUSH);
        });
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
        self.0.count();
        guarded("read", || {
            BUFFER.with_borrow_mut(|buffer| {
                if buffer.len() < size as usize {
                    buffer.resize(size as usize, 0);
                }
                let read = self.0.files.find(handle.0).ok_or_else(stale);
                match read.and_then(|open| fill(open.file()?, &mut buffer[..size as usize], offset)) {
                    Ok(length) => reply.data(&buffer[..length]),
                    Err(error) => reply.error(errno(&error)),
                }
            });
        });
    }

    fn lseek(
        &self,
        _: &Request,
        _: INodeNo,
        handle: FileHandle,
        offset: i64,
        whence: i32,
        reply: ReplyLseek,
    ) {
        // Only these two are asked of a file system
        let whence = match whence {
            libc::SEEK_DATA => Whence::SeekData,
            libc::SEEK_HOLE => Whence::SeekHole,
            _ => return reply.error(Errno::EINVAL),
        };
        let seek = || {
            let open = self.0.files.find(handle.0).ok_or_else(stale)?;
            Ok(nix::unistd::lseek(open.file()?, offset, whence)?)
        };
        answer!(self, "lseek", reply, seek(), |offset| reply.offset(offset));
    }

    fn flush(&self, _: &Request, _: INodeNo, _: FileHandle, _: LockOwner, reply: ReplyEmpty) {
        reply.ok();
    }

    fn fsync(&self, _: &Request, _: INodeNo, _: FileHandle, _: bool, reply: ReplyEmpty) {
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
        self.0.count();
        guarded("release", move || {
            self.0.files.remove(handle.0);
            reply.ok();
        });
    }

    fn opendir(&self, _: &Request, number: INodeNo, _: OpenFlags, reply: ReplyOpen) {
        answer!(self, "opendir", reply, self.0.open_directory(self.0.target(number)?), |(
            handle,
            lasting,
        )| {
            let flags = if lasting {
                FopenFlags::FOPEN_KEEP_CACHE | FopenFlags::FOPEN_CACHE_DIR
            } else {
                FopenFlags::empty()
            };
            reply.opened(FileHandle(handle), flags);
        });
    }

    fn readdir(&self, _: &Request, _: INodeNo, handle: FileHandle, offset: u64, mut reply: ReplyDirectory) {
        self.0.count();
        guarded("readdir", move || {
            let lines =
                self.0.directories.find(handle.0).ok_or_else(stale).and_then(|open| self.0.lines(&open));
            let lines = match lines {
                Ok(lines) => lines,
                Err(error) => return reply.error(errno(&error)),
            };
            for (line, next) in lines.iter().zip(1..).skip(offset as usize) {
                if reply.add(INodeNo(line.number), next, line.kind, &line.name) {
                    break;
                }
            }
            reply.ok();
        });
    }

    fn readdirplus(
        &self,
        _: &Request,
        _: INodeNo,
        handle: FileHandle,
        offset: u64,
        mut reply: ReplyDirectoryPlus,
    ) {
        self.0.count();
        guarded("readdirplus", move || {
            let open = self.0.directories.find(handle.0).ok_or_else(stale);
            let (open, lines) = match open.and_then(|open| Ok((open.clone(), self.0.lines(&open)?))) {
                Ok(found) => found,
                Err(error) => return reply.error(errno(&error)),
            };
            let mut first = true;
            for (line, next) in lines.iter().zip(1..).skip(offset as usize) {
                let attr = match self.0.tell_line(&open, line) {
                    Ok(Some(attr)) => attr,
                    Ok(None) => continue,
                    // Those before it are told; it is the first of the next request
                    Err(_) if !first => break,
                    Err(error) => return reply.error(errno(&error)),
                };
                if reply.add(attr.ino, next, &line.name, &LONG, &attr, ALWAYS) {
                    // No room: the kernel was not told of it
                    if line.name != "." && line.name != ".." {
                        self.0.forget(attr.ino, 1);
                    }
                    break;
                }
                first = false;
            }
            reply.ok();
        });
    }

    fn releasedir(&self, _: &Request, _: INodeNo, handle: FileHandle, _: OpenFlags, reply: ReplyEmpty) {
        self.0.count();
        guarded("releasedir", move || {
            self.0.directories.remove(handle.0);
            reply.ok();
        });
    }

    fn fsyncdir(&self, _: &Request, _: INodeNo, _: FileHandle, _: bool, reply: ReplyEmpty) {
        reply.ok();
    }

    fn statfs(&self, _: &Request, number: INodeNo, reply: ReplyStatfs) {
        let space = || match self.0.found(&self.0.target(number)?) {
            Some(node) => node.view.stack()?.space().map(Some),
            None => Ok(None),
        };
        answer!(self, "statfs", reply, space(), |space| match space {
            Some(space) => reply.statfs(
                space.blocks(),
                space.blocks_free(),
                space.blocks_available(),
                space.files(),
                space.files_free(),
                u32::try_from(space.block_size()).unwrap_or(4096),
                255,
                u32::try_from(space.fragment_size()).unwrap_or(4096),
            ),
            None => reply.statfs(0, 0, 0, 0, 0, 4096, 255, 4096),
        });
    }

    fn getxattr(&self, _: &Request, number: INodeNo, name: &OsStr, size: u32, reply: ReplyXattr) {
        let value = || match self.0.found(&self.0.target(number)?) {
            Some(node) => node.view.stack()?.xattr(&node.found, name),
            None => Err(nix::errno::Errno::ENODATA.into()),
        };
        answer!(self, "getxattr", reply, value(), |value| send_xattr(&value, size, reply));
    }

    fn listxattr(&self, _: &Request, number: INodeNo, size: u32, reply: ReplyXattr) {
        let names = || match self.0.found(&self.0.target(number)?) {
            Some(node) => node.view.stack()?.xattr_names(&node.found),
            None => Ok(Vec::new()),
        };
        answer!(self, "listxattr", reply, names(), |names| send_xattr(&names, size, reply));
    }

    fn access(&self, _: &Request, number: INodeNo, mask: AccessFlags, reply: ReplyEmpty) {
        // The kernel checks permissions (default_permissions): what is left is that it is there, and not to be written
        answer!(self, "access", reply, self.0.attributes(&self.0.target(number)?), |_| {
            if mask.contains(AccessFlags::W_OK) { reply.error(Errno::EROFS) } else { reply.ok() }
        });
    }

    fn ioctl(
        &self,
        _: &Request,
        _: INodeNo,
        _: FileHandle,
        _: IoctlFlags,
        _: u32,
        _: &[u8],
        _: u32,
        reply: ReplyIoctl,
    ) {
        reply.error(Errno::ENOTTY);
    }

    fn setattr(
        &self,
        _: &Request,
        _: INodeNo,
        _: Option<u32>,
        _: Option<u32>,
        _: Option<u32>,
        _: Option<u64>,
        _: Option<TimeOrNow>,
        _: Option<TimeOrNow>,
        _: Option<SystemTime>,
        _: Option<FileHandle>,
        _: Option<SystemTime>,
        _: Option<SystemTime>,
        _: Option<SystemTime>,
        _: Option<BsdFileFlags>,
        reply: ReplyAttr,
    ) {
        reply.error(Errno::EROFS);
    }

    fn mknod(&self, _: &Request, _: INodeNo, _: &OsStr, _: u32, _: u32, _: u32, reply: ReplyEntry) {
        reply.error(Errno::EROFS);
    }

    fn mkdir(&self, _: &Request, _: INodeNo, _: &OsStr, _: u32, _: u32, reply: ReplyEntry) {
        reply.error(Errno::EROFS);
    }

    fn unlink(&self, _: &Request, _: INodeNo, _: &OsStr, reply: ReplyEmpty) {
        reply.error(Errno::EROFS);
    }

    fn rmdir(&self, _: &Request, _: INodeNo, _: &OsStr, reply: ReplyEmpty) {
        reply.error(Errno::EROFS);
    }

    fn symlink(&self, _: &Request, _: INodeNo, _: &OsStr, _: &Path, reply: ReplyEntry) {
        reply.error(Errno::EROFS);
    }

    fn rename(
        &self,
        _: &Request,
        _: INodeNo,
        _: &OsStr,
        _: INodeNo,
        _: &OsStr,
        _: RenameFlags,
        reply: ReplyEmpty,
    ) {
        reply.error(Errno::EROFS);
    }

    fn link(&self, _: &Request, _: INodeNo, _: INodeNo, _: &OsStr, reply: ReplyEntry) {
        reply.error(Errno::EROFS);
    }

    fn write(
        &self,
        _: &Request,
        _: INodeNo,
        _: FileHandle,
        _: u64,
        _: &[u8],
        _: WriteFlags,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        reply.error(Errno::EROFS);
    }

    fn setxattr(&self, _: &Request, _: INodeNo, _: &OsStr, _: &[u8], _: i32, _: u32, reply: ReplyEmpty) {
        reply.error(Errno::EROFS);
    }

    fn removexattr(&self, _: &Request, _: INodeNo, _: &OsStr, reply: ReplyEmpty) {
        reply.error(Errno::EROFS);
    }

    fn create(&self, _: &Request, _: INodeNo, _: &OsStr, _: u32, _: u32, _: i32, reply: ReplyCreate) {
        reply.error(Errno::EROFS);
    }

    fn fallocate(&self, _: &Request, _: INodeNo, _: FileHandle, _: u64, _: u64, _: i32, reply: ReplyEmpty) {
        reply.error(Errno::EROFS);
    }

    fn copy_file_range(
        &self,
        _: &Request,
        _: INodeNo,
        _: FileHandle,
        _: u64,
        _: INodeNo,
        _: FileHandle,
        _: u64,
        _: u64,
        _: CopyFileRangeFlags,
        reply: ReplyWrite,
    ) {
        reply.error(Errno::EROFS);
    }
}

/// A handle that is not known: the kernel never asks that.
fn stale() -> io::Error {
    nix::errno::Errno::EBADF.into()
}

/// As much as there is: less than was asked for means the end of the file.
fn fill(file: &std::fs::File, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
    let mut length = 0;
    while length < buffer.len() {
        match file.read_at(&mut buffer[length..], offset + length as u64) {
            Ok(0) => break,
            Ok(read) => length += read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(length)
}

fn send_xattr(value: &[u8], size: u32, reply: ReplyXattr) {
    if size == 0 {
        reply.size(value.len() as u32);
    } else if value.len() > size as usize {
        reply.error(Errno::ERANGE);
    } else {
        reply.data(value);
    }
}
