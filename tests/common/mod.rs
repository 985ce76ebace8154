//! What every test says often. The guards that kill and reap are `pidigree_testkit`'s.

use pidigree::Pid;

/// A number that the test knows to be one of a process or thread.
pub(crate) fn pid(number: u32) -> Pid {
    Pid::new(number).expect("a number that the kernel gave")
}
