//! Linux. What a forked copy of a test process may run, in which other threads held locks when it was copied, stands in
//! `copy`.

mod copy;
mod facts;
mod held;
mod seccomp;
mod world;

use std::ffi::{CStr, CString};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::poll::PollFlags;
use nix::sys::signal::Signal;
use nix::sys::signalfd::{SfdFlags, SignalFd};

use super::{Fork, lifeline_ended, set_of, wait_for, wait_readable};

pub(crate) use copy::{spawn_chain, spawn_idle, spawn_idle_as};
pub(crate) use facts::{hear, pin_speaker, tell};
pub(crate) use held::fork_held;
pub(crate) use seccomp::deny;
pub(crate) use world::in_namespaces;

/// A process, pinned: its PID may be reused, this is never fooled.
#[derive(Debug)]
pub(crate) struct Pinned(OwnedFd);

impl Pinned {
    pub(crate) fn open(pid: u32) -> io::Result<Pinned> {
        // SAFETY: pidfd_open touches no memory
        let fd = Errno::result(unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) })?;
        // SAFETY: the kernel just gave us this descriptor, and nobody else has it
        Ok(Pinned(unsafe { OwnedFd::from_raw_fd(fd as i32) }))
    }

    pub(crate) fn try_clone(&self) -> io::Result<Pinned> {
        self.0.try_clone().map(Pinned)
    }

    pub(crate) fn signal(&self, signal: i32) -> io::Result<()> {
        let info = std::ptr::null::<libc::siginfo_t>();
        // SAFETY: a null info is allowed
        let sent = unsafe { libc::syscall(libc::SYS_pidfd_send_signal, self.0.as_raw_fd(), signal, info, 0) };
        Errno::result(sent)?;
        Ok(())
    }

    /// Waits until the process has ended (a zombie has); false when `timeout` passed before that.
    pub(crate) fn wait_ended(&self, timeout: Duration) -> io::Result<bool> {
        wait_readable(&[self.0.as_fd()], Some(timeout))
    }

    /// Waits until the process has been reaped; false when `timeout` passed before that.
    pub(crate) fn wait_reaped(&self, timeout: Duration) -> io::Result<bool> {
        let deadline = Instant::now() + timeout;
        loop {
            // ESRCH is the truth; the hang-up that announces it is new in Linux 6.9, hence the short waits
            if self.signal(0).is_err_and(|error| error.raw_os_error() == Some(libc::ESRCH)) {
                return Ok(true);
            }
            if Instant::now() >= deadline {
                return Ok(false);
            }
            wait_for(&[self.0.as_fd()], PollFlags::empty(), Some(Duration::from_millis(5)))?;
        }
    }

    /// Reaps the process if it is a child of ours that has ended.
    pub(crate) fn try_reap(&self) -> bool {
        use nix::sys::wait::{Id, WaitPidFlag, WaitStatus, waitid};
        let reaped = waitid(Id::PIDFd(self.0.as_fd()), WaitPidFlag::WEXITED | WaitPidFlag::WNOHANG);
        !matches!(reaped, Ok(WaitStatus::StillAlive) | Err(Errno::ECHILD))
    }
}

impl From<OwnedFd> for Pinned {
    fn from(pidfd: OwnedFd) -> Pinned {
        Pinned(pidfd)
    }
}

impl AsFd for Pinned {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// A pipe that no command inherits.
pub(crate) fn pipe() -> io::Result<(OwnedFd, OwnedFd)> {
    Ok(nix::unistd::pipe2(OFlag::O_CLOEXEC)?)
}

/// Whether whoever has this PID has ended, as far as `/proc` can tell: it says `Z` of a main thread that has ended
/// before the others, too.
pub(crate) fn looks_ended(pid: u32) -> bool {
    let threads = std::fs::read_dir(format!("/proc/{pid}/task")).map_or(0, Iterator::count);
    if threads > 1 {
        return false;
    }
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let state = stat.rsplit_once(") ").and_then(|(_, rest)| rest.chars().next());
    !matches!(state, Some('R' | 'S' | 'D' | 'T' | 't' | 'I'))
}

/// The number of the calling thread; that of the process in its main thread.
pub(crate) fn own_tid() -> i32 {
    nix::unistd::gettid().as_raw()
}

/// Starts a sibling: its parent is our parent.
pub(crate) fn clone_parent() -> io::Result<Fork> {
    raw_clone(libc::CLONE_PARENT)
}

/// Forks by the bare system call, with none of the C library's handlers.
fn raw_fork() -> io::Result<Fork> {
    raw_clone(0)
}

fn raw_clone(flags: i32) -> io::Result<Fork> {
    let flags = libc::c_long::from(flags | libc::SIGCHLD);
    // SAFETY: without CLONE_VM and without a stack, this is fork: the child goes on with a copy of everything
    let pid = Errno::result(unsafe { libc::syscall(libc::SYS_clone, flags, 0, 0, 0, 0) })?;
    Ok(if pid == 0 { Fork::Child } else { Fork::Parent(pid as i32) })
}

/// The arguments of clone3(2), up to `set_tid_size` (`CLONE_ARGS_SIZE_VER1`, Linux 5.5).
#[repr(C)]
struct CloneArgs {
    flags: u64,
    pidfd: u64,
    child_tid: u64,
    parent_tid: u64,
    exit_signal: u64,
    stack: u64,
    stack_size: u64,
    tls: u64,
    set_tid: u64,
    set_tid_size: u64,
}

const _: () = assert!(size_of::<CloneArgs>() == 80);

const CLONE_ARGS: CloneArgs = CloneArgs {
    flags: 0,
    pidfd: 0,
    child_tid: 0,
    parent_tid: 0,
    exit_signal: 0,
    stack: 0,
    stack_size: 0,
    tls: 0,
    set_tid: 0,
    set_tid_size: 0,
};

/// Forks a child with this PID in our own PID namespace.
fn raw_fork_as(pid: i32) -> io::Result<Fork> {
    let set_tid = (&raw const pid) as u64;
    raw_clone3(&CloneArgs { exit_signal: libc::SIGCHLD as u64, set_tid, set_tid_size: 1, ..CLONE_ARGS })
}

/// `args` has no stack, does not share memory, and what it points at is alive.
fn raw_clone3(args: &CloneArgs) -> io::Result<Fork> {
    let args: *const CloneArgs = args;
    // SAFETY: `args` is a clone_args of the size given, and what it points at is alive; as in raw_clone
    let pid = Errno::result(unsafe { libc::syscall(libc::SYS_clone3, args, size_of::<CloneArgs>()) })?;
    Ok(if pid == 0 { Fork::Child } else { Fork::Parent(pid as i32) })
}

/// Becomes the parent of descendants whose parent ends.
pub(crate) fn become_subreaper() -> io::Result<()> {
    Ok(nix::sys::prctl::set_child_subreaper(true)?)
}

/// Makes the process unreadable for others of its own user.
pub(crate) fn become_undumpable() -> io::Result<()> {
    Ok(nix::sys::prctl::set_dumpable(false)?)
}

/// Goes into a mount namespace of its own.
pub(crate) fn unshare_mount() -> io::Result<()> {
    Ok(nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNS)?)
}

