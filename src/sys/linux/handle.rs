//! A pinned process: a pidfd, or a descriptor of /proc/PID where there are none.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use crate::error::{Error, Result};
use crate::identity::{Identity, StartTime};
use crate::parse::{keyed, proc_stat::ProcStat};
use crate::pid::Pid;
use crate::state::State;
use crate::sys::backend::procfs::{self, StatBuffer};
use crate::sys::backend::syscall;
use crate::sys::backend::world::{self, World, world};
use crate::sys::backend::{step, thread};

/// One process, and never another. Its answers are of that process, or say that it is gone.
#[derive(Debug)]
pub(crate) struct Handle {
    pid: Pid,
    fd: OwnedFd,
    kind: Kind,
    world: &'static World,
    /// Known from the start where it is all there is to tell processes apart by.
    start: Option<Start>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Pidfd,
    /// A descriptor of /proc/PID. It has no event for the end.
    Directory,
}

/// A start time, and whether its tick had passed while the process was alive.
#[derive(Clone, Copy, Debug)]
struct Start {
    time: StartTime,
    settled: bool,
}

const OPEN: &str = "open process";

impl Handle {
    pub(crate) fn open(pid: Pid) -> Result<Handle> {
        let world = world()?;
        let mut handle = if world.pidfd {
            let fd = step::open_pidfd(pid, OPEN)?;
            Handle { pid, fd, kind: Kind::Pidfd, world, start: None }
        } else {
            world.need_proc(pid, OPEN)?;
            let fd = procfs::open_directory(pid).map_err(|errno| procfs::refused(pid, OPEN, errno))?;
            Handle { pid, fd, kind: Kind::Directory, world, start: None }
        };
        if !world.pidfs {
            handle.start = handle.read_start()?;
        }
        Ok(handle)
    }

    /// For a pidfd that the kernel made for us, and the PID that it says it is of.
    pub(super) fn of_pidfd(pid: Pid, fd: OwnedFd) -> Result<Handle> {
        let world = world()?;
        let mut handle = Handle { pid, fd, kind: Kind::Pidfd, world, start: None };
        if handle.is_reaped()? {
            return Err(Error::gone(pid, OPEN));
        }
        if !world.pidfs {
            handle.start = handle.read_start()?;
        }
        Ok(handle)
    }

    pub(crate) fn pid(&self) -> Pid {
        self.pid
    }

