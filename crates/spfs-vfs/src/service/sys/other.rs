//! Elsewhere nothing is mounted yet.

use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;

use nix::fcntl::{OFlag, open};
use nix::sys::stat::Mode;

/// What is at a path.
#[derive(Debug)]
#[expect(dead_code, reason = "the same kinds everywhere; only the first is found here")]
pub(in crate::service) enum Standing {
    /// A folder that is no mount of FUSE.
    Free(OwnedFd),
    /// A mount whose program has ended.
    Dead(OwnedFd),
    /// A mount whose program runs.
    Fuse,
}

pub(in crate::service) fn look(path: &Path) -> io::Result<Standing> {
    let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
    Ok(Standing::Free(open(path, flags, Mode::empty())?))
}

pub(in crate::service) fn clear(_pin: &OwnedFd) -> io::Result<()> {
    Err(io::Error::new(io::ErrorKind::Unsupported, "nothing can be unmounted here"))
}

pub(in crate::service) fn abandon(path: &Path) -> io::Result<()> {
    Err(io::Error::new(io::ErrorKind::Unsupported, format!("{} cannot be unmounted here", path.display())))
}
