//! Killing all that is below this process, which is a subreaper and has one thread.

use std::os::fd::OwnedFd;

use nix::errno::Errno;
use nix::fcntl::{OFlag, open};
use nix::sys::signal::{Signal, kill};
use nix::sys::stat::Mode;
use nix::unistd::read;

use crate::parse;
use crate::sys::backend::syscall;

/// Kills every child, and hands over those that it finds ended, reaped.
///
/// Called again after each SIGCHLD, it reaches a fixpoint. An orphan comes to us without a signal when its parent was no
/// child of ours; but then one above that was, and is alive: it has been killed, and its SIGCHLD is still to come. Who has
/// been killed forks no more, so a fork bomb loses.
///
/// No other process is hit, whatever /proc shows: waitpid(2) answers for children alone, and the PID of one is not reused
/// before it is reaped, which nobody does but this thread.
pub(super) fn kill_children(mut ended: impl FnMut(i32, i32)) {
    let mut kill_child = |pid: i32| match syscall::reap(pid, libc::__WALL) {
        Ok(Some((pid, status))) => {
            ended(pid, status);
            true
        }
        Ok(None) => {
            // EPERM is a set-uid program's, which ends when it likes to.
            let _ = kill(nix::unistd::Pid::from_raw(pid), Signal::SIGKILL);
            true
        }
        Err(_) => false,
    };
    let mut all_ours = true;
    let listed = each_listed(|pid| all_ours &= kill_child(pid));
    // A kernel without the file, no /proc, or one of another PID namespace: so number by number.
    if listed.is_err() || !all_ours {
        for pid in 1..=PID_MAX_LIMIT {
            kill_child(pid);
        }
    }
}

/// The most that kernel.pid_max can be set to (proc(5)). Asking for each takes seconds.
const PID_MAX_LIMIT: i32 = if cfg!(target_pointer_width = "64") { 4 << 20 } else { 32768 };

/// Visits each PID of the kernel's list of this thread's children. It can skip one when the one before is reaped meanwhile;
/// but then a SIGCHLD of that one is waiting, and with it another reading.
pub(super) fn each_listed(mut each: impl FnMut(i32)) -> Result<(), Errno> {
    let file: OwnedFd =
        open(c"/proc/thread-self/children", OFlag::O_RDONLY | OFlag::O_CLOEXEC, Mode::empty())?;
    let mut buffer = [0; 1024];
    let mut kept = 0;
    loop {
        let length = match read(&file, &mut buffer[kept..]) {
            Ok(0) => return Ok(()),
            Ok(length) => kept + length,
            Err(Errno::EINTR) => continue,
            Err(errno) => return Err(errno),
        };
        // A piece can end within a number.
        let whole = buffer[..length].iter().rposition(|&byte| byte == b' ').map_or(0, |space| space + 1);
        parse::children::parse(&buffer[..whole], |pid| each(pid.raw())).ok_or(Errno::EIO)?;
        buffer.copy_within(whole..length, 0);
        kept = length - whole;
    }
}
