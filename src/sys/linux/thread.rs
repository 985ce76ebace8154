//! From a thread id, or a socket, to the process that owns it.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::getsockopt;
use nix::sys::socket::sockopt::{AcceptConn, PeerCredentials};

use crate::error::{Error, Result};
use crate::parse::keyed;
use crate::pid::Pid;
use crate::sys::backend::handle::Handle;
use crate::sys::backend::procfs::{self, ProcPath};
use crate::sys::backend::step::{self, UNSEEN};
use crate::sys::backend::syscall::{self, PIDFD_THREAD, PidfdInfo};
use crate::sys::backend::world::world;

/// A thread, pinned: its number is no other thread's for as long as it lives, and it belongs to one process for life. (Only
/// an exec takes a thread from under its number, and then that number is free.)
#[derive(Debug)]
pub(crate) struct Thread {
    tid: Pid,
    owner: Pid,
    pin: Pin,
}

#[derive(Debug)]
enum Pin {
    Pidfd(OwnedFd),
    /// Its /proc/TID/status.
    Status(OwnedFd),
}

const TRIED: &str = "find the process of thread";

impl Thread {
    pub(crate) fn open(tid: Pid) -> Result<Thread> {
        Thread::open_to(tid, TRIED)
    }

    fn open_to(tid: Pid, tried: &'static str) -> Result<Thread> {
        let world = world()?;
        let pin = if world.thread && world.info {
            match syscall::pidfd_open(tid, PIDFD_THREAD) {
                Ok(fd) => Pin::Pidfd(fd),
                Err(Errno::ESRCH | Errno::EINVAL | Errno::ENOENT) => return Err(Error::gone(tid, tried)),
                Err(errno) => return Err(Error::os(tid, tried, errno.into())),
            }
        } else {
            world.need_proc(tid, tried)?;
            let file = nix::fcntl::open(
                ProcPath::new(tid, "/status").as_c_str(),
                nix::fcntl::OFlag::O_RDONLY | nix::fcntl::OFlag::O_CLOEXEC,
                nix::sys::stat::Mode::empty(),
            );
            file.map(Pin::Status).map_err(|errno| procfs::refused(tid, tried, errno))?
        };
        let owner = pin.owner(tid, tried)?;
        Ok(Thread { tid, owner, pin })
    }

    /// The PID of the process that it belongs to.
    pub(crate) fn owner(&self) -> Pid {
        self.owner
    }

    /// Whether it has not ended, and so its number, and its owner's, are what they were.
    pub(crate) fn is_alive(&self) -> Result<bool> {
        match &self.pin {
            Pin::Pidfd(fd) => {
                let mut fds = [PollFd::new(fd.as_fd(), PollFlags::POLLIN)];
                match poll(&mut fds, PollTimeout::ZERO) {
                    Ok(ready) => Ok(ready == 0),
                    Err(Errno::EINTR) => Ok(true),
                    Err(errno) => Err(Error::os(self.tid, "look at thread", errno.into())),
                }
            }
            Pin::Status(_) => match self.pin.owner(self.tid, "look at thread") {
                Ok(owner) => Ok(owner == self.owner),
                Err(error) if error.is_gone() => Ok(false),
                Err(error) => Err(error),
            },
        }
    }
}

impl Pin {
    /// The thread group that the number belongs to, which is the number itself for a process.
    fn owner(&self, tid: Pid, tried: &'static str) -> Result<Pid> {
        let number = match self {
            Pin::Pidfd(fd) => {
                let mut answer = syscall::pidfd_info(fd.as_fd(), PidfdInfo::PID);
                // Said for a moment while another thread executes a program, too.
                for _ in 0..16 {
                    match answer {
                        Err(Errno::ESRCH) if !step::hung_up(fd.as_fd()).unwrap_or(true) => {
                            answer = syscall::pidfd_info(fd.as_fd(), PidfdInfo::PID);
                        }
                        _ => break,
                    }
                }
                match answer {
                    Ok(info) => i64::from(info.tgid),
                    Err(Errno::ESRCH) => return Err(Error::gone(tid, tried)),
                    Err(errno) => return Err(Error::os(tid, tried, errno.into())),
                }
            }
            Pin::Status(file) => {
                let mut text = [0; 512];
                let length = nix::sys::uio::pread(file, &mut text, 0)
                    .map_err(|errno| procfs::refused(tid, tried, errno))?;
                keyed::number(&text[..length], "Tgid:").unwrap_or(-1)
            }
        };
        match u32::try_from(number) {
            // It was reaped while it was read.
            Ok(0) => Err(Error::gone(tid, tried)),
            Ok(number) => Pid::try_from(number),
            Err(_) => Err(Error::malformed(tid, tried, "the kernel names no owner of it")),
        }
    }
}

/// The process that owns a thread id; a process owns its own number.
pub(crate) fn process_of_thread(tid: Pid) -> Result<Handle> {
    let thread = Thread::open(tid)?;
    let owner = thread.owner();
    let handle = Handle::open(owner).map_err(|error| {
        if error.is_gone() || error.is_thread() { Error::gone(tid, TRIED) } else { error }
    })?;
    // The thread outlived the opening, so its process did, and that is what was opened.
    if thread.pin.owner(tid, TRIED)? == owner { Ok(handle) } else { Err(Error::gone(tid, TRIED)) }
}

/// Whose thread a number is that turned out not to be a process; `None` if it is none (any more).
pub(super) fn owner_of(tid: Pid) -> Option<Pid> {
    let owner = Thread::open_to(tid, "").ok()?.owner();
    (owner != tid).then_some(owner)
}

/// The process at the other end of a Unix socket, as the kernel pinned it when the connection was made.
pub(crate) fn process_of_peer(socket: BorrowedFd<'_>) -> Result<Handle> {
    const TRIED: &str = "open the peer of a socket";
    let no_pidfd =
        "it takes SO_PEERPIDFD (Linux 6.5): the number that older kernels give may be a stranger's by now";
    if cfg!(pidigree_force_procfs) {
        return Err(Error::unsupported(None, TRIED, no_pidfd));
    }
    let fd = match syscall::peer_pidfd(socket) {
        Ok(fd) => Some(fd),
        // The peer was reaped before we asked; newer kernels give a pidfd even then.
        Err(Errno::EINVAL | Errno::ESRCH) => None,
        Err(Errno::ENOPROTOOPT) => return Err(Error::unsupported(None, TRIED, no_pidfd)),
        Err(Errno::ENODATA) => {
            let reason = "it has no peer process: it must be a connected Unix socket";
            return Err(Error::unsupported(None, TRIED, reason));
        }
        Err(errno) => return Err(Error::os(None, TRIED, errno.into())),
    };
    if getsockopt(&socket, AcceptConn) == Ok(true) {
        return Err(Error::unsupported(
            None,
            TRIED,
            "it listens, and has no peer; accept a connection first",
        ));
    }
    let peer = getsockopt(&socket, PeerCredentials).map_err(|errno| Error::os(None, TRIED, errno.into()))?;
    match (Pid::from_raw(peer.pid()), fd) {
        (Some(pid), Some(fd)) => Handle::of_pidfd(pid, fd),
        (Some(pid), None) => Err(Error::gone(pid, "open peer process")),
        (None, _) => Err(Error::foreign(None, TRIED, UNSEEN)),
    }
}