/// Has whoever this process starts from now on be in the PID namespace of another, as nsenter(1) does.
pub(crate) fn enter_pid_namespace(of: u32) -> io::Result<()> {
    let namespace = std::fs::File::open(format!("/proc/{of}/ns/pid"))?;
    Ok(nix::sched::setns(namespace, nix::sched::CloneFlags::CLONE_NEWPID)?)
}

/// Has the kernel kill this process when the thread that forked it ends.
fn die_with_parent() -> io::Result<()> {
    Ok(nix::sys::prctl::set_pdeathsig(Signal::SIGKILL)?)
}

/// Sets the name of the calling thread, of which the kernel keeps 15 bytes.
pub(crate) fn name_thread(name: &[u8]) -> io::Result<()> {
    let name = CString::new(name).map_err(io::Error::other)?;
    Ok(nix::sys::prctl::set_name(&name)?)
}

/// Waits until this process has received a signal that is blocked, or standard input has reached its end (then false).
pub(crate) fn take(signal: i32) -> io::Result<bool> {
    let taken = SignalFd::with_flags(&set_of(signal)?, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)?;
    loop {
        if lifeline_ended(Some(taken.as_fd()), None)? {
            return Ok(false);
        }
        // Another thread may have been quicker
        if taken.read_signal()?.is_some() {
            return Ok(true);
        }
    }
}

/// Waits until `child` has ended, and leaves it a zombie.
pub(crate) fn wait_zombie(child: i32) -> io::Result<()> {
    use nix::sys::wait::{Id, WaitPidFlag, waitid};
    let child = nix::unistd::Pid::from_raw(child);
    loop {
        match waitid(Id::Pid(child), WaitPidFlag::WEXITED | WaitPidFlag::WNOWAIT) {
            // EINVAL: nix has no name for the (realtime) signal it died of
            Ok(_) | Err(Errno::EINVAL) => return Ok(()),
            Err(Errno::EINTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

/// Becomes user and group `id`, with no other groups; a user namespace that forbids setgroups has none to drop.
pub(crate) fn become_user(id: u32) -> io::Result<()> {
    use nix::unistd::{Gid, Uid, setgroups, setresgid, setresuid};
    match setgroups(&[]) {
        Err(Errno::EPERM)
            if std::fs::read_to_string("/proc/self/setgroups").is_ok_and(|it| it.trim() == "deny") => {}
        outcome => outcome?,
    }
    let (uid, gid) = (Uid::from_raw(id), Gid::from_raw(id));
    setresgid(gid, gid, gid)?;
    setresuid(uid, uid, uid)?;
    Ok(())
}

/// Ends the calling thread by the bare system call. In the main thread `pthread_exit` would unwind through Rust's
/// start-up code, and returning would end the process.
pub(crate) fn thread_exit() -> ! {
    // SAFETY: the thread's stack is never freed, and nothing of it is joined or dropped
    unsafe { libc::syscall(libc::SYS_exit, 0) };
    unreachable!("exit(2) does not return")
}

/// Paths under which this binary can be executed again, best first: the second is for a world without `/proc`.
pub(crate) fn executable() -> Vec<String> {
    // SAFETY: getauxval has no precondition
    let at_execfn = unsafe { libc::getauxval(libc::AT_EXECFN) };
    let mut paths = vec!["/proc/self/exe".to_owned()];
    if at_execfn != 0 {
        // SAFETY: AT_EXECFN is the address of a C string that lives as long as the process
        let path = unsafe { CStr::from_ptr(at_execfn as *const libc::c_char) };
        paths.extend(path.to_str().map(str::to_owned));
    }
    paths
}
