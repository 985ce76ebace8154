//! What the benchmarks share: the judge, the floor and the peers.

#[cfg(target_os = "linux")] // the system calls are Linux's
pub(crate) mod floor;
pub(crate) mod judge;
pub(crate) mod peers;

use pidigree::Pid;

/// A number that the kernel has just given to a process.
pub(crate) fn pid(number: u32) -> Pid {
    Pid::new(number).expect("the kernel numbers processes from 1 to i32::MAX")
}
