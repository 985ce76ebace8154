//! macOS.

use pidigree::Process;

/// The kernel's threads have no PIDs.
pub(crate) fn is_the_kernels(_process: &Process) -> pidigree::Result<bool> {
    Ok(false)
}

/// There is no call that closes a range.
pub(crate) fn close_from_3() -> bool {
    false
}
