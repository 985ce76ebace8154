//! How a process ended, from whichever part of the kernel still knows.

use std::os::fd::{AsFd, AsRawFd};

use crate::parse::proc_stat;
use crate::pid::Pid;
use crate::state::ExitStatus;
use crate::sys::backend::handle::{Handle, Kind};
use crate::sys::backend::procfs::{ProcPath, StatBuffer};
use crate::sys::backend::syscall::{self, PidfdInfo};
use crate::sys::backend::world::world;
use crate::sys::posix::from_wait;

impl Handle {
    /// The status of a process that has ended. Reaps nothing. `Unknown` where nobody tells, and for one that runs.
    ///
    /// Asked in this order: the pidfd, which keeps the status of a reaped process (Linux 6.15) for anybody; waitid(2),
    /// for a child of ours; /proc/PID/stat, for a zombie that we may ptrace; and the pidfd again, for one that was
    /// reaped meanwhile.
    pub(crate) fn exit_status(&self) -> ExitStatus {
        let parent = match self.reaped_status() {
            Reaped::Status(status) => return status,
            Reaped::NotYet { parent } => parent,
        };
        if parent.is_none_or(|parent| world().is_ok_and(|here| here.me == parent)) {
            if let Some(status) = self.status_of_child() {
                return status;
            }
        }
        if let Some(status) = self.status_of_zombie() {
            return status;
        }
        match self.reaped_status() {
            Reaped::Status(status) => status,
            Reaped::NotYet { .. } => ExitStatus::Unknown,
        }
    }

    fn reaped_status(&self) -> Reaped {
        if self.kind() != Kind::Pidfd || !self.world().info {
            return Reaped::NotYet { parent: None };
        }
        match syscall::pidfd_info(self.as_fd(), PidfdInfo::PID | PidfdInfo::EXIT) {
            Ok(info) if info.mask & PidfdInfo::EXIT != 0 => Reaped::Status(from_wait(info.exit_code)),
            Ok(info) => Reaped::NotYet { parent: Pid::new(info.ppid) },
            Err(_) => Reaped::Status(ExitStatus::Unknown),
        }
    }

    /// Leaves the child for its parent's own wait (WNOWAIT).
    fn status_of_child(&self) -> Option<ExitStatus> {
        let ended = match self.kind() {
            Kind::Pidfd => syscall::waitid(libc::P_PIDFD, self.as_fd().as_raw_fd() as libc::id_t),
            Kind::Directory => syscall::waitid(libc::P_PID, self.pid().get()),
        };
        let status = match ended {
            Ok(Some((libc::CLD_EXITED, code))) => ExitStatus::Code(code),
            Ok(Some((libc::CLD_KILLED | libc::CLD_DUMPED, signal))) => ExitStatus::Signal(signal),
            // Not our child, or it runs.
            _ => return None,
        };
        // By PID, it is this process's as long as it is not reaped after the asking.
        match self.kind() {
            Kind::Directory if self.is_reaped().unwrap_or(true) => None,
            _ => Some(status),
        }
    }

    /// Field 52 of stat is 0 for whoever may not ptrace the process. The link ns/user is readable under the very same
    /// condition, and for zombies too.
    fn status_of_zombie(&self) -> Option<ExitStatus> {
        let mut buffer: StatBuffer = [0; 1280];
        let link = match self.kind() {
            Kind::Pidfd => nix::fcntl::readlink(ProcPath::new(self.pid(), "/ns/user").as_c_str()),
            Kind::Directory => nix::fcntl::readlinkat(self.as_fd(), c"ns/user"),
        };
        link.ok()?;
        let (stat, line) = self.stat_line("read the status of process", &mut buffer).ok()?;
        if !stat.is_zombie() {
            return None;
        }
        proc_stat::exit_code(line).map(from_wait)
    }
}

enum Reaped {
    Status(ExitStatus),
    /// Running, a zombie, or reaped where nobody can know; and its parent, where that is known.
    NotYet {
        parent: Option<Pid>,
    },
}
