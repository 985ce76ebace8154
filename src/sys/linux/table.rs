//! One parent, one family, all of the table.

use std::os::fd::OwnedFd;

use nix::errno::Errno;
use nix::fcntl::{OFlag, open};
use nix::sys::stat::Mode;

use crate::error::{Error, Result};
use crate::parse::{self, keyed};
use crate::pid::Pid;
use crate::sys::backend::handle::Handle;
use crate::sys::backend::procfs::{self, ProcPath};
use crate::sys::backend::syscall;
use crate::sys::backend::world::{need_proc_now, world};
use crate::sys::backend::{step, thread};

/// The parent's PID of whatever process has this PID now.
#[inline]
pub(crate) fn parent_of(pid: Pid) -> Result<Option<Pid>> {
    use std::os::fd::AsFd;
    const TRIED: &str = "read the parent of process";
    let world = world()?;
    if world.info {
        let fd = step::open_pidfd(pid, TRIED)?;
        return step::ppid_of_pidfd(fd.as_fd(), pid, TRIED);
    }
    let stat = procfs::stat(pid, TRIED, world)?;
    if stat.is_thread() {
        return Err(Error::thread(pid, TRIED, thread::owner_of(pid)));
    }
    Ok(Pid::new(stat.ppid))
}

/// Visits every process in /proc with its parent, in ascending order. One that ends meanwhile is passed over; any
/// other trouble fails the scan (trap 12). Returns how many were passed over.
///
/// The kernel lists by ascending PID from wherever the last call stopped, so nothing that lives throughout is missed.
pub(crate) fn scan(mut each: impl FnMut(Pid, Option<Pid>)) -> Result<usize> {
    need_proc_now(None, "scan the process table")?;
    let mut ended = 0;
    let mut failed = None;
    list(c"/proc", |pid, _| {
        if failed.is_some() {
            return;
        }
        match parent_of(pid) {
            Ok(parent) => each(pid, parent),
            Err(error) if error.is_gone() || error.is_thread() => ended += 1,
            // Listed, and then hidden: the mount decides by uid, and a set-uid program changes it.
            Err(error) if error.is_denied() => ended += 1,
            Err(error) => failed = Some(error),
        }
    })
    .map_err(|errno| Error::os(None, "scan the process table", errno.into()))?;
    failed.map_or(Ok(ended), Err)
}

/// How many processes and threads were ever created on this machine. Whatever happened between two equal readings, none
/// was created, and so no PID was reused (trap 1). `None` where nobody counts: a /proc of processes alone (subset=pid),
/// and kernels that always say 0.
pub(crate) fn fork_count() -> Result<Option<u64>> {
    const TRIED: &str = "read the fork counter in /proc/stat";
    match procfs::read_all(c"/proc/stat") {
        Ok(text) => Ok(keyed::number(&text, "processes")
            .and_then(|count| u64::try_from(count).ok())
            .filter(|&n| n > 0)),
        Err(Errno::ENOENT | Errno::EACCES | Errno::EPERM) => Ok(None),
        Err(errno) => Err(Error::os(None, TRIED, errno.into())),
    }
}

/// How far the creation of processes has come, at one moment.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Forks {
    /// On this machine.
    count: u64,
    /// The PID that was given last in our PID namespace, where that is told.
    last: Option<u64>,
}

/// `None` where nobody counts.
pub(crate) fn forks() -> Result<Option<Forks>> {
    let last = number_in(c"/proc/sys/kernel/ns_last_pid");
    Ok(fork_count()?.map(|count| Forks { count, last }))
}

impl Forks {
    /// Whether nobody was created on the machine since `before`.
    pub(crate) fn none_since(&self, before: &Forks) -> bool {
        self.count == before.count
    }

    /// Whether no PID was given in our PID namespace since `before`. That is less: a PID is given some time before its
    /// process is there, milliseconds while somebody moves others into cgroups.
    pub(crate) fn none_given_since(&self, before: &Forks) -> bool {
        before.last.is_some() && before.last == self.last && self.reuse_none_since(before)
    }

    /// Whether no PID can have been given twice since `before`: they are given in ascending order, all round, and there
    /// were not forks enough for a whole round. (Whoever may write ns_last_pid can break that; `entries` cannot be
    /// fooled so.)
    pub(crate) fn reuse_none_since(&self, before: &Forks) -> bool {
        // RESERVED_PIDS: where the second round begins.
        const RESERVED: u64 = 300;
        let Some(most) = number_in(c"/proc/sys/kernel/pid_max") else { return false };
        // A count of 16 bits is all that sysinfo(2) has.
        let tasks = if most <= u64::from(u16::MAX) {
            nix::sys::sysinfo::sysinfo().ok().map(|info| u64::from(info.process_count()))
        } else {
            number_in(c"/proc/sys/kernel/threads-max")
        };
        tasks.is_some_and(|tasks| self.count - before.count + tasks + RESERVED < most)
    }
}

