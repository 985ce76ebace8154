//! What else is to be known of a pinned process: its name, its environment, where it lives.

use std::os::fd::AsFd;

use nix::errno::Errno;
use nix::fcntl::{OFlag, open, openat};
use nix::sys::stat::{Mode, fstatat};

use crate::error::{Error, Result};
use crate::parse::proc_stat;
use crate::pid::Pid;
use crate::sys::backend::handle::{Handle, Kind};
use crate::sys::backend::procfs::{self, ProcPath};
use crate::sys::backend::table::list;

/// `include/linux/sched.h`
const PF_KTHREAD: u32 = 0x0020_0000;

impl Handle {
    /// The name of what it runs: the first 15 bytes of the file's, unless it has given itself another one.
    pub(crate) fn name(&self) -> Result<String> {
        const TRIED: &str = "read the name of process";
        let mut buffer = [0; 1280];
        let (_, line) = self.stat_line(TRIED, &mut buffer)?;
        let name = proc_stat::name(line).unwrap_or_default();
        Ok(String::from_utf8_lossy(name).into_owned())
    }

    /// Whether it is a thread of the kernel's own. (Not by its parent: the programs that the kernel starts have the same.)
    pub(crate) fn is_kernel_thread(&self) -> Result<bool> {
        const TRIED: &str = "read the flags of process";
        let mut buffer = [0; 1280];
        let (_, line) = self.stat_line(TRIED, &mut buffer)?;
        let flags = proc_stat::flags(line)
            .ok_or_else(|| Error::malformed(self.pid(), TRIED, "/proc/PID/stat has no field 9"))?;
        Ok(flags & PF_KTHREAD != 0)
    }

    /// The inode number of its mount namespace. Denied for processes that we may not ptrace; a zombie has none, which is
    /// [`Error::is_gone`].
    pub(crate) fn mount_namespace(&self) -> Result<u64> {
        const TRIED: &str = "read the mount namespace of process";
        let stat = match self.kind() {
            Kind::Pidfd => nix::sys::stat::stat(ProcPath::new(self.pid(), "/ns/mnt").as_c_str()),
            Kind::Directory => fstatat(self.as_fd(), c"ns/mnt", nix::fcntl::AtFlags::empty()),
        };
        let stat = match stat {
            // Its main thread has ended, and has none any more; others may not have.
            Err(Errno::ENOENT) => self.of_threads(|tid| {
                nix::sys::stat::stat(ProcPath::of_thread(self.pid(), tid, "/ns/mnt").as_c_str())
            }),
            stat => stat,
        };
        self.own(TRIED, stat.map(|stat| stat.st_ino))
    }

    /// The environment that it was started with, as it is in its memory now: `NAME=value`, each ended by a NUL. Empty for
    /// a zombie, and for one that is just being executed. Denied for processes that we may not ptrace.
    pub(crate) fn environment(&self) -> Result<Vec<u8>> {
        const TRIED: &str = "read the environment of process";
        let flags = OFlag::O_RDONLY | OFlag::O_CLOEXEC;
        let file = match self.kind() {
            Kind::Pidfd => open(ProcPath::new(self.pid(), "/environ").as_c_str(), flags, Mode::empty()),
            Kind::Directory => openat(self.as_fd(), c"environ", flags, Mode::empty()),
        };
        let mut text = Vec::new();
        let mut read = file.and_then(|file| procfs::read_to_end(&file, &mut text));
        if matches!(read, Ok(()) | Err(Errno::ESRCH | Errno::ENOENT)) && text.is_empty() {
            // Its main thread has ended, and has no memory any more; others may not have.
            read = self.of_threads(|tid| {
                text = procfs::read_all(ProcPath::of_thread(self.pid(), tid, "/environ").as_c_str())?;
                if text.is_empty() { Err(Errno::ENOENT) } else { Ok(()) }
            });
            read = read.or_else(|errno| if errno == Errno::ENOENT { Ok(()) } else { Err(errno) });
        }
        self.own(TRIED, read)?;
        Ok(text)
    }

    /// What the first thread that has it says; ENOENT if none has.
    fn of_threads<T>(&self, mut ask: impl FnMut(Pid) -> Result<T, Errno>) -> Result<T, Errno> {
        let mut threads = Vec::new();
        list(ProcPath::new(self.pid(), "/task").as_c_str(), |tid, _| threads.push(tid))?;
        for tid in threads {
            match ask(tid) {
                // It has ended, or just then.
                Err(Errno::ENOENT | Errno::ESRCH) => {}
                answer => return answer,
            }
        }
        Err(Errno::ENOENT)
    }

    /// What was read by the PID is of this process if it is not reaped after the reading.
    fn own<T>(&self, tried: &'static str, read: Result<T, Errno>) -> Result<T> {
        if self.is_reaped()? {
            return Err(Error::gone(self.pid(), tried));
        }
        read.map_err(|errno| match errno {
            // Not reaped: a zombie, which has neither.
            Errno::ENOENT | Errno::ESRCH => Error::gone(self.pid(), tried),
            errno => Error::os(self.pid(), tried, errno.into()),
        })
    }
}

/// Whether orphans are given to this process: as a subreaper (PR_SET_CHILD_SUBREAPER), or as the first of its PID
/// namespace.
pub(crate) fn adopts_orphans() -> bool {
    // Who cannot tell must expect them.
    Pid::current().get() == 1 || nix::sys::prctl::get_child_subreaper().unwrap_or(true)
}
