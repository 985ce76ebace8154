//! What the other crates offer for the same questions, used the way each is fastest at them.

use sysinfo::{Pid, ProcessRefreshKind, ProcessesToUpdate, System};

/// Racy: whoever has the PID when `stat` is opened.
#[cfg(target_os = "linux")] // procfs is
pub(crate) fn procfs_parent(pid: u32) -> u32 {
    let process = procfs::process::Process::new(pid as i32).expect("a live process");
    process.stat().expect("a live process").ppid as u32
}

/// Racy: nothing ties a link to the next.
#[cfg(target_os = "linux")] // as above
pub(crate) fn procfs_is_descendant(pid: u32, root: u32) -> bool {
    climb(pid, root, procfs_parent)
}

pub(crate) fn sysinfo_parent(system: &mut System, pid: u32) -> u32 {
    let pid = Pid::from_u32(pid);
    system.refresh_processes_specifics(ProcessesToUpdate::Some(&[pid]), false, ProcessRefreshKind::nothing());
    let process = system.process(pid).expect("a live process");
    process.parent().map_or(0, Pid::as_u32)
}

/// Racy, as above.
pub(crate) fn sysinfo_is_descendant(system: &mut System, pid: u32, root: u32) -> bool {
    climb(pid, root, |pid| sysinfo_parent(system, pid))
}

fn climb(mut pid: u32, root: u32, mut parent: impl FnMut(u32) -> u32) -> bool {
    loop {
        pid = parent(pid);
        if pid == root {
            return true;
        }
        if pid == 0 {
            return false;
        }
    }
}

#[cfg(target_os = "linux")] // as above
pub(crate) fn procfs_table() -> Vec<(i32, i32)> {
    procfs::process::all_processes()
        .expect("a readable /proc")
        .filter_map(|process| process.ok()?.stat().ok())
        .map(|stat| (stat.pid, stat.ppid))
        .collect()
}

/// The system is kept between calls, as its documentation advises.
pub(crate) fn sysinfo_table(system: &mut System) -> Vec<(u32, Option<u32>)> {
    system.refresh_processes_specifics(ProcessesToUpdate::All, true, ProcessRefreshKind::nothing());
    system
        .processes()
        .iter()
        .map(|(pid, process)| (pid.as_u32(), process.parent().map(Pid::as_u32)))
        .collect()
}
