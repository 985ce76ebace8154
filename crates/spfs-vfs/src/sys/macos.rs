//! macOS: layers can be read, and nothing can be mounted yet.

use std::convert::Infallible;
use std::ffi::OsStr;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Component, Path};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, openat};
use nix::sys::stat::{FileStat, Mode, SFlag, fstat, fstatat};

use super::Open;
use crate::Error;
use crate::layers::{Attributes, Kind};
use crate::mount::{Ended, MountOptions, Shown};

/// Opens a directory by the path that a user gave: symbolic links are followed.
pub(crate) fn open_directory(path: &Path) -> io::Result<OwnedFd> {
    Ok(nix::fcntl::open(path, OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC, Mode::empty())?)
}

/// Opens what is at a path below a directory, component by component, so that no symbolic link is followed.
pub(crate) fn open_beneath(root: BorrowedFd<'_>, path: &Path, how: Open) -> io::Result<OwnedFd> {
    let walk = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    let last = match how {
        // There is no O_PATH: what cannot be opened for reading cannot be asked about
        Open::Node => {
            OFlag::O_RDONLY | OFlag::O_NONBLOCK | OFlag::from_bits_retain(libc::O_SYMLINK) | OFlag::O_CLOEXEC
        }
        Open::Directory | Open::Listing => walk,
        Open::File => OFlag::O_RDONLY | OFlag::O_NONBLOCK | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC,
    };
    let mut components = path.components().peekable();
    let mut at = openat(root, ".", walk, Mode::empty())?;
    while let Some(component) = components.next() {
        let Component::Normal(name) = component else { return Err(Errno::EXDEV.into()) };
        let flags = if components.peek().is_some() { walk } else { last };
        at = openat(at.as_fd(), name, flags, Mode::empty())?;
    }
    Ok(at)
}

/// Returns what an open file is.
pub(crate) fn attributes(file: BorrowedFd<'_>) -> io::Result<Attributes> {
    translate(&fstat(file)?)
}

/// Returns what a name in a directory is, a single component; `None` if there is no such name.
pub(crate) fn attributes_at(directory: BorrowedFd<'_>, name: &OsStr) -> io::Result<Option<Attributes>> {
    match fstatat(directory, name, AtFlags::AT_SYMLINK_NOFOLLOW) {
        Ok(stat) => translate(&stat).map(Some),
        Err(Errno::ENOENT | Errno::ENAMETOOLONG) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

fn translate(stat: &FileStat) -> io::Result<Attributes> {
    let kind = match SFlag::from_bits_truncate(stat.st_mode & SFlag::S_IFMT.bits()) {
        SFlag::S_IFDIR => Kind::Directory,
        SFlag::S_IFREG => Kind::File,
        SFlag::S_IFLNK => Kind::Symlink,
        SFlag::S_IFIFO => Kind::Fifo,
        SFlag::S_IFSOCK => Kind::Socket,
        SFlag::S_IFCHR => Kind::CharDevice,
        SFlag::S_IFBLK => Kind::BlockDevice,
        _ => return Err(Errno::EIO.into()),
    };
    let rdev = (libc::major(stat.st_rdev), libc::minor(stat.st_rdev));
    Ok(Attributes {
        dev: u64::from(stat.st_dev.unsigned_abs()),
        ino: stat.st_ino,
        kind,
        permissions: stat.st_mode & 0o7777,
        nlink: u32::from(stat.st_nlink),
        uid: stat.st_uid,
        gid: stat.st_gid,
        rdev: (rdev.0.unsigned_abs(), rdev.1.unsigned_abs()),
        size: stat.st_size.unsigned_abs(),
        blocks: stat.st_blocks.unsigned_abs(),
        block_size: stat.st_blksize.unsigned_abs(),
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

/// Extended attributes are read for a mount alone, and there is none.
pub(crate) fn xattr(_: BorrowedFd<'_>, _: &OsStr, _: &OsStr) -> io::Result<Vec<u8>> {
    Err(Errno::ENOTSUP.into())
}

/// As [`xattr`].
pub(crate) fn xattr_names(_: BorrowedFd<'_>, _: &OsStr) -> io::Result<Vec<u8>> {
    Err(Errno::ENOTSUP.into())
}

/// Leaves the limit as it is: only a mount needs many descriptors.
pub(crate) fn raise_file_limit() {}

/// There is none.
pub(crate) struct Session(Infallible);

impl Session {
    pub(crate) fn start(_: &Path, _: Shown, _: &MountOptions) -> Result<Session, Error> {
        Err(Error::unsupported("nothing can be mounted on macOS yet: this build has no FUSE there"))
    }

    pub(crate) fn path(&self) -> &Path {
        match self.0 {}
    }

    pub(crate) fn ended(&self) -> Ended {
        match self.0 {}
    }

    pub(crate) fn requests(&self) -> u64 {
        match self.0 {}
    }

    pub(crate) fn finish(&self) -> io::Result<()> {
        match self.0 {}
    }
}
