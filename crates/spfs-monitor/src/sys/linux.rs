//! Linux.

use nix::libc;
use pidigree::Process;

/// `PROC_PID_INIT_INO` in `include/linux/proc_ns.h`: the PID namespace that every other is in.
const FIRST_PID_NAMESPACE: u64 = 0xEFFF_FFFC;

/// kthreadd, the parent of all threads of the kernel. In the first PID namespace nobody else ever has this number; in others the
/// kernel's threads are not to be seen.
const KTHREADD: u32 = 2;

pub(crate) fn is_the_kernels(process: &Process) -> pidigree::Result<bool> {
    if process.identity().pid_namespace() != Some(FIRST_PID_NAMESPACE) {
        return Ok(false);
    }
    let parent = process.parent()?;
    let number = |process: &Process| process.pid().get() == KTHREADD;
    Ok(number(process) || parent.as_ref().is_some_and(number))
}

/// close_range(2), of Linux 5.9; returns whether it could.
pub(crate) fn close_from_3() -> bool {
    // SAFETY: nothing in this process owns a descriptor yet but the standard streams.
    let closed = unsafe { libc::syscall(libc::SYS_close_range, 3, u32::MAX, 0) };
    closed == 0
}