    pub(super) fn world(&self) -> &'static World {
        self.world
    }

    pub(super) fn kind(&self) -> Kind {
        self.kind
    }

    /// Which process it is. Without `start`, leaves the start time out where it would take another look at /proc.
    pub(crate) fn identity(&self, start: bool) -> Identity {
        let start = match self.start {
            None if start => self.read_start().ok().flatten(),
            known => known,
        };
        Identity {
            pid: self.pid,
            unique: self.unique_id(),
            start: start.map(|start| start.time),
            settled: start.is_some_and(|start| start.settled),
            pid_namespace: self.world.pid_namespace,
            boot: self.world.boot,
        }
    }

    /// The number of the process's inode in pidfs, which no other process of this boot gets (traps 6, 7).
    fn unique_id(&self) -> Option<u64> {
        if self.kind != Kind::Pidfd || !self.world.pidfs {
            return None;
        }
        nix::sys::stat::fstat(&self.fd).ok().map(|stat| wide(stat.st_ino))
    }

    /// An error only if the process is known to be gone, or the number not to be a process.
    fn read_start(&self) -> Result<Option<Start>> {
        let Ok(ticks) = world::ticks() else {
            return Ok(None);
        };
        match self.stat("identify process") {
            Ok(stat) => Ok(self.world.time_offset.map(|offset| Start {
                time: StartTime { ticks: stat.starttime, offset },
                settled: stat.starttime < ticks,
            })),
            Err(error) if error.is_gone() || error.is_thread() || error.is_limit() => Err(error),
            // With a directory there is nothing else; with a pidfd the process stays pinned without a start time.
            Err(error) if self.kind == Kind::Directory => Err(error),
            Err(_) => Ok(None),
        }
    }

    /// What /proc says of this process.
    fn stat(&self, tried: &'static str) -> Result<ProcStat> {
        self.stat_line(tried, &mut [0; 1280]).map(|(stat, _)| stat)
    }

    /// The same, and the line, proven to be of this process.
    pub(super) fn stat_line<'b>(
        &self,
        tried: &'static str,
        buffer: &'b mut StatBuffer,
    ) -> Result<(ProcStat, &'b [u8])> {
        self.world.need_proc(self.pid, tried)?;
        let mut read = || {
            let file = match self.kind {
                Kind::Pidfd => procfs::open_stat(self.pid),
                Kind::Directory => procfs::open_stat_at(&self.fd),
            };
            file.and_then(|file| procfs::read_stat(&file, buffer))
        };
        // Of the reaped it is ESRCH, but ENOENT for those that are reaped under the look-up itself.
        let read = match read() {
            Err(Errno::ENOENT) if self.kind == Kind::Directory => read(),
            read => read,
        };
        // By the PID, it is ours as long as the process is not reaped after the reading.
        if self.kind == Kind::Pidfd && self.is_reaped()? {
            return Err(Error::gone(self.pid, tried));
        }
        let (stat, length) = read.map_err(|errno| match (errno, self.kind) {
            (Errno::ESRCH, Kind::Directory) => Error::gone(self.pid, tried),
            // Pinned, and not reaped: proc_pid_permission hides it.
            (Errno::ENOENT | Errno::ESRCH, _) => {
                Error::denied(self.pid, tried, "/proc is mounted so that this user cannot see it (hidepid)")
            }
            (errno, _) => procfs::refused(self.pid, tried, errno),
        })?;
        if stat.is_thread() {
            return Err(Error::thread(self.pid, tried, thread::owner_of(self.pid)));
        }
        Ok((stat, &buffer[..length]))
    }

    /// The PID of the parent at this moment; `None` at the top of what can be seen from here.
    pub(crate) fn ppid(&self) -> Result<Option<Pid>> {
        const TRIED: &str = "read the parent of process";
        if self.kind == Kind::Pidfd && self.world.info {
            return step::ppid_of_pidfd(self.fd.as_fd(), self.pid, TRIED);
        }
        self.stat(TRIED).map(|stat| Pid::new(stat.ppid))
    }

    pub(crate) fn state(&self) -> Result<State> {
        match self.kind {
            Kind::Pidfd if !self.poll(PollTimeout::ZERO)? => Ok(State::Running),
            Kind::Pidfd if self.is_reaped()? => Ok(State::Gone),
            Kind::Pidfd => Ok(State::Zombie),
            Kind::Directory => match self.stat("look at process") {
                Ok(stat) if stat.is_zombie() => Ok(State::Zombie),
                Ok(_) => Ok(State::Running),
                Err(error) if error.is_gone() => Ok(State::Gone),
                Err(error) => Err(error),
            },
        }
    }

    /// Whether nothing of the process is left, so that its PID can be reused.
    pub(crate) fn is_reaped(&self) -> Result<bool> {
        const TRIED: &str = "look at process";
        if self.kind == Kind::Directory {
            return Ok(self.state()? == State::Gone);
        }
        if self.world.info {
            return match step::ppid_of_pidfd(self.fd.as_fd(), self.pid, TRIED) {
                Ok(_) => Ok(false),
                Err(error) if error.is_gone() => Ok(true),
                Err(error) => Err(error),
            };
        }
        if !self.world.signal {
            return self.fdinfo_says_reaped();
        }
        match syscall::pidfd_send_signal(self.fd.as_fd(), 0) {
            Ok(()) | Err(Errno::EPERM) => Ok(false),
            Err(Errno::ESRCH) => Ok(true),
            Err(Errno::EINVAL) => Err(Error::foreign(self.pid, TRIED, step::UNSEEN)),
            Err(errno) => Err(Error::os(self.pid, TRIED, errno.into())),
        }
    }

    /// `Pid: -1`, since Linux 5.3.
    fn fdinfo_says_reaped(&self) -> Result<bool> {
        use std::os::fd::AsRawFd;
        let path = format!("/proc/thread-self/fdinfo/{}\0", self.fd.as_raw_fd());
        let path = std::ffi::CStr::from_bytes_with_nul(path.as_bytes()).unwrap_or(c"");
        procfs::read_all(path)
            .map(|text| keyed::number(&text, "Pid:") == Some(-1))
            .map_err(|errno| Error::os(self.pid, "look at process", errno.into()))
    }

    /// Waits for the end of all its threads; `false` if the time was up before.
    pub(crate) fn wait(&self, timeout: Option<Duration>) -> Result<bool> {
        let deadline = timeout.and_then(|timeout| Instant::now().checked_add(timeout));
        // Only for a directory, which has no event: look now and then, soon first.
        let mut pause = Duration::from_millis(1);
        loop {
            let left = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
            match self.kind {
                Kind::Pidfd if self.poll(poll_timeout(left))? => return Ok(true),
                Kind::Pidfd => {}
                Kind::Directory if self.state()? != State::Running => return Ok(true),
                Kind::Directory => {
                    let nap = left.map_or(pause, |left| left.min(pause));
                    pause = (pause * 2).min(Duration::from_millis(20));
                    // A signal ends it early, and that is fine.
                    let _ = poll(&mut [], poll_timeout(Some(nap)));
                }
            }
            if left == Some(Duration::ZERO) {
                return Ok(false);
            }
        }
    }

    fn poll(&self, timeout: PollTimeout) -> Result<bool> {
        let mut fds = [PollFd::new(self.fd.as_fd(), PollFlags::POLLIN)];
        match poll(&mut fds, timeout) {
            Ok(ready) => Ok(ready > 0),
            Err(Errno::EINTR) => Ok(false),
            Err(errno) => Err(Error::os(self.pid, "wait for process", errno.into())),
        }
    }

    /// Sends a signal to this process and to no other, ever.
    pub(crate) fn signal(&self, signal: i32) -> Result<()> {
        const TRIED: &str = "signal process";
        if !self.world.signal {
            return Err(Error::unsupported(
                self.pid,
                TRIED,
                "it takes pidfd_send_signal (Linux 5.1): a signal by PID could reach another process",
            ));
        }
        match syscall::pidfd_send_signal(self.fd.as_fd(), signal) {
            Ok(()) => Ok(()),
            Err(Errno::ESRCH) => Err(Error::gone(self.pid, TRIED)),
            // The number is in range: it is the PID namespace that is not.
            Err(Errno::EINVAL) => Err(Error::foreign(self.pid, TRIED, step::UNSEEN)),
            Err(errno) => Err(Error::os(self.pid, TRIED, errno.into())),
        }
    }
}

impl AsFd for Handle {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// `ino_t` has 32 bits on some systems, but none of those has `world.pidfs`.
fn wide(inode: impl Into<u64>) -> u64 {
    inode.into()
}

/// For poll(2).
fn poll_timeout(left: Option<Duration>) -> PollTimeout {
    left.map_or(PollTimeout::NONE, |left| {
        PollTimeout::try_from(milliseconds(left)).unwrap_or(PollTimeout::MAX)
    })
}

/// Rounded up, so that a wait never ends before its time; at most as long as poll(2) and epoll_wait(2) can.
pub(super) fn milliseconds(left: Duration) -> i32 {
    i32::try_from(left.as_nanos().div_ceil(1_000_000)).unwrap_or(i32::MAX)
}
