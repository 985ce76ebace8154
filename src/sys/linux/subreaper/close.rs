//! Closing what a fork has inherited.

use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use nix::errno::Errno;
use nix::fcntl::{OFlag, open};
use nix::sys::resource::{Resource, getrlimit};
use nix::sys::stat::Mode;

use crate::parse;
use crate::sys::backend::syscall;

/// Closes every descriptor from this number on.
pub(super) fn close_from(first: i32) {
    // Linux 5.9; and sandboxes that are older than it deny it.
    if !cfg!(pidigree_force_procfs) && syscall::close_range(first).is_ok() {
        return;
    }
    if close_listed(first).is_ok() {
        return;
    }
    // A limit that was lowered says nothing of what had been open before; nobody else does here.
    let limit = getrlimit(Resource::RLIMIT_NOFILE).map_or(1024, |(soft, _)| soft);
    for fd in first..i32::try_from(limit).unwrap_or(i32::MAX) {
        let _ = nix::unistd::close(fd);
    }
}

/// The kernel lists by ascending number from wherever the last call stopped.
fn close_listed(first: i32) -> Result<(), Errno> {
    let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
    let directory: OwnedFd = open(c"/proc/self/fd", flags, Mode::empty())?;
    let own = directory.as_raw_fd();
    let mut buffer = [0; 1024];
    loop {
        let filled = syscall::getdents(directory.as_fd(), &mut buffer)?;
        if filled == 0 {
            return Ok(());
        }
        let close = |fd: crate::pid::Pid, _| {
            if fd.raw() >= first && fd.raw() != own {
                let _ = nix::unistd::close(fd.raw());
            }
        };
        parse::dirent::pids(&buffer[..filled], close).ok_or(Errno::EIO)?;
    }
}
