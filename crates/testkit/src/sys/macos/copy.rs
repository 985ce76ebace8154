//! Forked copies of the test process itself: cheap, and bound to what is safe after a fork.
//!
//! A test process has many threads; a copy has one, and inherits whatever locks the others held. So from the fork to
//! its end a copy allocates nothing, locks nothing and calls only what sigaction(2) lists as safe. It closes every
//! descriptor but its own few, or it would hold the lifelines of other families open.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, RawFd};

use nix::errno::Errno;

use super::{fork, none};
use crate::sys::{Fork, exit_now, own_pid};

/// Forks a child that reads `lifeline` to its end and exits with code 0.
pub(crate) fn spawn_idle(lifeline: BorrowedFd<'_>) -> io::Result<i32> {
    match fork()? {
        Fork::Parent(pid) => Ok(pid),
        Fork::Child => idle(lifeline.as_raw_fd()),
    }
}

pub(crate) fn spawn_idle_as(_pid: i32, _lifeline: BorrowedFd<'_>) -> io::Result<i32> {
    none("PIDs of one's choice")
}

/// Forks a child that starts a child, `depth` deep. Each writes its PID (4 bytes) to `report` before it starts the
/// next, reads `lifeline` to its end, reaps its child and exits.
pub(crate) fn spawn_chain(depth: usize, lifeline: BorrowedFd<'_>, report: BorrowedFd<'_>) -> io::Result<i32> {
    match fork()? {
        Fork::Parent(pid) => Ok(pid),
        Fork::Child => chain(depth, lifeline.as_raw_fd(), report.as_raw_fd()),
    }
}

fn idle(lifeline: RawFd) -> ! {
    redirect(lifeline, 0);
    close_from(1);
    read_to_end();
    exit_now(0)
}

fn chain(depth: usize, lifeline: RawFd, report: RawFd) -> ! {
    redirect(lifeline, 0);
    redirect(report, 1);
    close_from(2);
    let mut below = None;
    for left in (0..depth).rev() {
        let pid = own_pid();
        // SAFETY: writes four bytes of a live i32
        unsafe { libc::write(1, (&raw const pid).cast(), size_of::<i32>()) };
        if left == 0 {
            break;
        }
        match fork() {
            // Goes on as the next link
            Ok(Fork::Child) => {}
            Ok(Fork::Parent(pid)) => {
                below = Some(pid);
                break;
            }
            // The reader sees the end of the reports too early, and says so
            Err(_) => break,
        }
    }
    // SAFETY: closes a descriptor that nothing else in this process uses
    unsafe { libc::close(1) };
    read_to_end();
    if let Some(pid) = below {
        // SAFETY: a null status is allowed
        unsafe { libc::waitpid(pid, std::ptr::null_mut(), 0) };
    }
    exit_now(0)
}

fn redirect(from: RawFd, to: RawFd) {
    // SAFETY: this copy owns no Rust object that is tied to `to` and will ever be used again
    unsafe { libc::dup2(from, to) };
}

fn close_from(first: RawFd) {
    // SAFETY: no precondition
    let count = unsafe { libc::getdtablesize() };
    for fd in first..count {
        // SAFETY: as above, for every descriptor from `first` on
        unsafe { libc::close(fd) };
    }
}

fn read_to_end() {
    let mut byte = 0_u8;
    loop {
        // SAFETY: `byte` is one writable byte
        let outcome = unsafe { libc::read(0, (&raw mut byte).cast(), 1) };
        if outcome == 0 || (outcome < 0 && Errno::last() != Errno::EINTR) {
            return;
        }
    }
}