fn number_in(path: &std::ffi::CStr) -> Option<u64> {
    procfs::read_all(path).ok().and_then(|text| parse::decimal(text.strip_suffix(b"\n")?))
}

/// The PIDs of all processes in /proc, at one moment or another of the listing.
pub(crate) fn listing() -> Result<Vec<Pid>> {
    Ok(entries()?.into_iter().map(|(pid, _)| pid).collect())
}

/// The same, with the numbers of their entries' inodes. Whoever has the PID of another one has another number, however it came
/// by that PID: the entry goes with its process. One process can get a new number, where the kernel is short of memory.
///
/// Before Linux 6.15 a PID is free a moment before the entry of its last bearer has gone (release_task, kernel/exit.c).
pub(crate) fn entries() -> Result<Vec<(Pid, u64)>> {
    const TRIED: &str = "list the processes";
    need_proc_now(None, TRIED)?;
    let mut entries = Vec::with_capacity(256);
    list(c"/proc", |pid, inode| entries.push((pid, inode)))
        .map_err(|errno| Error::os(None, TRIED, errno.into()))?;
    Ok(entries)
}

/// The PIDs of the children, from the kernel's own lists, one a thread (trap 17).
///
/// The kernel can skip a child while another one is unlinked during the reading, and a thread's end moves its children
/// to another thread's list. Both change what a second reading shows, so two equal readings are believed: a child
/// skipped by the first must stand behind one that the second cannot show any more. Where the lists do not hold still,
/// or the kernel has none, the whole table is scanned, which skips nobody.
pub(crate) fn children_of(parent: &Handle) -> Result<Vec<Pid>> {
    const TRIED: &str = "list the children of process";
    let world = world()?;
    if procfs::own_pid() != Ok(world.me) {
        // Another /proc than was found at first.
        need_proc_now(parent.pid(), TRIED)?;
    }
    if world.children {
        let mut last = None;
        for _ in 0..4 {
            match lists(parent.pid()) {
                Ok(now) => {
                    if last.as_ref() == Some(&now) {
                        return Ok(now.children);
                    }
                    last = Some(now);
                }
                Err(Errno::ENOENT | Errno::ESRCH) if parent.is_reaped()? => {
                    return Err(Error::gone(parent.pid(), TRIED));
                }
                // A thread ended under us.
                Err(Errno::ENOENT | Errno::ESRCH) => last = None,
                Err(errno) => return Err(Error::os(parent.pid(), TRIED, errno.into())),
            }
        }
    }
    let mut children = Vec::new();
    scan(|pid, ppid| {
        if ppid == Some(parent.pid()) {
            children.push(pid);
        }
    })?;
    if parent.is_reaped()? {
        return Err(Error::gone(parent.pid(), TRIED));
    }
    Ok(children)
}

/// One reading: which threads there were, and the children of all of them.
#[derive(PartialEq, Eq)]
struct Lists {
    threads: Vec<Pid>,
    children: Vec<Pid>,
}

fn lists(pid: Pid) -> Result<Lists, Errno> {
    let mut lists = Lists { threads: Vec::new(), children: Vec::new() };
    list(ProcPath::new(pid, "/task").as_c_str(), |tid, _| lists.threads.push(tid))?;
    let mut text = Vec::new();
    for &tid in &lists.threads {
        let path = ProcPath::of_thread(pid, tid, "/children");
        let file = open(path.as_c_str(), OFlag::O_RDONLY | OFlag::O_CLOEXEC, Mode::empty())?;
        text.clear();
        procfs::read_to_end(&file, &mut text)?;
        parse::children::parse(&text, |child| lists.children.push(child)).ok_or(Errno::EIO)?;
    }
    Ok(lists)
}

/// The numbers that a directory lists.
pub(super) fn list(path: &std::ffi::CStr, mut each: impl FnMut(Pid, u64)) -> Result<(), Errno> {
    let directory: OwnedFd =
        open(path, OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC, Mode::empty())?;
    let mut buffer = vec![0; 32 * 1024];
    loop {
        let filled = syscall::getdents(std::os::fd::AsFd::as_fd(&directory), &mut buffer)?;
        if filled == 0 {
            return Ok(());
        }
        parse::dirent::pids(&buffer[..filled], &mut each).ok_or(Errno::EIO)?;
    }
}
