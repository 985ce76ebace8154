//! Linux: /proc, through the `procfs` crate.

#[path = "linux/signals.rs"]
mod signals;

use std::io::Read;

use pidigree::Pid;

use super::Details;

pub(crate) use signals::Signals;

/// `PF_KTHREAD` in `include/linux/sched.h`; field 9 of proc_pid_stat(5).
const KERNEL_THREAD: u32 = 0x0020_0000;

/// `PROC_PID_INIT_INO` in `include/linux/proc_ns.h`.
const INITIAL_PID_NAMESPACE: u64 = 0xEFFF_FFFC;

pub(crate) fn details(pid: Pid) -> Details {
    let process = i32::try_from(pid.get()).ok().and_then(|raw| procfs::process::Process::new(raw).ok());
    // Hidden, or gone
    let Some(process) = process else {
        return Details::default();
    };
    let stat = process.stat().ok();
    // The owner of the folder is root where the process is not dumpable; but the status is text, and a name need not be.
    let uid = process.status().map(|status| status.euid).or_else(|_| process.uid());
    Details {
        uid: uid.ok(),
        arguments: arguments(&process),
        kernel: stat.as_ref().is_some_and(|stat| stat.flags & KERNEL_THREAD != 0),
        name: stat.map(|stat| stat.comm),
    }
}

/// The arguments, or else the short name in brackets, and nothing more: cheaper than `details`.
pub(crate) fn command(pid: Pid) -> Option<String> {
    let process = i32::try_from(pid.get()).ok().and_then(|raw| procfs::process::Process::new(raw).ok())?;
    let name = || process.stat().ok().map(|stat| format!("[{}]", stat.comm));
    arguments(&process).or_else(name)
}

/// As bytes, because arguments need not be text.
fn arguments(process: &procfs::process::Process) -> Option<String> {
    let mut bytes = Vec::new();
    process.open_relative("cmdline").ok()?.read_to_end(&mut bytes).ok()?;
    while bytes.last() == Some(&0) {
        bytes.pop();
    }
    for byte in &mut bytes {
        if *byte == 0 {
            *byte = b' ';
        }
    }
    (!bytes.is_empty()).then(|| String::from_utf8_lossy(&bytes).into_owned())
}

pub(crate) fn namespace(inode: u64) -> String {
    let kind = if inode == INITIAL_PID_NAMESPACE {
        "the machine's own"
    } else {
        "a container's: processes outside of it cannot be seen"
    };
    format!("{inode} ({kind})")
}
