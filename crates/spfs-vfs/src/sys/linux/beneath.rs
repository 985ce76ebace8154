//! What lies below a directory, and never anything else.

use std::ffi::{CString, OsStr};
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, OpenHow, ResolveFlag, openat2};
use nix::sys::stat::{FileStat, Mode, SFlag, fstat, fstatat, major, minor};

use crate::layers::{Attributes, Kind};
use crate::sys::Open;

/// Opens a directory by the path that a user gave: symbolic links are followed.
pub(crate) fn open_directory(path: &Path) -> io::Result<OwnedFd> {
    let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
    Ok(nix::fcntl::open(path, flags, Mode::empty())?)
}

/// Opens what is at a path below a directory, on the way to which there is no symbolic link.
pub(crate) fn open_beneath(root: BorrowedFd<'_>, path: &Path, how: Open) -> io::Result<OwnedFd> {
    let path = if path.as_os_str().is_empty() { Path::new(".") } else { path };
    let flags = match how {
        Open::Node => OFlag::O_PATH,
        Open::Directory => OFlag::O_PATH | OFlag::O_DIRECTORY,
        Open::Listing => OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_NOATIME,
        // Should it be a named pipe by now, nobody waits for a writer
        Open::File => OFlag::O_RDONLY | OFlag::O_NONBLOCK | OFlag::O_NOATIME,
    };
    match open_as(root, path, flags) {
        // Not the owner, and no CAP_FOWNER
        Err(Errno::EPERM) => Ok(open_as(root, path, flags - OFlag::O_NOATIME)?),
        opened => Ok(opened?),
    }
}

fn open_as(root: BorrowedFd<'_>, path: &Path, flags: OFlag) -> nix::Result<OwnedFd> {
    let resolve =
        ResolveFlag::RESOLVE_BENEATH | ResolveFlag::RESOLVE_NO_MAGICLINKS | ResolveFlag::RESOLVE_NO_SYMLINKS;
    let how = OpenHow::new().flags(flags | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC).resolve(resolve);
    loop {
        match openat2(root, path, how) {
            // RESOLVE_BENEATH, while something was renamed anywhere: openat2(2) says to try again
            Err(Errno::EAGAIN | Errno::EINTR) => {}
            opened => return opened,
        }
    }
}

/// Returns what an open file is.
pub(crate) fn attributes(file: BorrowedFd<'_>) -> io::Result<Attributes> {
    translate(&fstat(file)?)
}

/// Returns what a name in a directory is, a single component; `None` if there is no such name.
pub(crate) fn attributes_at(directory: BorrowedFd<'_>, name: &OsStr) -> io::Result<Option<Attributes>> {
    match fstatat(directory, name, AtFlags::AT_SYMLINK_NOFOLLOW) {
        Ok(stat) => translate(&stat).map(Some),
        // What is too long is not there either; that it is too long, the mount says itself
        Err(Errno::ENOENT | Errno::ENAMETOOLONG) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

fn translate(stat: &FileStat) -> io::Result<Attributes> {
    let format = SFlag::from_bits_truncate(stat.st_mode & SFlag::S_IFMT.bits());
    let kind = match format {
        SFlag::S_IFDIR => Kind::Directory,
        SFlag::S_IFREG => Kind::File,
        SFlag::S_IFLNK => Kind::Symlink,
        SFlag::S_IFIFO => Kind::Fifo,
        SFlag::S_IFSOCK => Kind::Socket,
        SFlag::S_IFCHR => Kind::CharDevice,
        SFlag::S_IFBLK => Kind::BlockDevice,
        _ => return Err(Errno::EIO.into()),
    };
    let number = |number: u64| u32::try_from(number).unwrap_or(u32::MAX);
    Ok(Attributes {
        dev: stat.st_dev,
        ino: stat.st_ino,
        kind,
        permissions: (stat.st_mode & 0o7777) as u16,
        nlink: number(stat.st_nlink),
        uid: stat.st_uid,
        gid: stat.st_gid,
        rdev: (number(major(stat.st_rdev)), number(minor(stat.st_rdev))),
        size: stat.st_size.unsigned_abs(),
        blocks: stat.st_blocks.unsigned_abs(),
        block_size: number(stat.st_blksize.unsigned_abs()),
        accessed: time(stat.st_atime, stat.st_atime_nsec),
        modified: time(stat.st_mtime, stat.st_mtime_nsec),
        changed: time(stat.st_ctime, stat.st_ctime_nsec),
    })
}

fn time(seconds: i64, nanoseconds: i64) -> SystemTime {
    let whole = Duration::from_secs(seconds.unsigned_abs());
    let rest = Duration::from_nanos(nanoseconds.unsigned_abs());
    if seconds < 0 { UNIX_EPOCH - whole + rest } else { UNIX_EPOCH + whole + rest }
}

/// Returns an extended attribute of what has that name in a directory.
pub(crate) fn xattr(directory: BorrowedFd<'_>, file: &OsStr, name: &OsStr) -> io::Result<Vec<u8>> {
    let (path, name) = (through(directory, file)?, CString::new(name.as_bytes())?);
    grow(|buffer| {
        // SAFETY: both strings end with a NUL and outlive the call, which writes no more than the buffer's length to it.
        unsafe { libc::lgetxattr(path.as_ptr(), name.as_ptr(), buffer.as_mut_ptr().cast(), buffer.len()) }
    })
}

/// Returns the names of the extended attributes of what has that name in a directory, each followed by a NUL.
pub(crate) fn xattr_names(directory: BorrowedFd<'_>, file: &OsStr) -> io::Result<Vec<u8>> {
    let path = through(directory, file)?;
    // SAFETY: the string ends with a NUL and outlives the call, which writes no more than the buffer's length to it.
    grow(|buffer| unsafe { libc::llistxattr(path.as_ptr(), buffer.as_mut_ptr().cast(), buffer.len()) })
}

/// A path to a name in an open directory, for calls that take nothing else (getxattrat(2) is of Linux 6.13).
fn through(directory: BorrowedFd<'_>, file: &OsStr) -> io::Result<CString> {
    let mut path = format!("/proc/self/fd/{}/", directory.as_raw_fd()).into_bytes();
    path.extend_from_slice(file.as_bytes());
    Ok(CString::new(path)?)
}

fn grow(mut call: impl FnMut(&mut [u8]) -> isize) -> io::Result<Vec<u8>> {
    let mut buffer = vec![0; 256];
    loop {
        match usize::try_from(call(&mut buffer)) {
            Ok(length) => {
                buffer.truncate(length);
                return Ok(buffer);
            }
            // An attribute has 64 KiB at most, and so has the list of their names
            Err(_) => match Errno::last() {
                Errno::ERANGE if buffer.len() < 1 << 17 => buffer.resize(buffer.len() * 4, 0),
                // The directory is open: it is /proc that is not there
                Errno::ENOENT => return Err(Errno::EOPNOTSUPP.into()),
                error => return Err(error.into()),
            },
        }
    }
}
