//! What the benchmarks share: the judge, the floor and the peers.

#[cfg(target_os = "linux")] // the system calls are Linux's
pub(crate) mod floor;
pub(crate) mod judge;
pub(crate) mod peers;

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use pidigree::Pid;

/// A number that the kernel has just given to a process.
pub(crate) fn pid(number: u32) -> Pid {
    Pid::new(number).expect("the kernel numbers processes from 1 to i32::MAX")
}

/// Lets so many descriptors be open, or what the hard limit allows; returns how many.
pub(crate) fn descriptors(enough: usize) -> usize {
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).expect("a limit");
    let enough = enough as u64;
    // More than the hard limit takes a privilege.
    if hard < enough && setrlimit(Resource::RLIMIT_NOFILE, enough, enough).is_ok() {
        return enough as usize;
    }
    let limit = hard.min(enough);
    setrlimit(Resource::RLIMIT_NOFILE, limit, hard).expect("the soft limit may be raised");
    limit as usize
}
