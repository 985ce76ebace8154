//! One process of a walk up the ancestry, pinned for as long as the walk needs it. No allocation.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use crate::error::{Error, Result};
use crate::parse::proc_stat::ProcStat;
use crate::pid::Pid;
use crate::sys::backend::procfs::{self, StatBuffer};
use crate::sys::backend::syscall::{self, PidfdInfo};
use crate::sys::backend::thread;
use crate::sys::backend::world::{self, world};

const TRIED: &str = "read the ancestry of process";

/// A pinned process, and what it takes to prove that another one is its parent.
#[derive(Debug)]
pub(crate) struct Step {
    pid: Pid,
    pin: Pin,
}

#[derive(Debug)]
enum Pin {
    Pidfd(OwnedFd),
    /// /proc/PID/stat, open, with what it said last.
    Stat {
        file: OwnedFd,
        stat: ProcStat,
    },
}

/// When a walk began: ticks of the clock that start times are on; `None` where pidfds make it needless.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Since(Option<u64>);

impl Since {
    /// Now. To be taken before the first step of the walk.
    #[inline]
    pub(crate) fn now() -> Result<Since> {
        if world()?.info {
            return Ok(Since(None));
        }
        world::ticks()
            .map(|ticks| Since(Some(ticks)))
            .map_err(|errno| Error::os(None, "read the clock", errno.into()))
    }
}

impl Step {
    #[inline]
    pub(crate) fn pin(pid: Pid) -> Result<Step> {
        let world = world()?;
        if world.info {
            return open_pidfd(pid, TRIED).map(|fd| Step { pid, pin: Pin::Pidfd(fd) });
        }
        world.need_proc(pid, TRIED)?;
        let file = procfs::open_stat(pid).map_err(|errno| procfs::refused(pid, TRIED, errno))?;
        let stat = read(pid, &file)?;
        Ok(Step { pid, pin: Pin::Stat { file, stat } })
    }

    #[inline]
    pub(crate) fn pid(&self) -> Pid {
        self.pid
    }

    /// The parent's PID, as it was at some moment after the step was pinned or last asked.
    #[inline]
    pub(crate) fn ppid(&self) -> Result<Option<Pid>> {
        match &self.pin {
            Pin::Pidfd(fd) => ppid_of_pidfd(fd.as_fd(), self.pid, TRIED),
            Pin::Stat { stat, .. } => Ok(Pid::new(stat.ppid)),
        }
    }

    /// Lets `ppid` have news.
    #[cold]
    pub(crate) fn refresh(&mut self) -> Result<()> {
        if let Pin::Stat { file, stat } = &mut self.pin {
            *stat = read(self.pid, file)?;
        }
        Ok(())
    }

    /// Whether `parent`, pinned after `self.ppid()` named its PID, is the parent itself and no later bearer of that
    /// PID. If not, `ppid` has news.
    ///
    /// With pidfds, by reading the parent's PID again: a process that is not an ancestor cannot become one, so whoever
    /// has the PID now and had it at the pinning is the parent.
    ///
    /// With stat that costs a second line, so the clock decides first: a process that had started before the walk had
    /// its PID all the time since, and that is when `ppid` was read. Only for the youngest is the line read again.
    #[inline]
    pub(crate) fn is_child_of(&mut self, parent: &Step, since: Since) -> Result<bool> {
        match (&self.pin, &parent.pin) {
            (Pin::Stat { .. }, Pin::Stat { stat: parent, .. }) if Some(parent.starttime) < since.0 => {
                Ok(true)
            }
            (Pin::Stat { .. }, _) => {
                self.refresh()?;
                Ok(self.ppid()? == Some(parent.pid))
            }
            (Pin::Pidfd(fd), _) => Ok(ppid_of_pidfd(fd.as_fd(), self.pid, TRIED)? == Some(parent.pid)),
        }
    }
}

#[inline]
fn read(pid: Pid, file: &OwnedFd) -> Result<ProcStat> {
    let mut buffer: StatBuffer = [0; 1280];
    let (stat, _) =
        procfs::read_stat(file, &mut buffer).map_err(|errno| procfs::refused(pid, TRIED, errno))?;
    if stat.is_thread() { Err(Error::thread(pid, TRIED, thread::owner_of(pid))) } else { Ok(stat) }
}

