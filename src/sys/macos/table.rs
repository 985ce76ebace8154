//! One parent, one family, all of the table.

use super::handle::Handle;
use super::kernel::{self, Kernel};
use crate::error::{Error, Result};
use crate::pid::Pid;

const SCAN: &str = "scan the process table";

/// The parent's PID of whatever process has this PID now.
pub(super) fn parent_of<K: Kernel>(kernel: &K, pid: Pid) -> Result<Option<Pid>> {
    kernel::look(kernel, pid, "read the parent of process").map(|seen| seen.parent())
}

/// Visits every process with its parent, in ascending order: the table as the kernel gives it, in one call.
pub(super) fn scan<K: Kernel>(kernel: &K, mut each: impl FnMut(Pid, Option<Pid>)) -> Result<usize> {
    for info in kernel::table(kernel, SCAN)? {
        if let Some(pid) = Pid::from_raw(info.pid) {
            each(pid, Pid::from_raw(info.parent()));
        }
    }
    Ok(0)
}

/// The PIDs of the children, zombies too, in ascending order.
pub(crate) fn children_of<K: Kernel>(parent: &Handle<K>) -> Result<Vec<Pid>> {
    let mut children = Vec::new();
    scan(parent.kernel(), |pid, ppid| {
        if ppid == Some(parent.pid()) {
            children.push(pid);
        }
    })?;
    if parent.is_reaped()? {
        return Err(Error::gone(parent.pid(), "list the children of process"));
    }
    Ok(children)
}
