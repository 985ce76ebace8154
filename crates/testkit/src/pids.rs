//! A PID of one's choice: reuse on command.

use std::fs::OpenOptions;
use std::io::{self, Write};
use std::os::fd::{AsFd, OwnedFd};

use nix::errno::Errno;

use crate::sys;

/// A child with a PID that the test chose. It does nothing until it is released or killed.
///
/// Dropping this kills and reaps it.
#[derive(Debug)]
pub struct ForcedChild {
    pid: i32,
    lifeline: Option<OwnedFd>,
    reaped: bool,
}

/// Forks a child of this process with exactly this PID.
///
/// This asks clone3(2) for the PID, which needs `CAP_CHECKPOINT_RESTORE` or `CAP_SYS_ADMIN` over the PID namespace, and
/// else writes `/proc/sys/kernel/ns_last_pid` and forks, which other forks can spoil: use it in a PID namespace of one's
/// own ([`stage`](crate::stage)). The child is a bare copy of this process that makes nothing but system calls.
///
/// # Errors
///
/// `EEXIST` when a process, a zombie, a process group or a session still has that PID; `EPERM` without the privilege;
/// [`Unsupported`](io::ErrorKind::Unsupported) elsewhere than on Linux.
pub fn fork_with_pid(pid: u32) -> io::Result<ForcedChild> {
    let wanted = i32::try_from(pid).map_err(|_| io::Error::from(Errno::EINVAL))?;
    let (read, write) = sys::pipe()?;
    let forced = match sys::spawn_idle_as(wanted, read.as_fd()) {
        Err(error) if matches!(error.raw_os_error(), Some(sys::ENOSYS | sys::EPERM)) => {
            spawn_after(wanted, read.as_fd())
        }
        outcome => outcome,
    };
    Ok(ForcedChild { pid: forced?, lifeline: Some(write), reaped: false })
}

impl ForcedChild {
    /// Returns the PID that was asked for.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.pid.unsigned_abs()
    }

    /// Kills the child and reaps it: its PID is free when this returns.
    pub fn kill_and_reap(mut self) {
        self.finish();
    }

    /// Has the child exit with code 0, and waits until it is a zombie: its PID stays taken.
    pub fn exit_without_reap(&mut self) {
        self.lifeline = None;
        if !self.reaped {
            sys::wait_zombie(self.pid).expect("an unreaped child can be waited for");
        }
    }

    fn finish(&mut self) {
        if !self.reaped {
            self.reaped = true;
            // Unreaped and ours, so this PID is still this child
            let _ = sys::kill(self.pid, sys::SIGKILL);
            let _ = sys::reap(self.pid);
        }
    }
}

impl Drop for ForcedChild {
    fn drop(&mut self) {
        self.finish();
    }
}

/// Forks until the child has the PID wanted; each attempt sets the kernel's last PID to the one before.
fn spawn_after(wanted: i32, lifeline: std::os::fd::BorrowedFd<'_>) -> io::Result<i32> {
    for _ in 0..64 {
        let mut last = OpenOptions::new().write(true).open("/proc/sys/kernel/ns_last_pid")?;
        last.write_all((wanted - 1).to_string().as_bytes())?;
        let pid = sys::spawn_idle(lifeline)?;
        if pid == wanted {
            return Ok(pid);
        }
        let _ = sys::kill(pid, sys::SIGKILL);
        sys::reap(pid)?;
    }
    Err(Errno::EEXIST.into())
}
