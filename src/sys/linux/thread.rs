//! From a thread id, or a socket, to the process that owns it.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use nix::errno::Errno;

use crate::error::{Error, Result};
use crate::parse::keyed;
use crate::pid::Pid;
use crate::sys::backend::handle::Handle;
use crate::sys::backend::procfs::{self, ProcPath};
use crate::sys::backend::syscall::{self, PIDFD_THREAD, PidfdInfo};
use crate::sys::backend::world::world;

/// The thread group that a number belongs to, which is the number itself for a process; while the thing it was read
/// from stays pinned, so does the answer (only an exec by another thread changes it, and then the thread is gone).
enum Pinned {
    Pidfd(OwnedFd),
    Status(OwnedFd),
}

impl Pinned {
    fn open(tid: Pid, tried: &'static str) -> Result<Pinned> {
        let world = world()?;
        if world.thread && world.info {
            return match syscall::pidfd_open(tid, PIDFD_THREAD) {
                Ok(fd) => Ok(Pinned::Pidfd(fd)),
                Err(Errno::ESRCH | Errno::EINVAL | Errno::ENOENT) => Err(Error::gone(tid, tried)),
                Err(errno) => Err(Error::os(tid, tried, errno.into())),
            };
        }
        world.need_proc(tid, tried)?;
        let file = nix::fcntl::open(
            ProcPath::new(tid, "/status").as_c_str(),
            nix::fcntl::OFlag::O_RDONLY | nix::fcntl::OFlag::O_CLOEXEC,
            nix::sys::stat::Mode::empty(),
        );
        file.map(Pinned::Status).map_err(|errno| procfs::refused(tid, tried, errno))
    }

    fn owner(&self, tid: Pid, tried: &'static str) -> Result<Pid> {
        let number = match self {
            Pinned::Pidfd(fd) => match syscall::pidfd_info(fd.as_fd(), PidfdInfo::PID) {
                Ok(info) => i64::from(info.tgid),
                Err(Errno::ESRCH) => return Err(Error::gone(tid, tried)),
                Err(errno) => return Err(Error::os(tid, tried, errno.into())),
            },
            Pinned::Status(file) => {
                let mut text = [0; 512];
                let length = nix::sys::uio::pread(file, &mut text, 0)
                    .map_err(|errno| procfs::refused(tid, tried, errno))?;
                keyed::number(&text[..length], "Tgid:").unwrap_or(-1)
            }
        };
        u32::try_from(number)
            .ok()
            .and_then(Pid::new)
            .ok_or_else(|| Error::malformed(tid, tried, "the kernel names no owner of this thread id"))
    }
}

/// The process that owns a thread id; a process owns its own number.
pub(crate) fn process_of_thread(tid: Pid) -> Result<Handle> {
    const TRIED: &str = "open the owner of thread or";
    let thread = Pinned::open(tid, TRIED)?;
    let owner = thread.owner(tid, TRIED)?;
    let handle =
        Handle::open(owner).map_err(|error| if error.is_gone() { Error::gone(tid, TRIED) } else { error })?;
    // The thread outlived the opening, so its process did, and that is what was opened.
    if thread.owner(tid, TRIED)? == owner { Ok(handle) } else { Err(Error::gone(tid, TRIED)) }
}

/// Whose thread a number is that turned out not to be a process; `None` if it is none (any more).
pub(super) fn owner_of(tid: Pid) -> Option<Pid> {
    let owner = Pinned::open(tid, "").and_then(|thread| thread.owner(tid, "")).ok()?;
    (owner != tid).then_some(owner)
}

/// The process at the other end of a Unix socket, as the kernel pinned it when the connection was made.
pub(crate) fn process_of_peer(socket: BorrowedFd<'_>) -> Result<Handle> {
    const TRIED: &str = "open the peer of the socket";
    if cfg!(pidigree_force_procfs) {
        return Err(no_peer());
    }
    let fd = match syscall::peer_pidfd(socket) {
        Ok(fd) => fd,
        Err(Errno::ENOPROTOOPT) => return Err(no_peer()),
        Err(Errno::ENODATA) => {
            return Err(Error::unsupported(
                None,
                TRIED,
                "the socket has no peer process: it must be a connected Unix socket",
            ));
        }
        // The peer was reaped before we asked (kernels up to 6.16).
        Err(Errno::EINVAL | Errno::ESRCH) => {
            let pid = nix::sys::socket::getsockopt(&socket, nix::sys::socket::sockopt::PeerCredentials);
            let pid = pid.ok().and_then(|peer| Pid::from_raw(peer.pid()));
            return Err(match pid {
                Some(pid) => Error::gone(pid, TRIED),
                None => Error::foreign(None, TRIED, "it is in a PID namespace that we do not see"),
            });
        }
        Err(errno) => return Err(Error::os(None, TRIED, errno.into())),
    };
    let peer = nix::sys::socket::getsockopt(&socket, nix::sys::socket::sockopt::PeerCredentials)
        .map_err(|errno| Error::os(None, TRIED, errno.into()))?;
    match Pid::from_raw(peer.pid()) {
        Some(pid) => Handle::of_pidfd(pid, fd),
        None => Err(Error::foreign(None, TRIED, "it is in a PID namespace that we do not see")),
    }
}

fn no_peer() -> Error {
    Error::unsupported(
        None,
        "open the peer of the socket",
        "it takes SO_PEERPIDFD (Linux 6.5): the PID alone that older kernels give may name a stranger by now",
    )
}