/// pidfd_open, with the second look that its errors need (trap 9): a thread id is ENOENT or EINVAL, and so, for a
/// moment, is a process that is about to end.
#[inline]
pub(super) fn open_pidfd(pid: Pid, tried: &'static str) -> Result<OwnedFd> {
    match syscall::pidfd_open(pid, 0) {
        Ok(fd) => Ok(fd),
        Err(errno) => look_again(pid, tried, errno),
    }
}

#[cold]
fn look_again(pid: Pid, tried: &'static str, mut errno: Errno) -> Result<OwnedFd> {
    for _ in 0..3 {
        match errno {
            Errno::ESRCH => return Err(Error::gone(pid, tried)),
            Errno::ENOENT | Errno::EINVAL => {
                if let Some(owner) = thread::owner_of(pid) {
                    return Err(Error::thread(pid, tried, Some(owner)));
                }
            }
            errno => return Err(Error::os(pid, tried, errno.into())),
        }
        match syscall::pidfd_open(pid, 0) {
            Ok(fd) => return Ok(fd),
            Err(again) => errno = again,
        }
    }
    // What is there all the time, and is never a process, is a thread that /proc hides (hidepid).
    match nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid.raw()), None) {
        Err(Errno::ESRCH) => Err(Error::gone(pid, tried)),
        _ => Err(Error::thread(pid, tried, None)),
    }
}

/// The PID of the parent of a pinned process.
#[inline]
pub(super) fn ppid_of_pidfd(fd: BorrowedFd<'_>, pid: Pid, tried: &'static str) -> Result<Option<Pid>> {
    match syscall::pidfd_info(fd, PidfdInfo::PID) {
        Ok(info) => Ok(Pid::new(info.ppid)),
        Err(errno) => ask_again(fd, pid, tried, errno),
    }
}

/// ESRCH means "reaped" only together with POLLHUP (pidfd_poll; since 6.9, before there was an ioctl to ask). Alone it
/// is also said for a moment while another thread executes a program, and, by 6.13 to early 6.15, of every process
/// without a visible parent.
#[cold]
fn ask_again(fd: BorrowedFd<'_>, pid: Pid, tried: &'static str, mut errno: Errno) -> Result<Option<Pid>> {
    let failed = |errno: Errno| Error::os(pid, tried, errno.into());
    for _ in 0..RETRIES {
        match errno {
            Errno::ESRCH if hung_up(fd).map_err(failed)? => return Err(Error::gone(pid, tried)),
            Errno::ESRCH => {}
            Errno::EREMOTE => return Err(Error::foreign(pid, tried, UNSEEN)),
            errno => return Err(failed(errno)),
        }
        match syscall::pidfd_info(fd, PidfdInfo::PID) {
            Ok(info) => return Ok(Pid::new(info.ppid)),
            Err(again) => errno = again,
        }
    }
    match syscall::pidfd_send_signal(fd, 0) {
        Ok(()) | Err(Errno::EPERM) => Ok(None),
        Err(Errno::ESRCH) => Err(Error::gone(pid, tried)),
        Err(Errno::EINVAL) => Err(Error::foreign(pid, tried, UNSEEN)),
        Err(errno) => Err(failed(errno)),
    }
}

const RETRIES: usize = 16;

/// Why a handle from before a fork into another PID namespace is of no use there.
pub(super) const UNSEEN: &str = "it is in a PID namespace that cannot be seen from here";

pub(super) fn hung_up(fd: BorrowedFd<'_>) -> Result<bool, Errno> {
    let mut fds = [PollFd::new(fd, PollFlags::empty())];
    match poll(&mut fds, PollTimeout::ZERO) {
        Ok(_) => Ok(fds[0].revents().is_some_and(|events| events.contains(PollFlags::POLLHUP))),
        Err(Errno::EINTR) => Ok(false),
        Err(errno) => Err(errno),
    }
}
