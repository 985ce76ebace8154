//! Linux: what stands at a path, without going through it.

use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::Path;

use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, open};
use nix::mount::{MntFlags, umount2};
use nix::sys::stat::{Mode, fstat, fstatat};
use nix::sys::statfs::{FUSE_SUPER_MAGIC, fstatfs};

/// What is at a path.
#[derive(Debug)]
pub(in crate::service) enum Standing {
    /// A folder that is no mount of FUSE; pinned, together with the mount that it is in.
    Free(OwnedFd),
    /// A mount whose program has ended.
    Dead(OwnedFd),
    /// A mount whose program runs.
    Fuse,
}

/// Looks, and pins what it finds. No opening of a dead mount succeeds, except for a mere reference to the path.
pub(in crate::service) fn look(path: &Path) -> io::Result<Standing> {
    let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
    let pin = open(path, flags, Mode::empty())?;
    let kind = match fstatfs(&pin) {
        Ok(found) => found.filesystem_type(),
        // The first once it has ended, the second of a request that was under way
        Err(Errno::ENOTCONN | Errno::ECONNABORTED) => return Ok(Standing::Dead(pin)),
        Err(error) => return Err(error.into()),
    };
    if kind == FUSE_SUPER_MAGIC {
        // A folder within another file system of FUSE is as good as any
        let above = fstatat(&pin, "..", AtFlags::empty())?;
        if fstat(&pin)?.st_dev != above.st_dev {
            return Ok(Standing::Fuse);
        }
    }
    Ok(Standing::Free(pin))
}

/// Takes away the mount that was pinned, and no other: by now another service may have mounted at the same path.
pub(in crate::service) fn clear(pin: &OwnedFd) -> io::Result<()> {
    let pinned = format!("/proc/self/fd/{}", pin.as_fd().as_raw_fd());
    match umount2(pinned.as_str(), MntFlags::MNT_DETACH) {
        Ok(()) => Ok(()),
        // It has been taken away meanwhile
        Err(Errno::EINVAL) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// Takes away whatever is mounted at a path that is locked by us, without asking it.
pub(in crate::service) fn abandon(path: &Path) -> io::Result<()> {
    Ok(umount2(path, MntFlags::MNT_DETACH)?)
}
