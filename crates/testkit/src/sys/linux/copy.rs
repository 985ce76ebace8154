//! Forked copies of the test process itself: cheap, and bound to system calls alone.
//!
//! A test process has many threads; a copy has one, and inherits whatever locks the others held. So from the fork to
//! its end a copy allocates nothing, locks nothing and calls nothing but system calls. It closes every descriptor
//! but its own few, or it would hold the lifelines of other families open.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, RawFd};

use nix::errno::Errno;

use super::{raw_fork, raw_fork_as};
use crate::sys::{Fork, exit_now, own_pid};

/// Forks a child that reads `lifeline` to its end and exits with code 0.
pub(crate) fn spawn_idle(lifeline: BorrowedFd<'_>) -> io::Result<i32> {
    match raw_fork()? {
        Fork::Parent(pid) => Ok(pid),
        Fork::Child => idle(lifeline.as_raw_fd()),
    }
}

/// The same with a PID of the caller's choice; `EEXIST` when it is taken.
pub(crate) fn spawn_idle_as(pid: i32, lifeline: BorrowedFd<'_>) -> io::Result<i32> {
    match raw_fork_as(pid)? {
        Fork::Parent(pid) => Ok(pid),
        Fork::Child => idle(lifeline.as_raw_fd()),
    }
}

/// Forks a child that starts a child, `depth` deep. Each writes its PID (4 bytes) to `report` before it starts the
/// next, reads `lifeline` to its end, reaps its child and exits.
pub(crate) fn spawn_chain(depth: usize, lifeline: BorrowedFd<'_>, report: BorrowedFd<'_>) -> io::Result<i32> {
    match raw_fork()? {
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

/// The first copy of a chain. All links share its memory, and each has a stack of its own in it: were each a copy of the
/// one before, the kernel would remember for every page who had it from whom, and a chain of 3,000 take minutes.
fn chain(depth: usize, lifeline: RawFd, report: RawFd) -> ! {
    redirect(lifeline, 0);
    redirect(report, 1);
    close_from(2);
    let protection = libc::PROT_READ | libc::PROT_WRITE;
    let kind = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE | libc::MAP_STACK;
    // SAFETY: a new mapping, at an address of the kernel's choice
    let stacks = unsafe { libc::mmap(std::ptr::null_mut(), depth * STACK, protection, kind, -1, 0) };
    if stacks == libc::MAP_FAILED {
        // The reader sees the end of the reports too early, and says so
        exit_now(1);
    }
    let first = Link { left: depth, stacks: stacks.cast() };
    link((&raw const first).cast_mut().cast());
    exit_now(0)
}

const STACK: usize = 32 << 10;

/// What a link is told: how many processes the chain still needs with it, and where their stacks are.
#[derive(Clone, Copy)]
struct Link {
    left: usize,
    stacks: *mut u8,
}

extern "C" fn link(told: *mut libc::c_void) -> libc::c_int {
    // SAFETY: the link above keeps this in its frame, and the memory outlives that link's end
    let Link { left, stacks } = unsafe { *told.cast::<Link>() };
    let pid = own_pid();
    // SAFETY: writes four bytes of a live i32
    unsafe { libc::syscall(libc::SYS_write, 1, &raw const pid, size_of::<i32>()) };
    let next = Link { left: left - 1, stacks };
    let mut below = -1;
    if next.left > 0 {
        // SAFETY: within the mapping, which has a stack for each but the first link; stacks grow downwards
        let top = unsafe { stacks.add(next.left * STACK) };
        let flags = libc::CLONE_VM | libc::SIGCHLD;
        // SAFETY: nobody else uses this stack, and `link` makes nothing but system calls
        below = unsafe { libc::clone(link, top.cast(), flags, (&raw const next).cast_mut().cast()) };
    }
    // SAFETY: closes a descriptor that nothing else in this process uses
    unsafe { libc::syscall(libc::SYS_close, 1) };
    read_to_end();
    if below > 0 {
        // SAFETY: a null status is allowed
        unsafe { libc::syscall(libc::SYS_wait4, below, std::ptr::null_mut::<libc::c_int>(), 0, 0) };
    }
    exit_now(0)
}

fn redirect(from: RawFd, to: RawFd) {
    // SAFETY: this copy owns no Rust object that is tied to `to` and will ever be used again
    unsafe { libc::dup2(from, to) };
}

fn close_from(first: libc::c_uint) {
    // SAFETY: as above, for every descriptor from `first` on; the call reads no memory
    unsafe { libc::syscall(libc::SYS_close_range, first, libc::c_uint::MAX, 0) };
}

fn read_to_end() {
    let mut byte = 0_u8;
    loop {
        // SAFETY: `byte` is one writable byte
        let outcome = unsafe { libc::syscall(libc::SYS_read, 0, &raw mut byte, 1) };
        if outcome == 0 || (outcome < 0 && Errno::last() != Errno::EINTR) {
            return;
        }
    }
}
