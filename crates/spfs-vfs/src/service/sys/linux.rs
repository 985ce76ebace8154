//! Linux: what stands at a path, without going through it.

use std::io::{self, IoSliceMut};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::Path;
use std::process::Command;

use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, open};
use nix::mount::{MntFlags, umount2};
use nix::sys::stat::{Mode, fstat, fstatat};
use nix::sys::statfs::{FUSE_SUPER_MAGIC, fstatfs};
use nix::sys::uio::{RemoteIoVec, process_vm_readv};
use nix::unistd::{Pid, getsid};
use pidigree::Process;

/// `PROC_PID_INIT_INO` in `include/linux/proc_ns.h`: the only PID namespace with kernel threads in it.
const INITIAL_PID_NAMESPACE: u64 = 0xEFFF_FFFC;

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
pub(in crate::service) fn clear(pin: &OwnedFd, path: &Path) -> io::Result<()> {
    let pinned = format!("/proc/self/fd/{}", pin.as_fd().as_raw_fd());
    match umount2(pinned.as_str(), MntFlags::MNT_DETACH) {
        Ok(()) => Ok(()),
        // It has been taken away meanwhile
        Err(Errno::EINVAL) => Ok(()),
        Err(Errno::EPERM) => clear_by_helper(path),
        Err(error) => Err(error.into()),
    }
}

/// Takes away whatever is mounted at a path that is locked by us, without asking it.
pub(in crate::service) fn abandon(path: &Path) -> io::Result<()> {
    match umount2(path, MntFlags::MNT_DETACH) {
        Err(Errno::EPERM) => clear_by_helper(path),
        outcome => Ok(outcome?),
    }
}

/// Users who may not unmount have a helper with the right to take away their own mounts.
fn clear_by_helper(path: &Path) -> io::Result<()> {
    let output = Command::new("fusermount3").arg("-uz").arg("--").arg(path).output()?;
    if output.status.success() {
        return Ok(());
    }
    Err(io::Error::other(String::from_utf8_lossy(&output.stderr).trim().to_owned()))
}

/// Whether this is a thread of the kernel's own, which looks at no file. They are in no session, and have no memory. A
/// process has neither only when it has ended, or when the leader of its session is in an outer PID namespace.
pub(in crate::service) fn is_kernel_thread(process: &Process) -> bool {
    let Ok(raw) = i32::try_from(process.pid().get()) else {
        return false;
    };
    if process.identity().pid_namespace() != Some(INITIAL_PID_NAMESPACE)
        || getsid(Some(Pid::from_raw(raw))) != Ok(Pid::from_raw(0))
    {
        return false;
    }
    let mut byte = [0];
    let remote = [RemoteIoVec { base: 0, len: 1 }];
    let read = process_vm_readv(Pid::from_raw(raw), &mut [IoSliceMut::new(&mut byte)], &remote);
    // That was asked by PID, so what it says counts only if the PID is still the process's
    read == Err(Errno::ESRCH) && matches!(process.state(), Ok(pidigree::State::Running))
}
